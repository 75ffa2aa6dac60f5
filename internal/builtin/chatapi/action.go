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

// Act prepares an action of the installation for its bot. What it returns
// performs it.
func (s *Service) Act(ctx context.Context, botID, installationID, action string, input api.Object) (func(tx *sqldb.Tx) (api.Object, error), error) {
	switch action {
	case "sendEvent":
		return s.sendEvent(ctx, botID, installationID, input)
	case "publishMessageStream":
		return nil, fault.InvalidPayload.New("the action publishMessageStream is planned and not built yet in this version of Parley")
	}
	return nil, fault.InvalidPayload.New("the integration chat has no action %q; it has sendEvent", action)
}

func (s *Service) sendEvent(ctx context.Context, botID, installationID string, input api.Object) (func(tx *sqldb.Tx) (api.Object, error), error) {
	if err := sendEventSchema.Validate("input", input); err != nil {
		return nil, err
	}
	var in sendEventInput
	if err := json.Unmarshal(input, &in); err != nil {
		return nil, err
	}
	if err := checkSize(in.Payload); err != nil {
		return nil, err
	}
	c, err := s.Messaging.CallerFor(ctx, botID, installationID)
	if err != nil {
		return nil, err
	}
	if _, err := s.Messaging.Conversation(s.DB.Reader(ctx), c, in.ConversationID); err != nil {
		return nil, inBody(err)
	}
	return func(tx *sqldb.Tx) (api.Object, error) {
		return api.Object("{}"), inBody(s.Messaging.SignalEvent(tx, c, in.ConversationID, messaging.EventData{UserID: botID, Payload: in.Payload}))
	}, nil
}
