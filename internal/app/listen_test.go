package app

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestLoopbackAnswersInBothFamilies(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"127.0.0.1:0", "localhost:0", "[::1]:0"} {
		ls, err := listen(t.Context(), addr)
		if err != nil {
			t.Fatal(err)
		}
		_, port, err := net.SplitHostPort(ls.addr())
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range ls {
			if _, p, _ := net.SplitHostPort(l.Addr().String()); p != port {
				t.Errorf("%s listens on %s, want port %s", addr, l.Addr(), port)
			}
		}
		if len(ls) == 2 && ls[0].Addr().String() == ls[1].Addr().String() {
			t.Errorf("%s listens on %s twice", addr, ls[0].Addr())
		}
		if len(ls) == 1 && hasIPv6Loopback(t) {
			t.Errorf("%s listens on %s alone", addr, ls[0].Addr())
		}
		if _, err := listen(t.Context(), net.JoinHostPort("127.0.0.1", port)); err == nil || !strings.Contains(err.Error(), "in use") || !strings.Contains(err.Error(), "--addr") {
			t.Errorf("a port in use: got %v", err)
		}
		if err := ls.close(); err != nil {
			t.Error(err)
		}
	}
}

func hasIPv6Loopback(t *testing.T) bool {
	t.Helper()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// serving starts h as a server of ours and returns its address.
func serving(t *testing.T, h http.Handler) string {
	t.Helper()
	ls, err := listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newHTTPServer(h, nil)
	done := make(chan error, len(ls))
	for _, l := range ls {
		go func() { done <- s.Serve(l) }()
	}
	t.Cleanup(func() {
		_ = s.Shutdown(context.WithoutCancel(t.Context()))
		for range ls {
			<-done
		}
	})
	return ls.addr()
}

func TestHTTP2IsSpokenWithoutTLS(t *testing.T) {
	t.Parallel()
	addr := serving(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }))
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("http://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); string(got) != "HTTP/2.0" || err != nil {
		t.Errorf("spoke %q (%v), want HTTP/2.0", got, err)
	}
}

// deadlines records the read deadlines that are set for a request.
type deadlines struct {
	http.ResponseWriter
	set []time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.set = append(d.set, t)
	return nil
}

func TestABodyHasATimeToArriveIn(t *testing.T) {
	t.Parallel()
	w := &deadlines{}
	h := boundBodies(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Error(err)
		}
	}))
	r, err := http.NewRequestWithContext(t.Context(), "POST", "/", strings.NewReader(strings.Repeat("x", 3<<20)))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	h.ServeHTTP(w, r)
	n := len(w.set)
	if n < 4 || !w.set[n-1].IsZero() {
		t.Fatalf("deadlines %v: want one at the start, one a megabyte, and none after the last byte", w.set)
	}
	if first := w.set[0].Sub(began); first < bodyTimeout || first > bodyTimeout+time.Minute {
		t.Errorf("the first deadline is in %s, want %s", first, bodyTimeout)
	}
	if grown := w.set[n-2].Sub(w.set[0]); grown < 8*time.Second || grown > 12*time.Second {
		t.Errorf("3 MB moved the deadline by %s, want 8 s to 12 s", grown)
	}
}

func TestARequestWithoutABodyHasNoDeadline(t *testing.T) {
	t.Parallel()
	w := &deadlines{}
	r, err := http.NewRequestWithContext(t.Context(), "GET", "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	boundBodies(http.NotFoundHandler()).ServeHTTP(discard{w}, r)
	if len(w.set) != 0 {
		t.Errorf("deadlines %v were set", w.set)
	}
}

type discard struct{ *deadlines }

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}
