package messaging

import (
	"context"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/once"
	"parley/internal/page"
	"parley/internal/sqldb"
)

func (s *Service) participantOps() []api.Op {
	return []api.Op{
		api.Handle("listParticipants", "GET /v1/chat/conversations/{id}/participants", auth.Runtime, s.listParticipants, api.Doc("Lists the participants of a conversation, newest first.")),
		api.Handle("addParticipant", "POST /v1/chat/conversations/{id}/participants", auth.Runtime, s.addParticipant, api.Doc("Adds a user to a conversation.")),
		api.Handle("getParticipant", "GET /v1/chat/conversations/{id}/participants/{userId}", auth.Runtime, s.getParticipant, api.Doc("Returns a participant of a conversation.")),
		api.Handle("removeParticipant", "DELETE /v1/chat/conversations/{id}/participants/{userId}", auth.Runtime, s.removeParticipant, api.Doc("Removes a user from a conversation.")),
	}
}

// Participates reports whether a user takes part in a conversation.
func (s *Service) Participates(q sqldb.Q, conversationID, userID string) (bool, error) {
	rows, err := q.Query("SELECT 1 FROM participants WHERE conversation_id = $1 AND user_id = $2", conversationID, userID)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	return rows.Next(), rows.Err()
}

// AddParticipant adds a user to a conversation and signals it; a participant stays one.
func (s *Service) AddParticipant(tx *sqldb.Tx, c Caller, conversationID, userID string) (*User, error) {
	h, err := s.lock(tx, c, conversationID, 0)
	if err != nil {
		return nil, err
	}
	u, err := s.userReference(tx, c, userID)
	if err != nil {
		return nil, err
	}
	_, err = s.join(tx, h, u.ID)
	return u, err
}

// join makes a user a participant under a locked head and signals it. The head
// it returns has the position of that signal, if there was one.
func (s *Service) join(tx *sqldb.Tx, h head, userID string) (head, error) {
	n, err := tx.Exec("INSERT INTO participants (conversation_id, user_id, bot_id, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
		h.conversationID, userID, h.botID, s.now())
	if err != nil || n == 0 {
		return h, err
	}
	if err := tx.Send("UPDATE conversation_heads SET signal_pos = signal_pos + 1 WHERE conversation_id = $1", h.conversationID); err != nil {
		return h, err
	}
	h.pos++
	return h, s.signal(tx, h, ParticipantAdded, participantData{userID})
}

// RemoveParticipant ends a user's part in a conversation, signals it and ends
// the streams the user had on it.
func (s *Service) RemoveParticipant(tx *sqldb.Tx, c Caller, conversationID, userID string) error {
	h, err := s.lock(tx, c, conversationID, 1)
	if err != nil {
		return err
	}
	n, err := tx.Exec("DELETE FROM participants WHERE conversation_id = $1 AND user_id = $2", conversationID, userID)
	if err != nil {
		return err
	}
	if n == 0 {
		return missingParticipant(conversationID, userID)
	}
	if err := s.signal(tx, h, ParticipantRemoved, participantData{userID}); err != nil {
		return err
	}
	tx.AfterCommit(func() {
		s.known.forget(conversationID)
		s.Ended("conv:" + conversationID + ":user:" + userID)
	})
	return nil
}

func missingParticipant(conversationID, userID string) error {
	return fault.ResourceNotFound.New("User %q doesn't participate in conversation %q", userID, conversationID)
}

// Participant reads one participant.
func (s *Service) Participant(q sqldb.Q, c Caller, conversationID, userID string) (*User, error) {
	if _, err := s.Conversation(q, c, conversationID); err != nil {
		return nil, err
	}
	in, err := s.Participates(q, conversationID, userID)
	if err != nil {
		return nil, err
	}
	if !in {
		return nil, missingParticipant(conversationID, userID)
	}
	return s.User(q, c, userID)
}

// Participants reads a page of the participants of a conversation, newest user first.
func (s *Service) Participants(q sqldb.Q, c Caller, conversationID string, pq page.Query) ([]*User, page.Meta, error) {
	l := newListing("users", c, "", "")
	l.And("e.id IN (SELECT user_id FROM participants WHERE conversation_id = ?)", conversationID)
	return list(q, l, pq, func(u *User) (int64, string) {
		u.As(c)
		return int64(u.CreatedAt), u.ID
	})
}

type participantRef struct {
	ID     string `path:"id"`
	UserID string `path:"userId"`
}

type participantResult struct {
	Participant *User `json:"participant"`
}

type listParticipantsInput struct {
	page.Query
	ID string `path:"id"`
}

type participantsResult struct {
	Participants []*User   `json:"participants"`
	Meta         page.Meta `json:"meta"`
}

func (s *Service) listParticipants(ctx context.Context, in listParticipantsInput) (participantsResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return participantsResult{}, err
	}
	q := s.DB.Reader(ctx)
	if _, err := s.Conversation(q, c, in.ID); err != nil {
		return participantsResult{}, err
	}
	var out participantsResult
	out.Participants, out.Meta, err = s.Participants(q, c, in.ID, in.Query)
	return out, err
}

type addParticipantInput struct {
	ID     string `path:"id"`
	UserID string `json:"userId" format:"id"`
}

func (s *Service) addParticipant(ctx context.Context, in addParticipantInput) (participantResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return participantResult{}, err
	}
	q := s.DB.Reader(ctx)
	if _, err := s.Conversation(q, c, in.ID); err != nil {
		return participantResult{}, err
	}
	if _, err := s.userReference(q, c, in.UserID); err != nil {
		return participantResult{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (participantResult, error) {
		u, err := s.AddParticipant(tx, c, in.ID, in.UserID)
		return participantResult{u}, err
	})
}

func (s *Service) getParticipant(ctx context.Context, in participantRef) (participantResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return participantResult{}, err
	}
	u, err := s.Participant(s.DB.Reader(ctx), c, in.ID, in.UserID)
	return participantResult{u}, err
}

func (s *Service) removeParticipant(ctx context.Context, in participantRef) (none, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return none{}, err
	}
	if _, err := s.Participant(s.DB.Reader(ctx), c, in.ID, in.UserID); err != nil {
		return none{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (none, error) {
		return none{}, s.RemoveParticipant(tx, c, in.ID, in.UserID)
	})
}
