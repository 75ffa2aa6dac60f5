package cache

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"parley/internal/bus"
)

// source is what stands behind a cache: a map that counts how often it is read.
type source struct {
	mu     sync.Mutex
	values map[string]int
	reads  int
}

func (s *source) set(key string, v int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[key] = v
}

func (s *source) load(_ context.Context, key string) (*int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	v, ok := s.values[key]
	if !ok {
		return nil, nil
	}
	return &v, nil
}

func newCache(t *testing.T, s *source, b bus.Bus, maxAge time.Duration) *Cache[int] {
	c := New(Config[int]{Load: s.load, Max: 100, MaxAge: maxAge, Now: time.Now, Bus: b, Topic: "cache.test"})
	t.Cleanup(c.Close)
	return c
}

func want(t *testing.T, c *Cache[int], key string, v int) {
	t.Helper()
	got, err := c.Get(t.Context(), key)
	if err != nil || got == nil || *got != v {
		t.Fatalf("%s: got %v, %v; want %d", key, got, err, v)
	}
}

func TestFreshReadsAgain(t *testing.T) {
	t.Parallel()
	s := &source{values: map[string]int{"a": 1}}
	c := newCache(t, s, bus.NewLocal(), 0)
	want(t, c, "a", 1)
	s.set("a", 2)
	if got, err := c.Fresh(t.Context(), "a"); err != nil || got == nil || *got != 2 {
		t.Errorf("got %v, %v; want 2", got, err)
	}
	want(t, c, "a", 2)
}

func TestCacheReadsOnce(t *testing.T) {
	t.Parallel()
	s := &source{values: map[string]int{"a": 1}}
	c := newCache(t, s, bus.NewLocal(), 0)
	want(t, c, "a", 1)
	s.set("a", 2)
	want(t, c, "a", 1)
	if s.reads != 1 {
		t.Errorf("%d reads", s.reads)
	}
	c.Drop("a")
	want(t, c, "a", 2)
}

func TestCacheForgetsWhatIsNotThere(t *testing.T) {
	t.Parallel()
	s := &source{values: map[string]int{}}
	c := newCache(t, s, bus.NewLocal(), 0)
	if v, err := c.Get(t.Context(), "a"); v != nil || err != nil {
		t.Fatalf("got %v, %v", v, err)
	}
	s.set("a", 1)
	want(t, c, "a", 1)
}

func TestCachePassesErrorsOn(t *testing.T) {
	t.Parallel()
	down := errors.New("down")
	c := New(Config[int]{Load: func(context.Context, string) (*int, error) { return nil, down }, Max: 1, Bus: bus.NewLocal(), Topic: "t"})
	defer c.Close()
	if _, err := c.Get(t.Context(), "a"); !errors.Is(err, down) {
		t.Errorf("got %v", err)
	}
}

func TestCacheDropReachesOtherNodes(t *testing.T) {
	t.Parallel()
	s, b := &source{values: map[string]int{"a": 1}}, bus.NewLocal()
	here, there := newCache(t, s, b, 0), newCache(t, s, b, 0)
	want(t, there, "a", 1)
	s.set("a", 2)
	here.Drop("a")
	want(t, there, "a", 2)
	there.Close()
	s.set("a", 3)
	here.Drop("a")
	want(t, there, "a", 2)
}

// With a bus that loses everything a value is still read again in time.
func TestCacheMaxAge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &source{values: map[string]int{"a": 1}}
		c := newCache(t, s, bus.NewLocal(), time.Second)
		want(t, c, "a", 1)
		s.set("a", 2)
		<-time.After(999 * time.Millisecond)
		want(t, c, "a", 1)
		<-time.After(time.Millisecond)
		want(t, c, "a", 2)
	})
}

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	s := &source{values: map[string]int{}}
	c := newCache(t, s, bus.NewLocal(), 0)
	for i := range 1000 {
		s.set(strconv.Itoa(i), i)
		want(t, c, strconv.Itoa(i), i)
	}
	n := 0
	c.values.Range(func(any, any) bool { n++; return true })
	if n > 100 || int64(n) != int64(c.size) {
		t.Errorf("%d values are kept, counted as %d", n, int64(c.size))
	}
}

// A value that was read before a change and arrives after its drop is not kept.
func TestCacheDropDuringLoad(t *testing.T) {
	t.Parallel()
	var c *Cache[int]
	value := 1
	c = New(Config[int]{Max: 10, Bus: bus.NewLocal(), Topic: "t", Load: func(context.Context, string) (*int, error) {
		read := value
		if value == 1 { // the change commits and drops while this reader is on its way back
			value = 2
			c.Drop("a")
		}
		return &read, nil
	}})
	defer c.Close()
	want(t, c, "a", 1)
	want(t, c, "a", 2)
}

func TestCacheNeverStaysStale(t *testing.T) {
	t.Parallel()
	var current atomic.Int64
	c := New(Config[int64]{Max: 10, Bus: bus.NewLocal(), Topic: "t", Load: func(context.Context, string) (*int64, error) {
		v := current.Load()
		return &v, nil
	}})
	defer c.Close()
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if _, err := c.Get(context.Background(), "a"); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for i := range int64(2000) {
		current.Store(i)
		c.Drop("a")
		if v, _ := c.Get(t.Context(), "a"); *v < i {
			t.Fatalf("read %d after %d was written and dropped", *v, i)
		}
	}
	close(stop)
	readers.Wait()
}

func BenchmarkCacheGet(b *testing.B) {
	s := &source{values: map[string]int{"a": 1}}
	c := New(Config[int]{Load: s.load, Max: 10, Bus: bus.NewLocal(), Topic: "t"})
	defer c.Close()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := c.Get(b.Context(), "a"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
