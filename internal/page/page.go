// Package page is how lists are read in pages: an opaque token that remembers
// where the previous page ended, and the condition that continues from there.
// Pages are cut by key, not by number, so rows that are added meanwhile neither
// repeat nor hide others.
package page

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"parley/internal/fault"
	"parley/internal/sqldb"
)

// Size is the number of rows in a page.
const Size = 20

// Query is what a list operation takes; embed it in the operation's input.
type Query struct {
	NextToken string `query:"nextToken" doc:"Continues a list: the meta.nextToken of the page before, with the same filters."`
}

// Meta is what a list operation answers beside its rows.
type Meta struct {
	NextToken string `json:"nextToken,omitempty" doc:"Send it back as nextToken to read the next page; absent on the last one."`
}

// Order is the direction a list is read in.
type Order bool

// The two orders. Rows of the same time are ordered by id.
const (
	NewestFirst Order = false
	OldestFirst Order = true
)

// Cursor is the place of a row in a list: its sort key and its id.
type Cursor struct {
	At int64
	ID string
}

// List is one reading of a list: its order and the place to continue from.
type List struct {
	order Order
	name  string
	ask   []any
	after *Cursor
}

// Open starts a list, or continues it where q's token says. The name tells lists
// apart, and filter holds everything that chooses or sorts the rows: a token
// that was given for another list or other filters is refused, as is one that no
// list ever gave. Both are InvalidQuery.
func (q Query) Open(name string, o Order, filter ...any) (*List, error) {
	l := &List{order: o, name: name, ask: filter}
	if q.NextToken == "" {
		return l, nil
	}
	mark, at, err := decode(q.NextToken)
	if err != nil {
		return nil, err
	}
	want, err := l.mark()
	if err != nil {
		return nil, err
	}
	if mark != want {
		return nil, fault.InvalidQuery.New("nextToken belongs to another list or to other filters; send it with the query it was given for, or leave it out to start again")
	}
	l.after = &at
	return l, nil
}

// Keyset adds to w the condition that continues the list and returns the
// ORDER BY and LIMIT that belong to it. at and id name the columns of the sort
// key and of the id; an empty at means that ids are the order, for they begin
// with the time of their row. Call it before w.String(), after the list's own conditions.
// One row more than a page is asked for: Cut uses it to see whether there is a
// next page.
func (l *List) Keyset(w *sqldb.Where, at, id string) string {
	than, way := "<", "DESC"
	if l.order == OldestFirst {
		than, way = ">", "ASC"
	}
	if at == "" {
		if l.after != nil {
			w.And(fmt.Sprintf("%s %s ?", id, than), l.after.ID)
		}
		return fmt.Sprintf("ORDER BY %s %s LIMIT %d", id, way, Size+1)
	}
	if l.after != nil {
		w.And(fmt.Sprintf("(%s, %s) %s (?, ?)", at, id, than), l.after.At, l.after.ID)
	}
	return fmt.Sprintf("ORDER BY %s %s, %s %s LIMIT %d", at, way, id, way, Size+1)
}

// Cut ends a page: it takes the rows that Keyset's query gave, drops the one
// too many and makes the token for the next page. at tells a row's sort key and
// id, in the columns that Keyset was given.
func Cut[T any](l *List, rows []T, at func(T) (int64, string)) ([]T, Meta, error) {
	if len(rows) <= Size {
		return rows, Meta{}, nil
	}
	rows = rows[:Size]
	var c Cursor
	c.At, c.ID = at(rows[Size-1])
	meta, err := l.Short(c)
	return rows, meta, err
}

// Short ends a page before it is full: the list continues behind at, up to
// where its rows have been looked at. It is for lists that read more than they
// show and must not read for ever.
func (l *List) Short(at Cursor) (Meta, error) {
	mark, err := l.mark()
	if err != nil {
		return Meta{}, err
	}
	return Meta{NextToken: encode(mark, at)}, nil
}

// After is the place the list continues from, the zero Cursor at its beginning:
// for lists that Keyset cannot read.
func (l *List) After() Cursor {
	if l.after == nil {
		return Cursor{}
	}
	return *l.after
}

// mark is a short hash of what the list was asked for.
func (l *List) mark() (uint32, error) {
	h := fnv.New32a()
	if err := json.MarshalWrite(h, []any{l.name, bool(l.order), l.ask}, json.Deterministic(true)); err != nil {
		return 0, fmt.Errorf("page: a filter of %s has no JSON form: %w", l.name, err)
	}
	return h.Sum32(), nil
}

// A token is the base64 of a version byte, the mark, the sort key and the id,
// which may be a value, such as a tag's.
const (
	version  = 1
	maxToken = 3_000
	maxID    = 2_100
)

func encode(mark uint32, c Cursor) string {
	b := make([]byte, 0, 16+len(c.ID))
	b = append(b, version)
	b = binary.BigEndian.AppendUint32(b, mark)
	b = binary.AppendVarint(b, c.At)
	b = append(b, c.ID...)
	return base64.RawURLEncoding.EncodeToString(b)
}

func decode(token string) (uint32, Cursor, error) {
	bad := fault.InvalidQuery.New("nextToken is not one this server gave; send meta.nextToken of the page before as it is")
	if len(token) > maxToken {
		return 0, Cursor{}, bad
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) < 6 || b[0] != version {
		return 0, Cursor{}, bad
	}
	mark := binary.BigEndian.Uint32(b[1:])
	at, n := binary.Varint(b[5:])
	if n <= 0 {
		return 0, Cursor{}, bad
	}
	id := b[5+n:]
	if len(id) == 0 || len(id) > maxID || !utf8.Valid(id) || id[0] == 0 {
		return 0, Cursor{}, bad
	}
	return mark, Cursor{at, string(id)}, nil
}
