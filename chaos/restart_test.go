package chaos

import (
	"context"
	"net/url"
	"testing"
	"time"

	"parley/internal/parleytest"
	"parley/internal/sqldb/sqldbtest"
)

// TestRollingRestart restarts the servers of a cluster one after the other, in
// good order. Listeners come back to where they were, and nobody has to ask more
// than twice: unless the machine is so busy that the proxy hears too late that a
// server has gone, which a short run does not hold against the servers.
func TestRollingRestart(t *testing.T) {
	sqldbtest.NeedsPostgres(t)
	t.Run("cluster", func(t *testing.T) { restartInTurn(t, parleytest.Cluster(t, sqldbtest.PostgresURL(t))) })
}

func restartInTurn(t *testing.T, s *parleytest.Setup) {
	l := begin(t, s)
	for _, c := range l.talks {
		l.writing.Go(func() { c.read(t, l.going) })
	}
	n := &toll{}
	l.end(func() {
		for range rounds(1, 70) {
			for _, node := range s.Nodes {
				<-time.After(300 * time.Millisecond)
				node.End()
				n.stops++
				n.start(node)
			}
		}
		<-time.After(300 * time.Millisecond)
	})
	for _, c := range l.talks {
		if long() && c.tries > 2 {
			t.Errorf("%s: a message was sent %d times before it was acknowledged", c.name, c.tries)
		}
	}
	l.record("rolling restart, cluster", n.String()+", no request sent more than twice")
}

// read asks for the conversation until ctx ends, twice if need be.
func (c *talk) read(t *testing.T, ctx context.Context) {
	for ctx.Err() == nil {
		ask := func() error {
			_, err := c.call(t.Context(), "GET", "/conversations/"+url.PathEscape(c.id), "", struct{}{}, &struct{}{})
			return err
		}
		if err := ask(); err != nil {
			if again := ask(); again != nil && long() {
				t.Errorf("%s: read in vain twice: %v, then %v", c.name, err, again)
			}
		}
	}
}
