package chaos

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/internal/parleytest"
)

// crowd is people who write and listen.
type crowd struct {
	t     *testing.T
	talks []*talk

	going              context.Context // until everything is written
	writing, listening sync.WaitGroup
	stop, deaf         context.CancelFunc
	settled            time.Duration // from the last acknowledgement until everything was answered and heard
}

// begin has people write and listen.
func begin(t *testing.T, s *parleytest.Setup) *crowd {
	t.Helper()
	_, env := s.Settings()
	l := &crowd{t: t}
	for n := range 8 {
		l.talks = append(l.talks, newTalk(t, env.ChatURL, n))
	}
	var hear context.Context
	l.going, l.stop = context.WithCancel(t.Context())
	hear, l.deaf = context.WithCancel(t.Context())
	for _, c := range l.talks {
		l.writing.Go(func() { c.write(l.going) })
		l.listening.Go(func() { c.listen(hear) })
	}
	return l
}

// end does what is to be survived, has the writers come to an end and looks at
// what became of what they wrote.
func (l *crowd) end(meanwhile func()) {
	l.t.Helper()
	defer l.listening.Wait()
	defer l.deaf()
	meanwhile()
	l.stop()
	l.writing.Wait()
	written := time.Now()
	for _, c := range l.talks {
		c.check(l.t)
	}
	l.settled = time.Since(written).Round(time.Millisecond)
}

// neverSaid fails if a writer was answered with a status that says nothing to a
// client about what to do.
func (l *crowd) neverSaid(status int) {
	l.t.Helper()
	for _, c := range l.talks {
		if text, ok := c.refused[status]; ok {
			l.t.Errorf("%s was answered %s", c.name, text)
		}
	}
}

// record says what was survived, and by how many messages.
func (l *crowd) record(test, figures string) {
	l.t.Helper()
	acknowledged := 0
	for _, c := range l.talks {
		acknowledged += len(c.written)
	}
	record(l.t, test, figures+fmt.Sprintf("; %d messages acknowledged, 0 lost, doubled or out of order, all answered once and heard once, the last %v later", acknowledged, l.settled))
}

// talk is one conversation with the built-in bot: one writer, one listener.
type talk struct {
	name, base, key, id string
	written             []string       // acknowledged texts, in order
	tries               int            // that a text took at most
	refused             map[int]string // by status, the last refusal
	err                 error          // why the writer gave up

	mu    sync.Mutex
	heard []string // ids of the messages that the listener heard
	at    []string // positions of all signals
	last  string   // that of the last one
}

var client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 512}}

// call sends one request of the chat user and decodes a good answer into out.
func (c *talk) call(ctx context.Context, method, path, idempotency string, in, out any) (status int, err error) {
	header := map[string]string{"x-user-key": c.key}
	if idempotency != "" {
		header["idempotency-key"] = idempotency
	}
	return call(ctx, method, c.base+path, header, in, out)
}

// call sends one request and decodes a good answer into out. The status of a
// request that got no answer is 0.
func call(ctx context.Context, method, url string, header map[string]string, in, out any) (status int, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return 0, err
	}
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	r.Header.Set("content-type", "application/json")
	for k, v := range header {
		r.Header.Set(k, v)
	}
	answer, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err
	}
	if answer.StatusCode >= 300 {
		if !typed(text, answer.StatusCode) && len(text) > 0 { // a proxy says nothing
			return http.StatusTeapot, fmt.Errorf("%s %s: %s without a typed error: %s", method, r.URL.Path, answer.Status, text)
		}
		return answer.StatusCode, fmt.Errorf("%s %s: %s: %s", method, r.URL.Path, answer.Status, text)
	}
	return answer.StatusCode, json.Unmarshal(text, out)
}

// typed reports whether a body is an error as the API publishes it.
func typed(body []byte, status int) bool {
	var e struct {
		ID, Type, Message string
		Code, Status      int
	}
	return json.Unmarshal(body, &e) == nil && e.ID != "" && e.Type != "" && e.Message != "" && e.Code == status && e.Status == status
}

// insist repeats a request until it gets a good answer, or one that says that it
// never will.
func insist(ctx context.Context, ask func(ctx context.Context) (status int, err error)) (tries int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for tries = 1; ; tries++ {
		status, err := ask(ctx)
		if err == nil || ctx.Err() != nil || status >= 400 && status < 500 && status != http.StatusConflict && status != http.StatusTooManyRequests {
			return tries, err
		}
		<-again.C
	}
}

func newTalk(t *testing.T, base string, n int) *talk {
	t.Helper()
	c := &talk{name: fmt.Sprintf("c%02d", n), base: base, last: "0", refused: map[int]string{}}
	var user struct{ Key string }
	if _, err := c.call(t.Context(), "POST", "/users", "", struct{}{}, &user); err != nil {
		t.Fatal(err)
	}
	c.key = user.Key
	var made struct{ Conversation struct{ ID string } }
	if _, err := c.call(t.Context(), "POST", "/conversations", "", struct{}{}, &made); err != nil {
		t.Fatal(err)
	}
	c.id = made.Conversation.ID
	return c
}

type payload struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

// write sends one message after the other until ctx ends; each is repeated with
// its Idempotency-Key until it is acknowledged.
func (c *talk) write(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		text := fmt.Sprintf("%s-m%05d.", c.name, n)
		if err := c.send(text); err != nil {
			c.err = err
			return
		}
		c.written = append(c.written, text)
	}
}

// send outlives the writer's context: a message that is under way is brought to its end.
func (c *talk) send(text string) error {
	in := map[string]any{"conversationId": c.id, "payload": payload{"text", text}}
	var out struct{ Message struct{ Payload payload } }
	tries, err := insist(context.Background(), func(ctx context.Context) (int, error) {
		status, err := c.call(ctx, "POST", "/messages", "key-"+text[:min(len(text), 200)], in, &out)
		if err != nil {
			c.refused[status] = err.Error() // 0 is the network's
		}
		return status, err
	})
	c.tries = max(c.tries, tries)
	if err != nil {
		return fmt.Errorf("%s was never acknowledged: %w", text, err)
	}
	if out.Message.Payload.Text != text {
		return fmt.Errorf("the answer to %s is about %q", text, out.Message.Payload.Text)
	}
	return nil
}

// acknowledged waits until a message is taken, and says how long that took.
func (c *talk) acknowledged(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	for n := 0; ; n++ {
		_, err := c.post(t, n)
		if err == nil {
			return time.Since(began)
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("a minute after all is well again: %v", err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// post writes a message once.
func (c *talk) post(t *testing.T, n int) (status int, err error) {
	text := fmt.Sprint(n, strings.Repeat(" post", 100))
	return c.call(t.Context(), "POST", "/messages", "", map[string]any{"conversationId": c.id, "payload": payload{"text", text}}, &struct{}{})
}

// listen reads the stream of the conversation and comes back whenever it ends.
func (c *talk) listen(ctx context.Context) {
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for ctx.Err() == nil {
		_ = c.follow(ctx) // a cut stream is what this test is about
		<-again.C
	}
}

func (c *talk) follow(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, "GET", c.base+"/conversations/"+url.PathEscape(c.id)+"/listen", nil)
	if err != nil {
		return err
	}
	r.Header.Set("x-user-key", c.key)
	r.Header.Set("last-event-id", c.last)
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	lines := bufio.NewReader(answer.Body)
	var id, data string
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return err
		}
		switch line = strings.TrimSuffix(line, "\n"); {
		case strings.HasPrefix(line, "id:"):
			id = strings.TrimSpace(line[len("id:"):])
		case strings.HasPrefix(line, "data:"):
			data = strings.TrimSpace(line[len("data:"):])
		case line == "" && id != "":
			c.hear(id, data)
			id, data = "", ""
		}
	}
}

func (c *talk) hear(id, data string) {
	var signal struct {
		Type string
		Data struct{ ID string }
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last, c.at = id, append(c.at, id)
	if json.Unmarshal([]byte(data), &signal) == nil && signal.Type == "message_created" {
		c.heard = append(c.heard, signal.Data.ID)
	}
}

type message struct {
	ID        string    `json:"id"`
	UserID    string    `json:"userId"`
	CreatedAt time.Time `json:"createdAt"`
	Payload   payload   `json:"payload"`
}

// messages lists the whole conversation, oldest first.
func (c *talk) messages(ctx context.Context) ([]message, error) {
	var all []message
	path := "/conversations/" + url.PathEscape(c.id) + "/messages"
	for next := ""; ; {
		var page struct {
			Messages []message
			Meta     struct{ NextToken string }
		}
		query := ""
		if next != "" {
			query = "?nextToken=" + url.QueryEscape(next)
		}
		if _, err := c.call(ctx, "GET", path+query, "", struct{}{}, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Messages...)
		if next = page.Meta.NextToken; next == "" {
			slices.Reverse(all)
			return all, nil
		}
	}
}

// check waits until the bot has answered everything and compares.
func (c *talk) check(t *testing.T) {
	t.Helper()
	if c.err != nil {
		t.Errorf("%s: %v", c.name, c.err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		all, err := c.messages(ctx)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		missing, heard := c.unanswered(all), c.sofar()
		if len(missing) == 0 && len(heard) >= len(all) {
			c.compare(t, all, heard)
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			c.compare(t, all, heard)
			t.Fatalf("%s: %d of %d messages are not answered, such as %v; %d of %d heard", c.name, len(missing), len(c.written), missing[:min(5, len(missing))], len(heard), len(all))
		}
	}
}

func (c *talk) sofar() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.heard)
}

// split tells the user's messages from the bot's.
func split(all []message) (user, bot []string) {
	for _, m := range all {
		if own(m) {
			user = append(user, m.Payload.Text)
		} else {
			bot = append(bot, m.Payload.Text)
		}
	}
	return user, bot
}

// own reports whether a message is the writer's; the bot's user carries the id of the bot.
func own(m message) bool { return strings.HasPrefix(m.UserID, "user_") }

func (c *talk) unanswered(all []message) []string {
	_, bot := split(all)
	answered := map[string]bool{}
	for _, text := range bot {
		for _, word := range strings.Fields(text) {
			answered[word] = true
		}
	}
	var missing []string
	for _, text := range c.written {
		if !answered[text] {
			missing = append(missing, text)
		}
	}
	return missing
}

func (c *talk) compare(t *testing.T, all []message, heard []string) {
	t.Helper()
	user, bot := split(all)
	if !slices.Equal(user, c.written) {
		t.Errorf("%s: %d messages acknowledged, %d listed: %s", c.name, len(c.written), len(user), firstDifference(c.written, user))
	}
	if !slices.IsSortedFunc(bot, strings.Compare) || len(slices.Compact(slices.Clone(bot))) != len(bot) {
		t.Errorf("%s: the answers are out of order or doubled: %v", c.name, bot)
	}
	var ids []string
	for _, m := range all {
		ids = append(ids, m.ID)
	}
	if !slices.Equal(heard, ids) {
		t.Errorf("%s: the listener heard %d of %d messages: %s", c.name, len(heard), len(ids), firstDifference(ids, heard))
	}
	t.Logf("%s: %d acknowledged, %d answers", c.name, len(user), len(bot))
}

func firstDifference(want, got []string) string {
	for i := range max(len(want), len(got)) {
		var w, g string
		if i < len(want) {
			w = want[i]
		}
		if i < len(got) {
			g = got[i]
		}
		if w != g {
			return fmt.Sprintf("at %d want %q, got %q", i, w, g)
		}
	}
	return "none"
}
