package messaging

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/internal/auth"
	"parley/internal/endpoint"
	"parley/internal/fault"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// room is a conversation of bot A with a user in it.
type room struct {
	*rig
	id, user string
}

func (r *rig) room() *room {
	r.Helper()
	return &room{r, r.conversation(chatOfA, "channel", `{}`), r.user(chatOfA, `{}`)}
}

// asks posts a text of the user with a query and returns the answer.
func (v *room) asks(query, text string, headers ...string) map[string]any {
	v.Helper()
	status, out := v.do(chatOfA, "POST", "/v1/chat/messages"+query, messageBody(v.id, v.user, text), headers...)
	if status != http.StatusCreated {
		v.Errorf("createMessage%s answered %d %v", query, status, out)
	}
	return out
}

// soon is asks on its own.
func (v *room) soon(query, text string, headers ...string) <-chan map[string]any {
	v.Helper()
	out := make(chan map[string]any, 1)
	go func() { out <- v.asks(query, text, headers...) }()
	return out
}

// says makes the bot say something.
func (v *room) says(text string) map[string]any {
	v.Helper()
	status, out := v.do(botOfA, "POST", "/v1/chat/messages", messageBody(v.id, botA, text))
	if status != http.StatusCreated {
		v.Errorf("the bot's createMessage answered %d %v", status, out)
	}
	m, _ := out["message"].(map[string]any)
	return m
}

// bot is what the bots do with the text of a message.
func (r *rig) bot(handle func(text string) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handle = func(e map[string]any) error {
		m := e["payload"].(map[string]any)["message"].(map[string]any)
		return handle(m["payload"].(map[string]any)["text"].(string))
	}
}

// until waits for a step of a test.
func (r *rig) until(what string, done <-chan struct{}) {
	r.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		r.Errorf("waited in vain: %s", what)
	}
}

// came holds an answer against what must have come.
func (r *rig) came(what string, out map[string]any, finished bool, want ...string) {
	r.Helper()
	replies, ok := out["replies"].([]any)
	got := []string{}
	for _, v := range replies {
		got = append(got, v.(map[string]any)["payload"].(map[string]any)["text"].(string))
	}
	if !ok || out["finished"] != finished || !slices.Equal(got, want) {
		r.Errorf("%s: got %v, want finished %v and %q", what, out, finished, want)
	}
}

// listening waits until n more listen for the end of their event.
func (r *rig) listening(n int) {
	r.Helper()
	for range n {
		r.until("a client waits", r.waits)
	}
}

func TestWhoWaitsGetsTheReplies(t *testing.T) {
	each(t, func(r *rig) {
		v, other := r.room(), r.room()
		var said []any
		r.bot(func(text string) error {
			other.says("elsewhere")
			said = []any{v.says("one: " + text), v.says("two")}
			return nil
		})
		v.says("before")
		out := v.asks("?wait=60", "hi")
		r.came("createMessage", out, true, "one: hi", "two")
		if diff := cmp.Diff(said, out["replies"]); diff != "" {
			r.Errorf("the replies are not as they were made: %s", diff)
		}
		for _, m := range append(said, out["message"]) {
			shown := r.ok(chatOfA, "GET", "/v1/chat/messages/"+m.(map[string]any)["id"].(string), "", "message")
			if diff := cmp.Diff(any(shown), m); diff != "" {
				r.Errorf("getMessage shows another: %s", diff)
			}
		}
		if out := v.asks("", "hi"); len(out) != 1 {
			r.Errorf("without ?wait the answer is %v", out)
		}
		if r.s.waiting.now.Load() != 0 || r.s.Bus.Listening(overTopic("bot:"+botA+":conv:"+v.id)) {
			r.Error("somebody waits still")
		}
	})
}

// What the bot says while it has an earlier message is no reply to the next,
// though it comes after that.
func TestRepliesAreThoseOfTheirOwnMessage(t *testing.T) {
	each(t, func(r *rig) {
		v := r.room()
		begun, posted := make(chan struct{}), make(chan struct{})
		r.bot(func(text string) error {
			if text == "0" {
				close(begun)
				<-posted
				for range 20 { // faster than the clock: their times run ahead of it
					v.says("late")
				}
			}
			v.says("to " + text)
			return nil
		})
		first := v.soon("?wait=60", "0")
		r.until("the bot has the first message", begun)
		var answers []<-chan map[string]any
		for i := range 10 {
			answers = append(answers, v.soon("?wait=60", fmt.Sprint(i+1)))
		}
		r.listening(11)
		v.asks("", "nobody waits")
		close(posted)
		r.came("the first", <-first, true, append(slices.Repeat([]string{"late"}, 20), "to 0")...)
		for i, answer := range answers {
			r.came("a later one", <-answer, true, fmt.Sprint("to ", i+1))
		}
	})
}

func TestATimeThatIsOver(t *testing.T) {
	each(t, func(r *rig) {
		v := r.room()
		said, end := make(chan struct{}), make(chan struct{})
		r.bot(func(text string) error {
			if text == "hi" {
				v.says("so far")
				close(said)
				<-end
			}
			return nil
		})
		key := []string{"Idempotency-Key", "k"}
		patient := v.soon("?wait=60", "hi", key...)
		r.until("the bot says something", said)
		r.settle()
		r.came("a bot that takes longer", v.asks("?wait=0.01", "hi", key...), false, "so far")
		r.came("one who comes behind", v.asks("?wait=0.01", "next"), false)
		close(end)
		r.came("who waits longer", <-patient, true, "so far")
	})
}

func TestRepliesOfABotThatFails(t *testing.T) {
	each(t, func(r *rig) {
		v := r.room()
		tries := 0
		r.bot(func(text string) error {
			v.says("trying")
			if tries++; text == "again" && tries == 2 {
				return nil
			}
			return &endpoint.Error{Class: map[bool]endpoint.Class{true: endpoint.Failed, false: endpoint.Final}[text == "again"], Err: context.DeadlineExceeded}
		})
		// It is tried twice, after two seconds: both have said something.
		r.came("a bot that fails once", v.asks("?wait=60", "again"), true, "trying", "trying")
		r.came("a bot that refuses", v.asks("?wait=60", "refuse"), true, "trying")
	})
}

func TestWhatTheBotIsNotToldOfIsFinished(t *testing.T) {
	each(t, func(r *rig) {
		v := r.room()
		begun, end := make(chan struct{}), make(chan struct{})
		r.bot(func(text string) error {
			if text == "first" {
				close(begun)
				<-end
			}
			return nil
		})
		v.asks("", "first")
		r.until("the bot has the first message", begun)
		deleted := v.soon("?wait=60", "deleted")
		r.listening(1)
		newest := r.pages(chatOfA, "/v1/chat/messages?conversationId="+v.id, "messages", nil)[0]
		r.ok(chatOfA, "DELETE", "/v1/chat/messages/"+newest, "", "")
		close(end)
		r.came("a message that was deleted", <-deleted, true)
	})
}

func TestADeletedConversationEndsTheWait(t *testing.T) {
	each(t, func(r *rig) {
		v := r.room()
		begun, end := make(chan struct{}), make(chan struct{})
		defer close(end)
		r.bot(func(string) error {
			v.says("never shown")
			close(begun)
			<-end
			return nil
		})
		answer := v.soon("?wait=60", "hi")
		r.until("the bot has the message", begun)
		r.listening(1)
		r.ok(chatOfA, "DELETE", "/v1/chat/conversations/"+v.id, "", "")
		r.came("a conversation that is gone", <-answer, true)
	})
}

// The bot's own messages reach nobody who could reply, and a bot does not wait
// for itself.
func TestABotThatWaitsInItsHandler(t *testing.T) {
	each(t, func(r *rig) {
		v := r.room()
		inner := make(chan map[string]any, 1)
		r.bot(func(text string) error {
			if text == "outer" {
				inner <- v.asks("?wait=60", "inner", botKey...)
			}
			v.says("to " + text)
			return nil
		})
		r.came("from inside the handler", func() map[string]any { v.asks("", "outer"); return <-inner }(), false)
		r.idle()
		// With nothing before it, it may wait: from another conversation's handler, or none.
		r.came("from outside", v.asks("?wait=60", "alone", botKey...), true, "to alone")
		status, out := r.do(botOfA, "POST", "/v1/chat/messages?wait=60", messageBody(v.id, botA, "mine"))
		if status != 201 {
			r.Errorf("got %d %v", status, out)
		}
		r.came("a message of the bot", out, false)
	})
}

func TestWaitsOfNoSense(t *testing.T) {
	each(t, func(r *rig) {
		v := r.room()
		body := strings.TrimSuffix(messageBody(v.id, v.user, "hi"), "}")
		for name, c := range map[string]struct{ path, body, message string }{
			"too long":             {"?wait=61", body + "}", "wait must be a number of seconds above 0 and at most 60"},
			"no number":            {"?wait=soon", body + "}", "wait must be a number"},
			"of a scheduled one":   {"?wait=1", body + `,"schedule":{"delay":1000}}`, "wait does not go with schedule"},
			"get or create":        {"/get-or-create?wait=0", body + "}", "wait must be a number"},
			"get or create, later": {"/get-or-create?wait=1", body + `,"schedule":{"delay":1000}}`, "wait does not go with schedule"},
		} {
			status, out := r.do(chatOfA, "POST", "/v1/chat/messages"+c.path, c.body)
			if status != 400 || out["type"] != fault.InvalidPayload.Type || !strings.HasPrefix(out["message"].(string), c.message) {
				r.Errorf("%s: got %d %v", name, status, out)
			}
		}
		if got := r.pages(chatOfA, "/v1/chat/messages", "messages", nil); got != nil {
			r.Errorf("%v was written", got)
		}
	})
}

// A repeated request waits for the same message again; what is kept is the
// answer without replies.
func TestWaitingUnderAnIdempotencyKey(t *testing.T) {
	each(t, func(r *rig) {
		v := r.room()
		begun, end := make(chan struct{}, 10), make(chan struct{})
		r.bot(func(text string) error {
			begun <- struct{}{}
			if text == "hi" {
				<-end
			}
			v.says("to " + text)
			return nil
		})
		key := func(k string) []string { return []string{"Idempotency-Key", k} }
		first := v.soon("?wait=60", "hi", key("k")...)
		r.until("the bot has the message", begun)
		r.listening(1)
		plain := v.asks("", "hi", key("k")...)
		again := v.soon("?wait=60", "hi", key("k")...)
		r.listening(1)
		close(end)
		for name, out := range map[string]map[string]any{"the first": <-first, "its twin": <-again, "one who comes later": v.asks("?wait=60", "hi", key("k")...)} {
			r.came(name, out, true, "to hi")
			if diff := cmp.Diff(plain, map[string]any{"message": out["message"]}); diff != "" {
				r.Errorf("%s got another message: %s", name, diff)
			}
		}
		if out := v.asks("", "hi", key("k")...); len(out) != 1 {
			r.Errorf("the kept answer is %v", out)
		}
		// Nobody waited for this one: its replies are told by the clock.
		v.asks("", "plain", key("k2")...)
		r.idle()
		r.came("a message that nobody waited for", v.asks("?wait=60", "plain", key("k2")...), true, "to plain")
		if n := r.count("SELECT count(*) FROM messages WHERE direction = 'incoming'"); n != 2 {
			r.Errorf("%d messages were made, want 2", n)
		}
	})
}

func TestGetOrCreateMessageWaits(t *testing.T) {
	each(t, func(r *rig) {
		v := r.room()
		r.bot(func(text string) error { v.says("to " + text); return nil })
		body := fmt.Sprintf(`{"conversationId":%q,"userId":%q,"type":"text","payload":{"text":"hi"},"tags":{"id":"1"}}`, v.id, v.user)
		for _, name := range []string{"created", "found"} {
			out := r.ok(chatOfA, "POST", "/v1/chat/messages/get-or-create?wait=60", body, "")
			r.came(name, out, true, "to hi")
		}
		if n := r.count("SELECT count(*) FROM messages"); n != 2 {
			r.Errorf("%d messages, want 2", n)
		}
	})
}

func TestInitializeIncomingMessageWaits(t *testing.T) {
	each(t, func(r *rig) {
		v := r.room()
		r.bot(func(text string) error { v.says("to " + text); return nil })
		body := fmt.Sprintf(`{"userId":%q,"conversationId":%q`, v.user, v.id)
		message := `,"message":{"type":"text","payload":{"text":"hi"},"tags":{"id":"1"},"discriminateByTags":["id"]}`
		for range 2 {
			out := r.ok(chatOfA, "POST", "/v1/chat/initialize-incoming-message?wait=60", body+message+"}", "")
			r.came("initializeIncomingMessage", out, true, "to hi")
			if len(out) != 5 {
				r.Errorf("the answer is %v", out)
			}
		}
		if out := r.ok(chatOfA, "POST", "/v1/chat/initialize-incoming-message", body+message+"}", ""); len(out) != 3 {
			r.Errorf("without ?wait the answer is %v", out)
		}
		status, out := r.do(chatOfA, "POST", "/v1/chat/initialize-incoming-message?wait=60", body+"}")
		if status != 400 || out["message"] != "wait needs a message to wait for; send message" {
			r.Errorf("without a message: %d %v", status, out)
		}
	})
}

func TestAClientThatLeavesEndsItsWait(t *testing.T) {
	each(t, func(r *rig) {
		v := r.room()
		end := make(chan struct{})
		defer close(end)
		r.bot(func(string) error { <-end; return nil })
		ctx, leave := context.WithCancel(t.Context())
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			req := httptest.NewRequestWithContext(ctx, "POST", "/v1/chat/messages?wait=60", strings.NewReader(messageBody(v.id, v.user, "hi")))
			req.Header = http.Header{"Content-Type": {"application/json"}, "X-Bot-Id": {botA}, "X-Integration-Id": {chatA}}
			r.server.ServeHTTP(httptest.NewRecorder(), req)
		}()
		r.listening(1)
		leave()
		r.until("the request ends", gone)
		if n := r.s.waiting.now.Load(); n != 0 {
			r.Errorf("%d wait", n)
		}
		if n := r.count("SELECT count(*) FROM messages"); n != 1 {
			r.Errorf("%d messages, want the one that was written", n)
		}
	})
}

func TestAServerThatStopsEndsWaits(t *testing.T) {
	each(t, func(r *rig) {
		v := r.room()
		begun, end := make(chan struct{}), make(chan struct{})
		defer close(end)
		r.bot(func(string) error { close(begun); <-end; return nil })
		answer := v.soon("?wait=60", "hi")
		r.until("the bot has the message", begun)
		r.listening(1)
		r.s.EndWaits()
		r.came("who waited", <-answer, false)
		r.came("who comes then", v.asks("?wait=60", "hi"), false)
		r.s.EndWaits()
	})
}

func TestTooManyWaitAndTooMuchIsSaid(t *testing.T) {
	each(t, func(r *rig) {
		v := r.room()
		r.bot(func(string) error {
			for i := range maxReplies + 5 {
				v.says(fmt.Sprint(i))
			}
			return nil
		})
		out := v.asks("?wait=60", "hi")
		replies := out["replies"].([]any)
		last := replies[len(replies)-1].(map[string]any)["payload"].(map[string]any)["text"]
		if len(replies) != maxReplies || last != fmt.Sprint(maxReplies-1) || out["finished"] != true {
			r.Errorf("%d replies, the last is %v, finished %v", len(replies), last, out["finished"])
		}
		r.s.waiting.now.Store(maxWaiting)
		r.came("one too many", v.asks("?wait=60", "hi"), false)
		if n := r.s.waiting.now.Load(); n != maxWaiting {
			r.Errorf("%d wait now", n)
		}
	})
}

// One server delivers, on another one waits.
func TestWaitingForAnEventOfAnotherServer(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
		here, there := newRig(t, a), newRig(t, b)
		here.s.MaxAge = time.Second
		v := there.room()
		begun, end := make(chan struct{}), make(chan struct{})
		there.bot(func(string) error {
			close(begun)
			<-end
			v.says("from there")
			return nil
		})
		begin := v.soon("?wait=60", "hi")
		there.until("the bot has the message", begun)
		there.listening(1)
		message := there.pages(chatOfA, "/v1/chat/messages?conversationId="+v.id, "messages", nil)[0]
		c, err := here.s.CallerFor(t.Context(), botA, chatA)
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan Replies, 1)
		go func() {
			got <- here.s.Await(auth.With(t.Context(), auth.Principal{Kind: auth.Person}), c, message, patience)
		}()
		here.listening(1)
		close(end)
		there.came("there", <-begin, true, "from there")
		if r := <-got; !r.Finished || len(r.Messages) != 1 || string(r.Messages[0].Payload) != `{"text":"from there"}` {
			t.Errorf("here: %+v", r)
		}
	})
}

func TestWhatNobodyIsToldOf(t *testing.T) {
	each(t, func(r *rig) {
		c, err := r.s.CallerFor(t.Context(), botA, chatA)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"", "x", "msg_01JD3ZK8B9Q2W5T7Y4X6V8N1M0"} {
			if got := r.s.Await(t.Context(), c, id, time.Minute); got.Finished || got.Messages == nil || len(got.Messages) != 0 {
				r.Errorf("message %q: %+v", id, got)
			}
		}
	})
}
