package messaging

import (
	"context"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/once"
	"parley/internal/page"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

func (s *Service) conversationOps() []api.Op {
	return []api.Op{
		api.Handle("createConversation", "POST /v1/chat/conversations", auth.Runtime, s.createConversation, api.Created, api.Doc("Creates a conversation in a channel.")),
		api.Handle("getConversation", "GET /v1/chat/conversations/{id}", auth.Runtime, s.getConversation, api.Doc("Returns a conversation.")),
		api.Handle("listConversations", "GET /v1/chat/conversations", auth.Runtime, s.listConversations, api.Doc("Lists conversations, newest first.")),
		api.Handle("getOrCreateConversation", "POST /v1/chat/conversations/get-or-create", auth.Runtime, s.getOrCreateConversation, api.Doc("Returns the conversation of this channel with these tags, creating it if there is none.")),
		api.Handle("updateConversation", "PUT /v1/chat/conversations/{id}", auth.Runtime, s.updateConversation, api.Doc("Changes the tags of a conversation; an empty or null tag removes it.")),
		api.Handle("deleteConversation", "DELETE /v1/chat/conversations/{id}", auth.Runtime, s.deleteConversation, api.Doc("Deletes a conversation with its messages.")),
	}
}

type conversationResult struct {
	Conversation *Conversation `json:"conversation"`
}

type getOrCreateConversationInput struct {
	Channel            string            `json:"channel" max:"200"`
	Tags               map[string]string `json:"tags"`
	IntegrationName    string            `json:"integrationName,omitempty" max:"200"`
	DiscriminateByTags []string          `json:"discriminateByTags,omitempty"`
}

type createConversationInput struct {
	Channel         string            `json:"channel" max:"200"`
	Tags            map[string]string `json:"tags"`
	IntegrationName string            `json:"integrationName,omitempty" max:"200"`
}

// prepare finds the installation that carries a new conversation and checks
// what can be checked outside the transaction.
func (s *Service) prepare(ctx context.Context, c Caller, in createConversationInput) (NewConversation, error) {
	nv := NewConversation{Channel: in.Channel, Tags: in.Tags}
	if _, err := newTags(c, tag.Conversation, in.Tags); err != nil {
		return nv, err
	}
	owner, err := c.ownerNamed(in.IntegrationName)
	if err != nil {
		return nv, err
	}
	if owner != "" {
		nv.InstallationID = owner
		return nv, s.checkChannel(ctx, c, owner, in.Channel)
	}
	for _, candidate := range c.Bot.Installations {
		if candidate.Removed || s.checkChannel(ctx, c, candidate.ID, in.Channel) != nil {
			continue
		}
		if nv.InstallationID != "" {
			return nv, fault.InvalidPayload.New("several installations have a channel %q; name one of them in integrationName: %s", in.Channel, c.aliases())
		}
		nv.InstallationID = candidate.ID
	}
	if nv.InstallationID == "" {
		return nv, fault.InvalidPayload.New("channel %q is not a channel of any integration installed in bot %q; installed are: %s", in.Channel, c.Bot.ID, c.aliases())
	}
	return nv, nil
}

func (s *Service) checkChannel(ctx context.Context, c Caller, installationID, channel string) error {
	rules, err := s.Directory.Rules(ctx, c.Bot.ID, installationID)
	if err != nil {
		return err
	}
	if len(rules.Channels) > 0 && !rules.Channels[channel] {
		return fault.InvalidPayload.New("channel %q is not declared by the integration %q", channel, c.names().Alias(installationID))
	}
	return nil
}

func (s *Service) createConversation(ctx context.Context, in createConversationInput) (conversationResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return conversationResult{}, err
	}
	nv, err := s.prepare(ctx, c, in)
	if err != nil {
		return conversationResult{}, err
	}
	if in.IntegrationName != "" {
		conversationID, err := s.made(ctx, c, nv.InstallationID, "conversation", wanted{in.Channel, in.Tags})
		if err != nil {
			return conversationResult{}, err
		}
		if conversationID != "" {
			v, err := s.Conversation(s.DB.Reader(ctx), c, conversationID)
			return conversationResult{v}, unmade(err, in.IntegrationName, "conversation", conversationID)
		}
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (conversationResult, error) {
		v, err := s.AddConversation(tx, c, nv)
		return conversationResult{v}, err
	})
}

func (s *Service) getConversation(ctx context.Context, in ref) (conversationResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return conversationResult{}, err
	}
	v, err := s.Conversation(s.DB.Reader(ctx), c, in.ID)
	return conversationResult{v}, err
}

func (s *Service) getOrCreateConversation(ctx context.Context, in getOrCreateConversationInput) (conversationResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return conversationResult{}, err
	}
	find, err := s.conversationStep(ctx, c, in)
	if err != nil {
		return conversationResult{}, err
	}
	if v, err := find(s.DB.Reader(ctx)); err != nil || v != nil {
		return conversationResult{v}, err // the ordinary case needs no transaction
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (conversationResult, error) {
		v, err := find(tx)
		return conversationResult{v}, err
	})
}

// conversationStep checks a get-or-create of a conversation. What it returns
// finds the conversation, and in a transaction makes it if there is none.
func (s *Service) conversationStep(ctx context.Context, c Caller, in getOrCreateConversationInput) (func(sqldb.Q) (*Conversation, error), error) {
	nv, err := s.prepare(ctx, c, createConversationInput{in.Channel, in.Tags, in.IntegrationName})
	if err != nil {
		return nil, err
	}
	key, err := discriminators(c, in.Tags, in.DiscriminateByTags)
	if err != nil {
		return nil, err
	}
	return func(q sqldb.Q) (*Conversation, error) {
		if tx, ok := q.(*sqldb.Tx); ok {
			return s.getOrAddConversation(tx, c, nv, key)
		}
		return s.findConversation(q, c, nv, key)
	}, nil
}

type updateConversationInput struct {
	ID            string                          `path:"id"`
	CurrentTaskID string                          `json:"currentTaskId,omitempty" format:"id"`
	Tags          map[string]api.Nullable[string] `json:"tags,omitempty"`
}

func (s *Service) updateConversation(ctx context.Context, in updateConversationInput) (conversationResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return conversationResult{}, err
	}
	q := s.DB.Reader(ctx)
	v, err := s.Conversation(q, c, in.ID)
	if err != nil {
		return conversationResult{}, err
	}
	change := conversationChange{values(in.Tags), in.CurrentTaskID}
	if err := s.checkCurrentTask(q, c, in.ID, change); err != nil {
		return conversationResult{}, err
	}
	told, err := s.wants(ctx, c, v.InstallationID, opConversationUpdated)
	if err != nil {
		return conversationResult{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (conversationResult, error) {
		v, err := s.changeConversation(tx, c, in.ID, change, told)
		return conversationResult{v}, err
	})
}

func (s *Service) deleteConversation(ctx context.Context, in ref) (none, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return none{}, err
	}
	if _, err := s.Conversation(s.DB.Reader(ctx), c, in.ID); err != nil {
		return none{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (none, error) {
		return none{}, s.DropConversation(tx, c, in.ID)
	})
}

type listConversationsInput struct {
	page.Query
	SortField       string            `query:"sortField" enum:"createdAt,updatedAt"`
	SortDirection   string            `query:"sortDirection" enum:"asc,desc"`
	Tags            map[string]string `query:"tags"`
	ParticipantIDs  []string          `query:"participantIds" format:"id"`
	IntegrationName string            `query:"integrationName"`
	Channel         string            `query:"channel"`
	AfterDate       *api.Time         `query:"afterDate"`
	BeforeDate      *api.Time         `query:"beforeDate"`
}

type conversationsResult struct {
	Conversations []*Conversation `json:"conversations"`
	Meta          page.Meta       `json:"meta"`
}

func (s *Service) listConversations(ctx context.Context, in listConversationsInput) (conversationsResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return conversationsResult{}, err
	}
	l := newListing("conversations", c, in.SortField, in.SortDirection)
	for _, userID := range in.ParticipantIDs {
		l.And("EXISTS (SELECT 1 FROM participants p WHERE p.conversation_id = e.id AND p.user_id = ?)", userID)
	}
	if in.IntegrationName != "" {
		owner := c.names().Owner(in.IntegrationName)
		if owner == "" {
			owner = "?" // nobody goes by that name: nothing matches
		}
		l.And("e.installation_id = ?", owner)
	}
	if in.Channel != "" {
		l.And("e.channel = ?", in.Channel)
	}
	l.tagged(tag.Conversation, in.Tags)
	l.between(in.SortField, in.AfterDate, in.BeforeDate)
	return s.conversationsPage(s.DB.Reader(ctx), c, l, in.Query)
}

func (s *Service) conversationsPage(q sqldb.Q, c Caller, l *listing, pq page.Query) (conversationsResult, error) {
	var out conversationsResult
	var err error
	out.Conversations, out.Meta, err = list(q, l, pq, func(v *Conversation) (int64, string) {
		v.As(c)
		return l.at(int64(v.CreatedAt), int64(v.UpdatedAt)), v.ID
	})
	return out, err
}
