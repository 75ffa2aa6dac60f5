//go:build unix

package main

import "golang.org/x/sys/unix"

// restrictFiles keeps what this program writes from other users of the machine.
func restrictFiles() { unix.Umask(0o077) }
