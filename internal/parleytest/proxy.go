package parleytest

import (
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Proxy gives each request to the next server that says it is ready.
type Proxy struct {
	URL   string
	nodes []*upstream
	turn  atomic.Uint64
}

// upstream is a server as the proxy sees it.
type upstream struct {
	addr  string
	ready atomic.Bool
}

// newProxy opens the address that the servers are told.
func newProxy(t *testing.T) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{URL: "http://" + l.Addr().String()}
	file := filepath.Join(t.TempDir(), "proxy.log")
	said, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	errors := log.New(said, "", log.Ltime|log.Lmicroseconds)
	through := &httputil.ReverseProxy{
		Rewrite: p.rewrite, FlushInterval: -1, ErrorLog: errors,
		Transport:    &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
		ErrorHandler: p.broken,
	}
	front := &http.Server{Handler: whole(through), ErrorLog: errors}
	var serving sync.WaitGroup
	serving.Go(func() { _ = front.Serve(l) }) // until the test is over
	t.Cleanup(func() {
		_ = front.Close()
		serving.Wait()
		_ = said.Close()
		if text, _ := os.ReadFile(file); t.Failed() {
			t.Logf("end of what the proxy says:\n%s", text[max(0, len(text)-8000):])
		}
	})
	return p
}

// whole has a body of some size in memory before it is sent on. A server may
// answer before it has read the body; the answer would be cut off if the proxy
// then lost it.
func whole(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > 0 && r.ContentLength <= 1<<20 {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				panic(http.ErrAbortHandler) // the client has gone
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		next.ServeHTTP(w, r)
	})
}

// rewrite sends a request on as it came, to the server whose turn it is.
func (p *Proxy) rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.Scheme, r.Out.URL.Host, r.Out.URL.RawQuery = "http", p.next(), r.In.URL.RawQuery
	r.Out.Host = r.In.Host
}

// next is the address of the server whose turn it is; where none is ready, any.
func (p *Proxy) next() string {
	turn := p.turn.Add(1)
	for i := range uint64(len(p.nodes)) {
		if n := p.nodes[(turn+i)%uint64(len(p.nodes))]; n.ready.Load() {
			return n.addr
		}
	}
	return p.nodes[turn%uint64(len(p.nodes))].addr
}

// broken answers for a server that has gone, as gateways do, and leaves it alone
// until it says again that it is ready.
func (p *Proxy) broken(w http.ResponseWriter, out *http.Request, _ error) {
	for _, n := range p.nodes {
		if n.addr == out.URL.Host && out.Context().Err() == nil {
			n.ready.Store(false)
		}
	}
	w.WriteHeader(http.StatusBadGateway)
}

// balance begins to send requests to the servers, and asks them all the time
// whether they are ready.
func (p *Proxy) balance(t *testing.T, servers []*Server) {
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var asking sync.WaitGroup
	t.Cleanup(func() {
		stop()
		asking.Wait()
	})
	for _, s := range servers {
		n := &upstream{addr: s.Addr}
		n.ready.Store(true)
		p.nodes = append(p.nodes, n)
		asking.Go(func() { n.watch(ctx) })
	}
}

// watch asks a server whether it is ready, as gateways do, though more often.
func (n *upstream) watch(ctx context.Context) {
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return
		}
		answer, err := asker.Get((&url.URL{Scheme: "http", Host: n.addr, Path: "/readyz"}).String())
		if err == nil {
			answer.Body.Close()
		}
		n.ready.Store(err == nil && answer.StatusCode == http.StatusOK)
	}
}

var asker = &http.Client{Timeout: 2 * time.Second}
