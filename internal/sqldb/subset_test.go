package sqldb_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

const subsetTables = `
CREATE TABLE things (
  id    TEXT PRIMARY KEY,
  grp   TEXT NOT NULL,
  n     BIGINT NOT NULL,
  flag  BOOLEAN NOT NULL,
  note  TEXT,
  doc   TEXT NOT NULL,
  blob  {bytes}
) {without_rowid};
CREATE INDEX things_on ON things (grp, n) WHERE flag;
CREATE TABLE marks (grp TEXT NOT NULL, k TEXT NOT NULL, PRIMARY KEY (grp, k));
CREATE TABLE words (w TEXT {c} NOT NULL);
INSERT INTO things (id, grp, n, flag, note, doc, blob) VALUES
  ('a', 'g1', 1, TRUE, NULL, '{"b": 1,  "a": 2}', NULL),
  ('b', 'g1', 2, FALSE, 'x', '{}', NULL),
  ('c', 'g2', 3, TRUE, '007', '[]', NULL);
`

// TestSubset runs one statement of every construct that SQL in this project may
// use. Whoever needs another adds it here first.
func TestSubset(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		do(t, db, subsetTables)
		for _, c := range []struct {
			name, query string
			args        []any
			want        string
			flag        bool // the last column is a boolean
		}{
			{"arguments repeat and come out of order", "SELECT $2 || $1 || $2", []any{"a", "b"}, "bab", false},
			{"INSERT RETURNING", "INSERT INTO things (id, grp, n, flag, doc) VALUES ($1, 'g3', $2, $3, '') RETURNING n, flag", []any{"d", int64(9), true}, "9 true", true},
			{"UPDATE RETURNING", "UPDATE things SET n = n + 1, note = $2 WHERE grp = $1 RETURNING id, n", []any{"g1", "y"}, "a 2|b 3", false},
			{"DELETE RETURNING", "DELETE FROM things WHERE id = $1 RETURNING note", []any{"c"}, "007", false},
			{"ON CONFLICT DO NOTHING", "INSERT INTO things (id, grp, n, flag, doc) VALUES ('a', '', 0, FALSE, '') ON CONFLICT DO NOTHING RETURNING id", nil, "", false},
			{"ON CONFLICT DO UPDATE", `INSERT INTO things (id, grp, n, flag, doc) VALUES ('a', '', 100, FALSE, '')
				ON CONFLICT (id) DO UPDATE SET n = CASE WHEN things.n < excluded.n THEN excluded.n ELSE things.n END RETURNING n, grp`, nil, "100 g1", false},
			{"ON CONFLICT DO UPDATE WHERE", `INSERT INTO things (id, grp, n, flag, doc) VALUES ('a', '', 0, FALSE, '')
				ON CONFLICT (id) DO UPDATE SET n = excluded.n WHERE things.n < excluded.n RETURNING n`, nil, "", false},
			{"INSERT SELECT", "INSERT INTO marks (grp, k) SELECT grp, id FROM things WHERE flag RETURNING k", nil, "a|c", false},
			{"row values", "SELECT id FROM things WHERE (n, id) < ($1, $2) ORDER BY n DESC, id DESC", []any{int64(3), "c"}, "b|a", false},
			{"IS NOT DISTINCT FROM", "SELECT id FROM things WHERE note IS NOT DISTINCT FROM $1", []any{nil}, "a", false},
			{"IS DISTINCT FROM", "SELECT id FROM things WHERE note IS DISTINCT FROM $1 ORDER BY id", []any{"x"}, "a|c", false},
			{"common table expression", "WITH g AS (SELECT grp, COUNT(*) AS c FROM things GROUP BY grp) SELECT grp, c FROM g WHERE c > $1 ORDER BY grp", []any{int64(1)}, "g1 2", false},
			{"window", "SELECT id, ROW_NUMBER() OVER (PARTITION BY grp ORDER BY n DESC) FROM things ORDER BY id", nil, "a 2|b 1|c 1", false},
			{"boolean column", "SELECT id FROM things WHERE flag ORDER BY id", nil, "a|c", false},
			{"boolean literal", "SELECT id FROM things WHERE flag = FALSE", nil, "b", false},
			{"boolean argument", "SELECT id FROM things WHERE flag = $1 ORDER BY id", []any{true}, "a|c", false},
			{"boolean expression", "SELECT flag AND n > 1 FROM things ORDER BY id", nil, "false|false|true", true},
			{"EXISTS", "SELECT EXISTS (SELECT 1 FROM things WHERE id = $1)", []any{"a"}, "true", true},
			{"NOT EXISTS with an outer column", "SELECT id FROM things WHERE NOT EXISTS (SELECT 1 FROM things AS o WHERE o.grp = things.grp AND o.id <> things.id)", nil, "c", false},
			{"text of digits stays text", "SELECT note FROM things WHERE id = 'c'", nil, "007", false},
			{"JSON text stays as it is", "SELECT doc FROM things WHERE id = 'a'", nil, `{"b": 1,  "a": 2}`, false},
			{"COALESCE", "SELECT COALESCE(MAX(n), 0) FROM things WHERE grp = 'none'", nil, "0", false},
			{"COUNT, SUM, MIN", "SELECT COUNT(*), SUM(n), MIN(id) FROM things", nil, "3 6 a", false},
			{"DISTINCT", "SELECT DISTINCT grp FROM things ORDER BY grp", nil, "g1|g2", false},
			{"GROUP BY HAVING", "SELECT grp FROM things GROUP BY grp HAVING COUNT(*) = 1", nil, "g2", false},
			{"join", "SELECT a.id, b.id FROM things AS a JOIN things AS b ON b.grp = a.grp AND b.n > a.n", nil, "a b", false},
			{"left join", "SELECT things.id, marks.k FROM things LEFT JOIN marks ON marks.grp = things.grp ORDER BY things.id", nil, "a <nil>|b <nil>|c <nil>", false},
			{"LIKE ESCAPE", `SELECT id FROM things WHERE grp LIKE $1 ESCAPE '\' ORDER BY id`, []any{`g\_%`}, "", false},
			{"LIKE", "SELECT id FROM things WHERE grp LIKE $1 ORDER BY id LIMIT $2", []any{"g%", int64(2)}, "a|b", false},
			{"IN", "SELECT id FROM things WHERE id IN ($1, $2) ORDER BY id", []any{"c", "a"}, "a|c", false},
			{"IN of nothing", "SELECT id FROM things WHERE id IN (NULL)", nil, "", false},
			{"IN a subquery", "SELECT id FROM things WHERE grp IN (SELECT grp FROM things WHERE n = $1) ORDER BY id", []any{int64(1)}, "a|b", false},
			{"UNION ALL", "SELECT id FROM things WHERE n = 1 UNION ALL SELECT grp FROM things WHERE n = 3 ORDER BY 1", nil, "a|g2", false},
			{"length and substr", "SELECT LENGTH(id), SUBSTR(grp, 2) FROM things WHERE id = 'a'", nil, "1 1", false},
			{"concatenation", "SELECT 'bot:' || id FROM things WHERE n = 1", nil, "bot:a", false},
			{"claim", `UPDATE things SET n = -1 WHERE id IN (SELECT id FROM things WHERE n > 0 ORDER BY n LIMIT 2 {skip_locked}) AND n > 0 RETURNING id`, nil, "a|b", false},
			{"row lock", "SELECT n FROM things WHERE id = $1 {for_update}", []any{"a"}, "1", false},
			{"delete some", "DELETE FROM things WHERE id IN (SELECT id FROM things WHERE grp = $1 ORDER BY id LIMIT 1) RETURNING id", []any{"g1"}, "a", false},
			{"largest integer", "SELECT id FROM things WHERE n < 9223372036854775807 AND n = $1", []any{int64(3)}, "c", false},
		} {
			t.Run(c.name, func(t *testing.T) {
				var got string
				err := db.Write(t.Context(), func(tx *sqldb.Tx) (err error) {
					if got, err = table(tx, c.flag, c.query, c.args...); err != nil {
						return err
					}
					return errRollback
				})
				if err != errRollback {
					t.Fatal(err)
				}
				if got != c.want {
					t.Errorf("%s\ngot  %s\nwant %s", c.query, got, c.want)
				}
			})
		}
	})
}

var errRollback = fmt.Errorf("roll it back")

// table renders the rows of a query in their order, or sorted where a statement
// gives them in none. With flag the last column is a boolean.
func table(q sqldb.Q, flag bool, query string, args ...any) (string, error) {
	rows, err := q.Query(query, args...)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		vals, dest := make([]any, rows.Columns()), make([]any, rows.Columns())
		for i := range vals {
			dest[i] = &vals[i]
		}
		if flag {
			dest[len(dest)-1] = new(bool)
		}
		if err := rows.Scan(dest...); err != nil {
			return "", err
		}
		if flag {
			vals[len(vals)-1] = *dest[len(dest)-1].(*bool)
		}
		out = append(out, strings.TrimSuffix(fmt.Sprintln(vals...), "\n"))
	}
	if strings.Contains(query, "RETURNING") || !strings.Contains(query, "ORDER BY") {
		slices.Sort(out)
	}
	return strings.Join(out, "|"), rows.Err()
}

// TestByteOrder holds the order of texts, which cursors of lists rely on.
func TestByteOrder(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		do(t, db, "CREATE TABLE words (w TEXT NOT NULL, c TEXT {c} NOT NULL)")
		for _, w := range []string{"a", "_", "B", "é", "10", "9", "Z", "z", "\U0001F600", "\uFFFD"} {
			do(t, db, "INSERT INTO words (w, c) VALUES ($1, $1)", w)
		}
		want := "10|9|B|Z|_|a|z|é|\uFFFD|\U0001F600"
		for _, col := range []string{"w", "c"} {
			got, err := table(db.Reader(t.Context()), false, "SELECT "+col+" FROM words ORDER BY "+col)
			if err != nil || got != want {
				t.Errorf("ORDER BY %s: got %s, %v, want %s", col, got, err, want)
			}
		}
	})
}

// TestPartialIndexConflict holds that a conflict on any unique index is a
// conflict, also on a partial one.
func TestPartialIndexConflict(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		do(t, db, `CREATE TABLE p (a TEXT NOT NULL, live BOOLEAN NOT NULL)`)
		do(t, db, `CREATE UNIQUE INDEX p_live ON p (a) WHERE live`)
		var got []int64
		for _, live := range []bool{true, false, false, true} {
			got = append(got, do(t, db, "INSERT INTO p (a, live) VALUES ('x', $1) ON CONFLICT DO NOTHING", live))
		}
		if diff := cmp.Diff([]int64{1, 1, 1, 0}, got); diff != "" {
			t.Error(diff)
		}
		err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
			_, err := tx.Exec("INSERT INTO p (a, live) VALUES ('x', TRUE)")
			return err
		})
		if !sqldb.IsUnique(err) {
			t.Errorf("got %v, want a unique violation", err)
		}
	})
}

// do runs statements that need no answer, each text in a write of its own.
func do(t testing.TB, db *sqldb.DB, text string, args ...any) (n int64) {
	t.Helper()
	statements := []string{text}
	if len(args) == 0 {
		statements = strings.Split(strings.TrimSuffix(strings.TrimSpace(text), ";"), ";\n")
	}
	err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
		for _, s := range statements {
			var err error
			if n, err = tx.Exec(s, args...); err != nil {
				return fmt.Errorf("%s: %w", s, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
