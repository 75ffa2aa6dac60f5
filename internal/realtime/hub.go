package realtime

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/prometheus/client_golang/prometheus"

	"parley/internal/bus"
)

// Signal is one entry of a topic's log. Data is the JSON that listeners get, on
// one line; it is shared and must not be changed. A Signal without Data stands
// for a position that has nothing to show any more.
type Signal struct {
	Pos  int64
	Data []byte
}

// Log is where the signals of a topic are kept.
type Log interface {
	// Head is the highest position of the topic, 0 when there is none.
	Head(ctx context.Context, topic string) (int64, error)
	// Read returns up to limit signals above after, ascending, and the position
	// up to which that is everything: the last one's when the limit was
	// reached, else the head as the same snapshot shows it. It must not be
	// higher than what the signals were read from.
	Read(ctx context.Context, topic string, after int64, limit int) ([]Signal, int64, error)
	// Since is the position just before the first signal at or after t, the
	// head when there is none.
	Since(ctx context.Context, topic string, t time.Time) (int64, error)
}

// Listen is what one stream asks for.
type Listen struct {
	Topic string
	// After is the last position the client has; -1 starts shortly before its
	// arrival. One above the head is taken as the head.
	After int64
	// Groups name what the stream depends on; End of any of them ends it.
	Groups []string
	// Allowed, if set, is asked once the stream is registered, so that no End
	// can be missed between the caller's own check and the registration, and
	// from time to time after that, in case the bus lost one. An error means
	// "not known now" and changes nothing later on.
	Allowed func(context.Context) (bool, error)
}

var (
	// ErrShuttingDown is returned to streams that come after Shutdown.
	ErrShuttingDown = errors.New("the server is shutting down")
	// ErrNotAllowed is returned when Listen.Allowed says no.
	ErrNotAllowed = errors.New("listening is not allowed")
)

// Config is what a Hub is made of. Bus and Log are required, the rest has
// defaults.
type Config struct {
	Bus     bus.Bus
	Log     Log
	Logger  *slog.Logger
	Metrics prometheus.Registerer // nil: counted, not shown
	Now     func() time.Time

	Ping       time.Duration // between two pings to a listener, 25 s
	Heal       time.Duration // between two looks at the head of a topic, 5 s
	Stall      time.Duration // longest wait for a socket to take anything, 30 s
	QueueLen   int           // writes that may wait per listener, 1,024
	QueueBytes int           // and their bytes, 1 MB
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Ping = orDefault(c.Ping, 25*time.Second)
	c.Heal = orDefault(c.Heal, 5*time.Second)
	c.Stall = orDefault(c.Stall, 30*time.Second)
	c.QueueLen = orDefault(c.QueueLen, 1024)
	c.QueueBytes = orDefault(c.QueueBytes, 1<<20)
	return c
}

func orDefault[T time.Duration | int](v, otherwise T) T {
	if v > 0 {
		return v
	}
	return otherwise
}

// Hub serves the listeners of one node.
type Hub struct {
	cfg     Config
	metrics *metrics
	wheel   wheel

	hard context.Context // ends what is still under way when Shutdown runs out of time
	stop context.CancelFunc

	reads   chan struct{} // one place per read of the log under way, or per listener that is let in
	hangups *hangups
	grumble rate.Sometimes // a dead database is one line now and then, not one per feed
	wg      sync.WaitGroup // pumps and drainers; nothing is added once the last listener has left

	endBus func() // cancels the subscription to endings

	within  time.Duration // what a read of the log may take: readWithin, but for tests
	stirred chan struct{} // told what happens in the background, for tests; nil otherwise

	mu      sync.Mutex
	closing bool
	idle    chan struct{} // closed when closing and the last listener has left
	all     bag
	groups  map[string]*group
	feeds   map[string]*feed
}

type group struct {
	name    string
	members bag
}

const (
	maxReads   = 16        // a node that reconnects to the bus finds every feed behind at once
	maxHint    = 256 << 10 // a larger signal travels as its position; buses have limits
	readWithin = 10 * time.Second
)

// New makes a hub. It listens to endings at once; pings, the sweep
// and what the kernel tells of clients that leave need Run.
func New(cfg Config) (*Hub, error) {
	if cfg.Bus == nil || cfg.Log == nil {
		return nil, errors.New("realtime: Config needs Bus and Log")
	}
	cfg = cfg.withDefaults()
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	hangups, err := newHangups()
	if err != nil {
		return nil, fmt.Errorf("realtime: hear of connections that end: %w", err)
	}
	h := &Hub{
		hangups: hangups,
		cfg:     cfg,
		metrics: m,
		wheel:   newWheel(cfg.Ping),
		reads:   make(chan struct{}, maxReads),
		within:  readWithin,
		grumble: rate.Sometimes{First: 1, Interval: 10 * time.Second},
		idle:    make(chan struct{}),
		groups:  map[string]*group{},
		feeds:   map[string]*feed{},
	}
	h.hard, h.stop = context.WithCancel(context.Background())
	h.endBus = sync.OnceFunc(cfg.Bus.Subscribe(endTopic, h.ended))
	return h, nil
}

// Notify tells every node that the log of topic has a signal at pos; call it
// after the commit. data is only called when somebody may be listening. It does
// not wait for listeners, may be called from several goroutines at a time, and
// positions may arrive in any order, twice or never.
func (h *Hub) Notify(topic string, pos int64, data func() []byte) {
	on := signalTopic(topic)
	if !h.cfg.Bus.Listening(on) {
		return
	}
	var d []byte
	if data != nil {
		d = data()
	}
	if len(d) > maxHint {
		d = nil
	}
	msg := make([]byte, 8, 8+len(d))
	binary.BigEndian.PutUint64(msg, uint64(pos))
	h.cfg.Bus.Publish(on, append(msg, d...))
}

func signalTopic(topic string) string { return "sig." + topic }

// endTopic is one for all groups: endings are rare, while a subscription per
// group would cost every idle listener several.
const endTopic = "end"

type endMessage struct {
	Group string `json:"group"`
	Topic string `json:"topic,omitempty"`
	Pos   int64  `json:"pos,omitempty"`
}

// End closes every stream of group on every node, cleanly, after what is queued
// for it has been written. One that still replays ends where it is. Signals
// notified later do not reach it.
func (h *Hub) End(group string) { h.publishEnding(endMessage{Group: group}) }

// EndAfter closes the streams of group on topic once they have been given
// everything up to pos; they get nothing above it.
func (h *Hub) EndAfter(topic string, pos int64, group string) {
	h.publishEnding(endMessage{group, topic, pos})
}

func (h *Hub) publishEnding(e endMessage) {
	msg, err := json.Marshal(e)
	if err != nil {
		panic(err) // two strings and a number
	}
	h.cfg.Bus.Publish(endTopic, msg)
}

// ended runs on the publisher's goroutine: it marks the streams, drainers close
// them.
func (h *Hub) ended(msg []byte) {
	var e endMessage
	if json.Unmarshal(msg, &e) != nil {
		return
	}
	for _, l := range h.members(e.Group) {
		switch {
		case e.Topic == "":
			l.end(ended)
		case e.Topic == l.feed.topic:
			l.endAfter(e.Pos)
			l.feed.announce(e.Pos)
		}
	}
}

func (h *Hub) members(name string) []*listener {
	h.mu.Lock()
	defer h.mu.Unlock()
	if g := h.groups[name]; g != nil {
		return g.members.list()
	}
	return nil
}

// enter registers a new listener: from here on it holds what its feed emits,
// and endings find it.
func (h *Hub) enter(in Listen, p protocol) (*listener, error) {
	l := newListener(h, in, p)
	if !h.register(l, in) {
		return nil, ErrShuttingDown
	}
	l.feed.open()
	l.feed.add(l)
	h.wheel.add(l)
	h.metrics.listeners[p].Inc()
	return l, nil
}

func (h *Hub) register(l *listener, in Listen) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing {
		return false
	}
	l.feed = h.feeds[in.Topic]
	if l.feed == nil {
		l.feed = &feed{hub: h, topic: in.Topic}
		h.feeds[in.Topic] = l.feed
	}
	l.feed.refs++
	h.all.add(l, &l.inAll)
	for i, name := range in.Groups {
		g := h.groups[name]
		if g == nil {
			g = &group{name: name}
			h.groups[name] = g
		}
		l.groups[i].group = g
		g.members.add(l, &l.groups[i].at)
	}
	return true
}

// detach takes l out of everything that could still hand it something.
func (h *Hub) detach(l *listener) {
	h.hangups.forget(l)
	h.wheel.remove(l)
	l.feed.remove(l)
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range l.groups {
		m := &l.groups[i]
		m.group.members.remove(&m.at)
		if m.group.members.empty() {
			delete(h.groups, m.group.name)
		}
	}
}

// forget is the last that happens to a listener.
func (h *Hub) forget(l *listener) {
	h.metrics.listeners[l.protocol].Dec()
	h.mu.Lock()
	l.feed.refs--
	last := l.feed.refs == 0
	if last {
		delete(h.feeds, l.feed.topic)
	}
	h.mu.Unlock()
	if last {
		l.feed.close()
	}
	h.mu.Lock()
	h.all.remove(&l.inAll)
	h.idleLocked()
	h.mu.Unlock()
	h.stir()
}

func (h *Hub) stir() {
	select {
	case h.stirred <- struct{}{}:
	default:
	}
}

func (h *Hub) idleLocked() {
	if !h.closing || !h.all.empty() {
		return
	}
	select {
	case <-h.idle:
	default:
		close(h.idle)
	}
}

// turn waits for a place among those who read. A read has its time from then on:
// after a cut thousands may come at once, each to be served, if late.
func (h *Hub) turn(ctx context.Context) (done func(), err error) {
	select {
	case h.reads <- struct{}{}:
		return func() { <-h.reads }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// read is Log.Read for feeds and replays, a bounded number at a time.
func (h *Hub) read(ctx context.Context, topic string, after int64, limit int) ([]Signal, int64, error) {
	done, err := h.turn(ctx)
	if err != nil {
		return nil, after, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, h.within)
	defer cancel()
	signals, upTo, err := h.cfg.Log.Read(ctx, topic, after, limit)
	if n := len(signals); n > 0 {
		upTo = max(upTo, signals[n-1].Pos)
	}
	return signals, upTo, err
}

func (h *Hub) head(ctx context.Context, topic string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, h.within)
	defer cancel()
	return h.cfg.Log.Head(ctx, topic)
}

// complain logs an outage of the log, at most one line per interval.
func (h *Hub) complain(topic string, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	h.grumble.Do(func() {
		h.cfg.Logger.Warn("signal log unavailable, listeners wait", "topic", topic, "error", err)
	})
}

// Shutdown refuses new listeners, writes what is queued, ends every stream
// cleanly and waits for all that the hub started. When ctx ends first the rest
// is cut and ctx's error returned.
func (h *Hub) Shutdown(ctx context.Context) error {
	h.mu.Lock()
	h.closing = true
	h.idleLocked()
	rest := h.all.list()
	h.mu.Unlock()
	for _, l := range rest {
		l.end(moved)
	}
	err := h.awaitIdle(ctx)
	h.endBus()
	h.stop()
	h.wg.Wait()
	h.hangups.close()
	return err
}

func (h *Hub) awaitIdle(ctx context.Context) error {
	select {
	case <-h.idle:
		return nil
	case <-ctx.Done():
	}
	h.stop()
	h.mu.Lock()
	rest := h.all.list()
	h.mu.Unlock()
	for _, l := range rest {
		l.cut(aborted)
	}
	<-h.idle
	return ctx.Err()
}
