package archtest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The map in the README names every package and nothing else.
func TestTheMapInTheReadmeIsTheTree(t *testing.T) {
	t.Parallel()
	listed := map[string]bool{}
	for line := range strings.Lines(section(t, "README.md", "map")) {
		dir, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if dir == "" || strings.HasPrefix(dir, "```") {
			continue
		}
		dir = strings.TrimSuffix(dir, "/")
		if listed[dir] {
			t.Errorf("the map names %s twice", dir)
		}
		listed[dir] = true
		if _, err := os.Stat(root(dir)); err != nil {
			t.Errorf("the map names %s, which does not exist", dir)
		}
	}
	for _, dir := range packages(t) {
		if !listed[dir] {
			t.Errorf("%s is missing from the map in README.md", dir)
		}
	}
}

var requirement = regexp.MustCompile(`^(?:require )?\t?([a-z0-9.-]+\.[a-z]+/\S+) v\S+$`)

func TestEveryDependencySaysWhy(t *testing.T) {
	t.Parallel()
	doc := read(t, "docs/dependencies.md")
	required := read(t, "go.mod")
	for line := range strings.Lines(required) {
		if m := requirement.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			if !strings.Contains(doc, "`"+m[1]+"`") {
				t.Errorf("docs/dependencies.md has no line for %s", m[1])
			}
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` ").FindAllStringSubmatch(doc, -1) {
		if !strings.Contains(required, "\t"+m[1]+" v") {
			t.Errorf("docs/dependencies.md explains %s, which go.mod does not require", m[1])
		}
	}
}

// A replace directive works in this checkout and nowhere else.
func TestGoModReplacesNothing(t *testing.T) {
	t.Parallel()
	for line := range strings.Lines(read(t, "go.mod")) {
		if strings.HasPrefix(strings.TrimSpace(line), "replace ") {
			t.Errorf("go.mod: %s", strings.TrimSpace(line))
		}
	}
}

func TestDecisionsAreNumberedAndDated(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(root("docs/adr/0*.md"))
	if err != nil || len(files) == 0 {
		t.Fatalf("docs/adr: %v, %v", files, err)
	}
	for i, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if name := filepath.Base(f); !strings.HasPrefix(name, fmt.Sprintf("%04d-", i+1)) {
			t.Errorf("%s: want number %04d", name, i+1)
		}
		for _, part := range []string{"# ", "Status: ", "Date: ", "## Context", "## Decision", "## Consequences"} {
			if !strings.Contains(string(text), part) {
				t.Errorf("%s: %q is missing", filepath.Base(f), part)
			}
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)#:\s]+)(?:#[^)]*)?\)`)

func TestLinksBetweenDocumentsHold(t *testing.T) {
	t.Parallel()
	err := walk(func(p string) error {
		if filepath.Ext(p) != ".md" {
			return nil
		}
		for _, m := range link.FindAllStringSubmatch(read(t, p), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(root(p)), m[1])); err != nil {
				t.Errorf("%s links to %s, which does not exist", p, m[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// section is the part of a document between <!-- name --> and <!-- end -->.
func section(t *testing.T, file, name string) string {
	t.Helper()
	_, rest, ok := strings.Cut(read(t, file), "<!-- "+name+" -->\n")
	text, _, closed := strings.Cut(rest, "<!-- end -->")
	if !ok || !closed {
		t.Fatalf("%s has no section between <!-- %s --> and <!-- end -->", file, name)
	}
	return text
}
