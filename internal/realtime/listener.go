package realtime

import (
	"context"
	"errors"
	"math"
	"net"
	"sync"
	"time"
)

// sink is where a listener's bytes go. try and write are never called at the
// same time; cut may come at any time, more than once, and makes a write that
// waits return.
type sink interface {
	try(p []byte) (n int, err error) // what goes without waiting
	write(p []byte) error            // waits; fails when nothing goes for Config.Stall
	finish(why cause)                // everything is written: end it cleanly
	cut()
	check() cause // asked before every ping: staying, or why the peer is lost
}

// cause is why a listener leaves.
type cause string

const (
	staying cause = ""

	// Cleanly, after what was queued has been written.
	ended cause = "ended" // what it listened to has gone, or its right to listen
	moved cause = "moved" // the node shuts down; it can go on at another

	// At once.
	left     cause = "left"     // the client went away
	overflow cause = "overflow" // its queue was full
	stalled  cause = "stalled"  // its socket took nothing for too long
	silent   cause = "silent"   // it answered no ping
	unread   cause = "unread"   // the log failed during its replay
	aborted  cause = "aborted"  // Shutdown ran out of time
)

func (c cause) clean() bool { return c == ended || c == moved }

// state of a listener; it only ever grows.
type state int

const (
	joining state = iota // replays; what arrives is held
	live
	closing // takes nothing more, writes what is queued
	gone
)

// listener is one open stream.
type listener struct {
	hub      *Hub
	feed     *feed
	protocol protocol
	groups   []membership
	allowed  func(context.Context) (bool, error)
	asked    time.Time // when allowed was asked last; only the sweep touches it

	settle time.Duration // pause between the head and a replay; only the joining goroutine touches it

	inAll, inFeed int // places in their bags
	slot, inSlot  int
	watched       uint64 // its number among the hangups, 0 = none

	writers sync.WaitGroup // what a handler that stays has to wait for
	done    chan struct{}  // closed when the listener has left; nil where no handler waits

	mu     sync.Mutex
	sink   sink // nil until the response head is out
	state  state
	why    cause // why it is closing or gone
	joins  bool  // the joining goroutine still has it, and will be the one to make it leave
	busy   bool  // somebody writes, and looks at the queue before stopping
	pos    int64 // the last position it was given
	until  int64 // the last position it may be given
	held   *held // while joining
	queue  [][]byte
	queued int // bytes in queue
}

type membership struct {
	group *group
	at    int
}

// held is what the feed hands out while a listener still replays.
type held struct {
	batches []*batch
	weight  int
	missed  bool // it was too much: the replay has to go on to the new end
}

func newListener(h *Hub, in Listen, p protocol) *listener {
	return &listener{
		hub:      h,
		protocol: p,
		groups:   make([]membership, len(in.Groups)),
		allowed:  in.Allowed,
		asked:    h.cfg.Now(),
		joins:    true,
		busy:     true,
		until:    math.MaxInt64,
		held:     &held{},
	}
}

// take gives l its part of b and returns how many signals that were.
func (l *listener) take(b *batch) int {
	l.mu.Lock()
	n, why := l.takeLocked(b)
	l.mu.Unlock()
	if why != staying {
		l.leave(why)
	}
	return n
}

func (l *listener) takeLocked(b *batch) (int, cause) {
	switch l.state {
	case joining:
		l.holdLocked(b)
		return 0, staying
	case live:
	default:
		return 0, staying
	}
	from, to := b.span(l.pos, l.until)
	l.pos = max(l.pos, min(b.upTo, l.until))
	if why := l.sendLocked(b.frames(l.protocol, from, to)); why != staying {
		return 0, why
	}
	if l.pos >= l.until {
		l.endLocked(ended)
	}
	return to - from, staying
}

func (l *listener) holdLocked(b *batch) {
	h := l.held
	h.weight += b.weight()
	if h.missed || h.weight > l.hub.cfg.QueueBytes/2 || len(h.batches) >= l.hub.cfg.QueueLen/2 {
		h.batches, h.missed = nil, true
		return
	}
	h.batches = append(h.batches, b)
}

// sendLocked writes p if that can be done without waiting and queues the rest.
// The cause it returns, if any, is for leave, after unlocking.
func (l *listener) sendLocked(p []byte) cause {
	if len(p) == 0 {
		return staying
	}
	if !l.busy {
		n, err := l.sink.try(p)
		if err != nil {
			return l.retireLocked(causeOf(err))
		}
		if n == len(p) {
			return staying
		}
		p = p[n:]
	}
	// One write alone may exceed the bound, or a signal larger than the queue
	// could never be delivered.
	if len(l.queue) > 0 && (len(l.queue) >= l.hub.cfg.QueueLen || l.queued+len(p) > l.hub.cfg.QueueBytes) {
		return l.retireLocked(overflow)
	}
	l.queue = append(l.queue, p)
	l.queued += len(p)
	l.drainLocked()
	return staying
}

// drainLocked starts a drainer unless somebody is writing already.
func (l *listener) drainLocked() {
	if !l.busy {
		l.busy = true
		l.startLocked(l.drain)
	}
}

// startLocked runs fn on a goroutine that Shutdown and a waiting handler wait
// for. The listener must not be gone.
func (l *listener) startLocked(fn func()) {
	l.writers.Add(1)
	l.hub.wg.Go(func() {
		defer l.writers.Done()
		fn()
	})
}

// drainPiece is how much a drainer takes from the queue at a time.
const drainPiece = 32 << 10

var drainBuffers = sync.Pool{New: func() any { return new([drainPiece]byte) }}

// drain writes the queue until it is empty, many frames at a time.
func (l *listener) drain() {
	buf := drainBuffers.Get().(*[drainPiece]byte)
	defer drainBuffers.Put(buf)
	for {
		n, why := l.gather(buf[:])
		if why != staying {
			l.leave(why)
			return
		}
		if n == 0 {
			return
		}
		if err := l.sink.write(buf[:n]); err != nil {
			l.cut(causeOf(err))
			return
		}
	}
}

// gather moves the front of the queue into buf. With an empty queue it ends the
// drainer, and a closing listener with it.
func (l *listener) gather(buf []byte) (n int, why cause) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) > 0 && n < len(buf) {
		c := copy(buf[n:], l.queue[0])
		n += c
		if l.queue[0] = l.queue[0][c:]; len(l.queue[0]) == 0 {
			l.queue[0] = nil
			l.queue = l.queue[1:]
		}
	}
	l.queued -= n
	switch {
	case n > 0:
		return n, staying
	case l.state == gone:
		return 0, staying
	}
	l.busy = false
	l.queue = nil // an idle listener keeps no room for the last burst
	if l.state == closing {
		return 0, l.retireLocked(l.why)
	}
	return 0, staying
}

// causeOf a failed write. Our deadline and the kernel's own timeout mean the
// same: the peer takes nothing.
func causeOf(err error) cause {
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return stalled
	}
	return left
}

// ping keeps the stream alive. One that is behind needs none: it gets data.
func (l *listener) ping() {
	l.mu.Lock()
	why := staying
	if l.state == live && !l.busy {
		if why = l.sink.check(); why != staying {
			why = l.retireLocked(why)
		} else {
			why = l.sendLocked(pings[l.protocol])
		}
	}
	l.mu.Unlock()
	if why != staying {
		l.leave(why)
	}
}

// end lets nothing more in and closes the stream once its queue is written.
func (l *listener) end(why cause) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.endLocked(why)
}

func (l *listener) endLocked(why cause) {
	if l.state >= closing {
		return
	}
	l.state, l.why, l.held = closing, why, nil
	l.drainLocked()
}

// endAfter ends the stream when it has been given everything up to pos.
func (l *listener) endAfter(pos int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until = min(l.until, pos)
	if l.state == live && l.pos >= l.until {
		l.endLocked(ended)
	}
}

// endOverdue ends a stream that waits for a position which the log does not
// have.
func (l *listener) endOverdue(announced int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == live && l.until <= announced {
		l.endLocked(ended)
	}
}

// cut drops the stream at once. The client can resume.
func (l *listener) cut(why cause) {
	l.mu.Lock()
	why = l.retireLocked(why)
	sink := l.sink
	l.mu.Unlock()
	switch {
	case why != staying:
		l.leave(why)
	case sink != nil:
		sink.cut() // whoever has it waits for this socket
	}
}

// retireLocked makes l gone. It returns why to the one caller who then has to
// make it leave; while a goroutine still joins, that one does.
func (l *listener) retireLocked(why cause) cause {
	if l.state == gone {
		return staying
	}
	l.state, l.why, l.held, l.queue, l.queued = gone, why, nil, nil, 0
	if l.joins {
		return staying
	}
	return why
}

func (l *listener) hasLeft() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state == gone
}

// leave ends the stream's connection and takes it out of the hub. It runs once
// per listener, without any lock.
func (l *listener) leave(why cause) {
	cut := l.sink != nil && !why.clean()
	if cut && why != left { // whoever finds it gone finds it counted
		l.hub.metrics.cuts.WithLabelValues(string(why)).Inc()
	}
	l.hub.detach(l)
	switch {
	case cut:
		l.sink.cut()
	case l.sink != nil:
		l.sink.finish(why)
	}
	if l.done != nil {
		close(l.done)
	}
	l.hub.forget(l)
}
