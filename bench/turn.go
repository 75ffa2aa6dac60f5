package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
)

// turn measures the whole way: a message over the Chat API, its event at a bot
// over HTTP, the bot's reply over the Runtime API, the signal at the listener.
// Where there are several servers the guests write at one each, listen at the
// next, and the bot replies at any: nobody stays where he was.
type turn struct {
	nodes   []*parley // empty = the server that the scenarios share
	replier *replier
	guests  []guest
}

var turns = []int{1, 32}

func (s *turn) prepare(ctx context.Context, b *bench) (err error) {
	if len(s.nodes) == 0 {
		p, err := b.shared(ctx)
		if err != nil {
			return err
		}
		s.nodes = []*parley{p}
	}
	first := s.nodes[0]
	if s.replier, err = newReplier(b); err != nil {
		return err
	}
	if s.replier.self, err = first.newBot(ctx, s.replier.address); err != nil {
		return err
	}
	s.replier.moveTo(s.nodes)
	for range turns[len(turns)-1] {
		g, err := s.replier.self.guest(ctx)
		if err != nil {
			return err
		}
		s.guests = append(s.guests, g)
	}
	return nil
}

func (s *turn) round(ctx context.Context, b *bench) error {
	for _, n := range turns {
		got, err := s.measure(ctx, b, n)
		if err != nil {
			return err
		}
		b.results.add(name("turn", n), got)
	}
	return nil
}

func (s *turn) measure(ctx context.Context, b *bench, n int) (sample, error) {
	self := s.replier.self
	conns, closeAll, err := spread(addresses(s.nodes), n)
	if err != nil {
		return sample{}, err
	}
	streams := make([]*conn, n)
	says := make([][]byte, n)
	for i, g := range s.guests[:n] {
		if streams[i], err = self.through(s.nodes[(i+1)%len(s.nodes)]).listen(g); err != nil {
			return sample{}, errors.Join(err, closeAll())
		}
		says[i] = self.say(g, spoken)
	}
	got, err := closedLoop(ctx, n, b.step, func(w, _ int) error {
		if _, err := conns[w].expect(http.StatusCreated, says[w]); err != nil {
			return err
		}
		return streams[w].answer()
	})
	errs := []error{err, closeAll()}
	for _, c := range streams {
		errs = append(errs, c.close())
	}
	return got, errors.Join(errs...)
}

// addresses are where servers are reached.
func addresses(nodes []*parley) []string {
	addrs := make([]string, len(nodes))
	for i, p := range nodes {
		addrs[i] = p.addr
	}
	return addrs
}

// answer reads a stream up to the next message of the bot.
func (c *conn) answer() error {
	for {
		signal, err := c.data()
		if err != nil {
			return fmt.Errorf("stream: %w", err)
		}
		if isBot(signal) {
			return nil
		}
	}
}

// isBot is how a signal tells that the bot wrote the message.
func isBot(signal []byte) bool { return bytes.Contains(signal, []byte(`"isBot":true`)) }

func (s *turn) finish(context.Context, *bench) error { return nil }
