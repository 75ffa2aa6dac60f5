package app

import "net"

// descriptors are not limited here.
func descriptors() int { return 0 }

func number(net.Conn) int { return 0 }
