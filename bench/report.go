package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// results are the samples of every series, one a round.
type results struct {
	series   map[string][]sample
	memory   *memoryResult
	timers   *timersResult
	postgres string  // the version that was measured
	resident float64 // MiB of a server of several, after its turns
	space    map[string]*spaceResult
	streams  *streamsResult
}

func (r *results) add(name string, s sample) {
	if r.series == nil {
		r.series = map[string][]sample{}
	}
	r.series[name] = append(r.series[name], s)
}

func (r *results) has(name string) bool { return len(r.series[name]) > 0 }

func nodesCost(s sample) float64    { return float64(s.cost.nodes) }
func busiestCost(s sample) float64  { return float64(s.cost.busiest) }
func databaseCost(s sample) float64 { return float64(s.cost.database) }
func wireCost(s sample) float64     { return float64(s.cost.wire) }

func rate(s sample) float64 { return s.rate }
func p50(s sample) float64  { return float64(s.p50) }
func p99(s sample) float64  { return float64(s.p99) }

// median of one figure of a series over the rounds.
func (r *results) median(name string, of func(sample) float64) float64 {
	var all []float64
	for _, s := range r.series[name] {
		all = append(all, of(s))
	}
	return median(all)
}

// ratio is the median over the rounds of a series' figure against that of a floor in the same round.
func (r *results) ratio(name, floor string, of func(sample) float64) float64 {
	a, b := r.series[name], r.series[floor]
	var all []float64
	for i := range min(len(a), len(b)) {
		if f := of(b[i]); f > 0 {
			all = append(all, of(a[i])/f)
		}
	}
	return median(all)
}

// target is a figure to reach, taken from the issue that the benchmarks were written for.
type target struct {
	what   string
	needs  []string // series
	figure func(r *results) float64
	limit  float64
	atMost bool
	unit   string
	digits int
}

var targets = []target{
	{"create at 64 connections, of the group-commit floor", []string{"create/64", "commit/64"}, func(r *results) float64 { return r.ratio("create/64", "commit/64", rate) }, 0.5, false, "×", 2},
	{"the same, stretch", []string{"create/64", "commit/64"}, func(r *results) float64 { return r.ratio("create/64", "commit/64", rate) }, 0.6, false, "×", 2},
	{"create at 1 connection, of the group-commit floor", []string{"create/1", "commit/1"}, func(r *results) float64 { return r.ratio("create/1", "commit/1", rate) }, 0.75, false, "×", 2},
	{"p50 of a turn at 1 conversation, of the floor's create p50 at 1", []string{"turn/1", "commit/1"}, func(r *results) float64 { return r.ratio("turn/1", "commit/1", p50) }, 3.3, true, "×", 2},
	{"turns a second at 32 conversations", []string{"turn/32"}, func(r *results) float64 { return r.median("turn/32", rate) }, 4000, false, "/s", 0},
	{"p99 of a turn at 32 conversations", []string{"turn/32"}, func(r *results) float64 { return milliseconds(r.median("turn/32", p99)) }, 25, true, "ms", 1},
	{"fan-out to 1,000 listeners, of the bare hub", []string{"fan-out/1000", "hub/1000"}, func(r *results) float64 { return r.ratio("fan-out/1000", "hub/1000", rate) }, 0.9, false, "×", 2},
	{"door of a Go integration at 64 connections, of asking it directly", []string{"door go/64", "direct go/64"}, func(r *results) float64 { return r.ratio("door go/64", "direct go/64", rate) }, 0.3, false, "×", 2},
	{"door of an SDK integration at 64 connections, of asking it directly", []string{"door sdk/64", "direct sdk/64"}, func(r *results) float64 { return r.ratio("door sdk/64", "direct sdk/64", rate) }, 0.6, false, "×", 2},
	{"accept to delivery of a webhook, p50 at 20 a second", []string{"webhooks/calm"}, func(r *results) float64 { return milliseconds(r.median("webhooks/calm", p50)) }, 5, true, "ms", 1},
	{"p99 of healthy webhooks beside 30 % ill endpoints, of that without", []string{"webhooks/amid", "webhooks/alone"}, func(r *results) float64 { return r.ratio("webhooks/amid", "webhooks/alone", p99) }, 1.5, true, "×", 2},
	tagTarget("SQLite", "one"), tagTarget("SQLite", "rare"), tagTarget("SQLite", "half"),
	tagTarget("SQLite", "half without one"), tagTarget("SQLite", "early and late"), tagTarget("SQLite", "half without rare"), tagTarget("SQLite", "even and odd"),
	tagTarget("PostgreSQL", "one"), tagTarget("PostgreSQL", "rare"), tagTarget("PostgreSQL", "half"),
	tagTarget("PostgreSQL", "half without one"), tagTarget("PostgreSQL", "early and late"), tagTarget("PostgreSQL", "half without rare"), tagTarget("PostgreSQL", "even and odd"),
	{"cold start on a used database", []string{"cold start"}, func(r *results) float64 { return milliseconds(r.median("cold start", p50)) }, 60, true, "ms", 1},
}

func milliseconds(ns float64) float64 { return ns / float64(time.Millisecond) }

func (b *bench) report() string {
	var w strings.Builder
	fmt.Fprintf(&w, "# Measured\n\n")
	if b.date != "" {
		fmt.Fprintf(&w, "Date: %s. ", b.date)
	}
	fmt.Fprintf(&w, "Rounds: %d; each step %s after its warm-up. Figures are medians of the rounds; a ratio is the median of the rounds' ratios.\n\n", b.rounds, b.step)
	fmt.Fprintf(&w, "%s\n", machine(b.dir))
	w.WriteString("Server, floors, bots and load generator share the machine. Floors and server are processes of their own and take turns within each round.\n")
	b.scaleNotes(&w)
	b.targets(&w)
	b.creates(&w)
	b.turnsAndFanOut(&w)
	b.databaseTable(&w)
	b.nodeTable(&w)
	b.conversationTable(&w)
	b.longTable(&w)
	b.streamTable(&w)
	b.spaceTable(&w)
	b.costTable(&w)
	b.outsideTable(&w)
	b.webhookTable(&w)
	b.tagTable(&w)
	b.timerTable(&w)
	b.footprint(&w)
	b.floorTable(&w)
	return w.String()
}

func (b *bench) targets(w *strings.Builder) {
	w.WriteString("\n## Targets\n\n| what | measured | target | |\n|---|--:|--:|---|\n")
	row := func(what string, got, limit float64, atMost bool, unit string, digits int) {
		sign, reached := "≥", got >= limit
		if atMost {
			sign, reached = "≤", got <= limit
		}
		verdict := "**not reached**"
		if reached {
			verdict = "reached"
		}
		fmt.Fprintf(w, "| %s | %.*f %s | %s %v %s | %s |\n", what, digits, got, unit, sign, limit, unit, verdict)
	}
	for _, t := range append(slices.Clip(targets), b.pageTargets()...) {
		if t.measured(&b.results) {
			row(t.what, t.figure(&b.results), t.limit, t.atMost, t.unit, t.digits)
		}
	}
	if m := b.results.memory; m != nil {
		row(fmt.Sprintf("resident memory %s after %d messages", m.idle, m.messages), m.rest, 60, true, "MiB", 1)
	}
}

func (t target) measured(r *results) bool {
	for _, name := range t.needs {
		if !r.has(name) {
			return false
		}
	}
	return true
}

func (b *bench) creates(w *strings.Builder) {
	r := &b.results
	if !r.has("create/1") {
		return
	}
	w.WriteString("\n## Durable create\n\n`createMessage` of the Runtime API as the chat integration (`x-integration-id`) with a personal token, over 256 conversations. ")
	w.WriteString("The bot's url is down, so that every event is written and stays pending; in the second part the bot replies to each message while the load goes on.\n\n")
	w.WriteString("| connections | of the group-commit floor | of plain HTTP + JSON | messages/s | p50 ms | p99 ms |\n|--:|--:|--:|--:|--:|--:|\n")
	for _, part := range []string{"create", "create, replied"} {
		for _, n := range connections {
			s := name(part, n)
			what := fmt.Sprint(n)
			if part != "create" {
				what += ", bot replies"
			}
			fmt.Fprintf(w, "| %s | %.2f | %.2f | %s |\n", what, r.ratio(s, name("commit", n), rate), r.ratio(s, name("echo", n), rate), r.figures(s))
		}
	}
}

func (b *bench) turnsAndFanOut(w *strings.Builder) {
	r := &b.results
	if r.has("turn/1") {
		w.WriteString("\n## Full turn\n\nA message over the Chat API, its event at a bot in Go over HTTP, the reply over the Runtime API, its signal at the listener (SSE): two durable messages and one event.\n\n")
		w.WriteString("| conversations | p50, of the floor's create p50 at 1 | turns/s | p50 ms | p99 ms |\n|--:|--:|--:|--:|--:|\n")
		for _, n := range turns {
			s := name("turn", n)
			fmt.Fprintf(w, "| %d | %.2f | %s |\n", n, r.ratioTo(s, "commit/1", p50), r.figures(s))
		}
	}
	if r.has("hub/100") {
		fmt.Fprintf(w, "\n## Fan-out\n\nOne conversation, every listener hears every message (SSE); %d messages are under way at a time. The bare hub stores nothing and writes the same frames to taken-over connections.\n\n", underWay)
		w.WriteString("| listeners | deliveries/s, of the bare hub | p50, of the bare hub | deliveries/s | p50 ms | p99 ms | bare hub: deliveries/s | p50 ms | p99 ms |\n|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
		for _, n := range audiences {
			s, hub := name("fan-out", n), name("hub", n)
			fmt.Fprintf(w, "| %d | %.2f | %.2f | %s | %s |\n", n, r.ratio(s, hub, rate), r.ratio(s, hub, p50), r.figures(s), r.figures(hub))
		}
	}
}

// ratioTo is ratio for a floor that may not have been measured.
func (r *results) ratioTo(name, floor string, of func(sample) float64) float64 {
	if !r.has(floor) {
		return 0
	}
	return r.ratio(name, floor, of)
}

func (b *bench) footprint(w *strings.Builder) {
	r := &b.results
	if !r.has("cold start") && r.memory == nil {
		return
	}
	w.WriteString("\n## Footprint\n\n| what | |\n|---|--:|\n")
	if r.has("cold start") {
		fmt.Fprintf(w, "| process start to `/readyz` 200, %d messages in the database | %.1f ms |\n", min(used, b.messages), milliseconds(r.median("cold start", p50)))
		fmt.Fprintf(w, "| the same for a Go program that only listens | %.1f ms |\n", milliseconds(r.median("bare start", p50)))
	}
	if m := r.memory; m != nil {
		fmt.Fprintf(w, "| resident memory, fresh | %.1f MiB |\n| after %d messages | %.1f MiB |\n| %s later | %.1f MiB |\n", m.fresh, m.messages, m.busy, m.idle, m.rest)
	}
}

func (b *bench) floorTable(w *strings.Builder) {
	r := &b.results
	w.WriteString("\n## Floors\n\n| floor | connections | requests/s | p50 ms | p99 ms |\n|---|--:|--:|--:|--:|\n")
	fmt.Fprintf(w, "| loopback TCP, 64 bytes there and back | 1 | %s |\n", r.figures("tcp"))
	for _, f := range []struct{ series, title string }{{"echo", "net/http + JSON, nothing kept"}, {"commit", "net/http + JSON + SQLite group commit (WAL, synchronous=FULL), one row"}} {
		for _, n := range connections {
			fmt.Fprintf(w, "| %s | %d | %s |\n", f.title, n, r.figures(name(f.series, n)))
		}
	}
}

// figures are the last three columns of every table.
func (r *results) figures(name string) string {
	return fmt.Sprintf("%.0f | %.3f | %.3f", r.median(name, rate), milliseconds(r.median(name, p50)), milliseconds(r.median(name, p99)))
}

// latencies are the last two of them.
func (r *results) latencies(name string) string {
	return fmt.Sprintf("%.3f | %.3f", milliseconds(r.median(name, p50)), milliseconds(r.median(name, p99)))
}

// micros is a CPU time in microseconds, empty where nobody has spent any.
func (r *results) micros(name string, of func(sample) float64) string {
	if v := r.median(name, of); v > 0 {
		return fmt.Sprintf("%.0f", v/1000)
	}
	return ""
}

// ratioText is ratio, empty where there is nothing to compare with.
func (r *results) ratioText(name, floor string, of func(sample) float64) string {
	if v := r.ratio(name, floor, of); v > 0 {
		return fmt.Sprintf("%.2f", v)
	}
	return ""
}

// machine says on what the figures were made.
func machine(dir string) string {
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease") // absent on other systems; the line is shorter then
	return fmt.Sprintf("Machine: %s, %d cores, %s of memory, kernel %s, %s, data on %s.\n",
		field("/proc/cpuinfo", "model name", runtime.GOARCH), runtime.NumCPU(), memorySize(), strings.TrimSpace(string(release)), runtime.Version(), filesystem(dir))
}

func memorySize() string {
	var kib float64
	if _, err := fmt.Sscanf(field("/proc/meminfo", "MemTotal", "0 kB"), "%f kB", &kib); err != nil || kib == 0 {
		return "unknown size"
	}
	return fmt.Sprintf("%.0f GiB", kib/(1<<20))
}

// field finds a "name : value" line.
func field(file, name, otherwise string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return otherwise
	}
	for line := range strings.Lines(string(text)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return otherwise
}

// filesystem is the type of the mount that dir is on.
func filesystem(dir string) string {
	text, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return "an unknown file system"
	}
	best, kind := "", "an unknown file system"
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) > 2 && strings.HasPrefix(dir+"/", strings.TrimSuffix(f[1], "/")+"/") && len(f[1]) >= len(best) {
			best, kind = f[1], f[2]
		}
	}
	return kind
}
