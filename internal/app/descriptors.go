package app

import (
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/internal/fault"
)

// Of the descriptors that a process may have, connections of clients leave some
// free: without any the server could not call bots, nor reach its database.
const (
	mostSpare = 1024
	spareOne  = 4 // at most one in so many
)

// crowd keeps clients from taking the last descriptors.
type crowd struct {
	most    int // descriptors from this number on are not for clients
	tls     bool
	log     *slog.Logger
	refused atomic.Int64
	said    atomic.Int64 // when that was logged last, in milliseconds

	parting sync.WaitGroup
	places  chan struct{} // of connections that are told why
}

// newCrowd leaves room within the limit of the process; 0 is no limit.
func newCrowd(limit int, tls bool, log *slog.Logger) *crowd {
	c := &crowd{tls: tls, log: log, places: make(chan struct{}, 16)}
	if limit > 0 {
		c.most = limit - min(mostSpare, limit/spareOne)
	}
	return c
}

// bound is a listener whose clients leave room.
func (c *crowd) bound(l net.Listener) net.Listener {
	if c.most == 0 {
		return l
	}
	return bounded{l, c}
}

type bounded struct {
	net.Listener
	crowd *crowd
}

// Accept implements net.Listener. The system gives the lowest number that is
// free, so the number of a new connection says how many are taken.
func (b bounded) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil || number(conn) < b.crowd.most {
			return conn, err
		}
		b.crowd.refuse(conn)
	}
}

// Close implements net.Listener.
func (b bounded) Close() error {
	err := b.Listener.Close()
	b.crowd.parting.Wait()
	return err
}

// refuse hangs up, and says why to as many as there are places for.
func (c *crowd) refuse(conn net.Conn) {
	n := c.refused.Add(1)
	now := time.Now()
	if said := c.said.Load(); now.UnixMilli()-said > time.Minute.Milliseconds() && c.said.CompareAndSwap(said, now.UnixMilli()) {
		c.log.Warn("connections are refused: clients hold as many as the limit of descriptors allows; raise it (LimitNOFILE, ulimit -n)", "refused", n, "limit_for_clients", c.most)
	}
	select {
	case c.places <- struct{}{}:
	default:
		_ = conn.Close() // nobody is told
		return
	}
	c.parting.Go(func() {
		defer func() { <-c.places }()
		defer conn.Close()
		if c.tls {
			return // an answer would need a handshake
		}
		// A request that has come is read, or closing would take the answer with it.
		_ = conn.SetDeadline(now.Add(200 * time.Millisecond)) // a connection that broke needs no answer
		_, _ = conn.Read(make([]byte, 4<<10))                 // likewise
		_, _ = conn.Write(crowdedAnswer(now))                 // likewise
	})
}

func crowdedAnswer(now time.Time) []byte {
	f := fault.RateLimited.New("The server holds as many connections as it can; try again in a second")
	return lastAnswer(f, now, "Retry-After: 1\r\nRateLimit-Reset: 1\r\nRateLimit-Remaining: 0\r\n")
}

var refusedConnections = prometheus.NewDesc("parley_connections_refused_total", "Connections refused to leave descriptors for everything else.", nil, nil)

// Describe implements prometheus.Collector.
func (c *crowd) Describe(ch chan<- *prometheus.Desc) { ch <- refusedConnections }

// Collect implements prometheus.Collector.
func (c *crowd) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(refusedConnections, prometheus.CounterValue, float64(c.refused.Load()))
}
