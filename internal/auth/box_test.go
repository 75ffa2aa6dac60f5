package auth

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func testBox(t *testing.T, keys ...byte) *Box {
	t.Helper()
	var ks [][]byte
	for _, k := range keys {
		ks = append(ks, bytes.Repeat([]byte{k}, masterKeyBytes))
	}
	b, err := NewBox(ks...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBox(t *testing.T) {
	t.Parallel()
	b := testBox(t, 1)
	for _, plain := range []string{"", "x", strings.Repeat("long ", 9999)} {
		sealed := b.Seal([]byte(plain), "bot_1")
		if len(plain) > 8 && bytes.Contains(sealed, []byte(plain)) {
			t.Error("the plain text stands in the sealed one")
		}
		got, err := b.Open(sealed, "bot_1")
		if err != nil || string(got) != plain {
			t.Errorf("got %q, %v; want %q", got, err, plain)
		}
		if _, err := b.Open(sealed, "bot_2"); err == nil {
			t.Error("opened for another owner")
		}
	}
	if bytes.Equal(b.Seal([]byte("x"), "o"), b.Seal([]byte("x"), "o")) {
		t.Error("two seals of one text are equal")
	}
}

func TestBoxRefusesDamage(t *testing.T) {
	t.Parallel()
	b := testBox(t, 1)
	sealed := b.Seal([]byte("secret"), "o")
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if got, err := b.Open(bad, "o"); err == nil || got != nil {
			t.Errorf("byte %d changed and it opened: %q", i, got)
		}
		if got, err := b.Open(sealed[:i], "o"); err == nil || got != nil {
			t.Errorf("cut at %d and it opened: %q", i, got)
		}
	}
	if _, err := testBox(t, 2).Open(sealed, "o"); err == nil {
		t.Error("another key opened it")
	}
}

func TestBoxRotation(t *testing.T) {
	t.Parallel()
	old, rotated, fresh := testBox(t, 1), testBox(t, 2, 1), testBox(t, 2)
	for name, sealed := range map[string][]byte{"old": old.Seal([]byte("x"), "o"), "new": rotated.Seal([]byte("x"), "o")} {
		if got, err := rotated.Open(sealed, "o"); err != nil || string(got) != "x" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := fresh.Open(rotated.Seal([]byte("x"), "o"), "o"); err != nil {
		t.Error("the newest key did not seal")
	}
	if !bytes.Equal(old.InstallationKey("w"), rotated.InstallationKey("w")) {
		t.Error("user keys do not outlive a rotation")
	}
	if bytes.Equal(old.InstallationKey("w"), old.InstallationKey("v")) {
		t.Error("two installations share a key")
	}
}

func TestNewBoxChecksKeys(t *testing.T) {
	t.Parallel()
	if _, err := NewBox(); err == nil {
		t.Error("a box without a key")
	}
	if _, err := NewBox(make([]byte, 16)); err == nil {
		t.Error("a short key was taken")
	}
}

func TestMasterKeyFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "master.key")
	if _, err := LoadMasterKey(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a missing file: %v", err)
	}
	made, err := CreateMasterKey(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v; want mode 0600", info, err)
	}
	loaded, err := LoadMasterKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := loaded.Open(made.Seal([]byte("x"), "o"), "o"); err != nil || string(got) != "x" {
		t.Errorf("the loaded key is another one: %q, %v", got, err)
	}
	before, _ := os.ReadFile(path)
	if _, err := CreateMasterKey(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second creation: %v", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("a second creation changed the key")
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadMasterKey(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file that the group may read: %v", err)
	}
}

func TestMasterKeyFileContents(t *testing.T) {
	t.Parallel()
	key := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	older := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{8}, 32))
	for _, c := range []struct{ name, text, wrong string }{
		{"one", key + "\n", ""},
		{"no newline, spaces", "  " + key, ""},
		{"rotated", key + "\n\n" + older + "\n", ""},
		{"empty", "\n", "holds no key"},
		{"junk", "hello\n", "line 1 is not a key"},
		{"short", base64.StdEncoding.EncodeToString(make([]byte, 16)), "line 1 is not a key"},
		{"second bad", key + "\nSECRET", "line 2 is not a key"},
	} {
		path := filepath.Join(t.TempDir(), "k")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadMasterKey(path)
		switch {
		case c.wrong == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)):
			t.Errorf("%s: %v; want %q", c.name, err, c.wrong)
		case err != nil && strings.Contains(err.Error(), "SECRET"):
			t.Errorf("%s: the message shows the file: %v", c.name, err)
		}
	}
}

func TestFingerprintNamesTheOldestKey(t *testing.T) {
	t.Parallel()
	a, b := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	name := func(purpose string, keys ...[]byte) string {
		box, err := NewBox(keys...)
		if err != nil {
			t.Fatal(err)
		}
		return box.Fingerprint(purpose)
	}
	if name("bus", a) != name("bus", b, a) {
		t.Error("a rotation of the key changes it")
	}
	if name("bus", a) == name("bus", b) || name("bus", a) == name("x", a) {
		t.Error("two keys or two purposes have the same")
	}
}
