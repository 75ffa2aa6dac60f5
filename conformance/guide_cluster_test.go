package conformance

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"parley/internal/bus/natstest"
	"parley/internal/parleytest"
	"parley/internal/sqldb/sqldbtest"
)

// TestTheGuideToSeveralServersRuns runs the lines of the guide's page as they
// are written, with a database, a NATS server and ports that are free here.
func TestTheGuideToSeveralServersRuns(t *testing.T) {
	sqldbtest.NeedsPostgres(t)
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatalf("%v: the page is run with curl; run .ci/need curl", err)
	}
	bin, err := parleytest.Binary()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../docs/guide/cluster.md")
	if err != nil {
		t.Fatal(err)
	}
	path, dir := t.TempDir(), t.TempDir()
	if err := os.Symlink(bin, filepath.Join(path, "parley")); err != nil {
		t.Fatal(err)
	}
	script := "set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		script += block[1]
	}
	for was, is := range map[string]string{
		"postgres://parley:secret@127.0.0.1:5432/parley?sslmode=disable": sqldbtest.PostgresURL(t),
		"nats://127.0.0.1:4222": natstest.Start(t).URL,
		"127.0.0.1:741":         "127.0.0.1:" + freeTen(t),
		"--port 7419":           "--port $PORT_OF_LISTEN",
	} {
		if !strings.Contains(script, was) {
			t.Fatalf("the page does not say %s", was)
		}
		script = strings.ReplaceAll(script, was, is)
	}
	port := regexp.MustCompile(`"url":"http://127\.0\.0\.1:(\d+)"`).FindStringSubmatch(script)
	if port == nil {
		t.Fatal("the page makes no bot")
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+path+string(os.PathListSeparator)+os.Getenv("PATH"), "PORT_OF_LISTEN="+port[1])
	out, err := cmd.CombinedOutput()
	if err != nil {
		for n := 1; n <= 3; n++ {
			log, _ := os.ReadFile(filepath.Join(dir, fmt.Sprintf("node%d.log", n))) // the more it says the better
			t.Logf("server %d:\n%s", n, log)
		}
		t.Fatalf("%v\n%s", err, out)
	}
	for _, said := range []string{"over the first", "without the second", "without the first", "all are back"} {
		// Once in the answer, once at the listener; the bot says nothing.
		if n := strings.Count(string(out), `"text":"`+said+`"`); n != 2 {
			t.Errorf("%q stands %d times in what the page prints, want 2", said, n)
		}
	}
	if n := strings.Count(string(out), `"finished":true`); n != 4 || strings.Contains(string(out), `"code":`) {
		t.Errorf("%d of 4 messages were finished:\n%s", n, out)
	}
	if !strings.Contains(string(out), "ok    NATS") || strings.Contains(string(out), "\nfail ") {
		t.Errorf("the doctor is not content:\n%s", out)
	}
}

// freeTen gives the beginning of ten neighbouring ports that are free, without
// the last digit.
func freeTen(t *testing.T) string {
	t.Helper()
next:
	for ten := 2000; ten < 3200; ten++ {
		for port := range 10 {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d%d", ten, port))
			if err != nil {
				continue next
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
		return fmt.Sprint(ten)
	}
	t.Fatal("no ten neighbouring ports are free")
	return ""
}
