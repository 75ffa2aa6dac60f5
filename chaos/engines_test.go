package chaos

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"parley/internal/bus/natstest"
	"parley/internal/parleytest"
	"parley/internal/sqldb/sqldbtest"
	"parley/internal/sqldb/sqldbtest/pgserver"
)

// TestKillPostgres kills the database server at random points, with all its
// processes, or stops it in order now and then, and starts it again on its data.
// Nobody has to lend a hand: what was acknowledged is there, and what was pending
// goes on.
func TestKillPostgres(t *testing.T) {
	sqldbtest.NeedsPostgres(t)
	for name, start := range onPostgres {
		t.Run(name, func(t *testing.T) {
			db, err := pgserver.New(t.Context(), pgserver.Options{FSync: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := db.Stop(); err != nil {
					t.Error(err)
				}
			})
			s := start(t, db.URL)
			n := &toll{}
			l := begin(t, s)
			l.end(func() {
				killEngine(t, s, n, rounds(4, 250), db.Kill, db.End, func() error { return db.Run(t.Context()) })
			})
			l.neverSaid(http.StatusInternalServerError)
			if p := n.readyAfter(99); long() && p > 5*time.Second {
				t.Errorf("all servers were ready %v (p99) after the database came back, want 5 s at most", p)
			}
			l.record("kill -9 of PostgreSQL, "+name, n.String())
		})
	}
}

// onPostgres are the set-ups that have a database server.
var onPostgres = map[string]func(t *testing.T, url string, env ...string) *parleytest.Setup{
	"postgres": parleytest.Alone,
	"cluster":  parleytest.Cluster,
}

// TestKillNATS kills what carries the wake-ups between servers: things are late
// then, and none is lost.
func TestKillNATS(t *testing.T) {
	sqldbtest.NeedsPostgres(t)
	t.Run("cluster", func(t *testing.T) {
		wire := natstest.Spawn(t)
		s := parleytest.Cluster(t, sqldbtest.PostgresURL(t), "PARLEY_NATS_URL="+wire.URL)
		n := &toll{}
		l := begin(t, s)
		l.end(func() {
			killEngine(t, s, n, rounds(4, 200), func() error { wire.Kill(); return nil }, nil, wire.Run)
		})
		l.record("kill -9 of NATS, cluster", n.String())
	})
}

// killEngine kills what servers stand on, or stops it now and then if stop is not
// nil, and brings it back, and notes how long it then takes until all of them are ready.
func killEngine(t *testing.T, s *parleytest.Setup, n *toll, often int, kill, stop, run func() error) {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 1))
	for round := range often {
		<-time.After(time.Duration(50+dice.IntN(900)) * time.Millisecond)
		end := kill
		if stop != nil && round%5 == 2 {
			end = stop
			n.stops++
		} else {
			n.kills++
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Duration(dice.IntN(500)) * time.Millisecond)
		if err := run(); err != nil {
			t.Fatal(err)
		}
		n.ready = append(n.ready, untilReady(t, s))
	}
	<-time.After(300 * time.Millisecond)
}

// untilReady waits until each server says that it is ready.
func untilReady(t *testing.T, s *parleytest.Setup) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for _, node := range s.Nodes {
		for {
			answer, err := client.Get("http://" + node.Addr + "/readyz")
			if err == nil {
				answer.Body.Close()
				if answer.StatusCode == http.StatusOK {
					break
				}
			}
			if time.Since(began) > time.Minute {
				t.Fatal(fmt.Errorf("a server is not ready within a minute: %v", err))
			}
			<-tick.C
		}
	}
	return time.Since(began)
}
