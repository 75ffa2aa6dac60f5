package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"parley/internal/app"
)

// busy has the data used by somebody who takes no connections, and calls met for
// each that comes all the same, until release.
func busy(t *testing.T, data string, met func()) (release func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "lock"), fmt.Appendf(nil, `{"pid":1,"url":"http://%s"}`, l.Addr()), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := app.Load(func(string) string { return "" }, map[string]string{"data": data})
	if err != nil {
		t.Fatal(err)
	}
	taken, done, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- app.Offline(context.Background(), cfg, false, func(context.Context, http.Handler, string) error {
			close(taken)
			<-done
			return nil
		})
	}()
	select {
	case <-taken:
	case err := <-ended:
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
			met()
		}
	}()
	return func() {
		close(done)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		l.Close()
	}
}

// A server that is stopping has closed its door and still has the data, as a
// command beside it has. Who comes then waits for it.
func TestACommandWaitsForWhoHasTheData(t *testing.T) {
	t.Parallel()
	c := cli{t: t}
	data := filepath.Join(t.TempDir(), "data")
	c.ok("token", "create", "--data", data)
	met := make(chan struct{}, 1000)
	release := busy(t, data, func() { met <- struct{}{} })
	ended := make(chan result, 1)
	go func() { ended <- c.run("token", "list", "--data", data) }()
	select {
	case <-met:
	case r := <-ended:
		ended <- r // it did not wait
	}
	release()
	if r := <-ended; r.status != 0 || strings.Count(r.out, "pat_") != 1 {
		t.Errorf("after the wait: %+v", r)
	}

	ctx, cancel := context.WithCancel(t.Context())
	release = busy(t, data, cancel)
	if r := c.runIn(ctx, "token", "list", "--data", data); r.status != 1 || !strings.Contains(r.err, "uses "+data+" and does not answer") {
		t.Errorf("cut short: %+v", r)
	}
	release()
}
