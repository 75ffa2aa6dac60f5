package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// heapGoal is how far the heap may grow before it is collected, however
	// little of it is in use. What a server keeps is a few megabytes, and Go by
	// itself would collect each time as much again has been allocated: dozens of
	// times a second under load.
	heapGoal = 64 << 20

	// A server that has become quiet gives back what it does not need.
	quietPeriod = 10 * time.Second
	quietBytes  = 8 << 20 // allocated in a period, at most
	worthwhile  = 4 << 20 // allocated since it was given back last, at least
)

// tendHeap spaces collections out until ctx ends. Who sets GOGC or GOMEMLIMIT
// has decided otherwise.
func tendHeap(ctx context.Context) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	percent := gcPercent(heapGoal / 16)
	defer debug.SetGCPercent(debug.SetGCPercent(percent))
	collected := make(chan struct{}, 1)
	afterCollection(collected)
	quiet := time.NewTicker(quietPeriod)
	defer quiet.Stop()
	var last, returned uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-collected:
			afterCollection(collected)
			live, _ := heap()
			if next := gcPercent(live); next < percent-percent/8 || next > percent+percent/8 {
				percent = next
				debug.SetGCPercent(percent)
			}
		case <-quiet.C:
			_, allocated := heap()
			if allocated-last < quietBytes && allocated-returned > worthwhile {
				debug.FreeOSMemory()
				_, allocated = heap()
				returned = allocated
			}
			last = allocated
		}
	}
}

// gcPercent is the GOGC at which a heap that has so many bytes in use grows to
// heapGoal, or to its double where that is more.
func gcPercent(live uint64) int {
	const usual, most = 100, 100 * (16 - 1)
	if live >= heapGoal/2 {
		return usual
	}
	return int(min(most, (heapGoal-live)*100/max(live, 1)))
}

// afterCollection sends to c when the next collection has run.
func afterCollection(c chan<- struct{}) {
	type sentinel struct{ _ *byte }
	runtime.AddCleanup(&sentinel{}, func(c chan<- struct{}) {
		select {
		case c <- struct{}{}:
		default: // it is known already
		}
	}, c)
}

// heap says how many bytes the last collection found in use, and how many have
// been allocated since the start of the process.
func heap() (live, allocated uint64) {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64(), s[1].Value.Uint64()
}
