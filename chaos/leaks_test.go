package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/internal/parleytest"
)

// TestLeaks has people come and go in every way that is bad, for long: streams that
// are cut, uploads and waits that are given up, requests that fail, users and
// conversations that are made and deleted, bots and webhooks that hang, hang up or
// fail. A while later the servers hold what they held before.
//
// Before is after a first such time, when all that is made once has been made: a
// pool of connections, caches, buffers.
func TestLeaks(t *testing.T) {
	parleytest.Each(t, func(t *testing.T, s *parleytest.Setup) {
		first, most := time.Second, time.Duration(rounds(1, 20*60))*time.Second
		if long() {
			first = 2 * time.Minute
		}
		c := &churn{hall: emptyHall(t, s)}
		c.during(first)
		before := settled(t, s)
		c.done.Store(0)
		c.during(most)
		c.back(before)
		after := settled(t, s)
		if bound := before.kib + before.kib/4; long() && after.kib > bound {
			t.Errorf("the servers take %d MiB after it, %d before, want %d at most", after.kib>>10, before.kib>>10, bound>>10)
		}
		record(t, "leaks, "+s.Name, fmt.Sprintf("%d times in %v something came, failed and went; before and after it %d and %d goroutines, %d and %d descriptors, %d and %d MiB of resident memory",
			c.done.Load(), most, before.goroutines, after.goroutines, before.descriptors, after.descriptors, before.kib>>10, after.kib>>10))
	})
}

// holdings are what servers hold, all together.
type holdings struct{ goroutines, descriptors, kib int }

func held(t *testing.T, s *parleytest.Setup) holdings {
	t.Helper()
	client.CloseIdleConnections()
	h := holdings{goroutines: int(gauge(t, s, "go_goroutines")), kib: resident(t, s)}
	for _, n := range s.Nodes {
		dir, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.PID()))
		if err != nil {
			t.Fatal(err)
		}
		h.descriptors += len(dir)
	}
	return h
}

// settled is what servers hold when nothing has happened for a while: the least of
// several looks. In a long run a collection is forced meanwhile.
func settled(t *testing.T, s *parleytest.Setup) holdings {
	t.Helper()
	looks, pause := 10, 50*time.Millisecond
	if long() {
		looks, pause = 20, 10*time.Second
	}
	least := held(t, s)
	for range looks {
		<-time.After(pause)
		now := held(t, s)
		least = holdings{min(least.goroutines, now.goroutines), min(least.descriptors, now.descriptors), now.kib}
	}
	return least
}

// slack is what one server may hold more by chance: a sweep that is under way, a
// connection that the pool has opened.
const slack = 8

// back returns when the servers hold no more than before.
func (c *churn) back(before holdings) {
	c.t.Helper()
	late := time.After(3 * time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		now, more := held(c.t, c.s), slack*len(c.s.Nodes)
		if now.goroutines <= before.goroutines+more && now.descriptors <= before.descriptors+more {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			c.t.Errorf("three minutes later there are %d goroutines and %d descriptors, %d and %d before", now.goroutines, now.descriptors, before.goroutines, before.descriptors)
			return
		}
	}
}

// churn is people who come and go.
type churn struct {
	*hall
	done atomic.Int64
	bad  []string // doors of bots that do not work, at the first server
}

// during churns for so long.
func (c *churn) during(d time.Duration) {
	c.t.Helper()
	p := newBadPlace(c.t, c.s)
	c.bad = nil
	var bots []string
	for _, way := range []string{"hang", "reset", "fail"} {
		id, door := p.bot(way)
		bots, c.bad = append(bots, id), append(c.bad, c.at(door))
	}
	ctx, end := c.t.Context(), time.Now().Add(d)
	deeds := []func(context.Context, int, *talk) error{
		c.hearsAndIsCut, c.hearsOverWebSocket, c.hearsOverHTTP2, c.shakesHandsBadly, c.deletes, c.fails,
		c.givesUploadsUp, c.givesWaitsUp, c.conflicts, c.writesToBadBots,
	}
	var all sync.WaitGroup
	for worker := range 16 {
		all.Go(func() {
			for k := 0; k < len(deeds) || time.Now().Before(end); k++ {
				n := worker + 3*k // each comes to all of them
				door := c.doors[n%len(c.doors)]
				err := c.visit(ctx, door, func(v *talk) error { return deeds[n%len(deeds)](ctx, n, v) })
				if err != nil {
					c.t.Errorf("deed %d: %v", n%len(deeds), err)
					return
				}
				c.done.Add(1)
			}
		})
	}
	all.Wait()
	for _, id := range bots {
		p.must("DELETE", "/v1/admin/bots/"+id, nil, object{}, &object{})
	}
	p.close()
}

// at is a door at the first server.
func (c *churn) at(path string) string {
	u, err := url.Parse(c.doors[0])
	if err != nil {
		c.t.Fatal(err)
	}
	u.Path = path
	return u.String()
}

// visit has somebody come and do something. In the end the conversation and the
// user are deleted.
func (c *churn) visit(ctx context.Context, door string, do func(*talk) error) error {
	v, err := arrive(ctx, door)
	if err != nil {
		return err
	}
	if err := do(v); err != nil {
		return err
	}
	for _, path := range []string{"/conversations/" + url.PathEscape(v.id), "/users/me"} {
		if _, err := v.call(ctx, "DELETE", path, "", object{}, &object{}); err != nil {
			return err
		}
	}
	return nil
}

// arrive makes a user with a conversation.
func arrive(ctx context.Context, door string) (*talk, error) {
	v := &talk{base: door}
	var user struct{ Key string }
	if _, err := v.call(ctx, "POST", "/users", "", object{}, &user); err != nil {
		return nil, err
	}
	v.key = user.Key
	var made struct{ Conversation struct{ ID string } }
	_, err := v.call(ctx, "POST", "/conversations", "", object{}, &made)
	v.id = made.Conversation.ID
	return v, err
}

func (v *talk) stream() string { return v.base + "/conversations/" + url.PathEscape(v.id) + "/listen" }

// says is an input of createMessage.
func (v *talk) says(text string) object {
	return object{"conversationId": v.id, "payload": payload{"text", text}}
}

// hears reads some signals of a stream and drops it.
func hears(ctx context.Context, v *talk, over opener, signals int) error {
	s, err := over(ctx, v.stream(), v.key, 0)
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := v.call(ctx, "POST", "/messages", "", v.says("hello"), &object{}); err != nil {
		return err
	}
	for range signals {
		if _, _, err := s.next(); err != nil {
			return err
		}
	}
	return nil
}

func (c *churn) hearsAndIsCut(ctx context.Context, n int, v *talk) error {
	polite := func(ctx context.Context, network, addr string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}
	return hears(ctx, v, overHTTP1([]dialer{dial, polite}[n/7%2], longest), n%3)
}

func (c *churn) hearsOverWebSocket(ctx context.Context, n int, v *talk) error {
	return hears(ctx, v, overWebSocket(dial), n%3)
}

func (c *churn) hearsOverHTTP2(ctx context.Context, n int, v *talk) error {
	over, end := overHTTP2()
	defer end()
	return hears(ctx, v, over, n%3)
}

// shakesHandsBadly begins a WebSocket, and is refused, or gone before it can be, or
// gone without a word after it.
func (c *churn) shakesHandsBadly(ctx context.Context, n int, v *talk) error {
	u, err := url.Parse(v.stream())
	if err != nil {
		return err
	}
	conn, err := dial(ctx, "tcp", u.Host)
	if err != nil {
		return err
	}
	defer conn.Close()
	key := ""
	if n/7%2 == 0 {
		key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	}
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nX-User-Key: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n%s\r\n", u.EscapedPath(), v.key, key)
	if n/14%2 == 0 && err == nil {
		_, err = conn.Read(make([]byte, 100))
	}
	return err
}

// deletes what others are at.
func (c *churn) deletes(ctx context.Context, n int, v *talk) error {
	s, err := overHTTP1(dial, longest)(ctx, v.stream(), v.key, 0)
	if err != nil {
		return err
	}
	defer s.Close()
	other := &talk{base: v.base, key: v.key}
	var made struct{ Conversation struct{ ID string } }
	if _, err := other.call(ctx, "POST", "/conversations", "", object{}, &made); err != nil {
		return err
	}
	_, err = v.call(ctx, "DELETE", "/conversations/"+url.PathEscape(v.id), "", object{}, &object{})
	v.id = made.Conversation.ID
	for err == nil {
		_, _, err = s.next() // to its end
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// fails asks for what it cannot have.
func (c *churn) fails(ctx context.Context, n int, v *talk) error {
	for _, try := range []struct {
		path string
		in   any
		want int
	}{
		{"/conversations/nowhere/listen", nil, http.StatusNotFound},
		{"/conversations/nowhere", nil, http.StatusNotFound},
		{"/messages", "no object", http.StatusBadRequest},
		{"/messages", object{"conversationId": "nowhere", "payload": payload{"text", "x"}}, http.StatusBadRequest},
		{"/nothing", nil, http.StatusNotFound},
	} {
		method := "GET"
		if try.in != nil {
			method = "POST"
		}
		if status, err := v.call(ctx, method, try.path, "", try.in, &object{}); status != try.want {
			return fmt.Errorf("%s %s: %w, want %d", method, try.path, err, try.want)
		}
	}
	return nil
}

// givesUploadsUp sends a part of a body.
func (c *churn) givesUploadsUp(ctx context.Context, n int, v *talk) error {
	u, err := url.Parse(v.base)
	if err != nil {
		return err
	}
	conn, err := dial(ctx, "tcp", u.Host)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "POST %s/messages HTTP/1.1\r\nHost: x\r\nX-User-Key: %s\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{\"payload\":%s", u.Path, v.key, make([]byte, n%5*10_000))
	return err
}

// givesWaitsUp waits for an answer that does not come, and leaves.
func (c *churn) givesWaitsUp(ctx context.Context, n int, v *talk) error {
	return c.visit(ctx, c.bad[0], func(v *talk) error {
		soon, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
		defer cancel()
		_, err := v.call(soon, "POST", "/messages?wait=20", "", v.says("anybody?"), &object{})
		if soon.Err() != nil {
			return nil
		}
		return err
	})
}

// conflicts uses an idempotency key twice at the same time.
func (c *churn) conflicts(ctx context.Context, n int, v *talk) error {
	var both sync.WaitGroup
	var status [2]int
	for i := range status {
		both.Go(func() {
			status[i], _ = v.call(ctx, "POST", "/messages", "the key", v.says(fmt.Sprint("text ", i)), &object{})
		})
	}
	both.Wait()
	won, lost := min(status[0], status[1]), max(status[0], status[1])
	if won != http.StatusCreated || lost < 400 || lost >= 500 {
		return fmt.Errorf("two writes under one key are answered %v", status)
	}
	return nil
}

// writesToBadBots leaves work behind that cannot be done.
func (c *churn) writesToBadBots(ctx context.Context, n int, v *talk) error {
	return c.visit(ctx, c.bad[n/7%len(c.bad)], func(v *talk) error {
		_, err := v.call(ctx, "POST", "/messages", "", v.says("hello?"), &object{})
		return err
	})
}

// badPlace is where bots and webhooks live that do not work.
type badPlace struct {
	plain
	server *httptest.Server
	calm   chan struct{}
	chat   string
}

func newBadPlace(t *testing.T, s *parleytest.Setup) *badPlace {
	t.Helper()
	p := &badPlace{calm: make(chan struct{})}
	p.t = t
	_, p.api = s.Settings()
	p.server = httptest.NewServer(p)
	var hub struct{ Integration struct{ ID string } }
	p.must("GET", "/v1/admin/hub/integrations/chat/latest", nil, object{}, &hub)
	p.chat = hub.Integration.ID
	return p
}

// close lets those go that hang.
func (p *badPlace) close() {
	close(p.calm)
	p.server.Close()
}

func (p *badPlace) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch operation := r.Header.Get("x-bp-operation"); {
	case operation != "" && operation != "event_received": // so that it can be registered
	case r.URL.Path == "/fail/":
		w.WriteHeader(http.StatusInternalServerError)
	case r.URL.Path == "/reset/":
		panic(http.ErrAbortHandler)
	default:
		select {
		case <-p.calm:
		case <-r.Context().Done():
		}
	}
}

// bot makes a bot that does not work in some way, with a chat whose webhook does
// not either.
func (p *badPlace) bot(way string) (id, door string) {
	p.t.Helper()
	var made struct {
		Bot struct {
			ID           string
			Integrations map[string]struct{ WebhookID string }
		}
	}
	p.must("POST", "/v1/admin/bots", nil, object{"name": "bad"}, &made)
	id = made.Bot.ID
	at := p.server.URL + "/" + way + "/"
	p.must("PUT", "/v1/admin/bots/"+id, nil, object{"url": at, "integrations": object{
		"chat": object{"integrationId": p.chat, "enabled": true, "configuration": object{"webhookUrl": at}},
	}}, &made)
	return id, "/" + made.Bot.Integrations["chat"].WebhookID
}
