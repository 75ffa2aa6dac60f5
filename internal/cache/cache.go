// Package cache keeps what is asked on every request in memory: values read
// from the database by key, shared and never changed. A value is dropped at
// once on the node that changes it and through the bus on the others.
//
// The bus may lose a drop. Where several processes write one database, MaxAge
// bounds how long such a value lives; where one process does, nothing is lost.
package cache

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"parley/internal/bus"
)

// Config are the parts of a Cache.
type Config[V any] struct {
	// Load reads the value of a key; nil means there is none. It reads what is
	// committed when it is called.
	Load func(ctx context.Context, key string) (*V, error)
	// Max bounds the number of values; when it is reached all are forgotten.
	Max int
	// MaxAge is how old a value may get; 0 = as old as it likes.
	MaxAge time.Duration
	// Now is needed with MaxAge.
	Now func() time.Time
	// Bus and Topic carry drops to other nodes.
	Bus   bus.Bus
	Topic string
}

// Cache finds values by key. Finding one that is there takes no lock.
type Cache[V any] struct {
	c       Config[V]
	values  sync.Map      // key → *entry[V]
	drops   atomic.Uint64 // so that a load that began before one is noticed
	release func()

	mu   sync.Mutex // of changes: between a look at drops and a new value no drop may come
	size int
}

type entry[V any] struct {
	value *V
	at    time.Time // when it was read, zero without MaxAge
}

// New makes an empty cache. Close it to end its subscription.
func New[V any](c Config[V]) *Cache[V] {
	k := &Cache[V]{c: c}
	k.release = c.Bus.Subscribe(c.Topic, func(key []byte) { k.forget(string(key)) })
	return k
}

// Get finds the value of key, reading it if need be. nil, nil means there is
// none; that is not remembered, or strangers could fill the memory.
func (k *Cache[V]) Get(ctx context.Context, key string) (*V, error) {
	if e, ok := k.values.Load(key); ok {
		if e := e.(*entry[V]); k.c.MaxAge == 0 || k.c.Now().Sub(e.at) < k.c.MaxAge {
			return e.value, nil
		}
	}
	return k.Fresh(ctx, key)
}

// Fresh reads the value of key, also if there is one in memory, for a caller who
// can tell that it is too old.
func (k *Cache[V]) Fresh(ctx context.Context, key string) (*V, error) {
	e := &entry[V]{}
	if k.c.MaxAge != 0 {
		e.at = k.c.Now()
	}
	before := k.drops.Load()
	var err error
	if e.value, err = k.c.Load(ctx, key); err != nil {
		return nil, err
	}
	if e.value == nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.removeLocked(key)
		return nil, nil
	}
	k.keep(key, e, before)
	return e.value, nil
}

// keep stores e unless something was dropped since before: e may have been read
// ahead of that change, and would stay.
func (k *Cache[V]) keep(key string, e *entry[V], before uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.drops.Load() != before {
		return
	}
	if k.size >= k.c.Max {
		k.values.Clear()
		k.size = 0
	}
	if _, was := k.values.Swap(key, e); !was {
		k.size++
	}
}

// Drop forgets the value of key here and on the other nodes. Call it after the
// commit that changed the value.
func (k *Cache[V]) Drop(key string) {
	k.forget(key)
	k.c.Bus.Publish(k.c.Topic, []byte(key))
}

func (k *Cache[V]) forget(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drops.Add(1)
	k.removeLocked(key)
}

func (k *Cache[V]) removeLocked(key string) {
	if _, was := k.values.LoadAndDelete(key); was {
		k.size--
	}
}

// Close ends the subscription to the bus.
func (k *Cache[V]) Close() { k.release() }
