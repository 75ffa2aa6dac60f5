package messaging

import (
	"errors"
	"fmt"
	"slices"

	"parley/internal/api"
	"parley/internal/fault"
	"parley/internal/page"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

// A message is gone with its conversation, though the sweeper removes its row later.
const conversationLives = "EXISTS (SELECT 1 FROM conversation_heads h WHERE h.conversation_id = %s.conversation_id)"

// message reads one message the caller may see, nil if there is none.
func (s *Service) message(q sqldb.Q, c Caller, messageID string) (*Message, error) {
	m, err := sqldb.One[Message](q, "messages", "WHERE id = $1 AND bot_id = $2 AND "+fmt.Sprintf(conversationLives, "messages"), messageID, c.Bot.ID)
	if errors.Is(err, sqldb.ErrNoRow) || err == nil && !c.sees(m.InstallationID) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return m.As(c), nil
}

// Message reads one message the caller may see; what is missing is a client's error.
func (s *Service) Message(q sqldb.Q, c Caller, messageID string) (*Message, error) {
	m, err := s.message(q, c, messageID)
	if err == nil && m == nil {
		err = c.missing("Message", messageID)
	}
	return m, err
}

// Messages reads a page of the messages of a conversation, newest first.
func (s *Service) Messages(q sqldb.Q, c Caller, conversationID string, pq page.Query) ([]*Message, page.Meta, error) {
	l := newListing("messages", c, "", "")
	l.And("e.conversation_id = ?", conversationID)
	return s.messagesPage(q, c, l, pq)
}

func (s *Service) messagesPage(q sqldb.Q, c Caller, l *listing, pq page.Query) ([]*Message, page.Meta, error) {
	return list(q, l, pq, func(m *Message) (int64, string) {
		m.As(c)
		return int64(m.CreatedAt), m.ID
	})
}

// getOrAddMessage finds the message of the conversation with the same tags, or makes one.
func (s *Service) getOrAddMessage(tx *sqldb.Tx, c Caller, in NewMessage, key discriminator) (*Message, error) {
	if err := key.lock(tx, c, tag.Message, in.ConversationID); err != nil {
		return nil, err
	}
	if m, err := s.findMessage(tx, c, in, key); err != nil || m != nil {
		return m, err
	}
	return s.addOrSchedule(tx, c, in)
}

// findMessage finds the message a get-or-create means, nil if there is none.
// Promises are looked up first: one that is kept between the two looks is found
// among the messages.
func (s *Service) findMessage(q sqldb.Q, c Caller, in NewMessage, key discriminator) (*Message, error) {
	promised, err := s.findScheduled(q, c, in, key)
	if err != nil || promised != nil {
		return promised, err
	}
	found, err := key.message(q, c, in.ConversationID)
	if err != nil || found == "" {
		return nil, err
	}
	return s.message(q, c, found)
}

// changeMessage merges tags into a message and replaces its payload, if given.
// The message has been delivered as it was: of the change only an installation
// is told that asked for it.
func (s *Service) changeMessage(tx *sqldb.Tx, c Caller, messageID string, tags map[string]string, payload api.Object, told bool) (*Message, error) {
	m, err := s.Message(tx, c, messageID)
	if err != nil {
		return nil, err
	}
	if _, err := s.lock(tx, c, m.ConversationID, 0); err != nil {
		return nil, err
	}
	if m, err = s.Message(tx, c, messageID); err != nil {
		return nil, err
	}
	tx.AfterCommit(func() { s.fresh.forget(messageID) })
	before := *m
	before.AllTags = m.AllTags.Clone()
	if err := applyTags(c, tag.Message, m.AllTags, tags); err != nil {
		return nil, err
	}
	if payload != nil {
		m.Payload = payload
	}
	m.UpdatedAt = api.Time(max(s.now(), int64(m.CreatedAt)))
	if err := sqldb.Update(tx, "messages", m, sqldb.Column{Name: "bot_id", Field: &m.BotID}, sqldb.Column{Name: "id", Field: &m.ID}); err != nil {
		return nil, err
	}
	if told {
		if err := s.sendMessageUpdate(tx, c, before, *m); err != nil {
			return nil, err
		}
	}
	return m.As(c), writeTags(tx, entity{m.BotID, tag.Message, m.ID, int64(m.CreatedAt)}, before.AllTags, m.AllTags)
}

// DropMessage deletes a message and signals it. An event that has not reached
// the bot yet has nothing left to say and is ignored.
func (s *Service) DropMessage(tx *sqldb.Tx, c Caller, messageID string) error {
	m, err := s.Message(tx, c, messageID)
	if err != nil {
		return err
	}
	h, err := s.lock(tx, c, m.ConversationID, 1)
	if err != nil {
		return err
	}
	if err := sqldb.Delete(tx, "messages", "WHERE bot_id = $1 AND id = $2", m.BotID, m.ID); errors.Is(err, sqldb.ErrNoRow) {
		return c.missing("Message", messageID)
	} else if err != nil {
		return err
	}
	tx.AfterCommit(func() { s.fresh.forget(messageID) })
	if _, err := tx.Exec("DELETE FROM tags WHERE entity = $1", m.ID); err != nil {
		return err
	}
	return s.signal(tx, h, MessageDeleted, messageData{MessageID: m.ID, UserID: m.UserID})
}

// manyByID reads rows of one bot that the caller may see.
func manyByID[T any, P sqldb.RowOf[T]](q sqldb.Q, table string, c Caller, ids []string, as func(*T)) ([]*T, error) {
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	if len(ids) == 0 {
		return nil, nil
	}
	w := &sqldb.Where{}
	from := byID(w, table, c.Bot.ID, ids)
	w.And("e.bot_id = ?", c.Bot.ID)
	out, err := rowsOf[T, P](q, from+" "+w.String(), w.Args)
	for _, v := range out {
		as(v)
	}
	return out, err
}

// checkMessage refuses what no message may be.
func checkMessage(in NewMessage) error {
	if in.Type == "" {
		return fault.InvalidPayload.New("type must not be empty")
	}
	return checkPayload("payload", in.Payload)
}
