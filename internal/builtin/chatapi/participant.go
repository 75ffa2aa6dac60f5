package chatapi

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

func (s *Service) participantOps() []api.Op {
	return []api.Op{
		api.Handle("addParticipant", "POST /conversations/{conversationId}/participants", auth.Chat, s.addParticipant, api.Doc("Adds a user to a conversation the caller owns.")),
		api.Handle("getParticipant", "GET /conversations/{conversationId}/participants/{userId}", auth.Chat, s.getParticipant, api.Doc("Returns a participant of a conversation the caller takes part in.")),
		api.Handle("listParticipants", "GET /conversations/{conversationId}/participants", auth.Chat, s.listParticipants, api.Doc("Lists the participants of a conversation the caller takes part in.")),
		api.Handle("removeParticipant", "DELETE /conversations/{conversationId}/participants/{userId}", auth.Chat, s.removeParticipant, api.Doc("Removes a user from a conversation the caller owns.")),
	}
}

type participantResult struct {
	Participant user `json:"participant"`
}

type addParticipantInput struct {
	ConversationID string `path:"conversationId"`
	UserID         string `json:"userId"`
}

func (s *Service) addParticipant(ctx context.Context, in addParticipantInput) (participantResult, error) {
	m, err := s.me(ctx)
	if err != nil {
		return participantResult{}, err
	}
	q := s.DB.Reader(ctx)
	v, err := s.conversation(q, m, in.ConversationID, owner)
	if err != nil {
		return participantResult{}, err
	}
	u, err := s.user(ctx, m.Caller, in.UserID)
	if err != nil {
		return participantResult{}, err
	}
	if u == nil {
		return participantResult{}, inBody(missing("User", in.UserID))
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (participantResult, error) {
		u, err := s.Messaging.AddParticipant(tx, m.Caller, v.ID, u.ID)
		if err != nil {
			return participantResult{}, err
		}
		return participantResult{s.viewUser(u)}, nil
	})
}

type participantRef struct {
	ConversationID string `path:"conversationId"`
	UserID         string `path:"userId"`
}

func missingParticipant(in participantRef) error {
	return fault.ResourceNotFound.New("User %q doesn't participate in conversation %q", in.UserID, in.ConversationID)
}

func (s *Service) getParticipant(ctx context.Context, in participantRef) (participantResult, error) {
	m, err := s.me(ctx)
	if err != nil {
		return participantResult{}, err
	}
	q := s.DB.Reader(ctx)
	v, err := s.conversation(q, m, in.ConversationID, participant)
	if err != nil {
		return participantResult{}, err
	}
	userID, err := s.resolve(q, m.Caller, tag.User, in.UserID)
	if err != nil {
		return participantResult{}, err
	}
	u, err := s.Messaging.Participant(q, m.Caller, v.ID, userID)
	if fault.Is(err, fault.ResourceNotFound) {
		return participantResult{}, missingParticipant(in)
	}
	if err != nil {
		return participantResult{}, err
	}
	return participantResult{s.viewUser(u)}, nil
}

type listParticipantsInput struct {
	page.Query
	ConversationID string `path:"conversationId"`
}

type participantsResult struct {
	Participants []user    `json:"participants"`
	Meta         page.Meta `json:"meta"`
}

func (s *Service) listParticipants(ctx context.Context, in listParticipantsInput) (participantsResult, error) {
	m, err := s.me(ctx)
	if err != nil {
		return participantsResult{}, err
	}
	q := s.DB.Reader(ctx)
	v, err := s.conversation(q, m, in.ConversationID, participant)
	if err != nil {
		return participantsResult{}, err
	}
	users, meta, err := s.Messaging.Participants(q, m.Caller, v.ID, in.Query)
	out := participantsResult{[]user{}, meta}
	for _, u := range users {
		out.Participants = append(out.Participants, s.viewUser(u))
	}
	return out, err
}

func (s *Service) removeParticipant(ctx context.Context, in participantRef) (none, error) {
	m, err := s.me(ctx)
	if err != nil {
		return none{}, err
	}
	q := s.DB.Reader(ctx)
	v, err := s.conversation(q, m, in.ConversationID, owner)
	if err != nil {
		return none{}, err
	}
	userID, err := s.resolve(q, m.Caller, tag.User, in.UserID)
	if err != nil {
		return none{}, err
	}
	if userID == v.Tags["owner"] {
		return none{}, fault.InvalidPayload.New("User %q owns conversation %q and cannot be removed from it", in.UserID, in.ConversationID)
	}
	if there, err := s.Messaging.Participates(q, v.ID, userID); err != nil || !there {
		if err == nil {
			err = missingParticipant(in)
		}
		return none{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (none, error) {
		return none{}, s.Messaging.RemoveParticipant(tx, m.Caller, v.ID, userID)
	})
}
