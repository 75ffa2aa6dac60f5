package realtime

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/internal/bus"
)

const patience = time.Minute // how long a test waits for what must come

// tape is a Log in memory: all that the port asks for.
type tape struct {
	mu     sync.Mutex
	topics map[string][]entry
	heads  map[string]int64
	broken error
	block  chan struct{} // when set, Read waits for it to be closed
	reads  atomic.Int64
}

type entry struct {
	Signal
	at time.Time
}

func newTape() *tape { return &tape{topics: map[string][]entry{}, heads: map[string]int64{}} }

// add commits one more signal and returns its position.
func (t *tape) add(topic string, data []byte) int64 { return t.addAt(topic, data, time.Now()) }

func (t *tape) addAt(topic string, data []byte, at time.Time) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.heads[topic]++
	pos := t.heads[topic]
	t.topics[topic] = append(t.topics[topic], entry{Signal{pos, data}, at})
	return pos
}

// justNow is the time of what listeners are to find new, however long a test
// takes to open them.
func justNow() time.Time { return time.Now().Add(time.Hour) }

// skip uses up a position that shows nothing.
func (t *tape) skip(topic string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.heads[topic]++
}

func (t *tape) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.broken = err
}

func (t *tape) Head(_ context.Context, topic string) (int64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.heads[topic], t.broken
}

func (t *tape) Read(ctx context.Context, topic string, after int64, limit int) ([]Signal, int64, error) {
	t.reads.Add(1)
	t.mu.Lock()
	block := t.block
	t.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return nil, after, ctx.Err()
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.broken != nil {
		return nil, after, t.broken
	}
	all := t.topics[topic]
	i := sort.Search(len(all), func(i int) bool { return all[i].Pos > after })
	var out []Signal
	for ; i < len(all) && len(out) < limit; i++ {
		out = append(out, all[i].Signal)
	}
	if len(out) == limit {
		return out, out[limit-1].Pos, nil
	}
	return out, t.heads[topic], nil
}

func (t *tape) Since(_ context.Context, topic string, at time.Time) (int64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.topics[topic] {
		if !e.at.Before(at) {
			return e.Pos - 1, t.broken
		}
	}
	return t.heads[topic], t.broken
}

// rig is a hub behind a real server.
type rig struct {
	*tape
	hub    *Hub
	bus    bus.Bus
	reg    *prometheus.Registry
	addr   string
	listen func(*http.Request) Listen
	errs   chan error // what ServeSSE and ServeWebSocket returned
	server *http.Server
	stop   func() // ends Run
}

type option func(*Config, *rig)

// newRig serves topic "t" of a hub on loopback. Pings, the sweep and
// the cut of those who read nothing are off unless an option says otherwise.
func newRig(t testing.TB, opts ...option) *rig {
	t.Helper()
	r := &rig{tape: newTape(), bus: bus.NewLocal(), reg: prometheus.NewRegistry(), errs: make(chan error, 1<<16)}
	r.listen = listenFromRequest
	cfg := Config{Ping: time.Hour, Heal: time.Hour, Stall: time.Hour}
	for _, o := range opts {
		o(&cfg, r)
	}
	cfg.Bus, cfg.Log, cfg.Metrics = r.bus, r.tape, r.reg
	hub, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.hub = hub
	hub.stirred, hub.within = make(chan struct{}, 1), time.Hour
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = ln.Addr().String()
	r.server = &http.Server{Handler: r}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { ran <- hub.Run(ctx) })
	wg.Go(func() { _ = r.server.Serve(ln) })
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
		r.server.Close()
		wg.Wait()
	})
	t.Cleanup(r.stop)
	return r
}

func listenFromRequest(q *http.Request) Listen {
	after := int64(-1)
	for _, text := range []string{q.Header.Get("Last-Event-ID"), q.URL.Query().Get("after")} {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			after = n
		}
	}
	return Listen{Topic: "t", After: after, Groups: q.URL.Query()["group"]}
}

func (r *rig) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	serve := r.hub.ServeSSE
	if WantsWebSocket(q) {
		serve = r.hub.ServeWebSocket
	}
	w.Header().Set("X-Request-Id", "req-1")
	err := serve(w, q, r.listen(q))
	r.errs <- err
	switch {
	case errors.Is(err, ErrShuttingDown):
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	case errors.Is(err, ErrNotAllowed):
		http.Error(w, err.Error(), http.StatusForbidden)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// post commits a signal and notifies it.
func (r *rig) post(data string) int64 {
	pos := r.add("t", []byte(data))
	r.notify(pos, data)
	return pos
}

func (r *rig) notify(pos int64, data string) {
	r.hub.Notify("t", pos, func() []byte { return []byte(data) })
}

// commit adds a signal that says its own position.
func (r *rig) commit() int64 {
	r.tape.mu.Lock()
	defer r.tape.mu.Unlock()
	r.heads["t"]++
	pos := r.heads["t"]
	r.topics["t"] = append(r.topics["t"], entry{Signal{pos, []byte(body(pos))}, time.Now()})
	return pos
}

// publish commits and notifies n signals.
func (r *rig) publish(n int) {
	for range n {
		pos := r.commit()
		r.notify(pos, body(pos))
	}
}

func body(pos int64) string { return fmt.Sprintf(`{"type":"x","data":{"n":%d}}`, pos) }

// stream is a client's end of an SSE stream.
type stream struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
	head *http.Response
}

// open connects and reads the head.
func (r *rig) open(t testing.TB, query string, after int64) *stream {
	t.Helper()
	s := dialSSE(t, r.addr, query, after)
	s.readHead()
	return s
}

func dialSSE(t testing.TB, addr, query string, after int64) *stream {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	id := ""
	if after >= 0 {
		id = fmt.Sprintf("Last-Event-ID: %d\r\n", after)
	}
	_, err = fmt.Fprintf(conn, "GET /listen?%s HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n%s\r\n", query, id)
	if err != nil {
		t.Fatal(err)
	}
	return &stream{t: t, conn: conn, r: bufio.NewReader(conn)}
}

func (s *stream) readHead() {
	s.t.Helper()
	s.conn.SetReadDeadline(time.Now().Add(patience))
	res, err := http.ReadResponse(s.r, nil)
	if err != nil {
		s.t.Fatalf("read the response head: %v", err)
	}
	if res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(res.Body)
		s.t.Fatalf("status %d: %s", res.StatusCode, b)
	}
	s.head = res
}

type event struct {
	id   int64 // -1 without
	data string
}

// next reads one event; the error is io.EOF at a clean end between events.
func (s *stream) next() (event, error) {
	s.conn.SetReadDeadline(time.Now().Add(patience))
	return readEvent(s.r)
}

func readEvent(r *bufio.Reader) (event, error) {
	e := event{id: -1}
	for lines := 0; ; lines++ {
		line, err := r.ReadString('\n')
		if err != nil {
			if err == io.EOF && (lines > 0 || line != "") {
				err = io.ErrUnexpectedEOF
			}
			return e, err
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch {
		case name == "" && lines > 0:
			return e, nil
		case name == "id":
			if e.id, err = strconv.ParseInt(value, 10, 64); err != nil {
				return e, err
			}
		case name == "data":
			e.data = value
		case name == "event" && value == "message":
		default:
			return e, fmt.Errorf("unexpected line %q", line)
		}
	}
}

// wants reads the signals from (including) to (including), and nothing else.
func (s *stream) wants(from, to int64) {
	s.t.Helper()
	for pos := from; pos <= to; pos++ {
		e, err := s.next()
		if err != nil {
			s.t.Fatalf("waiting for %d: %v", pos, err)
		}
		if e.id != pos || e.data != body(pos) {
			s.t.Fatalf("got %d %q, want %d %q", e.id, e.data, pos, body(pos))
		}
	}
}

func (s *stream) wantsEnd() {
	s.t.Helper()
	if e, err := s.next(); err != io.EOF {
		s.t.Fatalf("got %+v, %v, want a clean end", e, err)
	}
}

// deserted waits until the hub has no listeners.
func (r *rig) deserted(t testing.TB) {
	t.Helper()
	r.eventually(t, "all listeners are gone", r.empty)
}

func (r *rig) empty() bool {
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	return r.hub.all.empty() && len(r.hub.feeds) == 0 && len(r.hub.groups) == 0
}

// metric is the value of a counter or gauge, over all labels or those with value.
func (r *rig) metric(t testing.TB, name, value string) (sum float64) {
	t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() != name || value != "" && (len(m.GetLabel()) == 0 || m.GetLabel()[0].GetValue() != value) {
				continue
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// eventually looks again whenever the hub says that something has happened.
func (r *rig) eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	late := time.After(patience)
	for !ok() {
		select {
		case <-r.hub.stirred:
		case <-late:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// lossy is a bus that forgets some of what is published.
type lossy struct {
	bus.Bus
	mu   sync.Mutex
	rand *rand.Rand
	keep float64
}

func (b *lossy) Publish(topic string, data []byte) {
	b.mu.Lock()
	lost := strings.HasPrefix(topic, "sig.") && b.rand.Float64() >= b.keep
	b.mu.Unlock()
	if !lost {
		b.Bus.Publish(topic, bytes.Clone(data))
	}
}

func withBus(b bus.Bus) option { return func(_ *Config, r *rig) { r.bus = b } }

func withHeal(d time.Duration) option { return func(c *Config, _ *rig) { c.Heal = d } }

func withPing(d time.Duration) option { return func(c *Config, _ *rig) { c.Ping = d } }

func withConfig(set func(*Config)) option { return func(c *Config, _ *rig) { set(c) } }
