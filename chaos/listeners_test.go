package chaos

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/internal/parleytest"
)

// TestListeners has ten thousand people listen at the same time, a hundred messages
// a second for half an hour, each answered by the bot, and cuts them all at once.
// Every one hears every message of its conversation once, in order, soon, and costs
// the server little. Then the same people listen over HTTP/2.
//
// A tenth of them sit in rooms of a hundred, the others have a conversation for
// themselves. What the kernel keeps for sockets is no part of resident memory.
func TestListeners(t *testing.T) {
	parleytest.Each(t, func(t *testing.T, s *parleytest.Setup) {
		n := 300
		if long() {
			n = 10_000
		}
		h := newHall(t, s, n)
		bare := h.resident(190 * time.Second)
		each := func(kib int) float64 { return float64(kib-bare) / float64(n) }

		h.open(overHTTP1(dial, longest))
		idle := each(h.resident(130 * time.Second))
		seconds := rounds(2, 1800)
		load := watch(t, s)
		h.talk(func() { <-time.After(time.Duration(seconds) * time.Second) })
		h.check()
		loaded, sent, told, took := each(load.most()), h.count.Load(), h.told.Load(), h.took.Swap(&histogram{})

		load = watch(t, s)
		var back time.Duration
		h.talk(func() { back = h.cutAll() })
		h.check()
		herd := each(load.most())

		h.leave()
		over, end := overHTTP2()
		h.open(over)
		h2 := each(h.resident(time.Minute))
		h.talk(func() { <-time.After(time.Second) })
		h.check()
		h.leave()
		end()

		if long() && idle > 8 {
			t.Errorf("a listener over HTTP/1.1 costs %.1f KiB of resident memory, want 8 at most", idle)
		}
		if p := took.percentile(99); long() && p > 150*time.Millisecond {
			t.Errorf("a message took %v (p99) to its listeners, want 150 ms at most", p)
		}
		record(t, "listeners, "+s.Name, fmt.Sprintf("%d listeners over HTTP/1.1, %.1f KiB of resident memory each, %.1f at most under load, %.1f when all came back (buffers of sockets not counted), over h2c %.1f; "+
			"%d messages in %d s, each answered, heard %d times, after %v (p50), %v (p99), %v (latest); all cut at once, all back after %v; 0 missed, doubled or out of order",
			n, idle, loaded, herd, h2, sent, seconds, told, took.percentile(50), took.percentile(99), took.percentile(100), back.Round(time.Millisecond)))
	})
}

const (
	packed    = 100 // listeners of a large room
	hallPace  = 100 // messages a second
	intoLarge = 10  // one in so many goes to a large room
)

// hall is many people who listen, in rooms of one or many.
type hall struct {
	t            *testing.T
	s            *parleytest.Setup
	doors        []string // of the chat, one a server
	rooms        []*room
	large, small []*room
	ears         []*ear

	listening sync.WaitGroup
	leaving   context.CancelFunc
	up        atomic.Int64 // who has a stream
	count     atomic.Int64 // messages sent
	told      atomic.Int64 // messages heard, over all who listen
	took      atomic.Pointer[histogram]
	sent      sync.Map // text of a message → when it was sent
}

// room is a conversation. One message at a time goes into it.
type room struct {
	*hall
	*talk // of the one who writes
	ears  []*ear
	mu    sync.Mutex
}

// emptyHall has no rooms yet.
func emptyHall(t *testing.T, s *parleytest.Setup) *hall {
	t.Helper()
	_, env := s.Settings()
	door, err := url.Parse(env.ChatURL)
	if err != nil {
		t.Fatal(err)
	}
	h := &hall{t: t, s: s}
	h.took.Store(&histogram{})
	for _, node := range s.Nodes {
		door.Host = node.Addr
		h.doors = append(h.doors, door.String())
	}
	return h
}

// newHall brings n people into their rooms. Each has looked around where it will
// listen: what a server keeps of people, and of its database, is there before.
func newHall(t *testing.T, s *parleytest.Setup, n int) *hall {
	t.Helper()
	h := emptyHall(t, s)
	for range max(1, n/packed/10) {
		h.large = append(h.large, h.newRoom(packed))
	}
	for range n - len(h.ears) {
		h.small = append(h.small, h.newRoom(1))
	}
	h.furnish()
	return h
}

// newRoom plans a room of n people.
func (h *hall) newRoom(n int) *room {
	r := &room{hall: h, talk: &talk{name: fmt.Sprintf("room %d", len(h.rooms)), base: h.doors[len(h.rooms)%len(h.doors)]}}
	for range n {
		e := &ear{room: r, turn: len(h.ears)}
		r.ears, h.ears = append(r.ears, e), append(h.ears, e)
	}
	h.rooms = append(h.rooms, r)
	return r
}

// furnish makes what is planned.
func (h *hall) furnish() {
	h.t.Helper()
	if err := inParallel(len(h.rooms), func(i int) error { return h.rooms[i].furnish(h.t.Context()) }); err != nil {
		h.t.Fatal(err)
	}
}

// inParallel does n things, some at a time, and returns the first error.
func inParallel(n int, do func(i int) error) error {
	var (
		all  sync.WaitGroup
		next atomic.Int64
		errs = make(chan error, 16)
	)
	for range cap(errs) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(errs)
	return <-errs
}

// furnish makes the conversation and the people of a room.
func (r *room) furnish(ctx context.Context) error {
	for i, e := range r.ears {
		var user struct {
			Key  string
			User struct{ ID string }
		}
		if _, err := r.call(ctx, "POST", "/users", "", struct{}{}, &user); err != nil {
			return err
		}
		e.key = user.Key
		if i > 0 {
			if _, err := r.call(ctx, "POST", "/conversations/"+url.PathEscape(r.id)+"/participants", "", map[string]string{"userId": user.User.ID}, &struct{}{}); err != nil {
				return err
			}
		} else {
			r.key = user.Key
			var made struct{ Conversation struct{ ID string } }
			if _, err := r.call(ctx, "POST", "/conversations", "", struct{}{}, &made); err != nil {
				return err
			}
			r.id = made.Conversation.ID
		}
		own := &talk{base: e.door(), key: e.key}
		here := "/conversations/" + url.PathEscape(r.id)
		for _, path := range []string{here, here + "/participants", here + "/messages"} {
			if _, err := own.call(ctx, "GET", path, "", struct{}{}, &struct{}{}); err != nil {
				return err
			}
		}
	}
	return nil
}

// resident is the memory of the servers after a rest. After two minutes without a
// collection one is forced, and what is free goes back to the system.
func (h *hall) resident(rest time.Duration) int {
	h.t.Helper()
	if long() {
		<-time.After(rest)
	}
	return resident(h.t, h.s)
}

// open has everybody listen, in one way or each in its own, and returns when all
// have a stream. They come one after the other, some at a time.
func (h *hall) open(over opener) {
	h.t.Helper()
	ctx, leave := context.WithCancel(h.t.Context())
	h.leaving = leave
	entry, late := make(chan struct{}, 32), time.After(5*time.Minute)
	for _, e := range h.ears {
		if over != nil {
			e.over = over
		}
		select {
		case entry <- struct{}{}:
		case <-late:
			h.t.Fatalf("%d of %d listeners have a stream after five minutes", h.up.Load(), len(h.ears))
		}
		e.inside = sync.OnceFunc(func() { <-entry })
		h.listening.Go(func() { e.listen(ctx) })
	}
	h.allUp()
}

// allUp returns when everybody has a stream.
func (h *hall) allUp() {
	h.t.Helper()
	late := time.After(5 * time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for int(h.up.Load()) != len(h.ears) {
		select {
		case <-tick.C:
		case <-late:
			h.t.Fatalf("%d of %d listeners have a stream after five minutes", h.up.Load(), len(h.ears))
		}
	}
}

// leave ends all streams.
func (h *hall) leave() {
	h.leaving()
	h.listening.Wait()
}

// cutAll cuts all streams at once and returns how long it took until everybody
// had one again, at the next server.
func (h *hall) cutAll() time.Duration {
	h.t.Helper()
	began := time.Now()
	for _, e := range h.ears {
		e.cut()
	}
	h.allUp()
	return time.Since(began)
}

// talk has messages go into the rooms while something else goes on.
func (h *hall) talk(meanwhile func()) {
	h.t.Helper()
	ctx, stop := context.WithCancel(h.t.Context())
	var writing sync.WaitGroup
	writing.Go(func() {
		pace := time.NewTicker(time.Second / hallPace)
		defer pace.Stop()
		for {
			select {
			case <-pace.C:
				n := h.count.Add(1)
				writing.Go(func() { h.say(n) })
			case <-ctx.Done():
				return
			}
		}
	})
	meanwhile()
	stop()
	writing.Wait()
}

// say sends the n-th message, to the room whose turn it is.
func (h *hall) say(n int64) {
	r := h.small[int(n)%len(h.small)]
	if n%intoLarge == 0 {
		r = h.large[int(n/intoLarge)%len(h.large)]
	}
	r.say(fmt.Sprintf("n%07d", n))
}

func (r *room) say(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent.Store(text, time.Now())
	if err := r.send(text); err != nil {
		r.t.Error(err)
		return
	}
	r.written = append(r.written, text)
}

// check waits until everything is answered and heard, and compares.
func (h *hall) check() {
	h.t.Helper()
	if err := inParallel(len(h.rooms), func(i int) error { return h.rooms[i].check(h.t.Context()) }); err != nil {
		h.t.Fatal(err)
	}
}

// check waits until the bot has answered everything that was written in the room
// and everybody in it has heard that.
func (r *room) check(ctx context.Context) error {
	late := time.After(3 * time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		all, err := r.messages(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		if len(r.unanswered(all)) == 0 && r.heard(len(all)) {
			return r.compare(all)
		}
		select {
		case <-tick.C:
		case <-late:
			return r.compare(all) // which finds what is missing
		}
	}
}

// heard reports whether everybody in the room has heard so many messages.
func (r *room) heard(n int) bool {
	return !slices.ContainsFunc(r.ears, func(e *ear) bool { return len(e.sofar()) < n })
}

// compare holds what was acknowledged and what each has heard against the
// conversation.
func (r *room) compare(all []message) error {
	own, bot := split(all)
	if !slices.Equal(own, r.written) {
		return fmt.Errorf("%s: %d messages acknowledged, %d listed: %s", r.name, len(r.written), len(own), firstDifference(r.written, own))
	}
	if !slices.Equal(bot, r.written) {
		return fmt.Errorf("%s: %d messages acknowledged, %d answered: %s", r.name, len(r.written), len(bot), firstDifference(r.written, bot))
	}
	ids := make([]uint64, len(all))
	for i, m := range all {
		ids[i] = mark(m.ID)
	}
	for _, e := range r.ears {
		if heard := e.sofar(); !slices.Equal(heard, ids) {
			return fmt.Errorf("%s: a listener heard %d of %d messages, or others", r.name, len(heard), len(ids))
		}
		if err := e.why(); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return nil
}
