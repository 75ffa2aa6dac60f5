package sqldb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"parley/internal/sqldb/lite"
)

// Look opens a database to look at it, also one that Open would refuse or that
// a server uses. Nothing is created, migrated or changed; writes fail.
//
// Of an SQLite file that nobody has open the copy in the file is read, and
// nothing beside it is made. Where there is a write-ahead log, it is read as any
// other reader would.
func Look(ctx context.Context, o Options) (*DB, error) {
	if file, ok := sqliteFile(o.URL); ok {
		e, err := lookSQLite(file)
		if err != nil {
			return nil, err
		}
		return &DB{e, SQLite}, nil
	}
	p := &postgres{opt: o}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if err := p.look(ctx); err != nil {
		p.closePools()
		return nil, err
	}
	return &DB{lookPostgres{p}, Postgres}, nil
}

// looker is what the engines of Look have in common: they do not write.
type looker struct{}

func (looker) write(context.Context, func(*Tx) error) error { return errReadOnly }
func (looker) writeSoon(_ string, _ func(*Tx) error, done func(error)) {
	if done != nil {
		done(errReadOnly)
	}
}
func (looker) migrating(context.Context, func(migrator) error) error {
	return errReadOnly
}
func (looker) backup(context.Context, string) error { return errReadOnly }
func (looker) stats() Stats                         { return Stats{} }

type liteLook struct {
	looker
	l *sqlite
}

func lookSQLite(file string) (*liteLook, error) {
	if _, err := os.Stat(file); err != nil {
		return nil, err // SQLite would only say that it cannot open it
	}
	uri := (&url.URL{Scheme: "file", Path: filepath.ToSlash(file)}).String() + "?mode=ro"
	if _, err := os.Stat(file + "-wal"); errors.Is(err, fs.ErrNotExist) {
		uri += "&immutable=1" // otherwise a log is made, which a reader cannot remove
	}
	c, err := lite.OpenReadOnly(uri, SQLite.text)
	if err != nil {
		return nil, err
	}
	if err := c.Script("PRAGMA busy_timeout = 5000; PRAGMA query_only = ON; PRAGMA mmap_size = 0"); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	l := &sqlite{file: file, readers: make(chan *lite.Conn, 1), closing: make(chan struct{})}
	l.readers <- c
	return &liteLook{l: l}, nil
}

func (e *liteLook) reader(ctx context.Context) Q { return e.l.reader(ctx) }

func (e *liteLook) close() error {
	if e.l.closed.Swap(true) {
		return ErrClosed
	}
	close(e.l.closing)
	return (<-e.l.readers).Close()
}

type lookPostgres struct{ *postgres }

func (p *postgres) look(ctx context.Context) error {
	_, read, err := pools(p.opt)
	if err != nil {
		return err
	}
	read.MaxConns = 1
	if p.readers, err = pgxpool.NewWithConfig(ctx, read); err != nil {
		return err
	}
	return p.readers.Ping(ctx)
}

func (p lookPostgres) write(context.Context, func(*Tx) error) error { return errReadOnly }
func (p lookPostgres) writeSoon(rank string, fn func(*Tx) error, done func(error)) {
	looker{}.writeSoon(rank, fn, done)
}
func (p lookPostgres) migrating(context.Context, func(migrator) error) error {
	return errReadOnly
}
func (p lookPostgres) stats() Stats { return Stats{} }
func (p lookPostgres) close() error {
	p.mu.Lock()
	was := p.closed
	p.closed = true
	p.mu.Unlock()
	if was {
		return ErrClosed
	}
	p.closePools()
	return nil
}

// SQLiteFacts are what an operator should know about an SQLite file.
type SQLiteFacts struct {
	Version       string // of the library
	JournalMode   string // wal is what Open sets
	Size, LogSize int64  // bytes of the file and of its write-ahead log
}

// SQLiteFacts finds out about the SQLite file behind db.
func (db *DB) SQLiteFacts(ctx context.Context) (f SQLiteFacts, err error) {
	e, ok := db.engine.(*liteLook)
	if !ok {
		return f, errors.New("sqldb: the facts of an SQLite file are for one that Look has opened")
	}
	if info, err := os.Stat(e.l.file); err == nil {
		f.Size = info.Size()
	}
	if info, err := os.Stat(e.l.file + "-wal"); err == nil {
		f.LogSize = info.Size()
	}
	if f.JournalMode, err = sqliteMode(e.l.file); err != nil {
		return f, err
	}
	f.Version, err = Scalar[string](db.Reader(ctx), "SELECT sqlite_version()")
	return f, err
}

// sqliteMode reads from the head of a file how it is written: a connection that
// takes the file for immutable says something else.
func sqliteMode(file string) (string, error) {
	r, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer r.Close()
	var head [20]byte
	if _, err := r.ReadAt(head[:], 0); err != nil {
		return "", fmt.Errorf("%s is no database: %w", file, err)
	}
	if head[18] == 2 && head[19] == 2 {
		return "wal", nil
	}
	return "delete", nil
}

// QuickCheck looks whether the pages of an SQLite file fit together and says
// what does not, at most ten things. It ends with ctx.
func (db *DB) QuickCheck(ctx context.Context) (wrong []string, err error) {
	rows, err := db.Reader(ctx).Query("PRAGMA quick_check(10)")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return nil, err
		}
		if line != "ok" {
			wrong = append(wrong, line)
		}
	}
	return wrong, rows.Err()
}

// PostgresFacts are what an operator should know about a PostgreSQL database.
type PostgresFacts struct {
	Version             string
	TooOld              bool
	Encoding, Collation string
	ByteOrder           bool // texts are UTF-8 and sorted by their bytes
	Fsync, FullPages    bool
	SyncCommit          string // as the sessions of a server have it
	Standby             bool   // it cannot be written
	MayCreate           bool   // tables, in the schema that comes first in the search path

	MaxConns int // what the server takes from ordinary users
	Used     int // of these, by others than the one that asks
	Pool     int // what one server opens at most

	Ahead     time.Duration // of its clock before that of this machine
	RoundTrip time.Duration // of the question; Ahead is exact to half of it
}

// PostgresFacts finds out about the PostgreSQL database behind db.
func (db *DB) PostgresFacts(ctx context.Context) (f PostgresFacts, err error) {
	p, ok := db.engine.(lookPostgres)
	if !ok {
		return f, errors.New("sqldb: the facts of a PostgreSQL database are for one that Look has opened")
	}
	write, read, err := pools(p.opt)
	if err != nil {
		return f, err
	}
	f.Pool = int(write.MaxConns + read.MaxConns)
	var number int
	var order string
	err = p.readers.QueryRow(ctx, `SELECT current_setting('server_version'), current_setting('server_version_num')::int, pg_encoding_to_char(encoding), datcollate, `+orderedHere+`,
		current_setting('fsync') = 'on', current_setting('full_page_writes') = 'on', current_setting('synchronous_commit'), pg_is_in_recovery(),
		COALESCE(has_schema_privilege(current_schema(), 'CREATE'), FALSE),
		current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
		(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid())
		FROM pg_database AS d WHERE datname = current_database()`).
		Scan(&f.Version, &number, &f.Encoding, &f.Collation, &order, &f.Fsync, &f.FullPages, &f.SyncCommit, &f.Standby, &f.MayCreate, &f.MaxConns, &f.Used)
	if err != nil {
		return f, err
	}
	f.TooOld, f.ByteOrder = number < oldest, f.Encoding == "UTF8" && order == inBytes
	var clock time.Time
	start := time.Now()
	err = p.readers.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&clock)
	f.RoundTrip = time.Since(start)
	f.Ahead = clock.Sub(start.Add(f.RoundTrip / 2))
	return f, err
}

// SchemaVersion is the number of the newest migration in files.
func SchemaVersion(files fs.FS) (int, error) {
	ms, err := readMigrations(files)
	return len(ms), err
}

// Advice says what to do about a database that Look could not open, "" where
// its error says enough.
func Advice(err error) string {
	var network *net.OpError
	var name *net.DNSError
	switch code := pgCode(err); {
	case code == "28P01" || code == "28000":
		return "put the right user and password into the URL, and let the user in with pg_hba.conf"
	case code == "3D000":
		return "make the database with " + createDatabase
	case code == "53300":
		return "raise max_connections, or give each server fewer with pool_max_conns=N in the URL"
	case code == "57P03":
		return "wait until PostgreSQL has started"
	case errors.As(err, &name):
		return "correct the host in the URL, or the name service of this machine"
	case errors.As(err, &network) && !network.Timeout():
		return "start PostgreSQL, and let it listen on this address (listen_addresses)"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network):
		return "see whether a firewall is in the way, and whether PostgreSQL listens on this address"
	case err != nil && strings.Contains(err.Error(), "tls"):
		return "set sslmode and sslrootcert in the URL as the server needs it"
	}
	return ""
}
