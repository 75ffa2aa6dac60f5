package sqldb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Errors of this package. Driver errors are classified here and nowhere else.
var (
	// ErrNoRow reports that a statement matched nothing.
	ErrNoRow = errors.New("sqldb: no row")
	// ErrBusy reports that the queue of waiting writes is full. Nothing was done.
	ErrBusy = errors.New("sqldb: too many writes are waiting")
	// ErrClosed reports a call after Close.
	ErrClosed = errors.New("sqldb: database is closed")
	// ErrText reports text that PostgreSQL cannot hold: a zero byte or invalid UTF-8. Both engines refuse it.
	ErrText = errors.New("sqldb: text has a zero byte or is not valid UTF-8")
	// ErrBackup reports that this engine is backed up with its own tools.
	ErrBackup = errors.New("sqldb: a PostgreSQL database is backed up with pg_dump (or pg_basebackup for point-in-time recovery)")
)

// IsUnique reports that a statement violated a unique index or a primary key.
func IsUnique(err error) bool { return liteUnique(err) || pgUnique(err) }

// IsFull reports that there is no room left for the data. Nothing was done.
func IsFull(err error) bool { return !IsInDoubt(err) && (liteFull(err) || pgCode(err) == "53100") }

// IsUnavailable reports that the database server was not reached, went away, takes
// nobody or took too long. Nothing was done.
func IsUnavailable(err error) bool {
	_, ok := errors.AsType[*awayError](err)
	return ok && !IsInDoubt(err)
}

// IsInDoubt reports that the connection broke while a write was committed, or that
// SQLite had no room to end the commit: it may have happened.
func IsInDoubt(err error) bool {
	_, ok := errors.AsType[*doubtError](err)
	return ok
}

// doubtError is the error of a commit of which nobody knows whether it happened.
type doubtError struct{ err error }

func (e *doubtError) Error() string { return "the commit got no answer: " + e.err.Error() }
func (e *doubtError) Unwrap() error { return e.err }

// IsOutage reports that the reason lies with the database and not with what was
// asked of it: the same may succeed later.
func IsOutage(err error) bool {
	return IsFull(err) || IsUnavailable(err) || IsInDoubt(err) || errors.Is(err, ErrBusy) || errors.Is(err, ErrClosed)
}

// inQuery adds the beginning of the statement that failed.
func inQuery(err error, query string) error {
	if err == nil {
		return nil
	}
	query = strings.Join(strings.Fields(query), " ")
	if len(query) > 100 {
		query = query[:100] + "…"
	}
	if _, another := errors.AsType[*sentError](err); another {
		return fmt.Errorf("%w, sent before %q", err, query)
	}
	return fmt.Errorf("%w in %q", err, query)
}

// Dialect names an engine.
type Dialect uint8

// The two engines.
const (
	SQLite Dialect = iota
	Postgres
)

func (d Dialect) String() string {
	if d == Postgres {
		return "postgres"
	}
	return "sqlite"
}

// Q runs statements. It is bound to a context or to a transaction, so the
// functions of a store take no context.
type Q interface {
	// Exec runs a statement and reports how many rows it touched.
	Exec(query string, args ...any) (rows int64, err error)
	// Query runs a statement that gives rows. The caller closes them before
	// the next statement on the same Q of a transaction.
	Query(query string, args ...any) (*Rows, error)
}

// Options says which database to open.
type Options struct {
	// URL is "sqlite:///abs/path/file.db", a path ending in ".db", or "postgres://…".
	URL string
	// Log receives warnings; nil discards them.
	Log *slog.Logger
	// Fatal is called when the disk can no longer be trusted: a failed fsync
	// may have lost pages that a retry would report as written. It must not
	// return. nil logs and exits.
	Fatal func(error)
	// MaxConns bounds the connections to PostgreSQL, of which a third serve
	// readers. 0 takes pool_max_conns of the URL, or 24.
	MaxConns int
	// CloseTimeout is how long Close waits for reads that are under way; 0 = 20 s.
	CloseTimeout time.Duration
}

// DB is an open database.
type DB struct {
	engine  engine
	dialect Dialect
}

// engine is what differs between SQLite and PostgreSQL.
type engine interface {
	reader(ctx context.Context) Q
	write(ctx context.Context, fn func(tx *Tx) error) error
	writeSoon(rank string, fn func(tx *Tx) error, done func(error))
	// migrating runs fn while no other node migrates.
	migrating(ctx context.Context, fn func(m migrator) error) error
	backup(ctx context.Context, file string) error
	stats() Stats
	close() error
}

// Open opens the database named by o.URL and checks that it can be used. The
// directory of an SQLite file must exist; the file is created with mode 0600.
func Open(ctx context.Context, o Options) (*DB, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Fatal == nil {
		o.Fatal = func(err error) {
			o.Log.Error("the disk failed, stopping", "err", err)
			os.Exit(1)
		}
	}
	if o.CloseTimeout == 0 {
		o.CloseTimeout = 20 * time.Second
	}
	db := &DB{}
	var err error
	if file, ok := sqliteFile(o.URL); ok {
		db.dialect = SQLite
		db.engine, err = openSQLite(file, o)
	} else if strings.HasPrefix(o.URL, "postgres://") || strings.HasPrefix(o.URL, "postgresql://") {
		db.dialect = Postgres
		db.engine, err = openPostgres(ctx, o)
	} else {
		return nil, errors.New(`sqldb: the database URL must be sqlite:///path/file.db, a path ending in .db, or postgres://…`)
	}
	if err != nil {
		return nil, err
	}
	return db, nil
}

func sqliteFile(s string) (string, bool) {
	if strings.HasPrefix(s, "sqlite:") {
		u, err := url.Parse(s)
		if err != nil || u.Host != "" || !filepath.IsAbs(u.Path) {
			return "", false
		}
		return u.Path, true
	}
	return s, strings.HasSuffix(s, ".db") && !strings.Contains(s, "://")
}

// Dialect says which engine this is. Only sqldb, its tests and the composition look at it.
func (db *DB) Dialect() Dialect { return db.dialect }

// Reader gives a Q for reading that ends with ctx. Each query runs by itself and
// sees every write that has returned. It takes a connection of its own until
// its rows are closed, so the rows are read to the end before anything else is
// done. A statement that writes fails.
func (db *DB) Reader(ctx context.Context) Q { return db.engine.reader(ctx) }

// Write runs fn in one transaction and returns nil when it is on the disk.
//
// fn may run more than once, only its last run counts, and it must not touch
// anything but tx and its own variables: no other write, no reader, no call
// out. On SQLite it shares the transaction with other writes, but neither their
// errors nor their panics reach it.
//
// ctx bounds the wait for a turn. Statements never see it: a request that goes
// away would take its neighbours with it. Once fn has begun, Write waits for
// the outcome, so what fn shares with its caller is never touched after Write
// has returned. ErrBusy says that too many writes wait; nothing was done then.
// When the connection to PostgreSQL is lost during the commit, the error leaves
// open whether it happened.
func (db *DB) Write(ctx context.Context, fn func(tx *Tx) error) error {
	return db.engine.write(ctx, fn)
}

// WriteSoon runs fn like Write, but with the first commit after 5 ms, so that
// several share it and a waiting Write is not held up by each, and does not wait for it. done, which may be nil, gets the outcome after
// the commit, on a goroutine of the database's that it must not block. In which
// order closures run is not said. WriteSoon itself waits while thousands are
// before it.
func (db *DB) WriteSoon(fn func(tx *Tx) error, done func(error)) {
	db.engine.writeSoon("", fn, done)
}

// WriteSoonRanked is WriteSoon for closures that each lock a row which others
// lock too, several at a time: those that share a transaction on PostgreSQL run
// in the order of their ranks. Whoever locks the rows in that order, too, never
// meets them in a deadlock.
func (db *DB) WriteSoonRanked(rank string, fn func(tx *Tx) error, done func(error)) {
	db.engine.writeSoon(rank, fn, done)
}

// Stats reports what the database does.
func (db *DB) Stats() Stats { return db.engine.stats() }

// Backup writes a consistent copy of the database to file while others go on
// reading and writing. It never overwrites a file. On PostgreSQL it returns ErrBackup.
func (db *DB) Backup(ctx context.Context, file string) error {
	return db.engine.backup(ctx, file)
}

// Close finishes the writes that wait and closes the database. Calls after it
// return ErrClosed.
func (db *DB) Close() error { return db.engine.close() }

// Stats are what a metrics page shows: counters since Open and levels of now.
type Stats struct {
	QueueLen     int           // writes that wait
	Writes       int64         // closures committed
	Soon         int64         // of those, by WriteSoon
	Batches      int64         // commits
	Replays      int64         // batches rolled back because a closure in them failed
	Reruns       int64         // transactions run again after a serialization failure or a deadlock
	Busy         int64         // writes refused with ErrBusy
	CommitTime   time.Duration // spent in COMMIT
	ReadersInUse int           // connections that serve a reader
	WritersInUse int           // connections to PostgreSQL in a write
	LogPages     int           // pages in SQLite's write-ahead log
}

var errReadOnly = errors.New("sqldb: a reader cannot write")
