package realtime

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/internal/bus"
)

// reader follows a topic over connections that it cuts itself, and checks that
// every signal comes once and in order.
type reader struct {
	r    *rig
	last int64
	end  int64
}

// follow reads up to budget bytes of one connection, then cuts it, wherever in
// a frame that is.
func (c *reader) follow(t testing.TB, budget int64) error {
	conn := dialSSE(t, c.r.addr, "", c.last)
	defer conn.conn.Close()
	conn.r.Reset(io.LimitReader(conn.conn, budget))
	conn.conn.SetReadDeadline(time.Now().Add(patience))
	for line := ""; line != "\r\n"; {
		var err error
		if line, err = conn.r.ReadString('\n'); err != nil {
			return nil
		}
	}
	for c.last < c.end {
		e, err := conn.next()
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			return nil // the budget is spent; half a frame counts for nothing
		case err != nil:
			return fmt.Errorf("after %d: %w", c.last, err)
		case e.id != c.last+1 || e.data != body(e.id):
			return fmt.Errorf("after %d came %d %q", c.last, e.id, e.data)
		}
		c.last = e.id
	}
	return nil
}

func TestCutAtRandomBytesAndResumed(t *testing.T) {
	t.Parallel()
	const total, readers = 12_000, 4
	r := newRig(t, withHeal(50*time.Millisecond), withBus(&lossy{
		Bus: bus.NewLocal(), rand: rand.New(rand.NewPCG(1, 2)), keep: 0.9,
	}))
	r.publish(total / 2)
	var wg sync.WaitGroup
	var cuts atomic.Int64
	fails := make(chan error, readers)
	for i := range readers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(3, uint64(i)))
			c := reader{r: r, end: total}
			for c.last < c.end {
				if err := c.follow(t, 230+random.Int64N(4000)); err != nil {
					fails <- err
					return
				}
				cuts.Add(1)
			}
		})
	}
	r.publish(total / 2)
	wg.Wait()
	select {
	case err := <-fails:
		t.Fatal(err)
	default:
	}
	if n := cuts.Load(); n < 1000 {
		t.Errorf("only %d connections were cut", n)
	}
}

func TestJoinWhileAPublisherFloods(t *testing.T) {
	t.Parallel()
	const total, readers = 20_000, 64
	r := newRig(t)
	r.publish(100)
	var wg sync.WaitGroup
	flooding := make(chan struct{})
	wg.Go(func() {
		<-flooding
		r.publish(total - 100)
	})
	fails := make(chan error, readers)
	for i := range readers {
		if i == readers/4 {
			close(flooding)
		}
		c := reader{r: r, last: int64(i), end: total}
		wg.Go(func() {
			for c.last < c.end { // one whose queue was full resumes
				if err := c.follow(t, math.MaxInt64); err != nil {
					fails <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-fails:
		t.Fatal(err)
	default:
	}
}

// Enough listeners for several goroutines to share the work, some of which
// leave in the middle of it.
func TestManyListeners(t *testing.T) {
	t.Parallel()
	const n, total = 5 * perShard, 200
	r := newRig(t)
	var all []*stream
	for range n {
		all = append(all, r.open(t, "", 0))
	}
	var wg sync.WaitGroup
	for i, s := range all {
		wg.Go(func() {
			if i%5 == 0 {
				s.wants(1, total/4)
				s.conn.Close()
				return
			}
			s.wants(1, total)
		})
	}
	r.publish(total)
	wg.Wait()
	if got := r.metric(t, "parley_realtime_signals_delivered_total", ""); got < n*total*4/5 {
		t.Errorf("%v signals were delivered", got)
	}
}

// Publishers commit in order and notify as they come.
func TestHintsOutOfOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const publishers, each = 8, 2000
	streams := []*stream{r.open(t, "", 0), r.open(t, "", 0), r.open(t, "", 0)}
	var wg sync.WaitGroup
	for range publishers {
		wg.Go(func() {
			for range each {
				pos := r.commit()
				r.notify(pos, body(pos))
			}
		})
	}
	for _, s := range streams {
		wg.Go(func() { s.wants(1, publishers*each) })
	}
	wg.Wait()
}

func TestAHintThatSkipsReadsTheLog(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.open(t, "", 0)
	for range 9 {
		r.commit()
	}
	r.notify(7, body(7)) // 1 to 6 are read from the log, and maybe 8 and 9
	s.wants(1, 7)
	for _, pos := range []int64{3, 7, 9, 8, 8} {
		r.notify(pos, body(pos))
	}
	s.wants(8, 9)
	r.publish(1)
	s.wants(10, 10)
	if n := r.metric(t, "parley_realtime_healed_total", ""); n < 6 {
		t.Errorf("%v signals healed, want at least 6", n)
	}
}

// A hint without data, because nobody was known to listen or because it was too
// large for the bus, is as good as a lost one.
func TestAHintWithoutDataReadsTheLog(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.open(t, "", 0)
	r.hub.Notify("t", r.commit(), nil)
	s.wants(1, 1)
	big := make([]byte, maxHint+1)
	for i := range big {
		big[i] = 'x'
	}
	r.post(string(big))
	if e, err := s.next(); err != nil || e.id != 2 || e.data != string(big) {
		t.Fatalf("got %d with %d bytes, %v", e.id, len(e.data), err)
	}
	for _, junk := range []string{"", "short"} {
		r.bus.Publish(signalTopic("t"), []byte(junk))
		r.bus.Publish(endTopic, []byte(junk))
	}
	r.publish(1)
	s.wants(3, 3)
}

// Positions that show nothing any more are passed over, also at the end.
func TestPositionsWithoutASignal(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publish(2)
	r.skip("t")
	r.publish(1)
	r.add("t", nil)
	r.skip("t")
	s := r.open(t, "", 0)
	s.wants(1, 2)
	s.wants(4, 4)
	r.publish(2)
	s.wants(7, 8)
	r.skip("t")
	r.skip("t")
	r.publish(1)
	s.wants(11, 11)
}

// Two nodes on two buses: the second hears of nothing.
func TestDeadBusMakesLateNeverWrong(t *testing.T) {
	t.Parallel()
	here := newRig(t)
	there := newRig(t, withHeal(20*time.Millisecond), func(_ *Config, r *rig) { r.tape = here.tape })
	var streams []*stream
	for i := range 10 {
		here.publish(10)
		streams = append(streams, there.open(t, "", int64(i)))
	}
	here.publish(100)
	for i, s := range streams {
		s.wants(int64(i)+1, 200)
	}
	here.publish(1)
	for _, s := range streams {
		s.wants(201, 201)
	}
	if n := there.metric(t, "parley_realtime_healed_total", ""); n == 0 {
		t.Error("nothing was healed")
	}
}

func TestTwoNodesThatLoseHints(t *testing.T) {
	t.Parallel()
	shared := bus.NewLocal()
	lose := func(seed uint64) option {
		return withBus(&lossy{Bus: shared, rand: rand.New(rand.NewPCG(seed, seed)), keep: 0.5})
	}
	a := newRig(t, lose(1), withHeal(20*time.Millisecond))
	b := newRig(t, lose(2), withHeal(20*time.Millisecond), func(_ *Config, r *rig) { r.tape = a.tape })
	const total = 5000
	sa, sb := a.open(t, "", 0), b.open(t, "", 0)
	var wg sync.WaitGroup
	wg.Go(func() { sa.wants(1, total) })
	wg.Go(func() { sb.wants(1, total) })
	for i := range total {
		if i%2 == 0 {
			a.publish(1)
		} else {
			b.publish(1)
		}
	}
	wg.Wait()
}

func TestDeadLogMakesLateNeverWrong(t *testing.T) {
	t.Parallel()
	r := newRig(t, withHeal(20*time.Millisecond))
	s := r.open(t, "", 0)
	r.publish(1)
	s.wants(1, 1)
	r.commit()
	r.fail(errors.New("disk on fire"))
	r.publish(1) // skips one, and the log cannot be read
	before := r.reads.Load()
	r.eventually(t, "the log has been asked", func() bool { return r.reads.Load() > before })
	r.fail(nil)
	s.wants(2, 3)
}

func TestReplayThatCannotReadIsCut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publish(3)
	r.tape.block = make(chan struct{})
	s := r.open(t, "", 0)
	r.fail(errors.New("disk on fire"))
	close(r.tape.block)
	if e, err := s.next(); err == nil {
		t.Fatalf("got %+v from a broken log", e)
	}
	r.deserted(t)
	if n := r.metric(t, "parley_realtime_cuts_total", "unread"); n != 1 {
		t.Errorf("%v cuts, want 1", n)
	}
}

func TestWhereAListenerStarts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	long := time.Now().Add(-time.Minute)
	for pos := range int64(3) {
		r.addAt("t", []byte(body(pos+1)), long)
	}
	fresh, behind, ahead := r.open(t, "", -1), r.open(t, "", 2), r.open(t, "", 1000)
	r.notify(r.addAt("t", []byte(body(4)), justNow()), body(4))
	fresh.wants(4, 4)
	behind.wants(3, 4)
	ahead.wants(4, 4)
	// Posted, then listened: what a fast bot answered in between is there.
	r.open(t, "", -1).wants(4, 4)
}

// However hints come, in order or not, doubled or lost, what goes out is the log.
func TestAnyOrderOfHints(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			r := newRig(t, withHeal(10*time.Millisecond))
			s := r.open(t, "", 0)
			var hints []int64
			for range 200 {
				pos := r.commit()
				for range random.IntN(3) {
					hints = append(hints, pos)
				}
				if random.IntN(20) == 0 {
					random.Shuffle(len(hints), func(i, j int) { hints[i], hints[j] = hints[j], hints[i] })
					for _, pos := range hints {
						r.notify(pos, body(pos))
					}
					hints = nil
				}
			}
			s.wants(1, 200)
		})
	}
}

func TestHintsAreBounded(t *testing.T) {
	t.Parallel()
	h, err := New(Config{Bus: bus.NewLocal(), Log: newTape()})
	if err != nil {
		t.Fatal(err)
	}
	f := &feed{hub: h, topic: "t"}
	for pos := int64(2 * maxHints); pos > 0; pos-- {
		f.keepLocked(Signal{pos, []byte("x")})
		f.keepLocked(Signal{pos, []byte("x")})
	}
	if len(f.hints) != maxHints || f.hintBytes != maxHints {
		t.Fatalf("%d hints with %d bytes are kept", len(f.hints), f.hintBytes)
	}
	for i := 1; i < len(f.hints); i++ {
		if f.hints[i].Pos != f.hints[i-1].Pos+1 {
			t.Fatalf("%d follows %d", f.hints[i].Pos, f.hints[i-1].Pos)
		}
	}
	f.advanceLocked(3 * maxHints)
	f.keepLocked(Signal{1, make([]byte, maxHintBytes+1)})
	if len(f.hints) != 0 || f.hintBytes != 0 {
		t.Fatalf("%d hints with %d bytes are left", len(f.hints), f.hintBytes)
	}
}

func TestPublishingToNobodyCostsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.hub.Notify("t", 1, func() []byte {
		t.Error("data was asked for although nobody listens")
		return nil
	})
	if _, err := New(Config{}); err == nil {
		t.Error("a hub without bus and log was made")
	}
}

func TestDataIsNotAskedForAfterTheLastListenerLeft(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.open(t, "group=g", 0)
	r.publish(1)
	s.wants(1, 1)
	r.hub.End("g")
	s.wantsEnd()
	r.deserted(t)
	r.hub.Notify("t", 2, func() []byte {
		t.Error("data was asked for although nobody listens any more")
		return nil
	})
}

// A Listen per request, so that a rig can serve several topics.
func topicFromRequest(q *http.Request) Listen {
	in := listenFromRequest(q)
	in.Topic = q.URL.Query().Get("topic")
	return in
}

func TestTopicsAreApart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.listen = topicFromRequest
	a, b := r.open(t, "topic=t", 0), r.open(t, "topic=u", 0)
	r.hub.Notify("u", r.add("u", []byte(`"other"`)), func() []byte { return []byte(`"other"`) })
	r.publish(1)
	a.wants(1, 1)
	if e, err := b.next(); err != nil || e.data != `"other"` {
		t.Errorf("got %+v, %v", e, err)
	}
}
