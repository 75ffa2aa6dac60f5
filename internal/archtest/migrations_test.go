package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"parley/internal/sqldb"
)

// ruled is the first migration that has to be safe while the release before it
// goes on working on the same tables. Those before it were made when there was
// nothing to go on.
const ruled = "0012"

// The tables change in two steps. A release expands them: what the release before
// it does not know is added so that it does not notice. A later release contracts:
// what no program uses any more goes, and says since which release. In between, any
// two neighbours run side by side. These are all the forms that either step has;
// table is the name of the table, where it matters.
var (
	newTable  = regexp.MustCompile(`(?i)^CREATE TABLE (?P<table>\w+) \(`)
	newIndex  = regexp.MustCompile(`(?i)^CREATE (?:UNIQUE )?INDEX \w+ ON (?P<table>\w+) `)
	newRows   = regexp.MustCompile(`(?i)^INSERT INTO (?P<table>\w+) \([^()]*\) VALUES `)
	newColumn = regexp.MustCompile(`(?i)^ALTER TABLE \w+ ADD COLUMN \w+ (?:TEXT|BIGINT|BOOLEAN|DOUBLE PRECISION|\{json\}|\{bytes\})(?: NOT NULL DEFAULT (?:'[^']*'|-?\d+|TRUE|FALSE))?$`)

	onlineIndex = regexp.MustCompile(`(?i)^CREATE INDEX \{concurrently\} IF NOT EXISTS \w+ ON \w+ `)
	inChunks    = regexp.MustCompile(`(?is)^(?:UPDATE \w+ SET|DELETE FROM \w+ WHERE) .* LIMIT (?P<limit>\d+)\)$`)

	contractions = regexp.MustCompile(`(?i)^(?:DROP TABLE \w+|ALTER TABLE \w+ DROP COLUMN \w+)$`)
	onlineDrop   = regexp.MustCompile(`(?i)^(?:DROP INDEX \{concurrently\} IF EXISTS \w+|CREATE UNIQUE INDEX \{concurrently\} IF NOT EXISTS \w+ ON \w+ .*)$`)
)

// safe says what is wrong with a migration: nothing if a program of the release
// before may run meanwhile. released are the releases there have been.
func safe(text string, released []string) []string {
	var wrong []string
	online := strings.HasPrefix(text, "-- online\n")
	fresh := map[string]bool{} // tables that the migration makes
	for _, s := range sqldb.Statements(text) {
		sql := strings.Join(strings.Fields(s.SQL), " ")
		complain := func(format string, args ...any) {
			wrong = append(wrong, fmt.Sprintf("%.80q ", sql)+fmt.Sprintf(format, args...))
		}
		size, err := s.Chunk()
		if err != nil {
			complain("%v", err)
		}
		switch {
		case size > 0:
			if limit := part(inChunks, sql, "limit"); !online || limit != fmt.Sprint(size) {
				complain("is marked to run in chunks of %d: it must be an UPDATE or DELETE of the rows that are not done yet, with LIMIT %d, in an online migration", size, size)
			}
		case online && onlineIndex.MatchString(sql):
		case !online && newTable.MatchString(sql):
			fresh[part(newTable, sql, "table")] = true
		case !online && (fresh[part(newIndex, sql, "table")] || fresh[part(newRows, sql, "table")]):
		case !online && newColumn.MatchString(sql):
		case online && onlineDrop.MatchString(sql), !online && contractions.MatchString(sql):
			if since := contracts(s); !slices.Contains(released, since) {
				complain("takes away from programs that run: mark it with -- contract: RELEASE, the first release in CHANGELOG.md that does without (have %q of %q)", since, released)
			}
		default:
			complain("may lock a table for long, or break the release before it, or not be repeated after a crash; see docs/adr/0012-expand-then-contract.md")
		}
	}
	return wrong
}

// part is what a named group matched, "" where the expression did not.
func part(e *regexp.Regexp, text, name string) string {
	if found := e.FindStringSubmatch(text); found != nil {
		return found[e.SubexpIndex(name)]
	}
	return ""
}

// contracts is the release that a contraction says does without.
func contracts(s sqldb.Statement) string {
	for _, m := range s.Marks {
		if since, ok := strings.CutPrefix(m, "contract: "); ok {
			return since
		}
	}
	return ""
}

// releases are those that the changelog tells of.
func releases(t *testing.T) (all []string) {
	t.Helper()
	for _, found := range regexp.MustCompile(`(?m)^## \[(\d+\.\d+\.\d+[^\]]*)\]`).FindAllStringSubmatch(read(t, "CHANGELOG.md"), -1) {
		all = append(all, found[1])
	}
	return all
}

func TestMigrationsLetThePreviousReleaseGoOn(t *testing.T) {
	t.Parallel()
	released := releases(t)
	for _, dir := range []string{"internal/schema", "chaos/testdata/next"} {
		files, err := filepath.Glob(root(dir) + "/*.sql")
		if err != nil || len(files) == 0 {
			t.Fatalf("%s has %d migrations: %v", dir, len(files), err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if name := filepath.Base(file); dir != "internal/schema" || name >= ruled {
				for _, w := range safe(string(text), released) {
					t.Errorf("%s: %s", path.Join(dir, name), w)
				}
			}
		}
	}
}

func TestUnsafeMigrationsAreNoticed(t *testing.T) {
	t.Parallel()
	released := []string{"0.2.0", "0.1.0"}
	for text, want := range map[string]int{
		"CREATE TABLE x (\n  k TEXT PRIMARY KEY, -- why; how\n  n BIGINT NOT NULL\n) {without_rowid};\nCREATE UNIQUE INDEX x_n ON x (n);\nINSERT INTO x (k, n) VALUES ('a', 1);":                              0,
		"ALTER TABLE events ADD COLUMN n BIGINT NOT NULL DEFAULT -1;\nALTER TABLE events ADD COLUMN t TEXT;\nALTER TABLE events ADD COLUMN b BOOLEAN NOT NULL DEFAULT FALSE":                                  0,
		"-- online\nCREATE INDEX {concurrently} IF NOT EXISTS events_n ON events (n) WHERE n > 0;\n-- in chunks of 500\nUPDATE events SET n = 1 WHERE id IN (SELECT id FROM events WHERE n < 0\n LIMIT 500);": 0,
		"-- contract: 0.1.0\nALTER TABLE bots DROP COLUMN url":                                        0,
		"-- online\n-- contract: 0.2.0\nDROP INDEX {concurrently} IF EXISTS events_n;":                0,
		"-- online\n-- contract: 0.2.0\nCREATE UNIQUE INDEX {concurrently} IF NOT EXISTS e ON e (n);": 0,

		"ALTER TABLE bots DROP COLUMN url":                                                                      1,
		"-- contract: 0.3.0\nDROP TABLE bots":                                                                   1, // it is not out yet
		"DROP TABLE bots; -- contract: 0.1.0":                                                                   1, // that is of the next statement
		"ALTER TABLE bots RENAME COLUMN url TO address":                                                         1,
		"ALTER TABLE bots RENAME TO robots":                                                                     1,
		"-- contract: 0.1.0\nALTER TABLE bots RENAME TO robots":                                                 1,
		"ALTER TABLE bots ALTER COLUMN url TYPE BIGINT":                                                         1,
		"ALTER TABLE bots ALTER COLUMN url SET NOT NULL":                                                        1,
		"ALTER TABLE bots ADD COLUMN n BIGINT NOT NULL":                                                         1,
		"ALTER TABLE bots ADD COLUMN n BIGINT NOT NULL DEFAULT random()":                                        1,
		"ALTER TABLE bots ADD COLUMN n BIGINT UNIQUE":                                                           1,
		"ALTER TABLE bots ADD COLUMN n BIGINT REFERENCES users (id)":                                            1,
		"ALTER TABLE bots ADD COLUMN n BIGINT, DROP COLUMN url":                                                 1,
		"CREATE INDEX bots_url ON bots (url)":                                                                   1,
		"CREATE INDEX {concurrently} IF NOT EXISTS bots_url ON bots (url)":                                      1, // in a transaction
		"-- online\nCREATE INDEX bots_url ON bots (url)":                                                        1,
		"-- online\nCREATE INDEX {concurrently} bots_url ON bots (url)":                                         1,
		"-- online\nCREATE UNIQUE INDEX {concurrently} IF NOT EXISTS bots_url ON bots (url)":                    1,
		"-- online\nALTER TABLE bots ADD COLUMN n BIGINT":                                                       1, // twice is an error
		"UPDATE bots SET url = ''":                                                                              1,
		"-- online\nUPDATE bots SET url = ''":                                                                   1,
		"-- online\n-- in chunks of 500\nUPDATE bots SET url = ''":                                              1,
		"-- online\n-- in chunks of 500\nUPDATE bots SET url = '' WHERE id IN (SELECT id FROM bots LIMIT 1000)": 1,
		"-- in chunks of 500\nDELETE FROM bots WHERE id IN (SELECT id FROM bots LIMIT 500)":                     1,
		"-- online\n-- in chunks of many\nDELETE FROM bots":                                                     2,
		"CREATE TABLE x (k TEXT);\nINSERT INTO x (k) SELECT id FROM bots;\nINSERT INTO bots (id) VALUES ('x')":  2,
		"LOCK TABLE bots": 1,
	} {
		if wrong := safe(text, released); len(wrong) != want {
			t.Errorf("%s\nhas %d faults, want %d: %q", text, len(wrong), want, wrong)
		}
	}
}

// The plan of SELECT * is another one when a column is added, and what a running
// program has prepared fails. Inside another query it does no harm.
func TestStatementsNameTheirColumns(t *testing.T) {
	t.Parallel()
	star := regexp.MustCompile(`(?i)(?:^|[^(])\b(?:SELECT|RETURNING) \*`)
	for _, f := range sources(t) {
		if f.test || isSuite(f.dir) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if text, ok := n.(*ast.BasicLit); ok && text.Kind == token.STRING && star.MatchString(text.Value) {
				t.Errorf("%s: name the columns; a migration may add one while this runs", where(text))
			}
			return true
		})
	}
}
