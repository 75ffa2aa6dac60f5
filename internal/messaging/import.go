package messaging

import (
	"context"
	"errors"
	"maps"
	"slices"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/once"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

// Imported messages are history: they keep the time they were written at, and
// nobody is told of them. They have no place in the sequence of arrival and no
// position, so the bot gets no event and listeners get no signal, not even of
// an author who thereby becomes a participant.

func (s *Service) importOps() []api.Op {
	return []api.Op{
		api.Handle("importMessages", "POST /v1/chat/messages/import-messages", auth.Runtime, s.importMessages, api.Doc("Imports messages that were written elsewhere, with their times and without telling anybody; one that is there already is returned as it is.")),
	}
}

// maxImportRows is the number of rows one import may write: messages, their
// tags, and what is locked or added for them.
//
// Compat: the cloud names no such limit. It is reached by a hundred messages
// with four tags each.
const maxImportRows = 500

type importMessagesInput struct {
	Messages []importedMessage `json:"messages" max:"100"`
}

type importedMessage struct {
	Payload            api.Object        `json:"payload"`
	UserID             string            `json:"userId" format:"id"`
	ConversationID     string            `json:"conversationId" format:"id"`
	Type               string            `json:"type" max:"200"`
	Tags               map[string]string `json:"tags"`
	CreatedAt          api.Time          `json:"createdAt" doc:"When the message was written; not before 1970 and not in the future."`
	DiscriminateByTags []string          `json:"discriminateByTags" each.max:"500"`
}

type importMessagesResult struct {
	Messages []*Message `json:"messages"`
}

func (s *Service) importMessages(ctx context.Context, in importMessagesInput) (importMessagesResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return importMessagesResult{}, err
	}
	m, err := s.newImport(c, in.Messages)
	if err != nil {
		return importMessagesResult{}, err
	}
	if err := m.references(s.DB.Reader(ctx)); err != nil {
		return importMessagesResult{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (importMessagesResult, error) {
		messages, err := m.run(tx)
		return importMessagesResult{messages}, err
	})
}

// importing is one import whose members have been checked.
type importing struct {
	s        *Service
	c        Caller
	messages []importedMessage
	tags     []tag.Set
	keys     []discriminator
}

func (s *Service) newImport(c Caller, messages []importedMessage) (*importing, error) {
	m := &importing{s, c, messages, make([]tag.Set, len(messages)), make([]discriminator, len(messages))}
	rows := 0
	touched := map[[2]string]bool{}
	for i, in := range messages {
		if err := m.check(i); err != nil {
			return nil, inMessage(i, "", err)
		}
		rows += 1 + len(m.tags[i][c.Owner()])
		touched[[2]string{in.ConversationID}], touched[[2]string{in.ConversationID, in.UserID}] = true, true
	}
	if rows += len(touched); rows > maxImportRows {
		return nil, fault.LimitExceeded.New("messages would write %d rows with their tags and participants, the limit is %d; send fewer messages at a time", rows, maxImportRows)
	}
	return m, nil
}

// check refuses what can be told from one message alone.
func (m *importing) check(i int) (err error) {
	in := m.messages[i]
	if err := checkMessage(NewMessage{Type: in.Type, Payload: in.Payload}); err != nil {
		return err
	}
	switch latest := m.s.now() + clockSkew.Milliseconds(); {
	case in.CreatedAt < 0:
		return fault.InvalidPayload.New("createdAt must not be before 1970")
	case int64(in.CreatedAt) > latest:
		return fault.InvalidPayload.New("createdAt lies in the future; only what has been written already can be imported")
	}
	if m.tags[i], err = newTags(m.c, tag.Message, in.Tags); err != nil {
		return err
	}
	m.keys[i], err = discriminators(m.c, in.Tags, in.DiscriminateByTags)
	return err
}

// references refuses conversations and authors that the caller cannot reach.
func (m *importing) references(q sqldb.Q) error {
	conversations, users := map[string]bool{}, map[string]bool{m.c.Bot.ID: true}
	for _, in := range m.messages {
		conversations[in.ConversationID], users[in.UserID] = false, in.UserID == m.c.Bot.ID
	}
	found, err := m.s.Conversations(q, m.c, slices.Collect(maps.Keys(conversations)))
	if err != nil {
		return err
	}
	for _, v := range found {
		conversations[v.ID] = m.c.sees(v.InstallationID)
	}
	authors, err := m.s.Users(q, m.c, slices.Collect(maps.Keys(users)))
	if err != nil {
		return err
	}
	for _, u := range authors {
		users[u.ID] = users[u.ID] || m.c.sees(u.InstallationID)
	}
	for i, in := range m.messages {
		switch {
		case !conversations[in.ConversationID]:
			return inMessage(i, "conversationId: ", m.c.dangling("Conversation", in.ConversationID))
		case !users[in.UserID]:
			return inMessage(i, "userId: ", m.c.dangling("User", in.UserID))
		}
	}
	return nil
}

// run finds or adds the messages. It locks what tells messages apart, then the
// conversations, each in one order, as get-or-creates and other imports do.
func (m *importing) run(tx *sqldb.Tx) ([]*Message, error) {
	var locks [][]string
	for i, key := range m.keys {
		locks = append(locks, key.lockKey(m.c, tag.Message, m.messages[i].ConversationID))
	}
	slices.SortFunc(locks, slices.Compare)
	for _, parts := range slices.CompactFunc(locks, slices.Equal) {
		if err := tx.LockKey(parts...); err != nil {
			return nil, err
		}
	}
	heads, err := m.heads(tx)
	if err != nil {
		return nil, err
	}
	if err := m.references(tx); err != nil {
		return nil, err
	}
	out := make([]*Message, len(m.messages))
	for i := range m.messages {
		if out[i], err = m.getOrAdd(tx, heads[m.messages[i].ConversationID], i); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (m *importing) heads(tx *sqldb.Tx) (map[string]head, error) {
	first := map[string]int{}
	for i, in := range slices.Backward(m.messages) {
		first[in.ConversationID] = i
	}
	heads := make(map[string]head, len(first))
	for _, conversationID := range slices.Sorted(maps.Keys(first)) {
		h, err := m.s.lock(tx, m.c, conversationID, 0)
		if fault.Is(err, fault.ResourceNotFound) {
			err = inMessage(first[conversationID], "conversationId: ", m.c.dangling("Conversation", conversationID))
		}
		if err != nil {
			return nil, err
		}
		heads[conversationID] = h
	}
	return heads, nil
}

func (m *importing) getOrAdd(tx *sqldb.Tx, h head, i int) (*Message, error) {
	if found, err := m.s.findMessage(tx, m.c, NewMessage{ConversationID: h.conversationID}, m.keys[i]); err != nil || found != nil {
		return found, err
	}
	in, at := m.messages[i], int64(m.messages[i].CreatedAt)
	one := &Message{
		ID: id.At("msg", at), CreatedAt: in.CreatedAt, UpdatedAt: in.CreatedAt, Type: in.Type, Payload: in.Payload,
		Direction: Incoming, UserID: in.UserID, ConversationID: h.conversationID,
		BotID: h.botID, InstallationID: h.installationID, AllTags: m.tags[i],
	}
	if in.UserID == m.c.Bot.ID {
		one.Direction = Outgoing
	} else if err := m.participate(tx, h, in.UserID); err != nil {
		return nil, err
	}
	if _, err := sqldb.Insert(tx, "messages", one); err != nil {
		return nil, err
	}
	return one.As(m.c), writeTags(tx, entity{h.botID, tag.Message, one.ID, at}, nil, one.AllTags)
}

// participate is join without its signal.
func (m *importing) participate(tx *sqldb.Tx, h head, userID string) error {
	_, err := tx.Exec("INSERT INTO participants (conversation_id, user_id, bot_id, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
		h.conversationID, userID, h.botID, m.s.now())
	return err
}

// inMessage names the message of a list that an error is about, and its member
// where the error does not.
func inMessage(i int, member string, err error) error {
	f, ok := errors.AsType[*fault.Error](err)
	if !ok {
		return err
	}
	return f.Kind.New("messages[%d].%s%s", i, member, f.Message)
}
