//go:build linux

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"parley/internal/parleytest"
	"parley/internal/powertest"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
	"parley/internal/sqldb/sqldbtest/pgserver"
)

// TestPowerLoss takes the power away from a whole installation at random moments,
// from the servers and the database at once, and starts it again on what the disk
// has kept: what was synced, and of the rest what dice say. Some cuts hit it
// while it is still starting. Everything that was acknowledged is there, and the
// database is sound.
func TestPowerLoss(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		h := newHouse(t)
		h.servers = parleytest.Alone(t, "", h.data())
		h.inspect = h.inspectSQLite
		h.test()
	})
	for name, start := range onPostgres {
		t.Run(name, func(t *testing.T) {
			sqldbtest.NeedsPostgres(t)
			h := newHouse(t)
			h.startPostgres()
			h.servers = start(t, h.postgres.URL, h.data())
			h.inspect = h.inspectPostgres
			h.test()
		})
	}
}

// house is an installation whose disks lose their power together.
type house struct {
	t        *testing.T
	dice     *rand.Rand
	disk     *powertest.Disk  // of the servers
	postgres *pgserver.Server // nil where the database is a file
	database *powertest.Disk  // of PostgreSQL
	servers  *parleytest.Setup
	inspect  func() // the database, after a cut

	homes map[string]string // what each server knows its data directory by

	cuts, early int // early ones came before it was ready again
	checks      int
	ready       toll
}

func newHouse(t *testing.T) *house {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return &house{t: t, dice: rand.New(rand.NewPCG(seed, 1)), disk: powertest.New(t, seed)}
}

// data gives each server a data directory on the disk.
func (h *house) data() string { return "PARLEY_DATA=" + filepath.Join(h.disk.Dir, "parley-*", "data") }

func (h *house) startPostgres() {
	h.t.Helper()
	h.database = powertest.New(h.t, h.dice.Uint64())
	h.database.Journal()                        // which PostgreSQL expects, as said in powertest
	made, err := os.MkdirTemp("", "parley-pg-") // not in a directory of root's own
	if err == nil {
		defer os.RemoveAll(made)
		err = os.Chmod(made, 0o755)
	}
	if err == nil {
		err = pgserver.Init(h.t.Context(), filepath.Join(made, "data"), "--data-checksums")
	}
	if err == nil {
		err = h.database.Load("data", filepath.Join(made, "data"))
	}
	if err != nil {
		h.t.Fatal(err)
	}
	db, err := pgserver.New(h.t.Context(), pgserver.Options{Dir: filepath.Join(h.database.Dir, "data"), FSync: true})
	if err != nil {
		h.t.Fatal(err)
	}
	h.postgres = db
	h.t.Cleanup(func() {
		if err := db.Stop(); err != nil {
			h.t.Error(err)
		}
	})
}

func (h *house) test() {
	h.t.Helper()
	h.homes = h.know()
	l := begin(h.t, h.servers)
	l.end(func() {
		for round := range rounds(3, 200) {
			h.live()
			h.cut()
			if round%4 == 1 {
				h.startInVain()
			}
			if long() && round%10 == 9 {
				h.inspect()
			}
			h.start()
		}
		<-time.After(300 * time.Millisecond)
	})
	h.cut()
	h.inspect()
	if h.postgres == nil || long() {
		for n := range rounds(3, 20) {
			h.beginAnew(n)
		}
	}
	l.record("power loss, "+h.servers.Name, fmt.Sprintf("%d cuts, %d of them while starting; ready again after %v (p50), %v (p99); the database sound in %d of %d looks",
		h.cuts, h.early, h.ready.readyAfter(50), h.ready.readyAfter(99), h.checks, h.checks))
}

// live lets the installation work for a while. The database puts its pages into
// place meanwhile, in every other life.
func (h *house) live() {
	life := time.After(time.Duration(50+h.dice.IntN(1200)) * time.Millisecond)
	if h.postgres != nil && h.dice.IntN(2) == 0 {
		ctx, cancel := context.WithTimeout(h.t.Context(), time.Second)
		defer cancel()
		var moving sync.WaitGroup
		defer moving.Wait()
		moving.Go(func() { _ = h.query(ctx, "CHECKPOINT") }) // the cut may come first
	}
	<-life
}

// cut takes the power away: what runs gets nothing done any more, and ends. Then
// the disk is there again, with what it has kept.
func (h *house) cut() {
	h.t.Helper()
	h.cuts++
	h.disk.Cut()
	if h.postgres != nil {
		h.database.Cut()
	}
	for _, s := range h.servers.Nodes {
		s.Drop()
	}
	if h.postgres != nil {
		if err := h.postgres.Kill(); err != nil {
			h.t.Fatal(err)
		}
		h.database.On()
	}
	h.disk.On()
}

// start starts everything on what the disk has kept.
func (h *house) start() {
	h.t.Helper()
	began := time.Now()
	h.mustRun()
	for _, s := range h.servers.Nodes {
		s.Launch()
	}
	for _, s := range h.servers.Nodes {
		s.Ready()
	}
	h.ready.ready = append(h.ready.ready, time.Since(began))
	if got := h.know(); !maps.Equal(got, h.homes) {
		h.t.Errorf("after %d cuts servers know themselves as %v, before as %v", h.cuts, got, h.homes)
	}
}

// beginAnew cuts the power in the first start of a server on an empty database,
// and starts it again: half a beginning is none.
func (h *house) beginAnew(n int) {
	h.t.Helper()
	s := h.servers.Server
	s.Data = filepath.Join(h.disk.Dir, fmt.Sprintf("anew-%d", n), "data")
	s.Env = append(s.Env, "PARLEY_DATA="+s.Data)
	name := fmt.Sprintf("anew_%d", n)
	if h.postgres != nil {
		s.Env = append(s.Env, "PARLEY_DATABASE_URL="+strings.Replace(h.postgres.URL, "/postgres?", "/"+name+"?", 1))
		h.mustRun()
		if err := h.query(h.t.Context(), "CREATE DATABASE "+name); err != nil {
			h.t.Fatal(err)
		}
	}
	s.Launch()
	<-time.After(time.Duration(h.dice.IntN(400)) * time.Millisecond)
	h.cut()
	h.early++
	h.mustRun()
	s.Start()
	h.cut()
}

// know reads what the servers remember in their data directories: what each is
// called, and what it has printed on its first start.
func (h *house) know() map[string]string {
	h.t.Helper()
	known := map[string]string{}
	for _, s := range h.servers.Nodes {
		var lock struct{ Node string }
		text, err := os.ReadFile(filepath.Join(s.Data, "lock"))
		if err == nil {
			err = json.Unmarshal(text, &lock)
		}
		printed, none := os.ReadFile(filepath.Join(s.Data, "credentials.json"))
		if err != nil || none != nil {
			h.t.Fatal(err, none)
		}
		known[s.Addr] = lock.Node + " " + string(printed)
	}
	return known
}

// mustRun starts the database server, where there is one.
func (h *house) mustRun() {
	h.t.Helper()
	if h.postgres == nil {
		return
	}
	if err := h.postgres.Run(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

// startInVain cuts the power again before or after the installation is ready.
func (h *house) startInVain() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Duration(h.dice.IntN(1500))*time.Millisecond)
	defer cancel()
	if h.postgres != nil {
		_ = h.postgres.Run(ctx) // it may take longer than it has
	}
	for _, s := range h.servers.Nodes {
		s.Launch()
	}
	<-ctx.Done()
	h.cut()
	h.early++
}

// inspectSQLite looks at copies of the files, as the next server would find them.
func (h *house) inspectSQLite() {
	h.t.Helper()
	dir := h.t.TempDir()
	defer os.RemoveAll(dir) // there are many
	if err := os.CopyFS(dir, os.DirFS(h.servers.Data)); err != nil {
		h.t.Fatal(err)
	}
	db, err := sqldb.Look(h.t.Context(), sqldb.Options{URL: "sqlite://" + filepath.Join(dir, "parley.db")})
	if err != nil {
		h.t.Fatal(err)
	}
	defer db.Close()
	if said, err := sqldb.Scalar[string](db.Reader(h.t.Context()), "PRAGMA integrity_check"); err != nil || said != "ok" {
		h.t.Errorf("after %d cuts the database is damaged: %s, %v", h.cuts, said, err)
	}
	h.checks++
}

// inspectPostgres has PostgreSQL recover and look at every table and index. Pages
// carry checksums, so what is read is what was written.
func (h *house) inspectPostgres() {
	h.t.Helper()
	h.mustRun()
	for _, query := range []string{
		"CREATE EXTENSION IF NOT EXISTS amcheck WITH SCHEMA pg_catalog",
		"SELECT bt_index_check(c.oid, true) FROM pg_class c JOIN pg_am a ON a.oid = c.relam AND amname = 'btree' WHERE relkind = 'i' AND relpersistence = 'p'",
		`DO $$ DECLARE r record; BEGIN FOR r IN SELECT c.oid, h.* FROM pg_class c, LATERAL verify_heapam(c.oid) h WHERE relkind = 'r' AND relpersistence = 'p'
			LOOP RAISE EXCEPTION '% block % item %: %', r.oid::regclass, r.blkno, r.offnum, r.msg; END LOOP; END $$`,
	} {
		if err := h.query(h.t.Context(), query); err != nil {
			h.t.Errorf("after %d cuts: %v", h.cuts, err)
		}
	}
	if err := h.postgres.Kill(); err != nil {
		h.t.Fatal(err)
	}
	h.checks++
}

func (h *house) query(ctx context.Context, query string) error {
	c, err := pgx.Connect(ctx, h.postgres.URL)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, query)
	return err
}
