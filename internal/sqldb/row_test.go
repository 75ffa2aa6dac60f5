package sqldb_test

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

type mood string

// thing has a field of every sort that a row may have.
type thing struct {
	ID     string
	Mood   mood
	Note   *string
	N      int64
	Small  int32
	Due    *int64
	Flag   bool
	Maybe  *bool
	Sealed []byte
	Tags   map[string]string
	Doc    jsontext.Value
	Old    json.RawMessage
	Ratio  float64
}

func (x *thing) Columns() []sqldb.Column {
	return []sqldb.Column{
		{"id", &x.ID}, {"mood", &x.Mood}, {"note", &x.Note}, {"n", &x.N}, {"small", &x.Small}, {"due", &x.Due},
		{"flag", &x.Flag}, {"maybe", &x.Maybe}, {"sealed", &x.Sealed}, {"tags", sqldb.JSON(&x.Tags)},
		{"doc", sqldb.JSON(&x.Doc)}, {"old", &x.Old}, {"ratio", &x.Ratio},
	}
}

const thingTable = `CREATE TABLE thing (id TEXT PRIMARY KEY, mood TEXT NOT NULL, note TEXT, n BIGINT NOT NULL, small BIGINT NOT NULL, due BIGINT,
	flag BOOLEAN NOT NULL, maybe BOOLEAN, sealed {bytes}, tags TEXT NOT NULL, doc TEXT NOT NULL, old TEXT NOT NULL, ratio DOUBLE PRECISION NOT NULL)`

func full(id string) *thing {
	return &thing{
		ID: id, Mood: "glad", Note: new("007"), N: math.MaxInt64, Small: -5, Due: new(int64(0)), Flag: true, Maybe: new(false),
		Sealed: []byte{0, 1, 0xff}, Tags: map[string]string{"b": "<&>", "a": "é\u2028"}, Doc: jsontext.Value(`{"z": 1,  "a":[1.0, 1e400, "\u0000"]}`),
		Old: json.RawMessage(` [ ] `), Ratio: 0.1,
	}
}

func TestRowRoundTrip(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		do(t, db, thingTable)
		bare := &thing{ID: "bare", Sealed: []byte{}, Tags: map[string]string{}, Doc: jsontext.Value("null"), Old: json.RawMessage("{}")}
		none := &thing{ID: "none"}
		for _, x := range []*thing{full("full"), bare, none} {
			var added, again bool
			err := db.Write(t.Context(), func(tx *sqldb.Tx) (err error) {
				if added, err = sqldb.Insert(tx, "thing", x); err != nil {
					return err
				}
				again, err = sqldb.Insert(tx, "thing", x)
				return err
			})
			if err != nil || !added || again {
				t.Fatalf("insert %s: added %t, again %t, %v", x.ID, added, again, err)
			}
			got, err := sqldb.One[thing](db.Reader(t.Context()), "thing", "WHERE id = $1", x.ID)
			if err != nil {
				t.Fatal(err)
			}
			if x.Tags == nil {
				x.Tags = map[string]string{} // a nil map is written as {}
			}
			if diff := cmp.Diff(x, got); diff != "" {
				t.Errorf("%s (-written +read):\n%s", x.ID, diff)
			}
		}
		all, err := sqldb.Select[thing](db.Reader(t.Context()), "thing", "ORDER BY id")
		if err != nil || len(all) != 3 || all[0].ID != "bare" || all[2].ID != "none" {
			t.Errorf("select: %d rows, %v", len(all), err)
		}
		text, err := sqldb.Scalar[string](db.Reader(t.Context()), "SELECT tags FROM thing WHERE id = 'full'")
		if want := `{"a":"é` + "\u2028" + `","b":"<&>"}`; text != want || err != nil {
			t.Errorf("tags are stored as %s, %v; want %s", text, err, want)
		}
	})
}

func TestRowChanges(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		do(t, db, thingTable)
		var missing [4]error
		err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
			for _, id := range []string{"a", "b"} {
				if _, err := sqldb.Insert(tx, "thing", full(id)); err != nil {
					return err
				}
			}
			x := full("a")
			x.Mood, x.Note = "sad", nil
			if err := sqldb.Update(tx, "thing", x, sqldb.Column{"id", "a"}, sqldb.Column{"mood", new(mood("glad"))}); err != nil {
				return err
			}
			if err := sqldb.Delete(tx, "thing", "WHERE id = $1", "b"); err != nil {
				return err
			}
			missing[0] = sqldb.Update(tx, "thing", x, sqldb.Column{"id", "c"})
			missing[1] = sqldb.Delete(tx, "thing", "WHERE id = $1", "c")
			_, missing[2] = sqldb.One[thing](tx, "thing", "WHERE id = $1", "c")
			_, missing[3] = sqldb.Scalar[string](tx, "SELECT id FROM thing WHERE id = $1", "c")
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for i, err := range missing {
			if !errors.Is(err, sqldb.ErrNoRow) {
				t.Errorf("statement %d on a row that is not there: got %v, want ErrNoRow", i, err)
			}
		}
		got, err := sqldb.Select[thing](db.Reader(t.Context()), "thing", "")
		if err != nil || len(got) != 1 || got[0].Mood != "sad" || got[0].Note != nil {
			t.Errorf("after the changes: %+v, %v", got, err)
		}
	})
}

func TestScanErrors(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		q := db.Reader(t.Context())
		scan := func(query string, dest ...any) error {
			t.Helper()
			rows, err := q.Query(query)
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			if !rows.Next() {
				t.Fatal("no row")
			}
			return rows.Scan(dest...)
		}
		var (
			s    string
			n    int64
			tiny int8
			u    uint
			b    bool
			raw  []byte
			v    struct{ A int }
			list []string
		)
		for name, err := range map[string]error{
			"NULL into string":          scan("SELECT CAST(NULL AS TEXT)", &s),
			"NULL into int64":           scan("SELECT CAST(NULL AS BIGINT)", &n),
			"text into int64":           scan("SELECT 'x'", &n),
			"text of digits into int64": scan("SELECT '7'", &n),
			"integer into string":       scan("SELECT 7", &s),
			"large integer into int8":   scan("SELECT 1000", &tiny),
			"negative into uint":        scan("SELECT -1", &u),
			"text into bool":            scan("SELECT 'true'", &b),
			"text into bytes":           scan("SELECT 'x'", &raw),
			"into no pointer":           scan("SELECT 1", n),
			"into a struct":             scan("SELECT 'x'", &v),
			"too few destinations":      scan("SELECT 1, 2", &n),
			"too many destinations":     scan("SELECT 1", &n, &n),
			"JSON that is none":         scan("SELECT '{'", sqldb.JSON(&list)),
			"JSON of another type":      scan("SELECT '{}'", sqldb.JSON(&list)),
			"JSON into no pointer":      scan("SELECT '[]'", sqldb.JSON(list)),
			"JSON from an integer":      scan("SELECT 1", sqldb.JSON(&list)),
		} {
			if err == nil {
				t.Errorf("%s: no error", name)
			}
		}
		list = []string{"of the row before"}
		if err := scan("SELECT ''", sqldb.JSON(&list)); err != nil || list != nil {
			t.Errorf("the empty text as JSON: %v, %v", list, err)
		}
		var sum int64
		if err := scan("SELECT SUM(x) FROM (SELECT 1 AS x UNION ALL SELECT 2) AS t", &sum); err != nil || sum != 3 {
			t.Errorf("SUM: %d, %v", sum, err)
		}
		var anything any
		if err := scan("SELECT 'x'", &anything); err != nil || anything != "x" {
			t.Errorf("into any: %v, %v", anything, err)
		}
	})
}

func TestArguments(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		for _, bad := range []any{uint64(math.MaxUint64), struct{}{}, []string{"a"}, sqldb.JSON(func() {}), "\x00", new("\xff"), mood("\x00"), jsontext.Value("\xff")} {
			if _, err := db.Reader(t.Context()).Query("SELECT CAST($1 AS TEXT)", bad); err == nil {
				t.Errorf("%T %q was taken", bad, bad)
			}
		}
		var nobody *string
		for _, null := range []any{nil, nobody, &nobody, (*int64)(nil), (*bool)(nil), (*[]byte)(nil), (*mood)(nil), []byte(nil)} {
			got, err := sqldb.Scalar[bool](db.Reader(t.Context()), "SELECT $1 IS NULL", null)
			if db.Dialect() == sqldb.Postgres {
				got, err = sqldb.Scalar[bool](db.Reader(t.Context()), "SELECT $1::text IS NULL", null)
			}
			if err != nil || !got {
				t.Errorf("%T is not NULL: %v", null, err)
			}
		}
		big := strings.Repeat("é", 200_000)
		got, err := sqldb.Scalar[string](db.Reader(t.Context()), "SELECT CAST($1 AS TEXT) || CAST($2 AS TEXT) || CAST($1 AS TEXT)", big, "-")
		if err != nil || got != big+"-"+big {
			t.Errorf("large texts come back with %d bytes, %v", len(got), err)
		}
	})
}

func TestWhere(t *testing.T) {
	t.Parallel()
	var w sqldb.Where
	if got := w.String(); got != "" {
		t.Errorf("no condition gives %q", got)
	}
	w.And("bot_id = ?", "bot")
	w.And("(updated_at, id) < (?, ?)", int64(5), "x?")
	w.And("id IN " + sqldb.In(&w, []string{"a", "b"}))
	w.And("id IN " + sqldb.In(&w, nil))
	w.And("deleted = FALSE")
	got := w.String() + " LIMIT " + w.Arg(20)
	want := "WHERE bot_id = $1 AND (updated_at, id) < ($2, $3) AND id IN ($4, $5) AND id IN (NULL) AND deleted = FALSE LIMIT $6"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if diff := cmp.Diff([]any{"bot", int64(5), "x?", "a", "b", 20}, w.Args); diff != "" {
		t.Error(diff)
	}
	defer func() {
		if recover() == nil {
			t.Error("a condition with fewer ? than arguments was taken")
		}
	}()
	w.And("a = ?", 1, 2)
}
