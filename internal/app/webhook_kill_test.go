package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/internal/sqldb/sqldbtest"
)

// killedEnv makes this test binary a server, over what it says, until it is killed.
const killedEnv = "PARLEY_APP_CHILD"

// killed is a server in a process of its own. Its webhooks have little time and
// are tried again soon.
type killed struct {
	Addr, Data, DatabaseURL string

	t    *testing.T
	name string // of the test
	cmd  *exec.Cmd
}

func (k *killed) serve(t *testing.T) {
	must(t, json.Unmarshal([]byte(os.Getenv(killedEnv)), k))
	cfg, err := Load(func(string) string { return "" }, map[string]string{"addr": k.Addr, "data": k.Data, "database-url": k.DatabaseURL})
	must(t, err)
	cfg.Dev, cfg.Version = true, "test"
	cfg.webhookPauses = []time.Duration{20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond}
	cfg.webhookLimit = time.Second
	a, err := New(context.Background(), cfg)
	must(t, err)
	must(t, a.Run(context.Background()))
}

func (k *killed) start() {
	k.t.Helper()
	env, err := json.Marshal(k)
	must(k.t, err)
	k.cmd = exec.Command(os.Args[0], "-test.run=^"+k.name+"$")
	k.cmd.Env = append(os.Environ(), killedEnv+"="+string(env))
	k.cmd.Stderr = os.Stderr
	must(k.t, k.cmd.Start())
	deadline := time.Now().Add(time.Minute)
	for {
		resp, err := http.Get("http://" + k.Addr + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == 200 {
				return
			}
		}
		if time.Now().After(deadline) {
			k.t.Fatalf("the server is not ready: %v", err)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (k *killed) kill() {
	k.t.Helper()
	must(k.t, k.cmd.Process.Kill())
	_ = k.cmd.Wait() // it was killed
}

// call sends a request until the server is there to answer it.
func (k *killed) call(method, path string, header map[string]string, in, out any) {
	body, err := json.Marshal(in)
	if err != nil {
		k.t.Error(err)
		return
	}
	for k.t.Context().Err() == nil {
		req, err := http.NewRequestWithContext(k.t.Context(), method, "http://"+k.Addr+path, bytes.NewReader(body))
		if err != nil {
			k.t.Error(err)
			return
		}
		req.Header.Set("Content-Type", "application/json")
		for name, value := range header {
			req.Header.Set(name, value)
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			var text []byte
			text, err = io.ReadAll(resp.Body)
			resp.Body.Close()
			switch {
			case err != nil || resp.StatusCode == 429 || resp.StatusCode >= 500:
			case resp.StatusCode >= 300:
				k.t.Errorf("%s %s answers %d %s", method, path, resp.StatusCode, text)
				return
			default:
				if err := json.Unmarshal(text, out); err != nil {
					k.t.Errorf("%s %s: %v in %s", method, path, err, text)
				}
				return
			}
		}
		<-time.After(5 * time.Millisecond) // it is being killed
	}
}

// moody is a place that answers 500 to 30 of 100 signals, never to 10, and hangs
// up on 5. It looks whether the others come in their order.
type moody struct {
	*httptest.Server
	t *testing.T

	mu       sync.Mutex
	dice     *rand.Rand
	open     map[string]string   // conversation → id of what has come and was not taken
	taken    map[string][]string // conversation → what was, once each
	ids      map[string]bool     // of all that was
	failures int
	again    int // what came again although it was taken
}

func newMoody(t *testing.T) *moody {
	t.Helper()
	m := &moody{t: t, dice: rand.New(rand.NewPCG(rand.Uint64(), 1)), open: map[string]string{}, taken: map[string][]string{}, ids: map[string]bool{}}
	m.Server = httptest.NewServer(m)
	t.Cleanup(m.Close)
	return m
}

func (m *moody) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return // the server was killed while it sent this
	}
	var g struct {
		Data struct{ ConversationID string }
	}
	if err := json.Unmarshal(text, &g); err != nil || g.Data.ConversationID == "" {
		m.t.Errorf("got %s: %v", text, err)
	}
	switch status := m.take(g.Data.ConversationID, r.Header.Get("Webhook-Id"), string(text)); status {
	case hangUp:
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			m.t.Error(err)
			return
		}
		_ = conn.(*net.TCPConn).SetLinger(0) // a reset, or at least an end
		_ = conn.Close()
	case hang:
		<-r.Context().Done()
	default:
		w.WriteHeader(status)
	}
}

// What take decides besides a status.
const (
	hang = iota
	hangUp
)

// take decides about a request.
func (m *moody) take(conversation, id, text string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ids[id] {
		m.again++
	} else if was := m.open[conversation]; was != "" && was != id {
		m.t.Errorf("conversation %s: %s came before %s was taken", conversation, id, was)
	} else {
		m.open[conversation] = id
	}
	status := 204
	switch n := m.dice.IntN(100); {
	case n < 30:
		status = 500
	case n < 40:
		status = hang
	case n < 45:
		status = hangUp
	case !m.ids[id]:
		m.ids[id] = true
		delete(m.open, conversation)
		m.taken[conversation] = append(m.taken[conversation], text)
	}
	if status != 204 {
		m.failures++
	}
	return status
}

func (m *moody) told(conversation string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.taken[conversation])
}

// Every signal reaches a webhook at least once and in the order of its
// conversation, whatever the webhook does and however often the server is killed.
func TestNoSignalIsLostBetweenAMoodyWebhookAndAKilledServer(t *testing.T) {
	t.Parallel()
	if os.Getenv(killedEnv) != "" {
		new(killed).serve(t)
		return
	}
	for name, url := range sqldbtest.URLs(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := &killed{t: t, name: "TestNoSignalIsLostBetweenAMoodyWebhookAndAKilledServer", Addr: freeAddr(t), Data: filepath.Join(t.TempDir(), "data")}
			if name == "postgres" {
				k.DatabaseURL = url(t)
			}
			k.start()
			t.Cleanup(func() { _ = k.cmd.Process.Kill(); _ = k.cmd.Wait() }) // the last life
			to := newMoody(t)
			const conversations, kills, most = 6, 3, 30
			talks := make([]talk, conversations)
			door := k.setUp(to.URL)
			for i := range talks {
				talks[i] = k.talk(door, i)
			}
			stop := make(chan struct{})
			var writing sync.WaitGroup
			for i := range talks {
				writing.Go(func() { talks[i].write(k, most, stop) })
			}
			for range kills {
				<-time.After(time.Duration(200+rand.IntN(500)) * time.Millisecond)
				k.kill()
				k.start()
			}
			<-time.After(200 * time.Millisecond)
			close(stop)
			writing.Wait()
			signals := 0
			for i := range talks {
				c := &talks[i]
				n := 2 * c.written // each is echoed
				deadline := time.Now().Add(90 * time.Second)
				for len(to.told(c.id)) < n && time.Now().Before(deadline) {
					<-time.After(5 * time.Millisecond)
				}
				if diff := cmp.Diff(k.signals(c, n), to.told(c.id)); diff != "" {
					t.Errorf("conversation %d (-listener +webhook):\n%s", i, diff)
				}
				signals += n
			}
			t.Logf("%d signals, %d failures, %d came again", signals, to.failures, to.again)
			if to.failures == 0 || signals < conversations*2 {
				t.Errorf("%d signals and %d failures prove nothing", signals, to.failures)
			}
		})
	}
}

// freeAddr is an address below those that others are given while this one is free.
func freeAddr(t *testing.T) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 15_000+rand.IntN(15_000)))
		if err == nil {
			must(t, l.Close())
			return l.Addr().String()
		}
	}
}

// setUp sets the webhook of the echo bot's chat and returns its door.
func (k *killed) setUp(url string) (door string) {
	k.t.Helper()
	c, err := ReadCredentials(k.Data)
	must(k.t, err)
	var got struct {
		Bot struct {
			Integrations map[string]struct{ WebhookID string }
		}
	}
	k.call("PUT", "/v1/admin/bots/"+c.BotID, map[string]string{"Authorization": "Bearer " + c.Token, "x-workspace-id": c.WorkspaceID, "x-multiple-integrations": "true"},
		map[string]any{"integrations": map[string]any{"chat": map[string]any{"configuration": map[string]string{"webhookUrl": url}}}}, &got)
	return "/" + got.Bot.Integrations["chat"].WebhookID
}

// talk is a chat user in a conversation of their own.
type talk struct {
	n       int
	door    string
	id      string
	key     string
	written int
}

func (k *killed) talk(door string, n int) talk {
	k.t.Helper()
	var user struct{ Key string }
	k.call("POST", door+"/users", nil, struct{}{}, &user)
	var made struct{ Conversation struct{ ID string } }
	k.call("POST", door+"/conversations", map[string]string{"x-user-key": user.Key}, struct{}{}, &made)
	return talk{n: n, door: door, id: made.Conversation.ID, key: user.Key}
}

// write says something now and then, each thing until it is acknowledged.
func (c *talk) write(k *killed, most int, stop <-chan struct{}) {
	for ; c.written < most; c.written++ {
		select {
		case <-stop:
			return
		case <-time.After(20 * time.Millisecond):
		}
		var out struct{ Message struct{ ID string } }
		text := fmt.Sprintf("%d.%d", c.n, c.written)
		k.call("POST", c.door+"/messages", map[string]string{"x-user-key": c.key, "Idempotency-Key": "webhook-test-" + text},
			map[string]any{"conversationId": c.id, "payload": map[string]string{"type": "text", "text": text}}, &out)
	}
}

// signals are those that a listener hears of from the beginning.
func (k *killed) signals(c *talk, n int) []string {
	k.t.Helper()
	req, err := http.NewRequestWithContext(k.t.Context(), "GET", "http://"+k.Addr+c.door+"/conversations/"+c.id+"/listen?after=0", nil)
	must(k.t, err)
	req.Header.Set("x-user-key", c.key)
	return listened(k.t, req, n)
}
