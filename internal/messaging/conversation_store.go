package messaging

import (
	"cmp"
	"errors"

	"parley/internal/api"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/page"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

// NewConversation is what a conversation is made of.
type NewConversation struct {
	Channel        string
	Tags           map[string]string // as the caller names them
	InstallationID string            // the installation that carries it
	Participants   []string          // users who take part from the start
}

// AddConversation makes a conversation and its head.
func (s *Service) AddConversation(tx *sqldb.Tx, c Caller, in NewConversation) (*Conversation, error) {
	set, err := newTags(c, tag.Conversation, in.Tags)
	if err != nil {
		return nil, err
	}
	now := s.now()
	v := &Conversation{
		ID: id.At("conv", now), CreatedAt: api.Time(now), UpdatedAt: api.Time(now), Channel: in.Channel,
		BotID: c.Bot.ID, InstallationID: in.InstallationID, AllTags: set,
	}
	if _, err := sqldb.Insert(tx, "conversations", v); err != nil {
		return nil, err
	}
	if _, err := tx.Exec(`INSERT INTO conversation_heads (conversation_id, bot_id, installation_id, message_seq, signal_pos, last_at) VALUES ($1, $2, $3, 0, 0, 0)`,
		v.ID, v.BotID, v.InstallationID); err != nil {
		return nil, err
	}
	for _, userID := range in.Participants {
		if _, err := tx.Exec("INSERT INTO participants (conversation_id, user_id, bot_id, created_at) VALUES ($1, $2, $3, $4)", v.ID, userID, v.BotID, now); err != nil {
			return nil, err
		}
	}
	return v.As(c), writeTags(tx, entity{c.Bot.ID, tag.Conversation, v.ID, now}, nil, set)
}

// getOrAddConversation finds the caller's conversation of that channel with the same tags, or makes one.
func (s *Service) getOrAddConversation(tx *sqldb.Tx, c Caller, in NewConversation, key discriminator) (*Conversation, error) {
	if err := key.lock(tx, c, tag.Conversation, in.InstallationID, in.Channel); err != nil {
		return nil, err
	}
	if v, err := s.findConversation(tx, c, in, key); err != nil || v != nil {
		return v, err
	}
	return s.AddConversation(tx, c, in)
}

// findConversation finds the conversation a get-or-create means, nil if there is none.
func (s *Service) findConversation(q sqldb.Q, c Caller, in NewConversation, key discriminator) (*Conversation, error) {
	ids, err := key.candidates(q, c, tag.Conversation)
	if err != nil {
		return nil, err
	}
	for _, conversationID := range ids {
		v, err := s.conversation(q, c, conversationID)
		if err != nil || v != nil && v.InstallationID == in.InstallationID && v.Channel == in.Channel && key.matches(c, v.AllTags) {
			return v, err
		}
	}
	return nil, nil
}

// conversation reads one conversation the caller may see, nil if there is none.
func (s *Service) conversation(q sqldb.Q, c Caller, conversationID string) (*Conversation, error) {
	v, err := sqldb.One[Conversation](q, "conversations", "WHERE id = $1 AND bot_id = $2", conversationID, c.Bot.ID)
	if errors.Is(err, sqldb.ErrNoRow) || err == nil && !c.sees(v.InstallationID) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return v.As(c), nil
}

// Conversation reads one conversation the caller may see; what is missing is a client's error.
func (s *Service) Conversation(q sqldb.Q, c Caller, conversationID string) (*Conversation, error) {
	v, err := s.conversation(q, c, conversationID)
	if err == nil && v == nil {
		err = c.missing("Conversation", conversationID)
	}
	return v, err
}

// reference is Conversation for an id in a body or query.
func (s *Service) reference(q sqldb.Q, c Caller, conversationID string) (*Conversation, error) {
	v, err := s.conversation(q, c, conversationID)
	if err == nil && v == nil {
		err = c.dangling("Conversation", conversationID)
	}
	return v, err
}

// Conversations reads several conversations of the bot by id, in no order; what is missing is left out.
func (s *Service) Conversations(q sqldb.Q, c Caller, ids []string) ([]*Conversation, error) {
	return manyByID[Conversation](q, "conversations", c, ids, func(v *Conversation) { v.As(c) })
}

// ConversationsTagged reads a page of the caller's conversations with these tags, newest first.
func (s *Service) ConversationsTagged(q sqldb.Q, c Caller, tags map[string]string, pq page.Query) ([]*Conversation, page.Meta, error) {
	l := newListing("conversations", c, "", "")
	l.tagged(tag.Conversation, tags)
	out, err := s.conversationsPage(q, c, l, pq)
	return out.Conversations, out.Meta, err
}

// Carrier returns the bot and the installation of a conversation, "" if it is gone.
func (s *Service) Carrier(q sqldb.Q, conversationID string) (botID, installationID string, err error) {
	rows, err := q.Query("SELECT bot_id, installation_id FROM conversation_heads WHERE conversation_id = $1", conversationID)
	if err != nil {
		return "", "", err
	}
	defer rows.Close()
	if rows.Next() {
		err = rows.Scan(&botID, &installationID)
	}
	return botID, installationID, errors.Join(err, rows.Err())
}

// conversationChange is what changes on a conversation; what is empty is left alone.
type conversationChange struct {
	Tags          map[string]string
	CurrentTaskID string
}

// checkCurrentTask refuses a task of another conversation.
func (s *Service) checkCurrentTask(q sqldb.Q, c Caller, conversationID string, in conversationChange) error {
	if in.CurrentTaskID == "" {
		return nil
	}
	t, err := s.taskReference(q, c, in.CurrentTaskID)
	if err == nil && t.ConversationID != conversationID {
		err = fault.RelationConflict.New("Task %q belongs to another conversation than %q", t.ID, conversationID)
	}
	return err
}

// changeConversation changes a conversation, and tells its installation if that
// asked for it.
func (s *Service) changeConversation(tx *sqldb.Tx, c Caller, conversationID string, in conversationChange, told bool) (*Conversation, error) {
	if _, err := s.lock(tx, c, conversationID, 0); err != nil {
		return nil, err
	}
	v, err := s.Conversation(tx, c, conversationID)
	if err != nil {
		return nil, err
	}
	before := *v
	before.AllTags = v.AllTags.Clone()
	if err := firstOf(applyTags(c, tag.Conversation, v.AllTags, in.Tags), s.checkCurrentTask(tx, c, v.ID, in)); err != nil {
		return nil, err
	}
	v.CurrentTaskID = cmp.Or(in.CurrentTaskID, v.CurrentTaskID)
	tx.AfterCommit(func() { s.conversations.Drop(conversationID) })
	v.UpdatedAt = api.Time(max(s.now(), int64(v.CreatedAt)))
	if err := sqldb.Update(tx, "conversations", v, sqldb.Column{Name: "id", Field: &v.ID}); err != nil {
		return nil, err
	}
	if told {
		if err := s.sendConversationUpdate(tx, c, before, *v); err != nil {
			return nil, err
		}
	}
	return v.As(c), writeTags(tx, entity{c.Bot.ID, tag.Conversation, v.ID, int64(v.CreatedAt)}, before.AllTags, v.AllTags)
}

// DropConversation deletes a conversation; what hangs on it is swept.
func (s *Service) DropConversation(tx *sqldb.Tx, c Caller, conversationID string) error {
	h, err := s.lock(tx, c, conversationID, 0)
	if err != nil {
		return err
	}
	if _, err := tx.Exec("DELETE FROM lanes WHERE key = $1 AND due = 9223372036854775807", outgoingLaneOf(h.installationID, conversationID)); err != nil {
		return err
	}
	for _, statement := range []string{
		"DELETE FROM conversation_heads WHERE conversation_id = $1",
		"DELETE FROM conversations WHERE id = $1",
		"DELETE FROM tags WHERE entity = $1",
	} {
		if _, err := tx.Exec(statement, conversationID); err != nil {
			return err
		}
	}
	tx.AfterCommit(func() {
		s.known.forget(conversationID)
		s.conversations.Drop(conversationID)
		s.conversationEnded(c.Bot.ID, conversationID)
	})
	return s.bury(tx, tag.Conversation, c.Bot.ID, conversationID)
}

// lock takes the head of a conversation for the rest of the transaction and
// moves its signal position on by signals. It is the first thing every write
// to a conversation does.
func (s *Service) lock(tx *sqldb.Tx, c Caller, conversationID string, signals int) (head, error) {
	return s.advance(tx, c, conversationID, 0, signals, 0)
}

// advance is lock for a write that adds messages: it also moves the message
// sequence on and the time of the newest message to now, or a millisecond after
// the one before.
func (s *Service) advance(tx *sqldb.Tx, c Caller, conversationID string, messages, signals int, now int64) (head, error) {
	h := head{conversationID: conversationID, botID: c.Bot.ID, bot: c.Bot}
	rows, err := tx.Query(`UPDATE conversation_heads SET message_seq = message_seq + $3, signal_pos = signal_pos + $4,
		last_at = CASE WHEN $3 = 0 THEN last_at WHEN last_at >= $5 THEN last_at + 1 ELSE $5 END
		WHERE conversation_id = $1 AND bot_id = $2
		RETURNING installation_id, message_seq, signal_pos, last_at`, conversationID, c.Bot.ID, int64(messages), int64(signals), now)
	if err != nil {
		return h, err
	}
	defer rows.Close()
	found := rows.Next()
	if found {
		if err := rows.Scan(&h.installationID, &h.seq, &h.pos, &h.lastAt); err != nil {
			return h, err
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return h, err
	}
	if !found || !c.sees(h.installationID) {
		return h, c.missing("Conversation", conversationID)
	}
	return h, nil
}
