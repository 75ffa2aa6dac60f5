package lite

import (
	"fmt"
	"math"
	"strconv"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// Stmt is a prepared statement: Start, Bind each argument, Step to the end, Reset.
type Stmt struct {
	c       *Conn
	p       uintptr
	columns int
	// SQLite numbers $2 in "$2, $1" as its first parameter. order[k] lists the
	// parameters that argument k+1 is bound to; nil where both numberings agree.
	order  [][]int32
	args   int
	schema bool
	busy   bool
}

// number reads the parameters, which must all have the form $n.
func (s *Stmt) number() error {
	n := int(sqlite3.Xsqlite3_bind_parameter_count(s.c.tls, s.p))
	names := make([]int, n)
	plain := true
	for i := range names {
		name := libc.GoString(sqlite3.Xsqlite3_bind_parameter_name(s.c.tls, s.p, int32(i+1)))
		if len(name) < 2 || name[0] != '$' {
			return fmt.Errorf("sqlite: parameter %q is not of the form $1", name)
		}
		k, err := strconv.Atoi(name[1:])
		if err != nil || k < 1 {
			return fmt.Errorf("sqlite: parameter %q is not of the form $1", name)
		}
		names[i] = k
		s.args = max(s.args, k)
		plain = plain && k == i+1
	}
	if plain {
		return nil
	}
	s.order = make([][]int32, s.args)
	for i, k := range names {
		s.order[k-1] = append(s.order[k-1], int32(i+1))
	}
	return nil
}

// Args is the number of arguments the statement takes.
func (s *Stmt) Args() int { return s.args }

// Schema reports that the statement changes the schema rather than rows.
func (s *Stmt) Schema() bool { return s.schema }

// Columns is the number of columns of the rows it gives.
func (s *Stmt) Columns() int { return s.columns }

// Start begins a run of the statement. No other statement of the connection
// may be running.
func (s *Stmt) Start() {
	s.c.release()
	s.busy = true
}

// bind binds every parameter that stands for argument k.
func (s *Stmt) bind(k int, one func(i int32) int32) error {
	if s.order == nil {
		return s.c.error(one(int32(k)))
	}
	for _, i := range s.order[k-1] {
		if rc := one(i); rc != sqlite3.SQLITE_OK {
			return s.c.error(rc)
		}
	}
	return nil
}

// BindText binds argument k, counted from 1, to a text.
func (s *Stmt) BindText(k int, v string) error {
	if len(v) > math.MaxInt32 {
		return fmt.Errorf("sqlite: a text of %d bytes is too large", len(v))
	}
	addr, room, err := s.c.keep(len(v))
	if err != nil {
		return err
	}
	copy(room, v)
	return s.bind(k, func(i int32) int32 {
		return sqlite3.Xsqlite3_bind_text(s.c.tls, s.p, i, addr, int32(len(v)), 0)
	})
}

// BindBytes binds argument k to bytes; nil is NULL.
func (s *Stmt) BindBytes(k int, v []byte) error {
	if v == nil {
		return s.BindNull(k)
	}
	if len(v) > math.MaxInt32 {
		return fmt.Errorf("sqlite: %d bytes are too large", len(v))
	}
	addr, room, err := s.c.keep(len(v))
	if err != nil {
		return err
	}
	copy(room, v)
	return s.bind(k, func(i int32) int32 {
		return sqlite3.Xsqlite3_bind_blob(s.c.tls, s.p, i, addr, int32(len(v)), 0)
	})
}

// BindInt binds argument k to an integer.
func (s *Stmt) BindInt(k int, v int64) error {
	return s.bind(k, func(i int32) int32 { return sqlite3.Xsqlite3_bind_int64(s.c.tls, s.p, i, v) })
}

// BindFloat binds argument k to a floating-point number.
func (s *Stmt) BindFloat(k int, v float64) error {
	return s.bind(k, func(i int32) int32 { return sqlite3.Xsqlite3_bind_double(s.c.tls, s.p, i, v) })
}

// BindNull binds argument k to NULL.
func (s *Stmt) BindNull(k int) error {
	return s.bind(k, func(i int32) int32 { return sqlite3.Xsqlite3_bind_null(s.c.tls, s.p, i) })
}

// Step moves to the next row and reports whether there is one.
func (s *Stmt) Step() (row bool, err error) {
	switch rc := sqlite3.Xsqlite3_step(s.c.tls, s.p); rc {
	case sqlite3.SQLITE_ROW:
		return true, nil
	case sqlite3.SQLITE_DONE:
		return false, nil
	default:
		return false, s.c.error(rc)
	}
}

// Reset ends the run. The statement can be started again.
func (s *Stmt) Reset() {
	sqlite3.Xsqlite3_reset(s.c.tls, s.p) // repeats the error that Step has reported
	s.busy = false
}

func (s *Stmt) finalize() { sqlite3.Xsqlite3_finalize(s.c.tls, s.p) }

// Kind is the storage class of a value.
type Kind int32

// The storage classes.
const (
	Int   Kind = sqlite3.SQLITE_INTEGER
	Float Kind = sqlite3.SQLITE_FLOAT
	Text  Kind = sqlite3.SQLITE_TEXT
	Bytes Kind = sqlite3.SQLITE_BLOB
	Null  Kind = sqlite3.SQLITE_NULL
)

// Kind is the storage class of column i, from 0.
func (s *Stmt) Kind(i int) Kind { return Kind(sqlite3.Xsqlite3_column_type(s.c.tls, s.p, int32(i))) }

// Int is column i as an integer.
func (s *Stmt) Int(i int) int64 { return sqlite3.Xsqlite3_column_int64(s.c.tls, s.p, int32(i)) }

// Float is column i as a floating-point number.
func (s *Stmt) Float(i int) float64 { return sqlite3.Xsqlite3_column_double(s.c.tls, s.p, int32(i)) }

// Text is column i as a text.
func (s *Stmt) Text(i int) string {
	p := sqlite3.Xsqlite3_column_text(s.c.tls, s.p, int32(i))
	n := sqlite3.Xsqlite3_column_bytes(s.c.tls, s.p, int32(i))
	if p == 0 || n == 0 {
		return ""
	}
	return string(libc.GoBytes(p, int(n)))
}

// Bytes is a copy of column i as bytes, not nil.
func (s *Stmt) Bytes(i int) []byte {
	p := sqlite3.Xsqlite3_column_blob(s.c.tls, s.p, int32(i))
	n := sqlite3.Xsqlite3_column_bytes(s.c.tls, s.p, int32(i))
	b := make([]byte, n)
	if p != 0 {
		copy(b, libc.GoBytes(p, int(n)))
	}
	return b
}
