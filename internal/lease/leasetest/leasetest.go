// Package leasetest is the contract of lease.Lease, as a test that every
// implementation passes.
package leasetest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"parley/internal/lease"
)

// Run tests two leases as two nodes have them; on a single node they are the same.
func Run(t *testing.T, a, b lease.Lease) {
	t.Helper()
	for name, fn := range map[string]func(*testing.T, lease.Lease, lease.Lease){
		"the error of fn is returned": result,
		"one holder at a time":        exclusive,
		"names are independent":       names,
		"ctx ends the wait":           wait,
		"ctx ends fn":                 end,
		"a panic gives it up":         panics,
	} {
		t.Run(name, func(t *testing.T) { fn(t, a, b) })
	}
}

var errOwn = errors.New("own")

func result(t *testing.T, a, b lease.Lease) {
	for _, l := range []lease.Lease{a, b, a} {
		if err := l.Hold(t.Context(), "result", func(context.Context) error { return errOwn }); err != errOwn {
			t.Errorf("got %v, want the error of fn", err)
		}
		if err := l.Hold(t.Context(), "result", func(context.Context) error { return nil }); err != nil {
			t.Errorf("got %v, want nil", err)
		}
	}
}

func exclusive(t *testing.T, a, b lease.Lease) {
	var wg sync.WaitGroup
	var holders, runs atomic.Int64
	for i := range 6 {
		l := []lease.Lease{a, b}[i%2]
		wg.Go(func() {
			err := l.Hold(t.Context(), "exclusive", func(ctx context.Context) error {
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d holders at a time", n)
				}
				defer holders.Add(-1)
				runs.Add(1)
				return ctx.Err()
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if runs.Load() != 6 {
		t.Errorf("%d runs, want 6", runs.Load())
	}
}

func names(t *testing.T, a, b lease.Lease) {
	err := a.Hold(t.Context(), "name 1", func(ctx context.Context) error {
		return b.Hold(ctx, "name 2", func(ctx context.Context) error {
			return a.Hold(ctx, "name 3", func(context.Context) error { return nil })
		})
	})
	if err != nil {
		t.Error(err)
	}
}

func wait(t *testing.T, a, b lease.Lease) {
	err := a.Hold(t.Context(), "wait", func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		failed := make(chan error)
		go func() {
			failed <- b.Hold(ctx, "wait", func(context.Context) error {
				t.Error("two hold it")
				return nil
			})
		}()
		cancel()
		return <-failed
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = b.Hold(ctx, "wait", func(context.Context) error { t.Error("fn ran under a context that had ended"); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
}

func end(t *testing.T, a, b lease.Lease) {
	ctx, cancel := context.WithCancel(t.Context())
	err := a.Hold(ctx, "end", func(ctx context.Context) error {
		cancel()
		<-ctx.Done()
		return errOwn
	})
	if err != errOwn {
		t.Errorf("got %v, want the error of fn", err)
	}
	if err := b.Hold(t.Context(), "end", func(context.Context) error { return nil }); err != nil {
		t.Error(err)
	}
}

func panics(t *testing.T, a, b lease.Lease) {
	func() {
		defer func() {
			if v := recover(); v != "boom" {
				t.Errorf("recovered %v, want boom", v)
			}
		}()
		_ = a.Hold(t.Context(), "panic", func(context.Context) error { panic("boom") })
	}()
	if err := b.Hold(t.Context(), "panic", func(context.Context) error { return nil }); err != nil {
		t.Error(err)
	}
}
