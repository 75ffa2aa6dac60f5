package delivery

import (
	"context"
	"slices"
	"sync"
	"testing"

	"parley/internal/endpoint"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// watched is a ledger that hears when tries end.
type watched struct {
	*ledger
	ended func(workID string)
}

func (s watched) Next(ctx context.Context, lane string, after int64) (*Work, error) {
	w, err := s.ledger.Next(ctx, lane, after)
	if w != nil {
		w.Ended = func(context.Context) { s.ended(w.ID) }
	}
	return w, err
}

// A source hears of the end of each try before the next entry is tried, and of
// none where there was no try.
func TestASourceHearsTheEndOfATry(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		var mu sync.Mutex
		var heard []string
		note := func(what string) {
			mu.Lock()
			defer mu.Unlock()
			heard = append(heard, what)
		}
		w := engine(t, db, nil, handler(func(_ context.Context, _ string, op endpoint.Operation) (endpoint.Answer, error) {
			note("begin " + op.Subject)
			return endpoint.Answer{Status: 200}, nil
		}))
		source := watched{w.Source.(*ledger), func(workID string) { note("end " + workID) }}
		w.Source = source
		ids := w.send(conv(1, "b"), 3)
		source.skip = map[string]*Outcome{ids[1]: {Status: Ignored, Reason: "gone"}}
		w.run()
		w.idle()
		if want := []string{"begin " + ids[0], "end " + ids[0], "begin " + ids[2], "end " + ids[2]}; !slices.Equal(heard, want) {
			t.Errorf("heard %q, want %q", heard, want)
		}
	})
}
