package outbound

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A proxy named in the environment would make the dial check worthless. The
// standard library reads these variables once, so they are set before anything runs.
var proxied atomic.Int32

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // net/http reports every handler that a test aborts
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { proxied.Add(1) }))
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		os.Setenv(name, proxy.URL)
	}
	code := m.Run()
	proxy.Close()
	if n := proxied.Load(); n != 0 {
		fmt.Printf("%d calls went through the proxy of the environment\n", n)
		code = 1
	}
	os.Exit(code)
}

func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// zone is what the name server of a test answers.
type zone map[string][]string

// testClient has a name server of its own.
func testClient(t *testing.T, cfg Config, z zone) *Client {
	t.Helper()
	return resolving(t, cfg, func(name string) []string { return z[name] })
}

func resolving(t *testing.T, cfg Config, answer func(name string) []string) *Client {
	t.Helper()
	cfg.Resolver = &net.Resolver{PreferGo: true, Dial: nameServer(t, answer)}
	c := New(cfg)
	t.Cleanup(c.Close)
	return c
}

// nameServer answers A and AAAA queries over UDP from answer.
func nameServer(t *testing.T, answer func(name string) []string) func(context.Context, string, string) (net.Conn, error) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { conn.Close(); serving.Wait() })
	serving.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil {
				continue
			}
			out, err := reply(m, answer).Pack()
			if err == nil {
				_, _ = conn.WriteTo(out, from) // the client asks again
			}
		}
	})
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", conn.LocalAddr().String())
	}
}

func reply(m dnsmessage.Message, answer func(name string) []string) *dnsmessage.Message {
	q := m.Questions[0]
	addrs := answer(strings.ToLower(q.Name.String()))
	m.Header = dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true}
	m.Additionals = nil
	if len(addrs) == 0 {
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, text := range addrs {
		a := netip.MustParseAddr(text)
		h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}
		switch {
		case a.Is4() && q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
		case a.Is6() && q.Type == dnsmessage.TypeAAAA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	return &m
}

// listenEverywhere counts connections to one port on both loopback addresses.
func listenEverywhere(t *testing.T, connects *atomic.Int32) (port string) {
	t.Helper()
	var accepting sync.WaitGroup
	count := func(l net.Listener) {
		t.Cleanup(func() { l.Close(); accepting.Wait() })
		accepting.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				connects.Add(1)
				conn.Close()
			}
		})
	}
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	count(l)
	_, port, _ = net.SplitHostPort(l.Addr().String())
	if l6, err := net.Listen("tcp6", "[::]:"+port); err == nil { // a machine without IPv6 has one way in fewer
		count(l6)
	}
	return port
}

func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// speak serves connections by hand: one function per connection, the last one for all that follow.
func speak(t *testing.T, conns ...func(net.Conn)) (baseURL string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { l.Close(); serving.Wait() })
	serving.Go(func() {
		for i := 0; ; i++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				conns[min(i, len(conns)-1)](conn)
			})
		}
	})
	return "http://" + l.Addr().String() + "/"
}

func get(t *testing.T, c *Client, rawURL string, l Limits) (*Response, error) {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	return c.Do(t.Context(), &http.Request{Method: "GET", URL: u}, l)
}

func post(t *testing.T, ctx context.Context, c *Client, rawURL, body string, l Limits) (*Response, error) {
	t.Helper()
	req, err := http.NewRequest("POST", rawURL, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	return c.Do(ctx, req, l)
}

func local(t *testing.T) *Client {
	t.Helper()
	c := New(Config{AllowLoopback: true, UserAgent: "Parley/1.2.3"})
	t.Cleanup(c.Close)
	return c
}

func TestDoSendsTheRequestAndReadsTheAnswer(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Seen", r.Method+" "+r.URL.String()+" "+r.Header.Get("X-A")+" "+r.UserAgent()+" ["+r.Header.Get("Accept-Encoding")+"]")
		w.WriteHeader(http.StatusTeapot)
		w.Write(append([]byte("got "), body...))
	})
	req, _ := http.NewRequest("PUT", s.URL+"/p?q=1", strings.NewReader("body"))
	req.Header.Set("X-A", "a")
	req.Host = "elsewhere.example"
	resp, err := local(t).Do(t.Context(), req, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(resp.Status, " ", string(resp.Body), " ", resp.Header.Get("X-Seen")); got != "418 got body PUT /p?q=1 a Parley/1.2.3 []" {
		t.Errorf("got %q", got)
	}
	if resp.URL.String() != s.URL+"/p?q=1" {
		t.Errorf("URL = %s", resp.URL)
	}
}

func TestBodiesOfAllKinds(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 200<<10)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		case "/sized":
			w.Header().Set("Content-Length", strconv.Itoa(len(big)))
			io.WriteString(w, big)
		case "/chunked":
			io.WriteString(w, big[:1000])
			w.(http.Flusher).Flush()
			io.WriteString(w, big[1000:])
		}
	})
	c := local(t)
	for path, want := range map[string]string{"/none": "", "/sized": big, "/chunked": big} {
		resp, err := get(t, c, s.URL+path, Limits{})
		if err != nil || string(resp.Body) != want {
			t.Errorf("%s: got %d bytes, %v; want %d bytes", path, len(resp.Body), err, len(want))
		}
	}
	req, _ := http.NewRequest("HEAD", s.URL+"/sized", nil)
	resp, err := c.Do(t.Context(), req, Limits{MaxBody: 10})
	if err != nil || len(resp.Body) != 0 || resp.Header.Get("Content-Length") != strconv.Itoa(len(big)) {
		t.Errorf("HEAD: got %+v, %v", resp, err)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/sized":
			w.Header().Set("Content-Length", "101")
			w.Write(make([]byte, 101))
		case "/endless":
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		case "/exact":
			w.Write(make([]byte, 100))
			w.(http.Flusher).Flush()
		case "/headers":
			for i := range 100 {
				w.Header().Set("X-"+strconv.Itoa(i), strings.Repeat("h", 1024))
			}
		}
	})
	c := local(t)
	for _, path := range []string{"/sized", "/endless"} {
		_, err := get(t, c, s.URL+path, Limits{MaxBody: 100})
		if e, ok := errors.AsType[*TooLargeError](err); !ok || e.Limit != 100 {
			t.Errorf("%s: got %v, want *TooLargeError of 100", path, err)
		}
	}
	if resp, err := get(t, c, s.URL+"/exact", Limits{MaxBody: 100}); err != nil || len(resp.Body) != 100 {
		t.Errorf("/exact: got %v", err)
	}
	if _, err := get(t, c, s.URL+"/headers", Limits{}); !isA[*BrokenError](err) {
		t.Errorf("/headers: got %v, want *BrokenError", err)
	}
}

func TestTimeIsTotal(t *testing.T) {
	t.Parallel()
	for name, conn := range map[string]func(net.Conn){
		"silence": func(c net.Conn) { io.Copy(io.Discard, c) },
		"slow head": func(c net.Conn) {
			c.Read(make([]byte, 4096)) // an answer before the request is not an answer
			for trickle(c) {
				if _, err := io.WriteString(c, "H"); err != nil {
					return
				}
			}
		},
		"slow body": func(c net.Conn) {
			c.Read(make([]byte, 4096))
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
			for trickle(c) {
				if _, err := io.WriteString(c, "x"); err != nil {
					return
				}
			}
		},
		"an interim answer and no more": func(c net.Conn) {
			c.Read(make([]byte, 4096))
			io.WriteString(c, "HTTP/1.1 102 Processing\r\n\r\n")
			io.Copy(io.Discard, c)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := post(t, t.Context(), local(t), speak(t, conn), "{}", Limits{Timeout: 2 * time.Second})
			if e, ok := errors.AsType[*TimeoutError](err); !ok || e.Limit != 2*time.Second || !e.Timeout() {
				t.Errorf("got %T %v, want *TimeoutError", err, err)
			}
		})
		t.Run(name+", deadline of the caller", func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if _, err := post(t, ctx, local(t), speak(t, conn), "{}", Limits{}); !isA[*TimeoutError](err) {
				t.Errorf("got %T %v, want *TimeoutError", err, err)
			}
		})
	}
}

// trickle passes 10 ms while it reads, and reports whether the peer is still there.
func trickle(c net.Conn) bool {
	c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, err := c.Read(make([]byte, 64<<10))
	return err == nil || errors.Is(err, os.ErrDeadlineExceeded)
}

func TestCancellationIsTheCallers(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	base := speak(t, func(c net.Conn) {
		c.Read(make([]byte, 4096))
		cancel()
		io.Copy(io.Discard, c)
	})
	if _, err := post(t, ctx, local(t), base, "{}", Limits{}); err != context.Canceled {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if _, err := post(t, ctx, local(t), base, "{}", Limits{}); err != context.Canceled {
		t.Errorf("already cancelled: got %v, want context.Canceled", err)
	}
}

func TestTimeUpBeforeTheCallSentNothing(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), -time.Second)
	defer cancel()
	if _, err := post(t, ctx, local(t), "http://127.0.0.1:1/", "{}", Limits{}); !isA[*UnreachableError](err) {
		t.Errorf("got %T %v, want *UnreachableError", err, err)
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	secure := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(secure.Close)
	plain := serve(t, func(http.ResponseWriter, *http.Request) {})
	c := testClient(t, Config{AllowLoopback: true}, zone{})
	for name, u := range map[string]string{
		"refused":                   closedPort(t),
		"unknown name":              "http://nobody.test/",
		"untrusted certificate":     secure.URL,
		"plain HTTP on a TLS URL":   strings.Replace(plain.URL, "http:", "https:", 1),
		"closed while shaking hand": strings.Replace(speak(t, func(net.Conn) {}), "http:", "https:", 1),
	} {
		if _, err := post(t, t.Context(), c, u, "{}", Limits{}); !isA[*UnreachableError](err) {
			t.Errorf("%s: got %T %v, want *UnreachableError", name, err, err)
		}
	}
}

func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String() + "/"
}

func TestTLSWithATrustedRoot(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }))
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	c := New(Config{AllowLoopback: true, RootCAs: roots})
	t.Cleanup(c.Close)
	resp, err := get(t, c, s.URL, Limits{})
	if err != nil || string(resp.Body) != "HTTP/1.1" {
		t.Errorf("got %v, %v", resp, err)
	}
}

func TestBrokenAnswers(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"nothing":              "",
		"half a status line":   "HTTP/1.",
		"garbage":              "SSH-2.0-OpenSSH_9.2\r\n",
		"cut in the head":      "HTTP/1.1 200 OK\r\nContent-Le",
		"cut in the body":      "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
		"cut in a chunk":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
		"a bad chunk":          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
		"two lengths":          "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
		"a switch of protocol": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
		"a header bomb":        "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 1<<20) + "\r\n\r\n",
	} {
		base := speak(t, func(c net.Conn) {
			c.Read(make([]byte, 4096))
			io.WriteString(c, answer)
		})
		if _, err := post(t, t.Context(), local(t), base, "{}", Limits{}); !isA[*BrokenError](err) {
			t.Errorf("%s: got %T %v, want *BrokenError", name, err, err)
		}
	}
}

// What the transport refuses to send has not reached anybody and never will.
func TestUnsendableRequests(t *testing.T) {
	t.Parallel()
	s := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("the request arrived") })
	for name, spoil := range map[string]func(*http.Request){
		"a line break in a header":   func(r *http.Request) { r.Header["X-A"] = []string{"a\r\nX-B: b"} },
		"a space in a header's name": func(r *http.Request) { r.Header["X A"] = []string{"a"} },
		"a method with a space":      func(r *http.Request) { r.Method = "GET /" },
	} {
		req, _ := http.NewRequest("POST", s.URL, strings.NewReader("{}"))
		spoil(req)
		if _, err := local(t).Do(t.Context(), req, Limits{}); !isA[*RefusedError](err) {
			t.Errorf("%s: got %T %v, want *RefusedError", name, err, err)
		}
	}
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "{}")
	}))
	var opened atomic.Int32
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	c := local(t)
	for range 50 {
		if _, err := post(t, t.Context(), c, s.URL, `{"a":1}`, Limits{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("50 calls opened %d connections, want 1", n)
	}
}

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

// answerAllButLast hears n requests, answers all but the last of them and hangs up.
func answerAllButLast(c net.Conn, n int, heard *atomic.Int32) {
	buf := make([]byte, 4096)
	for i := range n {
		if _, err := io.ReadAtLeast(c, buf, 1); err != nil {
			return
		}
		heard.Add(1)
		if i < n-1 {
			io.WriteString(c, okAnswer)
		}
	}
}

// A server that closes a kept connection just as the next request arrives.
func TestAStaleConnectionIsRepeatedOnceOnANewOne(t *testing.T) {
	t.Parallel()
	var heard atomic.Int32
	base := speak(t,
		func(c net.Conn) { answerAllButLast(c, 2, &heard) },
		func(c net.Conn) { answerAllButLast(c, 2, &heard) },
	)
	c := local(t)
	for i := range 2 {
		if _, err := post(t, t.Context(), c, base, "{}", Limits{}); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	if n := heard.Load(); n != 3 {
		t.Errorf("the server heard %d requests, want 3: one, one lost, one repeated", n)
	}
}

// A reset is the other face of the same race.
func TestAResetStaleConnectionIsRepeated(t *testing.T) {
	t.Parallel()
	var heard atomic.Int32
	base := speak(t,
		func(c net.Conn) { answerAllButLast(c, 2, &heard); c.(*net.TCPConn).SetLinger(0) },
		func(c net.Conn) { answerAllButLast(c, 2, &heard) },
	)
	c := local(t)
	for i := range 2 {
		if _, err := post(t, t.Context(), c, base, "{}", Limits{}); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
	}
}

// A peer that dies of a request must not be given it over and over within one call.
func TestOneCallIsSentAtMostTwice(t *testing.T) {
	t.Parallel()
	var heard atomic.Int32
	var kept, calls sync.WaitGroup
	kept.Add(3)
	deadly := func(c net.Conn) {
		buf := make([]byte, 4096)
		c.Read(buf)
		kept.Done()
		kept.Wait() // no answer before three connections are open
		io.WriteString(c, okAnswer)
		if n, _ := c.Read(buf); n > 0 {
			heard.Add(1)
		}
	}
	base := speak(t, deadly, deadly, deadly, func(c net.Conn) { answerAllButLast(c, 1, &heard) })
	c := local(t)
	for range 3 {
		calls.Go(func() {
			if _, err := post(t, t.Context(), c, base, "{}", Limits{}); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if _, err := post(t, t.Context(), c, base, "{}", Limits{}); !isA[*BrokenError](err) {
		t.Errorf("got %T %v, want *BrokenError", err, err)
	}
	if n := heard.Load(); n != 2 {
		t.Errorf("one call was sent %d times, want 2", n)
	}
}

func TestANewConnectionIsNotRepeated(t *testing.T) {
	t.Parallel()
	var heard atomic.Int32
	base := speak(t, func(c net.Conn) { answerAllButLast(c, 1, &heard) })
	if _, err := post(t, t.Context(), local(t), base, "{}", Limits{}); !isA[*BrokenError](err) {
		t.Errorf("got %T %v, want *BrokenError", err, err)
	}
	if n := heard.Load(); n != 1 {
		t.Errorf("the server heard %d requests, want 1", n)
	}
}

// Once the answer has begun, the peer has acted and nothing is repeated.
func TestABegunAnswerIsNotRepeated(t *testing.T) {
	t.Parallel()
	var heard atomic.Int32
	base := speak(t, func(c net.Conn) {
		answerAllButLast(c, 2, &heard)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-")
	})
	c := local(t)
	if _, err := post(t, t.Context(), c, base, "{}", Limits{}); err != nil {
		t.Fatal(err)
	}
	if _, err := post(t, t.Context(), c, base, "{}", Limits{}); !isA[*BrokenError](err) {
		t.Errorf("got %T %v, want *BrokenError", err, err)
	}
	if n := heard.Load(); n != 2 {
		t.Errorf("the server heard %d requests, want 2", n)
	}
}

// A peer that crashed on the request and is gone is not merely unreachable:
// redelivering for ever would crash it for ever.
func TestACrashOnAKeptConnectionIsBroken(t *testing.T) {
	t.Parallel()
	var heard atomic.Int32
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		conn, err := l.Accept()
		l.Close()
		if err == nil {
			answerAllButLast(conn, 2, &heard)
			conn.Close()
		}
	})
	t.Cleanup(serving.Wait)
	c := local(t)
	base := "http://" + l.Addr().String()
	if _, err := post(t, t.Context(), c, base, "{}", Limits{}); err != nil {
		t.Fatal(err)
	}
	if _, err := post(t, t.Context(), c, base, "{}", Limits{}); !isA[*BrokenError](err) {
		t.Errorf("got %T %v, want *BrokenError", err, err)
	}
}

// A real server whose idle time is as short as it gets, under load: the race
// between its closing and our sending is met often and never seen by the caller.
func TestServersThatCloseIdleConnections(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "{}")
	}))
	s.Config.IdleTimeout = time.Millisecond
	s.Start()
	t.Cleanup(s.Close)
	c := local(t)
	pause := time.NewTicker(time.Millisecond)
	t.Cleanup(pause.Stop)
	for i := range 300 {
		if _, err := post(t, t.Context(), c, s.URL, "{}", Limits{}); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
		<-pause.C
	}
}

// The name answers with an allowed address first and with forbidden ones ever after.
func TestRebindingGainsNothing(t *testing.T) {
	t.Parallel()
	front := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close") // so that the next call resolves again
	})
	_, port, _ := net.SplitHostPort(front.Listener.Addr().String())
	var asked atomic.Int32
	c := resolving(t, Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}, func(string) []string {
		if asked.Add(1) <= 2 { // one A and one AAAA query
			return []string{"127.0.0.1"}
		}
		return []string{"127.0.0.2", "::1", "169.254.169.254"}
	})
	var dialled []netip.AddrPort
	c.dialing = func(ap netip.AddrPort) { dialled = append(dialled, ap) } // one address at a time is allowed
	if _, err := post(t, t.Context(), c, "http://rebind.test:"+port, "{}", Limits{}); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := post(t, t.Context(), c, "http://rebind.test:"+port, "{}", Limits{}); !isA[*RefusedError](err) {
			t.Errorf("after the change: got %T %v, want *RefusedError", err, err)
		}
	}
	if want := "[127.0.0.1:" + port + "]"; fmt.Sprint(dialled) != want {
		t.Errorf("dialled %v, want %s", dialled, want)
	}
}

// What was resolved is what is dialled: a second answer is never asked for.
func TestOneConnectionOneResolution(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) })
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	var asked atomic.Int32
	c := resolving(t, Config{AllowLoopback: true}, func(string) []string {
		asked.Add(1)
		return []string{"127.0.0.1"}
	})
	for range 3 {
		resp, err := get(t, c, "http://bot.test.:"+port, Limits{})
		if err != nil || string(resp.Body) != "bot.test.:"+port {
			t.Fatalf("got %v, %v", resp, err)
		}
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("three calls over one connection asked %d questions, want one A and one AAAA", n)
	}
}

// A name with an allowed and a forbidden address is reached by the allowed one,
// and an allowed one that does not answer is an outage, not a refusal.
func TestMixedAddresses(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "{}") })
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	c := testClient(t, Config{AllowLoopback: true}, zone{"mixed.test.": {"10.0.0.1", "127.0.0.1"}})
	if _, err := get(t, c, "http://mixed.test:"+port, Limits{}); err != nil {
		t.Errorf("got %v", err)
	}
	closed, _ := url.Parse(closedPort(t))
	_, err := get(t, c, "http://mixed.test:"+closed.Port(), Limits{})
	if !isA[*UnreachableError](err) || isA[*RefusedError](err) {
		t.Errorf("got %T %v, want *UnreachableError alone", err, err)
	}
}

func TestTheProxyOfTheEnvironmentIsNotUsed(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "direct") })
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	c := testClient(t, Config{AllowLoopback: true}, zone{"far.test.": {"127.0.0.1"}})
	probe, _ := http.NewRequest("GET", "http://far.test:"+port, nil)
	if proxy, err := http.ProxyFromEnvironment(probe); err != nil || proxy == nil {
		t.Fatalf("the test's proxy is not in force: %v, %v", proxy, err)
	}
	resp, err := get(t, c, "http://far.test:"+port, Limits{})
	if err != nil || string(resp.Body) != "direct" {
		t.Errorf("got %v, %v", resp, err)
	}
}
