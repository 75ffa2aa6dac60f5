package chaos

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/internal/parleytest"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// TestUpgrade goes from the release before to this one, back where the tables
// allow it, forward again, and on to one that is still to come: this one with the
// migrations of testdata/next. Several servers change one after the other, and
// programs of two releases work side by side. Nothing that was acknowledged is lost.
func TestUpgrade(t *testing.T) {
	before, after := previous(t), next(t)
	run := func(name string, start func(t *testing.T, bin string) (s *parleytest.Setup, database string)) {
		t.Run(name, func(t *testing.T) {
			s, database := start(t, "PARLEY_TEST_BIN="+before.bin)
			upgrade(t, s, database, before, after)
		})
	}
	run("sqlite", func(t *testing.T, bin string) (*parleytest.Setup, string) { return parleytest.Alone(t, "", bin), "" })
	if os.Getenv("PARLEY_TEST_DB") == "sqlite" {
		return
	}
	for name, on := range onPostgres {
		run(name, func(t *testing.T, bin string) (*parleytest.Setup, string) {
			database := sqldbtest.DatabaseURL(t)
			return on(t, database, bin), database
		})
	}
}

func upgrade(t *testing.T, s *parleytest.Setup, database string, before, after program) {
	now, err := parleytest.Binary()
	if err != nil {
		t.Fatal(err)
	}
	this := program{now, migrations(t, "../internal/schema")}
	u := &upgrades{t: t, s: s}
	l := begin(t, s)
	l.end(func() {
		for range rounds(1, 60) {
			u.to(this)
			if slices.Equal(before.tables, this.tables) {
				u.to(before)
			} else {
				u.refuses(s.Nodes[0], before, this)
			}
		}
		u.to(this)
		if database != "" {
			enlarge(t, database)
		}
		u.breakOff(s.Nodes[0], after)
		u.to(after, func() { u.refuses(s.Nodes[len(s.Nodes)-1], this, after) })
	})
	if database != "" {
		whole(t, database)
	}
	// A program whose statements do not survive a change of the tables says so once
	// for each, and goes on.
	l.neverSaid(http.StatusInternalServerError)
	for _, node := range s.Nodes {
		log := node.Log()
		lines := bufio.NewScanner(log)
		for lines.Scan() {
			if line := lines.Text(); strings.Contains(line, `"level":"ERROR"`) || strings.Contains(line, "cached plan") {
				t.Errorf("a server logged: %s", line)
			}
		}
		if err := errors.Join(lines.Err(), log.Close()); err != nil {
			t.Error(err)
		}
	}
	if d := slices.Max(u.away); long() && len(s.Nodes) == 1 && d > 5*time.Second {
		t.Errorf("the server was away for %v, want 5 s at most", d)
	}
	for _, c := range l.talks {
		if long() && len(s.Nodes) > 1 && c.tries > 2 {
			t.Errorf("%s: a message was sent %d times before it was acknowledged", c.name, c.tries)
		}
	}
	l.record("upgrade, "+s.Name, u.String())
}

// program is one release.
type program struct {
	bin    string
	tables []string // its migrations
}

// upgrades is what the servers of a setup go through.
type upgrades struct {
	t      *testing.T
	s      *parleytest.Setup
	away   []time.Duration // from the word to stop until the other program was ready
	broken int             // starts that were killed while they migrated
}

func (u *upgrades) String() string {
	slices.Sort(u.away)
	median := u.away[len(u.away)/2]
	return fmt.Sprintf("%d changes of program, the server away for %v (p50), %v (most); %d migrations killed", len(u.away), median.Round(time.Millisecond), slices.Max(u.away).Round(time.Millisecond), u.broken)
}

// to has every server run another program, one after the other. Halfway, where
// both are running, it does what else is to be done.
func (u *upgrades) to(p program, halfway ...func()) {
	u.t.Helper()
	for i, node := range u.s.Nodes {
		<-time.After(300 * time.Millisecond) // with what it has
		began := time.Now()
		node.End()
		node.Bin = p.bin
		node.Start()
		u.away = append(u.away, time.Since(began))
		if i == 0 {
			for _, do := range halfway {
				do()
			}
		}
	}
	<-time.After(300 * time.Millisecond)
}

// refuses has a server start with a program that is older than the tables, which
// it must refuse, and then with the one that it is to have.
func (u *upgrades) refuses(node *parleytest.Server, older, then program) {
	u.t.Helper()
	node.End()
	node.Bin = older.bin
	node.Launch()
	select {
	case <-node.Gone():
	case <-time.After(time.Minute):
		u.t.Fatal("an older program runs on newer tables")
	}
	want := fmt.Sprintf("this program knows versions up to %d", len(older.tables))
	if said := node.Tail(); !strings.Contains(said, want) {
		u.t.Errorf("an older program did not say %q:\n%s", want, said)
	}
	node.Bin = then.bin
	node.Start()
}

// breakOff kills a server while it migrates, at random points.
func (u *upgrades) breakOff(node *parleytest.Server, p program) {
	u.t.Helper()
	seed := rand.Uint64()
	u.t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 1))
	node.End()
	node.Bin = p.bin
	for range rounds(2, 10) {
		node.Launch()
		<-time.After(time.Duration(100+dice.IntN(700)) * time.Millisecond)
		node.Kill()
		u.broken++
	}
	node.Start()
}

// enlarge makes a table large that the next migrations change.
func enlarge(t *testing.T, database string) {
	t.Helper()
	rows := 20_000
	if long() {
		rows = 1_000_000
	}
	db := sqldbtest.Open(t, database)
	if err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
		_, err := tx.Exec(`INSERT INTO messages (bot_id, id, installation_id, conversation_id, user_id, direction, type, payload, tags, origin, seq, signal_pos, created_at, updated_at)
			SELECT 'bot_large', 'msg_' || lpad(n::text, 9, '0'), '', 'conv_large', 'user_large', 'incoming', 'text', repeat('x', 100), '{}', '', n, n, n, n FROM generate_series(1, $1::bigint) AS n`, rows)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// whole looks whether the online migration has done all it had to.
func whole(t *testing.T, database string) {
	t.Helper()
	q := sqldbtest.Open(t, database).Reader(t.Context())
	for query, want := range map[string]int{
		"SELECT COUNT(*) FROM messages WHERE bot_id = 'bot_large' AND next_size <> 100":                          0,
		"SELECT COUNT(*) FROM pg_index WHERE NOT indisvalid":                                                     0,
		"SELECT COUNT(*) FROM pg_class WHERE relkind = 'i' AND relname IN ('messages_unsized', 'messages_size')": 2,
	} {
		if n, err := sqldb.Scalar[int](q, query); n != want || err != nil {
			t.Errorf("%s: got %d, %v, want %d", query, n, err, want)
		}
	}
}

// previous is the release that people run before they upgrade: the commit that
// testdata/previous names. What was built of it stays in bin, for the next run.
func previous(t *testing.T) program {
	t.Helper()
	named, err := os.ReadFile("testdata/previous")
	if err != nil {
		t.Fatal(err)
	}
	commit := strings.TrimSpace(string(named))
	bin, err := filepath.Abs("../bin/parley-" + commit)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bin); errors.Is(err, fs.ErrNotExist) {
		dir := t.TempDir()
		if err := unpack(dir, bytes.NewReader(git(t, commit, "archive", commit))); err != nil {
			t.Fatal(err)
		}
		build(t, dir, bin)
	}
	var tables []string
	for name := range strings.FieldsSeq(string(git(t, commit, "ls-tree", "--name-only", commit+":internal/schema"))) {
		if strings.HasSuffix(name, ".sql") {
			tables = append(tables, name)
		}
	}
	return program{bin, tables}
}

// git asks the repository for something of a commit.
func git(t *testing.T, commit string, args ...string) []byte {
	t.Helper()
	c := exec.Command("git", args...)
	c.Dir = ".."
	out, err := c.Output()
	if err != nil {
		var said []byte
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			said = e.Stderr
		}
		t.Fatalf("%v: %v %s\ncommit %s of testdata/previous is needed; a clone without it gets it with: git fetch --unshallow --tags", c.Args, err, said, commit)
	}
	return out
}

// unpack writes the files of an archive into a directory.
func unpack(dir string, archive io.Reader) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for r := tar.NewReader(archive); ; {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		text, err := io.ReadAll(r)
		switch {
		case err != nil:
			return err
		case h.Typeflag == tar.TypeDir:
			err = root.MkdirAll(h.Name, 0o700)
		case h.Typeflag == tar.TypeReg:
			err = root.WriteFile(h.Name, text, 0o600)
		}
		if err != nil {
			return err
		}
	}
}

// next is a release that is still to come: this one and the migrations of
// testdata/next.
func next(t *testing.T) program {
	t.Helper()
	tables := migrations(t, "../internal/schema")
	schema, err := filepath.Abs("../internal/schema")
	if err != nil {
		t.Fatal(err)
	}
	added, err := filepath.Abs("testdata/next")
	if err != nil {
		t.Fatal(err)
	}
	var overlay struct{ Replace map[string]string }
	overlay.Replace = map[string]string{}
	for _, name := range migrations(t, added) {
		number := fmt.Sprintf("%04d_%s", len(tables)+1, strings.TrimLeft(name, "0123456789_"))
		overlay.Replace[filepath.Join(schema, number)] = filepath.Join(added, name)
		tables = append(tables, number)
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "overlay.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(filepath.Dir(file), "parley")
	build(t, "..", bin, "-overlay", file)
	return program{bin, tables}
}

// build builds the program whose source is in a directory.
func build(t *testing.T, dir, bin string, flags ...string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(bin), 0o755); err != nil {
		t.Fatal(err)
	}
	half := fmt.Sprintf("%s.%d", bin, os.Getpid()) // another run may build the same
	defer os.Remove(half)                          // it is gone when it was whole
	c := exec.Command("go", slices.Concat([]string{"build", "-buildvcs=false", "-o", half}, flags, []string{"./cmd/parley"})...)
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v in %s: %v\n%s", c.Args, dir, err, out)
	}
	if err := os.Rename(half, bin); err != nil {
		t.Fatal(err)
	}
}

// migrations are the names of those in a directory.
func migrations(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.sql"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has %d migrations: %v", dir, len(files), err)
	}
	for i, file := range files {
		files[i] = filepath.Base(file)
	}
	return files
}
