package archtest

import (
	"go/ast"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Files that may start a goroutine with a bare go statement: each waits for
// what it starts. Everything else uses a group.
var starters = map[string]string{}

// Packages that may read the clock. The rest is given a Now by app, so that
// tests set the time.
var clocks = map[string]string{
	"internal/id":       "an id carries the time it was made",
	"internal/outbound": "connections are idle in real time",
	"internal/sqldb":    "it measures commits and waits for a real server",
	"internal/app":      "start-up and shutdown are measured, not simulated",
	"internal/doctor":   "it compares clocks, and runs once",
	"cmd/parley":        "a command runs once, in real time",
	"bench":             "measuring is what it does",
}

func TestEveryPackageIntroducesItself(t *testing.T) {
	t.Parallel()
	docs := map[string][]string{}
	for _, dir := range packages(t) {
		docs[dir] = nil
	}
	for _, f := range sources(t) {
		if f.ast.Doc != nil && !strings.HasSuffix(f.ast.Name.Name, "_test") {
			docs[f.dir] = append(docs[f.dir], f.path)
		}
	}
	for dir, files := range docs {
		if len(files) != 1 {
			t.Errorf("%s has %d package comments %v, want exactly one", dir, len(files), files)
		}
	}
}

func TestTestsDoNotSleep(t *testing.T) {
	t.Parallel()
	for _, f := range sources(t) {
		if f.test || isSuite(f.dir) {
			f.calls("time", "Sleep", func(n ast.Node) {
				t.Errorf("%s: a test that sleeps hopes; wait for a signal or use testing/synctest", where(n))
			})
		}
	}
}

// Files that may leave a test out.
var skippers = map[string]string{
	"internal/sqldb/sqldbtest/sqldbtest.go": "make quick asks for SQLite alone, in so many words",
}

func TestTestsDoNotSkip(t *testing.T) {
	t.Parallel()
	for _, f := range sources(t) {
		if _, ok := skippers[f.path]; ok || !f.test && !isSuite(f.dir) {
			continue
		}
		for _, tb := range []string{"t", "b", "f", "tb"} {
			for _, name := range []string{"Skip", "Skipf", "SkipNow"} {
				ast.Inspect(f.ast, func(n ast.Node) bool {
					if e, ok := n.(ast.Expr); ok && selects(e, tb, name) {
						t.Errorf("%s: a skipped test passes nothing; fail with the command that helps", where(n))
					}
					return true
				})
			}
		}
	}
}

func TestGoroutinesAreWaitedFor(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	for _, f := range sources(t) {
		if f.test || isSuite(f.dir) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if _, ok := n.(*ast.GoStmt); ok {
				used[f.path] = true
				if _, ok := starters[f.path]; !ok {
					t.Errorf("%s: a bare go statement; use a group that is waited for, or list the file with its reason", where(n))
				}
			}
			return true
		})
	}
	for file := range starters {
		if !used[file] {
			t.Errorf("%s is listed as starting goroutines and starts none", file)
		}
	}
}

func TestTheClockIsGivenNotRead(t *testing.T) {
	t.Parallel()
	for _, f := range sources(t) {
		if _, ok := clocks[f.dir]; ok || f.test || isSuite(f.dir) {
			continue
		}
		f.calls("time", "Now", func(n ast.Node) {
			t.Errorf("%s: %s reads the clock; take a Now function, or list the package with its reason", where(n), f.dir)
		})
	}
}

var (
	todo   = regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)
	issued = regexp.MustCompile(`^TODO\(#\d+\): \S`)
)

func TestTodosNameAnIssue(t *testing.T) {
	t.Parallel()
	for _, f := range sources(t) {
		if f.dir == "internal/archtest" {
			continue
		}
		for _, group := range f.ast.Comments {
			for _, c := range group.List {
				if at := todo.FindStringIndex(c.Text); at != nil && !issued.MatchString(c.Text[at[0]:]) {
					t.Errorf("%s: write TODO(#issue): …, or do it", where(c))
				}
			}
		}
	}
}

// selections visits every x.name in f, whatever x is.
func (f source) selections(name string, visit func(at string)) {
	var at []string
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == name {
			at = append(at, where(sel.Sel))
		}
		return true
	})
	for _, a := range slices.Compact(at) {
		visit(a)
	}
}
