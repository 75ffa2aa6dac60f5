package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// nodes measures what a message costs on one, two and three servers that share a
// PostgreSQL database and hear of each other over NATS. The machine is too small
// to show them faster together: what is compared is the CPU time of a message.
type nodes struct {
	all  []*parley
	down [][]byte
	turn *turn
}

const (
	mostNodes   = 3  // servers
	atOnce      = 64 // connections that create messages
	talking     = 32 // conversations that have turns
	nodesCreate = "create on"
	nodesTurn   = "turn on"
	nodesIdle   = "idle on"
	nodesHints  = "hints of"
	nodesFloor  = "insert beside them"
)

func (s *nodes) prepare(ctx context.Context, b *bench) (err error) {
	if s.all, err = b.cluster(ctx, "node", mostNodes); err != nil {
		return err
	}
	absent, err := s.all[0].newBot(ctx, "http://127.0.0.1:1")
	if err != nil {
		return err
	}
	if s.down, err = messages(ctx, absent); err != nil {
		return err
	}
	s.turn = &turn{nodes: s.all[:1]}
	return s.turn.prepare(ctx, b)
}

// round lets one server after the other join, and sends all but the first away again.
func (s *nodes) round(ctx context.Context, b *bench) error {
	if err := b.measureFloor(ctx, "insert", atOnce, nodesFloor); err != nil {
		return err
	}
	for n := 1; n <= mostNodes; n++ {
		if n > 1 {
			if _, err := s.all[n-1].run(ctx); err != nil {
				return err
			}
		}
		if err := s.measure(ctx, b, n); err != nil {
			return fmt.Errorf("%d servers: %w", n, err)
		}
	}
	return endAll(s.all[1:])
}

func (s *nodes) measure(ctx context.Context, b *bench, n int) error {
	running := s.all[:n]
	w := b.watch(running...)
	idle, err := metered(w, func() (sample, error) { return sample{all: 1}, pause(ctx, b.step) })
	if err != nil {
		return err
	}
	b.results.add(name(nodesIdle, n), idle)
	made, err := metered(w, func() (sample, error) {
		return requestsTo(ctx, addresses(running), atOnce, http.StatusCreated, b.step, rotate(s.down, atOnce))
	})
	if err != nil {
		return err
	}
	b.results.add(name(nodesCreate, n), made)
	before, err := s.hints(ctx, running)
	if err != nil {
		return err
	}
	s.turn.nodes = running
	s.turn.replier.moveTo(running)
	turned, err := metered(w, func() (sample, error) { return s.turn.measure(ctx, b, talking) })
	if err != nil {
		return err
	}
	b.results.add(name(nodesTurn, n), turned)
	after, err := s.hints(ctx, running)
	b.results.add(name(nodesHints, n), sample{rate: (after - before) / float64(turned.all)})
	return err
}

// hints is how many messages the servers have given to NATS.
func (s *nodes) hints(ctx context.Context, running []*parley) (total float64, err error) {
	for _, p := range running {
		n, err := p.metric(ctx, `parley_bus_messages_total{what="sent"}`)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

func (s *nodes) finish(_ context.Context, b *bench) (err error) {
	if b.results.resident, err = resident(s.all[0].cmd.Process.Pid); err != nil {
		return err
	}
	return s.all[0].end()
}

// pause waits, and ends with ctx.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *bench) nodeTable(w *strings.Builder) {
	r := &b.results
	if !r.has(name(nodesTurn, 1)) {
		return
	}
	fmt.Fprintf(w, "\n## Servers on one database\n\n1, 2 and 3 servers on one PostgreSQL database and one NATS server, all on this machine: with %s for all of them, more servers cannot be faster here, and the figure is the CPU time of a message. ", cores())
	fmt.Fprintf(w, "Created over %d connections spread over the servers, for a bot that is down; turns in %d conversations, whose guests write at one server, listen at the next, and whose bot replies at any. A turn is two messages and an event.\n\n", atOnce, talking)
	w.WriteString("| what | servers | CPU of the servers, of one | CPU of PostgreSQL, of one server | CPU µs: servers together | the busiest | PostgreSQL | NATS | per second | p50 ms | p99 ms |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, part := range []struct{ series, title string }{{nodesCreate, "create"}, {nodesTurn, "turn"}} {
		one := name(part.series, 1)
		for n := 1; n <= mostNodes; n++ {
			s := name(part.series, n)
			fmt.Fprintf(w, "| %s | %d | %.2f | %.2f | %s | %s | %s | %s | %s |\n", part.title, n, r.ratio(s, one, nodesCost), r.ratio(s, one, databaseCost),
				r.micros(s, nodesCost), r.micros(s, busiestCost), r.micros(s, databaseCost), r.micros(s, wireCost), r.figures(s))
		}
	}
	const floor = nodesFloor
	fmt.Fprintf(w, "| floor: one row | 1 | | | %s | %s | %s | | %s |\n", r.micros(floor, nodesCost), r.micros(floor, busiestCost), r.micros(floor, databaseCost), r.figures(floor))
	for n := 1; n <= mostNodes; n++ {
		share := func(of func(sample) float64) float64 { return 100 * r.median(name(nodesIdle, n), of) / float64(b.step) }
		fmt.Fprintf(w, "\n%s: between the steps %.1f %% of one core for all, PostgreSQL %.1f %%; a turn sends %.1f hints over NATS.", counted(n, "server"), share(nodesCost), share(databaseCost), r.median(name(nodesHints, n), rate))
	}
	fmt.Fprintf(w, "\n\nResident memory of the first server at the end: %.1f MiB.\n", r.resident)
}
