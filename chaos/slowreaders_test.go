package chaos

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"parley/internal/parleytest"
)

// TestSlowReaders has some of many who listen to a conversation stop reading, or
// read a byte a second. The server cuts them, holds little for them until then, and
// lets nobody else wait. When they come back they miss nothing.
func TestSlowReaders(t *testing.T) {
	parleytest.Each(t, func(t *testing.T, s *parleytest.Setup) {
		each := 2
		if long() {
			each = 25
		}
		slow := 4 * each // two ways of reading, over two protocols
		took, messages, times := &histogram{}, 0, rounds(1, 20)
		// Long messages take their memory anyway; what counts is what the slow ones add.
		calm, most := 0, 0
		if long() {
			load := watch(t, s)
			h := newLounge(t, s, each, newBrake())
			h.drone(func(n int) bool { return n == 100 })
			h.check()
			h.leave()
			calm = load.most()
		}
		load := watch(t, s)
		for range times {
			b := newBrake()
			h := newLounge(t, s, each, b)
			h.took.Store(took)
			already := cut(t, s)
			b.on.Store(true)
			messages += h.drone(func(int) bool { return cut(t, s)-already >= slow })
			b.release()
			h.check()
			h.leave()
		}
		most = load.most() - calm
		if bound := slow * 2 << 10; long() && most > bound {
			t.Errorf("the servers took %d MiB more than without, want %d at most for %d slow listeners", most>>10, bound>>10, slow)
		}
		if d := took.percentile(99); long() && d > 150*time.Millisecond {
			t.Errorf("a message took %v (p99) to the listeners that read, want 150 ms at most", d)
		}
		record(t, "slow readers, "+s.Name, fmt.Sprintf("%d listeners that do not read, or a byte a second, over SSE and WebSocket, among %d that do: cut %d times, %d MiB of resident memory at most more than without them; "+
			"%d messages of 32 KiB, each answered, reached the others after %v (p50), %v (p99); 0 missed or doubled by anybody",
			slow, slow, slow*times, most>>10, messages, took.percentile(50), took.percentile(99)))
	})
}

// newLounge opens a room where of each kind there are so many. Half of them read
// slowly while the brake is on.
func newLounge(t *testing.T, s *parleytest.Setup, each int, b *brake) *hall {
	t.Helper()
	h := emptyHall(t, s)
	long := 64 * longest
	kinds := []struct {
		over opener
		slow bool
	}{
		{overHTTP1(dial, long), false}, {overWebSocket(dial), false},
		{overHTTP1(b.dial(false), long), true}, {overWebSocket(b.dial(false)), true},
		{overHTTP1(dial, long), false}, {overWebSocket(dial), false},
		{overHTTP1(b.dial(true), long), true}, {overWebSocket(b.dial(true)), true},
	}
	r := h.newRoom(len(kinds) * each)
	for i, e := range r.ears {
		kind := kinds[i%len(kinds)]
		e.over, e.slow = kind.over, kind.slow
	}
	h.furnish()
	h.open(nil)
	return h
}

// drone fills the room with long messages, fifty a second, until it is enough, and
// returns how many.
func (h *hall) drone(enough func(n int) bool) (n int) {
	h.t.Helper()
	pace := time.NewTicker(time.Second / 50)
	defer pace.Stop()
	late := time.After(2 * time.Minute)
	for !enough(n) && !h.t.Failed() {
		select {
		case <-pace.C:
			n++
			h.rooms[0].say(fmt.Sprintf("n%07d%s", n, strings.Repeat("-", 32<<10)))
		case <-late:
			h.t.Fatalf("after %d messages in two minutes not all slow readers are cut", n)
		}
	}
	return n
}

// cut is how many listeners the servers have cut because they did not keep up.
func cut(t *testing.T, s *parleytest.Setup) (n int) {
	t.Helper()
	for _, reason := range []string{"overflow", "stalled", "silent"} {
		sum, _ := metric(t, s, `parley_realtime_cuts_total{reason="`+reason+`"}`)
		n += int(sum)
	}
	return n
}

// brake makes connections slow readers, from on to release.
type brake struct {
	on  atomic.Bool
	off chan struct{}
}

func newBrake() *brake { return &brake{off: make(chan struct{})} }

// release ends it, for good.
func (b *brake) release() { close(b.off) }

// lame is a connection with a brake: it does not read, or a byte a second.
type lame struct {
	net.Conn
	*brake
	drips bool
}

func (c lame) Read(p []byte) (int, error) {
	switch {
	case !c.on.Load():
	case c.drips:
		select {
		case <-c.off:
		case <-time.After(time.Second):
			p = p[:1]
		}
	default:
		<-c.off
	}
	return c.Conn.Read(p)
}

// dial opens connections with a brake, whose window is soon full.
func (b *brake) dial(drips bool) dialer {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil || b.on.Load() { // who comes back reads
			return c, err
		}
		_ = c.(broken).SetReadBuffer(4 << 10) // else a few messages more do it
		return lame{c, b, drips}, nil
	}
}

// overWebSocket listens to the messages of a WebSocket.
func overWebSocket(dial dialer) opener {
	return func(ctx context.Context, address, key string, after int64) (stream, error) {
		through := &http.Transport{DialContext: dial}
		c, _, err := websocket.Dial(ctx, address, &websocket.DialOptions{
			HTTPClient: &http.Client{Transport: through},
			HTTPHeader: http.Header{"X-User-Key": {key}, "Last-Event-ID": {strconv.FormatInt(after, 10)}},
		})
		if err != nil {
			return nil, err
		}
		c.SetReadLimit(64 << 10)
		return &frames{ctx, c}, nil
	}
}

// frames are the messages of a WebSocket.
type frames struct {
	ctx context.Context
	c   *websocket.Conn
}

func (s *frames) next() (pos int64, data []byte, err error) {
	for {
		_, data, err = s.c.Read(s.ctx)
		if err != nil || string(data) != "ping" {
			return 0, data, err
		}
	}
}

func (s *frames) Close() error { return s.c.CloseNow() }
