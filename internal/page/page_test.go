package page_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"parley/internal/fault"
	"parley/internal/page"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

type row struct {
	ID        string
	CreatedAt int64
}

func (r *row) Columns() []sqldb.Column {
	return []sqldb.Column{{Name: "id", Field: &r.ID}, {Name: "created_at", Field: &r.CreatedAt}}
}

func at(r *row) (int64, string) { return r.CreatedAt, r.ID }

func add(t *testing.T, db *sqldb.DB, createdAt int64, ids ...string) {
	t.Helper()
	err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
		for _, id := range ids {
			if _, err := tx.Exec("INSERT INTO tombstones (kind, id, bot_id, created_at) VALUES ('t', $1, 'b', $2)", id, createdAt); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// read gets one page as a list operation does.
func read(t *testing.T, db *sqldb.DB, token string, o page.Order) (ids []string, next string) {
	t.Helper()
	l, err := page.Query{NextToken: token}.Open("rows", o, "b")
	if err != nil {
		t.Fatal(err)
	}
	var w sqldb.Where
	w.And("bot_id = ?", "b")
	tail := l.Keyset(&w, "created_at", "id")
	rows, err := sqldb.Select[row](db.Reader(t.Context()), "tombstones", w.String()+" "+tail, w.Args...)
	if err != nil {
		t.Fatal(err)
	}
	rows, meta, err := page.Cut(l, rows, at)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		ids = append(ids, r.ID)
	}
	return ids, meta.NextToken
}

func TestPagesMeetEveryRowOnce(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		var want []string
		for i := range 50 { // ten rows share each time
			id := fmt.Sprintf("r%02d", i)
			add(t, db, int64(i/10), id)
			want = append(want, id)
		}
		for _, o := range []page.Order{page.NewestFirst, page.OldestFirst} {
			var got []string
			token, pages := "", 0
			for {
				ids, next := read(t, db, token, o)
				got = append(got, ids...)
				if pages++; next == "" {
					break
				}
				if len(ids) != page.Size {
					t.Errorf("a page before the last has %d rows", len(ids))
				}
				token = next
			}
			if o == page.NewestFirst {
				for i, j := 0, len(got)-1; i < j; i, j = i+1, j-1 {
					got[i], got[j] = got[j], got[i]
				}
			}
			if pages != 3 || strings.Join(got, " ") != strings.Join(want, " ") {
				t.Errorf("order %v: %d pages with %v", o, pages, got)
			}
		}
	})
}

func TestPagesStandWhileRowsAreAdded(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		for i := range 30 {
			add(t, db, int64(i), fmt.Sprintf("r%02d", i))
		}
		first, token := read(t, db, "", page.NewestFirst)
		add(t, db, 100, "new1", "new2", "new3")
		add(t, db, 10, "r10x") // sorts just before the row the page ended with
		second, rest := read(t, db, token, page.NewestFirst)
		if first[19] != "r10" || second[0] != "r09" || len(second) != 10 || rest != "" {
			t.Errorf("first page %v, second page %v %q", first, second, rest)
		}
	})
}

// A page that ends early goes on where its rows had been looked at, which no row has to be.
func TestShortPagesGoOn(t *testing.T) {
	t.Parallel()
	l, err := page.Query{}.Open("rows", page.NewestFirst)
	if err != nil {
		t.Fatal(err)
	}
	meta, err := l.Short(page.Cursor{At: 7, ID: "r07x"})
	if err != nil {
		t.Fatal(err)
	}
	next, err := page.Query{NextToken: meta.NextToken}.Open("rows", page.NewestFirst)
	if err != nil || next.After() != (page.Cursor{At: 7, ID: "r07x"}) {
		t.Errorf("the list goes on after %v, %v", next.After(), err)
	}
	if _, err := (page.Query{NextToken: meta.NextToken}).Open("rows", page.OldestFirst); err == nil {
		t.Error("the token goes on in another order")
	}
}

func TestAFullLastPageHasNoNext(t *testing.T) {
	t.Parallel()
	l, err := page.Query{}.Open("rows", page.NewestFirst)
	if err != nil {
		t.Fatal(err)
	}
	rows := make([]*row, page.Size)
	for i := range rows {
		rows[i] = &row{"a", 1}
	}
	if _, meta, err := page.Cut(l, rows, at); err != nil || meta.NextToken != "" {
		t.Errorf("got %+v, %v", meta, err)
	}
}

// token makes the token of a list that ended at (5, "a").
func token(t testing.TB, name string, o page.Order, filter ...any) string {
	t.Helper()
	l, err := page.Query{}.Open(name, o, filter...)
	if err != nil {
		t.Fatal(err)
	}
	rows := make([]*row, page.Size+1)
	for i := range rows {
		rows[i] = &row{"a", 5}
	}
	_, meta, err := page.Cut(l, rows, at)
	if err != nil {
		t.Fatal(err)
	}
	return meta.NextToken
}

func TestTokensBelongToOneList(t *testing.T) {
	t.Parallel()
	text := "x"
	tags := map[string]string{"a": "1", "b": "2", "c": "3"}
	good := token(t, "users", page.NewestFirst, tags, &text)
	same := "x"
	if _, err := (page.Query{NextToken: good}).Open("users", page.NewestFirst, map[string]string{"c": "3", "b": "2", "a": "1"}, &same); err != nil {
		t.Errorf("the same filters: %v", err)
	}
	foreign := []func() (*page.List, error){
		func() (*page.List, error) {
			return page.Query{NextToken: good}.Open("messages", page.NewestFirst, tags, &text)
		},
		func() (*page.List, error) {
			return page.Query{NextToken: good}.Open("users", page.OldestFirst, tags, &text)
		},
		func() (*page.List, error) {
			return page.Query{NextToken: good}.Open("users", page.NewestFirst, map[string]string{}, &text)
		},
		func() (*page.List, error) {
			return page.Query{NextToken: good}.Open("users", page.NewestFirst, tags)
		},
	}
	for i, open := range foreign {
		if _, err := open(); !fault.Is(err, fault.InvalidQuery) || !strings.Contains(err.Error(), "nextToken") {
			t.Errorf("foreign list %d: %v", i, err)
		}
	}
}

func TestTokensThatWereNeverGiven(t *testing.T) {
	t.Parallel()
	good := token(t, "users", page.NewestFirst)
	raw, err := base64.RawURLEncoding.DecodeString(good)
	if err != nil {
		t.Fatal(err)
	}
	again := func(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
	for _, bad := range []string{
		"x", "%%%", "null", good + "=", good[:len(good)-2], " " + good, good + good, strings.Repeat("A", 1000),
		again(raw[:5]), again(raw[:6]), again(append([]byte{9}, raw[1:]...)), again(append(raw[:6:6], 0)), again(append(raw[:6:6], 0xff)),
		again(append(raw[:5:5], 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 'a')),
	} {
		if _, err := (page.Query{NextToken: bad}).Open("users", page.NewestFirst); !fault.Is(err, fault.InvalidQuery) || !strings.HasPrefix(err.Error(), "nextToken ") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzToken(f *testing.F) {
	f.Add(token(f, "users", page.NewestFirst))
	f.Add("")
	f.Add("AQAAAAA")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := page.Query{NextToken: text}.Open("users", page.NewestFirst)
		if err != nil {
			if !fault.Is(err, fault.InvalidQuery) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		var w sqldb.Where
		l.Keyset(&w, "created_at", "id")
		if text != "" && len(w.Args) != 2 {
			t.Errorf("%q was taken and continues nothing", text)
		}
	})
}
