package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"parley/internal/bus/natstest"
	"parley/internal/sqldb/sqldbtest"
)

// setup is what a test runs against: one server, or several that share a
// database behind a proxy.
type setup struct {
	*server // the first, which the command line is asked about
	nodes   []*server
	proxy   *proxy           // nil where there is one server
	wire    *natstest.Server // the same
}

// setups are what the tests run against, by name.
func setups() map[string]func(*testing.T) *setup {
	all := map[string]func(*testing.T) *setup{"sqlite": func(t *testing.T) *setup { return alone(t, "") }}
	if os.Getenv("PARLEY_TEST_DB") != "sqlite" {
		all["postgres"] = func(t *testing.T) *setup { return alone(t, sqldbtest.PostgresURL(t)) }
		all["cluster"] = cluster
	}
	return all
}

// alone starts one server on a database.
func alone(t *testing.T, database string) *setup {
	t.Helper()
	s := serve(t, "PARLEY_DATABASE_URL="+database)
	return &setup{server: s, nodes: []*server{s}}
}

// binary is PARLEY_TEST_BIN, or cmd/parley built once for all tests of this run.
var binary = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv("PARLEY_TEST_BIN"); bin != "" {
		return filepath.Abs(bin)
	}
	dir, err := os.MkdirTemp("", "parley-conformance-")
	if err != nil {
		return "", err
	}
	built = dir
	bin := filepath.Join(dir, "parley")
	build := exec.Command("go", "build", "-o", bin, "parley/cmd/parley")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v: %w\n%s", build.Args, err, out)
	}
	return bin, nil
})

var built string

func TestMain(m *testing.M) {
	code := m.Run()
	_ = os.RemoveAll(built) // a left-over in the temporary directory harms nobody
	os.Exit(code)
}

// server is one parley process over one data directory; it may be killed and
// started again.
type server struct {
	t    *testing.T
	bin  string
	addr string
	env  []string
	log  string
	cmd  *exec.Cmd
	gone chan struct{}
}

// serve starts `parley dev` on a fresh directory and ends it with the test.
func serve(t *testing.T, env ...string) *server {
	t.Helper()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &server{t: t, bin: bin, addr: freeAddr(t), log: filepath.Join(dir, "server.log")}
	s.env = append(os.Environ(), "PARLEY_ADDR="+s.addr, "PARLEY_DATA="+filepath.Join(dir, "data"), "PARLEY_DATABASE_URL=", "PARLEY_LOG_FORMAT=json")
	s.env = append(s.env, env...)
	t.Cleanup(func() {
		s.end()
		if t.Failed() {
			t.Logf("end of the server's log:\n%s", s.tail())
		}
	})
	s.start()
	return s
}

// start runs the process and returns when it is ready.
func (s *server) start() {
	s.t.Helper()
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.cmd = exec.Command(s.bin, "dev")
	s.cmd.Env, s.cmd.Stdout, s.cmd.Stderr = s.env, log, log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.gone = make(chan struct{})
	cmd, gone := s.cmd, s.gone
	go func() {
		_ = cmd.Wait() // being killed is how most of them end
		close(gone)
	}()
	s.ready()
}

func (s *server) ready() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		answer, err := http.Get("http://" + s.addr + "/readyz")
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-s.gone:
			s.t.Fatalf("parley ended before it was ready:\n%s", s.tail())
		case <-ctx.Done():
			s.t.Fatalf("parley is not ready: %v\n%s", err, s.tail())
		case <-tick.C:
		}
	}
}

// kill ends the process as a power cut would, as far as the process can tell.
func (s *server) kill() {
	s.t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		s.t.Fatalf("kill: %v", err)
	}
	<-s.gone
}

// end asks the process to stop and waits; one that does not stop fails the test.
func (s *server) end() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	select {
	case <-s.gone:
		return
	default:
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended in between
	select {
	case <-s.gone:
	case <-time.After(time.Minute):
		s.t.Error("parley did not end within a minute of SIGTERM")
		_ = s.cmd.Process.Kill() // the same
		<-s.gone
	}
}

// settings is what `parley env --json` prints.
type settings struct {
	APIURL      string `json:"BP_API_URL"`
	Token       string `json:"BP_TOKEN"`
	WorkspaceID string `json:"BP_WORKSPACE_ID"`
	BotID       string `json:"BP_BOT_ID"`
	ChatURL     string `json:"PARLEY_CHAT_API_URL"`
}

// settings asks the command line, as a script would.
func (s *server) settings() (text string, values settings) {
	s.t.Helper()
	cmd := exec.Command(s.bin, "env", "--json")
	cmd.Env = s.env
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("parley env --json: %v\n%s", err, stderr(err))
	}
	if err := json.Unmarshal(out, &values); err != nil {
		s.t.Fatalf("parley env --json printed %q: %v", out, err)
	}
	return string(out), values
}

func (s *server) tail() string {
	log, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	const enough = 8000
	if len(log) > enough {
		log = log[len(log)-enough:]
		log = log[bytes.IndexByte(log, '\n')+1:]
	}
	return string(log)
}

func stderr(err error) string {
	if e, ok := err.(*exec.ExitError); ok {
		return string(e.Stderr)
	}
	return ""
}

// freeAddr finds a port that is free now. It stays the same over restarts, so it
// lies below those that others are given meanwhile.
func freeAddr(t *testing.T) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 15_000+rand.IntN(15_000)))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return l.Addr().String()
	}
}
