package sqldb

import (
	"context"
	"errors"
	"fmt"

	"parley/internal/sqldb/lite"
)

// liteQ runs statements on one SQLite connection.
type liteQ struct {
	c   *lite.Conn
	ddl bool // a statement changed the schema, which counts no rows
}

// Exec implements Q.
func (q *liteQ) Exec(query string, args ...any) (int64, error) {
	before := q.c.TotalChanges()
	cur, err := q.start(query, args)
	if err != nil {
		return 0, err
	}
	defer cur.s.Reset()
	for cur.row {
		if cur.row, err = cur.s.Step(); err != nil {
			return 0, err
		}
	}
	return q.c.TotalChanges() - before, nil
}

// Query implements Q.
func (q *liteQ) Query(query string, args ...any) (*Rows, error) {
	cur, err := q.start(query, args)
	if err != nil {
		return nil, err
	}
	return &Rows{c: cur}, nil
}

// start takes the first step, in which a statement that changes rows changes all of them.
func (q *liteQ) start(query string, args []any) (*liteCursor, error) {
	s, err := q.c.Prepare(query)
	if err != nil {
		return nil, err
	}
	if s.Args() != len(args) {
		return nil, fmt.Errorf("sqldb: %d arguments for %d parameters", len(args), s.Args())
	}
	s.Start()
	for i, a := range args {
		if err := bind(s, i+1, a); err != nil {
			s.Reset()
			return nil, fmt.Errorf("argument $%d: %w", i+1, err)
		}
	}
	row, err := s.Step()
	if err != nil {
		s.Reset()
		return nil, err
	}
	q.ddl = q.ddl || s.Schema()
	return &liteCursor{s: s, row: row, fresh: true}, nil
}

// bind binds one argument. The first cases are those of plain that need no copy of the value.
func bind(s *lite.Stmt, i int, a any) error {
	switch v := a.(type) {
	case string:
		return bindText(s, i, v)
	case *string:
		if v != nil {
			return bindText(s, i, *v)
		}
	case int64:
		return s.BindInt(i, v)
	case *int64:
		if v != nil {
			return s.BindInt(i, *v)
		}
	}
	p, err := plain(a)
	if err != nil {
		return err
	}
	switch v := p.(type) {
	case string: // checked by plain
		return s.BindText(i, v)
	case int64:
		return s.BindInt(i, v)
	case float64:
		return s.BindFloat(i, v)
	case bool:
		if v {
			return s.BindInt(i, 1)
		}
		return s.BindInt(i, 0)
	case []byte:
		return s.BindBytes(i, v)
	}
	return s.BindNull(i)
}

func bindText(s *lite.Stmt, i int, v string) error {
	if err := checkText(v); err != nil {
		return err
	}
	return s.BindText(i, v)
}

// liteCursor walks the rows of a statement that was started.
type liteCursor struct {
	s     *lite.Stmt
	row   bool            // the statement stands on a row
	fresh bool            // next has not been called
	ctx   context.Context // of a reader, nil in a transaction
	end   func()
}

func (c *liteCursor) columns() int { return c.s.Columns() }

func (c *liteCursor) next() (bool, error) {
	if c.fresh || !c.row {
		c.fresh = false
		return c.row, nil
	}
	var err error
	if c.row, err = c.s.Step(); err != nil && c.ctx != nil {
		err = interrupted(c.ctx, err)
	}
	return c.row, err
}

func (c *liteCursor) scan(dest []any) error {
	if !c.row || len(dest) != c.s.Columns() {
		return fmt.Errorf("sqldb: scan of %d columns into %d destinations (on a row: %t)", c.s.Columns(), len(dest), c.row)
	}
	for i, d := range dest {
		if err := c.column(i, d); err != nil {
			return fmt.Errorf("column %d: %w", i+1, err)
		}
	}
	return nil
}

func (c *liteCursor) column(i int, dst any) error {
	kind := c.s.Kind(i)
	switch d := dst.(type) {
	case *string:
		if kind == lite.Text {
			*d = c.s.Text(i)
			return nil
		}
	case *int64:
		if kind == lite.Int {
			*d = c.s.Int(i)
			return nil
		}
	}
	switch kind {
	case lite.Int:
		return store(dst, c.s.Int(i))
	case lite.Float:
		return store(dst, c.s.Float(i))
	case lite.Text:
		return store(dst, c.s.Text(i))
	case lite.Bytes:
		return store(dst, c.s.Bytes(i))
	}
	return store(dst, nil)
}

func (c *liteCursor) close() error {
	c.row = false
	c.s.Reset()
	if c.end != nil {
		c.end()
	}
	return nil
}

func liteUnique(err error) bool {
	e, ok := errors.AsType[*lite.Error](err)
	return ok && (e.Code == lite.Unique || e.Code == lite.PrimaryKey || e.Code == lite.RowID)
}

func liteFull(err error) bool {
	e, ok := errors.AsType[*lite.Error](err)
	return ok && e.Full()
}

// script runs a text of several statements.
func (q *liteQ) script(text string) error {
	q.ddl = true
	return q.c.Script(text)
}
