package chaos

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/internal/parleytest"
)

// TestSlowloris has strangers hold connections: half of them send the header of a
// request, half its body, a byte now and then. Ordinary clients do not feel it, and
// the server takes each connection back.
func TestSlowloris(t *testing.T) {
	parleytest.Each(t, func(t *testing.T, s *parleytest.Setup) {
		_, env := s.Settings()
		v := newVisitors(t, env.ChatURL)
		strangers := 200
		if long() {
			strangers = 5_000
		}
		var reaped, opened int64
		header := reap(t, s, slowHeader) // it takes its ten seconds while others are measured
		ratio, calm, beside := v.pairs(t, func(during func()) {
			a := newAttack(t, s, strangers)
			during()
			a.end()
			reaped, opened = reaped+a.cut.Load(), opened+a.opened.Load()
		})
		bearable(t, ratio)
		figures := fmt.Sprintf("%d connections at a time, %d in all, %d of them cut while others were measured; a header has %v", strangers, opened, reaped, header())
		if long() {
			figures += fmt.Sprintf(", a body %v", reap(t, s, slowBody)())
		}
		record(t, "slowloris, "+s.Name, fmt.Sprintf("%s; p99 of ordinary clients %v without and %v beside them, median of the ratios %.2f", figures, calm, beside, ratio))
	})
}

// attack is strangers who keep their number of connections up.
type attack struct {
	t           *testing.T
	opened, cut atomic.Int64
	stop        context.CancelFunc
	going       sync.WaitGroup
}

// newAttack returns when all connections are there.
func newAttack(t *testing.T, s *parleytest.Setup, strangers int) *attack {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	a := &attack{t: t, stop: stop}
	there := make(chan struct{}, strangers)
	for n := range strangers {
		addr := s.Nodes[n%len(s.Nodes)].Addr
		a.going.Go(func() {
			for first := true; ctx.Err() == nil; first = false {
				c := dribble(ctx, addr, [...]string{slowHeader, slowBody}[n%2])
				if c == nil {
					continue // the queue of the socket is full; in a moment
				}
				a.opened.Add(1)
				if first {
					there <- struct{}{}
				}
				c.run(ctx)
				if ctx.Err() == nil {
					a.cut.Add(1)
				}
			}
		})
	}
	late := time.After(time.Minute)
	for n := range strangers {
		select {
		case <-there:
		case <-late:
			t.Fatalf("%d of %d connections were taken within a minute", n, strangers)
		}
	}
	return a
}

func (a *attack) end() {
	a.stop()
	a.going.Wait()
}

// drip is a connection that a request comes over, very slowly.
type drip struct {
	net.Conn
}

// beginnings of a request that never ends: in its header, or in its body.
const (
	slowHeader = "POST /v1/chat/messages HTTP/1.1\r\nHost: parley\r\nX-Slow: "
	slowBody   = "POST /v1/chat/messages HTTP/1.1\r\nHost: parley\r\nContent-Type: application/json\r\nAuthorization: Bearer bp_pat_x\r\nContent-Length: 1000000\r\n\r\n{"
)

// dribble opens a connection; nil if there is none to be had.
func dribble(ctx context.Context, addr, beginning string) *drip {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil
	}
	if _, err := c.Write([]byte(beginning)); err != nil {
		_ = c.Close() // it was not taken
		return nil
	}
	return &drip{c}
}

// run sends a byte every three seconds until the server hangs up or ctx ends.
func (d *drip) run(ctx context.Context) {
	defer d.Close()
	stopped := context.AfterFunc(ctx, func() { _ = d.Close() })
	defer stopped()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		answer := make([]byte, 512)
		for {
			if _, err := d.Read(answer); err != nil {
				return
			}
		}
	}()
	tick := time.NewTicker(3 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-gone:
			return
		case <-tick.C:
			if _, err := d.Write([]byte("x")); err != nil {
				<-gone
				return
			}
		}
	}
}

// reap opens one connection. What it returns waits until the server has taken it
// back, and says how long that took.
func reap(t *testing.T, s *parleytest.Setup, beginning string) func() time.Duration {
	t.Helper()
	const patience = 2 * time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	c, began, cut := dribble(ctx, s.Addr, beginning), time.Now(), make(chan time.Duration, 1)
	if c == nil {
		t.Fatal("a connection was not taken")
	}
	go func() {
		defer cancel()
		c.run(ctx)
		cut <- time.Since(began).Round(time.Second)
	}()
	return func() time.Duration {
		t.Helper()
		after := <-cut
		if after >= patience {
			t.Errorf("a request that stays at %q was not cut within %v", beginning, patience)
		}
		return after
	}
}
