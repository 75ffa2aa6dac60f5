package messaging

import (
	"context"
	"fmt"
	"time"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/once"
	"parley/internal/page"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

func (s *Service) messageOps() []api.Op {
	return []api.Op{
		api.HandleWait("createMessage", "POST /v1/chat/messages", auth.Runtime, s.createMessage, s.addReplies, api.Created, api.Doc("Creates a message: as the bot an outgoing one, with x-integration-id an incoming one.")),
		api.HandleWait("getOrCreateMessage", "POST /v1/chat/messages/get-or-create", auth.Runtime, s.getOrCreateMessage, s.addReplies, api.Doc("Returns the message of this conversation with these tags, creating it if there is none.")),
		api.HandleWait("initializeIncomingMessage", "POST /v1/chat/initialize-incoming-message", auth.Runtime, s.initializeIncomingMessage, s.addRepliesToFirst, api.Tag("messages"), api.Doc("Finds or makes a user, a conversation and an incoming message at once.")),
		api.Handle("getMessage", "GET /v1/chat/messages/{id}", auth.Runtime, s.getMessage, api.Doc("Returns a message.")),
		api.Handle("updateMessage", "PUT /v1/chat/messages/{id}", auth.Runtime, s.updateMessage, api.Doc("Changes the tags or payload of a message; an empty or null tag removes it.")),
		api.Handle("listMessages", "GET /v1/chat/messages", auth.Runtime, s.listMessages, api.Doc("Lists messages, newest first: of one conversation, or all the caller may see.")),
		api.Handle("deleteMessage", "DELETE /v1/chat/messages/{id}", auth.Runtime, s.deleteMessage, api.Doc("Deletes a message.")),
	}
}

type messageResult struct {
	Message *Message `json:"message"`
}

// sentResult is a message with what the bot has said about it, if the client
// has waited for that.
type sentResult struct {
	Message *Message `json:"message"`
	Waited
}

// addReplies waits for what an answer is to hold besides.
func (s *Service) addReplies(ctx context.Context, out *sentResult, d time.Duration) {
	out.Waited = s.WaitFor(ctx, out.Message, d)
}

type createMessageInput struct {
	api.Wait
	Payload        api.Object        `json:"payload"`
	UserID         string            `json:"userId" format:"id"`
	ConversationID string            `json:"conversationId" format:"id"`
	Type           string            `json:"type" max:"200"`
	Tags           map[string]string `json:"tags"`
	Schedule       *schedule         `json:"schedule,omitempty"`
	Origin         string            `json:"origin,omitempty" enum:"synthetic"`
}

func (in createMessageInput) message(now int64) (NewMessage, error) {
	m := NewMessage{ConversationID: in.ConversationID, UserID: in.UserID, Type: in.Type, Origin: in.Origin, Payload: in.Payload, Tags: in.Tags, Waited: in.Waits()}
	if in.Waits() && in.Schedule != nil {
		return m, fault.InvalidPayload.New("wait does not go with schedule: the bot is told of the message at its time only")
	}
	var err error
	if m.Due, err = in.Schedule.due(now); err != nil {
		return m, err
	}
	return m, checkMessage(m)
}

func (s *Service) createMessage(ctx context.Context, in createMessageInput) (sentResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return sentResult{}, err
	}
	m, err := in.message(s.now())
	if err != nil {
		return sentResult{}, err
	}
	if err := s.Admit(ctx, c, m); err != nil {
		return sentResult{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (sentResult, error) {
		m, err := s.addOrSchedule(tx, c, m)
		return sentResult{Message: m}, err
	})
}

type getOrCreateMessageInput struct {
	api.Wait
	Payload            api.Object        `json:"payload"`
	UserID             string            `json:"userId" format:"id"`
	ConversationID     string            `json:"conversationId" format:"id"`
	Type               string            `json:"type" max:"200"`
	Tags               map[string]string `json:"tags"`
	Schedule           *schedule         `json:"schedule,omitempty"`
	Origin             string            `json:"origin,omitempty" enum:"synthetic"`
	DiscriminateByTags []string          `json:"discriminateByTags,omitempty"`
}

func (s *Service) getOrCreateMessage(ctx context.Context, in getOrCreateMessageInput) (sentResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return sentResult{}, err
	}
	m, err := createMessageInput{in.Wait, in.Payload, in.UserID, in.ConversationID, in.Type, in.Tags, in.Schedule, in.Origin}.message(s.now())
	if err != nil {
		return sentResult{}, err
	}
	key, err := discriminators(c, in.Tags, in.DiscriminateByTags)
	if err != nil {
		return sentResult{}, err
	}
	if err := s.Admit(ctx, c, m); err != nil {
		return sentResult{}, err
	}
	if found, err := s.findMessage(s.DB.Reader(ctx), c, m, key); err != nil || found != nil {
		return sentResult{Message: found}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (sentResult, error) {
		m, err := s.getOrAddMessage(tx, c, m, key)
		return sentResult{Message: m}, err
	})
}

func (s *Service) getMessage(ctx context.Context, in ref) (messageResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return messageResult{}, err
	}
	m, err := s.Message(s.DB.Reader(ctx), c, in.ID)
	return messageResult{m}, err
}

type updateMessageInput struct {
	ID      string                          `path:"id"`
	Tags    map[string]api.Nullable[string] `json:"tags"`
	Payload api.Object                      `json:"payload,omitempty"`
}

func (s *Service) updateMessage(ctx context.Context, in updateMessageInput) (messageResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return messageResult{}, err
	}
	if err := checkPayload("payload", in.Payload); err != nil {
		return messageResult{}, err
	}
	m, err := s.Message(s.DB.Reader(ctx), c, in.ID)
	if err != nil {
		return messageResult{}, err
	}
	told, err := s.wants(ctx, c, m.InstallationID, opMessageUpdated)
	if err != nil {
		return messageResult{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (messageResult, error) {
		m, err := s.changeMessage(tx, c, in.ID, values(in.Tags), in.Payload, told)
		return messageResult{m}, err
	})
}

type listMessagesInput struct {
	page.Query
	ConversationID string            `query:"conversationId" format:"id"`
	Tags           map[string]string `query:"tags"`
	AfterDate      *api.Time         `query:"afterDate"`
	BeforeDate     *api.Time         `query:"beforeDate"`
}

type messagesResult struct {
	Messages []*Message `json:"messages"`
	Meta     page.Meta  `json:"meta"`
}

func (s *Service) listMessages(ctx context.Context, in listMessagesInput) (messagesResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return messagesResult{}, err
	}
	q := s.DB.Reader(ctx)
	l := newListing("messages", c, "", "")
	if in.ConversationID != "" {
		if _, err := s.reference(q, c, in.ConversationID); err != nil {
			return messagesResult{}, err
		}
		l.And("e.conversation_id = ?", in.ConversationID)
	} else {
		l.key = ""
		l.And(fmt.Sprintf(conversationLives, "e"))
	}
	l.tagged(tag.Message, in.Tags)
	l.between("", in.AfterDate, in.BeforeDate)
	var out messagesResult
	out.Messages, out.Meta, err = s.messagesPage(q, c, l, in.Query)
	return out, err
}

func (s *Service) deleteMessage(ctx context.Context, in ref) (none, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return none{}, err
	}
	promised, err := s.scheduledMessage(s.DB.Reader(ctx), c, in.ID)
	if err != nil {
		return none{}, err
	}
	if promised == nil {
		if _, err := s.Message(s.DB.Reader(ctx), c, in.ID); err != nil {
			return none{}, err
		}
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (none, error) {
		if canceled, err := s.cancelMessage(tx, c, in.ID); err != nil || canceled {
			return none{}, err
		}
		return none{}, s.DropMessage(tx, c, in.ID)
	})
}
