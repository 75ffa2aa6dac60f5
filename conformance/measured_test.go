package conformance

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
)

// record appends to the file that PARLEY_MEASURED names, RELIABILITY.md by its
// path from here, what a load has shown. A test that failed shows nothing.
func (l *load) record(test, figures string) {
	l.t.Helper()
	acknowledged := 0
	for _, c := range l.talks {
		acknowledged += len(c.written)
	}
	figures += fmt.Sprintf("; %d messages acknowledged, 0 lost, doubled or out of order, all answered once and heard once", acknowledged)
	l.t.Log(figures)
	if file := os.Getenv("PARLEY_MEASURED"); file != "" && !l.t.Failed() {
		measured(l.t, file, test, figures)
	}
}

func measured(t *testing.T, file, test, figures string) {
	t.Helper()
	commit, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		t.Fatalf("git rev-parse: %v: figures are of a commit", err)
	}
	what := strings.TrimSpace(string(commit))
	// The figures before these are no change.
	if changed, err := exec.Command("git", "status", "--porcelain", "--", ":(top,exclude)RELIABILITY.md").Output(); err != nil || len(changed) > 0 {
		what += ", changed"
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(f, "| %s | %s | %s | %s | %s |\n", time.Now().UTC().Format(time.DateOnly), what, machine(), test, figures)
	if closed := f.Close(); err != nil || closed != nil {
		t.Fatal(err, closed)
	}
}

// machine says in a few words what the figures are of.
func machine() string {
	name := runtime.GOARCH
	info, _ := os.ReadFile("/proc/cpuinfo") // elsewhere the architecture has to do
	for line := range strings.Lines(string(info)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			name = strings.TrimSpace(value)
			break
		}
	}
	return fmt.Sprintf("%s, %d cores, %s", name, runtime.NumCPU(), runtime.GOOS)
}
