package signing_test

import (
	"io/fs"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"parley/internal/auth"
	"parley/internal/bus"
	"parley/internal/schema"
	"parley/internal/signing"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// A bot that is older than the table keeps the secret that its receivers know.
func TestBotsKeepTheirSecret(t *testing.T) {
	t.Parallel()
	box, err := auth.NewBox(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	before := fstest.MapFS{}
	names, err := fs.Glob(schema.FS, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if name >= "0010" {
			break
		}
		text, err := schema.FS.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		before[name] = &fstest.MapFile{Data: text}
	}
	for name, url := range sqldbtest.URLs(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := sqldbtest.Open(t, url(t))
			if err := db.Migrate(t.Context(), before, sqldb.MigrateOptions{}); err != nil {
				t.Fatal(err)
			}
			old := signing.NewSecret()
			if err := db.Write(t.Context(), func(tx *sqldb.Tx) error {
				_, err := tx.Exec(`INSERT INTO bots (id, workspace_id, name, description, dev, builtin, url, definition, tags, configuration, signing_secret, created_by, created_at, updated_at, deployed_at)
					VALUES ($1, 'w', 'x', '', FALSE, '', '', '{}', '{}', $2, $3, '', $4, $4, 0)`, owner, []byte{0}, box.Seal([]byte(old), owner+"/signing-secret"), start)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if err := db.Migrate(t.Context(), schema.FS, sqldb.MigrateOptions{}); err != nil {
				t.Fatal(err)
			}
			var clock atomic.Int64
			clock.Store(start + 1000)
			r := newRig(t, db, bus.NewLocal(), &clock)
			r.create(t, owner) // changes nothing
			if list := r.list(t, owner); len(list) != 1 || list[0].Text != old || list[0].CreatedAt.UnixMilli() != start {
				t.Errorf("after the migration there are %d secrets", len(list))
			}
			r.rotate(t, owner, 1000)
			_, err := sqldb.Scalar[[]byte](db.Reader(t.Context()), "SELECT signing_secret FROM bots")
			if err == nil || !strings.Contains(err.Error(), "signing_secret") {
				t.Errorf("bots still have the column: %v", err)
			}
		})
	}
}
