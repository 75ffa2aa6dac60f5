package main

import (
	"fmt"
	"math"

	"parley/bench/costs"
)

const (
	sqlite   = "sqlite"
	postgres = "postgres"

	// mostConversations is how many were measured.
	mostConversations = 1_000_000
	// measuredCharacters is the length of the messages that were.
	measuredCharacters = 40
	// reserved are descriptors of a server besides streams: calls, the database, requests.
	reserved = 4096
	// yours are connections to PostgreSQL for people and their tools.
	yours = 10

	month = 30 * 24 * 3600 // seconds
	day   = 24 * 3600
	micro = 1e-6
)

// load is what there is to do, and with what.
type load struct {
	database      string
	conversations int
	perHour       float64
	turns         float64
	average       float64
	listening     float64
	characters    float64
	keyed         float64
	logHours      float64
	use           float64
	cores         float64
	memory        float64 // GiB
	descriptors   int
	spare         int
	connections   int
	databaseCores float64
}

// check refuses what was not measured or cannot be.
func (l load) check(c costs.Set) error {
	switch {
	case l.database != sqlite && l.database != postgres:
		return fmt.Errorf("-database %q is neither sqlite nor postgres", l.database)
	case l.conversations < 1 || l.conversations > mostConversations:
		return fmt.Errorf("-conversations %d: what is measured is 1 to %d", l.conversations, mostConversations)
	case l.descriptors <= reserved:
		return fmt.Errorf("-descriptors %d: a server needs %d besides its streams", l.descriptors, reserved)
	case l.spare < 0 || l.spare > 100:
		return fmt.Errorf("-spare %d is no number of servers that may be missing", l.spare)
	case l.connections < 4 || l.connections > 10_000:
		return fmt.Errorf("-connections %d: a server has at least 4", l.connections)
	}
	for _, v := range []struct {
		name         string
		value        float64
		least, above float64
	}{
		{"messages-per-hour", l.perHour, 0, 3600 * 100}, {"turns", l.turns, 1, 1e9}, {"characters", l.characters, 1, 128 << 10},
		{"delivery-log", l.logHours, 1, 24 * 365 * 10}, {"cores", l.cores, 1, 1024}, {"memory", l.memory, 0.25, 1 << 14}, {"database-cores", l.databaseCores, 1, 1024},
		{"average", l.average, 0.001, 1}, {"listening", l.listening, 0, 1}, {"keyed", l.keyed, 0, 1}, {"use", l.use, 0.05, 1},
	} {
		if !(v.value >= v.least && v.value <= v.above) { // nor is it a number
			return fmt.Errorf("-%s %v is not between %v and %v", v.name, v.value, v.least, v.above)
		}
	}
	if bare := c[costs.ServerMemory] / 1024; l.memory/2 <= bare {
		return fmt.Errorf("-memory %v: half of it is less than a server takes without any stream, %.2f GiB", l.memory, bare)
	}
	return nil
}

// missing is how many servers others have to stand in for.
func (l load) missing() int {
	if l.database == sqlite {
		return 0
	}
	return l.spare
}

// need is what it takes.
type need struct {
	turns, streams, newConversations float64

	servers                   int
	why                       string
	turnCost                  float64 // µs
	serverCores               float64
	streamsEach, serverMemory float64 // when the spare ones are missing

	connections                     int
	databaseTurnCost, databaseCores float64
	cells                           int
	cellsWhy                        string
	hints, natsCores                float64

	monthly, standing, writtenPerSecond, walPerDay float64
	syncsFewest, syncsMost                         float64

	assumptions []string
}

func size(l load, c costs.Set) need {
	n := need{
		turns:   float64(l.conversations) * l.perHour / 3600,
		streams: float64(l.conversations) * l.listening,
	}
	n.newConversations = n.turns * l.average * month / l.turns
	n.size(l, c)
	n.store(l, c)
	if l.database == postgres {
		n.share(l, c)
	}
	n.assume(l, c)
	return n
}

// size is how many servers there are: one, where one can do it.
func (n *need) size(l load, c costs.Set) {
	type reason struct {
		servers float64
		why     string
	}
	cost := func(name, growth string) float64 { return c[name] * max(1, c[growth]) }
	if l.database == sqlite {
		n.turnCost = cost(costs.TurnSQLite, costs.GrowSQLite)
	} else {
		n.turnCost = cost(costs.TurnServer, costs.GrowServer)
	}
	least := func() reason {
		n.serverCores = (n.turns*n.turnCost + n.streams*c[costs.StreamCPU]) * micro
		most := reason{1, "one can do it"}
		for _, r := range []reason{
			{n.serverCores / (l.cores * l.use), fmt.Sprintf("processors, at %.0f %% use", 100*l.use)},
			{n.streams * c[costs.StreamMemory] * 1024 / (l.memory*(1<<30)/2 - c[costs.ServerMemory]*(1<<20)), "memory of open streams"},
			{n.streams / float64(l.descriptors-reserved), "descriptors of open streams"},
		} {
			if r.servers > most.servers {
				most = r
			}
		}
		most.servers = math.Ceil(most.servers)
		return most
	}
	r := least()
	if l.database == postgres && r.servers+float64(l.spare) > 1 {
		// Several hear of each other, which costs something.
		n.turnCost = max(n.turnCost, cost(costs.TurnServers, costs.GrowServer))
		r = least()
	}
	n.servers, n.why = int(r.servers)+l.missing(), r.why
	if l.missing() > 0 {
		n.why += fmt.Sprintf("; %d of them may be missing", l.spare)
	}
	n.streamsEach = math.Ceil(n.streams / r.servers)
	n.serverMemory = n.streamsEach*c[costs.StreamMemory]*1024 + c[costs.ServerMemory]*(1<<20)
}

// store is what goes to the disk.
func (n *need) store(l load, c costs.Set) {
	longer := l.characters - measuredCharacters
	message := max(0, c[costs.Message+l.database]+longer)
	perMonth := n.turns * l.average * month
	n.monthly = perMonth*(2*message+c[costs.Event+l.database]) + n.newConversations*c[costs.Conversation+l.database]
	n.standing = n.turns * l.average * (l.logHours*3600*c[costs.Attempt+l.database] + day*l.keyed*c[costs.Key+l.database])
	n.writtenPerSecond = n.turns * (c[costs.Written+l.database] + 2*2*max(0, longer)) // two messages, in the log and in the table
	n.walPerDay = n.turns * l.average * day * (c[costs.WALPostgres] + 2*max(0, longer))
	n.syncsMost = n.turns * c[costs.CommitsAlone+l.database]
	n.syncsFewest = min(n.turns*c[costs.Commits+l.database], n.syncsMost)
}

// share is what several servers have in common.
func (n *need) share(l load, c costs.Set) {
	n.connections = n.servers*l.connections + yours
	n.databaseTurnCost = c[costs.TurnPostgres] * max(1, c[costs.GrowPostgres])
	n.databaseCores = n.turns * n.databaseTurnCost * micro
	n.cells = max(1, int(math.Ceil(n.databaseCores/(l.databaseCores*l.use))))
	n.cellsWhy = fmt.Sprintf("one machine of %s cores is enough", number(l.databaseCores))
	if n.cells > 1 {
		n.cellsWhy = fmt.Sprintf("one machine of %s cores is not enough: divide the bots among as many installations, each with its servers", number(l.databaseCores))
	}
	if n.servers > 1 {
		n.hints = n.turns * c[costs.TurnHints]
		n.natsCores = n.turns * c[costs.TurnNATS] * micro
	}
}

func (n *need) assume(l load, c costs.Set) {
	say := func(format string, args ...any) { n.assumptions = append(n.assumptions, fmt.Sprintf(format, args...)) }
	say("costs were measured on a machine of two cores (bench/SCALE.md); a core of yours may be faster or slower")
	say("each message of a person is answered by one message of the bot; what the bot itself needs, and the network, is not in here")
	say("every conversation is one that the server has not seen lately, as where there are 1,000,000 of them: that costs a server %s times and PostgreSQL %s times what others do, where it is more than once",
		number(n.growth(l, c)), number(c[costs.GrowPostgres]))
	if l.database == sqlite {
		say("one server writes to one file; measured were %s turns a second at 32 conversations, with the bot and the people on the same two cores", number(c[costs.Rate+sqlite]))
		if n.servers > 1 {
			say("it takes more than one server, and SQLite has one: take PostgreSQL")
		}
		return
	}
	say("one turn costs the same on a machine of many cores as on two: not measured. PostgreSQL above %d cores busy is outside of what was seen", measuredCores)
	if n.cells > 1 {
		say("several databases are several installations, which Parley does not know of each other: docs/guide/sizing.md says what that means")
	}
}

// measuredCores is how much of the machine was there for everything.
const measuredCores = 2

func (n *need) growth(l load, c costs.Set) float64 {
	if l.database == sqlite {
		return c[costs.GrowSQLite]
	}
	return c[costs.GrowServer]
}
