//go:build linux

package chaos

import (
	"errors"
	"net"
	"net/url"
	"sync"
	"testing"

	"parley/internal/sqldb/sqldbtest"
)

// relay is a way to a server that a test can block: bytes wait then, as they do
// where a network is parted, and nobody is told.
type relay struct {
	url string
	to  string

	mu      sync.Mutex
	flowing sync.Cond
	blocked map[direction]bool
	over    bool
	conns   map[net.Conn]bool // true where bytes are lost
}

// direction is one of the two ways that bytes take.
type direction string

const (
	there direction = "what it says"
	back  direction = "what it is told"
)

// newRelay opens a way to the server of a URL, until the test ends.
func newRelay(t *testing.T, server string) *relay {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{to: u.Host, blocked: map[direction]bool{}, conns: map[net.Conn]bool{}}
	r.flowing.L = &r.mu
	u.Host = l.Addr().String()
	r.url = u.String()
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { r.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close() // it is not used any more
		r.mu.Lock()
		r.over = true
		for c := range r.conns {
			_ = c.Close() // likewise
		}
		r.flowing.Broadcast()
		r.mu.Unlock()
		serving.Wait()
	})
	return r
}

// block stops what flows in the directions, until heal lets it go on.
func (r *relay) block(ways ...direction) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, way := range ways {
		r.blocked[way] = true
	}
}

func (r *relay) heal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.blocked)
	r.flowing.Broadcast()
}

// hangUp closes the connections there are. What waits in them is gone.
func (r *relay) hangUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		_ = c.Close() // it may have closed by itself
	}
}

// lose forgets the connections there are, as a firewall does: they stay open, and
// nothing arrives any more, which nobody is told. Later ones work.
func (r *relay) lose(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		if err := sqldbtest.Silence(c); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
		r.conns[c] = true
	}
	r.flowing.Broadcast()
}

func (r *relay) serve(near net.Conn) {
	defer r.forget(near)
	if !r.note(near) {
		return
	}
	far, err := net.Dial("tcp", r.to)
	if err != nil {
		return // whoever it is tries again
	}
	defer r.forget(far)
	if !r.note(far) {
		return
	}
	var answers sync.WaitGroup
	answers.Go(func() { r.copy(near, far, back) })
	r.copy(far, near, there)
	answers.Wait()
}

// note keeps a connection, to close it when the test is over.
func (r *relay) note(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns[c] = false
	return !r.over
}

func (r *relay) forget(c net.Conn) {
	_ = c.Close() // it may be closed already
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
}

// copy carries bytes one way until one side closes.
func (r *relay) copy(to, from net.Conn, way direction) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if lost := r.wait(from, way); lost {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// wait returns when bytes may flow, and says whether they are lost.
func (r *relay) wait(c net.Conn, way direction) (lost bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.blocked[way] && !r.over && !r.conns[c] {
		r.flowing.Wait()
	}
	return r.conns[c]
}
