package messaging

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"parley/internal/auth"
	"parley/internal/delivery"
	"parley/internal/id"
	"parley/internal/sqldb"
)

// A client that posts a message may wait for what the bot says about it.
//
//	message, event ─ commit ─► lane ─► try ········ end of the try ─ commit ─► hint ─► answer
//	                                   replies_from   replies_to
//
// Replies are the messages of the bot that the conversation got while the bot
// had the event: from the beginning of its first try to the end of its last. The
// two places are noted by whoever delivers an event that was made to be waited
// for, so any server may answer, also to one who asks again later. Other events
// cost a look at who listens to their lane.
//
// Nothing is held while one waits but a subscription: the hint comes over the
// bus, and where other servers write to the database too it is asked now and
// then besides.

const (
	maxReplies = 100
	// maxWaiting is how many may wait at a time; who comes later is answered at once.
	maxWaiting = 10_000
	// waitPoll is how often is looked for the end of an event that another server
	// may have delivered.
	waitPoll = 250 * time.Millisecond
)

// values of replies_from that are no place.
const (
	nobodyWaits = 0
	notBegun    = -1
)

// Replies are what has come of a message by the time that one who waits for
// it is answered.
type Replies struct {
	// Messages are those of the bot, in their order: the first 100, not nil.
	Messages []*Message
	// Finished says that no more will come: the bot has done with the message,
	// well or not, or will not be told of it any more.
	Finished bool
}

// waiting is who waits in this server.
type waiting struct {
	now   atomic.Int64
	ended chan struct{} // closed when nobody shall wait any longer
	end   func()
	heed  chan<- struct{} // gets one for each who listens for the end of an event; for tests
}

func newWaiting() waiting {
	ended := make(chan struct{})
	return waiting{ended: ended, end: sync.OnceFunc(func() { close(ended) })}
}

// EndWaits answers all who wait, now and from now on: the server stops.
func (s *Service) EndWaits() { s.waiting.end() }

// Await waits until the bot has done with a message of the caller, at most for
// as long as it says. A message made with NewMessage.Waited has all its replies;
// for others they are told by the clock.
//
// It comes back at once, unfinished, where there is nothing to wait for (a
// message of the bot, one that is scheduled or gone), where the bot would wait for itself
// (it has an earlier event of the conversation in hand, and posts with its own
// key), and where too many wait. It has no error: the message is written, and
// what cannot be read about it counts as unfinished.
func (s *Service) Await(ctx context.Context, c Caller, messageID string, wait time.Duration) Replies {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	defer s.waiting.now.Add(-1)
	var r Replies
	if s.waiting.now.Add(1) <= maxWaiting {
		r = s.awaitOrWarn(ctx, c, messageID, timer.C)
	}
	if r.Messages == nil {
		r.Messages = []*Message{}
	}
	return r
}

func (s *Service) awaitOrWarn(ctx context.Context, c Caller, messageID string, over <-chan time.Time) Replies {
	r, err := s.await(ctx, c, messageID, over)
	if err == nil {
		return r
	}
	if ctx.Err() == nil {
		s.Log.Warn("wait for replies", "message", messageID, "err", err)
	}
	return Replies{}
}

func (s *Service) await(ctx context.Context, c Caller, messageID string, over <-chan time.Time) (Replies, error) {
	q := s.DB.Reader(ctx)
	m, err := s.message(q, c, messageID)
	if err != nil || m == nil || m.Direction != Incoming {
		return Replies{}, err
	}
	e, err := eventOf(q, m)
	if err != nil || e == nil {
		return Replies{Finished: true}, err
	}
	heard := make(chan struct{}, 1)
	cancel := s.Bus.Subscribe(overTopic(e.Lane), func([]byte) {
		select {
		case heard <- struct{}{}:
		default:
		}
	})
	defer cancel()
	if inside, err := insideHandler(ctx, q, e); err != nil || inside {
		return Replies{}, err
	}
	poll, stop := s.poll()
	defer stop()
	if s.waiting.heed != nil {
		s.waiting.heed <- struct{}{}
	}
	for waits := true; ; {
		p, err := progressOf(q, e)
		if err != nil {
			return Replies{}, err
		}
		if p.finished || !waits {
			return s.replies(q, c, e, p)
		}
		select {
		case <-heard:
		case <-poll:
		case <-over:
			waits = false
		case <-s.waiting.ended:
			waits = false
		case <-ctx.Done():
			return Replies{}, ctx.Err()
		}
	}
}

// poll is a tick where another server may end an event unheard.
func (s *Service) poll() (<-chan time.Time, func()) {
	if s.MaxAge == 0 {
		return nil, func() {}
	}
	t := time.NewTicker(waitPoll)
	return t.C, t.Stop
}

// eventOf is the event that takes a message to the bot, nil if there is none:
// the message was imported, or it is long ago. It was made in the same millisecond.
func eventOf(q sqldb.Q, m *Message) (*Event, error) {
	at := int64(m.CreatedAt)
	e, err := sqldb.One[Event](q, "events", "WHERE bot_id = $1 AND id >= $2 AND id < $3 AND message_id = $4 AND type = $5 AND installation_id = ''",
		m.BotID, id.Oldest("evt", at), id.Oldest("evt", at+1), m.ID, eventMessageCreated)
	if errors.Is(err, sqldb.ErrNoRow) {
		return nil, nil
	}
	return e, err
}

// insideHandler reports whether the bot itself asks while the event has others
// before it: its answer to them may depend on ours.
func insideHandler(ctx context.Context, q sqldb.Q, e *Event) (bool, error) {
	if auth.From(ctx).Kind != auth.BotKey {
		return false, nil
	}
	status, err := column(q, "SELECT status FROM events WHERE lane = $1 AND lane_seq < $2 ORDER BY lane_seq DESC LIMIT 1", e.Lane, e.LaneSeq)
	return len(status) == 1 && status[0] == Pending, err
}

// progress is how far the bot is with an event.
type progress struct {
	finished bool
	from, to int64 // replies_from and replies_to
}

// progressOf reads it. An event whose conversation is gone reaches the bot no more.
func progressOf(q sqldb.Q, e *Event) (p progress, err error) {
	rows, err := q.Query(`SELECT e.status, e.replies_from, e.replies_to FROM events e JOIN conversation_heads h ON h.conversation_id = e.conversation_id
		WHERE e.bot_id = $1 AND e.id = $2`, e.BotID, e.ID)
	if err != nil {
		return p, err
	}
	defer rows.Close()
	p = progress{true, notBegun, 0}
	if rows.Next() {
		var status string
		err = rows.Scan(&status, &p.from, &p.to)
		p.finished = isOver(status)
	}
	return p, errors.Join(err, rows.Err())
}

// replies reads what the bot has said by now.
func (s *Service) replies(q sqldb.Q, c Caller, e *Event, p progress) (Replies, error) {
	w := &sqldb.Where{}
	w.And("e.conversation_id = ?", e.ConversationID)
	w.And("e.created_at > ?", int64(e.CreatedAt))
	w.And("e.direction = ?", Outgoing)
	switch {
	case p.from == notBegun, p.from == nobodyWaits && !p.finished:
		return Replies{Finished: p.finished}, nil
	case p.from == nobodyWaits:
		if err := byTheClock(q, e, w); err != nil {
			return Replies{}, err
		}
	case p.finished && p.to > 0:
		w.And("e.seq <= ?", p.to)
		fallthrough
	default:
		w.And("e.seq > ?", p.from)
	}
	out, err := rowsOf[Message](q, "messages e "+w.String()+" ORDER BY e.created_at, e.id LIMIT "+w.Arg(maxReplies), w.Args)
	for _, m := range out {
		m.As(c)
	}
	return Replies{out, p.finished}, err
}

// byTheClock finds replies to an event that nobody waited for when it was
// delivered: what the log of attempts says of its tries is right to some milliseconds.
func byTheClock(q sqldb.Q, e *Event, w *sqldb.Where) error {
	rows, err := q.Query("SELECT coalesce(min(started_at), 0), coalesce(max(started_at + duration_ms), 0) FROM attempts WHERE work_id = $1", e.ID)
	if err != nil {
		return err
	}
	defer rows.Close()
	var begun, ended int64
	if rows.Next() {
		err = rows.Scan(&begun, &ended)
	}
	w.And("e.created_at >= ?", begun)
	w.And("e.created_at <= ?", ended+1) // start and duration are both rounded down
	return errors.Join(err, rows.Err())
}

// inHand is what Done needs of an event besides, and who notes where the
// conversation was while the bot had it, if somebody waits for that.
type inHand struct {
	botID    string
	from, to int64 // replies_from and replies_to
}

// messagesSoFar is how many messages a conversation has had.
func messagesSoFar(q sqldb.Q, conversationID string) (int64, error) {
	seq, err := sqldb.Scalar[int64](q, "SELECT message_seq FROM conversation_heads WHERE conversation_id = $1", conversationID)
	if errors.Is(err, sqldb.ErrNoRow) {
		err = nil
	}
	return seq, err
}

// watch notes where the conversation is when a try begins and when it ends.
// Those who have waited for too long are told of replies before the end, so the
// beginning is written down at once, with the next commit.
func (s *Service) watch(ctx context.Context, w *delivery.Work, e *Event) error {
	h := w.Ref.(*inHand)
	if e.RepliesFrom == nobodyWaits {
		return nil
	}
	if int(e.Attempts) == w.Before { // its first, or the first since it was replayed
		var err error
		if h.from, err = messagesSoFar(s.DB.Reader(ctx), e.ConversationID); err != nil {
			return err
		}
		from := h.from
		s.DB.WriteSoon(func(tx *sqldb.Tx) error {
			_, err := tx.Exec("UPDATE events SET replies_from = $1 WHERE bot_id = $2 AND id = $3 AND status = 'pending'", from, e.BotID, e.ID)
			return err
		}, nil)
	}
	w.Ended = func(ctx context.Context) {
		var err error
		if h.to, err = messagesSoFar(s.DB.Reader(ctx), e.ConversationID); err != nil {
			s.Log.Warn("find the end of replies", "event", e.ID, "err", err)
		}
	}
	return nil
}

// over tells those who wait that an event of a lane is over, or all are.
func (s *Service) over(lane string) {
	if topic := overTopic(lane); s.Bus.Listening(topic) {
		s.Bus.Publish(topic, nil)
	}
}

func overTopic(lane string) string { return "over:" + lane }

// conversationEnded follows the commit that has deleted a conversation.
func (s *Service) conversationEnded(botID, conversationID string) {
	s.Ended("conv:" + conversationID)
	s.over(lane(&Event{BotID: botID, ConversationID: conversationID}).Key)
}

// Waited is what an answer holds besides if its client has waited.
type Waited struct {
	Replies  []*Message `json:"replies,omitzero" doc:"If the request waits: what the bot has said about it, in order, the first 100 messages."`
	Finished *bool      `json:"finished,omitzero" doc:"If the request waits: whether the bot is done with it, so that no more replies come."`
}

// WaitFor is Await for the client of a request, who has written m with it.
func (s *Service) WaitFor(ctx context.Context, m *Message, d time.Duration) Waited {
	c, err := s.Caller(ctx)
	if err != nil {
		return Waited{[]*Message{}, new(bool)} // whoever it was is gone
	}
	r := s.Await(ctx, c, m.ID, d)
	return Waited{r.Messages, &r.Finished}
}
