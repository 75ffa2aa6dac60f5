package sqldbtest

import (
	"net"
	"syscall"
)

// Silence has the kernel throw away what arrives at c before anybody sees it, as
// a firewall does that has forgotten a connection: the other side hears nothing any
// more, not even that its bytes have come.
func Silence(c net.Conn) error {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	nothing := []syscall.SockFilter{{Code: syscall.BPF_RET | syscall.BPF_K, K: 0}}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = syscall.AttachLsf(int(fd), nothing) })
	if err != nil {
		return err
	}
	return failed
}
