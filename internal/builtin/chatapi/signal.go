package chatapi

import (
	"context"
	"time"

	"github.com/go-json-experiment/json"

	"parley/internal/api"
	"parley/internal/messaging"
	"parley/internal/realtime"
	"parley/internal/sqldb"
)

// signal is a signal as chat clients get it: {type, data}.
type signal struct {
	Type string `json:"type"`
	Data any    `json:"data"`
}

type messageSignal struct {
	message
	IsBot bool `json:"isBot"`
}

type eventSignal struct {
	ID             *string    `json:"id"` // null for events of the bot
	CreatedAt      api.Time   `json:"createdAt"`
	Payload        api.Object `json:"payload"`
	ConversationID string     `json:"conversationId"`
	UserID         string     `json:"userId"`
	IsBot          bool       `json:"isBot"`
}

type participantSignal struct {
	ConversationID string `json:"conversationId"`
	ParticipantID  string `json:"participantId"`
}

type deletedSignal struct {
	ID             string `json:"id"`
	ConversationID string `json:"conversationId"`
	UserID         string `json:"userId"`
}

type deltaSignal struct {
	StreamID        string   `json:"streamId"`
	ConversationID  string   `json:"conversationId"`
	UserID          string   `json:"userId"`
	CreatedAt       api.Time `json:"createdAt"`
	ClientMessageID string   `json:"clientMessageId,omitempty"`
	Sequence        int64    `json:"sequence"`
	Delta           string   `json:"delta"`
}

type completeSignal struct {
	StreamID string  `json:"streamId"`
	Message  message `json:"message"`
}

type abortSignal struct {
	StreamID       string `json:"streamId"`
	ConversationID string `json:"conversationId"`
}

// Words puts a signal into the words of the Chat API; nil is for one of a kind
// that chat clients are not told of.
func (s *Service) Words(q sqldb.Q, c messaging.Caller, g *messaging.Signal) ([]byte, error) {
	data, err := s.signalData(q, c, g)
	if err != nil || data == nil {
		return nil, err
	}
	return json.Marshal(signal{g.Type, data})
}

func (s *Service) signalData(q sqldb.Q, c messaging.Caller, g *messaging.Signal) (any, error) {
	switch g.Type {
	case messaging.MessageCreated:
		m, err := s.viewMessage(q, c, g.Message)
		return messageSignal{m, g.Message.Direction == messaging.Outgoing}, err
	case messaging.EventCreated:
		return s.eventCreated(q, c, g)
	case messaging.MessageDeleted:
		return s.messageDeleted(q, c, g)
	case messaging.ParticipantAdded, messaging.ParticipantRemoved:
		return s.participantChanged(q, c, g)
	case messaging.MessageStreamDelta, messaging.MessageStreamComplete, messaging.MessageStreamAbort:
		return s.streamChanged(q, c, g)
	}
	return nil, nil
}

func (s *Service) streamChanged(q sqldb.Q, c messaging.Caller, g *messaging.Signal) (any, error) {
	d, err := g.StreamData()
	if err != nil {
		return nil, err
	}
	switch g.Type {
	case messaging.MessageStreamComplete:
		m, err := s.viewMessage(q, c, g.Message)
		return completeSignal{d.StreamID, m}, err
	case messaging.MessageStreamAbort:
		conversation, err := s.conversationName(q, c, g.ConversationID)
		return abortSignal{d.StreamID, conversation}, err
	}
	out := deltaSignal{StreamID: d.StreamID, CreatedAt: d.CreatedAt, ClientMessageID: d.ClientMessageID, Sequence: d.Sequence, Delta: d.Delta}
	out.ConversationID, out.UserID, err = s.bothNames(q, c, g.ConversationID, d.UserID)
	return out, err
}

func (s *Service) eventCreated(q sqldb.Q, c messaging.Caller, g *messaging.Signal) (any, error) {
	d, err := g.EventData()
	if err != nil {
		return nil, err
	}
	e := eventSignal{CreatedAt: d.CreatedAt, Payload: d.Payload, IsBot: d.UserID == c.Bot.ID}
	if d.EventID != "" {
		e.ID = &d.EventID
	}
	e.ConversationID, e.UserID, err = s.bothNames(q, c, g.ConversationID, d.UserID)
	return e, err
}

// messageDeleted says which message is gone.
//
// Compat: the official signal carries the ids the server gave; here they are
// the ones the client knows.
func (s *Service) messageDeleted(q sqldb.Q, c messaging.Caller, g *messaging.Signal) (any, error) {
	messageID, userID, err := g.MessageData()
	if err != nil {
		return nil, err
	}
	d := deletedSignal{ID: messageID}
	d.ConversationID, d.UserID, err = s.bothNames(q, c, g.ConversationID, userID)
	return d, err
}

func (s *Service) participantChanged(q sqldb.Q, c messaging.Caller, g *messaging.Signal) (any, error) {
	userID, err := g.ParticipantData()
	if err != nil {
		return nil, err
	}
	var d participantSignal
	d.ConversationID, d.ParticipantID, err = s.bothNames(q, c, g.ConversationID, userID)
	return d, err
}

// Notify tells the listeners of a conversation of a signal after its commit.
// What cannot be encoded now is left to the log, which listeners read when a
// position is missing.
func (s *Service) Notify(g *messaging.Signal) {
	s.Hub.Notify(g.ConversationID, g.Pos, func() []byte {
		ctx := context.Background() // a request that ends early does not unsend what it committed
		c, err := s.Messaging.CallerFor(ctx, g.BotID, g.InstallationID)
		if err != nil {
			return nil
		}
		text, err := s.Words(s.DB.Reader(ctx), c, g)
		if err != nil {
			s.Log.Warn("encode signal", "conversation", g.ConversationID, "pos", g.Pos, "err", err)
		}
		return text
	})
}

// Log is the signal log of conversations as the realtime hub reads it.
type Log struct{ *Service }

var _ realtime.Log = Log{}

// Head implements realtime.Log.
func (l Log) Head(ctx context.Context, topic string) (int64, error) {
	return l.Messaging.SignalHead(l.DB.Reader(ctx), topic)
}

// Since implements realtime.Log.
func (l Log) Since(ctx context.Context, topic string, t time.Time) (int64, error) {
	return l.Messaging.SignalSince(l.DB.Reader(ctx), topic, t.UnixMilli())
}

// Read implements realtime.Log.
func (l Log) Read(ctx context.Context, topic string, after int64, limit int) ([]realtime.Signal, int64, error) {
	q := l.DB.Reader(ctx)
	signals, upTo, err := l.Messaging.Signals(q, topic, after, limit)
	if err != nil || len(signals) == 0 {
		return nil, upTo, err
	}
	botID, installationID, err := l.Messaging.Carrier(q, topic)
	if err != nil || botID == "" {
		return nil, upTo, err
	}
	c, err := l.Messaging.CallerFor(ctx, botID, installationID)
	if err != nil {
		return nil, upTo, err
	}
	out := make([]realtime.Signal, 0, len(signals))
	for _, g := range signals {
		text, err := l.Words(q, c, g)
		if err != nil {
			return nil, upTo, err
		}
		out = append(out, realtime.Signal{Pos: g.Pos, Data: text})
	}
	return out, upTo, nil
}
