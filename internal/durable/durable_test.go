package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"parley/internal/durable"
)

// What the loss of power leaves is tested in internal/powertest, on a disk that
// forgets.

func TestFilesAreWholeAndTheirOwnersAlone(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b")
	for range 2 { // the second finds it
		if err := durable.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "f")
	if err := durable.Create(file, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := durable.Create(file, []byte("two")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a file that exists is made: %v", err)
	}
	holds(t, file, "one")
	if err := durable.Replace(file, []byte("three")); err != nil {
		t.Fatal(err)
	}
	holds(t, file, "three")
	if left, err := os.ReadDir(dir); len(left) != 1 || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestWhatIsInTheWayIsSaid(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "f")
	if err := durable.Create(file, nil); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"a directory over a file":    durable.MkdirAll(file, 0o700),
		"a directory below a file":   durable.MkdirAll(filepath.Join(file, "d"), 0o700),
		"a file below a file":        durable.Create(filepath.Join(file, "g"), nil),
		"a file that is a directory": durable.Replace(filepath.Dir(file), nil),
		"a directory that is none":   durable.SyncDir(file + ".gone"),
	} {
		if err == nil {
			t.Errorf("%s is made", what)
		}
	}
}

func holds(t *testing.T, file, want string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil || string(text) != want {
		t.Errorf("the file says %q, %v, want %q", text, err, want)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
}
