//go:build unix

package outbound

import "syscall"

// alive reports whether the peer of an idle connection has kept it open and
// silent. Whatever can be read now is its end, or words that nobody asked for.
func (k *conn) alive() bool {
	if k.control == nil {
		return true
	}
	var nothing bool
	err := k.control.Read(func(fd uintptr) bool {
		var b [1]byte
		_, err := syscall.Read(int(fd), b[:])
		nothing = err == syscall.EAGAIN
		return true
	})
	return err == nil && nothing
}
