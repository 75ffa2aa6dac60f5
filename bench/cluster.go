package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"

	"parley/internal/bus/natstest"
)

// Names of the databases in series and tables.
const (
	onSQLite   = "SQLite"
	onPostgres = "PostgreSQL"
)

// databaseServer is the PostgreSQL server of a run, with a database for each that asks.
type databaseServer struct {
	url  string
	pid  int // of its first process
	made int
}

// ample are the settings under which PostgreSQL is measured: it has memory for the
// pages it is asked for all the time, and writes no checkpoints because of the filling.
var ample = []string{"shared_buffers=1GB", "max_wal_size=8GB"}

// database makes an empty database on the PostgreSQL server of the run.
func (b *bench) database(ctx context.Context) (string, error) {
	if b.pg == nil {
		if err := b.startPostgres(ctx); err != nil {
			return "", err
		}
	}
	b.pg.made++
	name := fmt.Sprintf("bench%d", b.pg.made)
	if err := execute(ctx, b.pg.url, "CREATE DATABASE "+name+" TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'"); err != nil {
		return "", err
	}
	u, err := url.Parse(b.pg.url)
	if err != nil {
		return "", err
	}
	u.Path = "/" + name
	return u.String(), nil
}

func (b *bench) startPostgres(ctx context.Context) error {
	at, stop, err := postgres(ctx, true, ample...)
	if err != nil {
		return err
	}
	b.later(stop)
	c, err := pgx.Connect(ctx, at)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	var session int
	if err := c.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&session); err != nil {
		return err
	}
	s, err := readStat(session)
	if err != nil {
		return err
	}
	b.pg = &databaseServer{url: at, pid: s.parent}
	return c.QueryRow(ctx, "SELECT 'PostgreSQL ' || current_setting('server_version')").Scan(&b.results.postgres)
}

// execute runs one statement outside a transaction.
func execute(ctx context.Context, at, text string) error {
	c, err := pgx.Connect(ctx, at)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, text)
	return err
}

// scalar reads one number.
func scalar(ctx context.Context, at, text string) (n int64, err error) {
	c, err := pgx.Connect(ctx, at)
	if err != nil {
		return 0, err
	}
	defer c.Close(ctx)
	return n, c.QueryRow(ctx, text).Scan(&n)
}

// at starts a server on a database of its own kind: an engine by its name.
func (b *bench) at(ctx context.Context, engine, name string) (*parley, error) {
	name = name + "-" + strings.ToLower(engine)
	if engine == onSQLite {
		return b.start(ctx, name)
	}
	database, err := b.database(ctx)
	if err != nil {
		return nil, err
	}
	return b.startOn(ctx, name, database)
}

// watch are the processes that work for a server.
func (b *bench) watch(nodes ...*parley) watched {
	var w watched
	for _, p := range nodes {
		w.nodes = append(w.nodes, p.cmd.Process.Pid)
		if p.database != "" {
			w.database = b.pg.pid
		}
		if p.wire != nil {
			w.wire = p.wire.pid
		}
	}
	return w
}

// wireChild is the name of the child that is a NATS server.
const wireChild = "nats"

// serveWire runs a NATS server and prints where, until standard input ends.
func serveWire() error {
	s, err := natstest.New()
	if err != nil {
		return err
	}
	fmt.Println(s.URL)
	_, _ = io.Copy(io.Discard, os.Stdin) // the parent is gone or done, however it says so
	s.Stop()
	os.Exit(0)
	return nil
}

// cluster prepares n servers on one PostgreSQL database and a NATS server. The
// first runs when it returns; the others are started where they are measured.
func (b *bench) cluster(ctx context.Context, name string, n int) ([]*parley, error) {
	wire, err := startChild(b, wireChild)
	if err != nil {
		return nil, err
	}
	database, err := b.database(ctx)
	if err != nil {
		return nil, err
	}
	key := filepath.Join(b.dir, name+".key")
	secret := make([]byte, 32)
	rand.Read(secret) // never fails
	if err := os.WriteFile(key, []byte(base64.StdEncoding.EncodeToString(secret)+"\n"), 0o600); err != nil {
		return nil, err
	}
	bin, err := b.binary(ctx)
	if err != nil {
		return nil, err
	}
	nodes := make([]*parley, n)
	for i := range nodes {
		addr, err := freeAddr()
		if err != nil {
			return nil, err
		}
		nodes[i] = &parley{bin: bin, dir: filepath.Join(b.dir, fmt.Sprintf("%s%d", name, i+1)), addr: addr, database: database, wire: wire}
		nodes[i].env = []string{"PARLEY_NATS_URL=" + wire.addr, "PARLEY_MASTER_KEY_FILE=" + key, "PARLEY_PUBLIC_URL=http://" + nodes[0].addr}
		b.later(nodes[i].end)
	}
	if _, err := nodes[0].run(ctx); err != nil {
		return nil, err
	}
	return nodes, nodes[0].ask()
}

// endAll stops servers.
func endAll(nodes []*parley) error {
	var errs []error
	for _, p := range nodes {
		errs = append(errs, p.end())
	}
	return errors.Join(errs...)
}
