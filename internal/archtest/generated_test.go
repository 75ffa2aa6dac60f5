package archtest

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"parley/internal/app"
	"parley/spec"
)

var update = flag.Bool("update", false, "rewrite the generated parts of the documents")

// Parts of documents that are made from the code. `make generate` rewrites them.
func TestGeneratedTextIsCurrent(t *testing.T) {
	for _, g := range []struct {
		file, section string // section "" = the whole file
		text          string
	}{
		{"COMPATIBILITY.md", "", compatibility()},
		{"README.md", "families", families()},
		{"docs/guide/configuration.md", "options", options()},
	} {
		old, err := os.ReadFile(root(g.file))
		if err != nil && !*update {
			t.Fatal(err)
		}
		text := g.text
		if g.section != "" {
			head := "<!-- " + g.section + " -->\n"
			text = strings.Replace(string(old), head+section(t, g.file, g.section), head+text, 1)
		}
		if string(old) == text {
			continue
		}
		if !*update {
			t.Errorf("%s is out of date; run make generate", g.file)
			continue
		}
		if err := os.WriteFile(root(g.file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

var titles = map[string]string{
	"runtime": "Runtime API", "admin": "Admin API", "files": "Files API", "tables": "Tables API",
	"billing": "Billing API", "chat": "Chat API", spec.Own: "Parley's own",
}

// families counts how far each API is. What Parley adds does not count.
func families() string {
	var b strings.Builder
	b.WriteString("| API | done | planned | refused |\n|---|--:|--:|--:|\n")
	row := func(title, form string, of func(spec.Operation) bool) {
		n := map[spec.State]int{}
		for _, op := range spec.Operations() {
			if of(op) {
				n[op.State]++
			}
		}
		fmt.Fprintf(&b, form, title, n[spec.Done], n[spec.Planned], n[spec.Refused])
	}
	const plain, bold = "| %s | %d | %d | %d |\n", "| **%s** | **%d** | **%d** | **%d** |\n"
	for _, family := range spec.Families() {
		if family != spec.Own {
			row(titles[family], plain, func(op spec.Operation) bool { return op.Family == family })
		}
	}
	row("all", bold, spec.Operation.Published)
	row(titles[spec.Own], plain, func(op spec.Operation) bool { return !op.Published() })
	return b.String()
}

func compatibility() string {
	var b strings.Builder
	b.WriteString(`# Compatibility

Every operation of the published APIs and of Parley's own, and how far Parley is with it. This file is made from
` + "`spec/operations.txt`" + ` by ` + "`make generate`" + `; a test compares both with what the server really serves.

- **done**: served, with the published request, answer and errors.
- **planned**: answers the typed error ` + "`MethodNotFound`" + ` (405) that says so, until it is built.
- **refused**: answers the typed error ` + "`Forbidden`" + ` (403) with the reason, for good.

Where a served operation deliberately differs from the cloud, the code carries a ` + "`// Compat:`" + ` comment; ` + "`make compat`" + ` lists them.

`)
	b.WriteString(families())
	for _, family := range spec.Families() {
		fmt.Fprintf(&b, "\n## %s\n\n", titles[family])
		switch family {
		case "chat":
			b.WriteString("Paths hang under the door of one installation, `/{webhookId}`.\n\n")
		case spec.Own:
			b.WriteString("What no published API has, for those who operate a server.\n\n")
		}
		b.WriteString("| operation | request | success | state |\n|---|---|--:|---|\n")
		for _, op := range spec.Operations() {
			if op.Family != family {
				continue
			}
			state := string(op.State)
			if op.Reason != "" {
				state += ": " + op.Reason
			}
			fmt.Fprintf(&b, "| %s | `%s %s` | %d | %s |\n", op.Name, op.Method, op.Path, op.Status, state)
		}
	}
	return b.String()
}

func options() string {
	var b strings.Builder
	b.WriteString("| flag | variable | default | what it does |\n|---|---|---|---|\n")
	for _, o := range app.Options() {
		value := "none"
		if o.Default != "" {
			value = "`" + o.Default + "`"
		}
		fmt.Fprintf(&b, "| `--%s %s` | `%s` | %s | %s |\n", o.Name, o.Arg, o.Env(), value, o.Doc)
	}
	return b.String()
}
