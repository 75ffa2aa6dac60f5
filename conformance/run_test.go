package conformance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"parley/internal/parleytest"
	"parley/spec"
)

var (
	update = flag.Bool("update", false, "add the cases that pass to passing.txt")
	only   = flag.String("only", "", "run the suites whose file name contains this, and do not compare with passing.txt")
)

const list = "passing.txt"

func TestMain(m *testing.M) { parleytest.Main(m) }

// TestOfficialClients runs every suite of tests/ on each database.
func TestOfficialClients(t *testing.T) {
	node(t)
	install(t)
	ran := map[string]bool{}
	parleytest.Each(t, func(t *testing.T, s *parleytest.Setup) {
		env, _ := s.Settings()
		r := run(t, env)
		for op, well := range r.exercised {
			ran[op] = ran[op] || well
		}
		r.compare(t)
	})
	report(t, ran)
}

// node fails with the command that helps where Node or npm is missing or old.
func node(t *testing.T) {
	t.Helper()
	const help = "the conformance suite needs Node 20 or later with npm; run .ci/need node, or install it from https://nodejs.org"
	out, err := exec.Command("node", "--version").Output()
	if err != nil {
		t.Fatalf("node: %v: %s", err, help)
	}
	version := strings.TrimSpace(string(out))
	major, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	if n, err := strconv.Atoi(major); err != nil || n < 20 {
		t.Fatalf("node is %s: %s", version, help)
	}
	if _, err := exec.LookPath("npm"); err != nil {
		t.Fatalf("npm: %v: %s", err, help)
	}
}

// install brings node_modules to what package-lock.json says.
func install(t *testing.T) {
	t.Helper()
	if fresh(t) {
		return
	}
	cmd := exec.Command("npm", "ci", "--no-audit", "--no-fund")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
}

type lock struct {
	Packages map[string]struct {
		Version   string `json:"version"`
		Integrity string `json:"integrity"`
		Optional  bool   `json:"optional"`
	} `json:"packages"`
}

// fresh compares what is installed with what should be.
func fresh(t *testing.T) bool {
	t.Helper()
	var want, have lock
	text, err := os.ReadFile("package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatalf("package-lock.json: %v", err)
	}
	text, err = os.ReadFile(filepath.Join("node_modules", ".package-lock.json"))
	if err != nil || json.Unmarshal(text, &have) != nil {
		return false
	}
	for path, p := range want.Packages {
		if h, ok := have.Packages[path]; path != "" && !p.Optional && (!ok || h.Version != p.Version || h.Integrity != p.Integrity) {
			return false
		}
	}
	return true
}

// results is what one run of the suites showed.
type results struct {
	passed    map[string]bool   // by case
	failed    map[string]string // reason by case
	exercised map[string]bool   // by "family operation": true when an official client got what it asked for, false for errors alone
	problems  []string          // answers that were not as published
}

func run(t *testing.T, env string) results {
	t.Helper()
	suites, err := filepath.Glob(filepath.Join("tests", "*"+*only+"*.test.mjs"))
	if err != nil || len(suites) == 0 {
		t.Fatalf("no suites in tests: %v", err)
	}
	dir := t.TempDir()
	cases, records := filepath.Join(dir, "cases.ndjson"), filepath.Join(dir, "records")
	args := []string{
		"--test", "--test-concurrency=2",
		"--test-reporter=spec", "--test-reporter-destination=stdout",
		"--test-reporter=./lib/reporter.mjs", "--test-reporter-destination=" + cases,
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", append(args, suites...)...)
	// The suites and their bots are children of node: they go with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Env = append(os.Environ(), "PARLEY_ENV="+env, "PARLEY_RECORD_DIR="+records)
	out, err := cmd.CombinedOutput()
	r := results{passed: map[string]bool{}, failed: map[string]string{}, exercised: map[string]bool{}}
	r.readCases(t, cases)
	r.readRecords(t, records)
	if len(r.passed)+len(r.failed) == 0 {
		t.Fatalf("node ran no case: %v\n%s", err, out)
	}
	if len(r.failed) > 0 {
		t.Logf("%s", failures(out))
	}
	return r
}

// failures is the part of the reporter's text that tells of them.
func failures(out []byte) []byte {
	if i := bytes.Index(out, []byte("failing tests:")); i >= 0 {
		out = out[i:]
	}
	const enough = 40_000
	return out[:min(len(out), enough)]
}

func (r *results) readCases(t *testing.T, file string) {
	t.Helper()
	lines(t, file, func(line []byte) error {
		var c struct {
			Name   string `json:"name"`
			Passed bool   `json:"passed"`
			Error  string `json:"error"`
		}
		if err := json.Unmarshal(line, &c); err != nil {
			return err
		}
		if c.Passed {
			r.passed[c.Name] = true
		} else {
			r.failed[c.Name] = c.Error
		}
		return nil
	})
}

func (r *results) readRecords(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		lines(t, f, func(line []byte) error {
			var l struct {
				Op      string `json:"op"`
				Client  string `json:"client"`
				Status  int    `json:"status"`
				Problem string `json:"problem"`
			}
			if err := json.Unmarshal(line, &l); err != nil {
				return err
			}
			if l.Problem != "" && !slices.Contains(r.problems, l.Problem) {
				r.problems = append(r.problems, l.Problem)
			}
			if l.Op != "" && l.Client == "official" {
				r.exercised[l.Op] = r.exercised[l.Op] || l.Status < 400
			}
			return nil
		})
	}
}

// compare holds the run against passing.txt.
func (r *results) compare(t *testing.T) {
	t.Helper()
	for _, p := range r.problems {
		t.Errorf("not as published: %s", p)
	}
	if *only != "" {
		for name, reason := range r.failed {
			t.Errorf("failed: %s: %s", name, reason)
		}
		return
	}
	listed := readList(t)
	if *update {
		listed = writeList(t, listed, r.passed)
	}
	for _, name := range listed {
		reason, failed := r.failed[name]
		switch {
		case failed:
			t.Errorf("failed: %s: %s", name, reason)
		case !r.passed[name]:
			t.Errorf("did not run: %s (%s only grows)", name, list)
		}
	}
	for name := range r.passed {
		if !slices.Contains(listed, name) {
			t.Errorf("passes and is not in %s; run go test ./conformance -update: %s", list, name)
		}
	}
	for name, reason := range r.failed {
		if strings.HasSuffix(name, "(the file)") {
			t.Errorf("failed: %s: %s", name, reason)
		} else if !slices.Contains(listed, name) {
			t.Logf("does not pass yet: %s: %s", name, reason)
		}
	}
	t.Logf("%d cases passed, %d failed", len(r.passed), len(r.failed))
}

func readList(t *testing.T) []string {
	t.Helper()
	var names []string
	lines(t, list, func(line []byte) error {
		names = append(names, string(line))
		return nil
	})
	return names
}

func writeList(t *testing.T, listed []string, passed map[string]bool) []string {
	t.Helper()
	listed = append(listed, slices.Collect(maps.Keys(passed))...)
	slices.Sort(listed)
	listed = slices.Compact(listed)
	if err := os.WriteFile(list, []byte(strings.Join(listed, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return listed
}

// report counts the operations that did for the official clients what they asked for.
func report(t *testing.T, exercised map[string]bool) {
	t.Helper()
	n, missing := map[bool]int{}, []string{}
	all, chat := 0, 0
	for _, op := range spec.Operations() {
		if !op.Published() {
			continue // official clients do not know it
		}
		all++
		well, asked := exercised[op.Family+" "+op.Name]
		if op.Family == "chat" {
			chat++
		}
		if well {
			n[op.Family == "chat"]++
		}
		if !asked && op.State == spec.Done && *only == "" {
			missing = append(missing, op.Family+" "+op.Name)
		}
	}
	t.Logf("%d of %d+%d operations exercised by the official clients (%d+%d)", n[true]+n[false], all-chat, chat, n[false], n[true])
	if len(exercised) > 0 && len(missing) > 0 {
		t.Errorf("served, and not exercised by any official client: %s", strings.Join(missing, ", "))
	}
}

// lines visits the lines of a file; one that does not exist has none.
func lines(t *testing.T, file string, visit func(line []byte) error) {
	t.Helper()
	f, err := os.Open(file)
	if os.IsNotExist(err) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	scanner := bufio.NewScanner(f)
	scanner.Buffer(nil, 16<<20)
	for scanner.Scan() {
		if len(scanner.Bytes()) == 0 {
			continue
		}
		if err := visit(scanner.Bytes()); err != nil {
			t.Fatal(fmt.Errorf("%s: %w: %s", file, err, scanner.Bytes()))
		}
	}
	if err := scanner.Err(); err != nil {
		t.Fatal(err)
	}
}
