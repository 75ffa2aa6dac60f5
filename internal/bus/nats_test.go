package bus_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"parley/internal/bus"
	"parley/internal/bus/bustest"
	"parley/internal/bus/natstest"
)

func overNATS(t *testing.T, url, prefix string) *bus.NATS {
	t.Helper()
	b, err := bus.NewNATS(bus.NATSConfig{URL: url, Name: t.Name(), Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestNATS(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	t.Run("one node", func(t *testing.T) {
		bustest.Run(t, func(t *testing.T) bus.Bus { return overNATS(t, s.URL, t.Name()) })
	})
	t.Run("two nodes", func(t *testing.T) {
		bustest.RunPair(t, func(t *testing.T) (publisher, listener bus.Bus) {
			return overNATS(t, s.URL, t.Name()), overNATS(t, s.URL, t.Name())
		})
	})
}

// heard publishes until the listener of a topic has got something.
func heard(t *testing.T, p bus.Bus, topic string, got *atomic.Int64) {
	t.Helper()
	before, end := got.Load(), time.NewTimer(time.Minute)
	defer end.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for got.Load() == before {
		p.Publish(topic, []byte("x"))
		select {
		case <-again.C:
		case <-end.C:
			t.Fatalf("nothing arrived on %s", topic)
		}
	}
}

// Installations that share the servers never hear each other.
func TestNATSPrefix(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	a, b, other := overNATS(t, s.URL, "a"), overNATS(t, s.URL, "a"), overNATS(t, s.URL, "b")
	var mine, theirs atomic.Int64
	defer b.Subscribe("t", func([]byte) { mine.Add(1) })()
	defer other.Subscribe("t", func([]byte) { theirs.Add(1) })()
	heard(t, a, "t", &mine)
	if theirs.Load() != 0 {
		t.Error("another installation heard it")
	}
}

// The servers may be absent at the start, go and come back: nobody waits for
// them, listeners of the node itself miss nothing, and those of others hear again.
func TestNATSServerComesAndGoes(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	s.Stop()
	a, b := overNATS(t, s.URL, "a"), overNATS(t, s.URL, "a")
	var here, there atomic.Int64
	defer a.Subscribe("t", func([]byte) { here.Add(1) })()
	defer b.Subscribe("t", func([]byte) { there.Add(1) })()
	for round := range 3 {
		begin := here.Load()
		for range 100_000 {
			a.Publish("t", nil)
		}
		if n := here.Load() - begin; n != 100_000 {
			t.Errorf("round %d: %d of 100000 arrived within the process", round, n)
		}
		if a.Connected() {
			t.Errorf("round %d: connected without a server", round)
		}
		if err := s.Run(); err != nil {
			t.Fatal(err)
		}
		heard(t, a, "t", &there)
		s.Stop()
		for a.Connected() || b.Connected() {
			a.Publish("t", nil)
		}
	}
	if a.Stats().Dropped == 0 {
		t.Error("what could not be sent is not counted")
	}
}

// Whatever a topic is called, it arrives under its name.
func TestNATSTopics(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	a, b := overNATS(t, s.URL, "a b.*"), overNATS(t, s.URL, "a b.*")
	for _, topic := range []string{"", "a.b", "*", ">", "a b", "=41", "ü", "a\r\nPUB x", strings.Repeat("x", 2000)} {
		var got, stray atomic.Int64
		leave := b.Subscribe(topic, func([]byte) { got.Add(1) })
		defer b.Subscribe(topic+".x", func([]byte) { stray.Add(1) })()
		heard(t, a, topic, &got)
		leave()
		if stray.Load() != 0 {
			t.Errorf("%q arrived under another name", topic)
		}
	}
}

func TestNATSAddressThatIsNone(t *testing.T) {
	t.Parallel()
	if _, err := bus.NewNATS(bus.NATSConfig{URL: "nats://a b:x"}); err == nil {
		t.Error("a URL that cannot be read was taken")
	}
}
