//go:build unix

package realtime

import (
	"net"
	"runtime"
	"syscall"
	"time"
)

// descriptor reaches the socket of a connection past Go's poller, for what must
// not wait. The caller keeps calls apart.
type descriptor struct {
	conn  syscall.RawConn
	p     []byte
	n     int
	err   error
	write func(fd uintptr) // made once: a closure per write would be garbage
}

// newDescriptor is nil for connections that are not plain sockets.
func newDescriptor(c net.Conn) *descriptor {
	socket, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	conn, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	d := &descriptor{conn: conn}
	d.write = d.writeFD
	return d
}

// tryWrite writes what the socket takes now.
func (d *descriptor) tryWrite(p []byte) (int, error) {
	d.p, d.n, d.err = p, 0, nil
	err := d.conn.Control(d.write)
	d.p = nil
	if err != nil {
		return 0, err
	}
	return d.n, d.err
}

func (d *descriptor) writeFD(fd uintptr) {
	for d.n < len(d.p) {
		n, err := syscall.Write(int(fd), d.p[d.n:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return
		case err != nil:
			d.err = err
			return
		}
		d.n += n
	}
}

// hungUp reports whether the peer has closed its side. What it sent instead is
// thrown away, within bounds: a listener has nothing to say.
func (d *descriptor) hungUp() (gone bool) {
	err := d.conn.Control(func(fd uintptr) {
		var waste [1024]byte
		for range 16 {
			n, err := syscall.Read(int(fd), waste[:])
			switch {
			case err == syscall.EINTR:
				continue
			case err == syscall.EAGAIN:
				return
			case err != nil || n == 0:
				gone = true
				return
			}
		}
	})
	return gone || err != nil
}

// dropUnanswered lets the kernel give up on a peer that has acknowledged
// nothing for d; left alone it would try for a quarter of an hour. Only Linux
// has the setting.
func (d *descriptor) dropUnanswered(after time.Duration) {
	const userTimeout = 18 // TCP_USER_TIMEOUT, which package syscall does not name
	if runtime.GOOS != "linux" {
		return
	}
	_ = d.conn.Control(func(fd uintptr) {
		// Not a TCP socket: nothing to set.
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, userTimeout, int(after.Milliseconds()))
	}) // a closed connection shows itself with the first write
}
