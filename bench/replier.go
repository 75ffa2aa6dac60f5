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
	answered atomic.Int64
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
		err = r.reply(body)
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
		return dial(r.self.p.addr)
	}
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
