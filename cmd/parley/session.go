package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// converse talks to a bot for as long as somebody has something to say.
func (p *program) converse(ctx context.Context, t *talk) error {
	if err := t.enter(ctx); err != nil {
		return err
	}
	// On a terminal Ctrl-C is a key like others; a signal must not leave it as it is.
	alive, release := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer release()
	screen, err := openScreen(p.in, p.out)
	switch {
	case err != nil:
		return err
	case screen == nil:
		release()
		return p.converseInLines(ctx, t)
	}
	s := &session{talk: t, screen: screen}
	return errors.Join(s.run(alive), screen.close())
}

// converseInLines says each line of the input, and the next one when the bot has
// handled it. What goes wrong with one is told and no reason not to go on; the
// status of the program is that of the first.
func (p *program) converseInLines(ctx context.Context, t *talk) error {
	var said, failed, status int
	lines := bufio.NewScanner(p.in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		text := strings.TrimSpace(lines.Text())
		if text == "" {
			continue
		}
		said++
		err := p.say(ctx, t, text)
		if e, ok := errors.AsType[*exitError](err); ok {
			fmt.Fprintf(p.err, "parley: %v\n", err)
			failed++
			status = cmp.Or(status, e.status)
		} else if err != nil && ctx.Err() == nil {
			return err
		}
	}
	if failed > 0 {
		return &exitError{status, fmt.Errorf("%d of %d lines were not answered", failed, said)}
	}
	return lines.Err()
}

func (p *program) say(ctx context.Context, t *talk, text string) error {
	ctx, cancel := t.limited(ctx)
	defer cancel()
	return p.exchange(ctx, t, text)
}

// session is a conversation on a terminal. What is said goes out as it is
// entered, and what comes is shown as it comes.
type session struct {
	*talk
	screen *screen
	now    *writing // what appears piece by piece, nil if nothing does

	mu   sync.Mutex  // of printed, too
	last chatMessage // the newest that was shown or sent
}

// writing is a message that its bot has not finished.
type writing struct {
	id    string
	next  int64 // least sequence that is news
	shown strings.Builder
}

func (s *session) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, s.screen.interrupt)()
	connected := make(chan struct{})
	g.Go(func() error { return s.follow(ctx, sync.OnceFunc(func() { close(connected) })) })
	g.Go(func() error {
		select {
		case <-connected:
		case <-ctx.Done():
			return nil
		}
		s.screen.print("Ctrl-D ends this conversation, " + s.conversationID + ".")
		return s.listenToKeys(ctx, g)
	})
	if err := g.Wait(); !errors.Is(err, errDone) {
		return err
	}
	return nil
}

// listenToKeys sends what is entered until that ends.
func (s *session) listenToKeys(ctx context.Context, g *errgroup.Group) error {
	for {
		text, err := s.screen.readLine()
		switch {
		case errors.Is(err, io.EOF):
			return errDone
		case err != nil:
			return err
		}
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		said, err := s.post(ctx, text)
		if err != nil {
			s.screen.print("* not sent: " + printable(err.Error()))
			continue
		}
		s.saw(said)
		if s.runtime != nil {
			g.Go(func() error { return s.watch(ctx, said.ID) })
		}
	}
}

// saw notes a message. It reports false for one that was noted before.
func (s *session) saw(m chatMessage) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.printed[m.ID] {
		return false
	}
	s.printed[m.ID] = true
	if m.CreatedAt > s.last.CreatedAt {
		s.last = m
	}
	return true
}

// watch tells if the bot fails with a message, or takes very long.
func (s *session) watch(ctx context.Context, messageID string) error {
	limit := time.After(s.timeout)
	for pause := statusEvery; ; pause = min(2*pause, time.Second) {
		select {
		case <-ctx.Done():
			return nil
		case <-limit:
			s.screen.print(fmt.Sprintf("* the bot has not finished within %s", s.timeout))
			return nil
		case <-time.After(pause):
		}
		done, err := s.handled(ctx, messageID)
		if failed, ok := errors.AsType[*exitError](err); ok {
			s.screen.print("* " + printable(failed.Error()))
		}
		if done {
			return nil
		}
	}
}

// How long to wait before a connection that broke is made anew.
const (
	shortPause = 250 * time.Millisecond
	longPause  = 5 * time.Second
)

// follow shows what comes. A connection that breaks is made anew and goes on
// where the one before ended; only the first one has to succeed.
func (s *session) follow(ctx context.Context, connected func()) error {
	position, first, broken := "", true, false
	for pause := shortPause; ; pause = min(2*pause, longPause) {
		stream, err := s.door.with("last-event-id", position).send(ctx, "GET", s.listenPath(), nil)
		if err == nil {
			if broken {
				s.screen.print("* connected again")
			}
			pause, first, broken = shortPause, false, false
			connected()
			position, err = s.hear(ctx, stream.Body, position)
			_ = stream.Body.Close() // it has ended
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case first || isFinal(err):
			return err
		case !broken:
			s.screen.print("* the connection broke; trying again")
			broken = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause/2 + rand.N(pause)):
		}
	}
}

// isFinal reports whether the server has said that there is nothing to listen
// to, as it will again.
func isFinal(err error) bool {
	e, ok := errors.AsType[*apiError](err)
	return ok && e.Status >= 400 && e.Status <= 499 && e.Status != http.StatusRequestTimeout && e.Status != http.StatusTooManyRequests
}

// hear shows the events of a stream and returns the position that it got to.
func (s *session) hear(ctx context.Context, stream io.Reader, position string) (string, error) {
	if position == "" { // nothing to go on from: what was missed is listed
		if err := s.catchUp(ctx); err != nil {
			return position, err
		}
	}
	err := readEvents(stream, func(id, data string) error {
		position = cmp.Or(id, position)
		return s.show(data)
	})
	return position, err
}

func (s *session) catchUp(ctx context.Context) error {
	s.mu.Lock()
	last := s.last
	s.mu.Unlock()
	if last.CreatedAt == "" {
		return nil
	}
	missed, err := s.since(ctx, last)
	for _, m := range missed {
		if err := s.arrived(m); err != nil {
			return err
		}
	}
	return err
}

// show shows what an event says.
func (s *session) show(data string) error {
	var signal struct {
		Type string `json:"type"`
		Data struct {
			chatMessage
			StreamID string      `json:"streamId"`
			Sequence int64       `json:"sequence"`
			Delta    string      `json:"delta"`
			Message  chatMessage `json:"message"`
		} `json:"data"`
	}
	if json.Unmarshal([]byte(data), &signal) != nil {
		return nil // a ping
	}
	switch d := &signal.Data; signal.Type {
	case "message_created":
		return s.arrived(d.chatMessage)
	case "message_stream_delta":
		if !s.json && d.UserID != s.userID {
			s.piece(d.StreamID, d.Sequence, printable(d.Delta))
		}
	case "message_stream_complete":
		d.Message.Metadata = map[string]any{"streamId": d.StreamID}
		return s.arrived(d.Message)
	case "message_stream_abort":
		if s.now != nil && s.now.id == d.StreamID {
			s.now = nil
			s.screen.end("")
			s.screen.print("* the bot stopped writing")
		}
	}
	return nil
}

// piece shows a piece of a message. One message at a time appears like that;
// others that are being written meanwhile come as a whole.
func (s *session) piece(streamID string, sequence int64, text string) {
	if s.now == nil {
		s.now = &writing{id: streamID}
	}
	if s.now.id != streamID || sequence < s.now.next {
		return
	}
	s.now.next = sequence + 1
	s.now.shown.WriteString(text)
	s.screen.stream(text)
}

// arrived shows a message, or what was not yet shown of it.
func (s *session) arrived(m chatMessage) error {
	news := s.saw(m) && m.UserID != s.userID
	if s.json {
		line, err := json.Marshal(m)
		if err == nil && news {
			s.screen.print(string(line))
		}
		return err
	}
	text := plainText(m.Payload)
	if w := s.now; w != nil && m.Metadata["streamId"] == w.id {
		s.now = nil
		rest, goesOn := strings.CutPrefix(text, w.shown.String())
		if !goesOn {
			rest = "" // pieces were missed: the whole follows
		}
		s.screen.end(rest)
		news = news && !goesOn
	}
	if news {
		s.screen.print(text)
	}
	return nil
}
