package realtime

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"parley/internal/bus"
)

// notebook is a sink that remembers when it was written to.
type notebook struct {
	mu   sync.Mutex
	at   []time.Time
	lost cause
	cuts int
}

func (n *notebook) try(p []byte) (int, error) {
	n.do(func() { n.at = append(n.at, time.Now()) })
	return len(p), nil
}

func (n *notebook) write(p []byte) error { _, err := n.try(p); return err }
func (n *notebook) finish(cause)         {}
func (n *notebook) cut()                 { n.do(func() { n.cuts++ }) }
func (n *notebook) check() (c cause)     { n.do(func() { c = n.lost }); return c }

func (n *notebook) do(fn func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fn()
}

// seatNotebook gives a hub a live listener that writes to a notebook.
func seatNotebook(t *testing.T, h *Hub, topic string) (*listener, *notebook) {
	t.Helper()
	l, err := h.enter(Listen{Topic: topic}, sse)
	if err != nil {
		t.Fatal(err)
	}
	n := &notebook{}
	l.attach(n, false)
	l.join(t.Context(), 0, l.feed.reached(0))
	return l, n
}

func TestEveryListenerIsPingedOncePerTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, err := New(Config{Bus: bus.NewLocal(), Log: newTape()})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- h.Run(ctx) }()
		const turn = 25 * time.Second
		var notes []*notebook
		var joined []time.Time
		for range 50 {
			_, n := seatNotebook(t, h, "t")
			notes, joined = append(notes, n), append(joined, time.Now())
			<-time.After(rand.N(3 * time.Second))
		}
		<-time.After(10 * turn)
		_, lost := seatNotebook(t, h, "t")
		lost.do(func() { lost.lost = left })
		<-time.After(turn + time.Second)
		lost.do(func() {
			if lost.cuts != 1 || len(lost.at) != 0 {
				t.Error("a lost peer was not dropped with its ping")
			}
		})
		cancel()
		if err := <-ran; err != nil {
			t.Fatal(err)
		}
		for i, n := range notes {
			last := joined[i]
			for _, at := range n.at {
				if d := at.Sub(last); d < turn-time.Second || d > turn+time.Second {
					t.Fatalf("listener %d: %v between two pings, want %v", i, d, turn)
				}
				last = at
			}
			if len(n.at) < 10 {
				t.Fatalf("listener %d was pinged %d times", i, len(n.at))
			}
		}
	})
}

// counting is a Log that counts looks at heads.
type counting struct {
	*tape
	mu    sync.Mutex
	looks map[string]int
}

func (c *counting) Head(ctx context.Context, topic string) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.looks[topic]++
	return c.tape.Head(ctx, topic)
}

// Every feed is looked at once per period while there are few; with many the
// reads stay bounded and the period grows.
func TestSweepIsPaced(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		feeds  int
		within time.Duration
		lo, hi int // looks per feed
	}{
		{1, 100 * time.Second, 18, 22},
		{170, 100 * time.Second, 15, 22},
		{4000, 100 * time.Second, 9, 11}, // 400 a second
	} {
		t.Run(fmt.Sprint(c.feeds), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				log := &counting{tape: newTape(), looks: map[string]int{}}
				h, err := New(Config{Bus: bus.NewLocal(), Log: log})
				if err != nil {
					t.Fatal(err)
				}
				for i := range c.feeds {
					seatNotebook(t, h, fmt.Sprint(i))
				}
				ctx, cancel := context.WithTimeout(t.Context(), c.within)
				defer cancel()
				h.sweep(ctx)
				for i := range c.feeds {
					if n := log.looks[fmt.Sprint(i)]; n < c.lo || n > c.hi {
						t.Fatalf("feed %d was looked at %d times, want %d to %d", i, n, c.lo, c.hi)
					}
				}
				if err := h.Shutdown(t.Context()); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

func TestComplaintsAreFew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &lines{}
		h, err := New(Config{Bus: bus.NewLocal(), Log: newTape(), Logger: r.logger()})
		if err != nil {
			t.Fatal(err)
		}
		for range 1000 {
			h.complain("t", errors.New("disk on fire"))
			h.complain("t", context.Canceled)
			<-time.After(20 * time.Millisecond)
		}
		if r.n < 1 || r.n > 3 {
			t.Errorf("%d lines in 20 seconds", r.n)
		}
		h.stop()
	})
}
