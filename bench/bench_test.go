package main

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/bench/costs"
	"parley/internal/parleytest"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

func TestMain(m *testing.M) {
	if which := os.Getenv(childVariable); which != "" {
		child(which)
	}
	parleytest.Main(m)
}

// The floors run as processes of their own and give a report with their figures.
func TestFloors(t *testing.T) {
	b := &bench{options: options{rounds: 1, step: 100 * time.Millisecond}, dir: t.TempDir()}
	defer func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	}()
	if err := b.measure(t.Context(), []scenario{&floors{}, &hubAlone{}}); err != nil {
		t.Fatal(err)
	}
	for _, series := range []string{"tcp", "echo/1", "echo/64", "commit/1", "commit/16", "commit/64", "hub/8"} {
		if got := b.results.median(series, rate); got <= 0 {
			t.Errorf("%s: %v a second", series, got)
		}
		if got := b.results.median(series, p99); got < b.results.median(series, p50) {
			t.Errorf("%s: p99 is below p50", series)
		}
	}
	if text := b.report(); !strings.Contains(text, "group commit") || strings.Contains(text, "%!") {
		t.Errorf("report:\n%s", text)
	}
}

// hubAlone is the fan-out scenario without the product.
type hubAlone struct{ fanout }

func (s *hubAlone) prepare(_ context.Context, b *bench) (err error) {
	s.frame = `{"text":"` + numbered(0) + `"}`
	s.hub, err = startFloor(b, "hub")
	return err
}

func (s *hubAlone) round(ctx context.Context, b *bench) error {
	got, err := s.overHub(ctx, b, 8)
	b.results.add("hub/8", got)
	return err
}

// Everything that grows, as small as it gets: it runs, fills what it says, and
// each table and each cost has its figure.
func TestScale(t *testing.T) {
	sqldbtest.NeedsPostgres(t)
	bin, err := parleytest.Binary()
	if err != nil {
		t.Fatal(err)
	}
	b, chosen, err := parse([]string{"-scale", "-rounds", "1", "-step", "50ms", "-idle", "50ms", "-largest", "300", "-streams", "40", "-turns", "400", "-parley", bin})
	if err != nil {
		t.Fatal(err)
	}
	b.dir = t.TempDir()
	defer func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	}()
	if err := b.measure(t.Context(), chosen); err != nil {
		t.Fatal(err)
	}
	text := b.report()
	for _, part := range []string{"PostgreSQL beside SQLite", "Servers on one database", "Many conversations", "A long conversation", "Open streams", "Space", "Costs", "Floors"} {
		if !strings.Contains(text, "\n## "+part+"\n") {
			t.Errorf("the report has no %s", part)
		}
	}
	measured, err := costs.Read(text)
	if err != nil || len(measured) != len(costs.Known()) || strings.Contains(text, "%!") {
		t.Errorf("%d of %d costs (%v) in the report:\n%s", len(measured), len(costs.Known()), err, text)
	}
	for _, engine := range engines {
		for kind, bytes := range b.results.space[engine].rows {
			if bytes < 50 {
				t.Errorf("on %s a %s takes %v bytes", engine, kind, bytes)
			}
		}
	}
}

// A walk that misses a message, or has one too many, is an error.
func TestAWalkCountsTheMessages(t *testing.T) {
	bin, err := parleytest.Binary()
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{options: options{parley: bin}, dir: t.TempDir()}
	defer func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	}()
	p, err := b.start(t.Context(), "walk")
	if err != nil {
		t.Fatal(err)
	}
	pattern, err := newPattern(t.Context(), b, p)
	if err != nil {
		t.Fatal(err)
	}
	if err := grow(t.Context(), p, func(db *sqldb.DB) error { return pattern.messages(t.Context(), db, 0, 100) }); err != nil {
		t.Fatal(err)
	}
	if at, err := pattern.walk(t.Context(), 102); err != nil || len(at) != 3 {
		t.Errorf("a walk over all: %d pages, %v", len(at), err)
	}
	for _, wrong := range []int{101, 103} {
		if _, err := pattern.walk(t.Context(), wrong); err == nil {
			t.Errorf("a walk over 102 messages found %d", wrong)
		}
	}
}

// Processes that work are seen to, and a family has the time of its children.
func TestCPUTime(t *testing.T) {
	t.Parallel()
	before, err := ofProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	work := 0
	for until := time.Now().Add(100 * time.Millisecond); time.Now().Before(until); {
		work++
	}
	after, err := ofProcess(os.Getpid())
	if err != nil || after-before < 2*tick {
		t.Errorf("%d turns of a loop took %v, %v", work, after-before, err)
	}
	if all, err := ofFamily(os.Getpid()); err != nil || all < after {
		t.Errorf("the family took %v, %v, and its first process alone %v", all, err, after)
	}
	if _, err := ofProcess(1 << 30); err == nil {
		t.Error("a process that is not there has a time")
	}
	a, z := reading{nodes: []time.Duration{10, 20}, database: 5, wire: 1}, reading{nodes: []time.Duration{40, 120}, database: 45, wire: 11}
	if got, want := z.since(a, 10), (cost{13, 10, 4, 1}); got != want {
		t.Errorf("each of ten took %v, want %v", got, want)
	}
}

func TestSizesOnTheWay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		smallest, largest int
		want              []int
	}{{1, 300, []int{1, 300}}, {1, 1_000_000, []int{1, 1_000, 100_000, 1_000_000}}, {1_000, 300, []int{300}}, {1_000, 1_000, []int{1_000}}, {1_000, 2_000, []int{1_000, 2_000}}} {
		if got := sizes(c.smallest, c.largest); !slices.Equal(got, c.want) {
			t.Errorf("from %d to %d by %v, want %v", c.smallest, c.largest, got, c.want)
		}
	}
}

func TestScenariosAreChosenByName(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]int{"": len(scenarios), "-scale": len(scaleScenarios), "-scale -scenario nodes,space": 3, "-scenario turn": 2} {
		if _, chosen, err := parse(strings.Fields(args)); err != nil || len(chosen) != want {
			t.Errorf("%s: %d scenarios, %v, want %d", args, len(chosen), err, want)
		}
	}
	for _, args := range []string{"-scenario nodes", "-scale -scenario turn", "-rounds 0", "-scale -largest 1", "-scale -streams 0", "-scale -turns 1"} {
		if _, _, err := parse(strings.Fields(args)); err == nil {
			t.Errorf("%s is taken", args)
		}
	}
}

func TestMedianAndQuantile(t *testing.T) {
	t.Parallel()
	if got := median([]float64{5, 1, 3}); got != 3 {
		t.Errorf("median of three = %v", got)
	}
	if got := median([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Errorf("median of four = %v", got)
	}
	if got := quantile(nil, 0.5); got != 0 {
		t.Errorf("quantile of nothing = %v", got)
	}
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	if a, b := quantile(hundred, 0.5), quantile(hundred, 0.99); a != 50 || b != 99 {
		t.Errorf("p50 = %d, p99 = %d", a, b)
	}
}
