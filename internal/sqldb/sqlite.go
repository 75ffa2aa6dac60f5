package sqldb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"parley/internal/sqldb/lite"
)

// readerCount is how many reads run at a time. More do not help: they meet in
// SQLite's page cache.
const readerCount = 4

// sqlite is the engine on one SQLite file: a writer, a few readers and a
// connection that moves the write-ahead log into the file.
type sqlite struct {
	file    string
	opt     Options
	writer  *writer
	readers chan *lite.Conn
	closing chan struct{}
	closed  atomic.Bool
	ended   sync.WaitGroup
}

func openSQLite(file string, o Options) (*sqlite, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600) // SQLite would create it readable by others
	if err != nil {
		return nil, fmt.Errorf("sqldb: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("sqldb: %w", err)
	}
	l := &sqlite{file: file, opt: o, readers: make(chan *lite.Conn, readerCount), closing: make(chan struct{})}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("sqldb: %w", errors.Join(err, l.closeConns()))
	}
	l.ended.Go(l.writer.run)
	l.ended.Go(l.writer.done.run)
	l.ended.Go(l.writer.checkpoints)
	return l, nil
}

// The page cache is small: a larger one costs memory and keeps readers from
// running side by side. Memory-mapped reading halves reads beside a writer.
const pragmas = `PRAGMA busy_timeout = 5000;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA cache_size = -8192;
PRAGMA mmap_size = 0;
PRAGMA temp_store = MEMORY;
PRAGMA foreign_keys = OFF;
PRAGMA analysis_limit = 400;`

func (l *sqlite) open() error {
	write, err := openLite(l.file, "")
	if err != nil {
		return err
	}
	l.writer = newWriter(write, l.opt)
	mode, err := Scalar[string](&liteQ{c: write}, "PRAGMA journal_mode")
	if err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("%s: the file system cannot hold a write-ahead log (journal mode is %s); use a local disk", l.file, mode)
	}
	if err := write.GatherLog(); err != nil {
		return err
	}
	if l.writer.mover, err = openLite(l.file, ""); err != nil {
		return err
	}
	for range readerCount {
		c, err := openLite(l.file, "PRAGMA query_only = ON")
		if err != nil {
			return err
		}
		l.readers <- c
	}
	return nil
}

func openLite(file, extra string) (*lite.Conn, error) {
	c, err := lite.Open(file, SQLite.text)
	if err != nil {
		return nil, err
	}
	if err := c.Script(pragmas + extra); err != nil {
		err = fmt.Errorf("open %s: %w", file, err)
		if liteFull(err) {
			err = fmt.Errorf("there is no room on the disk for the index of SQLite's log: make some, and start again: %w", err)
		}
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (l *sqlite) closeConns() error {
	var errs []error
	for len(l.readers) > 0 {
		errs = append(errs, (<-l.readers).Close())
	}
	if l.writer != nil {
		if l.writer.mover != nil {
			errs = append(errs, l.writer.mover.Close())
		}
		errs = append(errs, l.writer.conn.Close()) // the last one also empties the log and removes it
	}
	return errors.Join(errs...)
}

func (l *sqlite) close() error {
	if l.closed.Swap(true) {
		return ErrClosed
	}
	close(l.closing)
	l.writer.close()
	l.ended.Wait()
	_ = l.writer.conn.Script("PRAGMA optimize") // statistics for the planner, which can do without
	err := within(l.opt.CloseTimeout, func() {
		idle := make([]*lite.Conn, readerCount)
		for i := range idle {
			idle[i] = <-l.readers
		}
		for _, c := range idle {
			l.readers <- c
		}
	})
	return errors.Join(err, l.closeConns())
}

func (l *sqlite) reader(ctx context.Context) Q { return liteReader{l, ctx} }

type liteReader struct {
	l   *sqlite
	ctx context.Context
}

// Exec implements Q.
func (r liteReader) Exec(string, ...any) (int64, error) { return 0, errReadOnly }

// Query implements Q.
func (r liteReader) Query(query string, args ...any) (*Rows, error) {
	if r.l.closed.Load() {
		return nil, ErrClosed
	}
	if err := r.ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case c := <-r.l.readers:
		return r.query(c, query, args)
	case <-r.l.closing:
		return nil, ErrClosed
	case <-r.ctx.Done():
		return nil, r.ctx.Err()
	}
}

func (r liteReader) query(c *lite.Conn, query string, args []any) (*Rows, error) {
	stop := interruptOn(r.ctx, c)
	end := func() {
		stop()
		r.l.readers <- c
	}
	cur, err := (&liteQ{c: c}).start(query, args)
	if err != nil {
		end()
		return nil, inQuery(interrupted(r.ctx, err), query)
	}
	cur.ctx, cur.end = r.ctx, end
	return &Rows{c: cur}, nil
}

// interruptOn interrupts c when ctx ends, until stop is called. An interrupt
// that comes before the statement has begun is lost, so it is repeated. When
// stop returns none is on its way that could hit the next statement.
func interruptOn(ctx context.Context, c *lite.Conn) (stop func()) {
	if ctx.Done() == nil {
		return func() {}
	}
	over, ran := make(chan struct{}), make(chan struct{})
	remove := context.AfterFunc(ctx, func() {
		defer close(ran)
		for {
			c.Interrupt()
			select {
			case <-over:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	return func() {
		if !remove() {
			close(over)
			<-ran
		}
	}
}

// interrupted gives the reason for an interrupt.
func interrupted(ctx context.Context, err error) error {
	if e, ok := errors.AsType[*lite.Error](err); ok && e.Code == lite.Interrupted && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (l *sqlite) write(ctx context.Context, fn func(tx *Tx) error) error {
	return l.writer.write(ctx, fn)
}

// writeSoon needs no rank: nobody else has a lock while the writer works.
func (l *sqlite) writeSoon(_ string, fn func(tx *Tx) error, done func(error)) {
	l.writer.writeSoon(fn, done)
}

func (l *sqlite) stats() Stats {
	s := l.writer.count.stats()
	s.QueueLen, s.LogPages = l.writer.waiting()
	s.ReadersInUse = readerCount - len(l.readers)
	return s
}

// migrating needs no lock of its own: the transactions exclude each other, and
// each looks again at what there is to do. Who comes second waits for as long as
// the first one takes.
func (l *sqlite) migrating(ctx context.Context, fn func(m migrator) error) error {
	return fn(liteMigrator{l, ctx})
}

type liteMigrator struct {
	l   *sqlite
	ctx context.Context
}

func (m liteMigrator) inTx(fn func(tx *Tx) error) error {
	for {
		err := m.l.write(m.ctx, fn)
		if e, ok := errors.AsType[*lite.Error](err); !ok || e.Code&0xff != lite.Busy || m.ctx.Err() != nil {
			return err
		}
	}
}

func (m liteMigrator) alone(statement string) (rows int64, err error) {
	err = m.inTx(func(tx *Tx) (err error) {
		rows, err = tx.Exec(statement)
		return err
	})
	return rows, err
}
