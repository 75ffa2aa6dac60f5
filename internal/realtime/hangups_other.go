//go:build !linux

package realtime

import "context"

// hangups has no form here: a client that has left is found by the next ping.
type hangups struct{}

func newHangups() (*hangups, error) { return nil, nil }

func (*hangups) watch(*listener, *descriptor) {}

func (*hangups) forget(*listener) {}

func (*hangups) run(context.Context) {}

func (*hangups) close() {}
