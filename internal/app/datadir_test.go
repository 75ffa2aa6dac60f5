package app

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestOneServerForADataDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	first, err := openData(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = openData(dir)
	locked, ok := errors.AsType[*LockedError](err)
	if !ok || locked.Server.PID != os.Getpid() {
		t.Fatalf("second server: got %v, want a LockedError with process %d", err, os.Getpid())
	}
	if err := first.announce(Server{PID: os.Getpid(), URL: "http://127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	s, running, err := FindServer(dir)
	if err != nil || !running || s.URL != "http://127.0.0.1:1" {
		t.Errorf("FindServer = %+v, %v, %v, want the running server", s, running, err)
	}
	if err := first.close(); err != nil {
		t.Fatal(err)
	}
	s, running, err = FindServer(dir)
	if err != nil || running || s.URL != "http://127.0.0.1:1" {
		t.Errorf("FindServer = %+v, %v, %v, want the address of the stopped server", s, running, err)
	}
	second, err := openData(dir)
	if err != nil {
		t.Fatalf("after the first server: %v", err)
	}
	if was, is := first.home(), second.home(); was != is {
		t.Errorf("the home of the directory was %q and is %q", was, is)
	}
	elsewhere := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(elsewhere, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(elsewhere, 0o700); err != nil {
		t.Fatal(err)
	}
	third, err := openData(elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	if third.home() == second.home() {
		t.Error("a copy of a directory has the same home")
	}
	if err := third.close(); err != nil {
		t.Error(err)
	}
	if err := second.close(); err != nil {
		t.Error(err)
	}
}

func TestADataDirectoryIsTheOwnersAlone(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		return // permissions are lists of access there
	}
	dir := filepath.Join(t.TempDir(), "data")
	d, err := openData(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{dir: 0o700, filepath.Join(dir, "lock"): 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v (%v), want %o", path, info.Mode(), err, want)
		}
	}
	if err := os.Chmod(dir, 0o770); err != nil {
		t.Fatal(err)
	}
	if _, err := openData(dir); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("a directory that others may change: got %v, want the command that helps", err)
	}
}

func TestADirectoryWithoutAServerSaysHowToStartOne(t *testing.T) {
	t.Parallel()
	if _, _, err := FindServer(t.TempDir()); !errors.Is(err, ErrNoServer) || !strings.Contains(err.Error(), "run parley dev") {
		t.Errorf("got %v", err)
	}
}

func TestCredentialsAreKeptForTheOwnerAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := ReadCredentials(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("without a file: got %v, want fs.ErrNotExist", err)
	}
	want := Credentials{"bp_pat_x", "wkspace_1", "bot_1"}
	if err := writeCredentials(dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := ReadCredentials(dir)
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	info, err := os.Stat(credentialsPath(dir))
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v (%v), want 600", info.Mode(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v (%v), want the file alone", entries, err)
	}
}
