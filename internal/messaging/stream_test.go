package messaging

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/internal/api"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// streaming is a conversation of chatA's whose signals a test waits for.
type streaming struct {
	*rig
	conv  string
	heard chan *Signal
}

func newStreaming(rigs ...*rig) *streaming {
	r := rigs[0]
	s := &streaming{r, "", make(chan *Signal, 10_000)}
	for _, one := range rigs {
		one.s.Listeners = func(g *Signal) { s.heard <- g }
	}
	s.conv = r.conversation(chatOfA, "channel", `{}`)
	return s
}

// waitsForEver stops the clock, so that nobody runs out of patience with a
// delta that is missing.
func waitsForEver(rigs ...*rig) {
	now := time.Now()
	for _, r := range rigs {
		r.s.Now = func() time.Time { return now }
	}
}

func piece(stream string, sequence int64, text string) Delta {
	return Delta{StreamID: stream, Sequence: sequence, Text: text, CreatedAt: 1_700_000_000_123}
}

func (s *streaming) adds(pieces ...Delta) {
	s.Helper()
	for _, d := range pieces {
		if err := s.s.AddDelta(s.Context(), s.caller(chatOfA), s.conv, d); err != nil {
			s.Fatalf("delta %d of %s: %v", d.Sequence, d.StreamID, err)
		}
	}
}

func (s *streaming) aborts(stream string) {
	s.Helper()
	s.write(func(tx *sqldb.Tx) error { return s.s.AbortStream(tx, s.caller(chatOfA), s.conv, stream) })
}

// completes is the message of the bot that ends a stream.
func (s *streaming) completes(stream, text string) string {
	s.Helper()
	body := fmt.Sprintf(`{"conversationId":%q,"userId":%q,"type":"text","tags":{},"payload":{"text":%q,"metadata":{"streamId":%q}}}`, s.conv, botA, text, stream)
	return s.ok(botOfA, "POST", "/v1/chat/messages", body, "message")["id"].(string)
}

// next is the next signal that listeners are told of.
func (s *streaming) next() *Signal {
	s.Helper()
	select {
	case g := <-s.heard:
		return g
	case <-time.After(patience):
		s.Fatal("no signal")
		return nil
	}
}

func (s *streaming) data(g *Signal) StreamData {
	s.Helper()
	d, err := g.StreamData()
	if err != nil {
		s.Fatal(err)
	}
	return d
}

// hears takes signals until the deltas of a stream make up the text, and
// returns them. Their sequences and positions leave nothing out.
func (s *streaming) hears(stream, text string) (all []*Signal) {
	s.Helper()
	got, last := "", int64(-1)
	for got != text {
		g := s.next()
		d := s.data(g)
		if g.Type != MessageStreamDelta || d.StreamID != stream || !strings.HasPrefix(text, got+d.Delta) || d.UserID != botA {
			s.Fatalf("after %q came %s %+v", got, g.Type, d)
		}
		if last >= 0 && d.Sequence != last+1 {
			s.Errorf("sequence %d after %d", d.Sequence, last)
		}
		got, last = got+d.Delta, d.Sequence
		all = append(all, g)
	}
	return all
}

// replays reads the log as a listener does that was away since a position.
func (s *streaming) replays(after int64, limit int) (all []string) {
	s.Helper()
	for {
		some, upTo, err := s.s.Signals(s.s.DB.Reader(s.Context()), s.conv, after, limit)
		if err != nil {
			s.Fatal(err)
		}
		for _, g := range some {
			line := fmt.Sprintf("%d %s", g.Pos, g.Type)
			if g.Message != nil {
				line += " " + g.Message.ID
			}
			all = append(all, line)
		}
		if upTo <= after {
			return all
		}
		after = upTo
	}
}

func TestDeltasAreGatheredIntoFewSignals(t *testing.T) {
	each(t, func(r *rig) {
		s := newStreaming(r)
		var want strings.Builder
		start := r.s.now()
		for n := range 200 {
			text := fmt.Sprintf("tökén %d ", n)
			d := piece("s1", int64(n), text)
			if n == 0 {
				d.ClientMessageID = "mine"
			}
			s.adds(d)
			want.WriteString(text)
		}
		all := s.hears("s1", want.String())
		if took := r.s.now() - start; int64(len(all)) > took/streamInterval.Milliseconds()+1 {
			r.Errorf("200 deltas made %d signals in %d ms", len(all), took)
		}
		first := s.data(all[0])
		if first.Sequence != 0 || first.CreatedAt != 1_700_000_000_123 || first.ClientMessageID != "mine" {
			r.Errorf("the first signal says %+v", first)
		}
		for i, g := range all {
			if g.Pos != int64(i+1) {
				r.Errorf("signal %d has the position %d", i, g.Pos)
			}
		}
		// While the message is being written, who comes back hears all of it.
		if got := s.replays(0, 7); len(got) != len(all) {
			r.Errorf("the log has %d signals, %d were told", len(got), len(all))
		}
	})
}

func TestDeltasComeInOrderAndOnce(t *testing.T) {
	each(t, func(r *rig) {
		waitsForEver(r)
		s := newStreaming(r)
		s.adds(piece("s1", 0, "a"), piece("s1", 0, "A"))
		s.hears("s1", "a")
		s.adds(piece("s1", 2, "c"), piece("s1", 1, "b"), piece("s1", 2, "C"), piece("s1", 3, ""), piece("s1", 4, "e"))
		s.hears("s1", "bce")
		s.adds(piece("s1", 1, "late"), piece("s1", 5, "f"))
		s.hears("s1", "f")
	})
}

func TestAMissingDeltaIsWaitedForAMoment(t *testing.T) {
	each(t, func(r *rig) {
		s := newStreaming(r)
		s.adds(piece("s1", 0, "a"))
		s.hears("s1", "a")
		at := r.s.now()
		s.adds(piece("s1", 3, "d"), piece("s1", 4, "e"))
		s.hears("s1", "de")
		if waited := r.s.now() - at; waited < streamPatience.Milliseconds() {
			r.Errorf("what is missing was waited for %d ms", waited)
		}
		s.adds(piece("s1", 2, "too late"), piece("s1", 5, "f"))
		s.hears("s1", "f")
		// A bot that counts from another number is not kept waiting for long.
		s.adds(piece("s2", 1, "x"), piece("s2", 2, "y"))
		if d := s.data(s.hears("s2", "xy")[0]); d.Sequence != 1 {
			r.Errorf("the first sequence is %d", d.Sequence)
		}
	})
}

func TestAMessageEndsItsStream(t *testing.T) {
	each(t, func(r *rig) {
		s := newStreaming(r)
		s.adds(piece("s1", 0, "wh"), piece("other", 0, "still "))
		var told []*Signal
		for range 2 {
			told = append(told, s.next())
		}
		s.adds(piece("s1", 1, "ole"))
		told = append(told, s.next())
		message := s.completes("s1", "whole")
		complete, created := s.next(), s.next()
		if complete.Type != MessageStreamComplete || s.data(complete).StreamID != "s1" || complete.Message.ID != message {
			r.Errorf("got %s %s", complete.Type, complete.Data)
		}
		if created.Type != MessageCreated || created.Message.ID != message || created.Pos != complete.Pos+1 || complete.Pos != told[2].Pos+1 {
			r.Errorf("got %s at %d after %d", created.Type, created.Pos, complete.Pos)
		}
		s.adds(piece("s1", 2, "!"), piece("other", 1, "going"))
		if d := s.data(s.next()); d.StreamID != "other" || d.Delta != "going" {
			r.Errorf("after the end came %+v", d)
		}
		var open []string
		for _, g := range told {
			if s.data(g).StreamID == "other" {
				open = append(open, fmt.Sprintf("%d %s", g.Pos, g.Type))
			}
		}
		want := append(open, fmt.Sprintf("%d %s %s", complete.Pos, MessageStreamComplete, message), fmt.Sprintf("%d %s %s", created.Pos, MessageCreated, message),
			fmt.Sprintf("%d %s", created.Pos+1, MessageStreamDelta))
		for _, limit := range []int{1, 2, 100} {
			if diff := cmp.Diff(want, s.replays(0, limit)); diff != "" {
				r.Errorf("%d at a time: %s", limit, diff)
			}
		}
		if diff := cmp.Diff(want[len(want)-2:], s.replays(complete.Pos, 1)); diff != "" {
			r.Errorf("from the middle: %s", diff)
		}
		// What was left out is removed in time; what a listener gets stays the same.
		r.sweep()
		if n := r.count("SELECT count(*) FROM signals WHERE conversation_id = $1 AND stream = 's1'", s.conv); n != 0 {
			r.Errorf("%d deltas stayed", n)
		}
		if diff := cmp.Diff(want, s.replays(0, 3)); diff != "" {
			r.Errorf("after the sweep: %s", diff)
		}
		r.ok(botOfA, "DELETE", "/v1/chat/messages/"+message, "{}", "")
		if diff := cmp.Diff(append(want[:1:1], want[3], fmt.Sprintf("%d %s", created.Pos+2, MessageDeleted)), s.replays(0, 2)); diff != "" {
			r.Errorf("without the message: %s", diff)
		}
	})
}

func TestStreamsThatNoDeltaOpened(t *testing.T) {
	each(t, func(r *rig) {
		s := newStreaming(r)
		message := s.completes("s1", "at once")
		if g := s.next(); g.Type != MessageStreamComplete || g.Pos != 1 {
			r.Errorf("got %s at %d", g.Type, g.Pos)
		}
		s.next()
		// An end may overtake the beginning: what follows is let pass.
		s.aborts("s2")
		if g := s.next(); g.Type != MessageStreamAbort || s.data(g).StreamID != "s2" {
			r.Errorf("got %s %s", g.Type, g.Data)
		}
		s.adds(piece("s1", 0, "a"), piece("s2", 0, "b"))
		s.aborts("s2")
		s.aborts("s1")
		if diff := cmp.Diff([]string{"1 message_stream_complete " + message, "2 message_created " + message, "3 message_stream_abort"}, s.replays(0, 10)); diff != "" {
			r.Error(diff)
		}
		// Only a text can name a stream, and only the bot ends one.
		user := r.user(chatOfA, `{"fid":"u"}`)
		for who, author := range map[as]string{botOfA: botA, chatOfA: user} {
			for _, metadata := range []string{`{"streamId":5}`, `{"streamId":""}`, `{"streamId":null}`, `{}`, `"streamId"`, `{"streamId":"` + strings.Repeat("s", 201) + `"}`} {
				r.ok(who, "POST", "/v1/chat/messages", fmt.Sprintf(`{"conversationId":%q,"userId":%q,"type":"text","tags":{},"payload":{"text":"x","metadata":%s}}`, s.conv, author, metadata), "message")
			}
		}
		r.ok(chatOfA, "POST", "/v1/chat/messages", fmt.Sprintf(`{"conversationId":%q,"userId":%q,"type":"text","tags":{},"payload":{"text":"x","metadata":{"streamId":"s3"}}}`, s.conv, user), "message")
		for _, line := range s.replays(3, 100) {
			if !strings.Contains(line, MessageCreated) && !strings.Contains(line, ParticipantAdded) {
				r.Errorf("the log has %s", line)
			}
		}
	})
}

func TestAnAbortedStreamIsFolded(t *testing.T) {
	each(t, func(r *rig) {
		s := newStreaming(r)
		s.adds(piece("s1", 0, "never finished"))
		delta := s.next()
		s.aborts("s1")
		abort := s.next()
		if abort.Type != MessageStreamAbort || abort.Pos != delta.Pos+1 || s.data(abort).StreamID != "s1" {
			r.Errorf("got %s %s", abort.Type, abort.Data)
		}
		s.adds(piece("s1", 1, "more"))
		s.aborts("s1")
		if diff := cmp.Diff([]string{fmt.Sprintf("%d %s", abort.Pos, MessageStreamAbort)}, s.replays(0, 10)); diff != "" {
			r.Error(diff)
		}
		r.sweep()
		if n := r.count("SELECT count(*) FROM signals WHERE conversation_id = $1", s.conv); n != 1 {
			r.Errorf("%d signals stayed, want the abort", n)
		}
	})
}

func TestStreamsAreBounded(t *testing.T) {
	each(t, func(r *rig) {
		s := newStreaming(r)
		add := func(who as, conv string, d Delta) error { return r.s.AddDelta(r.Context(), r.caller(who), conv, d) }
		other := r.conversation(hookOfA, "hook", `{}`)
		long := strings.Repeat("x", maxDelta)
		for name, c := range map[string]struct {
			who  as
			conv string
			d    Delta
			kind *fault.Kind
			says string
		}{
			"no stream":                      {chatOfA, s.conv, piece("", 0, "x"), fault.InvalidPayload, "streamId"},
			"a long stream":                  {chatOfA, s.conv, piece(strings.Repeat("s", 201), 0, "x"), fault.InvalidPayload, "streamId"},
			"a sequence below 0":             {chatOfA, s.conv, piece("s", -1, "x"), fault.InvalidPayload, "sequence"},
			"a long delta":                   {chatOfA, s.conv, piece("s", 0, long+"x"), fault.PayloadTooLarge, "delta has 32769 bytes"},
			"a long client id":               {chatOfA, s.conv, Delta{StreamID: "s", ClientMessageID: long}, fault.InvalidPayload, "clientMessageId"},
			"an unknown conversation":        {chatOfA, id.New("conv"), piece("s", 0, "x"), fault.ReferenceNotFound, "Conversation"},
			"another installation's":         {chatOfA, other, piece("s", 0, "x"), fault.ReferenceNotFound, "Conversation"},
			"another bot's":                  {chatOfB, s.conv, piece("s", 0, "x"), fault.ReferenceNotFound, "Conversation"},
			"another installation's, by one": {hookOfA, s.conv, piece("s", 0, "x"), fault.ReferenceNotFound, "Conversation"},
		} {
			if err := add(c.who, c.conv, c.d); !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
				r.Errorf("%s: %v", name, err)
			}
		}
		for _, who := range []as{chatOfB, hookOfA} {
			err := r.s.DB.Write(r.Context(), func(tx *sqldb.Tx) error { return r.s.AbortStream(tx, r.caller(who), s.conv, "s") })
			if !fault.Is(err, fault.ReferenceNotFound) {
				r.Errorf("an abort by %v: %v", who, err)
			}
		}
		for n := range maxStreams {
			s.adds(piece(fmt.Sprint("s", n), 0, "x"))
			s.next()
		}
		if err := add(chatOfA, s.conv, piece("one more", 0, "x")); !fault.Is(err, fault.LimitExceeded) || !strings.Contains(err.Error(), "streamId") {
			r.Errorf("a stream too many: %v", err)
		}
		s.adds(piece("s3", 1, "y"))
		s.next()
		s.aborts("s3")
		s.next()
		s.adds(piece("one more", 0, "x"))
		s.next()
		// A message cannot become longer than a message may be.
		for n := int64(1); n <= 3; n++ {
			s.adds(piece("s1", n, long))
			if g := s.next(); s.data(g).StreamID != "s1" {
				r.Fatalf("got %s", g.Data)
			}
		}
		if err := add(chatOfA, s.conv, piece("s1", 4, long)); !fault.Is(err, fault.PayloadTooLarge) {
			r.Errorf("a message too long: %v", err)
		}
	})
}

func TestSilentStreamsAreAborted(t *testing.T) {
	each(t, func(r *rig) {
		s := newStreaming(r)
		clock := struct {
			sync.Mutex
			at time.Time
		}{at: time.Now()}
		r.s.Now = func() time.Time {
			clock.Lock()
			defer clock.Unlock()
			return clock.at
		}
		step := func(d time.Duration) {
			clock.Lock()
			defer clock.Unlock()
			clock.at = clock.at.Add(d)
		}
		s.adds(piece("s1", 0, "hm"))
		s.next()
		gone := r.conversation(chatOfA, "channel", `{}`)
		if err := r.s.AddDelta(r.Context(), r.caller(chatOfA), gone, piece("s1", 0, "x")); err != nil {
			r.Fatal(err)
		}
		s.next()
		r.write(func(tx *sqldb.Tx) error {
			_, err := tx.Exec("DELETE FROM conversation_heads WHERE conversation_id = $1", gone)
			return err
		})
		step(streamIdle)
		r.sweep()
		if n := r.count("SELECT count(*) FROM streams WHERE state = 'open'"); n != 2 {
			r.Errorf("%d streams are open in their time, want 2", n)
		}
		step(time.Second)
		r.sweep()
		if g := s.next(); g.Type != MessageStreamAbort || g.ConversationID != s.conv {
			r.Errorf("got %s %s", g.Type, g.Data)
		}
		if n := r.count("SELECT count(*) FROM streams WHERE state = 'folded'"); n != 1 {
			r.Errorf("%d streams are folded, want 1", n)
		}
		step(signalsKept + time.Second)
		r.sweep()
		for _, table := range []string{"streams", "deltas", "signals"} {
			if n := r.count("SELECT count(*) FROM " + table); n != 0 {
				r.Errorf("%d rows of %s stayed", n, table)
			}
		}
	})
}

func TestStreamsGoWithTheirConversation(t *testing.T) {
	each(t, func(r *rig) {
		s := newStreaming(r)
		s.adds(piece("s1", 0, "a"))
		s.next()
		s.adds(piece("s1", 5, "waits"))
		s.completes("s2", "x")
		r.ok(botOfA, "DELETE", "/v1/chat/conversations/"+s.conv, "{}", "")
		if err := r.s.AddDelta(r.Context(), r.caller(chatOfA), s.conv, piece("s1", 1, "b")); !fault.Is(err, fault.ReferenceNotFound) {
			r.Errorf("a delta after the end: %v", err)
		}
		r.sweep()
		for _, table := range []string{"streams", "signals"} {
			if n := r.count("SELECT count(*) FROM "+table+" WHERE conversation_id = $1", s.conv); n != 0 {
				r.Errorf("%d rows of %s stayed", n, table)
			}
		}
	})
}

// The deltas of one stream come to two nodes in any order, some of them twice.
func TestAStreamOverTwoNodes(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
		rigs := []*rig{newRig(t, a), newRig(t, b)}
		waitsForEver(rigs...)
		s := newStreaming(rigs...)
		const deltas = 120
		var want strings.Builder
		for n := range deltas {
			fmt.Fprintf(&want, "%d ", n)
		}
		s.adds(piece("s1", 0, "0 "))
		order := rand.Perm(deltas)
		var wg sync.WaitGroup
		for i, r := range rigs {
			wg.Go(func() {
				for at, n := range order {
					if at%5 == 0 || n%2 == i {
						if err := r.s.AddDelta(t.Context(), r.caller(chatOfA), s.conv, piece("s1", int64(n), fmt.Sprintf("%d ", n))); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		wg.Wait()
		// What two nodes tell may come in another order than it was committed in.
		byPos := map[int64]string{}
		last := int64(0)
		for got := 0; got < want.Len(); {
			g := s.next()
			byPos[g.Pos] = s.data(g).Delta
			got += len(s.data(g).Delta)
			last = max(last, g.Pos)
		}
		var text strings.Builder
		for pos := int64(1); pos <= last; pos++ {
			text.WriteString(byPos[pos])
		}
		if diff := cmp.Diff(want.String(), text.String()); diff != "" {
			t.Error(diff)
		}
		message := s.completes("s1", want.String())
		if got := s.replays(0, 10); len(got) != 2 || got[1] != fmt.Sprintf("%d %s %s", last+2, MessageCreated, message) {
			t.Errorf("the log has %v", got)
		}
	})
}

func TestCompletesReadsTheStreamOfAMessage(t *testing.T) {
	bot := Caller{}
	for payload, want := range map[string]string{
		`{"text":"x","metadata":{"a":1,"streamId":"s\u0031"}}`: "s1",
		`{"text":"x","metadata":{"streamId":["s1"]}}`:          "",
		`{"text":"x","streamId":"s1"}`:                         "",
		`{"metadata":null}`:                                    "",
		`{}`:                                                   "",
	} {
		if got := bot.completes(api.Object(payload)); got != want {
			t.Errorf("%s ends %q, want %q", payload, got, want)
		}
	}
}
