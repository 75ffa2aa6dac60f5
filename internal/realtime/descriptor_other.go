//go:build !unix

package realtime

import (
	"net"
	"time"
)

// descriptor has no form here: all frames pass through the queue.
type descriptor struct{}

func newDescriptor(net.Conn) *descriptor { return nil }

func (*descriptor) tryWrite([]byte) (int, error) { return 0, nil }

func (*descriptor) hungUp() bool { return false }

func (*descriptor) dropUnanswered(time.Duration) {}
