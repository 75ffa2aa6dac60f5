package realtime

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"parley/internal/fault"
)

// WantsWebSocket reports whether r asks for an upgrade to WebSocket.
func WantsWebSocket(r *http.Request) bool {
	return hasToken(r.Header, "Connection", "upgrade") && hasToken(r.Header, "Upgrade", "websocket")
}

func hasToken(head http.Header, name, token string) bool {
	for _, line := range head.Values(name) {
		for word := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(word), token) {
				return true
			}
		}
	}
	return false
}

const (
	maxIncoming  = 16 << 10        // bytes of one message, which is read and ignored
	closeTimeout = 5 * time.Second // for the peer to answer our close
)

// ServeWebSocket upgrades r and sends the signals of in.Topic as text messages,
// until the stream ends. It returns an error only while nothing has been
// written, for the caller to answer. What the client sends is ignored. Origins
// are not checked: listening takes a key, which a foreign page does not have.
func (h *Hub) ServeWebSocket(w http.ResponseWriter, r *http.Request, in Listen) error {
	arrived := h.cfg.Now()
	l, err := h.enter(in, ws)
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
	s, err := l.upgrade(w, r)
	if err != nil {
		l.quit()
		return err
	}
	defer s.close()
	if !l.attach(s, true) {
		l.quit()
		return nil
	}
	l.start(func() { l.join(ctx, start, target) })
	s.ignoreIncoming()
	l.cut(left)
	<-l.done
	l.writers.Wait()
	return nil
}

func (l *listener) start(fn func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.startLocked(fn)
}

// upgrade does the handshake. On a refused one nothing has been written.
func (l *listener) upgrade(w http.ResponseWriter, r *http.Request) (*wsSink, error) {
	s := &wsSink{deaf: make(chan struct{})}
	s.ponged.Store(true)
	u := &upgrader{ResponseWriter: w, l: l}
	conn, err := websocket.Accept(u, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true,
		OnPongReceived: func(context.Context, []byte) {
			s.ponged.Store(true)
			l.hub.stir()
		},
	})
	if err != nil {
		w.Header().Del("Connection")
		w.Header().Del("Upgrade")
		return nil, fault.InvalidPayload.Wrap(err, "The request is not a valid WebSocket handshake")
	}
	conn.SetReadLimit(maxIncoming)
	s.netSink, s.conn = newNetSink(u.conn, l.hub.cfg.Stall), conn
	return s, nil
}

// upgrader stands between the library and the connection. It keeps a refusal
// from being written and gives the library a connection whose writes go
// through the listener.
type upgrader struct {
	http.ResponseWriter
	l    *listener
	conn net.Conn
}

func (u *upgrader) WriteHeader(status int) {
	if status == http.StatusSwitchingProtocols {
		u.ResponseWriter.WriteHeader(status)
	}
}

func (u *upgrader) Write(p []byte) (int, error) { return len(p), nil }

func (u *upgrader) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(u.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	u.conn = conn
	c := controlConn{conn, u.l}
	rw.Writer.Reset(c)
	return c, rw, nil
}

// controlConn is the connection as the library sees it. The library only writes
// control frames, each in one piece, so they can take their turn in the queue.
type controlConn struct {
	net.Conn
	l *listener
}

func (c controlConn) Write(p []byte) (int, error) {
	if !c.l.control(p) {
		return 0, net.ErrClosed
	}
	return len(p), nil
}

// control sends a frame that is none of the log's.
func (l *listener) control(frame []byte) bool {
	l.mu.Lock()
	why := staying
	there := l.state != gone
	if l.state < closing { // after that, our own close frame is the last
		why = l.sendLocked(slices.Clone(frame))
	}
	l.mu.Unlock()
	if why != staying {
		l.leave(why)
		return false
	}
	return there
}

// wsSink writes encoded frames to the connection below the library.
type wsSink struct {
	*netSink
	conn   *websocket.Conn
	deaf   chan struct{} // closed when nothing more can be read
	ponged atomic.Bool   // since the last ping
}

// ignoreIncoming reads until the peer closes or is lost; reading is also what
// answers its pings and sees its pongs.
func (s *wsSink) ignoreIncoming() {
	defer close(s.deaf)
	for {
		_, r, err := s.conn.Reader(context.Background())
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		if err != nil {
			return
		}
	}
}

func (s *wsSink) check() cause {
	if s.ponged.Swap(false) {
		return staying
	}
	return silent
}

// finish sends a close frame and gives the peer a moment to answer it.
func (s *wsSink) finish(why cause) {
	if s.write(closeFrame(why)) == nil {
		timeout := time.NewTimer(closeTimeout)
		defer timeout.Stop()
		select {
		case <-s.deaf:
		case <-timeout.C:
		}
	}
	s.cut()
}

func closeFrame(why cause) []byte {
	code, reason := websocket.StatusNormalClosure, "the stream has ended"
	if why == moved {
		code, reason = websocket.StatusGoingAway, "the server is shutting down"
	}
	frame := []byte{0x88, byte(2 + len(reason)), byte(code >> 8), byte(code)}
	return append(frame, reason...)
}

// close gives back what the library holds.
func (s *wsSink) close() {
	if err := s.conn.CloseNow(); err != nil && !errors.Is(err, net.ErrClosed) {
		s.cut()
	}
}
