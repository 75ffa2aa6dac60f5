package delivery

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"parley/internal/bus"
	"parley/internal/endpoint"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// called is a handler that tells of its calls and answers when it is let.
type called struct {
	calls   chan string
	answers chan endpoint.Answer
}

func newCalled() *called {
	return &called{make(chan string, 1000), make(chan endpoint.Answer)}
}

func (c *called) Invoke(ctx context.Context, _ string, op endpoint.Operation) (endpoint.Answer, error) {
	c.calls <- op.Subject
	select {
	case a := <-c.answers:
		return a, nil
	case <-ctx.Done():
		return endpoint.Answer{}, ctx.Err()
	}
}

func (*called) Limit(context.Context, string) time.Duration { return time.Minute }

// blockedOnLane waits until a transaction that has locked lanes waits for another one's lock.
func (w *world) blockedOnLane() {
	w.t.Helper()
	for w.count(`SELECT count(*) FROM pg_locks w JOIN pg_locks h ON h.pid = w.pid
		WHERE NOT w.granted AND h.granted AND h.relation = 'lanes'::regclass`) == 0 {
		w.stillRunning()
	}
}

// A producer on another node has taken a sequence and has not committed when
// the holder of the lane gives it up. No sweep and no hint helps: the clock
// stands still and the nodes do not hear each other.
func TestProducerHeldOpenAcrossARelease(t *testing.T) {
	t.Parallel()
	for name, commits := range map[string]bool{"commits": true, "rolls back": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sqldbtest.Pair(t, func(t *testing.T, da, db *sqldb.DB) {
				h := newCalled()
				a, b := start(t, da, nil, h), engine(t, db, nil, h)
				l := conv(1, "b")
				first := a.send(l, 1)
				await(t, h.calls, "the first event")

				enqueued, finish, produced := make(chan struct{}), make(chan struct{}), make(chan error, 1)
				errChanged := errors.New("the producer changed its mind")
				go func() {
					produced <- db.Write(t.Context(), func(tx *sqldb.Tx) error {
						if err := b.put(tx, l, "evt_second"); err != nil {
							return err
						}
						close(enqueued)
						<-finish
						if !commits {
							return errChanged
						}
						return nil
					})
				}()
				await(t, enqueued, "the producer")
				h.answers <- endpoint.Answer{Status: 200}
				b.blockedOnLane()
				close(finish)
				if err := await(t, produced, "the producer's end"); commits && err != nil || !commits && !errors.Is(err, errChanged) {
					t.Fatal(err)
				}
				if commits {
					if got := await(t, h.calls, "the second event"); got != "evt_second" {
						t.Fatalf("%s was delivered, want the second event", got)
					}
					h.answers <- endpoint.Answer{Status: 200}
				}
				a.idle()
				if got := a.event(first[0]); got.Status != "processed" {
					t.Errorf("the first event is %+v", got)
				}
				if n := a.count("SELECT count(*) FROM lanes WHERE due = 9223372036854775807 AND owner = ''"); n != 1 {
					t.Error("the lane is not idle")
				}
			})
		})
	}
}

// Producers and workers on two nodes that do not hear each other: every entry
// is seen by whoever holds its lane, and delivered once and in order.
func TestTwoNodesLoseNoWakeUp(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, da, db *sqldb.DB) {
		const producers, events, lanes = 8, 100, 5
		var mu sync.Mutex
		var last [lanes]int
		h := handler(func(_ context.Context, _ string, op endpoint.Operation) (endpoint.Answer, error) {
			var p, i, seq int
			if _, err := fmt.Sscanf(op.Subject+" "+op.Type, "evt_%d_%d %d", &p, &i, &seq); err != nil {
				return endpoint.Answer{}, err
			}
			mu.Lock()
			defer mu.Unlock()
			if seq != last[i%lanes]+1 {
				t.Errorf("lane %d: entry %d was delivered after entry %d", i%lanes, seq, last[i%lanes])
			}
			last[i%lanes] = seq
			return endpoint.Answer{Status: 200}, nil
		})
		nodes := []*world{start(t, da, nil, h), start(t, db, nil, h)}
		var wg sync.WaitGroup
		for p := range producers {
			wg.Go(func() {
				w := nodes[p%2]
				for i := range events {
					if err := w.DB.Write(t.Context(), func(tx *sqldb.Tx) error {
						if err := w.put(tx, conv(i%lanes, "b"), fmt.Sprintf("evt_%d_%d", p, i)); err != nil {
							return err
						}
						// Statements between the entry and the commit widen the gap that a release may fall into.
						for range i % 4 {
							if _, err := tx.Exec("UPDATE events SET type = type WHERE id = $1", fmt.Sprintf("evt_%d_%d", p, i)); err != nil {
								return err
							}
						}
						return nil
					}); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		for _, w := range nodes {
			w.idle()
		}
		if n := nodes[0].count("SELECT count(*) FROM events WHERE status <> 'processed'"); n != 0 {
			t.Errorf("%d events are left", n)
		}
	})
}

func TestEightClaimersNeverShareALane(t *testing.T) {
	t.Parallel()
	race := func(t *testing.T, dbs ...*sqldb.DB) {
		const lanes = 400
		c := newClock()
		nodes := make([]*world, 8)
		for i := range nodes {
			nodes[i] = engine(t, dbs[i%len(dbs)], c, nil)
		}
		for i := range lanes {
			nodes[0].exec("INSERT INTO lanes (key, endpoint, seq, done, ephemeral, due, lease_until, owner) VALUES ($1, 'bot:b', 1, 0, FALSE, $2, 0, '')", strconv.Itoa(i), c.Now().UnixMilli()-int64(i%7))
		}
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for _, w := range nodes {
			wg.Go(func() {
				<-begin
				for empty := 0; empty < 3; { // others' uncommitted claims are skipped, so one empty look proves nothing
					n, err := w.claimBatch(t.Context(), 5, nil)
					if err != nil {
						t.Error(err)
						return
					}
					if n == 0 {
						empty++
					}
				}
			})
		}
		close(begin)
		wg.Wait()
		owner := map[string]string{}
		for _, w := range nodes {
			for key, l := range w.lanes {
				if o, claimed := owner[key]; claimed {
					t.Errorf("lane %s was given to %s and %s", key, o, l.token)
				}
				owner[key] = l.token
			}
		}
		if len(owner) != lanes {
			t.Errorf("%d lanes claimed, want %d", len(owner), lanes)
		}
	}
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) { race(t, db) })
	t.Run("two nodes", func(t *testing.T) {
		t.Parallel()
		sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) { race(t, a, b) })
	})
}

// A node that stood still for longer than its lease comes back with an answer.
// The answer to the commit that makes a message gets lost, and with it the word
// that this engine holds the lane: it goes on in a second, not when the lease ends.
func TestClaimInDoubtIsGivenBack(t *testing.T) {
	t.Parallel()
	sqldbtest.Forgetting(t, func(t *testing.T, db *sqldb.DB, f *sqldbtest.Forgetful) {
		c := newClock()
		w := start(t, db, c, nil)
		f.ForgetNextCommit()
		if err := db.Write(t.Context(), func(tx *sqldb.Tx) error { return w.put(tx, conv(1, "b"), "evt_doubt") }); err == nil {
			t.Fatal("the answer to the commit was not lost")
		}
		if n := w.count("SELECT count(*) FROM lanes WHERE owner <> ''"); n != 1 {
			t.Fatalf("%d lanes are claimed, want 1", n)
		}
		w.pass(writeWait)
		w.idle()
		if got := w.event("evt_doubt").Status; got != "processed" {
			t.Errorf("the event is %s a second later, want processed", got)
		}
	})
}

func TestOutcomeOfALostLaneIsDropped(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		h := newCalled()
		a := start(t, db, nil, h)
		ids := a.send(conv(1, "b"), 2)
		await(t, h.calls, "the first try")

		later := newClock()
		later.advance(term + time.Second)
		b := start(t, db, later, handler(ok))
		b.flow()
		if got, want := b.event(ids[1]), (event{"processed", "", 1}); got != want {
			t.Fatalf("event %+v after the takeover, want %+v", got, want)
		}

		h.answers <- endpoint.Answer{Status: 400}
		a.idle()
		if got, want := a.event(ids[0]), (event{"processed", "", 1}); got != want {
			t.Errorf("event %+v after the answer to the lost lane, want %+v", got, want)
		}
		if n := a.count("SELECT count(*) FROM attempts WHERE outcome <> 'ok'"); n != 0 {
			t.Errorf("%d tries of the lost lane were recorded", n)
		}
		if n := len(h.calls); n != 0 {
			t.Error("the node went on with a lane it has lost")
		}
	})
}

// A lease that ran out without anybody taking the lane is still good.
func TestOutcomeOfAnOverdueLeaseCounts(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		h := newCalled()
		w := start(t, db, nil, h)
		ids := w.send(conv(1, "b"), 2)
		await(t, h.calls, "the first try")
		w.exec("UPDATE lanes SET lease_until = 1")
		h.answers <- endpoint.Answer{Status: 200}
		await(t, h.calls, "the second try")
		h.answers <- endpoint.Answer{Status: 200}
		w.idle()
		for _, id := range ids {
			if got, want := w.event(id), (event{"processed", "", 1}); got != want {
				t.Errorf("event %+v, want %+v", got, want)
			}
		}
	})
}

func TestLeaseOfASlowTryIsRenewed(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		c := newClock()
		h := newCalled()
		w := start(t, db, c, h)
		other := engine(t, db, c, h)
		ids := w.send(conv(1, "b"), 1)
		await(t, h.calls, "the try")
		for range 12 { // two minutes
			c.settled(t, c.Now().Add(renewEvery))
			c.advance(renewEvery)
			c.settled(t, c.Now().Add(renewEvery)) // the renewal is done
			other.sweep(t.Context())
			if other.held() != 0 {
				t.Fatal("the lane was taken although its holder is alive")
			}
		}
		h.answers <- endpoint.Answer{Status: 200}
		w.idle()
		if got, want := w.event(ids[0]), (event{"processed", "", 1}); got != want {
			t.Errorf("event %+v, want %+v", got, want)
		}
	})
}

func TestNodesTellEachOtherOfNewEntries(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, da, db *sqldb.DB) {
		h := newCalled()
		net := bus.NewLocal()
		a, b := start(t, da, nil, h, over(net)), start(t, db, nil, h, over(net))
		l := conv(1, "b")
		a.send(l, 1)
		await(t, h.calls, "the first event")
		b.send(l, 1)
		a.Engine.mu.Lock()
		seq := a.lanes[l.Key].seq
		a.Engine.mu.Unlock()
		if seq != 2 {
			t.Errorf("the holder knows of %d entries, want 2", seq)
		}
		for range 2 {
			h.answers <- endpoint.Answer{Status: 200}
		}
		a.idle()
		if b.held() != 0 {
			t.Error("the other node has taken the lane")
		}
	})
}

func TestNodesTellEachOtherOfBreakers(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, da, db *sqldb.DB) {
		c := newClock()
		net := bus.NewLocal()
		s := newSwitched(c, false)
		a, b := start(t, da, c, s, over(net)), start(t, db, c, s, over(net))
		for _, w := range []*world{a, b} {
			w.send(conv(1, "b"), 1)
			w.idle() // both have seen the breaker closed, just now
		}
		s.down.Store(true)
		a.send(conv(2, "b"), 1)
		a.flow()
		s.take()
		b.send(conv(3, "b"), 1)
		b.flow()
		if n := len(s.take()); n != 0 {
			t.Errorf("the other node tried %d times although it was told", n)
		}
		net.Publish(topic, []byte("{")) // what cannot be read harms nobody
	})
}

// Lanes for which a node has no room are taken by another at once.
func TestNodeWithoutRoomIsHelped(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, da, db *sqldb.DB) {
		net := bus.NewLocal()
		release, helps := make(chan struct{}), make(chan string, 100)
		a := start(t, da, &clock{real: true}, limited{func(ctx context.Context, _ string, _ endpoint.Operation) (endpoint.Answer, error) {
			select {
			case <-release:
				return endpoint.Answer{Status: 200}, nil
			case <-ctx.Done():
				return endpoint.Answer{}, ctx.Err()
			}
		}, time.Hour}, over(net), bounds(1, 1, 8))
		b := start(t, db, &clock{real: true}, handler(func(_ context.Context, _ string, op endpoint.Operation) (endpoint.Answer, error) {
			helps <- op.Subject
			return endpoint.Answer{Status: 200}, nil
		}), over(net))
		const lanes, most = 20, 1 + 8 // one in hand, a full queue
		for n := range lanes {
			a.send(conv(n, "b"), 1)
		}
		helped := 0
		for helped+a.held() < lanes {
			select {
			case <-helps:
				helped++
			case <-time.After(time.Millisecond): // a sweep of a may have found room for more
				a.stillRunning()
			}
		}
		if helped < lanes-most {
			t.Errorf("the other node helped with %d lanes of %d", helped, lanes)
		}
		close(release)
		for _, w := range []*world{a, b} {
			w.idle()
		}
		if n := a.count("SELECT count(*) FROM events WHERE status <> 'processed'"); n != 0 {
			t.Errorf("%d events are left", n)
		}
	})
}

func TestEphemeralLanesAreRemoved(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := engine(t, db, nil, nil, exclusive)
		for n := range 3 {
			w.send(Lane{Key: "evt:" + strconv.Itoa(n), Endpoint: "bot:b", Ephemeral: true}, 1)
		}
		w.run()
		w.idle()
		if n := w.count("SELECT count(*) FROM lanes"); n != 0 {
			t.Errorf("%d lanes are left", n)
		}
		w.kill()

		crashed := engine(t, db, w.clock, nil)
		crashed.send(Lane{Key: "evt:9", Endpoint: "bot:b", Ephemeral: true}, 1)
		w = start(t, db, w.clock, nil, exclusive)
		w.flow()
		if n := w.count("SELECT count(*) FROM lanes") + w.count("SELECT count(*) FROM events WHERE status = 'pending'"); n != 0 {
			t.Errorf("%d lanes or events are left by the process that ended", n)
		}
	})
}
