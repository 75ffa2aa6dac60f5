package realtime

import (
	"context"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A client that reads nothing fills its socket, then its queue, then is cut.
// Nobody else notices, the publisher least of all.
func TestSlowReaderIsCut(t *testing.T) {
	t.Parallel()
	const queue = 256 << 10
	r := newRig(t, withConfig(func(c *Config) { c.QueueBytes = queue }))
	slow := r.open(t, "", 0)
	fast := []*stream{r.open(t, "", 0), r.open(t, "", 0)}
	text := `"` + strings.Repeat("x", 8<<10) + `"`
	var wg sync.WaitGroup
	var last [2]atomic.Int64
	for i, s := range fast {
		wg.Go(func() {
			for pos := int64(1); ; pos++ {
				e, err := s.next()
				if err != nil || e.id != pos || e.data != `"end"` && e.data != text {
					t.Errorf("waiting for %d: got %d, %v", pos, e.id, err)
					return
				}
				last[i].Store(pos)
				r.hub.stir()
				if e.data == `"end"` {
					return
				}
			}
		})
	}
	published := int64(0)
	for r.metric(t, "parley_realtime_cuts_total", "overflow") == 0 {
		for range 16 {
			published = r.post(text)
			if q := r.longestQueue(); q > queue+maxBatch+len(text) {
				t.Fatalf("%d bytes are queued", q)
			}
		}
		r.eventually(t, "the fast readers follow", func() bool {
			return min(last[0].Load(), last[1].Load()) >= published
		})
	}
	r.post(`"end"`)
	wg.Wait()
	if n := r.metric(t, "parley_realtime_listeners", ""); n != 2 {
		t.Errorf("%v listeners, want the two fast ones", n)
	}
	// What it had is a prefix, and it can go on from there.
	at := int64(0)
	for {
		e, err := slow.next()
		if err != nil {
			break
		}
		if at++; e.id != at {
			t.Fatalf("after %d came %d", at-1, e.id)
		}
	}
	again := r.open(t, "", at)
	for pos := at + 1; pos <= published; pos++ {
		if e, err := again.next(); err != nil || e.id != pos {
			t.Fatalf("resumed after %d: got %d, %v", pos-1, e.id, err)
		}
	}
}

func (r *rig) longestQueue() (bytes int) {
	r.hub.mu.Lock()
	all := r.hub.all.list()
	r.hub.mu.Unlock()
	for _, l := range all {
		l.mu.Lock()
		bytes = max(bytes, l.queued)
		l.mu.Unlock()
	}
	return bytes
}

// Nothing overflows here: the client is cut because its socket takes nothing.
func TestReaderWithoutProgressIsCut(t *testing.T) {
	t.Parallel()
	r := newRig(t, withConfig(func(c *Config) {
		c.Stall, c.QueueBytes, c.QueueLen = 100*time.Millisecond, 1<<30, 1<<20
	}))
	r.open(t, "", 0)
	r.fill()
	r.deserted(t)
	if n := r.metric(t, "parley_realtime_cuts_total", "stalled"); n != 1 {
		t.Errorf("%v cuts, want 1", n)
	}
}

// fill posts more than socket buffers take.
func (r *rig) fill() {
	text := `"` + strings.Repeat("x", 64<<10) + `"`
	for range 300 {
		r.post(text)
	}
}

func TestReplayWithoutProgressIsCut(t *testing.T) {
	t.Parallel()
	r := newRig(t, withConfig(func(c *Config) { c.Stall = 100 * time.Millisecond }))
	r.fill()
	dialSSE(t, r.addr, "", 0)
	if err := <-r.errs; err != nil {
		t.Error(err)
	}
	r.deserted(t)
}

// More than may be held arrives while the listener replays: the replay goes on.
func TestReplayOvertakenByTheFeed(t *testing.T) {
	t.Parallel()
	r := newRig(t, withConfig(func(c *Config) { c.QueueBytes = 64 << 10 }))
	r.publish(50)
	watcher := r.open(t, "", 50)
	r.tape.mu.Lock()
	block := make(chan struct{})
	r.tape.block = block
	r.tape.mu.Unlock()
	late := r.open(t, "", 0)
	for pos := int64(50); pos < 1500; pos += 50 {
		r.publish(50)
		watcher.wants(pos+1, pos+50)
	}
	r.tape.mu.Lock()
	r.tape.block = nil
	r.tape.mu.Unlock()
	close(block)
	late.wants(1, 1500)
	r.publish(1)
	late.wants(1501, 1501)
}

func TestEndWritesWhatIsQueued(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ends, stays := r.open(t, "group=a&group=b", 0), r.open(t, "group=a", 0)
	r.publish(300)
	stays.wants(1, 300)
	r.hub.End("b")
	r.publish(1)
	ends.wants(1, 300)
	ends.wantsEnd()
	stays.wants(301, 301)
	r.hub.End("nobody")
	r.hub.End("a")
	stays.wantsEnd()
	r.deserted(t)
}

func TestEndOfASlowListenerWaitsForItsQueue(t *testing.T) {
	t.Parallel()
	r := newRig(t, withConfig(func(c *Config) { c.QueueBytes, c.QueueLen = 1<<30, 1<<20 }))
	s := r.open(t, "group=a", 0)
	r.fill()
	end := r.heads["t"]
	r.eventually(t, "everything is handed out", func() bool {
		return r.metric(t, "parley_realtime_signals_delivered_total", "") == float64(end)
	})
	r.hub.End("a")
	r.post(`"late"`)
	for pos := int64(1); pos <= end; pos++ {
		if e, err := s.next(); err != nil || e.id != pos {
			t.Fatalf("waiting for %d: got %d, %v", pos, e.id, err)
		}
	}
	s.wantsEnd()
	r.deserted(t)
}

func TestEndReachesEveryNode(t *testing.T) {
	t.Parallel()
	a := newRig(t)
	b := newRig(t, withBus(a.bus))
	sa, sb := a.open(t, "group=g", 0), b.open(t, "group=g", 0)
	b.hub.End("g")
	sa.wantsEnd()
	sb.wantsEnd()
}

func TestEndAfterGivesEverythingUpToThere(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	removed, other := r.open(t, "group=u", 0), r.open(t, "group=v", 0)
	for range 20 {
		r.commit()
	}
	r.hub.EndAfter("elsewhere", 1, "u")
	r.hub.EndAfter("t", 10, "u") // no hint has been heard: the log is read
	removed.wants(1, 10)
	removed.wantsEnd()
	r.notify(20, body(20))
	other.wants(1, 20)
	// Already given more, and a position that never comes.
	r.hub.EndAfter("t", 5, "v")
	other.wantsEnd()
	never := r.open(t, "group=w", 20)
	r.hub.EndAfter("t", 1000, "w")
	never.wantsEnd()
	r.deserted(t)
}

func TestEndDuringReplay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		end  func(h *Hub)
		want int64
	}{
		{"at once", func(h *Hub) { h.End("g") }, 0},
		{"after", func(h *Hub) { h.EndAfter("t", 70, "g") }, 70},
	} {
		r := newRig(t)
		r.publish(100)
		block := make(chan struct{})
		r.tape.block = block
		s := r.open(t, "group=g", 0)
		c.end(r.hub)
		close(block)
		s.wants(1, c.want)
		s.wantsEnd()
		r.deserted(t)
	}
}

func TestRightIsAskedForAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, withHeal(5*time.Millisecond))
	var no atomic.Bool
	var asked atomic.Int64
	r.listen = func(q *http.Request) Listen {
		in := listenFromRequest(q)
		in.Allowed = func(context.Context) (bool, error) {
			switch asked.Add(1) {
			case 2:
				return false, io.ErrNoProgress // not known now: nothing changes
			default:
				return !no.Load(), nil
			}
		}
		return in
	}
	s := r.open(t, "", 0)
	r.eventually(t, "it has been asked a few times", func() bool { return asked.Load() > 3 })
	r.publish(1)
	s.wants(1, 1)
	no.Store(true)
	s.wantsEnd()
	r.deserted(t)
}

func TestShutdownEndsStreamsCleanly(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publish(100)
	var streams []*stream
	for range 20 {
		streams = append(streams, r.open(t, "", 0))
	}
	for range 20 {
		<-r.errs // has caught up
	}
	r.publish(100)
	r.eventually(t, "everything is handed out", func() bool {
		return r.metric(t, "parley_realtime_signals_delivered_total", "") == 20*200
	})
	if err := r.hub.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, s := range streams {
		s.wants(1, 200)
		s.wantsEnd()
	}
	res, err := http.Get("http://" + r.addr)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("after Shutdown: status %d, want 503", res.StatusCode)
	}
	if err := r.hub.Shutdown(t.Context()); err != nil {
		t.Errorf("second Shutdown: %v", err)
	}
}

// Neither a client that reads nothing nor a log that does not answer keeps
// Shutdown longer than it may take.
func TestShutdownIsBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t, withConfig(func(c *Config) { c.QueueBytes, c.QueueLen = 1<<30, 1<<20 }))
	r.open(t, "", 0)
	r.fill()
	r.tape.mu.Lock()
	r.tape.block = make(chan struct{})
	r.tape.mu.Unlock()
	dialSSE(t, r.addr, "", 0).readHead()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.hub.Shutdown(ctx); err != context.Canceled {
		t.Errorf("got %v, want the context's error", err)
	}
	r.deserted(t)
}

func TestRunEndsWhatShutdownDidNot(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.open(t, "", 0)
	r.stop()
	s.wantsEnd()
}

// After a cut all come back at once. Each finds a log that a few others read, not
// one behind which everybody queues until time is up.
func TestThoseWhoComeAtOnceAreLetInAFewAtATime(t *testing.T) {
	t.Parallel()
	const crowd = 10 * maxReads
	r := newRig(t)
	var inside, most atomic.Int64
	open := make(chan struct{})
	r.listen = func(*http.Request) Listen {
		return Listen{Topic: "t", After: 0, Allowed: func(context.Context) (bool, error) {
			n := inside.Add(1)
			defer inside.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			r.hub.stir()
			<-open
			return true, nil
		}}
	}
	r.publish(1)
	var streams []*stream
	for range crowd {
		streams = append(streams, dialSSE(t, r.addr, "", 0))
	}
	r.eventually(t, "some are let in", func() bool { return most.Load() >= maxReads })
	for r.metric(t, "parley_realtime_listeners", "") < crowd { // the others wait
		runtime.Gosched()
	}
	close(open)
	for _, s := range streams {
		s.readHead()
		s.wants(1, 1)
	}
	if n := most.Load(); n != maxReads {
		t.Errorf("%d were let in at the same time, want %d", n, maxReads)
	}
}

// Not parallel: it counts goroutines and descriptors of the whole process.
func TestNothingIsLeftBehind(t *testing.T) {
	goroutines, descriptors := runtime.NumGoroutine(), openDescriptors(t)
	t.Run("storm", func(t *testing.T) {
		r := newRig(t, withPing(20*time.Millisecond))
		var wg sync.WaitGroup
		for round := range 3 {
			for i := range 60 {
				switch {
				case i%3 == 0:
					r.open(t, "group=g", 0)
				case i%3 == 1:
					r.open(t, "group=g", 0).conn.Close()
				default:
					c := r.dialWebSocket(t, "group=g")
					wg.Go(func() {
						for {
							if _, err := readText(t, c); err != nil {
								return
							}
						}
					})
				}
			}
			r.publish(50)
			if round == 1 {
				r.eventually(t, "the closed ones are gone", func() bool {
					return r.metric(t, "parley_realtime_listeners", "") <= 40
				})
			}
			r.hub.End("g")
			r.deserted(t)
			wg.Wait()
		}
	})
	// The client's own goroutines end a moment after their connections.
	for late := time.Now().Add(patience); runtime.NumGoroutine() > goroutines || openDescriptors(t) > descriptors; {
		if time.Now().After(late) {
			t.Fatalf("%d goroutines and %d descriptors, %d and %d before", runtime.NumGoroutine(), openDescriptors(t), goroutines, descriptors)
		}
		runtime.Gosched()
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	dir, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(dir)
}
