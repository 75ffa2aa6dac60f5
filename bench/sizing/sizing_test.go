package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"parley/bench/costs"
)

// plain are costs that can be reckoned with in the head.
var plain = costs.Set{
	costs.TurnSQLite: 400, costs.TurnServer: 1000, costs.TurnServers: 1000, costs.TurnPostgres: 2000, costs.TurnNATS: 100, costs.TurnHints: 3,
	costs.GrowSQLite: 1, costs.GrowServer: 1, costs.GrowPostgres: 1, costs.StreamMemory: 8, costs.StreamCPU: 1, costs.ServerMemory: 64,
	costs.Conversation + "sqlite": 1000, costs.Message + "sqlite": 500, costs.Event + "sqlite": 400, costs.Attempt + "sqlite": 100, costs.Key + "sqlite": 200, costs.Written + "sqlite": 8000,
	costs.Conversation + "postgres": 2000, costs.Message + "postgres": 1000, costs.Event + "postgres": 800, costs.Attempt + "postgres": 200, costs.Key + "postgres": 400, costs.Written + "postgres": 16000,
	costs.WALPostgres: 8000, costs.CommitsAlone + "sqlite": 4, costs.CommitsAlone + "postgres": 4, costs.Commits + "sqlite": 0.5, costs.Commits + "postgres": 3,
	costs.Rate + "sqlite": 4000, costs.Rate + "postgres": 1000,
}

// parsed is the load of a command line.
func parsed(t *testing.T, args ...string) load {
	t.Helper()
	l, _, err := parse(args)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestKnownPoints(t *testing.T) {
	t.Parallel()
	// 3,600 conversations with a message an hour each are one turn a second.
	args := []string{"-conversations", "3600", "-messages-per-hour", "1", "-turns", "10", "-average", "0.5", "-use", "0.5", "-cores", "1"}
	for _, c := range []struct {
		name      string
		more      []string
		got       func(n need) float64
		want      float64
		tolerance float64
	}{
		{"turns a second", nil, func(n need) float64 { return n.turns }, 1, 0},
		{"streams", []string{"-listening", "0.25"}, func(n need) float64 { return n.streams }, 900, 0},
		{"new conversations", nil, func(n need) float64 { return n.newConversations }, 0.5 * month / 10, 1},
		{"cores of servers", nil, func(n need) float64 { return n.serverCores }, 1000e-6 + 3600e-6, 1e-9},
		{"cores of a server on SQLite", []string{"-database", "sqlite"}, func(n need) float64 { return n.serverCores }, 400e-6 + 3600e-6, 1e-9},
		{"cores of PostgreSQL", nil, func(n need) float64 { return n.databaseCores }, 2000e-6, 1e-9},
		{"hints", nil, func(n need) float64 { return n.hints }, 3, 1e-9},
		{"one server", []string{"-spare", "0"}, func(n need) float64 { return float64(n.servers) }, 1, 0},
		{"one server has nobody to send hints to", []string{"-spare", "0"}, func(n need) float64 { return n.hints }, 0, 0},
		{"one and a spare one", nil, func(n need) float64 { return float64(n.servers) }, 2, 0},
		{"connections of two", nil, func(n need) float64 { return float64(n.connections) }, 2*24 + yours, 0},
		// 600 turns a second take 0.6 cores and the streams 3.6 millicores, of half a core each.
		{"servers for their processors", []string{"-messages-per-hour", "600"}, func(n need) float64 { return float64(n.servers) }, 2 + 1, 0},
		// Half of 0.25 GiB without 64 MiB has room for 8,192 streams of 8 KiB.
		{"servers for their memory", []string{"-conversations", "16400", "-messages-per-hour", "0", "-memory", "0.25"}, func(n need) float64 { return float64(n.servers) }, 3 + 1, 0},
		{"servers for their descriptors", []string{"-conversations", "5000", "-messages-per-hour", "0", "-descriptors", fmt.Sprint(reserved + 1000)}, func(n need) float64 { return float64(n.servers) }, 5 + 1, 0},
		{"a month", nil, func(n need) float64 { return n.monthly }, 0.5 * month * (2*1000 + 800 + 2000/10.), 1},
		{"a month on SQLite", []string{"-database", "sqlite"}, func(n need) float64 { return n.monthly }, 0.5 * month * (2*500 + 400 + 1000/10.), 1},
		{"a month of longer messages", []string{"-characters", "140"}, func(n need) float64 { return n.monthly }, 0.5 * month * (2*1100 + 800 + 2000/10.), 1},
		{"besides", []string{"-delivery-log", "24"}, func(n need) float64 { return n.standing }, 0.5 * day * (200 + 400), 1},
		{"besides without keys", []string{"-delivery-log", "24", "-keyed", "0"}, func(n need) float64 { return n.standing }, 0.5 * day * 200, 1},
		{"log", nil, func(n need) float64 { return n.walPerDay }, 0.5 * day * 8000, 1},
		{"written", nil, func(n need) float64 { return n.writtenPerSecond }, 16000, 0},
		{"most syncs", nil, func(n need) float64 { return n.syncsMost }, 4, 0},
		{"fewest syncs", nil, func(n need) float64 { return n.syncsFewest }, 3, 0},
		{"one database", nil, func(n need) float64 { return float64(n.cells) }, 1, 0},
		// 600 turns a second take 1.2 cores, of which a machine of one has half.
		{"databases", []string{"-messages-per-hour", "600", "-database-cores", "1"}, func(n need) float64 { return float64(n.cells) }, 3, 0},
	} {
		got := c.got(size(parsed(t, append(args, c.more...)...), plain))
		if got < c.want-c.tolerance || got > c.want+c.tolerance {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// Conversations that have been quiet cost more, and never less than others.
func TestGrowth(t *testing.T) {
	t.Parallel()
	for growth, want := range map[float64]float64{0.5: 1, 1: 1, 3: 3} {
		c := maps.Clone(plain)
		c[costs.GrowSQLite], c[costs.GrowServer], c[costs.GrowPostgres] = growth, growth, growth
		l := parsed(t)
		if n := size(l, c); n.turnCost != 1000*want || n.databaseTurnCost != 2000*want {
			t.Errorf("%v times: a turn costs %v and %v", growth, n.turnCost, n.databaseTurnCost)
		}
		l.database = sqlite
		if n := size(l, c); n.turnCost != 400*want {
			t.Errorf("%v times: a turn on SQLite costs %v", growth, n.turnCost)
		}
	}
}

// More to do never takes less, whatever it is that there is more of.
func TestMoreTakesMore(t *testing.T) {
	t.Parallel()
	figures := map[string]func(n need) float64{
		"servers": func(n need) float64 { return float64(n.servers) }, "cores": func(n need) float64 { return n.serverCores },
		"connections": func(n need) float64 { return float64(n.connections) }, "cores of PostgreSQL": func(n need) float64 { return n.databaseCores },
		"databases": func(n need) float64 { return float64(n.cells) }, "hints": func(n need) float64 { return n.hints },
		"month": func(n need) float64 { return n.monthly }, "besides": func(n need) float64 { return n.standing },
		"written": func(n need) float64 { return n.writtenPerSecond }, "log": func(n need) float64 { return n.walPerDay }, "syncs": func(n need) float64 { return n.syncsMost },
	}
	for _, database := range []string{sqlite, postgres} {
		for name, values := range map[string][]string{
			"conversations":     {"1", "10", "1000", "30000", "100000", "300000", "1000000"},
			"messages-per-hour": {"0", "0.1", "1", "60", "3600"},
			"average":           {"0.01", "0.3", "1"},
			"listening":         {"0", "0.5", "1"},
			"characters":        {"1", "40", "4000"},
			"keyed":             {"0", "1"},
			"delivery-log":      {"1", "168", "720"},
		} {
			last := need{}
			for _, v := range values {
				n := size(parsed(t, "-database", database, "-"+name, v), plain)
				for what, of := range figures {
					if of(n) < of(last) {
						t.Errorf("%s, -%s %s: %s are %v, and were %v", database, name, v, what, of(n), of(last))
					}
				}
				last = n
			}
		}
	}
}

// Every cost but one, which is there to compare with, is reckoned with.
func TestEveryCostCounts(t *testing.T) {
	t.Parallel()
	for _, c := range costs.Known() {
		var before, after bytes.Buffer
		for out, cost := range map[*bytes.Buffer]float64{&before: 10, &after: 4000} {
			args := []string{"-conversations", "200000", "-cost", "commits.alone.sqlite=100", "-cost", "commits.alone.postgres=100", "-cost", fmt.Sprintf("%s=%v", c.Name, cost)}
			if strings.HasSuffix(c.Name, "sqlite") {
				args = append(args, "-database", "sqlite")
			}
			if err := run(args, out); err != nil {
				t.Fatal(err)
			}
		}
		if c.Name != costs.Rate+postgres && before.String() == after.String() {
			t.Errorf("%s changes nothing", c.Name)
		}
	}
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	for _, args := range []string{
		"-conversations 0", "-conversations -5", "-conversations 1000001", "-conversations many",
		"-messages-per-hour -1", "-messages-per-hour NaN", "-messages-per-hour +Inf", "-turns 0", "-turns 0.5",
		"-database oracle", "-database=", "-average 0", "-average 1.1", "-listening 2", "-listening -0.1", "-keyed 1.5", "-use 0", "-use 1.5",
		"-cores 0", "-memory 0", "-descriptors 4096", "-spare -1", "-connections 1", "-database-cores 0", "-delivery-log 0", "-characters 0", "-characters 1e9",
		"-cost turn.sqlite", "-cost turn.oracle=1", "-cost turn.sqlite=-1", "-cost turn.sqlite=NaN", "-cost turn.sqlite=x", "-cost server.memory=8192",
		"-costs no-such-file", "-no-such-flag", "100000",
	} {
		var out bytes.Buffer
		err := run(strings.Fields(args), &out)
		if err == nil || errors.Is(err, flag.ErrHelp) || out.Len() > 0 {
			t.Errorf("%s: %v, printed %q", args, err, out.String())
		}
	}
}

// A file overrules the table in the code, and a flag overrules the file.
func TestCostsOfAFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "SCALE.md")
	if err := os.WriteFile(file, []byte("# Measured\n\n"+costs.Set{costs.TurnSQLite: 11, costs.TurnServer: 12}.Table()), 0o600); err != nil {
		t.Fatal(err)
	}
	_, c, err := parse([]string{"-cost", "turn.server=13", "-costs", file})
	if err != nil {
		t.Fatal(err)
	}
	if c[costs.TurnSQLite] != 11 || c[costs.TurnServer] != 13 || c[costs.TurnPostgres] != costs.Default()[costs.TurnPostgres] {
		t.Errorf("reckons with %v", c)
	}
}

func TestTheReportIsWhole(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{}, {"-database", "sqlite"}, {"-conversations", "1000000", "-messages-per-hour", "3600"}, {"-conversations", "1", "-spare", "0", "-messages-per-hour", "0"}} {
		var out bytes.Buffer
		if err := run(args, &out); err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"%!", "NaN", "Inf"} {
			if strings.Contains(out.String(), bad) {
				t.Errorf("%v: %s in\n%s", args, bad, out.String())
			}
		}
	}
	if err := run([]string{"-h"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h gives %v", err)
	}
}

var update = flag.Bool("update", false, "rewrite the tables in the guide")

// The tables in the guide are what was measured and what the program says of it.
func TestGeneratedTablesInTheGuide(t *testing.T) {
	const guide = "../../docs/guide/sizing.md"
	old, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	text := string(old)
	for section, table := range map[string]string{"costs": measuredTable(), "sizes": examples(t)} {
		head := "<!-- " + section + " -->\n"
		before, rest, ok := strings.Cut(text, head)
		_, after, closed := strings.Cut(rest, "<!-- end -->")
		if !ok || !closed {
			t.Fatalf("%s has no part %s", guide, head)
		}
		text = before + head + table + "<!-- end -->" + after
	}
	switch {
	case text == string(old):
	case *update:
		err = os.WriteFile(guide, []byte(text), 0o644)
	default:
		err = errors.New("a table in the guide is out of date; run make generate")
	}
	if err != nil {
		t.Error(err)
	}
}

// measuredTable shows the costs side by side.
func measuredTable() string {
	c := costs.Default()
	var b strings.Builder
	b.WriteString("| measured | SQLite | PostgreSQL |\n|---|--:|--:|\n")
	row := func(what, lite, pg string) { fmt.Fprintf(&b, "| %s | %s | %s |\n", what, lite, pg) }
	both := func(what, name, unit string) {
		row(what, number(c[name+sqlite])+unit, number(c[name+postgres])+unit)
	}
	micros := func(names ...string) string {
		v := 1.0
		for _, name := range names {
			v *= c[name]
		}
		return number(v) + " µs"
	}
	kept := func(database string) string {
		return number(2*c[costs.Message+database]+c[costs.Event+database]) + " bytes"
	}
	both("turns a second in 32 conversations: one server, people, bot and database on two cores", costs.Rate, "")
	row("processor time of the server for a turn, one server", micros(costs.TurnSQLite), micros(costs.TurnServer))
	row("the same of three servers together", "", micros(costs.TurnServers))
	row("processor time of PostgreSQL for a turn, three servers", "", micros(costs.TurnPostgres))
	row("a conversation not seen lately, of 1,000,000: the server, times as much", number(c[costs.GrowSQLite]), number(c[costs.GrowServer]))
	row("the same for PostgreSQL", "", number(c[costs.GrowPostgres]))
	both("commits of a turn when nothing else goes on", costs.CommitsAlone, "")
	both("commits of a turn, 32 at a time", costs.Commits, "")
	row("kept of a turn: two messages of 40 characters and an event, with indexes", kept(sqlite), kept(postgres))
	both("a conversation and its user, with indexes", costs.Conversation, " bytes")
	row("an open stream that is silent", number(c[costs.StreamMemory])+" KiB, "+number(c[costs.StreamCPU])+" µs a second", "the same")
	row("hints over NATS by a turn, three servers", "", number(c[costs.TurnHints]))
	return b.String()
}

func examples(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("| conversations | turns/s | database | servers | cores busy: servers | PostgreSQL | connections | memory of a server | disk, more a month | log (WAL) a day | syncs/s, at most |\n|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, c := range []struct{ conversations, database string }{
		{"1000", sqlite}, {"10000", sqlite}, {"100000", sqlite}, {"10000", postgres}, {"100000", postgres}, {"300000", postgres}, {"1000000", postgres},
	} {
		l := parsed(t, "-conversations", c.conversations, "-database", c.database)
		n := size(l, costs.Default())
		name, database, connections, wal := "SQLite", "", "", ""
		if c.database == postgres {
			name, database, connections, wal = "PostgreSQL", number(n.databaseCores), fmt.Sprint(n.connections), decimal(n.walPerDay)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %d | %s | %s | %s | %s | %s | %s | %s |\n", c.conversations, number(n.turns), name, n.servers, number(n.serverCores), database,
			connections, gib(n.serverMemory), decimal(n.monthly), wal, number(n.syncsMost))
	}
	return b.String()
}
