package chaos

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ear is one person who listens, in few kilobytes: ten thousand of them share the
// machine with what they measure.
type ear struct {
	*room
	key  string // of its own
	over opener
	turn int  // the server it goes to next, counted round
	slow bool // it may be cut by the server

	inside func() // called when it has a stream

	mu     sync.Mutex
	stream stream   // nil while there is none, or it is cut
	last   int64    // position of the last signal
	ids    []uint64 // marks of the messages heard
	at     []int64  // their positions, where the stream tells them
	err    error    // what was wrong with a stream
}

var earSeed = maphash.MakeSeed()

// mark stands for an id in little space.
func mark(id string) uint64 { return maphash.String(earSeed, id) }

func (e *ear) sofar() []uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.ids)
}

func (e *ear) why() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

func (e *ear) door() string { return e.doors[e.turn%len(e.doors)] }

// listen reads the stream of the room until ctx ends. When it is cut, it goes on
// at the next server.
func (e *ear) listen(ctx context.Context) {
	for ctx.Err() == nil {
		e.follow(ctx)
		select {
		case <-time.After(time.Duration(20+rand.IntN(80)) * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// follow reads one stream to its end.
func (e *ear) follow(ctx context.Context) {
	defer func() { e.turn++ }()
	after, ok := e.position()
	if !ok {
		return
	}
	s, err := e.over(ctx, e.door()+"/conversations/"+url.PathEscape(e.id)+"/listen", e.key, after)
	if err != nil {
		return // the server is busy, or ctx is over; allUp loses its patience if that stays
	}
	defer s.Close()
	e.mu.Lock()
	e.stream = s
	e.mu.Unlock()
	e.up.Add(1)
	e.inside()
	stopped := context.AfterFunc(ctx, e.cut)
	defer stopped()
	for err == nil {
		err = e.hear(s.next())
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stream == nil {
		return
	}
	e.stream = nil
	e.up.Add(-1)
	if !e.slow {
		e.err = errors.Join(e.err, fmt.Errorf("a stream ended that nobody had cut: %w", err))
	}
}

// position is where to go on. A WebSocket tells none: its listener asks the first
// in the room at which position the message was that it has heard last.
func (e *ear) position() (after int64, ok bool) {
	n := len(e.sofar())
	e.mu.Lock()
	after = e.last
	e.mu.Unlock()
	if after > 0 || n == 0 {
		return after, true
	}
	first := e.ears[0]
	first.mu.Lock()
	defer first.mu.Unlock()
	if len(first.at) < n {
		return 0, false // in a moment
	}
	return first.at[n-1], true
}

// cut ends the stream as a line that breaks does.
func (e *ear) cut() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stream != nil {
		_ = e.stream.Close() // it may have ended already
		e.stream = nil
		e.up.Add(-1)
	}
}

// hear takes one signal in; its position is 0 where the stream tells none.
func (e *ear) hear(pos int64, data []byte, err error) error {
	if err != nil {
		return err
	}
	var signal struct {
		Type string
		Data message
	}
	if err := json.Unmarshal(data, &signal); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if pos > 0 && pos <= e.last {
		e.err = fmt.Errorf("a listener is told of %d after %d", pos, e.last)
	}
	e.last = pos
	if signal.Type != "message_created" {
		return nil
	}
	e.ids, e.at = append(e.ids, mark(signal.Data.ID)), append(e.at, pos)
	if e.slow {
		return nil
	}
	e.told.Add(1)
	if own(signal.Data) {
		if at, ok := e.sent.Load(signal.Data.Payload.Text); ok {
			e.took.Load().add(time.Since(at.(time.Time)))
		}
	}
	return nil
}

// stream is what signals are read from.
type stream interface {
	// next is the next signal, good until the one after it, and its position, if
	// the stream tells one.
	next() (pos int64, data []byte, err error)
	Close() error
}

// opener opens the stream at an address, after a position.
type opener func(ctx context.Context, address, key string, after int64) (stream, error)

// events are server-sent.
type events struct {
	*bufio.Reader
	io.Closer
}

func (s *events) next() (pos int64, data []byte, err error) {
	for {
		line, err := s.ReadSlice('\n')
		if err != nil {
			return 0, nil, err
		}
		if text, ok := bytes.CutPrefix(line, []byte("id: ")); ok {
			if pos, err = strconv.ParseInt(string(text[:len(text)-1]), 10, 64); err != nil {
				return 0, nil, err
			}
		}
		if text, ok := bytes.CutPrefix(line, []byte("data: ")); ok && pos > 0 { // a ping has none
			return pos, text, nil
		}
	}
}

// longest is more than a line of a stream has where messages are short.
const longest = 1 << 10

// dialer opens a connection.
type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return broken{c.(*net.TCPConn)}, nil
}

// broken closes a connection as one that breaks: nothing is waited for, and no
// port stays behind.
type broken struct{ *net.TCPConn }

func (b broken) Close() error {
	_ = b.SetLinger(0) // it may be closed already
	return b.TCPConn.Close()
}

// overHTTP1 says no more than it has to, and reads lines of so many bytes.
func overHTTP1(dial dialer, line int) opener {
	return func(ctx context.Context, address, key string, after int64) (stream, error) {
		u, err := url.Parse(address)
		if err != nil {
			return nil, err
		}
		conn, err := dial(ctx, "tcp", u.Host)
		if err != nil {
			return nil, err
		}
		stopped := context.AfterFunc(ctx, func() { _ = conn.Close() })
		defer stopped()
		s := &events{bufio.NewReaderSize(conn, line), conn}
		_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nX-User-Key: %s\r\nLast-Event-ID: %d\r\n\r\n", u.EscapedPath(), u.Host, key, after)
		if err == nil {
			err = s.head()
		}
		if err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return s, nil
	}
}

// head reads the beginning of a good answer.
func (s *events) head() error {
	status, err := s.ReadString('\n')
	for line := status; err == nil && line != "\r\n"; {
		line, err = s.ReadString('\n')
	}
	if err == nil && !strings.HasPrefix(status, "HTTP/1.1 200 ") {
		err = errors.New(strings.TrimSpace(status))
	}
	return err
}

// overHTTP2 shares connections between streams, which are closed in the end.
func overHTTP2() (over opener, end func()) {
	through := &http.Transport{Protocols: new(http.Protocols)}
	through.Protocols.SetUnencryptedHTTP2(true)
	over = func(ctx context.Context, address, key string, after int64) (stream, error) {
		r, err := http.NewRequestWithContext(ctx, "GET", address, nil)
		if err != nil {
			return nil, err
		}
		r.Header.Set("X-User-Key", key)
		r.Header.Set("Last-Event-ID", strconv.FormatInt(after, 10))
		answer, err := through.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		if answer.StatusCode != http.StatusOK || answer.ProtoMajor != 2 {
			return nil, errors.Join(errors.New(answer.Proto+" "+answer.Status), answer.Body.Close())
		}
		return &events{bufio.NewReaderSize(answer.Body, longest), answer.Body}, nil
	}
	return over, through.CloseIdleConnections
}

// histogram counts durations by the millisecond. Many may add at a time.
type histogram struct {
	counts [60_000]atomic.Int64
}

func (h *histogram) add(d time.Duration) {
	h.counts[min(int(d/time.Millisecond), len(h.counts)-1)].Add(1)
}

// percentile is a duration that so many percent do not exceed, in whole milliseconds.
func (h *histogram) percentile(percent int64) time.Duration {
	var all, below int64
	for i := range h.counts {
		all += h.counts[i].Load()
	}
	for i := range h.counts {
		if below += h.counts[i].Load(); below*100 >= all*percent {
			return time.Duration(i+1) * time.Millisecond
		}
	}
	return 0
}
