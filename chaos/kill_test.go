package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/internal/parleytest"
)

// TestKill kills servers at random points while people write, and
// starts them again on the same data. Afterwards every acknowledged message is
// there once, in the order it was sent, and is answered once; a listener that
// came back each time heard everything once, in order.
func TestKill(t *testing.T) {
	parleytest.Each(t, func(t *testing.T, s *parleytest.Setup) {
		n := &toll{}
		c := begin(t, s)
		c.end(func() { killOften(t, s, n) })
		n.inTime(t)
		c.record("kill -9 of servers, "+s.Name, n.String())
	})
}

// toll is what servers went through.
type toll struct {
	kills, stops, deaf int
	ready              []time.Duration // from each start until requests were served
	killed             []time.Time
}

func (n *toll) String() string {
	var ends []string
	if n.kills > 0 {
		ends = append(ends, fmt.Sprintf("%d kills", n.kills))
	}
	if n.stops > 0 {
		ends = append(ends, fmt.Sprintf("%d stops", n.stops))
	}
	text := strings.Join(ends, ", ")
	if n.deaf > 0 {
		text += fmt.Sprintf(", %d of them without NATS", n.deaf)
	}
	return text + fmt.Sprintf("; ready again after %v (p50), %v (p99)", n.readyAfter(50), n.readyAfter(99))
}

// readyAfter is a percentile of how long the starts took.
func (n *toll) readyAfter(percent int) time.Duration {
	slices.Sort(n.ready)
	return n.ready[(len(n.ready)*percent+99)/100-1].Round(time.Millisecond)
}

// inTime holds the starts of a long run against the promise.
func (n *toll) inTime(t *testing.T) {
	t.Helper()
	if p := n.readyAfter(99); long() && p > 3*time.Second {
		t.Errorf("requests were served %v (p99) after a start, want 3 s at most", p)
	}
}

// start starts a server again and notes how long that took.
func (n *toll) start(s *parleytest.Server) {
	began := time.Now()
	s.Start()
	n.ready = append(n.ready, time.Since(began))
}

// killOften kills and restarts servers at random points, and now and then the
// NATS server beside them.
func killOften(t *testing.T, s *parleytest.Setup, n *toll) {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 1))
	for round := range rounds(6, 200) {
		// Short and long lives: some end while start-up still catches up.
		life := time.Duration(50+dice.IntN(900)) * time.Millisecond
		<-time.After(life)
		unheard := s.NATS != nil && round%4 == 2
		if unheard {
			s.NATS.Stop()
			n.deaf++
		}
		victim := s.Nodes[dice.IntN(len(s.Nodes))]
		if dice.IntN(4) == 0 {
			victim.End() // in good order now and then: it must lose as little
			n.stops++
		} else {
			victim.Kill()
			n.kills++
		}
		if len(s.Nodes) > 1 {
			<-time.After(time.Duration(dice.IntN(300)) * time.Millisecond) // the others go on without it
		}
		n.start(victim)
		if unheard {
			if err := s.NATS.Run(); err != nil {
				t.Fatal(err)
			}
		}
	}
	<-time.After(300 * time.Millisecond)
	if long() && len(s.Nodes) > 1 {
		// One stays away: the others take over what it was at when its leases end.
		s.Nodes[dice.IntN(len(s.Nodes))].Kill()
		n.kills++
		<-time.After(300 * time.Millisecond)
	}
}

// killUntil kills servers at random points until done is closed, a pause apart
// on average, and starts them again. NATS is away for some of the pauses. A short
// run stops killing after a few, so that a slow machine comes to an end.
func killUntil(t *testing.T, s *parleytest.Setup, n *toll, dice *rand.Rand, pause time.Duration, done <-chan struct{}) {
	t.Helper()
	for long() || n.kills < 4 {
		unheard := s.NATS != nil && n.kills%3 == 1
		if unheard {
			s.NATS.Stop()
			n.deaf++
		}
		over := false
		select {
		case <-time.After(pause/2 + time.Duration(dice.Int64N(int64(pause)))):
			victim := s.Nodes[dice.IntN(len(s.Nodes))]
			victim.Kill()
			n.kills++
			n.killed = append(n.killed, time.Now())
			n.start(victim)
		case <-done:
			over = true
		}
		if unheard {
			if err := s.NATS.Run(); err != nil {
				t.Fatal(err)
			}
		}
		if over {
			return
		}
	}
	<-done
}
