package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/internal/auth"
	"parley/internal/bus"
	"parley/internal/durable"
	"parley/internal/lease"
	"parley/internal/sqldb"
)

// core is what every part stands on. This file is the only place that chooses
// between the engines.
type core struct {
	cfg     Config
	log     *slog.Logger
	url     string // how clients reach the server
	db      *sqldb.DB
	bus     bus.Bus
	lease   lease.Lease
	box     *auth.Box
	metrics prometheus.Registerer
	now     func() time.Time
	// exclusive says that no other process writes the database.
	exclusive bool
	// home tells the data directory of this server from those of others.
	home string
	// maxAge bounds what is believed of the database without looking again.
	maxAge time.Duration
}

// openCore opens the database, brings its schema up to date and finds the key.
func openCore(ctx context.Context, a *App) (*core, error) {
	c := &core{cfg: a.cfg, log: a.log, url: a.URL(), home: a.data.home(), metrics: a.metrics.registry, now: time.Now, bus: bus.NewLocal(), lease: lease.NewLocal()}
	url := a.cfg.DatabaseURL
	if url == "" {
		file, err := filepath.Abs(a.cfg.DatabasePath())
		if err != nil {
			return nil, err
		}
		url = "sqlite://" + file
	}
	a.doing("opening the database")
	db, err := sqldb.Open(ctx, sqldb.Options{URL: url, Log: a.log})
	if err != nil {
		return nil, err
	}
	c.db = db
	c.exclusive = db.Dialect() == sqldb.SQLite // the lock of the data directory sees to it
	if !c.exclusive {
		c.maxAge = time.Second
		if c.lease, err = lease.NewTable(lease.Config{DB: db, Node: nodeName(), Log: a.log}); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	if err := c.prepare(ctx, a); err != nil {
		return nil, errors.Join(err, c.close())
	}
	a.metrics.database(db)
	return c, nil
}

// nodeName says in the database who holds a lease.
func nodeName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unnamed"
	}
	return fmt.Sprintf("%s/%d", host, os.Getpid())
}

func (c *core) prepare(ctx context.Context, a *App) error {
	a.doing("bringing the database up to date")
	err := c.db.Migrate(ctx, a.schema, sqldb.MigrateOptions{BeforeMigrate: func(from, to int) error {
		return c.backupBefore(ctx, a.data, from, to)
	}})
	if err != nil {
		return err
	}
	if c.box, err = c.openBox(ctx); err != nil {
		return err
	}
	return c.join()
}

// join connects this server with the others on its database.
func (c *core) join() error {
	if c.cfg.NATSURL == "" {
		return nil
	}
	b, err := bus.NewNATS(bus.NATSConfig{URL: c.cfg.NATSURL, Name: nodeName(), Prefix: c.box.Fingerprint("bus"), Log: c.log})
	if err != nil {
		return err
	}
	c.bus = b // the local one has carried nothing yet
	return c.metrics.Register(busCollector{b})
}

func (c *core) close() error { return errors.Join(c.bus.Close(), c.db.Close()) }

// backupBefore copies the database before a migration changes it.
func (c *core) backupBefore(ctx context.Context, data *dataDir, from, to int) error {
	if c.db.Dialect() != sqldb.SQLite {
		c.log.Warn("the schema changes; PostgreSQL is backed up with its own tools", "from", from, "to", to)
		return nil
	}
	dir := data.file("backups")
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	file := filepath.Join(dir, fmt.Sprintf("parley-%04d-%s.db", from, c.now().UTC().Format("20060102T150405.000Z")))
	if err := c.db.Backup(ctx, file); err != nil {
		return fmt.Errorf("backup before the migration from %d to %d: %w", from, to, err)
	}
	c.log.Info("the schema changes; a copy of the database was made", "from", from, "to", to, "backup", file)
	return nil
}

// openBox finds the master key. It makes one for a database in which nothing is
// sealed yet, and refuses to go on without one where something is.
func (c *core) openBox(ctx context.Context) (*auth.Box, error) {
	path := c.cfg.MasterKeyPath()
	box, err := auth.LoadMasterKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return box, err
	}
	botID, err := anyBot(ctx, c.db)
	switch {
	case err != nil:
		return nil, err
	case botID != "":
		return nil, fmt.Errorf("secrets in the database are sealed with a master key that is missing: %s does not exist; put it back, it is in every backup", path)
	case c.cfg.MasterKeyFile != "":
		return nil, fmt.Errorf("--master-key-file %s does not exist; make one with: (umask 077; head -c 32 /dev/urandom | base64 > %s)", path, path)
	}
	return auth.CreateMasterKey(path)
}

// anyBot is the id of a bot, "" where there is none: bots have sealed secrets.
func anyBot(ctx context.Context, db *sqldb.DB) (string, error) {
	id, err := sqldb.Scalar[string](db.Reader(ctx), "SELECT id FROM bots ORDER BY id LIMIT 1")
	if errors.Is(err, sqldb.ErrNoRow) {
		return "", nil
	}
	return id, err
}
