package messaging

import "sync"

// known remembers which authors have been admitted to which conversations, so
// that the ordinary message needs no reads before its transaction. It is a hint
// only: the transaction checks again.
type known struct {
	mu sync.RWMutex
	m  map[string]map[knownKey]struct{} // by conversation
	n  int
}

type knownKey struct{ conversationID, userID, owner string }

const knownMax = 20_000

func (k *known) has(key knownKey) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	_, ok := k.m[key.conversationID][key]
	return ok
}

func (k *known) add(key knownKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.m == nil || k.n >= knownMax {
		k.m, k.n = map[string]map[knownKey]struct{}{}, 0
	}
	if k.m[key.conversationID] == nil {
		k.m[key.conversationID] = map[knownKey]struct{}{}
	}
	k.m[key.conversationID][key] = struct{}{}
	k.n++
}

func (k *known) forget(conversationID string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.n -= len(k.m[conversationID])
	delete(k.m, conversationID)
}
