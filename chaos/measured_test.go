package chaos

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"parley/internal/parleytest"
)

func TestMain(m *testing.M) {
	parleytest.Main(m, func() error {
		if long() && !recorded.Load() {
			return errors.New("no long test has run to its end; make chaos lists them, and most know sqlite, postgres and cluster")
		}
		return nil
	})
}

// recorded says that a test has told what it has shown.
var recorded atomic.Bool

// long reports whether a run is long, and has the machine to itself: times and
// memory mean something then.
func long() bool { return os.Getenv("PARLEY_CHAOS") == "long" }

// rounds is how often a test does what it does. PARLEY_ROUNDS shortens a long run.
func rounds(short, often int) int {
	if !long() {
		return short
	}
	if n, err := strconv.Atoi(os.Getenv("PARLEY_ROUNDS")); err == nil {
		return n
	}
	return often
}

// record says what a test has shown, and appends it to the file that
// PARLEY_MEASURED names: RELIABILITY.md, by its path from here. A test that failed
// shows nothing.
func record(t *testing.T, test, figures string) {
	t.Helper()
	t.Log(figures)
	recorded.Store(true)
	if file := os.Getenv("PARLEY_MEASURED"); file != "" && !t.Failed() {
		measured(t, file, test, figures)
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
