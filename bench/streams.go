package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// streams measures what an open stream costs that has nothing to say: many
// listeners, each in a conversation of its own, at one server.
type streams struct{}

type streamsResult struct {
	open   int
	idle   time.Duration
	memory float64       // KiB of each
	cpu    time.Duration // of each in a second
}

func (streams) prepare(context.Context, *bench) error { return nil }
func (streams) round(context.Context, *bench) error   { return nil }

func (streams) finish(ctx context.Context, b *bench) (err error) {
	p, err := b.start(ctx, "streams")
	if err != nil {
		return err
	}
	absent, err := p.newBot(ctx, "http://127.0.0.1:1")
	if err != nil {
		return err
	}
	guests, err := manyGuests(ctx, absent, b.streams)
	if err != nil {
		return err
	}
	pid := p.cmd.Process.Pid
	// Reading sees the server as it is when what it has no use for is given back.
	if err := pause(ctx, b.idle); err != nil {
		return err
	}
	before, err := resident(pid)
	if err != nil {
		return err
	}
	open := make([]*conn, len(guests))
	defer func() {
		for _, c := range open {
			if c != nil {
				err = errors.Join(err, c.close())
			}
		}
	}()
	if err := each(64, func(w int) error {
		for i := w; i < len(guests); i += 64 {
			c, err := absent.listen(guests[i])
			if err != nil {
				return err
			}
			open[i] = c
		}
		return ctx.Err()
	}); err != nil {
		return err
	}
	if err := pause(ctx, b.idle); err != nil { // what opening them took is no part of it
		return err
	}
	rest, err := metered(b.watch(p), func() (sample, error) { return sample{all: len(open)}, pause(ctx, b.idle) })
	if err != nil {
		return err
	}
	after, err := resident(pid)
	b.results.streams = &streamsResult{len(open), b.idle, (after - before) * 1024 / float64(len(open)), time.Duration(float64(rest.cost.nodes) / b.idle.Seconds())}
	return err
}

// manyGuests makes guests of a bot, with a conversation each.
func manyGuests(ctx context.Context, of *bot, n int) ([]guest, error) {
	const workers = 16
	all := make([]guest, n)
	err := each(workers, func(w int) (err error) {
		for i := w; i < n; i += workers {
			if all[i], err = of.guest(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	return all, err
}

func (b *bench) streamTable(w *strings.Builder) {
	s := b.results.streams
	if s == nil {
		return
	}
	fmt.Fprintf(w, "\n## Open streams\n\n%d listeners (SSE), each in a conversation of its own, in which nothing happens; a ping goes to each every 25 seconds. Read %s after they were opened, and %s later: each takes %.1f KiB of resident memory, without what the kernel keeps for its connection, and %.1f µs of CPU time a second.\n",
		s.open, s.idle, s.idle, s.memory, float64(s.cpu)/1000)
}
