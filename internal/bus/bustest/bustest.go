// Package bustest is the contract of bus.Bus, as a test that every
// implementation passes.
package bustest

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/internal/bus"
)

// Run tests the buses that open makes and closes with the test.
func Run(t *testing.T, open func(t *testing.T) bus.Bus) {
	t.Helper()
	RunPair(t, func(t *testing.T) (publisher, listener bus.Bus) {
		b := open(t)
		return b, b
	})
}

// RunPair tests two buses as two nodes have them: what is published on the one
// is listened to on the other.
func RunPair(t *testing.T, open func(t *testing.T) (publisher, listener bus.Bus)) {
	t.Helper()
	for name, fn := range map[string]func(*testing.T, pair){
		"a message arrives once":                 once,
		"topics are independent":                 topics,
		"every listener gets it":                 everyone,
		"nothing after cancel":                   cancelled,
		"Listening":                              listening,
		"a listener may use the bus":             reentrant,
		"everything at once":                     together,
		"nothing after Close":                    closed,
		"Publish does not wait for the listener": blocked,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, l := open(t)
			// Within the process a listener has been called when Publish returns.
			fn(t, pair{p, l, p == l && !p.Listening("nobody")})
		})
	}
}

type pair struct {
	publisher, listener bus.Bus
	local               bool
}

// inbox is a listener that keeps what it gets.
func inbox() (fn func([]byte), got chan string) {
	got = make(chan string, 1000)
	return func(data []byte) { got <- string(data) }, got
}

// next waits for a message. The bus may drop, so a test that needs one publishes
// it again until it comes.
func next(t *testing.T, b pair, topic, data string, got chan string) string {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	b.publisher.Publish(topic, []byte(data))
	for {
		select {
		case m := <-got:
			return m
		case <-again.C:
			b.publisher.Publish(topic, []byte(data))
		case <-deadline.C:
			t.Fatalf("nothing arrived on %s", topic)
		}
	}
}

func once(t *testing.T, b pair) {
	fn, got := inbox()
	defer b.listener.Subscribe("a", fn)()
	next(t, b, "a", "ready", got)
	for i := range 100 {
		b.publisher.Publish("a", fmt.Append(nil, i))
	}
	seen := map[string]bool{}
	for m := next(t, b, "a", "end", got); m != "end"; m = <-got {
		if m != "ready" && seen[m] {
			t.Errorf("message %s came twice", m)
		}
		seen[m] = true
	}
	delete(seen, "ready")
	if b.local && len(seen) != 100 {
		t.Errorf("%d of 100 messages arrived within the process", len(seen))
	}
}

func topics(t *testing.T, b pair) {
	a, gotA := inbox()
	c, gotC := inbox()
	defer b.listener.Subscribe("sig.a", a)()
	defer b.listener.Subscribe("sig.a.c", c)()
	next(t, b, "sig.a", "x", gotA)
	next(t, b, "sig.a.c", "x", gotC)
	for _, other := range []string{"sig", "sig.b", "sig.a.d", "sig.a.c.d"} {
		b.publisher.Publish(other, []byte("stray"))
	}
	for _, end := range []struct {
		topic string
		got   chan string
	}{{"sig.a", gotA}, {"sig.a.c", gotC}} {
		for m := next(t, b, end.topic, "end", end.got); m != "end"; m = <-end.got {
			if m != "x" {
				t.Errorf("a message of another topic arrived on %s", end.topic)
			}
		}
	}
}

func everyone(t *testing.T, b pair) {
	a, gotA := inbox()
	c, gotC := inbox()
	twice := make(chan string, 1000)
	defer b.listener.Subscribe("t", a)()
	defer b.listener.Subscribe("t", c)()
	for range 2 {
		defer b.listener.Subscribe("t", func(data []byte) { twice <- string(data) })()
	}
	for _, got := range []chan string{gotA, gotC, twice} {
		next(t, b, "t", "x", got)
	}
	next(t, b, "t", "y", gotA)
	if b.local && len(twice) < 3 {
		t.Errorf("a function subscribed twice was called %d times", len(twice)+1)
	}
}

func cancelled(t *testing.T, b pair) {
	fn, got := inbox()
	other, gotOther := inbox()
	cancel := b.listener.Subscribe("t", fn)
	defer b.listener.Subscribe("t", other)()
	next(t, b, "t", "before", got)
	cancel()
	cancel() // does nothing
	for m := next(t, b, "t", "after", gotOther); m != "after"; {
		m = <-gotOther
	}
	for len(got) > 0 {
		if m := <-got; m == "after" {
			t.Error("a listener was called after its cancel had returned")
		}
	}
}

func listening(t *testing.T, b pair) {
	b.publisher.Publish("t", nil) // to nobody
	fn, got := inbox()
	cancel := b.listener.Subscribe("t", fn)
	next(t, b, "t", "x", got)
	if !b.publisher.Listening("t") || !b.listener.Listening("t") {
		t.Error("a listener is not seen by Listening")
	}
	cancel()
	if b.local && b.publisher.Listening("t") {
		t.Error("somebody listens after the last cancel")
	}
}

func reentrant(t *testing.T, b pair) {
	out, got := inbox()
	defer b.listener.Subscribe("out", out)()
	var cancel func()
	ready := make(chan struct{})
	cancel = b.listener.Subscribe("in", func(data []byte) {
		<-ready
		cancel()
		b.listener.Publish("out", data)
		b.listener.Subscribe("in", func([]byte) {})
	})
	close(ready)
	next(t, b, "in", "x", got)
}

// together is for the race detector.
func together(t *testing.T, b pair) {
	var wg sync.WaitGroup
	var calls atomic.Int64
	for w := range 8 {
		wg.Go(func() {
			for i := range 300 {
				topic := fmt.Sprint("t", (w+i)%5)
				var inside sync.WaitGroup
				cancel := b.listener.Subscribe(topic, func([]byte) { calls.Add(1) })
				b.publisher.Publish(topic, []byte("x"))
				b.publisher.Listening(topic)
				inside.Go(cancel)
				inside.Go(func() { b.publisher.Publish(topic, nil) })
				inside.Wait()
			}
		})
	}
	wg.Wait()
	if b.local && calls.Load() < 8*300 {
		t.Errorf("%d calls, want at least one for each subscription", calls.Load())
	}
}

func closed(t *testing.T, b pair) {
	fn, got := inbox()
	cancel := b.listener.Subscribe("t", fn)
	next(t, b, "t", "before", got)
	if err := b.listener.Close(); err != nil {
		t.Fatal(err)
	}
	for len(got) > 0 {
		<-got
	}
	b.listener.Publish("t", []byte("after"))
	b.listener.Subscribe("t", fn)()
	cancel()
	if len(got) > 0 {
		t.Error("a message arrived after Close")
	}
}

// blocked has a listener that waits for what its publisher does next, as a
// listener of another node may. Within the process a listener runs on the
// publisher's goroutine, and there it must not block.
func blocked(t *testing.T, b pair) {
	if b.publisher == b.listener {
		return
	}
	free := make(chan struct{})
	defer close(free)
	defer b.listener.Subscribe("t", func([]byte) { <-free })()
	for range 10_000 {
		b.publisher.Publish("t", []byte("x"))
	}
}
