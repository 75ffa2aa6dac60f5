package chaos

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"parley/internal/bus/natstest"
	"parley/internal/parleytest"
	"parley/internal/sqldb/sqldbtest"
)

// TestPartition parts servers from what they stand on without closing anything:
// one from NATS, one from PostgreSQL, and all sessions of the database are ended
// now and then. What is refused says why, and when the parts are together again
// everything goes on by itself.
func TestPartition(t *testing.T) {
	sqldbtest.NeedsPostgres(t)
	t.Run("cluster", func(t *testing.T) {
		// Other tests have sessions at the same server; a name tells ours.
		name, wire := "parted-"+crand.Text(), natstest.Start(t)
		database := sqldbtest.PostgresURL(t) + "&application_name=" + name
		toNATS, toPostgres := newRelay(t, wire.URL), newRelay(t, database)
		s := parleytest.Cluster(t, database, "PARLEY_NATS_URL="+wire.URL)
		for i, env := range map[int]string{1: "PARLEY_NATS_URL=" + toNATS.url, 2: "PARLEY_DATABASE_URL=" + toPostgres.url} {
			node := s.Nodes[i]
			node.End()
			node.Env = append(node.Env, env)
			node.Start()
		}
		l := begin(t, s)
		n := map[string]int{}
		var healed []time.Duration
		l.end(func() {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			dice := rand.New(rand.NewPCG(seed, 1))
			for round := range rounds(3, 90) {
				part := func() { <-time.After(time.Duration(200+dice.IntN(3_000)) * time.Millisecond) }
				switch round % 3 {
				case 0:
					n["NATS"]++
					toNATS.block()
					part()
					toNATS.heal()
				case 1:
					n["PostgreSQL"]++
					toPostgres.block()
					part()
					toPostgres.heal()
				case 2:
					n["sessions"] += endSessions(t, database, name)
				}
				healed = append(healed, untilReady(t, s))
			}
		})
		l.neverSaid(http.StatusInternalServerError)
		late := percentile(healed, 99).Round(time.Millisecond)
		if long() && late > 5*time.Second {
			t.Errorf("all servers were ready %v (p99) after the parts were together again, want 5 s at most", late)
		}
		l.record("partitions, cluster", fmt.Sprintf("a server parted from NATS %d times, one from PostgreSQL %d times, %d sessions of the database ended; all ready again after %v (p99)",
			n["NATS"], n["PostgreSQL"], n["sessions"], late))
	})
}

// endSessions ends every session that servers have in the database under a name,
// and says how many.
func endSessions(t *testing.T, database, name string) (ended int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := pgx.Connect(ctx, database)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	const end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1 AND pid <> pg_backend_pid()"
	if err := c.QueryRow(ctx, end, name).Scan(&ended); err != nil {
		t.Fatal(err)
	}
	return ended
}
