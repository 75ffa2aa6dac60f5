//go:build unix

package app

import (
	"net"
	"syscall"
)

// descriptors is how many this process may have, 0 if nobody knows.
func descriptors() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil || l.Cur > 1<<30 {
		return 0
	}
	return int(l.Cur)
}

// number is that of a connection's descriptor, 0 if it has none.
func number(c net.Conn) (n int) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { n = int(fd) }) // a closed connection shows itself later
	return n
}
