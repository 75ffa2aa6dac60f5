package sqldb

// Rows are the result of a query. They are read by one goroutine and must be
// closed; reading to the end closes them.
type Rows struct {
	c    cursor
	err  error
	done bool
	tx   *Tx // nil outside a transaction
}

// cursor is what an engine gives for Rows.
type cursor interface {
	columns() int
	next() (bool, error)
	scan(dest []any) error
	close() error
}

// Next moves to the next row. It reports false at the end and after an error.
func (r *Rows) Next() bool {
	if r.done {
		return false
	}
	ok, err := r.c.next()
	if err != nil {
		r.fail(err)
	}
	if !ok {
		_ = r.Close() // kept in r.err
	}
	return ok
}

// Columns is the number of columns of each row.
func (r *Rows) Columns() int { return r.c.columns() }

// Scan copies the columns of the current row to the pointers.
func (r *Rows) Scan(dest ...any) error { return r.c.scan(dest) }

// Close releases the rows. It may be called again.
func (r *Rows) Close() error {
	if !r.done {
		r.done = true
		if err := r.c.close(); err != nil {
			r.fail(err)
		}
	}
	return r.err
}

// Err is the error that ended the rows early, if any.
func (r *Rows) Err() error { return r.err }

func (r *Rows) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	if r.tx != nil {
		_ = r.tx.fail(err) // kept there
	}
}
