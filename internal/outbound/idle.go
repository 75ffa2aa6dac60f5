package outbound

import (
	"net/url"
	"sync"
	"time"
)

// idle keeps connections that may be used again. They hold no buffers meanwhile.
type idle struct {
	mu    sync.Mutex
	conns map[peer][]*conn // the one used last is the last
	n     int
	sweep *time.Timer // runs while there are any
}

// peer is whom a connection leads to.
type peer struct{ scheme, host string }

func peerOf(u *url.URL) peer { return peer{u.Scheme, u.Host} }

// take returns a connection to p that is still open as far as can be known, or nil.
func (i *idle) take(p peer) *conn {
	for {
		k := i.pop(p)
		if k == nil {
			return nil
		}
		if time.Since(k.idle) < idleTimeout && k.alive() {
			return k
		}
		_ = k.Close() // it is useless
	}
}

func (i *idle) pop(p peer) *conn {
	i.mu.Lock()
	defer i.mu.Unlock()
	conns := i.conns[p]
	if len(conns) == 0 {
		return nil
	}
	last := len(conns) - 1
	k := conns[last]
	conns[last] = nil
	i.conns[p] = conns[:last]
	i.n--
	return k
}

// put keeps a connection, unless there are enough.
func (i *idle) put(p peer, k *conn) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.n >= maxIdle || len(i.conns[p]) >= idlePerHost {
		_ = k.Close() // nothing is on its way
		return
	}
	if i.conns == nil {
		i.conns = map[peer][]*conn{}
	}
	k.idle = time.Now()
	i.conns[p] = append(i.conns[p], k)
	if i.n++; i.sweep == nil {
		i.sweep = time.AfterFunc(idleTimeout, i.drop)
	}
}

// drop closes what has been idle for too long.
func (i *idle) drop() {
	now := time.Now()
	i.closeWhere(func(k *conn) bool { return now.Sub(k.idle) >= idleTimeout })
}

// closeAll drops every idle connection.
func (i *idle) closeAll() { i.closeWhere(func(*conn) bool { return true }) }

func (i *idle) closeWhere(old func(*conn) bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for p, conns := range i.conns {
		n := 0 // the first ones have been idle for longest
		for n < len(conns) && old(conns[n]) {
			_ = conns[n].Close() // nothing is on its way
			n++
		}
		i.n -= n
		if n == len(conns) {
			delete(i.conns, p)
		} else {
			i.conns[p] = append([]*conn(nil), conns[n:]...)
		}
	}
	switch {
	case i.n > 0:
		i.sweep.Reset(idleTimeout / 2)
	case i.sweep != nil:
		i.sweep.Stop()
		i.sweep = nil
	}
}
