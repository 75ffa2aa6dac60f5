package chatapi

import (
	"context"
	"time"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/messaging"
	"parley/internal/once"
	"parley/internal/page"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

func (s *Service) messageOps() []api.Op {
	return []api.Op{
		api.HandleWait("createMessage", "POST /messages", auth.Chat, s.createMessage, s.addReplies, api.Created, api.Doc("Sends a message to the bot.")),
		api.Handle("getMessage", "GET /messages/{id}", auth.Chat, s.getMessage, api.Doc("Returns a message of a conversation the caller takes part in.")),
		api.Handle("deleteMessage", "DELETE /messages/{id}", auth.Chat, s.deleteMessage, api.Doc("Deletes a message the caller sent.")),
		api.Handle("listMessages", "GET /conversations/{conversationId}/messages", auth.Chat, s.listMessages, api.Doc("Lists the messages of a conversation the caller takes part in, newest first.")),
	}
}

// message is a message as chat clients see it.
type message struct {
	ID             string     `json:"id"`
	CreatedAt      api.Time   `json:"createdAt"`
	Payload        api.Object `json:"payload"`
	UserID         string     `json:"userId"`
	ConversationID string     `json:"conversationId"`
	Metadata       api.Object `json:"metadata,omitzero"`
}

// viewMessage shows a message.
//
// Compat: the official getMessage names the reader as the author; here it is
// the author.
func (s *Service) viewMessage(q sqldb.Q, c messaging.Caller, m *messaging.Message) (message, error) {
	out := message{ID: m.ID, CreatedAt: m.CreatedAt}
	out.Payload, out.Metadata = toChat(m.Type, m.Payload)
	var err error
	out.ConversationID, out.UserID, err = s.bothNames(q, c, m.ConversationID, m.UserID)
	return out, err
}

type messageResult struct {
	Message message `json:"message"`
}

func (s *Service) messageResult(q sqldb.Q, m me, found *messaging.Message) (messageResult, error) {
	out, err := s.viewMessage(q, m.Caller, found)
	return messageResult{out}, err
}

// sentResult is a message with what the bot has said about it, if the client
// has waited for that.
type sentResult struct {
	messageResult
	Replies  []message `json:"replies,omitzero" doc:"If the request waits: what the bot has said about it, in order, the first 100 messages."`
	Finished *bool     `json:"finished,omitzero" doc:"If the request waits: whether the bot is done with it, so that no more replies come."`
}

// addReplies waits for the bot. Who may not read the conversation any more by
// then gets nothing of it.
func (s *Service) addReplies(ctx context.Context, out *sentResult, d time.Duration) {
	out.Replies, out.Finished = []message{}, new(bool)
	m, err := s.me(ctx)
	if err != nil {
		return // the user is gone
	}
	r := s.Messaging.Await(ctx, m.Caller, out.Message.ID, d)
	*out.Finished = r.Finished
	replies, err := s.viewReplies(ctx, m, r.Messages)
	switch {
	case err == nil:
		out.Replies = replies
	case ctx.Err() == nil:
		s.Log.Warn("show replies", "message", out.Message.ID, "err", err)
		*out.Finished = false
	}
}

func (s *Service) viewReplies(ctx context.Context, m me, said []*messaging.Message) ([]message, error) {
	out := []message{}
	if len(said) == 0 {
		return out, nil
	}
	if may, err := s.allowed(ctx, m.listener(said[0].ConversationID)); err != nil || !may {
		return out, err
	}
	q := s.DB.Reader(ctx)
	for _, found := range said {
		one, err := s.viewMessage(q, m.Caller, found)
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, nil
}

type createMessageInput struct {
	api.Wait
	Payload        payload    `json:"payload"`
	ConversationID string     `json:"conversationId"`
	Metadata       api.Object `json:"metadata,omitzero"`
}

// Check refuses metadata in both places: the bot gets it as a member of the
// payload, so one of them would be lost.
func (in createMessageInput) Check() error {
	if in.Metadata != nil && in.Payload.Member("metadata") != nil {
		return fault.InvalidPayload.New("metadata and payload.metadata are the same to the bot; send one of them")
	}
	return nil
}

func (s *Service) createMessage(ctx context.Context, in createMessageInput) (sentResult, error) {
	m, err := s.me(ctx)
	if err != nil {
		return sentResult{}, err
	}
	q := s.DB.Reader(ctx)
	nm := messaging.NewMessage{UserID: m.UserID, Participant: true, Waited: in.Waits()}
	if nm.ConversationID, err = s.resolve(q, m.Caller, tag.Conversation, in.ConversationID); err != nil {
		return sentResult{}, err
	}
	if nm.ConversationID == "" {
		return sentResult{}, inBody(missing("Conversation", in.ConversationID))
	}
	nm.Type, nm.Payload = fromChat(in.Payload, in.Metadata)
	if err := s.Messaging.Admit(ctx, m.Caller, nm); err != nil {
		return sentResult{}, refusal(err, in.ConversationID)
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (sentResult, error) {
		sent, err := s.Messaging.AddMessage(tx, m.Caller, nm)
		if err != nil {
			return sentResult{}, refusal(err, in.ConversationID)
		}
		out, err := s.messageResult(tx, m, sent)
		return sentResult{messageResult: out}, err
	})
}

// refusal puts what the client calls the conversation into an error about it.
func refusal(err error, name string) error {
	switch {
	case fault.Is(err, fault.ReferenceNotFound):
		return inBody(missing("Conversation", name))
	case fault.Is(err, fault.Forbidden):
		return orForbidden(nil, "conversation", name)
	}
	return err
}

// message finds a message of a conversation the caller takes part in.
func (s *Service) message(q sqldb.Q, m me, messageID string) (*messaging.Message, error) {
	found, err := s.Messaging.Message(q, m.Caller, messageID)
	if fault.Is(err, fault.ResourceNotFound) {
		return nil, missing("Message", messageID)
	}
	if err != nil {
		return nil, err
	}
	return found, s.partOf(q, m, found.ConversationID, "Message", messageID)
}

func (s *Service) getMessage(ctx context.Context, in ref) (messageResult, error) {
	m, err := s.me(ctx)
	if err != nil {
		return messageResult{}, err
	}
	q := s.DB.Reader(ctx)
	found, err := s.message(q, m, in.ID)
	if err != nil {
		return messageResult{}, err
	}
	return s.messageResult(q, m, found)
}

func (s *Service) deleteMessage(ctx context.Context, in ref) (none, error) {
	m, err := s.me(ctx)
	if err != nil {
		return none{}, err
	}
	found, err := s.message(s.DB.Reader(ctx), m, in.ID)
	if err != nil {
		return none{}, err
	}
	if found.UserID != m.UserID {
		return none{}, fault.Forbidden.New("Only the sender of message %q may delete it", in.ID)
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (none, error) {
		return none{}, s.Messaging.DropMessage(tx, m.Caller, found.ID)
	})
}

type listMessagesInput struct {
	page.Query
	ConversationID string `path:"conversationId"`
}

type messagesResult struct {
	Messages []message `json:"messages"`
	Meta     page.Meta `json:"meta"`
}

func (s *Service) listMessages(ctx context.Context, in listMessagesInput) (messagesResult, error) {
	m, err := s.me(ctx)
	if err != nil {
		return messagesResult{}, err
	}
	q := s.DB.Reader(ctx)
	v, err := s.conversation(q, m, in.ConversationID, participant)
	if err != nil {
		return messagesResult{}, err
	}
	messages, meta, err := s.Messaging.Messages(q, m.Caller, v.ID, in.Query)
	if err != nil {
		return messagesResult{}, err
	}
	out := messagesResult{[]message{}, meta}
	for _, found := range messages {
		one, err := s.viewMessage(q, m.Caller, found)
		if err != nil {
			return messagesResult{}, err
		}
		out.Messages = append(out.Messages, one)
	}
	return out, nil
}
