package delivery

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"parley/internal/endpoint"
)

func TestPoolBoundsCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		busy := map[string]int{}
		release := make(chan struct{})
		p := NewPool(handler(func(_ context.Context, id string, _ endpoint.Operation) (endpoint.Answer, error) {
			mu.Lock()
			busy[id]++
			mu.Unlock()
			<-release
			return endpoint.Answer{Status: 200}, nil
		}), 3, 2)
		results := make(chan error, 100)
		call := func(id string) {
			go func() {
				_, err := p.Call(t.Context(), id, endpoint.Operation{})
				results <- err
			}()
		}
		for range 5 {
			call("a")
		}
		synctest.Wait()
		call("b")
		call("b")
		synctest.Wait()
		mu.Lock()
		if busy["a"] != 2 || busy["b"] != 1 {
			t.Errorf("in flight: %v, want two of a and one of b", busy)
		}
		mu.Unlock()
		call("a") // two in flight, three wait
		synctest.Wait()
		if err := <-results; !errors.Is(err, ErrFull) {
			t.Errorf("one more: %v, want ErrFull", err)
		}
		close(release)
		synctest.Wait()
		for range 7 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if len(p.endpoints) != 0 || len(p.calls) != 0 {
			t.Errorf("%d endpoints and %d places are left", len(p.endpoints), len(p.calls))
		}
	})
}

func TestPoolCallEndsWithItsContextAndLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(limited{func(ctx context.Context, _ string, _ endpoint.Operation) (endpoint.Answer, error) {
			<-ctx.Done()
			return endpoint.Answer{}, ctx.Err()
		}, time.Minute}, 1, 1)
		begin := time.Now()
		first := make(chan error, 1)
		go func() {
			_, err := p.Call(t.Context(), "a", endpoint.Operation{})
			first <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := p.Call(ctx, "a", endpoint.Operation{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting: %v, want the end of the context", err)
		}
		if err := <-first; endpoint.Classify(endpoint.Answer{}, err) != endpoint.TimedOut {
			t.Errorf("the call ended with %v, want a timeout", err)
		}
		if took := time.Since(begin); took != time.Minute {
			t.Errorf("the call took %v, want its limit of a minute", took)
		}
	})
}

func TestPoolCallThatPanicsIsAnError(t *testing.T) {
	t.Parallel()
	p := NewPool(handler(func(context.Context, string, endpoint.Operation) (endpoint.Answer, error) { panic("a bug") }), 1, 1)
	for range 2 { // the place is given back
		_, err := p.Call(t.Context(), "a", endpoint.Operation{})
		if _, ok := errors.AsType[*endpoint.PanicError](err); !ok {
			t.Errorf("error %v, want a PanicError", err)
		}
	}
}
