package chaos

import (
	"net"
	"net/url"
	"sync"
	"testing"
)

// relay is a way to a server that a test can block: bytes wait then, as they do
// where a network is parted, and nobody is told.
type relay struct {
	url string
	to  string

	mu      sync.Mutex
	flowing sync.Cond
	blocked bool
	over    bool
	conns   map[net.Conn]bool
}

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
	r := &relay{to: u.Host, conns: map[net.Conn]bool{}}
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

// block stops what flows, in both directions; heal lets it go on.
func (r *relay) block() { r.set(true) }
func (r *relay) heal()  { r.set(false) }

func (r *relay) set(blocked bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blocked = blocked
	r.flowing.Broadcast()
}

func (r *relay) serve(near net.Conn) {
	if !r.pass(near) {
		return
	}
	far, err := net.Dial("tcp", r.to)
	if err != nil {
		_ = near.Close() // whoever it is tries again
		return
	}
	if !r.pass(far) {
		_ = near.Close() // the test is over
		return
	}
	var back sync.WaitGroup
	back.Go(func() { r.copy(near, far) })
	r.copy(far, near)
	back.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, near)
	delete(r.conns, far)
}

// pass notes a connection and waits until bytes may flow.
func (r *relay) pass(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns[c] = true
	return r.waitLocked()
}

func (r *relay) waitLocked() bool {
	for r.blocked && !r.over {
		r.flowing.Wait()
	}
	return !r.over
}

// copy carries bytes one way until one side closes.
func (r *relay) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		r.mu.Lock()
		goOn := r.waitLocked()
		r.mu.Unlock()
		if !goOn || err != nil {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
