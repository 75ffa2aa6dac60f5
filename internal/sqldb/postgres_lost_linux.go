package sqldb

import (
	"syscall"
	"time"
)

// dropUnanswered bounds how long the kernel waits for a sign that what was sent
// has arrived; left alone it would try for a quarter of an hour.
func dropUnanswered(c syscall.RawConn, after time.Duration) {
	const userTimeout = 18 // TCP_USER_TIMEOUT, which package syscall does not name
	_ = c.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, userTimeout, int(after.Milliseconds())) // without it, it takes longer
	}) // a socket that is closed already shows itself when it connects
}
