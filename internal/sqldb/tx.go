package sqldb

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"
)

// Tx is one run of a write closure. It belongs to the goroutine of the closure
// and ends with it.
//
// Both engines hold it to the same rules. A statement that fails ends the
// transaction: the statements after it fail, and so does the write, whatever
// the closure returns. The rows of a query are closed before the next statement.
type Tx struct {
	q      Q
	lock   func(key int64) error                 // nil where writers are alone anyway
	send   func(query string, args ...any) error // nil where a statement has no way to go
	after  []func()
	doubt  []func()
	rows   *Rows // of the last query
	failed error
}

var (
	errOver   = errors.New("sqldb: the transaction is over")
	errExited = errors.New("sqldb: the closure ended its goroutine")
)

// Exec implements Q.
func (tx *Tx) Exec(query string, args ...any) (int64, error) {
	if err := tx.ready(); err != nil {
		return 0, err
	}
	n, err := tx.q.Exec(query, args...)
	return n, tx.fail(inQuery(err, query))
}

// Query implements Q.
func (tx *Tx) Query(query string, args ...any) (*Rows, error) {
	if err := tx.ready(); err != nil {
		return nil, err
	}
	rows, err := tx.q.Query(query, args...)
	if err != nil {
		return nil, tx.fail(inQuery(err, query))
	}
	rows.tx, tx.rows = tx, rows
	return rows, nil
}

// Send is Exec for a statement of which only the failure matters. Where the
// database is behind a network it travels with the next statement or with the
// commit, and fails there.
func (tx *Tx) Send(query string, args ...any) error {
	if tx.send == nil {
		_, err := tx.Exec(query, args...)
		return err
	}
	if err := tx.ready(); err != nil {
		return err
	}
	return tx.fail(inQuery(tx.send(query, args...), query))
}

func (tx *Tx) ready() error {
	if tx.failed != nil {
		return tx.failed
	}
	if tx.rows != nil && !tx.rows.done {
		return tx.fail(errors.New("sqldb: the rows of the query before are still open"))
	}
	return nil
}

func (tx *Tx) fail(err error) error {
	if err != nil && tx.failed == nil {
		tx.failed = err
	}
	return err
}

// run runs fn and turns a panic into its error.
func (tx *Tx) run(fn func(tx *Tx) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
		if tx.rows != nil && !tx.rows.done {
			_ = tx.rows.Close() // an error of it is in failed
			err = errors.Join(err, errors.New("sqldb: the closure left the rows of a query open"))
		}
		if err == nil {
			err = tx.failed
		}
		tx.failed = errOver
	}()
	return fn(tx)
}

// PanicError is a panic in a write closure, as the error of that write.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("sqldb: panic in a write: %v\n%s", e.Value, e.Stack)
}

// AfterCommit arranges that fn runs once, after the commit that carries this
// run of the closure and before Write returns. When the run is rolled back fn
// is dropped; a rerun registers its own.
func (tx *Tx) AfterCommit(fn func()) { tx.after = append(tx.after, fn) }

// InDoubt arranges that fn runs, and nothing that AfterCommit has arranged, if the
// connection broke while this run was committed: the write then fails, and may
// have happened. Whoever finds out afterwards has to look.
func (tx *Tx) InDoubt(fn func()) { tx.doubt = append(tx.doubt, fn) }

// LockKey makes the transaction hold the key until it ends, so that two of
// them that look and then insert under one key run one after the other.
func (tx *Tx) LockKey(parts ...string) error {
	if err := tx.ready(); err != nil || tx.lock == nil {
		return err
	}
	return tx.fail(tx.lock(keyHash(parts)))
}

// keyHash prefixes every part with its length: ("ab", "c") and ("a", "bc") are different keys.
func keyHash(parts []string) int64 {
	var b []byte
	for _, p := range parts {
		b = binary.AppendUvarint(b, uint64(len(p)))
		b = append(b, p...)
	}
	h := sha256.Sum256(b)
	return int64(binary.BigEndian.Uint64(h[:]))
}

// script runs a text of several statements, a migration.
func (tx *Tx) script(text string) error {
	if err := tx.ready(); err != nil {
		return err
	}
	return tx.fail(tx.q.(interface{ script(string) error }).script(text))
}
