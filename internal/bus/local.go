package bus

import (
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
)

const shards = 64

// local is the Bus of a single node: listeners by topic, in shards so that
// unrelated topics do not meet on one lock.
type local struct {
	seed   maphash.Seed
	shards [shards]shard
}

type shard struct {
	mu     sync.RWMutex
	closed bool
	topics map[string][]*listener // a list is replaced and never changed: Publish walks it without the lock
	_      [64]byte               // keeps the next shard off this cache line
}

type listener struct {
	fn   func(data []byte)
	gone atomic.Bool
}

// NewLocal makes a Bus that reaches the listeners of this process.
func NewLocal() Bus {
	l := &local{seed: maphash.MakeSeed()}
	for i := range l.shards {
		l.shards[i].topics = make(map[string][]*listener)
	}
	return l
}

func (l *local) shard(topic string) *shard {
	return &l.shards[maphash.String(l.seed, topic)%shards]
}

func (s *shard) listeners(topic string) []*listener {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.topics[topic]
}

// Publish implements Bus.
func (l *local) Publish(topic string, data []byte) {
	for _, w := range l.shard(topic).listeners(topic) {
		if !w.gone.Load() {
			w.fn(data)
		}
	}
}

// Listening implements Bus.
func (l *local) Listening(topic string) bool {
	return len(l.shard(topic).listeners(topic)) > 0
}

// Subscribe implements Bus.
func (l *local) Subscribe(topic string, fn func(data []byte)) (cancel func()) {
	s, w := l.shard(topic), &listener{fn: fn}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return func() {}
	}
	s.topics[topic] = append(slices.Clip(s.topics[topic]), w)
	return func() { s.remove(topic, w) }
}

func (s *shard) remove(topic string, w *listener) {
	if w.gone.Swap(true) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(s.topics[topic]), func(o *listener) bool { return o == w })
	if len(rest) == 0 {
		delete(s.topics, topic)
	} else {
		s.topics[topic] = rest
	}
}

// Close implements Bus.
func (l *local) Close() error {
	for i := range l.shards {
		l.shards[i].close()
	}
	return nil
}

func (s *shard) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, list := range s.topics {
		for _, w := range list {
			w.gone.Store(true)
		}
	}
	clear(s.topics)
}
