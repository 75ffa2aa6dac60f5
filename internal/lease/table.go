package lease

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"time"

	"parley/internal/sqldb"
)

// Config is what NewTable needs.
type Config struct {
	DB   *sqldb.DB
	Node string        // shown as holder; need not be unique
	Term time.Duration // how long a holder that fell silent keeps the lease; 0 = 15 s
	Log  *slog.Logger  // nil discards

	// Now is the clock, nil for time.Now. Terms are counted by its monotonic reading.
	Now func() time.Time
}

// NewTable makes the lease of a node in a cluster.
func NewTable(c Config) (Lease, error) {
	if c.DB == nil {
		return nil, errors.New("lease: a database is needed")
	}
	if c.Term == 0 {
		c.Term = 15 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &table{c}, nil
}

type table struct{ Config }

// row is a row of leases. until is a wall clock time for people to read and
// changes with each renewal; nobody computes with it.
type row struct {
	Name, Holder string
	Until        int64
}

func (r *row) Columns() []sqldb.Column {
	return []sqldb.Column{{Name: "name", Field: &r.Name}, {Name: "holder", Field: &r.Holder}, {Name: "until", Field: &r.Until}}
}

// Hold implements Lease.
func (t *table) Hold(ctx context.Context, name string, fn func(ctx context.Context) error) error {
	// Each call is a holder of its own, also beside another one of this process.
	h := &holder{table: t, mine: row{Name: name, Holder: t.Node + "/" + rand.Text()}}
	for {
		if err := h.acquire(ctx); err != nil {
			return err
		}
		if err := h.run(ctx, fn); !h.lost() || ctx.Err() != nil {
			return err
		}
		t.Log.Warn("lease lost", "name", name)
	}
}

// holder is one call of Hold.
type holder struct {
	*table
	mine row       // as it was last written
	end  time.Time // of the term, by this node's monotonic clock

	seen  row       // of another holder, as it was last read
	since time.Time // when it was first read like that

	held context.Context // fn's
}

func (h *holder) lost() bool { return context.Cause(h.held) == ErrLost }

// acquire tries until the row is taken or ctx ends.
func (h *holder) acquire(ctx context.Context) error {
	for {
		got, err := h.try(ctx)
		if ctx.Err() != nil {
			if got {
				h.release()
			}
			return ctx.Err()
		}
		if err != nil {
			h.Log.Warn("lease not reached", "name", h.mine.Name, "err", err)
		} else if got {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(h.Term / 4):
		}
	}
}

// try takes the row if it is free, or has stayed the same for a term.
func (h *holder) try(ctx context.Context) (got bool, err error) {
	start := h.Now()
	var now row
	err = h.DB.Write(ctx, func(tx *sqldb.Tx) error {
		got = false
		if _, err := sqldb.Insert(tx, "leases", &row{Name: h.mine.Name}); err != nil {
			return err
		}
		r, err := sqldb.One[row](tx, "leases", "WHERE name = $1 {for_update}", h.mine.Name)
		if err != nil {
			return err
		}
		now = *r
		if now.Holder != "" && (now != h.seen || start.Sub(h.since) < h.Term) {
			return nil
		}
		got = true
		now = h.next(now.Until)
		return sqldb.Update(tx, "leases", &now, sqldb.Column{Name: "name", Field: now.Name})
	})
	switch {
	case err != nil:
		return false, err
	case got:
		h.mine, h.end = now, start.Add(h.Term)
		h.seen = row{}
	case now != h.seen:
		h.seen, h.since = now, h.Now() // after it was read: it may have been written just before
	}
	return got, nil
}

// next is the row of the next term, which differs from the one before.
func (h *holder) next(before int64) row {
	return row{h.mine.Name, h.mine.Holder, max(before+1, h.Now().Add(h.Term).UnixMilli())}
}

// run runs fn while the row is renewed beside it.
func (h *holder) run(ctx context.Context, fn func(ctx context.Context) error) error {
	held, cancel := context.WithCancelCause(ctx)
	h.held = held
	var renewal sync.WaitGroup
	renewal.Go(func() { h.renew(held, cancel) })
	defer func() {
		cancel(nil)
		renewal.Wait()
		h.release()
	}()
	return fn(held)
}

// renew changes the row every third of a term and cancels when it has not
// managed to, with a part of the term left for fn to stop in.
func (h *holder) renew(held context.Context, cancel context.CancelCauseFunc) {
	lost := time.AfterFunc(h.left(), func() { cancel(ErrLost) })
	defer lost.Stop()
	wait := h.Term / 3
	for {
		select {
		case <-held.Done():
			return
		case <-time.After(wait):
		}
		start := h.Now()
		mine := h.next(h.mine.Until)
		err := h.DB.Write(held, func(tx *sqldb.Tx) error {
			return sqldb.Update(tx, "leases", &mine, sqldb.Column{Name: "name", Field: h.mine.Name}, sqldb.Column{Name: "holder", Field: h.mine.Holder})
		})
		switch {
		case errors.Is(err, sqldb.ErrNoRow):
			cancel(ErrLost)
			return
		case err != nil:
			wait = h.Term / 20 // there is not much time left
			continue
		}
		h.mine, h.end, wait = mine, start.Add(h.Term), h.Term/3
		if !lost.Stop() {
			return // too late: fn has been told
		}
		lost.Reset(h.left())
	}
}

func (h *holder) left() time.Duration { return h.end.Sub(h.Now()) - h.Term/6 }

// release frees the row for whoever waits. Where that fails they wait for a term.
func (h *holder) release() {
	ctx, cancel := context.WithTimeout(context.Background(), h.Term)
	defer cancel()
	err := h.DB.Write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec("UPDATE leases SET holder = '' WHERE name = $1 AND holder = $2", h.mine.Name, h.mine.Holder)
		return err
	})
	if err != nil {
		h.Log.Warn("lease not released", "name", h.mine.Name, "err", err)
	}
}
