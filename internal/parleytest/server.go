package parleytest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Server is one parley process over one data directory; it may be killed and
// started again.
type Server struct {
	Bin  string   // the program
	Addr string   // the same after every start
	Data string   // its data directory
	Env  []string // the environment of the process

	t    *testing.T
	log  string
	cmd  *exec.Cmd
	gone chan struct{}
}

// Serve starts `parley dev` on a fresh directory, with more in its environment, and
// ends it with the test. PARLEY_TEST_BIN there names another program than Binary. In
// PARLEY_DATA a star stands for what tells the servers of a test apart.
func Serve(t *testing.T, env ...string) *Server {
	t.Helper()
	bin, err := Binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &Server{t: t, Bin: bin, Addr: FreeAddr(t), Data: filepath.Join(dir, "data"), log: filepath.Join(dir, "server.log")}
	s.Env = append(os.Environ(), "PARLEY_ADDR="+s.Addr, "PARLEY_DATA="+s.Data, "PARLEY_DATABASE_URL=", "PARLEY_LOG_FORMAT=json")
	s.Env = append(s.Env, env...)
	for _, v := range env {
		if data, ok := strings.CutPrefix(v, "PARLEY_DATA="); ok {
			_, port, _ := net.SplitHostPort(s.Addr) // as FreeAddr makes them
			s.Data = strings.ReplaceAll(data, "*", port)
			s.Env = append(s.Env, "PARLEY_DATA="+s.Data)
		}
		if bin, ok := strings.CutPrefix(v, "PARLEY_TEST_BIN="); ok {
			s.Bin = bin
		}
	}
	t.Cleanup(func() {
		s.End()
		if t.Failed() {
			t.Logf("end of the server's log:\n%s", s.Tail())
		}
	})
	s.Start()
	return s
}

// Start runs the process and returns when it is ready.
func (s *Server) Start() {
	s.t.Helper()
	s.Launch()
	s.Ready()
}

// Launch runs the process.
func (s *Server) Launch() {
	s.t.Helper()
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.cmd = exec.Command(s.Bin, "dev")
	s.cmd.Env, s.cmd.Stdout, s.cmd.Stderr = s.Env, log, log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.gone = make(chan struct{})
	cmd, gone := s.cmd, s.gone
	go func() {
		_ = cmd.Wait() // being killed is how most of them end
		close(gone)
	}()
}

// Gone is closed when the process that was launched last has ended.
func (s *Server) Gone() <-chan struct{} { return s.gone }

// PID is the number of the process.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Ready returns when the process serves requests.
func (s *Server) Ready() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		answer, err := http.Get("http://" + s.Addr + "/readyz")
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-s.gone:
			s.t.Fatalf("parley ended before it was ready:\n%s", s.Tail())
		case <-ctx.Done():
			s.t.Fatalf("parley is not ready: %v\n%s", err, s.Tail())
		case <-tick.C:
		}
	}
}

// Kill ends the process as a power cut would, as far as the process can tell.
func (s *Server) Kill() {
	s.t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		s.t.Fatalf("kill: %v", err)
	}
	<-s.gone
}

// Drop does as Kill does, and may come when the process is ending by itself.
func (s *Server) Drop() {
	_ = s.cmd.Process.Kill() // it has ended
	<-s.gone
}

// End asks the process to stop and waits; one that does not stop fails the test.
func (s *Server) End() {
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

// Settings is what `parley env --json` prints.
type Settings struct {
	APIURL      string `json:"BP_API_URL"`
	Token       string `json:"BP_TOKEN"`
	WorkspaceID string `json:"BP_WORKSPACE_ID"`
	BotID       string `json:"BP_BOT_ID"`
	ChatURL     string `json:"PARLEY_CHAT_API_URL"`
}

// Settings asks the command line, as a script would.
func (s *Server) Settings() (text string, values Settings) {
	s.t.Helper()
	cmd := exec.Command(s.Bin, "env", "--json")
	cmd.Env = s.Env
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("parley env --json: %v\n%s", err, stderr(err))
	}
	if err := json.Unmarshal(out, &values); err != nil {
		s.t.Fatalf("parley env --json printed %q: %v", out, err)
	}
	return string(out), values
}

// Database is the URL of the database, for a look at it beside the process.
func (s *Server) Database() string {
	for _, v := range slices.Backward(s.Env) { // the last one counts
		if url, ok := strings.CutPrefix(v, "PARLEY_DATABASE_URL="); ok && url != "" {
			return url
		}
	}
	return filepath.Join(s.Data, "parley.db")
}

// Log opens what the process has logged.
func (s *Server) Log() io.ReadCloser {
	s.t.Helper()
	log, err := os.Open(s.log)
	if err != nil {
		s.t.Fatal(err)
	}
	return log
}

// Tail is the end of what the process has logged.
func (s *Server) Tail() string {
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

// FreeAddr finds a port that is free now. It stays the same over restarts, so it
// lies below those that others are given meanwhile.
func FreeAddr(t *testing.T) string {
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
