package messaging

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"parley/internal/api"
	"parley/internal/fault"
	"parley/internal/sqldb"
)

// AddDelta adds a piece to a message that the bot writes in a conversation. The
// first one opens the stream.
func (s *Service) AddDelta(ctx context.Context, c Caller, conversationID string, d Delta) error {
	if err := d.check(); err != nil {
		return err
	}
	if v, err := s.cachedConversation(ctx, c, conversationID); err != nil || v == nil {
		return firstOf(err, c.dangling("Conversation", conversationID))
	}
	q := s.DB.Reader(ctx)
	v, err := sqldb.One[stream](q, "streams", "WHERE conversation_id = $1 AND id = $2", conversationID, d.StreamID)
	switch {
	case errors.Is(err, sqldb.ErrNoRow):
		if err := checkStreams(q, conversationID); err != nil {
			return err
		}
		return s.openStream(ctx, c, conversationID, d)
	case err != nil:
		return err
	case v.State != streamOpen || d.Sequence < v.Next:
		return nil
	case v.Bytes+int64(len(d.Text)) > MaxPayload:
		return fault.PayloadTooLarge.New("delta would make the message longer than %d bytes, which no message may have", MaxPayload)
	}
	key := streamKey{conversationID, d.StreamID}
	s.DB.WriteSoon(func(tx *sqldb.Tx) error { return s.insertDelta(tx, key, d) }, func(err error) {
		if err != nil {
			s.Log.Warn("write a delta", "conversation", conversationID, "err", err)
			return
		}
		s.stirStream(c, key)
	})
	return nil
}

// checkStreams refuses a further stream where too many are open.
func checkStreams(q sqldb.Q, conversationID string) error {
	n, err := sqldb.Scalar[int64](q, "SELECT count(*) FROM streams WHERE conversation_id = $1 AND state = 'open'", conversationID)
	if err == nil && n >= maxStreams {
		err = fault.LimitExceeded.New("streamId would open the %dth stream of conversation %q, the limit is %d; end one with its message or an abort", n+1, conversationID, maxStreams)
	}
	return err
}

func (s *Service) openStream(ctx context.Context, c Caller, conversationID string, d Delta) error {
	key := streamKey{conversationID, d.StreamID}
	return s.DB.Write(ctx, func(tx *sqldb.Tx) error {
		if _, err := s.lock(tx, c, conversationID, 0); err != nil {
			return orDangling(err, c, conversationID)
		}
		if err := checkStreams(tx, conversationID); err != nil {
			return err
		}
		v := &stream{ConversationID: conversationID, ID: d.StreamID, BotID: c.Bot.ID, State: streamOpen, Sent: -1, UpdatedAt: s.now()}
		if _, err := sqldb.Insert(tx, "streams", v); err != nil {
			return err
		}
		tx.AfterCommit(func() { s.stirStream(c, key) })
		return s.insertDelta(tx, key, d)
	})
}

func orDangling(err error, c Caller, conversationID string) error {
	if fault.Is(err, fault.ResourceNotFound) {
		return c.dangling("Conversation", conversationID)
	}
	return err
}

// insertDelta keeps a delta of an open stream until it is signalled.
func (s *Service) insertDelta(tx *sqldb.Tx, key streamKey, d Delta) error {
	state, err := sqldb.Scalar[string](tx, "SELECT state FROM streams WHERE conversation_id = $1 AND id = $2", key.conversationID, key.id)
	if errors.Is(err, sqldb.ErrNoRow) || err == nil && state != streamOpen {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = sqldb.Insert(tx, "deltas", &delta{
		ConversationID: key.conversationID, StreamID: key.id, Sequence: d.Sequence, Text: d.Text, ClientMessageID: d.ClientMessageID,
		CreatedAt: int64(d.CreatedAt), ArrivedAt: s.now(),
	})
	return err
}

// streamKey names a stream.
type streamKey struct{ conversationID, id string }

// streams are the streams that this node signals now or has signalled in the
// last interval.
type streams struct {
	mu     sync.Mutex
	m      map[streamKey]*pace
	closed bool
}

// pace is the rhythm of one stream.
type pace struct{ dirty bool } // whether deltas have arrived since the last signal

// stirStream signals what has arrived for a stream: at once, or an interval
// after the signal before.
func (s *Service) stirStream(c Caller, key streamKey) {
	s.streams.mu.Lock()
	defer s.streams.mu.Unlock()
	if p := s.streams.m[key]; p != nil {
		p.dirty = true
		return
	}
	if s.streams.closed {
		return
	}
	if s.streams.m == nil {
		s.streams.m = map[streamKey]*pace{}
	}
	s.streams.m[key] = &pace{}
	time.AfterFunc(0, func() { s.flushStream(c, key) })
}

func (s *Service) flushStream(c Caller, key streamKey) {
	more, pause := false, streamInterval
	err := s.DB.Write(context.Background(), func(tx *sqldb.Tx) (err error) {
		more, err = s.signalDeltas(tx, c, key)
		return err
	})
	if err != nil && !errors.Is(err, sqldb.ErrClosed) {
		s.Log.Warn("signal deltas", "conversation", key.conversationID, "err", err)
		more, pause = true, time.Second
	}
	time.AfterFunc(pause, func() {
		if s.restStream(key, more) {
			s.flushStream(c, key)
		}
	})
}

// restStream reports whether a stream goes on after an interval, and forgets it
// if it does not.
func (s *Service) restStream(key streamKey, more bool) bool {
	s.streams.mu.Lock()
	defer s.streams.mu.Unlock()
	p := s.streams.m[key]
	if s.streams.closed || !p.dirty && !more {
		delete(s.streams.m, key)
		return false
	}
	p.dirty = false
	return true
}

func (s *Service) closeStreams() {
	s.streams.mu.Lock()
	defer s.streams.mu.Unlock()
	s.streams.closed = true
}

// signalDeltas signals the deltas of a stream that follow what was signalled,
// as one, and reports whether others wait.
//
// Compat: the cloud hands on each delta with the sequence the bot gave it. Here
// a signal may hold several, and its sequence counts the signals from that of
// the first delta, so that listeners see no gap.
func (s *Service) signalDeltas(tx *sqldb.Tx, c Caller, key streamKey) (more bool, err error) {
	if _, err := s.lock(tx, c, key.conversationID, 0); fault.Is(err, fault.ResourceNotFound) {
		return false, nil // the conversation is gone
	} else if err != nil {
		return false, err
	}
	v, err := sqldb.One[stream](tx, "streams", "WHERE conversation_id = $1 AND id = $2 AND state = 'open'", key.conversationID, key.id)
	if errors.Is(err, sqldb.ErrNoRow) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	waiting, err := sqldb.Select[delta](tx, "deltas", "WHERE conversation_id = $1 AND stream_id = $2 AND sequence >= $3 ORDER BY sequence LIMIT $4", v.ConversationID, v.ID, v.Next, chunk/2)
	if err != nil {
		return false, err
	}
	run := v.follows(waiting, s.now())
	if len(run) == 0 {
		return len(waiting) > 0, nil
	}
	h, err := s.lock(tx, c, v.ConversationID, 1)
	if err != nil {
		return false, err
	}
	if err := s.signalRun(tx, h, v, run); err != nil {
		return false, err
	}
	return len(run) < len(waiting), nil
}

// follows are the deltas that are signalled next. They follow each other, and
// the ones before, unless what is missing has been waited for.
func (v *stream) follows(waiting []*delta, now int64) []*delta {
	patience := streamPatience
	if v.Sent < 0 {
		patience = streamInterval // most likely the bot counts from another number
	}
	if len(waiting) == 0 || waiting[0].Sequence > v.Next && now < waiting[0].ArrivedAt+patience.Milliseconds() {
		return nil
	}
	n, size := 1, len(waiting[0].Text)
	for ; n < len(waiting) && waiting[n].Sequence == waiting[n-1].Sequence+1; n++ {
		if size += len(waiting[n].Text); size > maxDelta {
			break
		}
	}
	return waiting[:n]
}

// signalRun signals deltas under a locked head that has been moved on for it.
func (s *Service) signalRun(tx *sqldb.Tx, h head, v *stream, run []*delta) error {
	if v.Sent < 0 {
		v.Sent = run[0].Sequence
	}
	var text strings.Builder
	d := StreamData{StreamID: v.ID, UserID: v.BotID, Sequence: v.Sent, CreatedAt: api.Time(run[0].CreatedAt)}
	for _, one := range run {
		text.WriteString(one.Text)
		d.ClientMessageID = cmp.Or(d.ClientMessageID, one.ClientMessageID)
	}
	d.Delta = text.String()
	if err := s.signalStream(tx, h, v.ID, MessageStreamDelta, d, nil); err != nil {
		return err
	}
	last := run[len(run)-1].Sequence
	if _, err := tx.Exec("UPDATE streams SET next = $3, sent = $4, bytes = bytes + $5, updated_at = $6 WHERE conversation_id = $1 AND id = $2",
		v.ConversationID, v.ID, last+1, v.Sent+1, text.Len(), s.now()); err != nil {
		return err
	}
	_, err := tx.Exec("DELETE FROM deltas WHERE conversation_id = $1 AND stream_id = $2 AND sequence >= $3 AND sequence <= $4", v.ConversationID, v.ID, run[0].Sequence, last)
	return err
}

// endStream closes a stream for further deltas, also one that has none yet: an
// end may overtake the beginning. It reports whether this is the first end.
func (s *Service) endStream(tx *sqldb.Tx, h head, streamID string) (first bool, err error) {
	n, err := tx.Exec("UPDATE streams SET state = 'ended', updated_at = $3 WHERE conversation_id = $1 AND id = $2 AND state = 'open'", h.conversationID, streamID, s.now())
	if err != nil || n > 0 {
		return n > 0, err
	}
	return sqldb.Insert(tx, "streams", &stream{ConversationID: h.conversationID, ID: streamID, BotID: h.botID, State: streamEnded, UpdatedAt: s.now()})
}

// completeStream signals that a stream has become a message, which has the
// position behind.
func (s *Service) completeStream(tx *sqldb.Tx, h head, m *Message, streamID string) error {
	if _, err := s.endStream(tx, h, streamID); err != nil {
		return err
	}
	h.pos = m.Pos - 1
	return s.signalStream(tx, h, "", MessageStreamComplete, StreamData{StreamID: streamID, CreatedAt: m.CreatedAt, MessageID: m.ID}, m)
}

// AbortStream ends a stream without a message; one that has ended stays as it is.
func (s *Service) AbortStream(tx *sqldb.Tx, c Caller, conversationID, streamID string) error {
	h, err := s.lock(tx, c, conversationID, 0)
	if err != nil {
		return orDangling(err, c, conversationID)
	}
	if first, err := s.endStream(tx, h, streamID); err != nil || !first {
		return err
	}
	if h, err = s.lock(tx, c, conversationID, 1); err != nil {
		return err
	}
	return s.signalStream(tx, h, "", MessageStreamAbort, StreamData{StreamID: streamID}, nil)
}

// abortSilent aborts a chunk of the streams whose bots have fallen silent, and
// reports whether there were any.
func (s *Service) abortSilent(ctx context.Context) (bool, error) {
	before := s.now() - streamIdle.Milliseconds()
	silent, err := sqldb.Select[stream](s.DB.Reader(ctx), "streams", "WHERE state = 'open' AND updated_at < $1 ORDER BY updated_at LIMIT $2", before, chunk/10)
	if err != nil {
		return false, err
	}
	for _, v := range silent {
		c, err := s.CallerFor(ctx, v.BotID, "")
		gone := fault.Is(err, fault.Forbidden)
		if err != nil && !gone {
			return true, err
		}
		err = s.DB.Write(ctx, func(tx *sqldb.Tx) error {
			silent, err := sqldb.Scalar[int64](tx, "SELECT count(*) FROM streams WHERE conversation_id = $1 AND id = $2 AND state = 'open' AND updated_at < $3", v.ConversationID, v.ID, before)
			if err != nil || silent == 0 {
				return err
			}
			if !gone {
				err = s.AbortStream(tx, c, v.ConversationID, v.ID)
			}
			if gone || fault.Is(err, fault.ReferenceNotFound) {
				_, err = tx.Exec("DELETE FROM streams WHERE conversation_id = $1 AND id = $2", v.ConversationID, v.ID)
			}
			return err
		})
		if err != nil {
			return true, err
		}
	}
	return len(silent) > 0, nil
}

// sweepStreams removes a chunk of what streams leave behind.
func (s *Service) sweepStreams(tx *sqldb.Tx) (int64, error) {
	now := s.now()
	for _, one := range []struct {
		text string
		arg  int64
	}{
		{"DELETE FROM signals WHERE (conversation_id, pos) IN (SELECT g.conversation_id, g.pos FROM streams v JOIN signals g ON g.conversation_id = v.conversation_id AND g.stream = v.id WHERE v.state = 'ended' AND v.updated_at <= $1 LIMIT $2)", now},
		{"UPDATE streams SET state = 'folded' WHERE (conversation_id, id) IN (SELECT conversation_id, id FROM streams WHERE state = 'ended' AND updated_at <= $1 LIMIT $2)", now},
		{"DELETE FROM streams WHERE (conversation_id, id) IN (SELECT conversation_id, id FROM streams WHERE state = 'folded' AND updated_at < $1 LIMIT $2)", now - signalsKept.Milliseconds()},
		{"DELETE FROM deltas WHERE (conversation_id, stream_id, sequence) IN (SELECT conversation_id, stream_id, sequence FROM deltas WHERE arrived_at < $1 LIMIT $2)", now - streamIdle.Milliseconds()},
	} {
		if n, err := tx.Exec(one.text, one.arg, chunk); err != nil || n > 0 {
			return n, err
		}
	}
	return 0, nil
}
