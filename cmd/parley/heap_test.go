package main

import (
	"context"
	"runtime"
	"runtime/metrics"
	"testing"
)

func TestHeapGoal(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		live uint64
		want int
	}{{0, 1500}, {1 << 20, 1500}, {8 << 20, 700}, {32 << 20, 100}, {1 << 30, 100}} {
		if got := gcPercent(c.live); got != c.want {
			t.Errorf("%d bytes in use: %d, want %d", c.live, got, c.want)
		}
	}
}

// Go's own variables count for more.
func TestHeapIsLeftAloneWhereGOGCIsSet(t *testing.T) {
	t.Setenv("GOGC", "100")
	tendHeap(t.Context()) // returns at once
}

func TestHeapIsTended(t *testing.T) {
	t.Setenv("GOGC", "")
	t.Setenv("GOMEMLIMIT", "")
	percent := func() uint64 {
		s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	before := percent()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); tendHeap(ctx) }()
	for percent() == before {
		runtime.Gosched()
	}
	ballast := make([]byte, 40<<20)
	for percent() != 100 { // what it falls to once so much is in use
		runtime.GC()
	}
	runtime.KeepAlive(ballast)
	cancel()
	<-done
	if got := percent(); got != before {
		t.Errorf("left at %d, want %d", got, before)
	}
}
