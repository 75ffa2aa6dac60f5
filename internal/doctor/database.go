package doctor

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"parley/internal/app"
	"parley/internal/schema"
	"parley/internal/sqldb"
)

// lookTime bounds what is asked of a database or of a server.
const lookTime = 10 * time.Second

// database opens the database for the checks that follow.
func (e *exam) database(ctx context.Context) {
	const check = "database"
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	url := e.Config.DatabaseURL
	if url == "" {
		file, err := filepath.Abs(e.Config.DatabasePath())
		if err != nil {
			return
		}
		url = "sqlite://" + file
	}
	db, err := sqldb.Look(ctx, sqldb.Options{URL: url})
	switch {
	case errors.Is(err, fs.ErrNotExist) && e.Config.DatabaseURL == "":
		e.ok(check, "%s does not exist yet; the server makes it", e.Config.DatabasePath())
		return
	case err != nil && e.Config.DatabaseURL == "":
		e.fail(check, "run as the user that the server runs as; if the file is damaged, restore a backup", "%s does not open: %v", e.Config.DatabasePath(), err)
		return
	case err != nil:
		e.fail(check, cmp.Or(sqldb.Advice(err), "correct --database-url"), "PostgreSQL is not reached: %v", err)
		return
	}
	e.db = db
	if e.Config.DatabaseURL == "" {
		err = e.sqlite(ctx)
	} else {
		err = e.postgres(ctx)
	}
	if err == nil {
		err = e.migrations(ctx)
	}
	if err != nil {
		e.fail(check, "if it is damaged, restore a backup", "it cannot be read: %v", err)
		_ = db.Close() // what depends on it cannot be known
		e.db, e.tables = nil, false
	}
}

// longLog is a write-ahead log that somebody keeps from being emptied: the
// server empties its own at a quarter of that.
const longLog = 256 << 20

func (e *exam) sqlite(ctx context.Context) error {
	const check = "database"
	f, err := e.db.SQLiteFacts(ctx)
	if err != nil {
		return err
	}
	e.ok(check, "%s is read: %s, SQLite %s", e.Config.DatabasePath(), size(f.Size), f.Version)
	if f.JournalMode != "wal" {
		e.warn(check, "nothing, if the next start of the server goes well", "its journal mode is %s; the server sets WAL", f.JournalMode)
	}
	switch {
	case f.LogSize > longLog:
		e.warn("database log", "end programs that read the database for long; a start of the server empties the log", "the write-ahead log has %s", size(f.LogSize))
	default:
		e.ok("database log", "the write-ahead log has %s", size(f.LogSize))
	}
	e.pages(ctx)
	return nil
}

// pages lets SQLite look at its pages, for as long as there is time.
func (e *exam) pages(ctx context.Context) {
	const check = "database pages"
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.PageTime)
	defer cancel()
	start := time.Now()
	wrong, err := e.db.QuickCheck(ctx)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		e.info(check, "nothing is wrong with those that were looked at in %s; sqlite3 FILE 'PRAGMA quick_check' looks at all of them", age(e.PageTime))
	case err != nil:
		e.fail(check, "stop the server, keep a copy of the files, restore a backup", "the database is damaged: %v", err)
	case len(wrong) > 0:
		e.fail(check, "stop the server, keep a copy of the files, restore a backup", "the database is damaged: %s", wrong[0])
	default:
		e.ok(check, "they fit together (looked at in %s)", age(time.Since(start)))
	}
}

func (e *exam) postgres(ctx context.Context) error {
	const check = "database"
	f, err := e.db.PostgresFacts(ctx)
	if err != nil {
		return err
	}
	switch {
	case f.TooOld:
		e.fail(check, "upgrade it to 14 or newer", "PostgreSQL %s is too old", f.Version)
	case !f.ByteOrder:
		e.fail(check, "move to one made with CREATE DATABASE parley TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'", "the database has encoding %s and collation %s, but lists are paged in the order of bytes", f.Encoding, f.Collation)
	case f.Standby:
		e.fail(check, "name the primary in the URL, or add target_session_attrs=read-write", "this is a standby, which cannot be written")
	case !f.MayCreate:
		e.fail(check, "GRANT CREATE ON SCHEMA public TO its user, or make that user the owner of the database", "the user of the URL may not make tables, so migrations fail")
	default:
		e.ok(check, "PostgreSQL %s answers in %s, sorted by bytes", f.Version, age(f.RoundTrip))
	}
	e.durability(f)
	e.connections(f)
	e.clocks(f)
	return nil
}

// durability says what PostgreSQL confirms without keeping it.
func (e *exam) durability(f sqldb.PostgresFacts) {
	const check = "database safety"
	sound := true
	warn := func(do, format string, args ...any) {
		sound = false
		e.warn(check, do, format, args...)
	}
	if !f.Fsync {
		warn("set fsync = on in postgresql.conf", "fsync is off: a power cut loses confirmed writes and may damage everything")
	}
	if !f.FullPages {
		warn("set full_page_writes = on in postgresql.conf, unless the file system writes pages whole", "full_page_writes is off: a power cut may damage pages")
	}
	if f.SyncCommit == "off" || f.SyncCommit == "local" {
		warn("let a pooler between pass synchronous_commit on, or set it for the user with ALTER ROLE", "synchronous_commit is %s, although Parley asks for on: confirmed writes may be lost", f.SyncCommit)
	}
	if sound {
		e.ok(check, "fsync, full_page_writes and synchronous_commit are on")
	}
}

// connections compares what a server opens with what there is.
func (e *exam) connections(f sqldb.PostgresFacts) {
	const check = "database connections"
	const do = "raise max_connections, or give each server fewer with pool_max_conns=N in the URL"
	free := f.MaxConns - f.Used
	switch {
	case f.MaxConns < f.Pool:
		e.fail(check, do, "a server opens up to %d, and PostgreSQL has %d", f.Pool, f.MaxConns)
	case free < f.Pool && !e.running:
		e.warn(check, do, "a server opens up to %d, and %d of %d are free", f.Pool, free, f.MaxConns)
	default:
		e.ok(check, "%d of %d are in use; a server opens up to %d, so there is room for %d servers", f.Used, f.MaxConns, f.Pool, f.MaxConns/f.Pool)
	}
}

// Servers compare leases of 30 s with their own clocks.
const (
	clockOff   = time.Second
	clockWrong = 5 * time.Second
)

// clocks compares the clock of this machine with that of the database.
func (e *exam) clocks(f sqldb.PostgresFacts) {
	const check = "database clock"
	const do = "synchronise both machines with NTP (timedatectl set-ntp true)"
	off := max(0, f.Ahead.Abs()-f.RoundTrip/2)
	way := "behind"
	if f.Ahead < 0 {
		way = "ahead of"
	}
	switch {
	case off > clockWrong && e.Config.NATSURL != "":
		e.fail(check, do, "this machine is %s %s the database; servers that disagree by more than some seconds take each other's work", age(off), way)
	case off > clockOff:
		e.warn(check, do, "this machine is %s %s the database", age(off), way)
	default:
		e.ok(check, "it agrees with this machine to %s", age(off+f.RoundTrip/2))
	}
}

// migrations compares the tables with those that this binary knows.
func (e *exam) migrations(ctx context.Context) error {
	const check = "schema"
	known, err := sqldb.SchemaVersion(schema.FS)
	if err != nil {
		return err
	}
	have, err := e.db.SchemaVersion(ctx)
	if err != nil {
		return err
	}
	e.tables = have > 0
	switch {
	case have > known:
		e.fail(check, "start the newer one, or restore a backup of that version", "the tables have version %d, made by a newer parley; this one knows %d", have, known)
	case have == 0:
		e.ok(check, "there are no tables yet; the server makes them")
	case have < known && e.Config.DatabaseURL != "":
		e.warn(check, "back the database up before", "the tables have version %d; the next start of this binary brings them to %d", have, known)
	case have < known:
		e.info(check, "the tables have version %d; the next start of this binary copies the database to %s and brings them to %d", have, filepath.Join(e.Config.Data, "backups"), known)
	default:
		e.ok(check, "the tables have version %d, as this binary knows them", have)
		return e.work(ctx)
	}
	return nil
}

// longWait is how long work waits that nobody does. Servers that are running look
// for it every few seconds.
const longWait = time.Minute

// work looks whether there is somebody for each role whose work stands in the
// database. A role is missed by what it leaves undone: servers come and go, and
// one that is there may still not do it.
func (e *exam) work(ctx context.Context) error {
	const check = "work"
	now := time.Now()
	since := now.Add(-longWait).UnixMilli()
	idle := true
	for _, w := range []struct {
		role        app.Role
		what, query string
	}{
		{app.RoleDelivery, "to be delivered", "SELECT COALESCE(MIN(due), 0) FROM lanes WHERE due < $1 AND due < 9223372036854775807 AND lease_until < $1"},
		{app.RoleTimers, "to happen", "SELECT COALESCE(MIN(due), 0) FROM timers WHERE due < $1"},
	} {
		due, err := sqldb.Scalar[int64](e.db.Reader(ctx), w.query, since)
		if err != nil {
			return err
		}
		if due > 0 {
			idle = false
			e.warn(check, "start a server that has the role "+string(w.role)+"; if one runs, see what its log says and whether it is at its limit", "what was %s %s ago waits", w.what, age(now.Sub(time.UnixMilli(due))))
		}
	}
	if idle {
		e.ok(check, "nothing has waited for a server for long")
	}
	return nil
}
