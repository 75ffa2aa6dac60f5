package delivery

import (
	"context"
	"testing"

	"parley/internal/bus"
	"parley/internal/endpoint"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// A process that leaves deliveries to others takes no lane, and what it enqueues
// is taken by them at its word: the clock moves by the pause between two sweeps
// and never as far as the time at which they look by themselves.
func TestWhoDeliversElsewhereOnlyTellsOfIt(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, da, db *sqldb.DB) {
		c, net, h := newClock(), bus.NewLocal(), newCalled()
		a := engine(t, da, c, handler(func(_ context.Context, _ string, op endpoint.Operation) (endpoint.Answer, error) {
			t.Errorf("%s is delivered where nothing shall be", op.Subject)
			return endpoint.Answer{Status: 200}, nil
		}), over(net), func(o *Config) { o.Elsewhere = true })
		b := start(t, db, c, h, over(net))
		told := func() {
			t.Helper()
			c.settled(t, c.Now().Add(sweepPause))
			c.advance(sweepPause)
		}
		c.settled(t, c.Now().Add(sweepEvery))
		l := conv(1, "b")

		first := a.send(l, 1)[0]
		if n := a.count("SELECT count(*) FROM lanes WHERE owner <> ''"); n != 0 || a.held() != 0 {
			t.Errorf("%d lanes are claimed, %d held by who does not deliver", n, a.held())
		}
		told()
		if got := await(t, h.calls, "an event of an idle lane"); got != first {
			t.Errorf("%s is delivered, want %s", got, first)
		}
		second := a.send(l, 1)[0]
		h.answers <- endpoint.Answer{Status: 200}
		if got := await(t, h.calls, "an event of a lane that is held"); got != second {
			t.Errorf("%s is delivered, want %s", got, second)
		}
		h.answers <- endpoint.Answer{Status: 503}
		b.idle() // the breaker is open

		if err := da.Write(t.Context(), func(tx *sqldb.Tx) error { return a.Reset(tx, l.Endpoint) }); err != nil {
			t.Fatal(err)
		}
		told()
		if got := await(t, h.calls, "an event whose endpoint has moved"); got != second {
			t.Errorf("%s is delivered, want %s", got, second)
		}
		h.answers <- endpoint.Answer{Status: 200}
		b.idle()
		if len(a.changed) != 0 {
			t.Errorf("%v are kept to be told, and nobody tells", a.changed)
		}
		if err := a.Stop(t.Context()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
}
