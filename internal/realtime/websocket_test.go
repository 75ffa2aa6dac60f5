package realtime

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func (r *rig) dialWebSocket(t *testing.T, query string) *websocket.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, res, err := websocket.Dial(ctx, "ws://"+r.addr+"/?"+query, &websocket.DialOptions{
		HTTPHeader: http.Header{"Origin": {"https://elsewhere.example"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := res.Header.Get("X-Request-Id"); got != "req-1" {
		t.Errorf("the caller's header is %q", got)
	}
	c.SetReadLimit(1 << 24)
	t.Cleanup(func() { c.CloseNow() })
	return c
}

func readText(t *testing.T, c *websocket.Conn) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	typ, data, err := c.Read(ctx)
	if err == nil && typ != websocket.MessageText {
		t.Errorf("got a %v message, want text", typ)
	}
	return string(data), err
}

func wantTexts(t *testing.T, c *websocket.Conn, from, to int64) {
	t.Helper()
	for pos := from; pos <= to; {
		got, err := readText(t, c)
		if err != nil {
			t.Fatalf("waiting for %d: %v", pos, err)
		}
		if got == "ping" {
			continue
		}
		if got != body(pos) {
			t.Fatalf("got %q, want %q", got, body(pos))
		}
		pos++
	}
}

func wantClose(t *testing.T, c *websocket.Conn, code websocket.StatusCode) {
	t.Helper()
	for {
		got, err := readText(t, c)
		if err == nil && got == "ping" {
			continue
		}
		if websocket.CloseStatus(err) != code {
			t.Fatalf("got %q, %v, want close %d", got, err, code)
		}
		return
	}
}

func TestWebSocketFollowsTheSameLog(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publish(500)
	c := r.dialWebSocket(t, "after=100&group=g")
	s := r.open(t, "", 100)
	wantTexts(t, c, 101, 500)
	r.publish(500)
	wantTexts(t, c, 501, 1000)
	s.wants(101, 1000)
	for _, size := range []int{0, 125, 126, 65535, 65536, 300_000} {
		text := `"` + strings.Repeat("ü", size/2) + `"`
		r.post(text)
		if got, err := readText(t, c); err != nil || got != text {
			t.Fatalf("a signal of %d bytes came as %d, %v", len(text), len(got), err)
		}
	}
	r.hub.End("g")
	r.post(`"late"`)
	wantClose(t, c, websocket.StatusNormalClosure)
	r.open(t, "", 1006).conn.Close()
}

func TestWebSocketPings(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.dialWebSocket(t, "after=0")
	l := r.only(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 4 {
			if got, err := readText(t, c); err != nil || got != "ping" {
				t.Errorf("got %q, %v, want a ping", got, err)
			}
		}
		wantClose(t, c, websocket.StatusNormalClosure)
	}()
	for range 4 { // each of the protocol's pings has to be answered for the next to go out
		l.ping()
		r.eventually(t, "the pong is back", func() bool { return l.sink.(*wsSink).ponged.Load() })
	}
	l.end(ended)
	<-done
}

// only is the one listener of the hub, once it is live.
func (r *rig) only(t *testing.T) (l *listener) {
	t.Helper()
	r.eventually(t, "the listener is live", func() bool {
		r.hub.mu.Lock()
		all := r.hub.all.list()
		r.hub.mu.Unlock()
		if len(all) != 1 {
			return false
		}
		l = all[0]
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.state == live && !l.busy
	})
	return l
}

func TestWebSocketIgnoresWhatItIsTold(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.dialWebSocket(t, "after=0")
	for range 100 {
		if err := c.Write(t.Context(), websocket.MessageText, []byte(strings.Repeat("x", 10<<10))); err != nil {
			t.Fatal(err)
		}
	}
	pong := make(chan error, 1)
	go func() { pong <- c.Ping(t.Context()) }()
	r.eventually(t, "its ping has been seen", func() bool {
		r.publish(1)
		got, err := readText(t, c)
		if err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
		select {
		case err := <-pong:
			if err != nil {
				t.Fatal(err)
			}
			return true
		default:
			return false
		}
	})
	// Too much in one piece is refused.
	if err := c.Write(t.Context(), websocket.MessageBinary, make([]byte, maxIncoming+1)); err != nil {
		t.Fatal(err)
	}
	wantClose(t, c, websocket.StatusMessageTooBig)
	r.deserted(t)
}

func TestWebSocketClosedByTheClient(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.dialWebSocket(t, "after=0&group=g")
	r.only(t) // who goes while it joins may be cut
	if err := c.Close(websocket.StatusNormalClosure, "bye"); err != nil {
		t.Errorf("the close was not answered: %v", err)
	}
	r.deserted(t)
	r.dialWebSocket(t, "after=0").CloseNow()
	r.deserted(t)
	if n := r.metric(t, "parley_realtime_cuts_total", ""); n != 0 {
		t.Errorf("%v cuts, want none", n)
	}
}

// rawWebSocket shakes hands and then does what the test says, not what a good
// client would.
func (r *rig) rawWebSocket(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_, err = io.WriteString(conn, "GET /?after=0&group=g HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestWebSocketThatAnswersNoPingIsCut(t *testing.T) {
	t.Parallel()
	r := newRig(t, withPing(30*time.Millisecond))
	r.rawWebSocket(t)
	r.deserted(t)
	if n := r.metric(t, "parley_realtime_cuts_total", "silent"); n != 1 {
		t.Errorf("%v cuts, want 1", n)
	}
}

func TestWebSocketThatReadsNothingIsCut(t *testing.T) {
	t.Parallel()
	r := newRig(t, withConfig(func(c *Config) {
		c.Stall, c.QueueBytes, c.QueueLen = 100*time.Millisecond, 1<<30, 1<<20
	}))
	r.rawWebSocket(t)
	r.fill()
	r.deserted(t)
	if n := r.metric(t, "parley_realtime_cuts_total", "stalled"); n != 1 {
		t.Errorf("%v cuts, want 1", n)
	}
}

func TestWebSocketShutdown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.dialWebSocket(t, "after=0")
	r.publish(10)
	done := make(chan error, 1)
	go func() { done <- r.hub.Shutdown(t.Context()) }()
	got := 0
	for {
		if _, err := readText(t, c); err != nil {
			if websocket.CloseStatus(err) != websocket.StatusGoingAway {
				t.Errorf("got %v, want close 1001", err)
			}
			break
		}
		got++
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got > 10 {
		t.Errorf("got %d signals of 10", got)
	}
}

func TestWebSocketThatIgnoresTheCloseIsCutByShutdown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.rawWebSocket(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.hub.Shutdown(ctx); err != context.Canceled {
		t.Errorf("got %v, want the context's error", err)
	}
	r.deserted(t)
}

func TestBadHandshakeIsTheCallersToAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	req, err := http.NewRequest("GET", "http://"+r.addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "websocket")
	req.Header.Set("Sec-WebSocket-Version", "7")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || res.StatusCode != 500 || !strings.Contains(string(b), "not a valid WebSocket handshake") {
		t.Errorf("got %d %q, %v", res.StatusCode, b, err)
	}
	r.deserted(t)
}

func TestWantsWebSocket(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		connection, upgrade string
		want                bool
	}{
		{"Upgrade", "websocket", true},
		{"keep-alive, upgrade", "h2c, WebSocket", true},
		{"keep-alive", "websocket", false},
		{"upgrade", "h2c", false},
		{"", "", false},
	} {
		q := &http.Request{Header: http.Header{"Connection": {c.connection}, "Upgrade": {c.upgrade}}}
		if got := WantsWebSocket(q); got != c.want {
			t.Errorf("Connection %q, Upgrade %q: got %v", c.connection, c.upgrade, got)
		}
	}
}
