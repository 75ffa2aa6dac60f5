package lite

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
)

func opened(t *testing.T, file, pragmas string) *Conn {
	t.Helper()
	c, err := Open(file, func(s string) string { return s })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := c.Script(pragmas); err != nil {
		t.Fatal(err)
	}
	return c
}

const wal = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"

// run runs a statement to its end and returns the last value of its first column.
func run(t *testing.T, c *Conn, query string, args ...string) string {
	t.Helper()
	s, err := c.Prepare(query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	s.Start()
	defer s.Reset()
	for i, a := range args {
		if err := s.BindText(i+1, a); err != nil {
			t.Fatal(err)
		}
	}
	var last string
	for {
		row, err := s.Step()
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		if !row {
			return last
		}
		last = s.Text(0)
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	c := opened(t, filepath.Join(t.TempDir(), "x.db"), "")
	s, err := c.Prepare("SELECT $2, $1, $3, $4, $5, $6, $7, $1")
	if err != nil {
		t.Fatal(err)
	}
	if s.Args() != 7 || s.Columns() != 8 {
		t.Errorf("%d arguments, %d columns", s.Args(), s.Columns())
	}
	big := strings.Repeat("é", arenaSize)
	for range 3 { // the statement and the memory of its arguments are used again
		s.Start()
		err := errors.Join(s.BindText(1, "one"), s.BindInt(2, -7), s.BindFloat(3, 0.5), s.BindBytes(4, []byte{0, 1}),
			s.BindBytes(5, []byte{}), s.BindBytes(6, nil), s.BindText(7, big))
		if err != nil {
			t.Fatal(err)
		}
		if row, err := s.Step(); !row || err != nil {
			t.Fatal(row, err)
		}
		kinds := fmt.Sprint(s.Kind(0), s.Kind(1), s.Kind(2), s.Kind(3), s.Kind(4), s.Kind(5), s.Kind(6))
		if want := fmt.Sprint(Int, Text, Float, Bytes, Bytes, Null, Text); kinds != want {
			t.Errorf("kinds %s, want %s", kinds, want)
		}
		if s.Int(0) != -7 || s.Text(1) != "one" || s.Float(2) != 0.5 || string(s.Bytes(3)) != "\x00\x01" ||
			s.Bytes(4) == nil || len(s.Bytes(4)) != 0 || s.Text(6) != big || s.Text(7) != "one" {
			t.Error("a value came back changed")
		}
		s.Reset()
	}
}

func TestPrepareRefuses(t *testing.T) {
	t.Parallel()
	c := opened(t, filepath.Join(t.TempDir(), "x.db"), "CREATE TABLE t (a TEXT)")
	for _, text := range []string{"", "  ", "-- nothing", "SELECT 1; SELECT 2", "SELECT ?", "SELECT ?1", "SELECT :a", "SELECT $a", "SELECT $0", "SELEKT", `SELECT "a" FROM (SELECT 1)`} {
		if _, err := c.Prepare(text); err == nil {
			t.Errorf("%q was prepared", text)
		}
	}
	for _, text := range []string{"SELECT 1;", " SELECT 1 ; \n", "SELECT $1", `SELECT "a" FROM t`} {
		if _, err := c.Prepare(text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	for text, schema := range map[string]bool{
		"CREATE TABLE u (a TEXT)": true, "DROP TABLE t": true, "insert INTO t (a) VALUES (1)": false, "\n\tUPDATE t SET a = 1": false,
		"WITH x AS (SELECT 1) DELETE FROM t": false, "SELECT 1": false, "BEGIN IMMEDIATE": false, "COMMIT": false,
	} {
		s, err := c.Prepare(text)
		if err != nil || s.Schema() != schema {
			t.Errorf("%q changes the schema: want %t, %v", text, schema, err)
		}
	}
}

func TestStatementsAreBounded(t *testing.T) {
	t.Parallel()
	c := opened(t, filepath.Join(t.TempDir(), "x.db"), "")
	used, err := c.Prepare("SELECT 'used'")
	if err != nil {
		t.Fatal(err)
	}
	used.Start()
	if _, err := c.Prepare("SELECT 'used'"); err == nil {
		t.Error("a statement that runs was given out again")
	}
	for i := range 3 * maxStmts {
		if _, err := c.Prepare(fmt.Sprint("SELECT ", i)); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.stmts) > maxStmts {
		t.Errorf("%d statements are kept, want at most %d", len(c.stmts), maxStmts)
	}
	if row, err := used.Step(); !row || err != nil {
		t.Errorf("the statement that ran was dropped: %v", err)
	}
	used.Reset()
}

func TestErrors(t *testing.T) {
	t.Parallel()
	c := opened(t, filepath.Join(t.TempDir(), "x.db"), "CREATE TABLE t (a TEXT PRIMARY KEY, b TEXT UNIQUE) WITHOUT ROWID; INSERT INTO t VALUES ('1', '2')")
	for script, code := range map[string]int{
		"INSERT INTO t VALUES ('1', 'x')": PrimaryKey,
		"INSERT INTO t VALUES ('x', '2')": Unique,
	} {
		e, ok := errors.AsType[*Error](c.Script(script))
		if !ok || e.Code != code || !strings.Contains(e.Error(), "UNIQUE") {
			t.Errorf("%s: got %v, want code %d", script, e, code)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none", "x.db"), nil); err == nil {
		t.Error("a file in no directory was opened")
	}
}

func TestSchemaChangeUnderAPreparedStatement(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "x.db")
	a, b := opened(t, file, wal+"CREATE TABLE t (a TEXT); INSERT INTO t VALUES ('1')"), opened(t, file, wal)
	for i := range 3 {
		if got := run(t, a, "SELECT a FROM t WHERE a = $1", "1"); got != "1" {
			t.Errorf("got %q", got)
		}
		run(t, b, fmt.Sprintf("CREATE INDEX t_%d ON t (a)", i))
	}
}

// TestGather runs transactions that overflow the page cache, so that SQLite
// writes to its log in the middle, reads that back, rewrites it and starts the
// log again, and compares with a connection that gathers nothing.
func TestGather(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const small = wal + "PRAGMA cache_size = 10; PRAGMA wal_autocheckpoint = 100; CREATE TABLE IF NOT EXISTS t (a INTEGER PRIMARY KEY, b TEXT); CREATE INDEX IF NOT EXISTS t_b ON t (b);"
	plain := opened(t, filepath.Join(dir, "plain.db"), small)
	gathered := opened(t, filepath.Join(dir, "gathered.db"), small)
	if err := gathered.GatherLog(); err != nil {
		t.Fatal(err)
	}
	reader := opened(t, filepath.Join(dir, "gathered.db"), wal)
	const sum = "SELECT COUNT(*) || ' ' || TOTAL(LENGTH(b)) || ' ' || COALESCE(MAX(b), '') FROM t"
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 25 {
		var script strings.Builder
		script.WriteString("BEGIN IMMEDIATE;")
		for range 1 + random.IntN([]int{1, 60}[round%2]) { // one that fits the cache, one that does not
			fmt.Fprintf(&script, "INSERT OR REPLACE INTO t VALUES (%d, '%s');", random.IntN(200), strings.Repeat(string(rune('a'+random.IntN(26))), random.IntN(4000)))
			if random.IntN(5) == 0 {
				fmt.Fprintf(&script, "UPDATE t SET b = b || 'x' WHERE a BETWEEN %d AND %d;", random.IntN(200), random.IntN(200))
			}
			if random.IntN(20) == 0 {
				script.WriteString("SAVEPOINT s; DELETE FROM t WHERE a % 3 = 1; ROLLBACK TO s; RELEASE s;")
			}
		}
		script.WriteString([]string{"COMMIT", "COMMIT", "COMMIT", "ROLLBACK"}[random.IntN(4)])
		for _, c := range []*Conn{plain, gathered} {
			if err := c.Script(script.String()); err != nil {
				t.Fatal(err)
			}
		}
		want := run(t, plain, sum)
		if got := run(t, reader, sum); got != want {
			t.Fatalf("round %d: another connection reads %.80s, want %.80s", round, got, want)
		}
		if got := run(t, gathered, sum); got != want {
			t.Fatalf("round %d: its own connection reads %.80s, want %.80s", round, got, want)
		}
	}
	for _, c := range []*Conn{gathered, reader} {
		if got := run(t, c, "PRAGMA integrity_check"); got != "ok" {
			t.Errorf("integrity_check says %s", got)
		}
	}
	if got := len(gatherers.of); got == 0 {
		t.Error("nothing was gathered")
	}
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	c := opened(t, filepath.Join(t.TempDir(), "x.db"), "")
	const endless = "WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT n FROM r WHERE n < 0"
	s, err := c.Prepare(endless)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() {
		s.Start()
		_, err := s.Step()
		failed <- err
	}()
	for {
		c.Interrupt() // one that comes before the step is lost
		select {
		case err := <-failed:
			if e, ok := errors.AsType[*Error](err); !ok || e.Code != Interrupted {
				t.Errorf("got %v, want an interrupt", err)
			}
			s.Reset()
			if got := run(t, c, "SELECT 7"); got != "7" {
				t.Errorf("the statement after it gives %q", got)
			}
			return
		default:
		}
	}
}
