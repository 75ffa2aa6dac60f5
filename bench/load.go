package main

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"
)

// sample is one measured step.
type sample struct {
	rate     float64 // operations a second
	p50, p99 time.Duration
}

// warm is the part of a step that runs before anything is counted.
func warm(step time.Duration) time.Duration { return min(step/4, 500*time.Millisecond) }

// closedLoop lets workers repeat op for the length of a step, each asking again
// as soon as it is answered. op(w, n) is worker w's n-th operation.
func closedLoop(ctx context.Context, workers int, step time.Duration, op func(w, n int) error) (sample, error) {
	begin := time.Now().Add(warm(step))
	end := begin.Add(step)
	took := make([][]time.Duration, workers)
	errs := make([]error, workers)
	var running sync.WaitGroup
	for w := range workers {
		running.Go(func() { took[w], errs[w] = loop(ctx, begin, end, func(n int) error { return op(w, n) }) })
	}
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		return sample{}, err
	}
	all := slices.Concat(took...)
	return summarise(all, step), ctx.Err()
}

func loop(ctx context.Context, begin, end time.Time, op func(n int) error) ([]time.Duration, error) {
	took := make([]time.Duration, 0, 1<<14)
	for n := 0; ; n++ {
		start := time.Now()
		if !start.Before(end) || ctx.Err() != nil {
			return took, nil
		}
		if err := op(n); err != nil {
			return nil, err
		}
		if start.After(begin) {
			took = append(took, time.Since(start))
		}
	}
}

func summarise(took []time.Duration, step time.Duration) sample {
	slices.Sort(took)
	return sample{float64(len(took)) / step.Seconds(), quantile(took, 0.50), quantile(took, 0.99)}
}

// quantile of sorted values, 0 of none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[max(i, 0)]
}

func median[T float64 | time.Duration](values []T) T {
	if len(values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// pool holds one connection for each worker.
func pool(addr string, n int) ([]*conn, func() error, error) {
	conns := make([]*conn, 0, n)
	closeAll := func() error {
		var errs []error
		for _, c := range conns {
			errs = append(errs, c.close())
		}
		return errors.Join(errs...)
	}
	for range n {
		c, err := dial(addr)
		if err != nil {
			return nil, nil, errors.Join(err, closeAll())
		}
		conns = append(conns, c)
	}
	return conns, closeAll, nil
}

// requests runs a closed loop of requests over n connections; pick gives worker w's n-th request.
func requests(ctx context.Context, addr string, n, status int, step time.Duration, pick func(w, n int) []byte) (sample, error) {
	conns, closeAll, err := pool(addr, n)
	if err != nil {
		return sample{}, err
	}
	s, err := closedLoop(ctx, n, step, func(w, n int) error {
		_, err := conns[w].expect(status, pick(w, n))
		return err
	})
	return s, errors.Join(err, closeAll())
}
