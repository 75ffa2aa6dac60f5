package sqldb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	maxTries  = 4                     // runs of one closure against other transactions
	txTimeout = 30 * time.Second      // for a transaction or a query whose server stopped answering
	pgBatch   = 64                    // WriteSoons in one transaction: each holds the locks of all
	pgHold    = 50 * time.Millisecond // after which no further WriteSoon joins a transaction
)

// postgres is the engine on a PostgreSQL server: a transaction for each write
// on one pool of connections, reads on another that cannot write. WriteSoons have
// a connection of their own: for each of their commits they would stand behind
// hundreds of writes, and fall behind what they are about.
type postgres struct {
	writers, readers, aside *pgxpool.Pool
	opt                     Options
	texts                   texts
	ctx                     context.Context // of WriteSoons, which have no other
	cancel                  context.CancelFunc
	soon                    *flusher
	waiting                 atomic.Int64
	count                   counters

	mu      sync.RWMutex
	closed  bool
	running sync.WaitGroup // writes under way; added to while mu is held
	ended   sync.WaitGroup // goroutines
}

func openPostgres(ctx context.Context, o Options) (*postgres, error) {
	p := &postgres{opt: o}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if err := p.connect(ctx); err != nil {
		p.closePools()
		return nil, fmt.Errorf("sqldb: %w", err)
	}
	p.soon = newFlusher(p.opt.Log, p.flush)
	p.ended.Go(p.soon.run)
	p.ended.Go(p.soon.done.run)
	return p, nil
}

func (p *postgres) connect(ctx context.Context) error {
	write, read, err := pools(p.opt)
	if err != nil {
		return err
	}
	aside := write.Copy()
	aside.MaxConns = 1
	write.MaxConns--
	if p.writers, err = pgxpool.NewWithConfig(ctx, write); err != nil {
		return err
	}
	if p.aside, err = pgxpool.NewWithConfig(ctx, aside); err != nil {
		return err
	}
	if p.readers, err = pgxpool.NewWithConfig(ctx, read); err != nil {
		return err
	}
	return p.check(ctx)
}

// pools says how writers and readers connect, and how many of each.
func pools(o Options) (write, read *pgxpool.Config, err error) {
	write, err = pgxpool.ParseConfig(o.URL)
	if err != nil {
		return nil, nil, fmt.Errorf("database URL: %w", err)
	}
	set := write.ConnConfig.RuntimeParams
	for k, v := range map[string]string{
		"application_name":                    "parley",
		"statement_timeout":                   "10s",
		"idle_in_transaction_session_timeout": "5s",
		"default_transaction_isolation":       "read committed",
		"client_encoding":                     "UTF8",
	} {
		if _, ok := set[k]; !ok {
			set[k] = v
		}
	}
	set["synchronous_commit"] = "on" // what Write promises
	notice(write)
	read = write.Copy()
	read.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on"
	if _, ok := set["plan_cache_mode"]; !ok {
		// The queries follow indexes whatever their arguments are. Planning some of
		// them anew takes longer than their execution.
		read.ConnConfig.RuntimeParams["plan_cache_mode"] = "force_generic_plan"
	}
	conns := o.MaxConns
	if conns == 0 && strings.Contains(o.URL, "pool_max_conns=") {
		conns = int(write.MaxConns)
	} else if conns == 0 {
		conns = 24
	}
	read.MaxConns = int32(max(2, conns/3))
	write.MaxConns = max(2, int32(conns)-read.MaxConns)
	return write, read, nil
}

// oldest is the version of PostgreSQL from which on everything is there, and
// inBytes the order of orderedHere where texts are sorted by their bytes.
const (
	oldest      = 140000
	inBytes     = "10 9 B Z _ a z é"
	orderedHere = `(SELECT string_agg(x, ' ' ORDER BY x) FROM (VALUES ('a'), ('_'), ('B'), ('é'), ('z'), ('9'), ('10'), ('Z')) AS t (x))`

	createDatabase = "CREATE DATABASE parley TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'"
)

// check refuses a server on which the same statements would mean something
// else, and says when one does not keep what it confirms.
func (p *postgres) check(ctx context.Context) error {
	var version int
	var encoding, collate, fsync, order string
	err := p.writers.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, pg_encoding_to_char(encoding), datcollate, current_setting('fsync'), `+orderedHere+`
		FROM pg_database WHERE datname = current_database()`).Scan(&version, &encoding, &collate, &fsync, &order)
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	if version < oldest {
		return fmt.Errorf("PostgreSQL %d is too old, 14 or newer is needed", version/10000)
	}
	if encoding != "UTF8" || order != inBytes {
		return fmt.Errorf("the database has encoding %s and collation %s, but lists are paged in the order of bytes: make it with "+createDatabase, encoding, collate)
	}
	if fsync != "on" {
		p.opt.Log.Warn("PostgreSQL runs with fsync = off: a power cut loses confirmed writes")
	}
	return nil
}

func (p *postgres) closePools() {
	p.cancel()
	for _, pool := range []*pgxpool.Pool{p.writers, p.aside, p.readers} {
		if pool != nil {
			pool.Close()
		}
	}
}

func (p *postgres) close() error {
	p.mu.Lock()
	was := p.closed
	p.closed = true
	p.mu.Unlock()
	if was {
		return ErrClosed
	}
	p.soon.close()
	p.ended.Wait()
	p.running.Wait()
	return within(p.opt.CloseTimeout, p.closePools)
}

func (p *postgres) isClosed() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.closed
}

// begin counts a write in; close waits for running.
func (p *postgres) begin() error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return ErrClosed
	}
	p.running.Add(1)
	return nil
}

func (p *postgres) stats() Stats {
	s := p.count.stats()
	s.QueueLen = int(p.waiting.Load()) + p.soon.len()
	s.WritersInUse = int(p.writers.Stat().AcquiredConns() + p.aside.Stat().AcquiredConns())
	s.ReadersInUse = int(p.readers.Stat().AcquiredConns())
	return s
}

func (p *postgres) backup(context.Context, string) error { return ErrBackup }

func (p *postgres) write(ctx context.Context, fn func(tx *Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := p.begin(); err != nil {
		return err
	}
	defer p.running.Done()
	defer p.waiting.Add(-1)
	if p.waiting.Add(1) > maxWaiting {
		p.count.busy.Add(1)
		return ErrBusy
	}
	after, err := p.run(ctx, p.writers, fn)
	if err != nil {
		return err
	}
	p.count.writes.Add(1)
	for _, f := range after {
		f()
	}
	return nil
}

// run tries fn until it commits, fails for a reason of its own, or has lost
// against others too often.
func (p *postgres) run(ctx context.Context, conns *pgxpool.Pool, fn func(tx *Tx) error) (after []func(), err error) {
	for try := 1; ; try++ {
		after, err = p.once(ctx, conns, fn)
		again, ok := errors.AsType[*lostError](err)
		if !ok {
			return after, err
		}
		if try == maxTries {
			return nil, again.err
		}
		p.count.reruns.Add(1)
		select {
		case <-time.After(rand.N(5 * time.Millisecond << try)):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// lostError is the error of a transaction that certainly had no effect and may
// succeed when it is run again.
type lostError struct{ err error }

func (e *lostError) Error() string { return e.err.Error() }

// once makes one run of fn. ctx bounds the wait for a connection only: cutting
// a statement off costs the connection, and it would do so in the middle of
// something.
func (p *postgres) once(ctx context.Context, conns *pgxpool.Pool, fn func(tx *Tx) error) (after []func(), err error) {
	conn, err := conns.Acquire(ctx)
	if err != nil {
		return nil, pgError(err)
	}
	defer conn.Release()
	q := &pgTx{p: p, ctx: context.Background(), conn: conn.Conn()}
	tx := q.tx()
	if err := tx.run(fn); err != nil {
		err = lost(conn.Conn(), err)
		q.rollback()
		return nil, err
	}
	start := time.Now()
	if err := q.commit(); err != nil {
		if conn.Conn().IsClosed() {
			for _, f := range tx.doubt {
				f()
			}
			return nil, &doubtError{err}
		}
		q.rollback() // where something that was sent has failed before the commit
		return nil, err
	}
	p.count.batches.Add(1)
	p.count.commitNanos.Add(int64(time.Since(start)))
	return tx.after, nil
}

// lost marks an error before the commit after which the transaction may be run
// again: it gave way to another one, or the connection broke.
func lost(c *pgx.Conn, err error) error {
	slow := pgCode(err) == "25P03" || errors.Is(err, os.ErrDeadlineExceeded) // and would be so again
	if gaveWay(err) || c.IsClosed() && !slow {
		return &lostError{err}
	}
	return err
}

// gaveWay reports a serialization failure or a deadlock.
func gaveWay(err error) bool { return pgCode(err) == "40001" || pgCode(err) == "40P01" }

func pgCode(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// pgError gives the errors of the driver that callers ask for their names.
func pgError(err error) error {
	switch {
	case err == nil:
		return nil
	case pgCode(err) == "22021":
		return fmt.Errorf("%w: %w", ErrText, err)
	case pgAway(err):
		return &awayError{err}
	}
	return err
}

// awayError is the error of a server that is not there or takes too long.
type awayError struct{ err error }

func (e *awayError) Error() string { return e.err.Error() }
func (e *awayError) Unwrap() error { return e.err }

// pgAway knows a server that is not there by what it says when it goes, comes,
// has no place left or gives up, and by what the network says.
func pgAway(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return isConnect(err) // else the caller gave up
	}
	switch code := pgCode(err); {
	case code == "57014", code == "25P03": // after statement_timeout and its like
		return true
	case code != "":
		return strings.HasPrefix(code, "57P") || strings.HasPrefix(code, "08") || strings.HasPrefix(code, "53") && code != "53100"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), isConnect(err):
		return true
	}
	_, ok := errors.AsType[net.Error](err)
	return ok
}

func isConnect(err error) bool {
	_, ok := errors.AsType[*pgconn.ConnectError](err)
	return ok
}

func pgUnique(err error) bool { return pgCode(err) == "23505" }

func (p *postgres) writeSoon(rank string, fn func(tx *Tx) error, done func(error)) {
	o := &write{fn: fn, tell: done, rank: rank}
	if err := p.soon.add(o); err != nil {
		o.err = err
		o.finish()
	}
}

// flush commits a batch of WriteSoons, or each alone when one of them fails. On
// a slow server it takes several commits: whoever waits for the locks of the
// first is not to wait for all of them.
func (p *postgres) flush(batch []*write) {
	for len(batch) > 0 {
		batch = batch[p.flushSome(batch):]
	}
}

// flushSome commits as many from the beginning of a batch as there is time for.
func (p *postgres) flushSome(batch []*write) (n int) {
	after, err := p.run(p.ctx, p.aside, func(tx *Tx) error {
		began := time.Now()
		for n = 0; n < len(batch) && (n == 0 || time.Since(began) < pgHold); n++ {
			if err := batch[n].fn(tx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && len(batch) > 1 {
		p.count.replays.Add(1)
		for i := range batch {
			p.flushSome(batch[i : i+1])
		}
		return len(batch)
	}
	if err == nil {
		p.count.writes.Add(int64(n))
		p.count.soon.Add(int64(n))
	} else {
		n = 1 // it has failed alone
	}
	batch[0].after = after // of all of them: they have committed together
	for _, o := range batch[:n] {
		p.soon.finished(o, err)
	}
	return n
}
