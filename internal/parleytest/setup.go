// Package parleytest starts parley processes for tests: the binary as it is
// shipped, alone on SQLite or PostgreSQL, or three of them behind a proxy that
// moves clients around. A process may be killed and started again on its data.
//
// With PARLEY_TEST_DB=sqlite PostgreSQL and the three are left out; PARLEY_TEST_BIN
// names a binary to test instead of building one.
package parleytest

import (
	"crypto/rand"
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	"parley/internal/bus/natstest"
	"parley/internal/sqldb/sqldbtest"
)

// Setup is what a test runs against: one server, or several that share a
// database behind a proxy.
type Setup struct {
	*Server // the first, which the command line is asked about
	Name    string
	Nodes   []*Server
	Proxy   *Proxy           // nil where there is one server
	NATS    *natstest.Server // the same
}

// Each runs fn in a subtest against each setup: "sqlite", "postgres" and "cluster".
func Each(t *testing.T, fn func(t *testing.T, s *Setup)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { fn(t, Alone(t, "")) })
	if os.Getenv("PARLEY_TEST_DB") == "sqlite" {
		return
	}
	t.Run("postgres", func(t *testing.T) { fn(t, Alone(t, sqldbtest.PostgresURL(t))) })
	t.Run("cluster", func(t *testing.T) { fn(t, Cluster(t, sqldbtest.PostgresURL(t))) })
}

// Alone starts one server on a database, "" for SQLite.
func Alone(t *testing.T, database string, env ...string) *Setup {
	t.Helper()
	s := Serve(t, append([]string{"PARLEY_DATABASE_URL=" + database}, env...)...)
	name := "sqlite"
	if database != "" {
		name = "postgres"
	}
	return &Setup{Server: s, Name: name, Nodes: []*Server{s}}
}

// Cluster starts three servers that share a PostgreSQL database and reach each
// other over NATS. A proxy in front of them gives each request to the next one,
// so that no client stays where it was.
func Cluster(t *testing.T, database string, env ...string) *Setup {
	t.Helper()
	wire, p := natstest.Start(t), newProxy(t)
	shared := append([]string{"PARLEY_DATABASE_URL=" + database, "PARLEY_NATS_URL=" + wire.URL,
		"PARLEY_MASTER_KEY_FILE=" + MasterKey(t), "PARLEY_PUBLIC_URL=" + p.URL}, env...)
	var nodes []*Server
	for range 3 {
		nodes = append(nodes, Serve(t, shared...))
	}
	p.balance(t, nodes)
	return &Setup{Server: nodes[0], Name: "cluster", Nodes: nodes, Proxy: p, NATS: wire}
}

// MasterKey makes the file of a master key, for servers that share one.
func MasterKey(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "master.key")
	secret := make([]byte, 32)
	rand.Read(secret) // never fails
	if err := os.WriteFile(file, []byte(base64.StdEncoding.EncodeToString(secret)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
