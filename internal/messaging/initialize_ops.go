package messaging

import (
	"context"
	"time"

	"parley/internal/api"
	"parley/internal/fault"
	"parley/internal/once"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

type initializeInput struct {
	api.Wait
	UserID         string                        `json:"userId,omitempty" format:"id"`
	User           *getOrCreateUserInput         `json:"user,omitempty"`
	ConversationID string                        `json:"conversationId,omitempty" format:"id"`
	Conversation   *getOrCreateConversationInput `json:"conversation,omitempty"`
	Message        *initializeMessage            `json:"message,omitempty"`
}

type initializeMessage struct {
	Payload            api.Object        `json:"payload"`
	Type               string            `json:"type" max:"200"`
	Tags               map[string]string `json:"tags"`
	Origin             string            `json:"origin,omitempty" enum:"synthetic"`
	DiscriminateByTags []string          `json:"discriminateByTags"`
}

// Check refuses a request that names its user or conversation twice or never.
func (in initializeInput) Check() error {
	if (in.UserID == "") == (in.User == nil) {
		return fault.InvalidPayload.New("send either userId or user")
	}
	if (in.ConversationID == "") == (in.Conversation == nil) {
		return fault.InvalidPayload.New("send either conversationId or conversation")
	}
	if in.Message == nil && in.Waits() {
		return fault.InvalidPayload.New("wait needs a message to wait for; send message")
	}
	if in.Message != nil {
		return checkMessage(NewMessage{Type: in.Message.Type, Payload: in.Message.Payload})
	}
	return nil
}

// Received is a message that was taken in, with its user and conversation as
// the integration sees them.
type Received struct {
	User         *User         `json:"user"`
	Conversation *Conversation `json:"conversation"`
	Message      *Message      `json:"message,omitempty"`
}

type initializeResult struct {
	Received
	Waited
}

// initializeIncomingMessage finds or makes a user, a conversation and a message
// in one transaction: an integration needs no more for what it receives.
func (s *Service) initializeIncomingMessage(ctx context.Context, in initializeInput) (initializeResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return initializeResult{}, err
	}
	if c.Installation == nil {
		return initializeResult{}, fault.Forbidden.New("incoming messages come from an integration; send x-integration-id")
	}
	out, err := s.initialize(ctx, c, in)
	return initializeResult{Received: out}, err
}

// addRepliesToFirst is addReplies for the message of initializeIncomingMessage.
func (s *Service) addRepliesToFirst(ctx context.Context, out *initializeResult, d time.Duration) {
	out.Waited = s.WaitFor(ctx, out.Message, d)
}

func (s *Service) initialize(ctx context.Context, c Caller, in initializeInput) (Received, error) {
	find, err := s.initializers(ctx, c, in)
	if err != nil {
		return Received{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (Received, error) {
		var out Received
		var err error
		if out.User, err = find.user(tx); err != nil {
			return out, err
		}
		if out.Conversation, err = find.conversation(tx); err != nil {
			return out, err
		}
		if in.Message == nil {
			return out, nil
		}
		out.Message, err = s.getOrAddMessage(tx, c, NewMessage{
			ConversationID: out.Conversation.ID, UserID: out.User.ID, Type: in.Message.Type, Origin: in.Message.Origin,
			Payload: in.Message.Payload, Tags: in.Message.Tags, Waited: in.Waits(),
		}, find.message)
		return out, err
	})
}

// Arrival is a message that a built-in integration takes in. Its user, its
// conversation and itself are told from others by these tags of the integration;
// a conversation may go by its id instead.
type Arrival struct {
	api.Wait                      // if the client waits for replies
	User, Conversation, Message   map[string]string
	ConversationID, Channel, Type string
	Payload                       api.Object
}

// Receive finds or makes a user, a conversation and a message, as
// initializeIncomingMessage does. A message that is there already is only found.
func (s *Service) Receive(ctx context.Context, c Caller, in Arrival) (Received, error) {
	do := initializeInput{
		Wait: in.Wait, User: &getOrCreateUserInput{Tags: in.User}, ConversationID: in.ConversationID,
		Message: &initializeMessage{Payload: in.Payload, Type: in.Type, Tags: in.Message},
	}
	if in.ConversationID == "" {
		do.Conversation = &getOrCreateConversationInput{Channel: in.Channel, Tags: in.Conversation}
	}
	if err := do.Check(); err != nil {
		return Received{}, err
	}
	return s.initialize(ctx, c, do)
}

// initializers are the three steps of initializeIncomingMessage, checked as far
// as that goes outside the transaction.
type initializers struct {
	user         func(sqldb.Q) (*User, error)
	conversation func(sqldb.Q) (*Conversation, error)
	message      discriminator
}

func (s *Service) initializers(ctx context.Context, c Caller, in initializeInput) (out initializers, err error) {
	q := s.DB.Reader(ctx)
	if in.User == nil {
		out.user = func(q sqldb.Q) (*User, error) { return s.userReference(q, c, in.UserID) }
		if _, err = out.user(q); err != nil {
			return out, err
		}
	} else if out.user, err = s.userStep(c, *in.User); err != nil {
		return out, err
	}
	if in.Conversation == nil {
		out.conversation = func(q sqldb.Q) (*Conversation, error) { return s.reference(q, c, in.ConversationID) }
		if _, err = out.conversation(q); err != nil {
			return out, err
		}
	} else if out.conversation, err = s.conversationStep(ctx, c, *in.Conversation); err != nil {
		return out, err
	}
	if in.Message != nil {
		if _, err = newTags(c, tag.Message, in.Message.Tags); err != nil {
			return out, err
		}
		out.message, err = discriminators(c, in.Message.Tags, in.Message.DiscriminateByTags)
	}
	return out, err
}
