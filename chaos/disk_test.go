//go:build linux

package chaos

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"parley/internal/parleytest"
	"parley/internal/sqldb/sqldbtest/pgserver"
)

// TestDiskFull fills the disk of the database under load, again and again.
// Writes are refused with a typed error and change nothing, what is stored can be
// read, and everything goes on by itself when there is room again.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		asRoot(t)
		return
	}
	t.Run("sqlite", func(t *testing.T) {
		disk := smallDisk(t)
		s := parleytest.Alone(t, "", "PARLEY_DATA="+filepath.Join(disk, "data"))
		fillOften(t, s, disk, func() {
			s.Kill() // a start must cope with it too
			s.Start()
			withoutRoomToStart(t, s, disk)
		})
	})
	if os.Getenv("PARLEY_TEST_DB") == "sqlite" || os.Getenv(inNamespace) != "" {
		return
	}
	for name, start := range onPostgres {
		t.Run(name, func(t *testing.T) {
			disk := smallDisk(t)
			fillOften(t, start(t, databaseOn(t, disk)), disk, func() {})
		})
	}
}

// inNamespace tells this test that it is root in a namespace of its own, where
// PostgreSQL does not run.
const inNamespace = "PARLEY_CHAOS_NAMESPACE"

// asRoot runs the test once more in a namespace in which it may mount a disk:
// what a developer gets who is not root, with SQLite alone.
func asRoot(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if t.Log(string(out)); err != nil {
		t.Fatalf("%v: the test mounts a small disk; where user namespaces are not allowed, run it as root", err)
	}
	recorded.Store(true) // by the other process
}

// smallDisk mounts a disk that is soon full until the test ends. The log of SQLite
// alone may take 64 MB of it before it begins anew.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256m,mode=0755"); err != nil {
		t.Fatalf("mount a tmpfs: %v: the test needs a disk that it can fill; run it where root may mount", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// databaseOn starts a PostgreSQL server that keeps a database on a disk, and its
// log elsewhere, as one does who does not want to lose the server with the disk.
func databaseOn(t *testing.T, disk string) (database string) {
	t.Helper()
	s, err := pgserver.New(t.Context(), pgserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(disk, "tables")
	if err := errors.Join(os.Mkdir(dir, 0o700), s.Own(dir), reachable(dir)); err != nil {
		t.Fatal(err)
	}
	c, err := pgx.Connect(t.Context(), s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	for _, statement := range []string{
		"CREATE TABLESPACE small LOCATION '" + dir + "'",
		"CREATE DATABASE small TEMPLATE template0 TABLESPACE small",
	} {
		if _, err := c.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	return strings.Replace(s.URL, "/postgres?", "/small?", 1)
}

// reachable opens the directories above to an account that is not ours.
func reachable(dir string) error {
	for up := filepath.Dir(dir); len(up) > len(os.TempDir()); up = filepath.Dir(up) {
		if err := os.Chmod(up, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// fillOften fills the disk and empties it while people write and read.
func fillOften(t *testing.T, s *parleytest.Setup, disk string, whileFull func()) {
	t.Helper()
	l := begin(t, s)
	aside := newTalk(t, l.talks[0].base, len(l.talks)) // what is refused here is not asked for again
	times := rounds(2, 60)
	var longest time.Duration
	l.end(func() {
		for round := range times {
			<-time.After(500 * time.Millisecond)
			filler := fill(t, disk)
			aside.writesUntilRefused(t)
			l.readable(t)
			if round == 0 {
				whileFull()
				l.readable(t)
			}
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			longest = max(longest, aside.acknowledged(t))
		}
	})
	l.neverSaid(http.StatusInternalServerError)
	if long() && longest > 5*time.Second {
		t.Errorf("a message was acknowledged %v after there was room again, want 5 s at most", longest)
	}
	l.record("disk full, "+s.Name, fmt.Sprintf("filled %d times; messages were acknowledged %v after there was room, at the latest", times, longest.Round(time.Millisecond)))
}

// fill takes all the room there is on a disk.
func fill(t *testing.T, disk string) (file string) {
	t.Helper()
	f, err := os.CreateTemp(disk, "filler")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 64<<10); len(block) > 0; {
		if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
			block = block[:len(block)/2] // to the last byte
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return f.Name()
}

// withoutRoomToStart starts the server where not even the index of SQLite's log has
// room, which is made anew. It says what to do, and with that room it starts.
func withoutRoomToStart(t *testing.T, s *parleytest.Setup, disk string) {
	t.Helper()
	s.Kill()
	if err := os.Remove(filepath.Join(s.Data, "parley.db-shm")); err != nil {
		t.Fatal(err)
	}
	filler := fill(t, disk)
	s.Launch()
	<-s.Gone()
	if text := s.Tail(); !strings.Contains(text, "there is no room on the disk") {
		t.Errorf("a server that had no room to start says:\n%s", text)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	s.Start()
}

// writesUntilRefused writes until that is refused, for the reason that there is no room. What
// is left in the files of the database is used up first.
func (c *talk) writesUntilRefused(t *testing.T) {
	t.Helper()
	for n := 0; ; n++ {
		status, err := c.post(t, n)
		if err == nil {
			continue
		}
		if status != http.StatusTooManyRequests || !strings.Contains(err.Error(), "no room") {
			t.Fatalf("a write on a full disk is answered %d, %v; want 429 and the reason", status, err)
		}
		return
	}
}

// readable reads a conversation and begins a stream.
func (l *crowd) readable(t *testing.T) {
	t.Helper()
	c := l.talks[0]
	path := "/conversations/" + url.PathEscape(c.id)
	if _, err := c.call(t.Context(), "GET", path+"/messages", "", struct{}{}, &struct{}{}); err != nil {
		t.Errorf("read on a full disk: %v", err)
	}
	r, err := http.NewRequestWithContext(t.Context(), "GET", c.base+path+"/listen?lastEventId=0", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("x-user-key", c.key)
	answer, err := client.Do(r)
	if err != nil {
		t.Errorf("listen on a full disk: %v", err)
		return
	}
	defer answer.Body.Close()
	if _, err := io.ReadFull(answer.Body, make([]byte, 100)); err != nil || answer.StatusCode != http.StatusOK {
		t.Errorf("listen on a full disk: %s, %v", answer.Status, err)
	}
}
