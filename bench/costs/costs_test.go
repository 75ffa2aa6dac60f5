package costs

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestATableIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	s := Set{}
	for i, c := range Known() {
		s[c.Name] = float64(i) + 0.5
	}
	text := "# Measured\n\n| cost | value |\n|---|--:|\n| `turn.sqlite` | 9 |\n\n## Costs\n\n" + s.Table() + "\nMore text.\n\n| `turn.sqlite` | 7 | µs | of another table |\n"
	got, err := Read(text)
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, s) {
		t.Errorf("read %v, want %v", got, s)
	}
}

func TestTablesThatAreNone(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no table":        "# Measured\n",
		"no number":       header + "| `turn.sqlite` | many | µs | x |\n",
		"an unknown cost": header + "| `turn.oracle` | 1 | µs | x |\n",
		"below nothing":   header + "| `turn.sqlite` | -1 | µs | x |\n",
		"not finite":      header + "| `turn.sqlite` | NaN | µs | x |\n",
	} {
		if s, err := Read(text); err == nil {
			t.Errorf("%s: read %v", name, s)
		}
	}
}

var update = flag.Bool("update", false, "take the values of bench/SCALE.md over")

// A value in the table of costs.go: the last member of its line.
var value = regexp.MustCompile(`(?m)^(\t\{.*", )([0-9.]+)\},$`)

// What the calculator reckons with is what the last run of make bench-scale has measured.
func TestGeneratedCostsAreThoseOfTheLastRun(t *testing.T) {
	text, err := os.ReadFile("../SCALE.md")
	if err != nil {
		t.Fatal(err)
	}
	measured, err := Read(string(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range Known() {
		got, ok := measured[c.Name]
		if !ok || got <= 0 {
			t.Fatalf("bench/SCALE.md has no %s, or %v", c.Name, got)
		}
		if got != c.Value && !*update {
			t.Errorf("%s is %v here and %v in bench/SCALE.md; run make generate", c.Name, c.Value, got)
		}
		if c.What == "" || strings.Contains(c.What, "|") {
			t.Errorf("%s says %q of itself", c.Name, c.What)
		}
	}
	if !*update {
		return
	}
	source, err := os.ReadFile("costs.go")
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	source = value.ReplaceAllFunc(source, func(line []byte) []byte {
		head := value.FindSubmatch(line)[1]
		i++
		return append(bytes.Clone(head), digits(measured[known[i-1].Name])+"},"...)
	})
	if i != len(known) {
		t.Fatalf("costs.go has %d values, of %d costs", i, len(known))
	}
	if err := os.WriteFile("costs.go", source, 0o644); err != nil {
		t.Fatal(err)
	}
}
