package main

import (
	"fmt"
	"runtime"
	"strings"

	"parley/bench/costs"
)

// counted is n of something.
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func cores() string { return counted(runtime.NumCPU(), "core") }

// costs are what the sizing calculator reckons with, as far as this run has measured it.
func (b *bench) costs() costs.Set {
	r := &b.results
	s := costs.Set{}
	put := func(name, series string, of func(sample) float64, unit float64) {
		if r.has(series) {
			s[name] = r.median(series, of) / unit
		}
	}
	const micro = 1000
	most := name(nodesTurn, mostNodes)
	put(costs.TurnSQLite, name(onSQLite+" turn", talking), nodesCost, micro)
	put(costs.TurnServer, name(nodesTurn, 1), nodesCost, micro)
	put(costs.TurnServers, most, nodesCost, micro)
	put(costs.TurnPostgres, most, databaseCost, micro)
	put(costs.TurnNATS, most, wireCost, micro)
	put(costs.TurnHints, name(nodesHints, mostNodes), rate, 1)
	put(costs.Rate+"sqlite", name(onSQLite+" turn", talking), rate, 1)
	put(costs.Rate+"postgres", name(onPostgres+" turn", talking), rate, 1)
	grown := func(name, engine string, of func(sample) float64) {
		if many := manySeries(engine, b.largest, 16); r.has(many) {
			s[name] = r.ratio(many, fewSeries(engine, b.largest, 16), of)
		}
	}
	grown(costs.GrowSQLite, onSQLite, nodesCost)
	grown(costs.GrowServer, onPostgres, nodesCost)
	grown(costs.GrowPostgres, onPostgres, databaseCost)
	if t := r.streams; t != nil {
		s[costs.StreamMemory], s[costs.StreamCPU] = t.memory, float64(t.cpu)/micro
	}
	if r.resident > 0 {
		s[costs.ServerMemory] = r.resident
	}
	for engine, suffix := range map[string]string{onSQLite: "sqlite", onPostgres: "postgres"} {
		got := r.space[engine]
		if got == nil {
			continue
		}
		for _, kind := range kinds {
			s[kind.name+"."+suffix] = got.rows[kind.name]
		}
		s[costs.Written+suffix], s[costs.CommitsAlone+suffix], s[costs.Commits+suffix] = got.written, got.commitsAlone, got.commits
		if engine == onPostgres {
			s[costs.WALPostgres] = got.log
		}
	}
	return s
}

func (b *bench) costTable(w *strings.Builder) {
	if s := b.costs(); b.scale && len(s) > 0 {
		w.WriteString("\n## Costs\n\nWhat `go run ./bench/sizing` reckons with, from the tables above.\n\n")
		w.WriteString(s.Table())
	}
}

// scaleNotes say how this run differs from one of bench/RESULTS.md.
func (b *bench) scaleNotes(w *strings.Builder) {
	if !b.scale {
		return
	}
	if b.results.postgres != "" {
		fmt.Fprintf(w, "%s with fsync, checksums of its pages, %s, its other settings as they come.\n", b.results.postgres, strings.Join(ample, ", "))
	}
	w.WriteString("CPU time is the user and system time of whole processes during a step, with what they do in the background, divided by its operations; it is read in steps of 10 ms.\n")
}
