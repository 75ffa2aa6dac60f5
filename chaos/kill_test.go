package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
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
}

func (n *toll) String() string {
	text := fmt.Sprintf("%d stops", n.stops)
	if n.kills > 0 {
		text = fmt.Sprintf("%d kills, %s", n.kills, text)
	}
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
