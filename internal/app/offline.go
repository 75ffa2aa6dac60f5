package app

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"parley/internal/auth"
	"parley/internal/builtin/chatapi"
	"parley/internal/durable"
	"parley/internal/outbound"
	"parley/internal/schema"
	"parley/internal/sqldb"
)

// Offline opens the data of a server that does not run and calls fn with the
// handler of its APIs and a token that ends with fn. The data is locked
// meanwhile. Only if create is set is a database made where there is none, with
// an account and a workspace.
func Offline(ctx context.Context, cfg Config, create bool, fn func(ctx context.Context, h http.Handler, token string) error) (err error) {
	if err := checkDatabaseURL(cfg.DatabaseURL); err != nil {
		return err
	}
	if _, err := os.Stat(cfg.DatabasePath()); !create && cfg.DatabaseURL == "" && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s; run parley dev --data %s", ErrNoServer, cfg.Data, cfg.Data)
	}
	data, err := openData(cfg.Data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, data.close()) }()
	cfg.Roles = Roles{RoleAPI} // the rest is for the servers that come later
	a := &App{cfg: cfg, log: newLogger(cfg.LogTo, cfg.LogLevel, cfg.LogFormat), data: data, metrics: newMetrics(cfg), schema: schema.FS}
	core, err := openCore(ctx, a)
	if err != nil {
		return err
	}
	p, err := build(core)
	if err != nil {
		return errors.Join(err, core.close())
	}
	defer func() { err = errors.Join(err, p.close()) }()
	token, revoke, err := p.passingToken(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, revoke(context.WithoutCancel(ctx))) }()
	return fn(ctx, p.handler(), token)
}

// ChatKey is the key that signs the user keys of an installation of chat: its
// own encryption key, or the one that follows from the master key.
func ChatKey(cfg Config, webhookID, encryptionKey string) (string, error) {
	if encryptionKey != "" {
		return encryptionKey, nil
	}
	box, err := auth.LoadMasterKey(cfg.MasterKeyPath())
	if err != nil {
		return "", err
	}
	return chatapi.SigningKey(box, webhookID, ""), nil
}

// MasterKeyPath is where the master key lies.
func (c Config) MasterKeyPath() string {
	if c.MasterKeyFile != "" {
		return c.MasterKeyFile
	}
	return filepath.Join(c.Data, "master.key")
}

// DatabasePath is where the SQLite file lies.
func (c Config) DatabasePath() string { return filepath.Join(c.Data, "parley.db") }

// Outbound says what calls to bots, integrations and webhooks may reach.
func (c Config) Outbound() outbound.Config {
	return outbound.Config{AllowLoopback: c.Dev, Allow: c.AllowOutbound, UserAgent: "Parley/" + c.Version}
}

// Backup writes a consistent copy of the SQLite database and the master key
// into a new tar file that its owner alone may read, and returns its size. It
// works beside a running server: the copy is read in one snapshot.
func Backup(ctx context.Context, cfg Config, file string) (size int64, err error) {
	if cfg.DatabaseURL != "" {
		return 0, fmt.Errorf("the database is PostgreSQL: back it up with its own tools (pg_dump), and keep a copy of %s beside the dumps", cfg.MasterKeyPath())
	}
	if _, err := os.Stat(cfg.DatabasePath()); err != nil {
		return 0, fmt.Errorf("there is no database to back up: %w", err)
	}
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return 0, fmt.Errorf("%s exists; a backup never overwrites a file", file)
	}
	if err != nil {
		return 0, err
	}
	defer func() {
		if err = errors.Join(err, out.Close()); err != nil {
			err = errors.Join(err, os.Remove(file)) // half a backup is none
		}
	}()
	// The copy lies beside the result: a temporary directory may be small, or
	// on a disk that keeps secrets longer than one likes.
	tmp, err := os.MkdirTemp(filepath.Dir(file), ".parley-backup-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	dump := filepath.Join(tmp, "parley.db")
	if err := copyDatabase(ctx, cfg.DatabasePath(), dump); err != nil {
		return 0, err
	}
	t := tar.NewWriter(out)
	for _, path := range []string{dump, cfg.MasterKeyPath()} {
		name := filepath.Base(path)
		if path != dump {
			name = "master.key" // whatever the file is called here, this is where a restored server looks
		}
		if err := addFile(t, name, path); err != nil {
			return 0, fmt.Errorf("add %s: %w", path, err)
		}
	}
	if err := errors.Join(t.Close(), out.Sync(), durable.SyncDir(filepath.Dir(file))); err != nil {
		return 0, err
	}
	info, err := out.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func copyDatabase(ctx context.Context, from, to string) (err error) {
	from, err = filepath.Abs(from)
	if err != nil {
		return err
	}
	db, err := sqldb.Open(ctx, sqldb.Options{URL: "sqlite://" + from})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.Backup(ctx, to); err != nil {
		return fmt.Errorf("copy the database: %w", err)
	}
	return nil
}

func addFile(t *tar.Writer, name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: info.Size(), ModTime: time.Now(), Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err = io.Copy(t, f)
	return err
}
