// Command bench measures a running parley beside floors: programs that do the
// least that could do the same work on the same machine. Both run as processes
// of their own, take turns in every round, and are asked by the same clients,
// so that the ratios hold where the absolute numbers do not.
//
//	go run ./bench                     all scenarios, five rounds
//	go run ./bench -quick              a smoke run of a minute
//	go run ./bench -scenario turn,cold -parley ./bin/parley -out bench/RESULTS.md
//	go run ./bench -scale              what grows: databases, servers, conversations
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

type options struct {
	rounds        int
	step          time.Duration // length of one measured step
	messages      int           // for the memory scenario
	conversations int           // for the tags scenario
	timers        int           // for the timers scenario
	idle          time.Duration // before memory is read
	starts        int           // cold starts a round
	scale         bool          // the scenarios of bench/SCALE.md
	largest       int           // conversations, and messages of one, up to which they grow
	streams       int           // open streams
	turns         int           // before the tables are measured
	parley        string
	out           string
	date          string
}

// A scenario adds its rows to the results: prepare once, then round by round in
// turn with the other scenarios, then finish.
type scenario interface {
	prepare(ctx context.Context, b *bench) error
	round(ctx context.Context, b *bench) error
	finish(ctx context.Context, b *bench) error
}

type namedScenario struct {
	name string
	make func() scenario
}

var scenarios = []namedScenario{
	{"floors", func() scenario { return &floors{} }},
	{"create", func() scenario { return &create{} }},
	{"turn", func() scenario { return &turn{} }},
	{"fanout", func() scenario { return &fanout{} }},
	{"outside", func() scenario { return &outside{} }},
	{"webhooks", func() scenario { return &webhooks{} }},
	{"tags", func() scenario { return &tags{} }},
	{"timers", func() scenario { return &timers{} }},
	{"cold", func() scenario { return &cold{} }},
	{"memory", func() scenario { return &memory{} }},
}

// scaleScenarios measure what grows, and fill databases for it.
var scaleScenarios = []namedScenario{
	{"floors", func() scenario { return &floors{} }},
	{"databases", func() scenario { return &databases{} }},
	{"nodes", func() scenario { return &nodes{} }},
	{"streams", func() scenario { return &streams{} }},
	{"space", func() scenario { return &space{} }},
	{"conversations", func() scenario { return &manyConversations{} }},
	{"messages", func() scenario { return &longConversation{} }},
}

// bench is one run.
type bench struct {
	options
	dir     string // on the disk that is measured
	results results
	server  *parley                                  // shared by the scenarios that need one
	floors  map[string]*floor                        // that take messages, by name
	pg      *databaseServer                          // nil until a scenario needs it
	beside  []func(ctx context.Context, n int) error // steps that take turns with the floors at n connections
	stop    []func() error
}

func main() {
	if which := os.Getenv(childVariable); which != "" {
		child(which)
		return
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) (err error) {
	b, chosen, err := parse(args)
	if err != nil {
		return err
	}
	// In the working directory and not in the temporary one, which may be memory.
	if b.dir, err = os.MkdirTemp(".", ".bench-data-"); err != nil {
		return err
	}
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close(), os.RemoveAll(b.dir)) }()
	failed := b.measure(ctx, chosen)
	text := b.report()
	// What was measured before a failure is shown, and not kept.
	if _, err := io.WriteString(stdout, text); err != nil || failed != nil || b.out == "" {
		return errors.Join(failed, err)
	}
	return os.WriteFile(b.out, []byte(text), 0o644)
}

func parse(args []string) (*bench, []scenario, error) {
	b := &bench{}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	wanted := f.String("scenario", "", "comma-separated: "+names(scenarios)+"; with -scale "+names(scaleScenarios)+"; empty runs all")
	quick := f.Bool("quick", false, "one short round of everything, to see that it works")
	f.IntVar(&b.rounds, "rounds", 5, "rounds; the medians are reported")
	f.DurationVar(&b.step, "step", 3*time.Second, "length of one measured step")
	f.IntVar(&b.messages, "messages", 100_000, "messages before memory is read")
	f.IntVar(&b.conversations, "conversations", 1_000_000, "conversations that are filtered by tags")
	f.IntVar(&b.timers, "timers", 100_000, "timers that are due within a second")
	f.DurationVar(&b.idle, "idle", 60*time.Second, "pause before memory is read")
	f.IntVar(&b.starts, "starts", 5, "cold starts in a round")
	f.BoolVar(&b.scale, "scale", false, "measure what grows instead, on SQLite and PostgreSQL")
	f.IntVar(&b.largest, "largest", 1_000_000, "with -scale: conversations, and messages of one, up to which they grow")
	f.IntVar(&b.streams, "streams", 10_000, "with -scale: open streams, each a descriptor here and at the server")
	f.IntVar(&b.turns, "turns", 20_000, "with -scale: turns before the tables are measured")
	f.StringVar(&b.parley, "parley", "", "binary to measure; empty builds ./cmd/parley")
	f.StringVar(&b.out, "out", "", "file that receives the report besides standard output")
	f.StringVar(&b.date, "date", "", "date for the report")
	if err := f.Parse(args); err != nil {
		return nil, nil, err
	}
	if *quick {
		b.rounds, b.step, b.messages, b.idle, b.starts = 1, 400*time.Millisecond, 2_000, time.Second, 2
		b.conversations, b.timers = 10_000, 2_000
		b.largest, b.streams, b.turns = 2_000, 500, 2_000
	}
	if b.rounds < 1 {
		return nil, nil, fmt.Errorf("%d rounds measure nothing", b.rounds)
	}
	if b.largest < 100 || b.streams < 1 || b.turns < turnsEach {
		return nil, nil, fmt.Errorf("-largest %d, -streams %d or -turns %d is too small to measure", b.largest, b.streams, b.turns)
	}
	all := scenarios
	if b.scale {
		all = scaleScenarios
	}
	chosen, err := choose(all, *wanted)
	return b, chosen, err
}

func names(all []namedScenario) string {
	var names []string
	for _, s := range all {
		names = append(names, s.name)
	}
	return strings.Join(names, ",")
}

// choose makes the scenarios that are named, or all. Every ratio needs the floors.
func choose(all []namedScenario, names string) ([]scenario, error) {
	wanted := strings.FieldsFunc(names, func(r rune) bool { return r == ',' || r == ' ' })
	for _, name := range wanted {
		if !slices.ContainsFunc(all, func(s namedScenario) bool { return s.name == name }) {
			return nil, fmt.Errorf("no scenario %q", name)
		}
	}
	var chosen []scenario
	for _, s := range all {
		if len(wanted) == 0 || s.name == "floors" || slices.Contains(wanted, s.name) {
			chosen = append(chosen, s.make())
		}
	}
	return chosen, nil
}

func (b *bench) measure(ctx context.Context, chosen []scenario) error {
	for _, s := range chosen {
		if err := s.prepare(ctx, b); err != nil {
			return fmt.Errorf("prepare %T: %w", s, err)
		}
	}
	for n := range b.rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", n+1, b.rounds)
		for _, s := range chosen {
			if err := s.round(ctx, b); err != nil {
				return fmt.Errorf("round %d of %T: %w", n+1, s, err)
			}
		}
	}
	for _, s := range chosen {
		if err := s.finish(ctx, b); err != nil {
			return fmt.Errorf("finish %T: %w", s, err)
		}
	}
	return nil
}

// later arranges that stop runs when the run is over, the last one first.
func (b *bench) later(stop func() error) { b.stop = append(b.stop, stop) }

func (b *bench) close() error {
	var errs []error
	for _, stop := range slices.Backward(b.stop) {
		errs = append(errs, stop())
	}
	return errors.Join(errs...)
}

// binary is the server to measure, built when none was named.
func (b *bench) binary(ctx context.Context) (string, error) {
	if b.parley != "" {
		return filepath.Abs(b.parley)
	}
	bin := filepath.Join(b.dir, "parley")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", bin, "parley/cmd/parley")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
	}
	b.parley = bin
	return bin, nil
}
