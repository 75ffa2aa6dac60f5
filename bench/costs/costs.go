// Package costs names what conversations cost, as the benchmarks measure it and
// the sizing calculator reckons with it.
package costs

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Cost is one figure that the size of an installation follows from.
type Cost struct {
	Name  string
	Unit  string
	What  string  // and where it is measured
	Value float64 // that of bench/SCALE.md
}

// Known are all the costs, in the order in which they are shown.
func Known() []Cost { return known }

// Names of costs.
const (
	TurnSQLite   = "turn.sqlite"
	TurnServer   = "turn.server"
	TurnServers  = "turn.servers"
	TurnPostgres = "turn.postgres"
	TurnNATS     = "turn.nats"
	TurnHints    = "turn.hints"
	GrowSQLite   = "growth.sqlite"
	GrowServer   = "growth.server"
	GrowPostgres = "growth.postgres"
	StreamMemory = "stream.memory"
	StreamCPU    = "stream.cpu"
	ServerMemory = "server.memory"
	WALPostgres  = "wal.postgres"
	// These have a database behind them, sqlite or postgres.
	Conversation = "conversation."
	Message      = "message."
	Event        = "event."
	Attempt      = "attempt."
	Key          = "key."
	Written      = "written."
	CommitsAlone = "commits.alone."
	Commits      = "commits."
	Rate         = "rate."
)

var known = []Cost{
	{TurnSQLite, "µs", "CPU time of the server for a turn, on SQLite, 32 at a time", 569},
	{TurnServer, "µs", "CPU time of the server for a turn, one server on PostgreSQL", 1720},
	{TurnServers, "µs", "CPU time of all servers for a turn, three servers on PostgreSQL and NATS", 2570},
	{TurnPostgres, "µs", "CPU time of PostgreSQL for a turn, three servers", 2512},
	{TurnNATS, "µs", "CPU time of NATS for a turn, three servers", 209},
	{TurnHints, "", "hints sent over NATS by a turn, three servers", 2.99},
	{GrowSQLite, "×", "CPU time of the server for a message where there are very many conversations, of that with few, on SQLite, 16 connections", 2.37},
	{GrowServer, "×", "the same on PostgreSQL", 2.05},
	{GrowPostgres, "×", "the same for PostgreSQL", 8.25},
	{StreamMemory, "KiB", "resident memory of the server for an open stream", 8.98},
	{StreamCPU, "µs/s", "CPU time of the server for an open stream that is silent", 3.43},
	{ServerMemory, "MiB", "resident memory of one server of three, after its turns", 96.8},
	{Conversation + "sqlite", "bytes", "a conversation and its user, with indexes", 1608},
	{Conversation + "postgres", "bytes", "the same on PostgreSQL", 5472},
	{Message + "sqlite", "bytes", "a message of 40 characters, with indexes", 424},
	{Message + "postgres", "bytes", "the same on PostgreSQL", 511},
	{Event + "sqlite", "bytes", "an event, with indexes", 481},
	{Event + "postgres", "bytes", "the same on PostgreSQL", 1098},
	{Attempt + "sqlite", "bytes", "an entry of the log of deliveries, with indexes", 151},
	{Attempt + "postgres", "bytes", "the same on PostgreSQL", 256},
	{Key + "sqlite", "bytes", "an Idempotency-Key and its answer, with indexes", 1038},
	{Key + "postgres", "bytes", "the same on PostgreSQL", 1423},
	{Written + "sqlite", "bytes", "given to the disk for a turn, many at a time", 32453},
	{Written + "postgres", "bytes", "the same on PostgreSQL", 33414},
	{WALPostgres, "bytes", "of these the log of PostgreSQL", 3885},
	{CommitsAlone + "sqlite", "", "commits of a turn that nothing else goes on beside", 2.34},
	{CommitsAlone + "postgres", "", "the same on PostgreSQL", 2.57},
	{Commits + "sqlite", "", "commits of a turn, 32 at a time", 0.234},
	{Commits + "postgres", "", "the same on PostgreSQL", 2},
	{Rate + "sqlite", "turns/s", "turns a second at 32 conversations, one server on SQLite", 1856},
	{Rate + "postgres", "turns/s", "the same on PostgreSQL", 496},
}

// Set is a value for each cost, or for some.
type Set map[string]float64

// Default are the values in this table.
func Default() Set {
	s := Set{}
	for _, c := range known {
		s[c.Name] = c.Value
	}
	return s
}

// Put sets a cost that is known to a value that may be one.
func (s Set) Put(name string, value float64) error {
	for _, c := range known {
		if c.Name != name {
			continue
		}
		if math.IsNaN(value) || math.IsInf(value, 0) || value < 0 {
			return fmt.Errorf("%s cannot be %v", name, value)
		}
		s[name] = value
		return nil
	}
	return fmt.Errorf("there is no cost %q", name)
}

const header = "| cost | value | unit | what it is |\n|---|--:|---|---|\n"

// Table shows a set as the part of a document that Read reads.
func (s Set) Table() string {
	var b strings.Builder
	b.WriteString(header)
	for _, c := range known {
		if v, ok := s[c.Name]; ok {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", c.Name, digits(v), c.Unit, c.What)
		}
	}
	return b.String()
}

// digits are as many as a measurement has.
func digits(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// Read finds the table of costs in a document.
func Read(text string) (Set, error) {
	_, rows, ok := strings.Cut(text, header)
	if !ok {
		return nil, fmt.Errorf("there is no table of costs in it")
	}
	s := Set{}
	for line := range strings.Lines(rows) {
		f := strings.Split(line, "|")
		if len(f) != 6 {
			break // the end of the table
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(f[2]), 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", strings.TrimSpace(line), err)
		}
		if err := s.Put(strings.Trim(f[1], " `"), v); err != nil {
			return nil, err
		}
	}
	return s, nil
}
