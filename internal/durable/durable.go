// Package durable makes files and directories that are on the disk, under their
// names, when it returns: a loss of power takes none of them back.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// MkdirAll makes a directory and those above it that are missing.
func MkdirAll(path string, perm fs.FileMode) error {
	path = filepath.Clean(path)
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	above := filepath.Dir(path)
	if above != path {
		if err := MkdirAll(above, perm); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, perm); err != nil {
		if info, again := os.Stat(path); again == nil && info.IsDir() {
			return nil // somebody else has made it meanwhile
		}
		return err
	}
	return SyncDir(above)
}

// Create writes a file that appears whole or not at all, readable by its owner
// alone. It never touches one that exists (fs.ErrExist).
func Create(path string, text []byte) error {
	tmp, err := beside(path, text)
	if err != nil {
		return err
	}
	err = os.Link(tmp, path) // unlike a rename it refuses to replace
	if errors.Is(err, fs.ErrExist) {
		err = fmt.Errorf("%s exists: %w", path, fs.ErrExist)
	}
	if err = errors.Join(err, os.Remove(tmp)); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// Replace does as Create does, and takes the place of a file that exists.
func Replace(path string, text []byte) error {
	tmp, err := beside(path, text)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return SyncDir(filepath.Dir(path))
}

// beside writes a file beside path, under a name of its own.
func beside(path string, text []byte) (tmp string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return "", err
	}
	if _, err = f.Write(text); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// SyncDir puts the names in a directory on the disk: of files that were made,
// renamed or removed there. What is in the files they sync themselves.
func SyncDir(path string) error {
	if runtime.GOOS == "windows" { // where directories cannot be synced
		return nil
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
