package messagingapi

import (
	"context"
	"time"

	"parley/internal/api"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/messaging"
	"parley/internal/tag"
)

// channel is the one channel of the integration.
const channel = "channel"

// nameTag is the tag that holds the name which a service has given something.
const nameTag = "id"

func named(name string) map[string]string { return map[string]string{nameTag: name} }

type createMessageInput struct {
	api.Wait
	UserID         string     `json:"userId" min:"1" max:"500" doc:"Who says it: your own id of the user."`
	MessageID      string     `json:"messageId" min:"1" max:"500" doc:"Your own id of the message; the same one again is not said again."`
	ConversationID string     `json:"conversationId" min:"1" max:"500" doc:"Your own id of the conversation; replies come with it."`
	Type           string     `json:"type" min:"1" max:"200" doc:"text, or what else it is."`
	Text           string     `json:"text" min:"1" doc:"What is said; for other types a summary of the payload."`
	Payload        api.Object `json:"payload,omitempty" doc:"What belongs to the type; a text in it comes before that beside it."`
}

type createMessageResult struct {
	Message      *messaging.Message      `json:"message"`
	User         *messaging.User         `json:"user"`
	Conversation *messaging.Conversation `json:"conversation"`
	messaging.Waited
}

// createMessage brings a message in.
//
// Compat: the original makes a second message of a messageId that it has seen,
// against what its description says; here it is the first one again.
func (s *Service) createMessage(ctx context.Context, in createMessageInput) (createMessageResult, error) {
	c, err := s.Messaging.Caller(ctx)
	if err != nil {
		return createMessageResult{}, err
	}
	opened, err := s.opened(ctx, c, in.ConversationID)
	if err != nil {
		return createMessageResult{}, err
	}
	got, err := s.Messaging.Receive(ctx, c, messaging.Arrival{
		Wait: in.Wait, User: named(in.UserID), Conversation: named(in.ConversationID), ConversationID: opened, Message: named(in.MessageID),
		Channel: channel, Type: in.Type, Payload: in.payload(),
	})
	return createMessageResult{Message: got.Message, User: got.User, Conversation: got.Conversation}, err
}

// addReplies waits for what the bot says about the message.
func (s *Service) addReplies(ctx context.Context, out *createMessageResult, d time.Duration) {
	out.Waited = s.Messaging.WaitFor(ctx, out.Message, d)
}

// opened is the id of a conversation that has no name of the service's and that
// the service calls by its id in Parley, "" for any other.
func (s *Service) opened(ctx context.Context, c messaging.Caller, name string) (string, error) {
	if !id.Minted("conv", name) {
		return "", nil
	}
	q := s.DB.Reader(ctx)
	found, err := s.Messaging.FindByTag(q, c.Bot.ID, tag.Conversation, c.Owner(), nameTag, name)
	if err != nil || found != "" {
		return "", err
	}
	v, err := s.Messaging.Conversation(q, c, name)
	switch {
	case fault.Is(err, fault.ResourceNotFound):
		return "", nil
	case err != nil || v.Tags[nameTag] != "":
		return "", err
	}
	return name, nil
}

// payload is what the bot gets: the text, unless the payload has one of its own.
func (in createMessageInput) payload() api.Object {
	if in.Payload.Member("text") != nil {
		return in.Payload
	}
	var b api.Builder
	b.AddText("text", in.Text)
	for name, v := range in.Payload.Members() {
		b.Add(name, v)
	}
	return b.Object()
}
