package main

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
)

const conversations = 256

var connections = []int{1, 16, 64}

// spoken is what every measured message says: with the rest about 170 bytes of body.
const spoken = "This is a message of an ordinary length."

// floors measures what the machine gives to the least that could do the work.
type floors struct{ tcp string }

func (f *floors) prepare(_ context.Context, b *bench) (err error) {
	f.tcp, err = startFloor(b, "tcp")
	return err
}

func (f *floors) round(ctx context.Context, b *bench) error {
	conns, closeAll, err := pool(f.tcp, 1)
	if err != nil {
		return err
	}
	defer closeAll()
	var buffer [64]byte
	s, err := closedLoop(ctx, 1, b.step, func(int, int) error {
		if _, err := conns[0].c.Write(buffer[:]); err != nil {
			return err
		}
		_, err := conns[0].r.Read(buffer[:])
		return err
	})
	if err != nil {
		return err
	}
	b.results.add("tcp", s)
	for _, n := range connections {
		for _, which := range []string{"echo", "commit"} {
			if err := b.measureFloor(ctx, which, n, name(which, n)); err != nil {
				return err
			}
		}
		for _, measure := range b.beside {
			if err := measure(ctx, n); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *floors) finish(context.Context, *bench) error { return nil }

// floor is a floor that takes messages, started when it is first asked for.
func (b *bench) floor(ctx context.Context, which string) (*floor, error) {
	if f := b.floors[which]; f != nil {
		return f, nil
	}
	var env []string
	if which == "insert" {
		database, err := b.database(ctx)
		if err != nil {
			return nil, err
		}
		env = append(env, databaseVariable+"="+database)
	}
	f, err := startChild(b, which, env...)
	if err != nil {
		return nil, err
	}
	if b.floors == nil {
		b.floors = map[string]*floor{}
	}
	b.floors[which] = f
	return f, nil
}

// measureFloor measures a floor that takes messages at n connections, for a series
// whose ratios are those of the same rounds.
func (b *bench) measureFloor(ctx context.Context, which string, n int, series string) error {
	f, err := b.floor(ctx, which)
	if err != nil {
		return err
	}
	w := watched{nodes: []int{f.pid}}
	if which == "insert" {
		w.database = b.pg.pid
	}
	s, err := metered(w, func() (sample, error) {
		return requests(ctx, f.addr, n, http.StatusCreated, b.step, rotate(formatAll(f.addr, floorBodies()), n))
	})
	if err != nil {
		return fmt.Errorf("floor %s: %w", which, err)
	}
	b.results.add(series, s)
	return nil
}

// name is that of a series at n connections, conversations or listeners.
func name(what string, n int) string { return fmt.Sprintf("%s/%d", what, n) }

func floorBodies() []string {
	bodies := make([]string, conversations)
	for i := range bodies {
		user, conversation := fmt.Sprintf("user_%026d", i), fmt.Sprintf("conv_%026d", i)
		bodies[i] = body(user, conversation)
	}
	return bodies
}

func body(user, conversation string) string {
	return fmt.Sprintf(`{"userId":%q,"conversationId":%q,"type":"text","payload":{"text":%q},"tags":{}}`, user, conversation, spoken)
}

func formatAll(addr string, bodies []string) [][]byte {
	all := make([][]byte, len(bodies))
	for i, text := range bodies {
		all[i] = format("POST", "/v1/chat/messages", addr, nil, text)
	}
	return all
}

// rotate lets each of n workers go through conversations of its own, so that they do not queue for one row.
func rotate(all [][]byte, n int) func(w, i int) []byte {
	return func(w, i int) []byte { return all[(w+i*n)%len(all)] }
}

// create measures durable messages over the Runtime API, sent as the chat
// integration with a personal token: once for a bot that is down, so that every
// event stays pending, and once for one that replies.
type create struct {
	p             *parley
	down, replies [][]byte
	replier       *replier
	sent          atomic.Int64 // to the bot that replies
}

func (s *create) prepare(ctx context.Context, b *bench) (err error) {
	if s.p, err = b.shared(ctx); err != nil {
		return err
	}
	absent, err := s.p.newBot(ctx, "http://127.0.0.1:1")
	if err != nil {
		return err
	}
	if s.down, err = messages(ctx, absent); err != nil {
		return err
	}
	if s.replier, err = newReplier(b); err != nil {
		return err
	}
	if s.replier.self, err = s.p.newBot(ctx, s.replier.address); err != nil {
		return err
	}
	b.beside = append(b.beside, func(ctx context.Context, n int) error { return s.measure(ctx, b, n) })
	s.replies, err = messages(ctx, s.replier.self)
	return err
}

// messages formats one request for each of 256 new conversations of bot.
func messages(ctx context.Context, to *bot) ([][]byte, error) {
	all := make([][]byte, conversations)
	for i := range all {
		user, conversation, err := to.room(ctx)
		if err != nil {
			return nil, err
		}
		all[i] = format("POST", "/v1/chat/messages", to.p.addr, to.asIntegration(), body(user, conversation))
	}
	return all, nil
}

// measure runs right beside the floors at n connections.
func (s *create) measure(ctx context.Context, b *bench, n int) error {
	got, err := requests(ctx, s.p.addr, n, http.StatusCreated, b.step, rotate(s.down, n))
	if err != nil {
		return err
	}
	b.results.add(name("create", n), got)
	pick := rotate(s.replies, n)
	got, err = requests(ctx, s.p.addr, n, http.StatusCreated, b.step, func(w, i int) []byte {
		s.sent.Add(1)
		return pick(w, i)
	})
	if err != nil {
		return err
	}
	b.results.add(name("create, replied", n), got)
	// What is still unanswered would be measured by the next step.
	return s.replier.caughtUp(ctx, s.sent.Load())
}

func (s *create) round(context.Context, *bench) error  { return nil }
func (s *create) finish(context.Context, *bench) error { return nil }
