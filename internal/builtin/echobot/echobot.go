// Package echobot is the built-in bot that repeats what it is told: a message
// comes back with its type and payload, a custom event of the chat comes back
// as a custom event. It lets a fresh server answer, and tests use it as the
// bot that is always there.
package echobot

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"parley/internal/endpoint"
	"parley/internal/fault"
)

// Name is how a bot's row names this program.
const Name = "echo"

// Message is what the bot says.
type Message struct {
	BotID          string
	ConversationID string
	Type           string
	Payload        jsontext.Value
}

// Call is an action that the bot asks an installation for.
type Call struct {
	BotID string
	Type  string // alias:action
	Input jsontext.Value
}

// Sender speaks for the bot. The key makes the effect happen once, however often
// it is asked for.
type Sender interface {
	CreateMessage(ctx context.Context, key string, m Message) error
	CallAction(ctx context.Context, key string, c Call) error
}

// New makes the endpoint behind which the bot lives. It is safe for concurrent
// use and serves any number of bots.
func New(s Sender) endpoint.Endpoint {
	b := bot{s}
	return endpoint.NewBuiltin(b.invoke)
}

type bot struct{ Sender }

// event is what the bot reads of an event.
type event struct {
	ID             string         `json:"id"`
	Type           string         `json:"type"`
	ConversationID string         `json:"conversationId"`
	Payload        jsontext.Value `json:"payload"`
}

type messageCreated struct {
	Message struct {
		ConversationID string         `json:"conversationId"`
		UserID         string         `json:"userId"`
		Type           string         `json:"type"`
		Direction      string         `json:"direction"`
		Payload        jsontext.Value `json:"payload"`
	} `json:"message"`
}

type customEvent struct {
	ConversationID string         `json:"conversationId"`
	Payload        jsontext.Value `json:"payload"`
}

func (b bot) invoke(ctx context.Context, op endpoint.Operation) (endpoint.Answer, error) {
	switch op.Name {
	case "event_received":
		return b.eventReceived(ctx, op)
	case "register", "unregister", "ping":
		return done, nil
	}
	return refuse("The echo bot has no operation %q", op.Name), nil
}

func (b bot) eventReceived(ctx context.Context, op endpoint.Operation) (endpoint.Answer, error) {
	var body struct {
		Event event `json:"event"`
	}
	if err := json.Unmarshal(op.Body, &body); err != nil || body.Event.ID == "" {
		return refuse("The body is not an event"), nil
	}
	botID := op.Header.Get("X-Bot-Id")
	e := body.Event
	alias, name, _ := strings.Cut(e.Type, ":")
	switch {
	case e.Type == "message_created":
		return outcome(b.message(ctx, botID, e))
	case name == "custom":
		return outcome(b.custom(ctx, botID, alias, e))
	}
	return done, nil
}

func (b bot) message(ctx context.Context, botID string, e event) error {
	var in messageCreated
	if err := json.Unmarshal(e.Payload, &in); err != nil {
		return fault.InvalidPayload.Wrap(err, "The payload of the event is not that of message_created")
	}
	m := in.Message
	// Its own words would come back for ever.
	if m.Direction != "incoming" || m.UserID == botID {
		return nil
	}
	return b.CreateMessage(ctx, key(e), Message{botID, m.ConversationID, m.Type, m.Payload})
}

// custom returns a custom event of the chat to the conversation it came from.
func (b bot) custom(ctx context.Context, botID, alias string, e event) error {
	var in customEvent
	if err := json.Unmarshal(e.Payload, &in); err != nil {
		return fault.InvalidPayload.Wrap(err, "The payload of the event is not that of a custom event")
	}
	if in.ConversationID == "" {
		in.ConversationID = e.ConversationID
	}
	if in.Payload == nil {
		in.Payload = jsontext.Value("{}")
	}
	input, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return b.CallAction(ctx, key(e), Call{botID, alias + ":sendEvent", input})
}

// key is the same on every delivery of an event, so that one that comes twice is
// answered once.
func key(e event) string { return "echo:" + e.ID }

var done = endpoint.Answer{Status: http.StatusOK, Body: []byte("{}")}

// outcome answers what official bots answer: a refusal of the API is final, and
// what may pass, such as a full queue, is tried again.
func outcome(err error) (endpoint.Answer, error) {
	if err == nil {
		return done, nil
	}
	f, ok := errors.AsType[*fault.Error](err)
	if !ok || f.Kind.Status >= 500 {
		return endpoint.Answer{}, err
	}
	if f.Kind == fault.RateLimited || f.Kind == fault.ResourceLocked {
		return endpoint.Answer{}, &endpoint.Error{Class: endpoint.Unreachable, Err: err}
	}
	return refuse("%s", f.Message), nil
}

func refuse(format string, args ...any) endpoint.Answer {
	f := fault.Runtime.New(format, args...)
	var b bytes.Buffer
	// Strings and numbers always encode.
	_ = json.MarshalWrite(&b, map[string]any{"code": f.Kind.Status, "type": f.Kind.Type, "message": f.Message}, json.Deterministic(true))
	return endpoint.Answer{Status: f.Kind.Status, Body: b.Bytes()}
}
