package chatapi

import (
	"context"
	"strings"

	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/messaging"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

// me is the caller of an operation that needs an existing user: who it acts as
// in messaging, and the user's real id.
type me struct {
	messaging.Caller
	UserID string
}

func (s *Service) me(ctx context.Context) (me, error) {
	p := auth.From(ctx)
	if p.UserID == "" {
		return me{}, noUser()
	}
	c, err := s.Messaging.Caller(ctx)
	return me{c, p.UserID}, err
}

// noUser is the answer to a key whose user is not there.
func noUser() error {
	return fault.Unauthorized.New("The user of this x-user-key doesn't exist; getOrCreateUser creates it")
}

// role is what somebody is in a conversation.
type role int

const (
	anybody role = iota
	participant
	owner
)

// conversation finds a conversation by the id the client uses. must is what the
// caller has to be in it.
func (s *Service) conversation(q sqldb.Q, m me, name string, must role) (*messaging.Conversation, error) {
	real, err := s.resolve(q, m.Caller, tag.Conversation, name)
	if err != nil {
		return nil, err
	}
	if real == "" {
		return nil, missing("Conversation", name)
	}
	v, err := s.Messaging.Conversation(q, m.Caller, real)
	if fault.Is(err, fault.ResourceNotFound) {
		return nil, missing("Conversation", name)
	}
	if err != nil {
		return nil, err
	}
	return v, s.require(q, m, v, name, must)
}

func (s *Service) require(q sqldb.Q, m me, v *messaging.Conversation, name string, must role) error {
	switch must {
	case owner:
		if v.Tags["owner"] != m.UserID {
			return fault.Forbidden.New("Only the owner of conversation %q may do this", name)
		}
	case participant:
		if in, err := s.Messaging.Participates(q, v.ID, m.UserID); err != nil || !in {
			return orForbidden(err, "conversation", name)
		}
	}
	return nil
}

// partOf checks that the caller may see something of a conversation. The rows
// of a deleted conversation are there for a while longer and count as gone.
func (s *Service) partOf(q sqldb.Q, m me, conversationID, what, id string) error {
	_, err := s.conversation(q, m, conversationID, participant)
	switch {
	case fault.Is(err, fault.ResourceNotFound):
		return missing(what, id)
	case fault.Is(err, fault.Forbidden):
		return orForbidden(nil, "the conversation of "+strings.ToLower(what), id)
	}
	return err
}

// orForbidden is err, or, where reading went well, the answer to a stranger.
func orForbidden(err error, where, id string) error {
	if err != nil {
		return err
	}
	return fault.Forbidden.New("You don't participate in %s %q", where, id)
}

// missing is the answer for an id that leads nowhere.
func missing(what, id string) error {
	return fault.ResourceNotFound.New("%s %q doesn't exist", what, id)
}

// inBody turns "doesn't exist" into what it is called for an id in a body.
func inBody(err error) error {
	if f := fault.From(err); err != nil && f.Kind == fault.ResourceNotFound {
		return fault.ReferenceNotFound.New("%s", f.Message)
	}
	return err
}
