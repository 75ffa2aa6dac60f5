//go:build unix

package chaos

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/internal/parleytest"
)

// TestDescriptors has listeners take all the connections that a server can hold.
// Others are told so. Who is connected goes on, and so does what the server itself
// needs descriptors for: a bot's messages go out to an integration over HTTP. When
// the listeners have gone everybody is served again.
func TestDescriptors(t *testing.T) {
	parleytest.Each(t, func(t *testing.T, s *parleytest.Setup) {
		limit := 240
		if long() {
			limit = 400
		}
		for _, node := range s.Nodes {
			node.End()
			node.Bin = limited(t, node.Bin, limit)
			node.Start()
		}
		p, _ := newPlain(t, s)
		var made struct{ Conversation struct{ ID string } }
		p.must("POST", "/v1/chat/conversations", p.asIntegration(), object{"channel": "channel", "tags": object{}}, &made)
		l := begin(t, s)
		var refused int
		var healed time.Duration
		l.end(func() {
			for round := range rounds(1, 60) {
				stop := make(chan struct{})
				var written []string
				var writing sync.WaitGroup
				writing.Go(func() { written = p.write(made.Conversation.ID, round, stop) })
				held, n := crowdIn(t, s, l.talks[0], limit+50)
				refused += n
				<-time.After(time.Second)
				close(stop)
				writing.Wait()
				p.arrived(made.Conversation.ID, written)
				p.forget(made.Conversation.ID)
				for _, c := range held {
					_ = c.Close() // some were refused
				}
				began := time.Now()
				newcomer(t, s)
				healed = max(healed, time.Since(began))
			}
		})
		l.neverSaid(http.StatusInternalServerError)
		if long() && healed > 5*time.Second {
			t.Errorf("newcomers were served %v after the listeners had gone, want 5 s at most", healed)
		}
		l.record("descriptors exhausted, "+s.Name, fmt.Sprintf("%d descriptors a server, %d listeners refused with 429; newcomers served %v after the others had gone, at the latest",
			limit, refused, healed.Round(time.Millisecond)))
	})
}

// limited is the program with a limit of descriptors.
func limited(t *testing.T, bin string, limit int) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "parley")
	if err := os.WriteFile(file, fmt.Appendf(nil, "#!/bin/sh\nulimit -n %d && exec '%s' \"$@\"\n", limit, bin), 0o700); err != nil {
		t.Fatal(err)
	}
	return file
}

// crowdIn has so many listeners come to each server and keeps those that are
// taken. It says how many were refused, each of which must have been told why.
func crowdIn(t *testing.T, s *parleytest.Setup, c *talk, each int) (held []net.Conn, refused int) {
	t.Helper()
	u, err := url.Parse(c.base)
	if err != nil {
		t.Fatal(err)
	}
	request := fmt.Sprintf("GET %s/conversations/%s/listen HTTP/1.1\r\nHost: parley\r\nX-User-Key: %s\r\n\r\n", u.Path, c.id, c.key)
	for _, node := range s.Nodes {
		taken := 0
		for range each {
			conn, err := net.Dial("tcp", node.Addr)
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, conn)
			answer := make([]byte, 1024)
			_ = conn.SetDeadline(time.Now().Add(time.Minute)) // it works on an open connection
			_, err = io.WriteString(conn, request)
			n := 0
			if err == nil {
				n, err = conn.Read(answer)
			}
			switch text := string(answer[:n]); {
			case strings.HasPrefix(text, "HTTP/1.1 200 "):
				taken++
			case strings.HasPrefix(text, "HTTP/1.1 429 ") && strings.Contains(text, `"type":"RateLimited"`) && strings.Contains(text, "Retry-After: 1\r\n"):
				refused++
			default:
				t.Errorf("a listener too many is answered %q, %v", text, err)
			}
		}
		if taken == 0 || taken == each {
			t.Errorf("a server took %d of %d listeners, want as many as fit and no more", taken, each)
		}
	}
	return held, refused
}

// newcomer waits until each server answers somebody it does not know yet.
func newcomer(t *testing.T, s *parleytest.Setup) {
	t.Helper()
	fresh := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	deadline := time.Now().Add(time.Minute)
	for _, node := range s.Nodes {
		for {
			answer, err := fresh.Get("http://" + node.Addr + "/readyz")
			if err == nil {
				answer.Body.Close()
				if answer.StatusCode == http.StatusOK {
					break
				}
			}
			if time.Now().After(deadline) {
				t.Fatalf("nobody is served a minute after the listeners have gone: %v", err)
			}
			<-time.After(10 * time.Millisecond)
		}
	}
}
