//go:build unix

package sqldbtest

import (
	"bytes"
	"errors"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"parley/internal/sqldb"
)

// Forgetful is a way to a PostgreSQL server on which the answer to a commit can
// get lost, as it does when the network or the server goes at that moment.
type Forgetful struct {
	URL string

	to   string
	arm  atomic.Bool
	mu   sync.Mutex
	open map[net.Conn]bool // true for those that a DB has made
}

// Forgetting runs fn with a fresh PostgreSQL schema behind such a way.
func Forgetting(t *testing.T, fn func(t *testing.T, db *sqldb.DB, f *Forgetful)) {
	t.Helper()
	NeedsPostgres(t)
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		f := newForgetful(t, PostgresURL(t))
		fn(t, migrated(t, f.URL), f)
	})
}

// newForgetful opens a way to the database of a URL, until the test ends.
func newForgetful(t testing.TB, database string) *Forgetful {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &Forgetful{to: u.Host, open: map[net.Conn]bool{}}
	u.Host = l.Addr().String()
	f.URL = u.String()
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { f.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close() // nobody uses it any more
		f.mu.Lock()
		for c := range f.open {
			_ = c.Close() // likewise
		}
		f.mu.Unlock()
		serving.Wait()
	})
	return f
}

// ForgetNextCommit has the next commit take place, and its answer get lost.
func (f *Forgetful) ForgetNextCommit() { f.arm.Store(true) }

// Each calls fn with every connection that is open, as it arrives here.
func (f *Forgetful) Each(fn func(c net.Conn) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for c, near := range f.open {
		if near {
			errs = append(errs, fn(c))
		}
	}
	return errors.Join(errs...)
}

func (f *Forgetful) serve(client net.Conn) {
	server, err := net.Dial("tcp", f.to)
	if err != nil {
		_ = client.Close() // the client finds out
		return
	}
	f.mu.Lock()
	f.open[client], f.open[server] = true, false
	f.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := client.Read(buf)
			if _, failed := server.Write(buf[:n]); err != nil || failed != nil {
				break
			}
		}
		_ = server.Close() // one side has gone, so the other goes
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if err != nil || bytes.Contains(buf[:n], []byte("COMMIT\x00")) && f.arm.CompareAndSwap(true, false) {
			break
		}
		if _, err := client.Write(buf[:n]); err != nil {
			break
		}
	}
	_ = client.Close() // likewise
	both.Wait()
	f.mu.Lock()
	delete(f.open, client)
	delete(f.open, server)
	f.mu.Unlock()
}
