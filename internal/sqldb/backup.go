package sqldb

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"parley/internal/durable"
)

// backup copies the database under a name beside file, syncs the copy and links
// it into place: a file that bears the name is complete.
func (l *sqlite) backup(ctx context.Context, file string) error {
	if l.closed.Load() {
		return ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := os.Lstat(file); err == nil {
		return fmt.Errorf("backup: %w: %s", fs.ErrExist, file)
	}
	tmp := file + "." + rand.Text() + ".tmp"
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	err = l.vacuumInto(ctx, tmp)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Link(tmp, file) // unlike a rename it does not replace what came meanwhile
	}
	err = errors.Join(err, os.Remove(tmp))
	if err == nil {
		err = durable.SyncDir(filepath.Dir(file))
	}
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return nil
}

// vacuumInto reads in one transaction of a connection of its own, so readers and
// the writer go on.
func (l *sqlite) vacuumInto(ctx context.Context, file string) error {
	c, err := openLite(l.file, "")
	if err != nil {
		return err
	}
	stop := interruptOn(ctx, c)
	err = c.Script("VACUUM INTO '" + strings.ReplaceAll(file, "'", "''") + "'")
	stop()
	return errors.Join(interrupted(ctx, err), c.Close())
}
