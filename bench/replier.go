package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// replier is a bot in Go: it answers each message with one through the Runtime
// API before it acknowledges the event, as a bot on the official SDK does.
type replier struct {
	self     *bot
	address  string
	silent   bool // it takes events and says nothing
	answered atomic.Int64
	to       []string // servers that take its replies in turn; empty = that of self
	turn     atomic.Int64
	idle     chan *conn // connections for its replies
}

func newReplier(b *bench) (*replier, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &replier{address: "http://" + l.Addr().String(), idle: make(chan *conn, 256)}
	server := &http.Server{Handler: http.HandlerFunc(r.serve)}
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(l) }) // it ends by Close
	b.later(func() error {
		err := server.Close()
		running.Wait()
		return err
	})
	return r, nil
}

func (r *replier) serve(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err == nil && request.Header.Get("X-Bp-Type") == "message_created" {
		if r.silent {
			r.answered.Add(1)
		} else {
			err = r.reply(body)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{}") // the server that is gone does not read it
}

func (r *replier) reply(event []byte) error {
	const member = `"conversationId":"`
	i := bytes.Index(event, []byte(member))
	if i < 0 {
		return errors.New("event without conversation")
	}
	conversation, _, _ := bytes.Cut(event[i+len(member):], []byte(`"`))
	c, err := r.connection()
	if err != nil {
		return err
	}
	text := fmt.Sprintf(`{"userId":%q,"conversationId":%q,"type":"text","payload":{"text":"This is the answer to what you said."},"tags":{}}`, r.self.id, conversation)
	if _, err := c.expect(http.StatusCreated, format("POST", "/v1/chat/messages", r.self.p.addr, r.self.asBot(), text)); err != nil {
		return errors.Join(err, c.close())
	}
	r.answered.Add(1)
	select {
	case r.idle <- c:
		return nil
	default:
		return c.close()
	}
}

func (r *replier) connection() (*conn, error) {
	select {
	case c := <-r.idle:
		return c, nil
	default:
	}
	if len(r.to) == 0 {
		return dial(r.self.p.addr)
	}
	return dial(r.to[int(r.turn.Add(1))%len(r.to)])
}

// moveTo sends the replies to other servers from now on. None is under way.
func (r *replier) moveTo(nodes []*parley) {
	for {
		select {
		case c := <-r.idle:
			_ = c.close() // its server may be gone
		default:
			r.to = addresses(nodes)
			return
		}
	}
}

// newSilent makes a bot of p that takes events and says nothing.
func newSilent(ctx context.Context, b *bench, p *parley) (*replier, error) {
	r, err := newReplier(b)
	if err != nil {
		return nil, err
	}
	r.silent = true
	r.self, err = p.newBot(ctx, r.address)
	return r, err
}

// taken runs a step whose messages are picked one by one, until the bot has been told of all.
func (r *replier) taken(ctx context.Context, pick func(w, i int) []byte, step func(pick func(w, i int) []byte) (sample, error)) (sample, error) {
	var sent atomic.Int64
	before := r.answered.Load()
	s, err := step(func(w, i int) []byte {
		sent.Add(1)
		return pick(w, i)
	})
	return s, errors.Join(err, r.caughtUp(ctx, before+sent.Load()))
}

// caughtUp waits until n messages are answered.
func (r *replier) caughtUp(ctx context.Context, n int64) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for r.answered.Load() < n {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d messages answered: %w", r.answered.Load(), n, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}
