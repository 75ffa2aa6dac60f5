package chatapi

import (
	"strings"
	"sync"
	"time"

	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/messaging"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

// fid is the tag that holds the id a client chose.
const fid = "fid"

// maxName is how long a chosen id may be.
const maxName = 70

// checkName refuses an id that a client may not choose.
func checkName(name string) error {
	if len(name) == 0 || len(name) > maxName || !consists(name, `_-/\`) {
		return fault.InvalidPayload.New(`id must have 1 to %d characters out of letters, digits, _ - / and \`, maxName)
	}
	if looksReal(name) {
		return fault.InvalidPayload.New("id %q has the form of an id that the server gives; choose another", name)
	}
	return nil
}

// checkKeyName refuses the id in a key if nobody can be created under it.
//
// Compat: the official service takes chosen ids only; here it may be an e-mail
// address as well, which is what those who sign keys have at hand.
func checkKeyName(name string) error {
	switch {
	case looksReal(name):
		return fault.Unauthorized.New("User %q of this x-user-key doesn't exist", name)
	case isAddress(name):
		return nil
	}
	if checkName(name) != nil {
		return fault.InvalidPayload.New(`the id in x-user-key must be an e-mail address or have 1 to %d characters out of letters, digits, _ - / and \`, maxName)
	}
	return nil
}

func isAddress(name string) bool {
	local, domain, ok := strings.Cut(name, "@")
	return ok && consists(local, `_-/.+'&=~`) && consists(domain, `-.`)
}

// consists reports whether s has at least one character and nothing but ASCII
// letters, digits and these.
func consists(s, these string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte(these, c) < 0 {
			return false
		}
	}
	return s != ""
}

// looksReal reports whether a name can only be an id that the server gave: to a
// user, a conversation, or a bot, which is a user too.
func looksReal(name string) bool {
	return id.Minted("user", name) || id.Minted("conv", name) || id.Minted("bot", name) || id.Minted("devbot", name)
}

// prefixes are those of the ids the server gives.
var prefixes = map[string]string{tag.User: "user", tag.Conversation: "conv"}

// resolve turns the id a chat client uses into the real one, "" if nothing goes
// by it. A real id is not checked to exist.
func (s *Service) resolve(q sqldb.Q, c messaging.Caller, kind, name string) (string, error) {
	if id.Minted(prefixes[kind], name) {
		return name, nil
	}
	real, err := s.Messaging.FindByTag(q, c.Bot.ID, kind, c.Installation.ID, fid, name)
	if err == nil && real == "" && id.Valid(name) {
		real = name // nobody chose it, but it may be a real id of another form
	}
	return real, err
}

// holder finds who has a chosen name, "" if it is free, and sees to it that
// nobody else takes it before the end of the transaction.
func (s *Service) holder(tx *sqldb.Tx, c messaging.Caller, kind, name string) (string, error) {
	if err := tx.LockKey("chat", c.Installation.ID, kind, name); err != nil {
		return "", err
	}
	return s.Messaging.FindByTag(tx, c.Bot.ID, kind, c.Installation.ID, fid, name)
}

// orTaken is err, or, where looking went well and found something, the client's error.
func orTaken(err error, what, name string) error {
	if err != nil {
		return err
	}
	return fault.AlreadyExists.New("%s %q exists already", what, name)
}

// nameCache remembers what users and conversations are called by chat clients:
// every signal asks for two names. A name goes when its bearer is deleted, which
// another node may do, so what is remembered is not believed for long.
type nameCache struct {
	mu sync.RWMutex
	m  map[string]calling // by real id
}

type calling struct {
	name  string
	until time.Time
}

const (
	maxNames = 20_000
	nameKept = 10 * time.Second
)

func (k *nameCache) get(realID string, now time.Time) (string, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	c, ok := k.m[realID]
	return c.name, ok && now.Before(c.until)
}

func (k *nameCache) put(realID, name string, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.m == nil || len(k.m) >= maxNames {
		k.m = map[string]calling{}
	}
	k.m[realID] = calling{name, now.Add(nameKept)}
}

func (k *nameCache) forget(realID string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.m, realID)
}

// nameOf is what a chat client calls the entity with these tags.
func (s *Service) nameOf(realID string, tags map[string]string) string {
	name := tags[fid]
	if name == "" {
		name = realID
	}
	s.names.put(realID, name, s.Now())
	return name
}

// userName is what chat clients call a user, the real id for one that is gone.
func (s *Service) userName(q sqldb.Q, c messaging.Caller, realID string) (string, error) {
	if realID == c.Bot.ID {
		return realID, nil
	}
	if name, ok := s.names.get(realID, s.Now()); ok {
		return name, nil
	}
	u, err := s.Messaging.User(q, c, realID)
	if fault.Is(err, fault.ResourceNotFound) {
		return realID, nil
	}
	if err != nil {
		return "", err
	}
	return s.nameOf(realID, u.Tags), nil
}

// conversationName is what chat clients call a conversation.
func (s *Service) conversationName(q sqldb.Q, c messaging.Caller, realID string) (string, error) {
	if name, ok := s.names.get(realID, s.Now()); ok {
		return name, nil
	}
	v, err := s.Messaging.Conversation(q, c, realID)
	if err != nil {
		return "", err
	}
	return s.nameOf(realID, v.Tags), nil
}

// bothNames is what chat clients call a conversation and a user.
func (s *Service) bothNames(q sqldb.Q, c messaging.Caller, conversationID, userID string) (conversation, user string, err error) {
	if conversation, err = s.conversationName(q, c, conversationID); err != nil {
		return "", "", err
	}
	user, err = s.userName(q, c, userID)
	return conversation, user, err
}
