package realtime

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// lastCall is how long streams have to end when nobody called Shutdown.
const lastCall = 2 * closeTimeout

// Run pings listeners, lets go of those whose clients have left and looks after
// feeds until ctx is done. Then it shuts
// the hub down, with a few seconds for it, unless Shutdown has done so: to give
// streams longer, call Shutdown before ending ctx.
func (h *Hub) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { h.wheel.turn(ctx) })
	wg.Go(func() { h.sweep(ctx) })
	wg.Go(func() { h.hangups.run(ctx) })
	wg.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastCall)
	defer cancel()
	return h.Shutdown(last)
}

// wheel pings every listener once per turn, a few with each tick. One ticker
// serves them all.
type wheel struct {
	tick time.Duration

	mu    sync.Mutex
	slots []bag
	at    int
}

const (
	wheelTick = 100 * time.Millisecond
	maxSlots  = 256
)

func newWheel(turn time.Duration) wheel {
	slots := min(max(1, int(turn/wheelTick)), maxSlots)
	return wheel{tick: turn / time.Duration(slots), slots: make([]bag, slots)}
}

// add puts l where the wheel has just been: its first ping is a turn away.
func (w *wheel) add(l *listener) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l.slot = w.at
	w.slots[l.slot].add(l, &l.inSlot)
}

func (w *wheel) remove(l *listener) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slots[l.slot].remove(&l.inSlot)
}

func (w *wheel) turn(ctx context.Context) {
	ticker := time.NewTicker(w.tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, l := range w.next() {
			l.ping()
		}
	}
}

func (w *wheel) next() []*listener {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = (w.at + 1) % len(w.slots)
	return w.slots[w.at].list()
}

const (
	sweepSteps  = 50 // a sweep is spread over this many steps
	maxPerStep  = 40 // with a great many feeds a sweep takes longer instead of reading more
	askEvery    = 12 // sweeps between two questions whether a listener is still allowed
	sweepJitter = 0.1
)

// sweep looks at the head of every feed once per Config.Heal, and thereby heals
// whatever the bus has lost.
func (h *Hub) sweep(ctx context.Context) {
	step := h.cfg.Heal / sweepSteps
	pause := time.NewTimer(rand.N(h.cfg.Heal)) // nodes that start together do not sweep together
	defer pause.Stop()
	var rest []*feed
	perStep, left := 0, 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		if left == 0 {
			rest = h.allFeeds()
			perStep = min(max(1, (len(rest)+sweepSteps-1)/sweepSteps), maxPerStep)
			left = max(sweepSteps, (len(rest)+perStep-1)/perStep)
		}
		n := min(perStep, len(rest))
		for _, f := range rest[:n] {
			f.look(ctx)
		}
		rest, left = rest[n:], left-1
		pause.Reset(jitter(step))
	}
}

func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 - sweepJitter + 2*sweepJitter*rand.Float64()))
}

func (h *Hub) allFeeds() []*feed {
	h.mu.Lock()
	defer h.mu.Unlock()
	fs := make([]*feed, 0, len(h.feeds))
	for _, f := range h.feeds {
		fs = append(fs, f)
	}
	return fs
}

// look compares the feed with the log, and its listeners with their rights.
func (f *feed) look(ctx context.Context) {
	if f.deserted() {
		return
	}
	head, err := f.hub.head(ctx, f.topic)
	if err != nil {
		f.hub.complain(f.topic, err)
		return
	}
	f.announce(head)
	for _, l := range f.due() {
		ok, err := l.allowed(ctx)
		switch {
		case err != nil:
			f.hub.complain(f.topic, err)
		case !ok:
			l.end(ended)
		}
	}
	f.hub.stir()
}

// due are the listeners that have not been asked about for a while.
func (f *feed) due() []*listener {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.hub.cfg.Now()
	var ls []*listener
	for _, s := range f.listeners.seats {
		if l := s.l; l.allowed != nil && now.Sub(l.asked) >= askEvery*f.hub.cfg.Heal {
			l.asked = now
			ls = append(ls, l)
		}
	}
	return ls
}
