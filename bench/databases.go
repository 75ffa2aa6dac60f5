package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
)

// databases measures one server on PostgreSQL beside one on SQLite: durable
// messages for a bot that is down, and full turns. Both take turns with each
// other and with a floor of their own.
type databases struct{ engines []*measuredEngine }

// measuredEngine is a server on one kind of database.
type measuredEngine struct {
	name, floor string
	p           *parley
	down        [][]byte
	turn        *turn
}

func (s *databases) prepare(ctx context.Context, b *bench) error {
	for _, e := range []*measuredEngine{{name: onSQLite, floor: "commit"}, {name: onPostgres, floor: "insert"}} {
		var err error
		if e.p, err = b.at(ctx, e.name, "databases"); err != nil {
			return err
		}
		absent, err := e.p.newBot(ctx, "http://127.0.0.1:1")
		if err != nil {
			return err
		}
		if e.down, err = messages(ctx, absent); err != nil {
			return err
		}
		e.turn = &turn{nodes: []*parley{e.p}}
		if err := e.turn.prepare(ctx, b); err != nil {
			return err
		}
		s.engines = append(s.engines, e)
	}
	b.beside = append(b.beside, func(ctx context.Context, n int) error {
		if err := b.measureFloor(ctx, "insert", n, name("insert", n)); err != nil { // the other is measured with the floors
			return err
		}
		for _, e := range s.engines {
			if err := e.create(ctx, b, n); err != nil {
				return fmt.Errorf("create on %s: %w", e.name, err)
			}
		}
		return nil
	})
	return nil
}

func (e *measuredEngine) create(ctx context.Context, b *bench, n int) error {
	got, err := metered(b.watch(e.p), func() (sample, error) {
		return requests(ctx, e.p.addr, n, http.StatusCreated, b.step, rotate(e.down, n))
	})
	b.results.add(name(e.name+" create", n), got)
	return err
}

func (s *databases) round(ctx context.Context, b *bench) error {
	for _, n := range turns {
		for _, e := range s.engines {
			got, err := metered(b.watch(e.p), func() (sample, error) { return e.turn.measure(ctx, b, n) })
			if err != nil {
				return fmt.Errorf("turn on %s: %w", e.name, err)
			}
			b.results.add(name(e.name+" turn", n), got)
		}
	}
	return nil
}

func (s *databases) finish(context.Context, *bench) error {
	var nodes []*parley
	for _, e := range s.engines {
		nodes = append(nodes, e.p)
	}
	return endAll(nodes)
}

func (b *bench) databaseTable(w *strings.Builder) {
	r := &b.results
	if !r.has(onPostgres + " create/1") {
		return
	}
	fmt.Fprintf(w, "\n## PostgreSQL beside SQLite\n\nOne server on each. Durable create: `createMessage` over %d conversations for a bot that is down. The floor of SQLite is the group commit of one row, ", conversations)
	w.WriteString("that of PostgreSQL one row in a transaction of its own over 16 connections, both behind net/http + JSON. A turn is a message over the Chat API, its event at a bot, the reply, its signal at the listener; its CPU time is that of both messages and everything between.\n\n")
	w.WriteString("| what | of its floor | of SQLite | per second | p50 ms | p99 ms | CPU µs: server | PostgreSQL |\n|---|--:|--:|--:|--:|--:|--:|--:|\n")
	row := func(title, series, floor, other string) {
		of := func(base string) string {
			if base == "" || !r.has(base) {
				return ""
			}
			return fmt.Sprintf("%.2f", r.ratio(series, base, rate))
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s |\n", title, of(floor), of(other), r.figures(series), r.micros(series, nodesCost), r.micros(series, databaseCost))
	}
	for _, engine := range []struct{ name, floor, other string }{{onSQLite, "commit", ""}, {onPostgres, "insert", onSQLite}} {
		for _, n := range connections {
			other := ""
			if engine.other != "" {
				other = name(engine.other+" create", n)
			}
			row(fmt.Sprintf("%s: create at %d", engine.name, n), name(engine.name+" create", n), name(engine.floor, n), other)
		}
		for _, n := range turns {
			other := ""
			if engine.other != "" {
				other = name(engine.other+" turn", n)
			}
			row(fmt.Sprintf("%s: turns at %d", engine.name, n), name(engine.name+" turn", n), "", other)
		}
	}
	for _, f := range []struct{ series, title string }{{"commit", "floor on SQLite"}, {"insert", "floor on PostgreSQL"}} {
		for _, n := range connections {
			row(fmt.Sprintf("%s at %d", f.title, n), name(f.series, n), "", "")
		}
	}
}
