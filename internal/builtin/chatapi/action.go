package chatapi

import (
	"context"

	"github.com/go-json-experiment/json"

	"parley/internal/api"
	"parley/internal/fault"
	"parley/internal/messaging"
	"parley/internal/sqldb"
)

// sendEventInput is the input of the action sendEvent.
type sendEventInput struct {
	ConversationID string     `json:"conversationId" format:"id"`
	Payload        api.Object `json:"payload"`
}

var sendEventSchema = api.SchemaOf[sendEventInput]()

// publishMessageStreamInput is the input of the action publishMessageStream.
type publishMessageStreamInput struct {
	ConversationID string       `json:"conversationId" format:"id"`
	Signal         streamSignal `json:"signal"`
}

// streamSignal is a piece of a message that is being written, or its end
// without one.
type streamSignal struct{ api.Raw }

// Union implements api.Union.
func (streamSignal) Union() api.Variants {
	return api.Variants{By: "type", Types: []api.Variant{api.VariantOf[streamDelta]("delta"), api.VariantOf[streamAbort]("abort")}}
}

type streamDelta struct {
	StreamID        string   `json:"streamId" min:"1" max:"200"`
	Sequence        int64    `json:"sequence" min:"0" max:"9007199254740991"`
	Delta           string   `json:"delta"`
	CreatedAt       api.Time `json:"createdAt"`
	ClientMessageID string   `json:"clientMessageId,omitempty" max:"200"`
}

type streamAbort struct {
	StreamID string `json:"streamId" min:"1" max:"200"`
}

var publishMessageStreamSchema = api.SchemaOf[publishMessageStreamInput]()

// Act performs or prepares an action of the installation for its bot.
func (s *Service) Act(ctx context.Context, botID, installationID, action string, input api.Object) (messaging.Acted, error) {
	switch action {
	case "sendEvent":
		return s.sendEvent(ctx, botID, installationID, input)
	case "publishMessageStream":
		return s.publishMessageStream(ctx, botID, installationID, input)
	}
	return messaging.Acted{}, fault.InvalidPayload.New("the integration chat has no action %q; it has sendEvent and publishMessageStream", action)
}

// read checks the input of an action and decodes it.
func read(schema *api.Schema, input api.Object, in any) error {
	if err := schema.Validate("input", input); err != nil {
		return err
	}
	return json.Unmarshal(input, in)
}

func (s *Service) sendEvent(ctx context.Context, botID, installationID string, input api.Object) (done messaging.Acted, err error) {
	var in sendEventInput
	if err := read(sendEventSchema, input, &in); err != nil {
		return done, err
	}
	if err := checkSize(in.Payload); err != nil {
		return done, err
	}
	c, err := s.Messaging.CallerFor(ctx, botID, installationID)
	if err != nil {
		return done, err
	}
	if _, err := s.Messaging.Conversation(s.DB.Reader(ctx), c, in.ConversationID); err != nil {
		return done, inBody(err)
	}
	done.Finish = func(tx *sqldb.Tx) (api.Object, error) {
		return nothing, inBody(s.Messaging.SignalEvent(tx, c, in.ConversationID, messaging.EventData{UserID: botID, Payload: in.Payload}))
	}
	return done, nil
}

// nothing is the output of actions that have none.
var nothing = api.Object("{}")

func (s *Service) publishMessageStream(ctx context.Context, botID, installationID string, input api.Object) (done messaging.Acted, err error) {
	var in publishMessageStreamInput
	if err := read(publishMessageStreamSchema, input, &in); err != nil {
		return done, err
	}
	c, err := s.Messaging.CallerFor(ctx, botID, installationID)
	if err != nil {
		return done, err
	}
	if kind, _ := in.Signal.Member("type").Text(); kind == "delta" {
		var d streamDelta
		if err := json.Unmarshal(in.Signal.Raw, &d); err != nil {
			return done, err
		}
		return messaging.Acted{Output: nothing}, s.Messaging.AddDelta(ctx, c, in.ConversationID, messaging.Delta{
			StreamID: d.StreamID, Sequence: d.Sequence, Text: d.Delta, CreatedAt: d.CreatedAt, ClientMessageID: d.ClientMessageID,
		})
	}
	var a streamAbort
	if err := json.Unmarshal(in.Signal.Raw, &a); err != nil {
		return done, err
	}
	done.Finish = func(tx *sqldb.Tx) (api.Object, error) {
		return nothing, s.Messaging.AbortStream(tx, c, in.ConversationID, a.StreamID)
	}
	return done, nil
}
