//go:build unix

package pgserver_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"parley/internal/sqldb/sqldbtest"
	"parley/internal/sqldb/sqldbtest/pgserver"
)

const childEnv = "PARLEY_PGSERVER_CHILD"

func TestServer(t *testing.T) {
	sqldbtest.NeedsPostgres(t)
	s, err := pgserver.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := ask(t, s.URL, "SHOW data_directory")
	if got := ask(t, s.URL, "SELECT datcollate || ' ' || pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'postgres'"); got != "C UTF8" {
		t.Errorf("the cluster is made with %s, want C UTF8", got)
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	gone(t, s.URL, dir)
}

// TestKilledServer kills a server with sessions under way: no process of it is
// left, and the next one has what was written, at the same address.
func TestKilledServer(t *testing.T) {
	sqldbtest.NeedsPostgres(t)
	data := filepath.Join(t.TempDir(), "data")
	if err := os.Chmod(filepath.Dir(filepath.Dir(data)), 0o755); err != nil { // for the account of the server
		t.Fatal(err)
	}
	if err := pgserver.Init(t.Context(), data, "--data-checksums"); err != nil {
		t.Fatal(err)
	}
	s, err := pgserver.New(t.Context(), pgserver.Options{Dir: data, FSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	}()
	if got := ask(t, s.URL, "SELECT concat_ws(' ', current_setting('fsync'), current_setting('full_page_writes'), current_setting('data_checksums'))"); got != "on on on" {
		t.Errorf("fsync, full_page_writes and data_checksums are %s", got)
	}
	busy, err := pgx.Connect(t.Context(), s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close(t.Context())
	if _, err := busy.Exec(t.Context(), "CREATE TABLE kept AS SELECT 'all' AS n"); err != nil {
		t.Fatal(err)
	}
	for _, stop := range []func() error{s.Kill, s.End, s.Kill} {
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if _, err := pgx.Connect(t.Context(), s.URL); err == nil {
			t.Error("a server that was stopped answers")
		}
		if err := s.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := ask(t, s.URL, "SELECT n FROM kept"); got != "all" {
			t.Errorf("after a stop the table says %q", got)
		}
	}
	if err := busy.Ping(t.Context()); err == nil {
		t.Error("a session has outlived its server")
	}
}

// TestKilledStarter holds that nothing is left of a server whose starter was killed.
func TestKilledStarter(t *testing.T) {
	if os.Getenv(childEnv) != "" {
		s, err := pgserver.Start(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(s.URL)
		select {}
	}
	sqldbtest.NeedsPostgres(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledStarter$")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	url, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url = strings.TrimSpace(url)
	dir := ask(t, url, "SHOW data_directory")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	gone(t, url, dir)
}

func ask(t *testing.T, url, query string) (answer string) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	if err := c.QueryRow(t.Context(), query).Scan(&answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

// gone waits for the server and its directory to go.
func gone(t *testing.T, url, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, failed := pgx.Connect(ctx, url)
		if failed == nil {
			_ = c.Close(ctx) // it is only there to see
		}
		_, err := os.Stat(dir)
		if failed != nil && os.IsNotExist(err) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the server answers: %t, its directory: %v", failed == nil, err)
		}
	}
}
