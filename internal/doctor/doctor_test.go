package doctor_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/internal/app"
	"parley/internal/auth"
	"parley/internal/bus/natstest"
	"parley/internal/doctor"
	"parley/internal/schema"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// report is what the doctor has said.
type report struct {
	t     *testing.T
	found []doctor.Finding
}

func examine(t *testing.T, o doctor.Options) report {
	t.Helper()
	r := report{t: t}
	doctor.Examine(t.Context(), o, func(f doctor.Finding) { r.found = append(r.found, f) })
	return r
}

// has wants a finding of a check with a level and some words.
func (r report) has(check string, level doctor.Level, words ...string) {
	r.t.Helper()
	var of []string
next:
	for _, f := range r.found {
		if f.Check != check {
			continue
		}
		text := f.Says + "; " + f.Do
		of = append(of, string(f.Level)+": "+text)
		if f.Level != level {
			continue
		}
		for _, w := range words {
			if !strings.Contains(text, w) {
				continue next
			}
		}
		return
	}
	r.t.Errorf("%s: want %s with %q, found %q", check, level, words, of)
}

// hides wants a text nowhere.
func (r report) hides(secret string) {
	r.t.Helper()
	if text := fmt.Sprint(r.found); strings.Contains(text, secret) {
		r.t.Errorf("the secret %q is told: %s", secret, text)
	}
}

// options are those of serve without any flags, on a free port.
func options(t *testing.T, set func(*app.Config)) doctor.Options {
	t.Helper()
	c, err := app.Load(func(string) string { return "" }, map[string]string{"addr": freeAddr(t), "data": filepath.Join(t.TempDir(), "data")})
	must(t, err)
	if set != nil {
		set(&c)
	}
	return doctor.Options{Config: c}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close())
	return l.Addr().String()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve starts parley dev with the options and returns what ends it.
func serve(t *testing.T, o doctor.Options) (stop func()) {
	t.Helper()
	c := o.Config
	c.Dev, c.LogTo = true, io.Discard
	a, err := app.New(t.Context(), c)
	must(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	select {
	case <-a.Ready():
	case err := <-done:
		t.Fatalf("the server ended: %v", err)
	}
	ended := false
	stop = func() {
		if cancel(); !ended {
			ended = true
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return stop
}

func TestNothingIsThereYet(t *testing.T) {
	t.Parallel()
	o := options(t, nil)
	r := examine(t, o)
	for _, f := range r.found {
		if f.Level == doctor.Fail {
			t.Errorf("%+v", f)
		}
	}
	r.has("configuration", doctor.OK, "serve accepts it")
	r.has("data directory", doctor.OK, "does not exist yet")
	r.has("database", doctor.OK, "does not exist yet")
	r.has("master key", doctor.OK, "does not exist yet")
	r.has("address", doctor.OK, "is free")
	if _, err := os.Stat(o.Config.Data); !os.IsNotExist(err) {
		t.Errorf("the directory was made: %v", err)
	}
}

func TestConfigurationThatServeRefuses(t *testing.T) {
	t.Parallel()
	o := options(t, func(c *app.Config) { c.Addr = "0.0.0.0:7400" })
	examine(t, o).has("configuration", doctor.Fail, "would carry tokens in clear")
	_, refused := app.Load(func(string) string { return "" }, map[string]string{"public-url": "bots.example.com"})
	r := examine(t, doctor.Options{Refused: refused})
	r.has("configuration", doctor.Fail, "--public-url", "correct it")
	r.has("isolation", doctor.Info)
	for _, f := range r.found {
		if f.Check == "data directory" || f.Check == "address" {
			t.Errorf("%s is looked at without a configuration", f.Check)
		}
	}
}

func TestDataDirectory(t *testing.T) {
	t.Parallel()
	o := options(t, nil)
	must(t, os.Mkdir(o.Config.Data, 0o777))
	must(t, os.Chmod(o.Config.Data, 0o777))
	must(t, os.WriteFile(o.Config.DatabasePath(), nil, 0o644))
	must(t, os.Chmod(o.Config.DatabasePath(), 0o644))
	r := examine(t, o)
	r.has("data directory", doctor.Fail, "0777", "chmod 700")
	r.has("data directory", doctor.Warn, "parley.db may be read", "chmod 600")

	o = options(t, nil)
	must(t, os.WriteFile(o.Config.Data, nil, 0o600))
	examine(t, o).has("data directory", doctor.Fail, "no directory")
	o.Config.Data = filepath.Join(o.Config.Data, "below")
	examine(t, o).has("data directory", doctor.Fail, "")
	if os.Geteuid() == 0 { // only root gives things away
		o = options(t, nil)
		must(t, os.Mkdir(o.Config.Data, 0o700))
		must(t, os.Chown(o.Config.Data, 12345, 12345))
		examine(t, o).has("data directory", doctor.Warn, "user 12345", "chown")
	}
}

func TestServerThatRuns(t *testing.T) {
	t.Parallel()
	o := options(t, nil)
	stop := serve(t, o)
	before := listing(t, o.Config.Data)
	r := examine(t, o)
	r.has("data directory", doctor.OK, fmt.Sprint("process ", os.Getpid()))
	r.has("server", doctor.OK, "is ready at http://"+o.Config.Addr)
	r.has("configuration", doctor.Warn, "parley dev")
	r.has("database", doctor.OK, "SQLite")
	r.has("database pages", doctor.OK)
	r.has("database log", doctor.OK)
	r.has("schema", doctor.OK, "as this binary knows them")
	r.has("master key", doctor.OK, "opens what is sealed")
	for _, f := range r.found {
		if f.Level == doctor.Fail {
			t.Errorf("%+v", f)
		}
	}
	made, err := app.ReadCredentials(o.Config.Data)
	must(t, err)
	r.hides(made.Token)
	if after := listing(t, o.Config.Data); after != before {
		t.Errorf("%s became %s", before, after)
	}
	elsewhere := o
	elsewhere.Config.Addr = "127.0.0.1:1"
	examine(t, elsewhere).has("address", doctor.Warn, "settings of that server")

	// Another data directory, the same address.
	other := options(t, nil)
	other.Config.Addr = o.Config.Addr
	examine(t, other).has("address", doctor.Fail, "in use by", "Parley", "--addr")

	o.Token = made.Token
	r = examine(t, o)
	r.has("token", doctor.OK, "pat_", "reaches workspace", made.WorkspaceID, "does not expire")
	r.hides(made.Token)
	stop()
	before = listing(t, o.Config.Data)
	r = examine(t, o)
	r.has("data directory", doctor.OK, "used by no server")
	r.has("token", doctor.OK, "is valid")
	r.has("database", doctor.OK)
	if after := listing(t, o.Config.Data); after != before {
		t.Errorf("%s became %s", before, after)
	}
}

// listing names the files of a directory.
func listing(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	must(t, err)
	return fmt.Sprint(list)
}

func TestMasterKey(t *testing.T) {
	t.Parallel()
	o := options(t, nil)
	serve(t, o)()
	path := o.Config.MasterKeyPath()
	must(t, os.Chmod(path, 0o644))
	examine(t, o).has("master key", doctor.Fail, "0644", "chmod 600")
	must(t, os.Remove(path))
	examine(t, o).has("master key", doctor.Fail, "does not exist", "put the right file back")
	key := newKey(t, path)
	r := examine(t, o)
	r.has("master key", doctor.Fail, "does not open what is sealed for bot", "put the right file back")
	r.hides(key)
	must(t, os.WriteFile(path, []byte("short\n"), 0o600))
	examine(t, o).has("master key", doctor.Fail, "line 1 is not a key")

	o = options(t, func(c *app.Config) { c.MasterKeyFile = filepath.Join(t.TempDir(), "none.key") })
	examine(t, o).has("master key", doctor.Fail, "head -c 32 /dev/urandom")
}

// newKey writes a fresh master key.
func newKey(t *testing.T, path string) string {
	t.Helper()
	var secret [32]byte
	rand.Read(secret[:])
	text := base64.StdEncoding.EncodeToString(secret[:])
	must(t, os.WriteFile(path, []byte(text+"\n"), 0o600))
	return text
}

func TestDamagedDatabase(t *testing.T) {
	t.Parallel()
	o := options(t, nil)
	serve(t, o)()
	file := o.Config.DatabasePath()
	db, err := sqldb.Look(t.Context(), sqldb.Options{URL: file})
	must(t, err)
	page, err := sqldb.Scalar[int64](db.Reader(t.Context()), "SELECT rootpage FROM sqlite_master WHERE name = 'bots_workspace'")
	must(t, err)
	must(t, db.Close())
	text, err := os.ReadFile(file)
	must(t, err)
	copy(text[(page-1)*4096:], strings.Repeat("\xa5", 100))
	must(t, os.WriteFile(file, text, 0o600))
	examine(t, o).has("database pages", doctor.Fail, "damaged", "restore a backup")
	must(t, os.WriteFile(file, []byte(strings.Repeat("no database ", 1000)), 0o600))
	r := examine(t, o)
	r.has("database", doctor.Fail, "restore a backup")
	r.has("master key", doctor.OK, "not known without the database")
}

func TestNewerAndOlderTables(t *testing.T) {
	t.Parallel()
	o := options(t, nil)
	must(t, os.Mkdir(o.Config.Data, 0o700))
	db, err := sqldb.Open(t.Context(), sqldb.Options{URL: o.Config.DatabasePath()})
	must(t, err)
	must(t, db.Migrate(t.Context(), schema.FS, sqldb.MigrateOptions{}))
	future := time.Now().Add(3 * time.Hour).UnixMilli()
	change := func(statement string, args ...any) {
		t.Helper()
		must(t, db.Write(t.Context(), func(tx *sqldb.Tx) error {
			_, err := tx.Exec(statement, args...)
			return err
		}))
	}
	change("DELETE FROM migrations WHERE version > 5")
	r := examine(t, o)
	r.has("schema", doctor.Info, "version 5", "copies the database")
	change("INSERT INTO migrations (version, name, checksum, applied_at) VALUES (9999, 'later', '', $1)", future)
	r = examine(t, o)
	r.has("schema", doctor.Fail, "version 9999", "start the newer one")
	r.has("clock", doctor.Warn, "set back", "in the future")
	must(t, db.Close())
}

// What nobody does is seen in the database, whatever servers there are.
func TestWorkThatNobodyDoes(t *testing.T) {
	t.Parallel()
	o := options(t, nil)
	must(t, os.Mkdir(o.Config.Data, 0o700))
	db, err := sqldb.Open(t.Context(), sqldb.Options{URL: o.Config.DatabasePath()})
	must(t, err)
	must(t, db.Migrate(t.Context(), schema.FS, sqldb.MigrateOptions{}))
	change := func(statement string, args ...any) {
		t.Helper()
		must(t, db.Write(t.Context(), func(tx *sqldb.Tx) error {
			_, err := tx.Exec(statement, args...)
			return err
		}))
	}
	now := time.Now().UnixMilli()
	change(`INSERT INTO lanes (key, endpoint, seq, done, ephemeral, due, lease_until, owner) VALUES
		('idle', 'bot:b', 1, 1, FALSE, 9223372036854775807, 0, ''), ('held', 'bot:b', 1, 0, FALSE, 1, $1, 'x'), ('new', 'bot:b', 1, 0, FALSE, $1, 0, '')`, now)
	change("INSERT INTO timers (kind, id, bot_id, line, due, failures) VALUES ('k', 'new', '', '', $1, 0)", now)
	examine(t, o).has("work", doctor.OK, "nothing has waited")
	change("UPDATE lanes SET lease_until = 2 WHERE key = 'held'")
	examine(t, o).has("work", doctor.Warn, "to be delivered", "days ago", "the role delivery")
	change("UPDATE lanes SET due = $1", now)
	change("UPDATE timers SET due = $1", now-90_000)
	examine(t, o).has("work", doctor.Warn, "to happen 1m", "the role timers")
	must(t, db.Close())
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	sqldbtest.NeedsPostgres(t)
	o := options(t, func(c *app.Config) { c.DatabaseURL = sqldbtest.PostgresURL(t) })
	serve(t, o)()
	r := examine(t, o)
	r.has("database", doctor.OK, "PostgreSQL")
	if os.Getenv("PARLEY_TEST_PG_FSYNC") != "on" { // the server of the tests is in a hurry
		r.has("database safety", doctor.Warn, "fsync is off", "fsync = on")
		r.has("database safety", doctor.Warn, "full_page_writes")
	}
	r.has("database connections", doctor.OK, "up to 24")
	r.has("database clock", doctor.OK)
	r.has("schema", doctor.OK)
	r.has("master key", doctor.OK, "opens what is sealed")

	small := o
	small.Config.DatabaseURL += "&pool_max_conns=100000"
	examine(t, small).has("database connections", doctor.Fail, "pool_max_conns")
	empty := o
	empty.Config.DatabaseURL = sqldbtest.PostgresURL(t)
	examine(t, empty).has("schema", doctor.OK, "no tables yet")
	wrong := o
	wrong.Config.DatabaseURL = sqldbtest.Database(t, "ENCODING 'SQL_ASCII' LOCALE 'C'")
	examine(t, wrong).has("database", doctor.Fail, "SQL_ASCII", "CREATE DATABASE")
	missing := o
	missing.Config.DatabaseURL = strings.Replace(sqldbtest.Database(t, "ENCODING 'UTF8' LOCALE 'C'"), "/t_", "/gone_", 1)
	examine(t, missing).has("database", doctor.Fail, "CREATE DATABASE")
}

func TestDatabaseThatIsNotThere(t *testing.T) {
	t.Parallel()
	o := options(t, func(c *app.Config) {
		c.DatabaseURL = "postgres://parley:hush-hush@" + freeAddr(t) + "/parley?sslmode=disable"
	})
	r := examine(t, o)
	r.has("database", doctor.Fail, "not reached", "start PostgreSQL")
	r.hides("hush-hush")
	o.Config.DatabaseURL = "postgres://parley:hush-hush@no-such-host.invalid/parley"
	r = examine(t, o)
	r.has("database", doctor.Fail, "correct the host")
	r.hides("hush-hush")
}

func TestAddress(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	o := options(t, func(c *app.Config) { c.Addr = l.Addr().String() })
	examine(t, o).has("address", doctor.Fail, "in use by", "--addr")
	o.Config.Addr = "192.0.2.1:7400"
	examine(t, o).has("address", doctor.Fail, "not an address of this machine")
}

func TestNATS(t *testing.T) {
	t.Parallel()
	wire := natstest.Start(t)
	o := options(t, func(c *app.Config) { c.NATSURL = wire.URL })
	examine(t, o).has("NATS", doctor.OK, "answers in")
	o.Config.NATSURL = strings.Replace(wire.URL, "nats://", "nats://someone:hush-hush@", 1)
	wire.Stop()
	r := examine(t, o)
	r.has("NATS", doctor.Warn, "not reached", "--nats-url")
	r.hides("hush-hush")
}

func TestReach(t *testing.T) {
	t.Parallel()
	bot := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/broken" {
			w.WriteHeader(500)
		}
	}))
	t.Cleanup(bot.Close)
	secret := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(secret.Close)
	o := options(t, nil)
	o.Reach = []string{bot.URL + "/?key=hush-hush", "http://no-such-host.invalid/", "ftp://example.com", "http://example.com:25/"}
	r := examine(t, o)
	r.has("reach", doctor.Fail, "127.0.0.1 are not allowed", "--allow-outbound 127.0.0.1")
	r.has("reach", doctor.Fail, "no-such-host.invalid", "correct the name")
	r.has("reach", doctor.Fail, "only http and https")
	r.has("reach", doctor.Fail, "port 25")
	r.hides("hush-hush")

	o.Config.AllowOutbound = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	o.Reach = []string{bot.URL + "/?key=hush-hush", bot.URL + "/broken", secret.URL, "http://" + freeAddr(t), strings.Replace(secret.URL, "https:", "http:", 1)}
	r = examine(t, o)
	r.has("reach", doctor.OK, bot.URL, "at 127.0.0.1 answers 200 in")
	r.has("reach", doctor.Warn, "answers 500")
	r.has("reach", doctor.Fail, secret.URL, "certificate")
	r.has("reach", doctor.Fail, "unreachable", "start what should listen")
	r.hides("hush-hush")
}

func TestTokens(t *testing.T) {
	t.Parallel()
	o := options(t, nil)
	o.Token = "hush-hush"
	r := examine(t, o)
	r.has("token", doctor.Fail, "bp_pat_")
	r.hides("hush-hush")
	o.Token, _ = auth.NewToken(auth.PAT)
	examine(t, o).has("token", doctor.Fail, "no database")
	serve(t, o)()
	r = examine(t, o)
	r.has("token", doctor.Fail, "unknown here or revoked", "parley token create")
	r.hides(o.Token)

	made, err := app.ReadCredentials(o.Config.Data)
	must(t, err)
	o.Token = made.Token
	db, err := sqldb.Open(t.Context(), sqldb.Options{URL: o.Config.DatabasePath()})
	must(t, err)
	defer db.Close()
	expire := func(at time.Time) {
		t.Helper()
		must(t, db.Write(t.Context(), func(tx *sqldb.Tx) error {
			_, err := tx.Exec("UPDATE tokens SET expires_at = $1 WHERE hash = $2", at.UnixMilli(), auth.HashToken(made.Token))
			return err
		}))
	}
	expire(time.Now().Add(time.Hour))
	examine(t, o).has("token", doctor.OK, "expires in")
	expire(time.Now().Add(-time.Hour))
	examine(t, o).has("token", doctor.Fail, "has expired")
}

func TestPublicURL(t *testing.T) {
	t.Parallel()
	// What a proxy passes on is set below; a server says its own public URL.
	var behind http.Handler
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { behind.ServeHTTP(w, r) }))
	t.Cleanup(proxy.Close)
	o := options(t, func(c *app.Config) { c.PublicURL = proxy.URL })
	behind = http.NotFoundHandler()
	examine(t, o).has("public URL", doctor.Info, "404")
	serve(t, o)
	examine(t, o).has("public URL", doctor.Fail, "404", "proxy")
	behind = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resp, err := http.Get("http://" + o.Config.Addr + r.URL.Path)
		if err != nil {
			w.WriteHeader(502)
			return
		}
		defer resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
	})
	r := examine(t, o)
	r.has("public URL", doctor.OK, "leads to a server")
	r.has("public URL", doctor.Info, "calls out do not reach it")
	behind = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "Parley 1: a self-hosted home\n\n  https://other.example/docs\n")
	})
	examine(t, o).has("public URL", doctor.Fail, "another public URL")
	proxy.Close()
	examine(t, o).has("public URL", doctor.Fail, "does not answer")
}

// certify writes a certificate for a name, and its key.
func certify(t *testing.T, name string, from, to time.Time) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	must(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	must(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	return cert, key
}

func TestCertificate(t *testing.T) {
	t.Parallel()
	now, day := time.Now(), 24*time.Hour
	for _, one := range []struct {
		name     string
		from, to time.Time
		level    doctor.Level
		says     string
	}{
		{"bots.invalid", now.Add(-day), now.Add(90 * day), doctor.OK, "lasts 89 days"},
		{"bots.invalid", now.Add(-day), now.Add(5 * day), doctor.Warn, "ends in 4 days"},
		{"bots.invalid", now.Add(-9 * day), now.Add(-day), doctor.Fail, "has ended"},
		{"bots.invalid", now.Add(day), now.Add(9 * day), doctor.Fail, "begins on"},
		{"other.invalid", now.Add(-day), now.Add(90 * day), doctor.Fail, "not for bots.invalid"},
	} {
		o := options(t, func(c *app.Config) {
			c.PublicURL = "https://bots.invalid"
			c.TLSCert, c.TLSKey = certify(t, one.name, one.from, one.to)
		})
		examine(t, o).has("certificate", one.level, one.says)
	}
	o := options(t, func(c *app.Config) {
		c.PublicURL, c.TLSCert, c.TLSKey = "https://bots.invalid", "no-such.pem", "no-such.key"
	})
	examine(t, o).has("certificate", doctor.Fail, "do not load")
}

// The certificate that the world sees is that of whoever ends TLS.
func TestPublicCertificate(t *testing.T) {
	t.Parallel()
	front := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) }))
	t.Cleanup(front.Close)
	o := options(t, func(c *app.Config) {
		c.PublicURL, c.TrustedProxies = front.URL, []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	})
	examine(t, o).has("public certificate", doctor.Fail, "not trusted", "whole chain")
	o.Config.PublicURL = strings.Replace(front.URL, "127.0.0.1", "localhost", 1)
	examine(t, o).has("public certificate", doctor.Fail, "not for localhost")
}

func TestMachine(t *testing.T) {
	t.Parallel()
	r := examine(t, options(t, nil))
	for _, check := range []string{"disk", "clock", "isolation"} {
		found := false
		for _, f := range r.found {
			found = found || f.Check == check && f.Says != ""
		}
		if !found {
			t.Errorf("nothing is said about %s", check)
		}
	}
}
