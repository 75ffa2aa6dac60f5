package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// memory measures the resident memory of a server after many messages and a rest.
type memory struct{}

func (memory) prepare(context.Context, *bench) error { return nil }
func (memory) round(context.Context, *bench) error   { return nil }

func (memory) finish(ctx context.Context, b *bench) error {
	p, err := b.start(ctx, "memory")
	if err != nil {
		return err
	}
	fresh, err := resident(p.cmd.Process.Pid)
	if err != nil {
		return err
	}
	if err := fill(ctx, p, b.messages); err != nil {
		return err
	}
	busy, err := resident(p.cmd.Process.Pid)
	if err != nil {
		return err
	}
	select {
	case <-time.After(b.idle):
	case <-ctx.Done():
		return ctx.Err()
	}
	rest, err := resident(p.cmd.Process.Pid)
	b.results.memory = &memoryResult{b.messages, b.idle, fresh, busy, rest}
	return errors.Join(err, p.end())
}

type memoryResult struct {
	messages          int
	idle              time.Duration
	fresh, busy, rest float64 // MiB
}

// resident reads VmRSS in MiB.
func resident(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(v)[0], 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("no VmRSS for process %d", pid)
}

// each runs n workers and joins their errors.
func each(n int, work func(w int) error) error {
	errs := make([]error, n)
	var running sync.WaitGroup
	for w := range n {
		running.Go(func() { errs[w] = work(w) })
	}
	running.Wait()
	return errors.Join(errs...)
}
