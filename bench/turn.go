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
type turn struct {
	p       *parley
	replier *replier
	guests  []guest
}

var turns = []int{1, 32}

func (s *turn) prepare(ctx context.Context, b *bench) (err error) {
	if s.p, err = b.shared(ctx); err != nil {
		return err
	}
	if s.replier, err = newReplier(b); err != nil {
		return err
	}
	if s.replier.self, err = s.p.newBot(ctx, s.replier.address); err != nil {
		return err
	}
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
	conns, closeAll, err := pool(s.p.addr, n)
	if err != nil {
		return sample{}, err
	}
	streams := make([]*conn, n)
	says := make([][]byte, n)
	for i, g := range s.guests[:n] {
		if streams[i], err = self.listen(g); err != nil {
			return sample{}, errors.Join(err, closeAll())
		}
		says[i] = self.say(g, spoken)
	}
	got, err := closedLoop(ctx, n, b.step, func(w, _ int) error {
		if _, err := conns[w].expect(http.StatusCreated, says[w]); err != nil {
			return err
		}
		for {
			signal, err := streams[w].data()
			if err != nil {
				return fmt.Errorf("stream: %w", err)
			}
			if isBot(signal) {
				return nil
			}
		}
	})
	errs := []error{err, closeAll()}
	for _, c := range streams {
		errs = append(errs, c.close())
	}
	return got, errors.Join(errs...)
}

// isBot is how a signal tells that the bot wrote the message.
func isBot(signal []byte) bool { return bytes.Contains(signal, []byte(`"isBot":true`)) }

func (s *turn) finish(context.Context, *bench) error { return nil }
