// Command sizing computes what an installation needs from what was measured:
// servers, connections, processors, memory and disk for a number of concurrent
// conversations. It measures nothing itself, and says what it assumes.
//
//	go run ./bench/sizing -conversations 1000000 -messages-per-hour 6
//	go run ./bench/sizing -database sqlite -conversations 2000 -costs bench/SCALE.md
//	go run ./bench/sizing -cost turn.postgres=900 -cost message.postgres=2000
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"

	"parley/bench/costs"
)

func main() {
	err := run(os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "sizing:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout io.Writer) error {
	l, c, err := parse(args)
	if err != nil {
		return err
	}
	_, err = io.WriteString(stdout, report(l, c, size(l, c)))
	return err
}

func parse(args []string) (load, costs.Set, error) {
	l, own := load{}, costs.Set{}
	f := flag.NewFlagSet("sizing", flag.ContinueOnError)
	f.StringVar(&l.database, "database", postgres, "sqlite or postgres")
	f.IntVar(&l.conversations, "conversations", 100_000, fmt.Sprintf("conversations that go on at the same time, up to %d", mostConversations))
	f.Float64Var(&l.perHour, "messages-per-hour", 6, "messages that people write in one of them in the busiest hour; the bot answers each with one")
	f.Float64Var(&l.turns, "turns", 20, "messages that people write in a conversation from its beginning to its end")
	f.Float64Var(&l.average, "average", 0.3, "load of the whole month, of that of the busiest hour")
	f.Float64Var(&l.listening, "listening", 1, "part of the conversations that has a stream open")
	f.Float64Var(&l.characters, "characters", 40, "length of a message, in bytes")
	f.Float64Var(&l.keyed, "keyed", 1, "part of people's messages that has an Idempotency-Key")
	f.Float64Var(&l.logHours, "delivery-log", 168, "hours that the log of deliveries reaches back, as --delivery-log says")
	f.Float64Var(&l.use, "use", 0.5, "part of the processors that may be busy in the busiest hour")
	f.Float64Var(&l.cores, "cores", 4, "cores of a server")
	f.Float64Var(&l.memory, "memory", 8, "memory of a server, in GiB, half of which Parley may take")
	f.IntVar(&l.descriptors, "descriptors", 1<<20, "LimitNOFILE of a server")
	f.IntVar(&l.spare, "spare", 1, "servers that may be missing in the busiest hour")
	f.IntVar(&l.connections, "connections", 24, "connections of a server to PostgreSQL: pool_max_conns")
	f.Float64Var(&l.databaseCores, "database-cores", 32, "cores of the largest machine that you would give to PostgreSQL")
	file := f.String("costs", "", "file with a table of costs, such as bench/SCALE.md of a run on your machine")
	f.Func("cost", "NAME=VALUE: a cost of your own; may be repeated", func(text string) error {
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			return errors.New("it is not of the form NAME=VALUE")
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return err
		}
		return own.Put(name, v)
	})
	if err := f.Parse(args); err != nil {
		return l, nil, err
	}
	if f.NArg() > 0 {
		return l, nil, fmt.Errorf("it takes no argument %q", f.Arg(0))
	}
	c := costs.Default()
	if *file != "" {
		measured, err := readCosts(*file)
		if err != nil {
			return l, nil, err
		}
		maps.Copy(c, measured)
	}
	maps.Copy(c, own)
	return l, c, l.check(c)
}

func readCosts(file string) (costs.Set, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	c, err := costs.Read(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return c, nil
}

// report shows what is needed, and on what grounds.
func report(l load, c costs.Set, n need) string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	row := func(what, value, why string) { fmt.Fprintf(t, "%s\t%s\t%s\n", what, value, why) }
	row("LOAD", "", "")
	row("conversations at a time", whole(float64(l.conversations)), "")
	row("turns a second", number(n.turns), "a message of a person, its event at the bot, the bot's message; in the busiest hour")
	row("messages a second", number(2*n.turns), "")
	row("open streams", whole(n.streams), "")
	row("new conversations a month", whole(n.newConversations), "")
	row("", "", "")
	row("SERVERS", "", "")
	row("servers", whole(float64(n.servers)), n.why)
	row("cores busy, all together", number(n.serverCores), fmt.Sprintf("%s µs for a turn, %s µs a second for a stream", number(n.turnCost), number(c[costs.StreamCPU])))
	row("memory of each", gib(n.serverMemory), fmt.Sprintf("%s open streams of %s KiB at each when %d missing, and %s MiB", whole(n.streamsEach), number(c[costs.StreamMemory]), l.missing(), number(c[costs.ServerMemory])))
	row("file descriptors of each", whole(n.streamsEach+reserved), fmt.Sprintf("LimitNOFILE, here %d", l.descriptors))
	row("", "", "")
	if l.database == postgres {
		row("POSTGRESQL", "", "")
		row("connections", whole(float64(n.connections)), fmt.Sprintf("max_connections at least: %d for each server, and %d for you", l.connections, yours))
		row("cores busy", number(n.databaseCores), fmt.Sprintf("%s µs for a turn", number(n.databaseTurnCost)))
		row("cores", whole(math.Ceil(n.databaseCores/l.use)), fmt.Sprintf("at %.0f %% use", 100*l.use))
		row("databases", whole(float64(n.cells)), n.cellsWhy)
		row("", "", "")
		row("NATS", "", "")
		row("hints a second", number(n.hints), fmt.Sprintf("%s for a turn; nothing is kept", number(c[costs.TurnHints])))
		row("cores busy", number(n.natsCores), "")
		row("", "", "")
	}
	row("DISK OF THE DATABASE", "", "")
	row("more every month", decimal(n.monthly), "messages, events and conversations: they stay until they are deleted")
	row("besides", decimal(n.standing), fmt.Sprintf("the log of deliveries of %s hours, idempotency keys of a day", number(l.logHours)))
	row("written a second", decimal(n.writtenPerSecond), "in the busiest hour, with what checkpoints write again")
	if l.database == postgres {
		row("log (WAL) a day", decimal(n.walPerDay), "on average; what an archive or a standby takes")
	}
	row("syncs a second", number(n.syncsFewest)+" to "+number(n.syncsMost), "IOPS that wait for the disk: as many as there are commits where none comes together with another")
	t.Flush()
	b.WriteString("\nWhat this assumes:\n")
	for _, a := range n.assumptions {
		b.WriteString("  - " + a + "\n")
	}
	return padding.ReplaceAllString(b.String(), "\n")
}

// padding is what the table leaves at the ends of its lines.
var padding = regexp.MustCompile(` +\n`)

func whole(v float64) string { return strconv.FormatFloat(math.Ceil(v), 'f', 0, 64) }

// number shows as many digits as the measurements are good for.
func number(v float64) string {
	if v >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

func gib(v float64) string { return fmt.Sprintf("%.2f GiB", v/(1<<30)) }

func decimal(v float64) string {
	unit := 0
	for units := len(names) - 1; v >= 1000 && unit < units; unit++ {
		v /= 1000
	}
	return fmt.Sprintf("%.3g %s", v, names[unit])
}

var names = []string{"B", "kB", "MB", "GB", "TB", "PB"}
