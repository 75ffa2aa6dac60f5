package sqldb_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing/fstest"

	"parley/internal/sqldb"
)

type note struct {
	ID   string
	Text string
	Tags map[string]string
}

func (n *note) Columns() []sqldb.Column {
	return []sqldb.Column{{"id", &n.ID}, {"text", &n.Text}, {"tags", sqldb.JSON(&n.Tags)}}
}

func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "sqldb")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	db, err := sqldb.Open(ctx, sqldb.Options{URL: filepath.Join(dir, "notes.db")})
	if err != nil {
		panic(err)
	}
	defer db.Close()
	err = db.Migrate(ctx, fstest.MapFS{"0001_notes.sql": {
		Data: []byte("CREATE TABLE notes (id TEXT PRIMARY KEY, text TEXT NOT NULL, tags TEXT NOT NULL) {without_rowid};"),
	}}, sqldb.MigrateOptions{})
	if err != nil {
		panic(err)
	}

	err = db.Write(ctx, func(tx *sqldb.Tx) error {
		tx.AfterCommit(func() { fmt.Println("committed") })
		_, err := sqldb.Insert(tx, "notes", &note{"n1", "hello", map[string]string{"a": "b"}})
		return err
	})
	if err != nil {
		panic(err)
	}

	var w sqldb.Where
	w.And("id = ?", "n1")
	n, err := sqldb.One[note](db.Reader(ctx), "notes", w.String(), w.Args...)
	fmt.Println(n.Text, n.Tags["a"], err)
	// Output:
	// committed
	// hello b <nil>
}
