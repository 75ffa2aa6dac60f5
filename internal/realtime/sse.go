package realtime

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// ServeSSE answers r with the signals of in.Topic as server-sent events. It
// returns an error only while nothing has been written, for the caller to
// answer; headers that the caller has set on w are part of the answer. On an
// HTTP/1 connection it takes the connection over and returns once the listener
// has caught up, while the stream goes on; otherwise it returns at its end.
func (h *Hub) ServeSSE(w http.ResponseWriter, r *http.Request, in Listen) error {
	arrived := h.cfg.Now()
	l, err := h.enter(in, sse)
	if err != nil {
		return err
	}
	ctx, cancel := h.joinContext(r)
	defer cancel()
	start, target, err := l.resolve(ctx, in, arrived)
	if err != nil {
		l.quit()
		return err
	}
	s, stays, err := h.openSSE(w, r)
	if err != nil || !l.attach(s, stays) {
		if s != nil {
			s.cut()
		}
		l.quit()
		return nil // the head is out, or nobody is there to read another
	}
	l.join(ctx, start, target)
	if f, ok := s.(*flushSink); ok {
		l.stay(r)
		f.expire()
		return nil
	}
	h.hangups.watch(l, s.(*netSink).socket)
	return nil
}

// stay keeps the handler until the stream has ended.
func (l *listener) stay(r *http.Request) {
	select {
	case <-l.done:
	case <-r.Context().Done():
		l.cut(left)
		<-l.done
	}
	l.writers.Wait()
}

// openSSE sends the response head at once.
func (h *Hub) openSSE(w http.ResponseWriter, r *http.Request) (s sink, stays bool, err error) {
	head := w.Header()
	for _, name := range []string{"Content-Length", "Content-Encoding", "Transfer-Encoding", "Trailer"} {
		head.Del(name)
	}
	head.Set("Content-Type", "text/event-stream")
	head.Set("Cache-Control", "no-cache, no-transform")
	head.Set("X-Accel-Buffering", "no")
	rc := http.NewResponseController(w)
	if r.ProtoMajor == 1 {
		conn, _, err := rc.Hijack()
		if err == nil {
			s, err := h.takeOver(conn, head)
			return s, false, err
		}
		if !errors.Is(err, http.ErrNotSupported) {
			return nil, false, err
		}
	}
	w.WriteHeader(http.StatusOK)
	return &flushSink{w: w, rc: rc, stall: h.cfg.Stall}, true, rc.Flush()
}

func (h *Hub) takeOver(conn net.Conn, head http.Header) (sink, error) {
	head.Set("Connection", "close") // the stream has no length: its end is the connection's
	head.Set("Date", h.cfg.Now().UTC().Format(http.TimeFormat))
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 200 OK\r\n")
	_ = head.Write(&b) // a buffer takes everything
	b.WriteString("\r\n")
	s := newNetSink(conn, h.cfg.Stall)
	return s, s.write(b.Bytes())
}

// netSink writes to a connection that has been taken over.
type netSink struct {
	conn   net.Conn
	base   net.Conn    // the connection below TLS, or conn
	socket *descriptor // below base; nil when that is none
	raw    *descriptor // the same; nil when bytes have to pass through conn
	stall  time.Duration
}

// wallClock gives the deadlines of sockets, which are real whatever time the
// product is told.
var wallClock = time.Now

// unanswered is how much longer than we the kernel waits for a peer: while we
// write it is we who cut, and say why.
const unanswered = 30 * time.Second

func newNetSink(conn net.Conn, stall time.Duration) *netSink {
	s := &netSink{conn: conn, base: conn, stall: stall}
	if t, ok := conn.(*tls.Conn); ok {
		s.base = t.NetConn()
	}
	if s.socket = newDescriptor(s.base); s.socket != nil {
		s.socket.dropUnanswered(stall + unanswered)
	}
	if s.base == conn {
		s.raw = s.socket
	}
	return s
}

func (s *netSink) try(p []byte) (int, error) {
	if s.raw == nil {
		return 0, nil
	}
	return s.raw.tryWrite(p)
}

// progressPiece is what has to go through within the stall time: small, so that
// a thin line counts as progress.
const progressPiece = 16 << 10

func (s *netSink) write(p []byte) error {
	for len(p) > 0 {
		if err := s.conn.SetWriteDeadline(wallClock().Add(s.stall)); err != nil {
			return err
		}
		n, err := s.conn.Write(p[:min(len(p), progressPiece)])
		p = p[n:]
		if err != nil && (n == 0 || !errors.Is(err, os.ErrDeadlineExceeded)) {
			return err
		}
	}
	return nil
}

// finish says that nothing follows. What the client sent unasked is thrown
// away first: closing over unread bytes would reset the connection and take
// back frames that are still on their way.
func (s *netSink) finish(cause) {
	if c, ok := s.conn.(interface{ CloseWrite() error }); ok {
		_ = s.conn.SetWriteDeadline(wallClock().Add(s.stall)) // a closed connection is closed already
		_ = c.CloseWrite()                                    // as above
	}
	if s.raw != nil {
		s.raw.hungUp()
	}
	_ = s.conn.Close() // nothing is left to lose
}

// cut closes without waiting and drops what the kernel still holds for a peer
// that does not read.
func (s *netSink) cut() {
	if c, ok := s.base.(interface{ SetLinger(seconds int) error }); ok {
		_ = c.SetLinger(0) // closing is what matters
	}
	_ = s.base.Close() // it may be closed already
}

func (s *netSink) check() cause {
	if s.raw != nil && s.raw.hungUp() {
		return left
	}
	return staying
}

// flushSink writes through a ResponseWriter, from one goroutine at a time,
// while its handler waits.
type flushSink struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	stall time.Duration

	mu      sync.Mutex
	expired bool // the handler returns: w belongs to the server again
}

func (s *flushSink) try([]byte) (int, error) { return 0, nil }

func (s *flushSink) write(p []byte) error {
	for len(p) > 0 {
		_ = s.rc.SetWriteDeadline(wallClock().Add(s.stall)) // not every writer has deadlines
		n, err := s.w.Write(p[:min(len(p), progressPiece)])
		if err == nil {
			err = s.rc.Flush()
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	_ = s.rc.SetWriteDeadline(time.Time{}) // as above
	return nil
}

func (s *flushSink) finish(cause) {}

// cut makes a write that waits return.
func (s *flushSink) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.expired {
		_ = s.rc.SetWriteDeadline(wallClock()) // as in write
	}
}

func (s *flushSink) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expired = true
}

func (s *flushSink) check() cause { return staying }
