package chatapi

import (
	"context"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/messaging"
	"parley/internal/once"
	"parley/internal/page"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

// channel is the one channel of chat.
const channel = "channel"

func (s *Service) conversationOps() []api.Op {
	return []api.Op{
		api.Handle("createConversation", "POST /conversations", auth.Chat, s.createConversation, api.Created, api.Faults(fault.AlreadyExists), api.Doc("Creates a conversation; the caller owns it and takes part in it.")),
		api.Handle("getOrCreateConversation", "POST /conversations/get-or-create", auth.Chat, s.getOrCreateConversation, api.Created, api.Doc("Returns the caller's conversation with this id, creating it if there is none.")),
		api.Handle("getConversation", "GET /conversations/{id}", auth.Chat, s.getConversation, api.Doc("Returns a conversation the caller takes part in.")),
		api.Handle("listConversations", "GET /conversations", auth.Chat, s.listConversations, api.Doc("Lists the conversations the caller owns, newest first.")),
		api.Handle("deleteConversation", "DELETE /conversations/{id}", auth.Chat, s.deleteConversation, api.Doc("Deletes a conversation the caller owns.")),
		s.listenOp(),
	}
}

// conversation is a conversation as chat clients see it.
type conversation struct {
	ID        string   `json:"id"`
	CreatedAt api.Time `json:"createdAt"`
	UpdatedAt api.Time `json:"updatedAt"`
}

func (s *Service) viewConversation(v *messaging.Conversation) conversation {
	return conversation{s.nameOf(v.ID, v.Tags), v.CreatedAt, v.UpdatedAt}
}

type conversationResult struct {
	Conversation conversation `json:"conversation"`
}

func (s *Service) conversationResult(v *messaging.Conversation, err error) (conversationResult, error) {
	if err != nil {
		return conversationResult{}, err
	}
	return conversationResult{s.viewConversation(v)}, nil
}

type createConversationInput struct {
	ID *string `json:"id,omitempty"`
}

func (s *Service) createConversation(ctx context.Context, in createConversationInput) (conversationResult, error) {
	m, err := s.me(ctx)
	if err != nil {
		return conversationResult{}, err
	}
	name := ""
	if in.ID != nil {
		name = *in.ID
		if err := s.checkConversationName(ctx, m, name); err != nil {
			return conversationResult{}, err
		}
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (conversationResult, error) {
		if name != "" {
			if taken, err := s.holder(tx, m.Caller, tag.Conversation, name); err != nil || taken != "" {
				return conversationResult{}, orTaken(err, "Conversation", name)
			}
		}
		return s.addConversation(tx, m, name)
	})
}

// checkConversationName refuses a chosen id that cannot be had.
func (s *Service) checkConversationName(ctx context.Context, m me, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	_, err := s.conversation(s.DB.Reader(ctx), m, name, anybody)
	if fault.Is(err, fault.ResourceNotFound) {
		return nil
	}
	return orTaken(err, "Conversation", name)
}

// addConversation makes a conversation under a chosen name, "" for none.
func (s *Service) addConversation(tx *sqldb.Tx, m me, name string) (conversationResult, error) {
	tags := map[string]string{"owner": m.UserID}
	if name != "" {
		tags[fid] = name
	}
	return s.conversationResult(s.Messaging.AddConversation(tx, m.Caller, messaging.NewConversation{
		Channel: channel, Tags: tags, InstallationID: m.Installation.ID, Participants: []string{m.UserID},
	}))
}

type getOrCreateConversationInput struct {
	ID string `json:"id"`
}

func (s *Service) getOrCreateConversation(ctx context.Context, in getOrCreateConversationInput) (conversationResult, error) {
	m, err := s.me(ctx)
	if err != nil {
		return conversationResult{}, err
	}
	there, err := s.conversation(s.DB.Reader(ctx), m, in.ID, owner)
	if !fault.Is(err, fault.ResourceNotFound) {
		return s.conversationResult(there, err)
	}
	if looksReal(in.ID) {
		return conversationResult{}, inBody(err)
	}
	if err := checkName(in.ID); err != nil {
		return conversationResult{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (conversationResult, error) {
		there, err := s.holder(tx, m.Caller, tag.Conversation, in.ID)
		switch {
		case err != nil:
			return conversationResult{}, err
		case there != "":
			return s.conversationResult(s.conversation(tx, m, in.ID, owner))
		}
		return s.addConversation(tx, m, in.ID)
	})
}

type ref struct {
	ID string `path:"id"`
}

func (s *Service) getConversation(ctx context.Context, in ref) (conversationResult, error) {
	m, err := s.me(ctx)
	if err != nil {
		return conversationResult{}, err
	}
	return s.conversationResult(s.conversation(s.DB.Reader(ctx), m, in.ID, participant))
}

type conversationsResult struct {
	Conversations []conversation `json:"conversations"`
	Meta          page.Meta      `json:"meta"`
}

func (s *Service) listConversations(ctx context.Context, in page.Query) (conversationsResult, error) {
	m, err := s.me(ctx)
	if err != nil {
		return conversationsResult{}, err
	}
	owned, meta, err := s.Messaging.ConversationsTagged(s.DB.Reader(ctx), m.Caller, map[string]string{"owner": m.UserID}, in)
	out := conversationsResult{[]conversation{}, meta}
	for _, v := range owned {
		out.Conversations = append(out.Conversations, s.viewConversation(v))
	}
	return out, err
}

func (s *Service) deleteConversation(ctx context.Context, in ref) (none, error) {
	m, err := s.me(ctx)
	if err != nil {
		return none{}, err
	}
	v, err := s.conversation(s.DB.Reader(ctx), m, in.ID, owner)
	if err != nil {
		return none{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (none, error) {
		tx.AfterCommit(func() { s.names.forget(v.ID) })
		return none{}, s.Messaging.DropConversation(tx, m.Caller, v.ID)
	})
}
