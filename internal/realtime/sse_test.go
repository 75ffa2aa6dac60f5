package realtime

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestHeadIsSentAtOnceWithTheCallersHeaders(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := dialSSE(t, r.addr, "", -1)
	line, err := s.r.ReadString('\n')
	if err != nil || line != "HTTP/1.1 200 OK\r\n" {
		t.Fatalf("got status line %q, %v", line, err)
	}
	s.r = bufio.NewReader(io.MultiReader(strings.NewReader(line), s.r))
	s.readHead()
	for name, want := range map[string]string{
		"Content-Type":      "text/event-stream",
		"Cache-Control":     "no-cache, no-transform",
		"X-Accel-Buffering": "no",
		"X-Request-Id":      "req-1",
	} {
		if got := s.head.Header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if s.head.Header.Get("Date") == "" || !s.head.Close {
		t.Errorf("Date %q, Connection: close %v", s.head.Header.Get("Date"), s.head.Close)
	}
}

func TestFramesOnTheWire(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.open(t, "", 0)
	r.post("{\"a\":1,\n\"b\":\r\"ü\"}")
	want := "id: 1\nevent: message\ndata: {\"a\":1, \"b\": \"ü\"}\n\n"
	got := make([]byte, len(want))
	s.conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(s.r, got); err != nil || string(got) != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestPingsCarryNoID(t *testing.T) {
	t.Parallel()
	r := newRig(t, withPing(20*time.Millisecond))
	s := r.open(t, "", 0)
	for range 3 {
		if e, err := s.next(); err != nil || e.id != -1 || e.data != "ping" {
			t.Fatalf("got %+v, %v, want a ping without id", e, err)
		}
	}
}

// A connection that was taken over is looked at with the next ping, where the kernel
// does not tell: one ping is enough, a write need not fail first.
func TestClosedConnectionIsFreedWithThePing(t *testing.T) {
	t.Parallel()
	r := newRig(t, withPing(20*time.Millisecond))
	r.hub.hangups.close()
	for range 20 {
		r.open(t, "group=g", 0).conn.Close()
	}
	r.deserted(t)
	if n := r.metric(t, "parley_realtime_listeners", ""); n != 0 {
		t.Errorf("the gauge shows %v listeners", n)
	}
}

func TestConnectionClosedBeforeAWriteIsFreed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.open(t, "", 0)
	s.conn.(*net.TCPConn).SetLinger(0)
	s.conn.Close()
	r.eventually(t, "a write finds the connection reset", func() bool {
		r.publish(1)
		r.hub.mu.Lock()
		defer r.hub.mu.Unlock()
		return r.hub.all.empty()
	})
}

func TestWhatTheClientSendsIsIgnored(t *testing.T) {
	t.Parallel()
	r := newRig(t, withPing(20*time.Millisecond))
	s := r.open(t, "group=g", 0)
	if _, err := s.conn.Write([]byte(strings.Repeat("GET / HTTP/1.1\r\n\r\n", 500))); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if e, err := s.next(); err != nil || e.data != "ping" {
			t.Fatalf("got %+v, %v, want a ping", e, err)
		}
	}
	r.hub.End("g")
	for {
		if _, err := s.next(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("got %v, want a clean end", err)
		}
	}
}

func TestErrorsComeBeforeTheHead(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	allowed := func(ok bool, err error) func(context.Context) (bool, error) {
		return func(context.Context) (bool, error) { return ok, err }
	}
	for _, c := range []struct {
		name   string
		broken error
		listen Listen
		status int
	}{
		{"log down", errors.New("disk on fire"), Listen{Topic: "t"}, 500},
		{"not allowed", nil, Listen{Topic: "t", Groups: []string{"g"}, Allowed: allowed(false, nil)}, 403},
		{"not known", nil, Listen{Topic: "t", Allowed: allowed(false, io.ErrNoProgress)}, 500},
		{"allowed", nil, Listen{Topic: "t", Groups: []string{"a"}, Allowed: allowed(true, nil)}, 200},
	} {
		r.fail(c.broken)
		r.listen = func(*http.Request) Listen { return c.listen }
		res, err := http.Get("http://" + r.addr)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != c.status {
			t.Errorf("%s: got %d, want %d", c.name, res.StatusCode, c.status)
		}
		if c.status == 200 {
			r.hub.End("a")
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	r.deserted(t)
}

// fallbacks are servers whose writers have no socket to write to directly.
func fallbacks(t *testing.T, test func(t *testing.T, r *rig, get func(ctx context.Context, query string) *http.Response)) {
	for _, kind := range []string{"h2", "tls", "h2c", "wrapped"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, withPing(50*time.Millisecond))
			var handler http.Handler = r
			if kind == "wrapped" {
				handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
					r.ServeHTTP(struct {
						http.ResponseWriter
						http.Flusher
					}{w, w.(http.Flusher)}, q)
				})
			}
			srv := httptest.NewUnstartedServer(handler)
			client, major := &http.Client{}, 1
			switch kind {
			case "h2":
				srv.EnableHTTP2, major = true, 2
				srv.StartTLS()
				client = srv.Client()
			case "tls":
				srv.StartTLS()
				client = srv.Client()
			case "h2c":
				major = 2
				srv.Config.Protocols = new(http.Protocols)
				srv.Config.Protocols.SetUnencryptedHTTP2(true)
				srv.Start()
				tr := &http.Transport{Protocols: new(http.Protocols)}
				tr.Protocols.SetUnencryptedHTTP2(true)
				client.Transport = tr
			default:
				srv.Start()
			}
			t.Cleanup(func() { client.CloseIdleConnections(); srv.Close() })
			t.Cleanup(r.stop)
			test(t, r, func(ctx context.Context, query string) *http.Response {
				req, err := http.NewRequestWithContext(ctx, "GET", srv.URL+"/?"+query, nil)
				if err != nil {
					t.Fatal(err)
				}
				res, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				if res.ProtoMajor != major || res.StatusCode != 200 || res.Header.Get("X-Request-Id") != "req-1" {
					t.Fatalf("got HTTP/%d, status %d, head %v", res.ProtoMajor, res.StatusCode, res.Header)
				}
				return res
			})
		})
	}
}

func TestStreamsWithoutASocketOfTheirOwn(t *testing.T) {
	t.Parallel()
	fallbacks(t, func(t *testing.T, r *rig, get func(context.Context, string) *http.Response) {
		r.publish(1000)
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		stays, leaves := get(ctx, "after=0&group=g"), get(ctx, "after=900")
		stays2, reader := stays.Body, bufio.NewReader(stays.Body)
		defer stays2.Close()
		wantSignals(t, bufio.NewReader(leaves.Body), 901, 1000)
		wantSignals(t, reader, 1, 1000)
		r.publish(500)
		wantSignals(t, reader, 1001, 1500)
		if e, err := readEvent(reader); err != nil || e.data != "ping" {
			t.Errorf("got %+v, %v, want a ping", e, err)
		}
		r.hub.End("g")
		if err := drainEvents(reader); err != nil {
			t.Errorf("got %v, want a clean end", err)
		}
		leaves.Body.Close()
		leave()
		r.deserted(t)
	})
}

// wantSignals reads signals, passing over pings.
func wantSignals(t *testing.T, reader *bufio.Reader, from, to int64) {
	t.Helper()
	for pos := from; pos <= to; {
		e, err := readEvent(reader)
		if err != nil {
			t.Fatalf("waiting for %d: %v", pos, err)
		}
		if e.data == "ping" {
			continue
		}
		if e.id != pos || e.data != body(pos) {
			t.Fatalf("got %+v, want %d", e, pos)
		}
		pos++
	}
}

// drainEvents reads pings to the end, nil when that is clean.
func drainEvents(reader *bufio.Reader) error {
	for {
		switch e, err := readEvent(reader); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case e.data != "ping":
			return errors.New("unexpected " + e.data)
		}
	}
}

func TestTLSConnectionIsCutWithoutWaiting(t *testing.T) {
	t.Parallel()
	r := newRig(t, withConfig(func(c *Config) { c.Stall = 100 * time.Millisecond }))
	srv := httptest.NewTLSServer(r)
	defer srv.Close()
	conn, err := tls.Dial("tcp", srv.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET /?after=0 HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	big := `"` + strings.Repeat("x", 100<<10) + `"`
	for range 200 { // more than socket buffers take
		r.post(big)
	}
	r.deserted(t)
	if n := r.metric(t, "parley_realtime_cuts_total", ""); n != 1 {
		t.Errorf("%v cuts, want 1", n)
	}
}

// Official clients attach their handlers after they have seen the head: what
// such a listener missed comes a moment later.
func TestWhatCameJustBeforeIsHeldBackAMoment(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.addAt("t", []byte("early"), justNow())
	began := time.Now() // however late the head is seen
	s := r.open(t, "", -1)
	if e, err := s.next(); err != nil || e.data != "early" || time.Since(began) < settle {
		t.Errorf("got %q, %v after %v, want it after %v", e.data, err, time.Since(began), settle)
	}
}
