//go:build !linux

package sqldb

import (
	"syscall"
	"time"
)

// dropUnanswered has no form here: what was sent and did not arrive is noticed
// when txTimeout has passed.
func dropUnanswered(syscall.RawConn, time.Duration) {}
