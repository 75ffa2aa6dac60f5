package chatapi

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// heard is one signal as a listener got it.
type heard struct {
	pos  int64 // 0 over WebSocket, which has no positions
	data string
}

// stream is a listener's end of a stream. A goroutine reads it, so that a test
// can look at what has come without waiting for more.
type stream struct {
	testing.TB
	got  chan heard
	stop func()
	end  error // why it ended; read it after got is closed
}

// listens opens a stream of server-sent events.
func (p *person) listens(conversation, query string, headers ...string) *stream {
	p.Helper()
	ctx, stop := context.WithCancel(context.Background())
	req := must(http.NewRequestWithContext(ctx, "GET", p.url+"/"+p.at.webhook+"/conversations/"+segment(conversation)+"/listen"+query, nil))
	req.Header.Set("X-User-Key", p.key)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		stop()
		p.Fatal(err)
	}
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		text, _ := io.ReadAll(res.Body)
		stop()
		p.Fatalf("listening answered %d %v %s", res.StatusCode, res.Header, text)
	}
	lines := bufio.NewReader(res.Body)
	return p.follow(func() (heard, error) { return readEvent(lines) }, func() { stop(); res.Body.Close() })
}

// dials opens a stream over WebSocket, with the key in the query.
func (p *person) dials(conversation, query string) *stream {
	p.Helper()
	at := strings.Replace(p.url, "http", "ws", 1) + "/" + p.at.webhook + "/conversations/" + segment(conversation) + "/listen?x-user-key=" + url.QueryEscape(p.key) + query
	ctx, stop := context.WithCancel(context.Background())
	conn, _, err := websocket.Dial(ctx, at, nil)
	if err != nil {
		stop()
		p.Fatal(err)
	}
	return p.follow(func() (heard, error) {
		_, text, err := conn.Read(ctx)
		return heard{0, string(text)}, err
	}, func() { stop(); _ = conn.CloseNow() })
}

func (p *person) follow(read func() (heard, error), stop func()) *stream {
	s := &stream{TB: p.TB, got: make(chan heard, 10_000), stop: stop}
	go func() {
		defer close(s.got)
		for {
			h, err := read()
			if err != nil {
				s.end = err
				return
			}
			if h.data != "ping" {
				s.got <- h
			}
		}
	}()
	p.Cleanup(func() {
		s.stop()
		for range s.got { // until the reader has left
		}
	})
	return s
}

// readEvent reads one event; the error is io.EOF at a clean end between events.
func readEvent(r *bufio.Reader) (h heard, err error) {
	for begun := false; ; begun = true {
		line, err := r.ReadString('\n')
		if err != nil {
			if begun && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return h, err
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "":
			return h, nil
		case "id":
			if h.pos, err = strconv.ParseInt(value, 10, 64); err != nil {
				return h, err
			}
		case "data":
			h.data = value
		}
	}
}

// next is the next signal.
func (s *stream) next() heard {
	s.Helper()
	select {
	case h, ok := <-s.got:
		if !ok {
			s.Fatalf("the stream ended: %v", s.end)
		}
		return h
	case <-time.After(patience):
		s.Fatal("waited for a signal in vain")
		return heard{}
	}
}

// take is the next n signals.
func (s *stream) take(n int) (all []heard) {
	s.Helper()
	for range n {
		all = append(all, s.next())
	}
	return all
}

// ends waits for the clean end of the stream and returns what came before it.
func (s *stream) ends() (rest []heard) {
	s.Helper()
	timeout := time.After(patience)
	for {
		select {
		case h, ok := <-s.got:
			if ok {
				rest = append(rest, h)
				continue
			}
			if !errors.Is(s.end, io.EOF) && websocket.CloseStatus(s.end) != websocket.StatusNormalClosure {
				s.Errorf("the stream ended with %v", s.end)
			}
			return rest
		case <-timeout:
			s.Fatal("the stream does not end")
		}
	}
}
