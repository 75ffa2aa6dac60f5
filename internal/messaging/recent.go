package messaging

import (
	"context"
	"errors"
	"sync"
	"time"

	"parley/internal/cache"
	"parley/internal/sqldb"
)

// What the way of a message asks for each time is kept in memory: users and
// conversations in caches that every change drops them from, and the newest
// incoming messages with their events, which the worker of the lane asks for
// a moment after their commit.

const (
	cachedUsers         = 4_000
	cachedConversations = 4_000
)

func (s *Service) openCaches() {
	s.users = cache.New(cache.Config[User]{Load: load[User](s, "users"), Max: cachedUsers, MaxAge: s.MaxAge, Now: s.Now, Bus: s.Bus, Topic: "cache.user"})
	s.conversations = cache.New(cache.Config[Conversation]{
		Load: load[Conversation](s, "conversations"), Max: cachedConversations, MaxAge: s.MaxAge, Now: s.Now, Bus: s.Bus, Topic: "cache.conversation",
	})
}

// Close ends what the Service listens to.
func (s *Service) Close() {
	s.closeStreams()
	s.users.Close()
	s.conversations.Close()
}

func load[T any, P sqldb.RowOf[T]](s *Service, table string) func(context.Context, string) (*T, error) {
	return func(ctx context.Context, id string) (*T, error) {
		v, err := sqldb.One[T, P](s.DB.Reader(ctx), table, "WHERE id = $1", id)
		if errors.Is(err, sqldb.ErrNoRow) {
			return nil, nil
		}
		return v, err
	}
}

// CachedUser is a user the caller may see, nil if there is none, as it was a
// moment ago where another server has changed it.
func (s *Service) CachedUser(ctx context.Context, c Caller, userID string) (*User, error) {
	u, err := s.users.Get(ctx, userID)
	if err != nil || u == nil || u.BotID != c.Bot.ID || !c.sees(u.InstallationID) {
		return nil, err
	}
	mine := *u
	return mine.As(c), nil
}

func (s *Service) cachedConversation(ctx context.Context, c Caller, conversationID string) (*Conversation, error) {
	v, err := s.conversations.Get(ctx, conversationID)
	if err != nil || v == nil || v.BotID != c.Bot.ID || !c.sees(v.InstallationID) {
		return nil, err
	}
	mine := *v
	return mine.As(c), nil
}

const (
	freshMax     = 1024
	freshAge     = time.Second // far below the lease of a lane: within it nobody else can have delivered the event
	freshPayload = 4 << 10     // bytes; larger messages are read again
)

// fresh holds the newest incoming messages with their events until the worker
// of their lane asks for them. It is a shortcut only: what is not found here is
// read from the database.
type fresh struct {
	mu   sync.Mutex
	m    map[freshKey]*freshEvent
	ring [freshMax]freshKey // in the order of arrival
	next int
}

type freshKey struct {
	lane string
	seq  int64
}

type freshEvent struct {
	at      time.Time
	event   Event
	message Message
}

// put keeps copies: views of the originals are being made for others.
func (f *fresh) put(at time.Time, e *Event, m *Message) {
	if len(m.Payload) > freshPayload {
		return
	}
	key := freshKey{e.Lane, e.LaneSeq}
	v := &freshEvent{at, *e, *m}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.m == nil {
		f.m = make(map[freshKey]*freshEvent, freshMax)
	}
	delete(f.m, f.ring[f.next])
	f.ring[f.next] = key
	f.next = (f.next + 1) % freshMax
	f.m[key] = v
}

// take returns the event with that sequence if it was put here just now.
func (f *fresh) take(now time.Time, lane string, seq int64) (*Event, *Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := freshKey{lane, seq}
	v := f.m[key]
	if v == nil {
		return nil, nil
	}
	delete(f.m, key)
	if age := now.Sub(v.at); age < 0 || age >= freshAge {
		return nil, nil
	}
	return &v.event, &v.message
}

// forget is for a message that was changed or deleted.
func (f *fresh) forget(messageID string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, v := range f.m {
		if v.message.ID == messageID {
			delete(f.m, key)
		}
	}
}
