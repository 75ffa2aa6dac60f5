package outbound

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A kept connection that the peer has closed is known before anything is sent on it.
func TestAClosedConnectionIsNotTried(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{})
	var requests atomic.Int32
	answer := func(c net.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		io.Copy(io.Discard, r.Body)
		requests.Add(1)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
	base := speak(t, func(c net.Conn) {
		answer(c)
		c.Close()
		close(closed)
	}, answer)
	c := local(t)
	if _, err := post(t, t.Context(), c, base, "{}", Limits{}); err != nil {
		t.Fatal(err)
	}
	<-closed
	for p := range c.idle.conns {
		if k := c.idle.take(p); k != nil {
			t.Error("a closed connection was taken for an open one")
		}
	}
	if _, err := post(t, t.Context(), c, base, "{}", Limits{}); err != nil || requests.Load() != 2 {
		t.Errorf("got %v after %d requests", err, requests.Load())
	}
}

// What a peer says without being asked ends its connection.
func TestWordsNobodyAskedFor(t *testing.T) {
	t.Parallel()
	said := make(chan struct{})
	polite := func(c net.Conn) {
		for {
			if _, err := c.Read(make([]byte, 4096)); err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue")
		}
	}
	for name, conn := range map[string]func(net.Conn){
		"at once": func(c net.Conn) {
			c.Read(make([]byte, 4096))
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrueHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfalse")
			io.Copy(io.Discard, c)
		},
		"later": func(c net.Conn) {
			c.Read(make([]byte, 4096))
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue")
			<-said
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfalse")
			io.Copy(io.Discard, c)
		},
	} {
		c, base := local(t), speak(t, conn, polite)
		for i := range 3 {
			resp, err := post(t, t.Context(), c, base, "{}", Limits{})
			if err != nil || string(resp.Body) != "true" {
				t.Fatalf("%s: call %d: got %+v, %v", name, i, resp, err)
			}
			if name == "later" && i == 0 {
				said <- struct{}{}
				for readable(c) {
				}
			}
		}
	}
}

// readable reports whether the one idle connection of c is still in order.
func readable(c *Client) bool {
	c.idle.mu.Lock()
	defer c.idle.mu.Unlock()
	for _, conns := range c.idle.conns {
		for _, k := range conns {
			if k.control != nil {
				return k.alive()
			}
		}
	}
	return false
}

// A peer may answer before it has read the whole request, and read no further.
func TestAnAnswerBeforeTheEndOfTheRequest(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 16<<20)
	for name, waits := range map[string]bool{"and waits": true, "and closes": false} {
		t.Run(name, func(t *testing.T) {
			done := make(chan struct{})
			base := speak(t, func(c net.Conn) {
				c.Read(make([]byte, 4096))
				io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!")
				if !waits {
					_ = c.(*net.TCPConn).CloseWrite() // closing at once would throw the answer away with what was not read
				}
				<-done
			})
			resp, err := post(t, t.Context(), local(t), base, large, Limits{})
			close(done)
			if err != nil || resp.Status != 413 || string(resp.Body) != "no!" {
				t.Errorf("got %+v, %v", resp, err)
			}
		})
	}
}

// A large body that nobody reads ends with the time.
func TestALargeBodyNobodyReads(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	base := speak(t, func(net.Conn) { <-done })
	defer close(done)
	if _, err := post(t, t.Context(), local(t), base, strings.Repeat("x", 16<<20), Limits{Timeout: 5 * time.Second}); !isA[*TimeoutError](err) {
		t.Errorf("got %T %v, want *TimeoutError", err, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Second, cancel)
	if _, err := post(t, ctx, local(t), base, strings.Repeat("x", 16<<20), Limits{}); err != context.Canceled {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestLargeBodiesArriveWhole(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || strings.Trim(string(b), "x") != "" {
			t.Errorf("%d bytes, %v", len(b), err)
		}
		w.Header().Set("X-Length", r.Header.Get("Content-Length"))
		_, _ = io.Copy(w, strings.NewReader(string(b)))
	})
	c := local(t)
	for _, size := range []int{0, 1, inOneWrite - 300, inOneWrite, inline, inline + 1, 3 << 20} {
		resp, err := post(t, t.Context(), c, s.URL, strings.Repeat("x", size), Limits{MaxBody: 4 << 20})
		if err != nil || len(resp.Body) != size {
			t.Errorf("%d: got %+v, %v", size, resp, err)
		}
	}
}

func TestInterimAnswers(t *testing.T) {
	t.Parallel()
	for interim, ok := range map[int]bool{1: true, maxInterim: true, maxInterim + 1: false} {
		base := speak(t, func(c net.Conn) {
			c.Read(make([]byte, 4096))
			io.WriteString(c, strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", interim)+"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		})
		resp, err := post(t, t.Context(), local(t), base, "{}", Limits{})
		if ok && (err != nil || string(resp.Body) != "ok") || !ok && !isA[*BrokenError](err) {
			t.Errorf("%d: got %+v, %v", interim, resp, err)
		}
	}
}

func TestWhatStandsInTheRequestLine(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RequestURI) })
	c := local(t)
	for in, want := range map[string]string{"": "/", "/a%2Fb?": "/a%2Fb?", "?q=a b": "/?q=a%20b", "/ü?x=ü": "/%C3%BC?x=ü", "/x#y": "/x"} {
		resp, err := get(t, c, s.URL+in, Limits{})
		if err != nil || string(resp.Body) != want {
			t.Errorf("%q: got %+v, %v; want %q", in, resp, err, want)
		}
	}
	u, _ := url.Parse(s.URL)
	u.RawQuery = "a\r\nX-Injected: 1"
	if _, err := c.Do(t.Context(), &http.Request{URL: u}, Limits{}); !isA[*RefusedError](err) {
		t.Errorf("a line break in the query: got %v", err)
	}
	for host, want := range map[string]string{"a.test": "a.test", "a.test:": "a.test", "a.test:81": "a.test:81", "[fe80::1%25eth0]:80": "[fe80::1]:80"} {
		if u, err := url.Parse("http://" + host + "/"); err != nil || hostHeader(u) != want {
			t.Errorf("%s: Host is %q, %v", host, hostHeader(u), err)
		}
	}
}

func TestIdleConnectionsGoInTime(t *testing.T) {
	t.Parallel()
	var i idle
	p := peer{"http", "a.test"}
	open := func() (*conn, net.Conn) {
		mine, theirs := net.Pipe()
		t.Cleanup(func() { mine.Close(); theirs.Close() })
		return &conn{Conn: mine, raw: mine}, theirs
	}
	old, end := open()
	i.put(p, old)
	old.idle = time.Now().Add(-idleTimeout)
	young, _ := open()
	i.put(p, young)
	i.drop()
	if _, err := end.Read(make([]byte, 1)); err != io.EOF || i.n != 1 {
		t.Errorf("the old one: %v, %d are left", err, i.n)
	}
	if k := i.take(p); k != young || i.n != 0 {
		t.Errorf("took %p, want %p; %d are left", k, young, i.n)
	}
	late, end := open()
	i.put(p, late)
	late.idle = time.Now().Add(-idleTimeout)
	if k := i.take(p); k != nil {
		t.Error("took one that was idle for too long")
	}
	if _, err := end.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("it was not closed: %v", err)
	}
	for range idlePerHost + 1 {
		k, _ := open()
		i.put(p, k)
	}
	if i.n != idlePerHost {
		t.Errorf("%d are kept for one host, want %d", i.n, idlePerHost)
	}
	i.closeAll()
	if i.n != 0 || len(i.conns) != 0 || i.sweep != nil {
		t.Errorf("%d are left after all were closed", i.n)
	}
}
