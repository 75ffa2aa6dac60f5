package sqldb_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"parley/internal/sqldb"
)

// TestFailedSync puts /dev/null in the place of the log, which takes writes and
// cannot be synced. The process must end rather than confirm anything more.
func TestFailedSync(t *testing.T) {
	t.Parallel()
	if file := os.Getenv(childEnv); file != "" {
		writeToDevNull(t, file)
		return
	}
	cmd, out := child(t, "TestFailedSync", filepath.Join(t.TempDir(), "x.db"))
	said, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 1 {
		t.Errorf("the child ended with %v, want exit status 1", err)
	}
	if got := string(said); got != "good\n" {
		t.Errorf("the child said %q, want only good", got)
	}
}

func writeToDevNull(t *testing.T, file string) {
	db, err := sqldb.Open(t.Context(), sqldb.Options{URL: file})
	if err != nil {
		t.Fatal(err)
	}
	do(t, db, counters)
	fmt.Println("good")
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if target, _ := os.Readlink("/proc/self/fd/" + fd.Name()); target == file+"-wal" {
			var n int
			if _, err := fmt.Sscan(fd.Name(), &n); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Dup3(int(null.Fd()), n, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			if err := db.Write(context.Background(), insert(fmt.Sprint(i), i)); err == nil {
				fmt.Println("confirmed", i)
			}
		})
	}
	wg.Wait()
	fmt.Println("survived")
}
