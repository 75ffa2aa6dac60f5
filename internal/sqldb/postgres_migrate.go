package sqldb

import (
	"context"
	"errors"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/time/rate"
)

const (
	turnEach = 100 * time.Millisecond // between two looks whether another node still migrates
	// lockWait is how long a migration waits for a lock. Everybody who comes
	// after it to the same table waits behind it. It is shorter than the time after which the
	// server looks for deadlocks, so that it is the migration that gives way.
	lockWait  = "500ms"
	lockPause = time.Second // before it tries again
)

// migrating holds an advisory lock on a connection of its own, without the
// time limits of ordinary statements.
func (p *postgres) migrating(ctx context.Context, fn func(m migrator) error) (err error) {
	cfg := p.writers.Config().ConnConfig
	cfg.RuntimeParams["statement_timeout"] = "0"
	cfg.RuntimeParams["idle_in_transaction_session_timeout"] = "0"
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	// Closing the connection gives up the lock, also where ctx has ended.
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	var schema string
	if err := conn.QueryRow(ctx, "SELECT COALESCE(current_schema(), '')").Scan(&schema); err != nil {
		return err
	}
	if schema == "" {
		return errors.New("sqldb: the search_path of the database URL names no schema that exists")
	}
	m := &pgMigrator{p: p, ctx: ctx, conn: conn, lock: keyHash([]string{"migrations", schema}), grumble: rate.Sometimes{First: 1, Interval: time.Minute}}
	if err := m.turn(); err != nil {
		return err
	}
	return fn(m)
}

// pgMigrator migrates over one connection.
type pgMigrator struct {
	p    *postgres
	ctx  context.Context
	conn *pgx.Conn
	lock int64 // of the one who migrates

	grumble rate.Sometimes // a dump may be in the way for hours
}

// turn waits for the lock. It asks again and again: a statement that waits has a
// snapshot, and an index is made concurrently only when all who have one have ended.
func (m *pgMigrator) turn() error {
	for {
		var mine bool
		if err := m.conn.QueryRow(m.ctx, "SELECT pg_try_advisory_lock($1)", m.lock).Scan(&mine); err != nil || mine {
			return err
		}
		if err := m.wait(turnEach); err != nil {
			return err
		}
	}
}

func (m *pgMigrator) wait(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-m.ctx.Done():
		return m.ctx.Err()
	}
}

func (m *pgMigrator) inTx(fn func(tx *Tx) error) error {
	return m.patiently(func() error {
		q := &pgTx{p: m.p, ctx: m.ctx, conn: m.conn}
		err := q.tx().run(func(tx *Tx) error {
			if _, err := tx.Exec("SET LOCAL lock_timeout = '" + lockWait + "'"); err != nil {
				return err
			}
			return fn(tx)
		})
		if err != nil {
			q.rollback()
			return err
		}
		return q.commit()
	})
}

func (m *pgMigrator) alone(statement string) (rows int64, err error) {
	err = m.patiently(func() error {
		if err := m.mend(statement); err != nil {
			return err
		}
		tag, err := m.conn.Exec(m.ctx, statement)
		rows = tag.RowsAffected()
		return inQuery(pgError(err), statement)
	})
	return rows, err
}

// patiently does something until no other transaction is in its way. In between
// others have their turn: an older program waits for it with a statement, and so
// with a snapshot that an index waits for.
func (m *pgMigrator) patiently(do func() error) error {
	for {
		err := do()
		if lost, ok := errors.AsType[*lostError](err); ok {
			err = lost.err
		}
		if pgCode(err) != "55P03" && !gaveWay(err) {
			return err
		}
		m.grumble.Do(func() {
			m.p.opt.Log.Warn("a migration waits for another transaction: it lets others pass and tries again each second", "err", err)
		})
		if _, err := m.conn.Exec(m.ctx, "SELECT pg_advisory_unlock($1)", m.lock); err != nil {
			return err
		}
		if err := m.wait(lockPause); err != nil {
			return err
		}
		if err := m.turn(); err != nil {
			return err
		}
	}
}

// makesIndex matches the statement that makes an index beside other transactions.
var makesIndex = regexp.MustCompile(`(?i)^CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(?:IF\s+NOT\s+EXISTS\s+)?(\w+)`)

// mend removes the index that a statement is about to make if there is half of
// it: one that was broken off stays, is written to and never read, and its name is taken.
func (m *pgMigrator) mend(statement string) error {
	found := makesIndex.FindStringSubmatch(statement)
	if found == nil {
		return nil
	}
	var half bool
	err := m.conn.QueryRow(m.ctx, `SELECT EXISTS (SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
		WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = lower($1) AND NOT i.indisvalid)`, found[1]).Scan(&half)
	if err != nil || !half {
		return err
	}
	_, err = m.conn.Exec(m.ctx, "DROP INDEX CONCURRENTLY "+found[1])
	return err
}
