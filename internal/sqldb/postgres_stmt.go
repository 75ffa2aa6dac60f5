package sqldb

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

func (p *postgres) reader(ctx context.Context) Q { return pgReader{p, ctx} }

type pgReader struct {
	p   *postgres
	ctx context.Context
}

// Exec implements Q.
func (r pgReader) Exec(string, ...any) (int64, error) { return 0, errReadOnly }

// Query implements Q.
func (r pgReader) Query(query string, args ...any) (*Rows, error) {
	if r.p.isClosed() {
		return nil, ErrClosed
	}
	vals, err := plainAll(args)
	if err != nil {
		return nil, err
	}
	answer, err := r.p.readers.Query(r.ctx, r.p.texts.text(Postgres, query), vals...)
	rows, err := pgRows(answer, nil, err)
	return rows, inQuery(err, query)
}

// pgTx runs the statements of one transaction. BEGIN travels with the first of
// them, and what was sent with the next: a transaction is a few short statements,
// and each way to the server and back counts.
type pgTx struct {
	p     *postgres
	ctx   context.Context
	conn  *pgx.Conn
	begun bool
	sent  []statement
}

type statement struct {
	query string
	vals  []any
}

func (q *pgTx) tx() *Tx {
	return &Tx{
		q: q,
		lock: func(key int64) error {
			_, err := q.Exec("SELECT pg_advisory_xact_lock($1)", key)
			return err
		},
		send: func(query string, args ...any) error {
			s, err := q.statement(query, args)
			if err == nil {
				q.sent = append(q.sent, s)
			}
			return err
		},
	}
}

func (q *pgTx) statement(query string, args []any) (statement, error) {
	vals, err := plainAll(args)
	return statement{q.p.texts.text(Postgres, query), vals}, err
}

// Exec implements Q.
func (q *pgTx) Exec(query string, args ...any) (int64, error) {
	s, err := q.statement(query, args)
	if err != nil {
		return 0, err
	}
	tag, err := q.exec(s)
	if err != nil || tag.Select() {
		return 0, err
	}
	return tag.RowsAffected(), nil
}

func (q *pgTx) exec(s statement) (pgconn.CommandTag, error) {
	if q.begun && len(q.sent) == 0 {
		tag, err := q.conn.Exec(q.ctx, s.query, s.vals...)
		return tag, pgError(err)
	}
	results, err := q.batch(s)
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	tag, err := results.Exec()
	return tag, pgError(cmp.Or(err, results.Close()))
}

// Query implements Q.
func (q *pgTx) Query(query string, args ...any) (*Rows, error) {
	s, err := q.statement(query, args)
	if err != nil {
		return nil, err
	}
	if q.begun && len(q.sent) == 0 {
		rows, err := q.conn.Query(q.ctx, s.query, s.vals...)
		return pgRows(rows, nil, err)
	}
	results, err := q.batch(s)
	if err != nil {
		return nil, err
	}
	rows, err := results.Query()
	return pgRows(rows, results, err)
}

// batch sends what has waited and statements behind it, whose results are next in
// what it returns: the others have been well.
func (q *pgTx) batch(then ...statement) (pgx.BatchResults, error) {
	var b pgx.Batch
	sent, begun := q.sent, q.begun
	q.begun, q.sent = true, nil
	if !begun {
		b.Queue("begin")
	}
	for _, s := range slices.Concat(sent, then) {
		b.Queue(s.query, s.vals...)
	}
	results := q.conn.SendBatch(q.ctx, &b)
	if !begun {
		if _, err := results.Exec(); err != nil {
			return nil, pgError(cmp.Or(err, results.Close()))
		}
	}
	for _, s := range sent {
		if _, err := results.Exec(); err != nil {
			return nil, &sentError{inQuery(pgError(cmp.Or(err, results.Close())), s.query)}
		}
	}
	return results, nil
}

// sentError is the error of a statement that was sent before, and names it.
type sentError struct{ err error }

func (e *sentError) Error() string { return e.err.Error() }
func (e *sentError) Unwrap() error { return e.err }

func (q *pgTx) commit() error {
	if !q.begun && len(q.sent) == 0 {
		return nil
	}
	tag, err := q.exec(statement{query: "commit"})
	if gaveWay(err) {
		return &lostError{err}
	}
	if err == nil && tag.String() != "COMMIT" {
		err = pgx.ErrTxCommitRollback
	}
	return err
}

// rollback leaves a connection that can be used again or is closed.
func (q *pgTx) rollback() {
	if !q.begun || q.conn.IsClosed() || q.conn.PgConn().TxStatus() == outside {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(q.ctx), txTimeout)
	defer cancel()
	if _, err := q.conn.Exec(ctx, "rollback"); err != nil {
		_ = q.conn.Close(ctx) // the server rolls back what it no longer hears of
	}
}

// script runs a text of several statements.
func (q *pgTx) script(text string) error {
	if !q.begun || len(q.sent) > 0 {
		results, err := q.batch()
		if err != nil {
			return err
		}
		if err := results.Close(); err != nil {
			return pgError(err)
		}
	}
	_, err := q.conn.PgConn().Exec(q.ctx, text).ReadAll()
	return pgError(err)
}

// pgRows waits for the first row, so that a statement that fails does so here, as on SQLite.
func pgRows(rows pgx.Rows, results pgx.BatchResults, err error) (*Rows, error) {
	if err == nil {
		c := &pgCursor{rows: rows, results: results, fresh: true}
		if c.row = rows.Next(); c.row || rows.Err() == nil {
			return &Rows{c: c}, nil
		}
		err = rows.Err()
	}
	if results != nil {
		err = cmp.Or(err, results.Close())
	}
	return nil, pgError(err)
}

// outside is how the server says that a connection is in no transaction.
const outside = 'I'

func plainAll(args []any) ([]any, error) {
	out := make([]any, len(args))
	for i, a := range args {
		v, err := plain(a)
		if err != nil {
			return nil, fmt.Errorf("argument $%d: %w", i+1, err)
		}
		out[i] = v
	}
	return out, nil
}

// pgCursor walks the rows of a query.
type pgCursor struct {
	rows    pgx.Rows
	results pgx.BatchResults // that the rows are part of, or nil
	row     bool             // it stands on a row
	fresh   bool             // next has not been called
}

func (c *pgCursor) columns() int { return len(c.rows.FieldDescriptions()) }

func (c *pgCursor) next() (bool, error) {
	if c.fresh || !c.row {
		c.fresh = false
		return c.row, nil
	}
	if c.row = c.rows.Next(); c.row {
		return true, nil
	}
	return false, pgError(c.rows.Err())
}

func (c *pgCursor) scan(dest []any) error {
	fields, raw := c.rows.FieldDescriptions(), c.rows.RawValues()
	if !c.row || len(dest) != len(raw) {
		return fmt.Errorf("sqldb: scan of %d columns into %d destinations (on a row: %t)", len(raw), len(dest), c.row)
	}
	for i, d := range dest {
		v, err := pgValue(fields[i].DataTypeOID, fields[i].Format, raw[i])
		if err == nil {
			err = store(d, v)
		}
		if err != nil {
			return fmt.Errorf("column %d: %w", i+1, err)
		}
	}
	return nil
}

func (c *pgCursor) close() error {
	c.row = false
	c.rows.Close()
	err := c.rows.Err()
	if c.results != nil {
		err = cmp.Or(err, c.results.Close())
	}
	return pgError(err)
}

// pgValue decodes a column to the types of plain.
func pgValue(oid uint32, format int16, b []byte) (any, error) {
	if b == nil {
		return nil, nil
	}
	binaryFormat := format == pgx.BinaryFormatCode
	switch oid {
	case pgtype.TextOID, pgtype.VarcharOID, pgtype.NameOID, pgtype.JSONOID, pgtype.UnknownOID:
		return string(b), nil
	case pgtype.JSONBOID:
		if binaryFormat {
			b = b[1:] // a version before the text
		}
		return string(b), nil
	case pgtype.ByteaOID:
		if binaryFormat {
			return append([]byte{}, b...), nil
		}
	case pgtype.BoolOID:
		if binaryFormat {
			return b[0] != 0, nil
		}
	case pgtype.Int8OID:
		if binaryFormat {
			return int64(binary.BigEndian.Uint64(b)), nil
		}
	case pgtype.Int4OID:
		if binaryFormat {
			return int64(int32(binary.BigEndian.Uint32(b))), nil
		}
	case pgtype.Float8OID:
		if binaryFormat {
			return math.Float64frombits(binary.BigEndian.Uint64(b)), nil
		}
	}
	return pgOther(oid, format, b)
}

var pgTypes = pgtype.NewMap()

// pgOther decodes what the schema has no column of but an expression may give.
func pgOther(oid uint32, format int16, b []byte) (any, error) {
	t, ok := pgTypes.TypeForOID(oid)
	if !ok {
		return nil, fmt.Errorf("sqldb: a column of the unknown type %d", oid)
	}
	v, err := t.Codec.DecodeValue(pgTypes, oid, format, b)
	if err != nil {
		return nil, err
	}
	switch n := v.(type) {
	case int16:
		return int64(n), nil
	case int32:
		return int64(n), nil
	case float32:
		return float64(n), nil
	case pgtype.Numeric: // SUM of a BIGINT
		if i, err := n.Int64Value(); err == nil {
			return i.Int64, nil
		}
		f, err := n.Float64Value()
		return f.Float64, err
	}
	return v, nil
}
