package realtime

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// grace is how far before its arrival a listener without a position starts.
const grace = 250 * time.Millisecond

// settle is how long such a listener is left alone before what it missed is
// sent. Official clients attach their handlers only after they have seen the
// head of the answer; what comes in the same packet finds none.
const settle = 30 * time.Millisecond

// joinContext ends with the request or when Shutdown runs out of time.
func (h *Hub) joinContext(r *http.Request) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(h.hard, cancel)
	return ctx, func() { stop(); cancel() }
}

// resolve finds where the registered listener starts and up to where it must
// replay before it may go on with what is held for it.
func (l *listener) resolve(ctx context.Context, in Listen, arrived time.Time) (start, target int64, err error) {
	done, err := l.hub.turn(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer done()
	if in.Allowed != nil {
		ok, err := in.Allowed(ctx)
		if err != nil {
			return 0, 0, fmt.Errorf("check the right to listen: %w", err)
		}
		if !ok {
			return 0, 0, ErrNotAllowed
		}
	}
	head, err := l.hub.head(ctx, in.Topic)
	if err != nil {
		return 0, 0, fmt.Errorf("read the head of the signal log: %w", err)
	}
	start = in.After
	if start < 0 {
		l.settle = settle
		start, err = l.hub.cfg.Log.Since(ctx, in.Topic, arrived.Add(-grace))
		if err != nil {
			return 0, 0, fmt.Errorf("find the start in the signal log: %w", err)
		}
	}
	target = l.feed.reached(head)
	start = min(start, target)
	// Nothing to replay: live before the head is out, so that whatever is
	// notified once the client has seen the head is queued, come an End or not.
	if start == target && !l.goLive(start) {
		target = l.feed.position()
	}
	return start, target, nil
}

// attach gives l its connection. It fails when l has been dropped meanwhile.
func (l *listener) attach(s sink, waits bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == gone {
		return false
	}
	l.sink = s
	if waits {
		l.done = make(chan struct{})
	}
	return true
}

// join replays, goes live and writes what was held. Until it returns, its
// goroutine is the listener's only writer.
func (l *listener) join(ctx context.Context, start, target int64) {
	if why := l.replay(ctx, start, target); why != staying {
		l.cut(why)
	}
	if l.joined() {
		l.drain()
	}
	l.hub.stir()
}

// joined ends the joining goroutine's part. It reports whether the listener is
// still there.
func (l *listener) joined() bool {
	l.mu.Lock()
	l.joins = false
	why, there := l.why, l.state != gone
	l.mu.Unlock()
	if !there {
		l.leave(why)
	}
	return there
}

// quit drops a listener that got no answer yet.
func (l *listener) quit() {
	l.cut(left)
	l.joined()
}

// replay writes the log from start to target, and on to wherever the feed has
// got meanwhile if that was too much to hold.
func (l *listener) replay(ctx context.Context, start, target int64) cause {
	if start < target {
		l.hub.metrics.replays.Inc()
		select {
		case <-time.After(l.settle):
		case <-ctx.Done():
			return left
		}
	}
	size := chunk{}
	for pos := start; ; target = l.feed.position() {
		for pos < target {
			signals, upTo, err := l.hub.read(ctx, l.feed.topic, pos, size.next())
			if err == nil && upTo <= pos {
				err = fmt.Errorf("nothing above %d, although %d has been announced", pos, target)
			}
			switch {
			case ctx.Err() != nil:
				return left
			case err != nil:
				l.hub.complain(l.feed.topic, err)
				return unread
			}
			b := &batch{signals: signals, upTo: upTo}
			size.was(b)
			more, why := l.replayed(b, pos)
			if !more {
				return why
			}
			pos = upTo
		}
		if l.goLive(pos) {
			return staying
		}
	}
}

// replayed writes what l may have of b, waiting for the socket. It reports
// whether the replay goes on.
func (l *listener) replayed(b *batch, after int64) (more bool, why cause) {
	until, ok := l.limit()
	if !ok {
		return false, staying
	}
	from, to := b.span(after, until)
	if err := l.sink.write(b.frames(l.protocol, from, to)); err != nil {
		return false, causeOf(err)
	}
	l.hub.metrics.delivered.Add(float64(to - from))
	if b.upTo >= until {
		l.end(ended)
		return false, staying
	}
	return true, staying
}

// limit is the last position l may be given; not ok when it is to end now.
func (l *listener) limit() (until int64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.until, l.state == joining
}

// goLive goes on with what was held; until join has returned that is only
// queued. It fails when too much came to hold: then the replay has to go on, and
// holding starts anew.
func (l *listener) goLive(pos int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != joining {
		return true
	}
	if l.held.missed {
		l.held = &held{}
		return false
	}
	batches := l.held.batches
	l.state, l.pos, l.held = live, pos, nil
	n := 0
	for _, b := range batches {
		got, _ := l.takeLocked(b) // a cause is kept for joined: we are still joining
		n += got
	}
	l.hub.metrics.delivered.Add(float64(n))
	if l.pos >= l.until {
		l.endLocked(ended)
	}
	return true
}
