package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// fanout measures how fast one conversation's signals reach many listeners,
// beside a hub that does nothing else. A few messages are always under way: the
// next is published when the oldest has reached everybody.
type fanout struct {
	hub    string
	p      *parley
	talker *bot
	frame  string // what the hub sends: the product's own signal
}

var audiences = []int{100, 1000}

const (
	underWay = 4
	ticket   = "ticket-"
	digits   = 9
)

func (s *fanout) prepare(ctx context.Context, b *bench) (err error) {
	if s.hub, err = startFloor(b, "hub"); err != nil {
		return err
	}
	if s.p, err = b.shared(ctx); err != nil {
		return err
	}
	if s.talker, err = s.p.newBot(ctx, "http://127.0.0.1:1"); err != nil {
		return err
	}
	s.frame, err = s.sample(ctx)
	return err
}

// sample reads one signal of the product, so that the hub's frames are as long.
func (s *fanout) sample(ctx context.Context) (string, error) {
	g, err := s.talker.guest(ctx)
	if err != nil {
		return "", err
	}
	stream, err := s.talker.listen(g)
	if err != nil {
		return "", err
	}
	c, err := dial(s.p.addr)
	if err != nil {
		return "", errors.Join(err, stream.close())
	}
	_, err = c.expect(http.StatusCreated, s.talker.say(g, numbered(0)))
	if err != nil {
		return "", err
	}
	signal, err := stream.data()
	return string(signal), errors.Join(err, c.close(), stream.close())
}

func numbered(n int) string { return fmt.Sprintf("%s%0*d %s", ticket, digits, n, spoken) }

func (s *fanout) round(ctx context.Context, b *bench) error {
	for _, n := range audiences {
		bare, err := s.overHub(ctx, b, n)
		if err != nil {
			return fmt.Errorf("hub: %w", err)
		}
		b.results.add(name("hub", n), bare)
		product, err := s.overParley(ctx, b, n)
		if err != nil {
			return fmt.Errorf("parley: %w", err)
		}
		b.results.add(name("fan-out", n), product)
	}
	return nil
}

func (s *fanout) overHub(ctx context.Context, b *bench, n int) (sample, error) {
	request := format("GET", "/listen", s.hub, nil, "")
	open := func() (*conn, error) {
		c, err := dial(s.hub)
		if err != nil {
			return nil, err
		}
		return c, c.open(request)
	}
	say := func(i int) []byte {
		return format("POST", "/publish", s.hub, nil, string(bytes.Replace([]byte(s.frame), []byte(numbered(0)), []byte(numbered(i)), 1)))
	}
	return deliveries(ctx, s.hub, n, b.step, open, say)
}

func (s *fanout) overParley(ctx context.Context, b *bench, n int) (sample, error) {
	g, err := s.talker.guest(ctx)
	if err != nil {
		return sample{}, err
	}
	open := func() (*conn, error) { return s.talker.listen(g) }
	return deliveries(ctx, s.p.addr, n, b.step, open, func(i int) []byte { return s.talker.say(g, numbered(i)) })
}

func (s *fanout) finish(context.Context, *bench) error { return nil }

// audience counts what its listeners hear.
type audience struct {
	streams []*conn
	step    time.Duration
	sent    []atomic.Int64 // nanoseconds since begin at which message i was sent
	heard   []atomic.Int32 // listeners that heard message i
	through chan int       // messages that reached everybody
	begin   time.Time
	counted atomic.Int64
	took    [][]time.Duration // by listener, of the measured part
}

const most = 1 << 17 // messages in a step

func deliveries(ctx context.Context, addr string, n int, step time.Duration, open func() (*conn, error), say func(i int) []byte) (sample, error) {
	a := &audience{step: step, sent: make([]atomic.Int64, most), heard: make([]atomic.Int32, most), through: make(chan int, most), took: make([][]time.Duration, n)}
	for range n {
		c, err := open()
		if err != nil {
			return sample{}, errors.Join(err, a.close())
		}
		a.streams = append(a.streams, c)
	}
	a.begin = time.Now()
	var listening sync.WaitGroup
	for w := range a.streams {
		listening.Go(func() { a.listen(w) })
	}
	err := a.publish(ctx, addr, say)
	err = errors.Join(err, a.close())
	listening.Wait()
	s := summarise(slices.Concat(a.took...), step)
	s.rate = float64(a.counted.Load()) / step.Seconds()
	return s, err
}

func (a *audience) close() error {
	var errs []error
	for _, c := range a.streams {
		errs = append(errs, c.close())
	}
	return errors.Join(errs...)
}

func (a *audience) publish(ctx context.Context, addr string, say func(i int) []byte) error {
	c, err := dial(addr)
	if err != nil {
		return err
	}
	end := a.begin.Add(warm(a.step) + a.step)
	sent := 0
	for ; time.Now().Before(end) && sent < most && ctx.Err() == nil; sent++ {
		if sent >= underWay {
			if err := a.wait(ctx, 1); err != nil {
				return errors.Join(err, c.close())
			}
		}
		a.sent[sent].Store(int64(time.Since(a.begin)))
		if _, err := c.expect(http.StatusCreated, say(sent)); err != nil {
			return errors.Join(err, c.close())
		}
	}
	return errors.Join(a.wait(ctx, min(sent, underWay)), c.close())
}

// wait returns when n more messages have reached everybody.
func (a *audience) wait(ctx context.Context, n int) error {
	late := time.NewTimer(20 * time.Second)
	defer late.Stop()
	for range n {
		select {
		case <-a.through:
		case <-late.C:
			return errors.New("a message did not reach every listener within 20 s")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// listen reads the w-th stream until it is closed.
func (a *audience) listen(w int) {
	from := warm(a.step)
	for {
		signal, err := a.streams[w].data()
		if err != nil {
			return
		}
		at := bytes.Index(signal, []byte(ticket))
		if at < 0 || len(signal) < at+len(ticket)+digits {
			continue // a ping
		}
		i, err := strconv.Atoi(string(signal[at+len(ticket) : at+len(ticket)+digits]))
		if err != nil || i >= most {
			continue
		}
		now := time.Since(a.begin)
		if now > from && now <= from+a.step {
			a.counted.Add(1)
			a.took[w] = append(a.took[w], now-time.Duration(a.sent[i].Load()))
		}
		if int(a.heard[i].Add(1)) == len(a.streams) {
			a.through <- i
		}
	}
}
