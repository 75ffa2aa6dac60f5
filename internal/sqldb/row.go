package sqldb

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Column binds a column of a table to the field that holds it.
type Column struct {
	Name  string
	Field any // pointer: read for a value, written by Scan
}

// Row is a type that maps to a table. The names that Columns gives and their
// order depend on the type alone.
type Row interface{ Columns() []Column }

// RowOf is the constraint "pointer to T is a Row".
type RowOf[T any] interface {
	*T
	Row
}

// Insert adds r to the table. It reports whether a row was added; a conflict
// on a unique key adds none.
func Insert(q Q, table string, r Row) (added bool, err error) {
	cols := r.Columns()
	sh := shapeOf(r, cols)
	n, err := q.Exec("INSERT INTO "+table+sh.insert, fields(cols, nil)...)
	return n == 1, err
}

// Select reads the rows matched by the tail of the statement ("WHERE …").
func Select[T any, P RowOf[T]](q Q, table, tail string, args ...any) ([]*T, error) {
	var zero T
	rows, err := q.Query(selectText[T, P](&zero, table, tail), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []*T
	var dest []any
	for rows.Next() {
		v := new(T)
		dest = fields(P(v).Columns(), dest)
		if err := rows.Scan(dest...); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// One reads the first row matched by the tail. It returns ErrNoRow if there is none.
func One[T any, P RowOf[T]](q Q, table, tail string, args ...any) (*T, error) {
	v := new(T)
	if err := first(q, selectText[T, P](v, table, tail), args, fields(P(v).Columns(), nil)...); err != nil {
		return nil, err
	}
	return v, nil
}

// Scalar reads the first column of the first row. It returns ErrNoRow if there is none.
func Scalar[T any](q Q, query string, args ...any) (T, error) {
	var v T
	err := first(q, query, args, &v)
	return v, err
}

func first(q Q, query string, args []any, dest ...any) error {
	rows, err := q.Query(query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	if !rows.Next() {
		if rows.Err() != nil {
			return rows.Err()
		}
		return ErrNoRow
	}
	if err := rows.Scan(dest...); err != nil {
		return err
	}
	return rows.Close()
}

// Update writes every column of r to the rows that carry the key. It returns
// ErrNoRow if there is none.
func Update(q Q, table string, r Row, key ...Column) error {
	cols := r.Columns()
	args := append(fields(cols, nil), fields(key, nil)...)
	return someRow(q.Exec(updateText(table, cols, key), args...))
}

// Delete removes the rows matched by the tail. It returns ErrNoRow if there is none.
func Delete(q Q, table, tail string, args ...any) error {
	return someRow(q.Exec("DELETE FROM "+table+" "+tail, args...))
}

func someRow(n int64, err error) error {
	if err == nil && n == 0 {
		return ErrNoRow
	}
	return err
}

// fields gives the pointers of the columns, in dest where there is room.
func fields(cols []Column, dest []any) []any {
	dest = dest[:0]
	if cap(dest) < len(cols) {
		dest = make([]any, 0, len(cols))
	}
	for _, c := range cols {
		dest = append(dest, c.Field)
	}
	return dest
}

// shape is the text that the columns of a type make.
type shape struct {
	names  string // "a, b"
	insert string // " (a, b) VALUES ($1, $2) ON CONFLICT DO NOTHING"
}

var shapes sync.Map // of *shape by the reflect.Type of a Row

func shapeOf(r Row, cols []Column) *shape {
	t := reflect.TypeOf(r)
	if sh, ok := shapes.Load(t); ok {
		return sh.(*shape)
	}
	names, marks := make([]string, len(cols)), make([]string, len(cols))
	for i, c := range cols {
		names[i], marks[i] = c.Name, "$"+strconv.Itoa(i+1)
	}
	sh := &shape{names: strings.Join(names, ", ")}
	sh.insert = " (" + sh.names + ") VALUES (" + strings.Join(marks, ", ") + ") ON CONFLICT DO NOTHING"
	shapes.Store(t, sh)
	return sh
}

func selectText[T any, P RowOf[T]](v *T, table, tail string) string {
	sh, ok := shapes.Load(reflect.TypeFor[P]())
	if !ok {
		sh = shapeOf(P(v), P(v).Columns())
	}
	return "SELECT " + sh.(*shape).names + " FROM " + table + " " + tail
}

func updateText(table string, cols, key []Column) string {
	var b strings.Builder
	b.Grow(64 + 32*(len(cols)+len(key)))
	b.WriteString("UPDATE ")
	b.WriteString(table)
	for i, c := range slices.Concat(cols, key) {
		switch {
		case i == 0:
			b.WriteString(" SET ")
		case i == len(cols):
			b.WriteString(" WHERE ")
		case i > len(cols):
			b.WriteString(" AND ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(c.Name)
		b.WriteString(" = $")
		b.WriteString(strconv.Itoa(i + 1))
	}
	return b.String()
}
