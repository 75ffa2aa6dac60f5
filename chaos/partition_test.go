//go:build linux

package chaos

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"parley/internal/bus/natstest"
	"parley/internal/parleytest"
	"parley/internal/sqldb/sqldbtest"
)

// TestPartition parts servers from what they stand on without closing anything,
// in one direction or both: one from NATS, one from PostgreSQL. Its connections to
// PostgreSQL break or are forgotten while answers are under way, and all sessions
// of the database are ended now and then. What is refused says why, and when the
// parts are together again everything goes on by itself. A lost connection takes
// longest: the server finds out after 5 s, and PostgreSQL may hold its locks for as
// long again.
func TestPartition(t *testing.T) {
	sqldbtest.NeedsPostgres(t)
	t.Run("cluster", func(t *testing.T) {
		// Other tests have sessions at the same server; a name tells ours.
		name, wire := "parted-"+crand.Text(), natstest.Start(t)
		// Nor are they given more time: locks of a session that is lost end as they do elsewhere.
		database, _, _ := strings.Cut(sqldbtest.PostgresURL(t), "&statement_timeout")
		database += "&application_name=" + name
		toNATS, toPostgres := newRelay(t, wire.URL), newRelay(t, database)
		s := parleytest.Cluster(t, database, "PARLEY_NATS_URL="+wire.URL)
		for i, env := range map[int]string{1: "PARLEY_NATS_URL=" + toNATS.url, 2: "PARLEY_DATABASE_URL=" + toPostgres.url} {
			node := s.Nodes[i]
			node.End()
			node.Env = append(node.Env, env)
			node.Start()
		}
		l := begin(t, s)
		var newcomers []*talk // one at each server
		for i, node := range s.Nodes {
			newcomers = append(newcomers, newTalk(t, at(t, l.talks[0].base, node.Addr), len(l.talks)+i))
		}
		n := map[string]int{}
		var healed, found []time.Duration
		l.end(func() {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			dice := rand.New(rand.NewPCG(seed, 1))
			part := func(r *relay, ways ...direction) {
				r.block(ways...)
				<-time.After(time.Duration(200+dice.IntN(3_000)) * time.Millisecond)
			}
			ways := [][]direction{{there, back}, {there}, {back}}
			for round := range rounds(5, 100) {
				lost := false
				switch round % 5 {
				case 0:
					n["NATS"]++
					part(toNATS, ways[dice.IntN(3)]...)
					toNATS.heal()
				case 1:
					n["PostgreSQL"]++
					part(toPostgres, ways[dice.IntN(3)]...)
					toPostgres.heal()
				case 2: // nobody hears what became of a commit
					n["broken"]++
					part(toPostgres, back)
					toPostgres.hangUp()
					toPostgres.heal()
				case 3: // nor that there is nothing to wait for
					n["lost"]++
					lost = true
					part(toPostgres, back)
					toPostgres.lose(t)
					toPostgres.heal()
				case 4:
					n["sessions"] += endSessions(t, database, name)
				}
				began := time.Now()
				untilReady(t, s)
				for _, c := range newcomers {
					c.acknowledged(t)
				}
				if took := time.Since(began); lost {
					found = append(found, took)
				} else {
					healed = append(healed, took)
				}
			}
		})
		l.neverSaid(http.StatusInternalServerError)
		late, later := percentile(healed, 99).Round(time.Millisecond), percentile(found, 99).Round(time.Millisecond)
		if long() && (late > 5*time.Second || later > 12*time.Second) {
			t.Errorf("all servers took messages %v (p99) after the parts were together again, %v where connections were lost; want 5 s and 12 s at most", late, later)
		}
		l.record("partitions, cluster", fmt.Sprintf("a server parted from NATS %d times, one from PostgreSQL %d times, its connections broken %d times, %d sessions of the database ended; all took messages again after %v (p99); connections lost without a word %d times, after %v (p99)",
			n["NATS"], n["PostgreSQL"], n["broken"], n["sessions"], late, n["lost"], later))
	})
}

// at is a URL with the address of a server.
func at(t *testing.T, base, addr string) string {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = addr
	return u.String()
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
