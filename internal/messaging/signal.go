package messaging

import (
	"cmp"
	"errors"
	"slices"

	"github.com/go-json-experiment/json"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/sqldb"
)

// Types of signals.
const (
	MessageCreated     = "message_created"
	MessageDeleted     = "message_deleted"
	EventCreated       = "event_created"
	ParticipantAdded   = "participant_added"
	ParticipantRemoved = "participant_removed"

	MessageStreamDelta    = "message_stream_delta"
	MessageStreamComplete = "message_stream_complete"
	MessageStreamAbort    = "message_stream_abort"
)

// Signal is something that happened in a conversation, as its listeners are
// told of it. All signals of a conversation share one sequence of positions.
type Signal struct {
	ConversationID string
	InstallationID string
	BotID          string
	Pos            int64
	Type           string
	At             api.Time
	Message        *Message   // of message_created and message_stream_complete
	Data           api.Object // of all others: participantData, messageData, EventData or StreamData
}

type participantData struct {
	UserID string `json:"userId"`
}

type messageData struct {
	MessageID string `json:"messageId"`
	UserID    string `json:"userId"`
}

// ParticipantData reads the data of participant_added and participant_removed.
func (g *Signal) ParticipantData() (userID string, err error) {
	var d participantData
	err = json.Unmarshal(g.Data, &d)
	return d.UserID, err
}

// MessageData reads the data of message_deleted.
func (g *Signal) MessageData() (messageID, userID string, err error) {
	var d messageData
	err = json.Unmarshal(g.Data, &d)
	return d.MessageID, d.UserID, err
}

// EventData is the data of event_created. The bot's own events have no id.
type EventData struct {
	EventID   string     `json:"eventId,omitempty"`
	CreatedAt api.Time   `json:"createdAt"` // set by SignalEvent where it is 0
	UserID    string     `json:"userId"`
	Payload   api.Object `json:"payload"`
}

// EventData reads the data of event_created.
func (g *Signal) EventData() (d EventData, err error) {
	err = json.Unmarshal(g.Data, &d)
	return d, err
}

// StreamData is the data of message_stream_delta, complete and abort.
type StreamData struct {
	StreamID        string   `json:"streamId"`
	UserID          string   `json:"userId,omitempty"`
	CreatedAt       api.Time `json:"createdAt,omitzero"` // of a delta as the bot says, else of the message
	Sequence        int64    `json:"sequence,omitzero"`
	Delta           string   `json:"delta,omitempty"`
	ClientMessageID string   `json:"clientMessageId,omitempty"`
	MessageID       string   `json:"messageId,omitempty"` // of complete
}

// StreamData reads the data of a signal of a stream.
func (g *Signal) StreamData() (d StreamData, err error) {
	err = json.Unmarshal(g.Data, &d)
	return d, err
}

// signal writes a signal other than message_created under a locked head that
// has been moved on for it, and publishes it.
func (s *Service) signal(tx *sqldb.Tx, h head, typ string, data any) error {
	return s.signalStream(tx, h, "", typ, data, nil)
}

// signalStream is signal for a delta of a stream, which leaves the log when the
// stream ends, and for what comes with a message.
func (s *Service) signalStream(tx *sqldb.Tx, h head, stream, typ string, data any, m *Message) error {
	b, err := json.Marshal(data)
	if err != nil {
		return err
	}
	g := &Signal{ConversationID: h.conversationID, InstallationID: h.installationID, BotID: h.botID, Pos: h.pos, Type: typ, At: api.Time(s.now()), Message: m, Data: b}
	if err := tx.Send("INSERT INTO signals (conversation_id, pos, type, data, created_at, stream) VALUES ($1, $2, $3, $4, $5, $6)",
		h.conversationID, h.pos, typ, string(b), int64(g.At), stream); err != nil {
		return err
	}
	return s.publish(tx, h.bot, g)
}

// publish tells of a signal: the installation of its conversation in this
// transaction, if deliveries tell it of signals, and the listeners after it.
func (s *Service) publish(tx *sqldb.Tx, b *auth.Bot, g *Signal) error {
	if in := installation(b, g.InstallationID); in != nil && in.Signals && in.Enabled && !in.Removed {
		text, err := s.Words(tx, Caller{Bot: b, Installation: in, Rules: &Rules{}}, g)
		if err != nil {
			return err
		}
		if text != nil {
			if err := s.enqueue(tx, &outgoing{Operation: opSignal, Payload: text, BotID: b.ID, InstallationID: in.ID, ConversationID: g.ConversationID, MessageID: g.messageID()}); err != nil {
				return err
			}
		}
	}
	tx.AfterCommit(func() { s.Listeners(g) })
	return nil
}

// messageID is that of the message a signal brings, "" if it brings none.
func (g *Signal) messageID() string {
	if g.Message == nil {
		return ""
	}
	return g.Message.ID
}

// SignalEvent signals that an event was created in a conversation.
func (s *Service) SignalEvent(tx *sqldb.Tx, c Caller, conversationID string, d EventData) error {
	h, err := s.lock(tx, c, conversationID, 1)
	if err != nil {
		return err
	}
	if d.CreatedAt == 0 {
		d.CreatedAt = api.Time(s.now())
	}
	return s.signal(tx, h, EventCreated, d)
}

// SignalHead returns the position of the newest signal of a conversation, 0 if
// there is none or the conversation is gone.
func (s *Service) SignalHead(q sqldb.Q, conversationID string) (int64, error) {
	pos, err := column64(q, "SELECT signal_pos FROM conversation_heads WHERE conversation_id = $1", conversationID)
	if err != nil || len(pos) == 0 {
		return 0, err
	}
	return pos[0], nil
}

// SignalHeads is SignalHead for many conversations; those that are gone are left out.
func (s *Service) SignalHeads(q sqldb.Q, conversationIDs []string) (map[string]int64, error) {
	heads := make(map[string]int64, len(conversationIDs))
	for chunk := range slices.Chunk(conversationIDs, 200) {
		w := &sqldb.Where{}
		w.And("conversation_id IN " + sqldb.In(w, chunk))
		rows, err := q.Query("SELECT conversation_id, signal_pos FROM conversation_heads "+w.String(), w.Args...)
		if err != nil {
			return nil, err
		}
		for rows.Next() {
			var id string
			var pos int64
			if err := rows.Scan(&id, &pos); err != nil {
				rows.Close()
				return nil, err
			}
			heads[id] = pos
		}
		if err := rows.Close(); err != nil {
			return nil, err
		}
	}
	return heads, nil
}

// Signals reads up to limit signals of a conversation after a position, in
// order, and the position up to which the log has been read with them. The
// positions of what has been deleted since are passed over, and those of the
// deltas of streams that have ended.
//
// Messages have no index by position and need none: their positions rise with
// their times, so the ones after a position are found from the newest back.
func (s *Service) Signals(q sqldb.Q, conversationID string, after int64, limit int) ([]*Signal, int64, error) {
	head, err := s.SignalHead(q, conversationID)
	if err != nil || head <= after {
		return nil, after, err
	}
	messages, err := s.messagesAfter(q, conversationID, after, limit)
	if err != nil {
		return nil, after, err
	}
	others, err := sqldb.Select[signalRow](q, "signals", `WHERE conversation_id = $1 AND pos > $2 AND pos <= $3
		AND (stream = '' OR EXISTS (SELECT 1 FROM streams v WHERE v.conversation_id = signals.conversation_id AND v.id = signals.stream AND v.state = 'open'))
		ORDER BY pos LIMIT $4`, conversationID, after, head, limit)
	if err != nil {
		return nil, after, err
	}
	upTo := head // or as far as both have been read
	if n := len(messages); n == limit {
		upTo = min(upTo, messages[n-1].Pos)
	}
	if n := len(others); n == limit {
		upTo = min(upTo, others[n-1].Pos)
	}
	out := make([]*Signal, 0, len(messages)+len(others))
	for _, m := range messages {
		if m.Pos <= upTo {
			out = append(out, &Signal{ConversationID: conversationID, InstallationID: m.InstallationID, BotID: m.BotID, Pos: m.Pos, Type: MessageCreated, At: m.CreatedAt, Message: m})
		}
	}
	for _, o := range others {
		if o.Pos > upTo {
			break
		}
		g := &Signal{ConversationID: conversationID, Pos: o.Pos, Type: o.Type, At: api.Time(o.CreatedAt), Data: o.Data}
		if g.Type == MessageStreamComplete {
			if g.Message, err = completed(q, g, messages); err != nil {
				return nil, after, err
			}
			if g.Message == nil {
				continue // deleted since
			}
		}
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b *Signal) int { return cmp.Compare(a.Pos, b.Pos) })
	if len(out) >= limit {
		out = out[:limit]
		return out, out[limit-1].Pos, nil
	}
	return out, upTo, nil
}

// completed is the message that ended a stream, nil if it is gone. It stands
// just behind its signal, so it is mostly among those that were read with it.
func completed(q sqldb.Q, g *Signal, read []*Message) (*Message, error) {
	d, err := g.StreamData()
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(read, func(m *Message) bool { return m.ID == d.MessageID }); i >= 0 {
		return read[i], nil
	}
	m, err := sqldb.One[Message](q, "messages", "WHERE conversation_id = $1 AND created_at = $2 AND id = $3", g.ConversationID, int64(d.CreatedAt), d.MessageID)
	if errors.Is(err, sqldb.ErrNoRow) {
		return nil, nil
	}
	return m, err
}

// messagesAfter reads the oldest limit messages of a conversation whose
// position is after the given one, in order.
func (s *Service) messagesAfter(q sqldb.Q, conversationID string, after int64, limit int) ([]*Message, error) {
	const look = 50 // a reader that lost its connection has seldom missed more
	newest, err := sqldb.Select[Message](q, "messages", "WHERE conversation_id = $1 AND signal_pos > 0 ORDER BY created_at DESC, id DESC LIMIT $2", conversationID, min(look, limit))
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(newest, func(m *Message) bool { return m.Pos <= after }); i >= 0 || len(newest) < min(look, limit) {
		if i >= 0 {
			newest = newest[:i]
		}
		slices.Reverse(newest)
		return newest, nil
	}
	at, err := s.lastUntil(q, conversationID, after, int64(newest[len(newest)-1].CreatedAt))
	if err != nil {
		return nil, err
	}
	return sqldb.Select[Message](q, "messages", "WHERE conversation_id = $1 AND created_at > $2 AND signal_pos > 0 ORDER BY created_at, id LIMIT $3", conversationID, at, limit)
}

// lastUntil returns the time of the newest message whose position is not after
// pos, -1 if there is none. It halves the time between the oldest message and
// before, whose message lies after pos.
func (s *Service) lastUntil(q sqldb.Q, conversationID string, pos, before int64) (int64, error) {
	low, high := int64(-1), before // the message of low is not after pos, that of high is
	for low+1 < high {
		middle := low + (high-low)/2
		rows, err := q.Query("SELECT signal_pos, created_at FROM messages WHERE conversation_id = $1 AND created_at <= $2 AND signal_pos > 0 ORDER BY created_at DESC, id DESC LIMIT 1",
			conversationID, middle)
		if err != nil {
			return 0, err
		}
		var at, found int64
		some := rows.Next()
		if some {
			err = rows.Scan(&found, &at)
		}
		if err = errors.Join(err, rows.Err(), rows.Close()); err != nil {
			return 0, err
		}
		switch {
		case !some:
			low = middle
		case found <= pos:
			// Nothing lies between this message and the middle.
			low = middle
		default:
			high = at
		}
	}
	return low, nil
}

// SignalSince returns the position just before the first signal of a
// conversation at or after a time: its head if there is none.
func (s *Service) SignalSince(q sqldb.Q, conversationID string, at int64) (int64, error) {
	head, err := s.SignalHead(q, conversationID)
	if err != nil || head == 0 {
		return head, err
	}
	first := head + 1
	messages, err := column64(q, "SELECT signal_pos FROM messages WHERE conversation_id = $1 AND created_at >= $2 AND signal_pos > 0 ORDER BY created_at, id LIMIT 1", conversationID, at)
	if err != nil {
		return 0, err
	}
	// Few conversations have many of the others: they are counted from the newest back.
	others, err := column64(q, "SELECT min(pos) FROM (SELECT pos, created_at FROM signals WHERE conversation_id = $1 ORDER BY pos DESC LIMIT 100) AS newest WHERE created_at >= $2 HAVING min(pos) IS NOT NULL", conversationID, at)
	if err != nil {
		return 0, err
	}
	for _, pos := range append(messages, others...) {
		first = min(first, pos)
	}
	return first - 1, nil
}

// signalRow is a row of table signals.
type signalRow struct {
	Pos, CreatedAt int64
	Type           string
	Data           api.Object
}

// Columns binds the columns of table signals.
func (r *signalRow) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "pos", Field: &r.Pos},
		{Name: "type", Field: &r.Type},
		{Name: "data", Field: sqldb.JSON(&r.Data)},
		{Name: "created_at", Field: &r.CreatedAt},
	}
}

// column64 reads the first column of every row as a number.
func column64(q sqldb.Q, query string, args ...any) ([]int64, error) {
	rows, err := q.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []int64
	for rows.Next() {
		var v int64
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}
