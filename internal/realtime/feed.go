package realtime

import (
	"context"
	"encoding/binary"
	"runtime"
	"slices"
	"sort"
	"sync"
)

// feed is a topic that has listeners on this node. It turns hints in any order
// into batches in order.
type feed struct {
	hub   *Hub
	topic string
	refs  int // guarded by Hub.mu

	opening sync.Once
	cancel  func()

	mu        sync.Mutex
	closed    bool
	known     bool  // whether last means anything: a joining listener reads the head
	last      int64 // everything up to here has been handed to the listeners
	want      int64 // the highest position heard of
	hints     []Signal
	hintBytes int
	pumping   bool
	listeners bag
	snapshot  []*listener // of listeners, nil after a change
}

const (
	maxHints     = 256
	maxHintBytes = 1 << 20
	perShard     = 64 // listeners below which another goroutine costs more than it brings
)

func (f *feed) open() {
	f.opening.Do(func() { f.cancel = f.hub.cfg.Bus.Subscribe(signalTopic(f.topic), f.hinted) })
}

// close is called when no listener is left. A hint that is under way meanwhile
// finds closed set and starts nothing.
func (f *feed) close() {
	f.mu.Lock()
	f.closed = true
	f.hints = nil
	f.mu.Unlock()
	f.cancel()
}

func (f *feed) deserted() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}

func (f *feed) add(l *listener) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listeners.add(l, &l.inFeed)
	f.snapshot = nil
}

func (f *feed) remove(l *listener) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listeners.remove(&l.inFeed)
	f.snapshot = nil
}

// hinted runs on the publisher's goroutine.
func (f *feed) hinted(msg []byte) {
	if len(msg) < 8 {
		return
	}
	s := Signal{int64(binary.BigEndian.Uint64(msg)), msg[8:]}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known && s.Pos <= f.last {
		return
	}
	f.keepLocked(s)
	f.announceLocked(s.Pos)
}

// announce tells the feed that the log has signals up to pos.
func (f *feed) announce(pos int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.announceLocked(pos)
}

func (f *feed) announceLocked(pos int64) {
	f.want = max(f.want, pos)
	if f.closed || !f.known || f.pumping || f.last >= f.want {
		return
	}
	f.pumping = true
	f.hub.wg.Go(f.pump)
}

// keepLocked puts s in its place among the hints, unless it says nothing or the
// list is full: then the log is read when its turn comes.
func (f *feed) keepLocked(s Signal) {
	if f.closed || len(s.Data) == 0 || len(f.hints) >= maxHints || f.hintBytes+len(s.Data) > maxHintBytes {
		return
	}
	i := len(f.hints)
	for i > 0 && f.hints[i-1].Pos >= s.Pos {
		i--
	}
	if i < len(f.hints) && f.hints[i].Pos == s.Pos {
		return
	}
	f.hints = slices.Insert(f.hints, i, s)
	f.hintBytes += len(s.Data)
}

// reached tells the feed what a joining listener read as the head, and returns
// up to where the log has been or will be handed out from now on: a listener
// that has replayed up to there misses nothing.
func (f *feed) reached(head int64) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.known {
		f.known = true
		f.advanceLocked(head)
	}
	f.announceLocked(head)
	return max(head, f.last)
}

func (f *feed) position() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

func (f *feed) advanceLocked(to int64) {
	f.last = to
	n := sort.Search(len(f.hints), func(i int) bool { return f.hints[i].Pos > to })
	for _, s := range f.hints[:n] {
		f.hintBytes -= len(s.Data)
	}
	f.hints = slices.Delete(f.hints, 0, n)
	if len(f.hints) == 0 && cap(f.hints) > 16 {
		f.hints = nil // an idle feed keeps no room for the last burst
	}
}

// pump hands out what is known until there is nothing left. Only one runs per
// feed, which is what keeps the order.
func (f *feed) pump() {
	size := chunk{}
	for {
		b, listeners, done := f.next()
		if done {
			return
		}
		if b == nil && !f.catchUp(&size) {
			return
		}
		if b != nil {
			f.fanOut(b, listeners)
		}
	}
}

// next is the batch of hints that follow the last position, nil when the next
// one is missing. Position and listeners are taken together: who joins later
// replays up to the new position.
func (f *feed) next() (b *batch, to []*listener, done bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.last >= f.want {
		f.pumping = false
		return nil, nil, true
	}
	n, bytes := 0, 0
	for n < len(f.hints) && f.hints[n].Pos == f.last+int64(n)+1 {
		bytes += weight(f.hints[n])
		if n > 0 && bytes > maxBatch {
			break
		}
		n++
	}
	if n == 0 {
		return nil, nil, false
	}
	b = &batch{signals: slices.Clone(f.hints[:n]), upTo: f.last + int64(n)}
	return b, f.commitLocked(b), false
}

// commitLocked moves the position behind b and returns who is to get it.
func (f *feed) commitLocked(b *batch) []*listener {
	f.advanceLocked(b.upTo)
	if f.snapshot == nil {
		f.snapshot = f.listeners.list()
	}
	return f.snapshot
}

// catchUp reads a chunk of the log and hands it out. It reports whether the
// pump may go on.
func (f *feed) catchUp(size *chunk) bool {
	ctx, cancel := context.WithTimeout(f.hub.hard, f.hub.within)
	defer cancel()
	after := f.position()
	signals, upTo, err := f.hub.read(ctx, f.topic, after, size.next())
	if err != nil {
		f.hub.complain(f.topic, err)
		f.rest()
		return false // the sweep tries again
	}
	if upTo <= after {
		f.giveUp()
		return true
	}
	b := &batch{signals: signals, upTo: upTo}
	size.was(b)
	f.hub.metrics.healed.Add(float64(len(signals)))
	f.mu.Lock()
	listeners := f.commitLocked(b)
	f.mu.Unlock()
	f.fanOut(b, listeners)
	return true
}

func (f *feed) rest() {
	f.mu.Lock()
	f.pumping = false
	f.mu.Unlock()
	f.hub.stir()
}

// giveUp stops waiting for a position that was announced but that the log does
// not have. A later look at the head announces it again should it turn up;
// streams that were to end there end here.
func (f *feed) giveUp() {
	f.mu.Lock()
	until := f.want
	f.want = f.last
	listeners := f.listeners.list()
	f.mu.Unlock()
	for _, l := range listeners {
		l.endOverdue(until)
	}
}

// fanOut hands b to listeners and returns when all have it, in their socket or
// in their queue.
func (f *feed) fanOut(b *batch, listeners []*listener) {
	shards := min(runtime.GOMAXPROCS(0), max(1, len(listeners)/perShard))
	if shards == 1 {
		f.deliver(b, listeners)
		return
	}
	var wg sync.WaitGroup
	size := (len(listeners) + shards - 1) / shards
	for part := range slices.Chunk(listeners[size:], size) {
		wg.Go(func() { f.deliver(b, part) })
	}
	f.deliver(b, listeners[:size])
	wg.Wait()
}

func (f *feed) deliver(b *batch, listeners []*listener) {
	n := 0
	for _, l := range listeners {
		n += l.take(b)
	}
	f.hub.metrics.delivered.Add(float64(n))
	f.hub.stir()
}

// chunk is how many signals to read at a time: few at first, as each may be
// large, more while they are small.
type chunk struct{ limit int }

const (
	firstChunk   = 32
	largestChunk = 512
	heavyChunk   = 512 << 10
)

func (c *chunk) next() int {
	if c.limit == 0 {
		c.limit = firstChunk
	}
	return c.limit
}

func (c *chunk) was(b *batch) {
	if w := b.weight(); w > heavyChunk {
		c.limit = max(1, c.limit/2)
	} else if w < heavyChunk/4 {
		c.limit = min(2*c.limit, largestChunk)
	}
}
