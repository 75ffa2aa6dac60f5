package messaging

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/internal/api"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/sqldb"
)

func TestAnIncomingMessageReachesTheBotWithEverything(t *testing.T) {
	each(t, func(r *rig) {
		conv := r.conversation(chatOfA, "channel", `{"owner":"u1"}`)
		user := r.user(chatOfA, `{"fid":"u1"}`)
		m := r.message(chatOfA, conv, user, "hi")
		if m["direction"] != "incoming" {
			r.Errorf("direction is %v", m["direction"])
		}
		e := r.await(1)[0]
		if e["type"] != "message_created" || e["status"] != "pending" || e["conversationId"] != conv || e["userId"] != user || e["messageId"] != m["id"] {
			r.Errorf("the bot got %v", e)
		}
		p := e["payload"].(map[string]any)
		if diff := cmp.Diff(m, p["message"]); diff != "" {
			r.Errorf("the message in the event differs: %s", diff)
		}
		if diff := cmp.Diff(map[string]any{"chat:fid": "u1"}, p["user"].(map[string]any)["tags"]); diff != "" {
			r.Errorf("the user's tags in the event: %s", diff)
		}
		if v := p["conversation"].(map[string]any); v["integration"] != "chat" || v["channel"] != "channel" || v["tags"].(map[string]any)["chat:owner"] != "u1" {
			r.Errorf("the conversation in the event is %v", v)
		}
		if who := r.pages(chatOfA, "/v1/chat/conversations/"+conv+"/participants", "participants", nil); !slices.Equal(who, []string{user}) {
			r.Errorf("participants are %v, want %v", who, user)
		}
		if err := r.s.Delivery.Idle(r.Context()); err != nil {
			r.Fatal(err)
		}
		events := r.ok(botOfA, "GET", "/v1/chat/events?messageId="+m["id"].(string), "", "")["events"].([]any)
		if len(events) != 1 || events[0].(map[string]any)["status"] != "processed" {
			r.Errorf("the events of the message are %v", events)
		}
	})
}

func TestOrderWithinAConversation(t *testing.T) {
	each(t, func(r *rig) {
		conv := r.conversation(chatOfA, "channel", `{}`)
		const senders, each = 8, 15
		var wg sync.WaitGroup
		for i := range senders {
			user := r.user(chatOfA, fmt.Sprintf(`{"fid":"u%d"}`, i))
			wg.Go(func() {
				for n := range each {
					if status, out := r.do(chatOfA, "POST", "/v1/chat/messages", messageBody(conv, user, fmt.Sprint(n))); status != 201 {
						r.Errorf("answered %d %v", status, out)
					}
				}
			})
		}
		wg.Wait()
		got := r.await(senders * each)
		var arrived []string
		for _, e := range got {
			arrived = append(arrived, e["messageId"].(string))
		}
		rows, err := sqldb.Select[Message](r.s.DB.Reader(r.Context()), "messages", "WHERE conversation_id = $1 ORDER BY seq", conv)
		if err != nil {
			r.Fatal(err)
		}
		var stored []string
		for i, m := range rows {
			stored = append(stored, m.ID)
			if m.Seq != int64(i+1) {
				r.Errorf("message %d has seq %d", i, m.Seq)
			}
			if i > 0 && (m.CreatedAt <= rows[i-1].CreatedAt || m.Pos <= rows[i-1].Pos || m.ID <= rows[i-1].ID) {
				r.Errorf("message %d does not come after the one before", i)
			}
		}
		if diff := cmp.Diff(stored, arrived); diff != "" {
			r.Errorf("the bot was told in another order: %s", diff)
		}
		listed := r.pages(botOfA, "/v1/chat/messages?conversationId="+conv, "messages", nil)
		slices.Reverse(listed)
		if diff := cmp.Diff(stored, listed); diff != "" {
			r.Errorf("the list has another order: %s", diff)
		}
	})
}

func TestPagesStayStableWhileRowsAreAdded(t *testing.T) {
	each(t, func(r *rig) {
		conv, user := r.conversation(chatOfA, "channel", `{}`), r.user(chatOfA, `{"fid":"u"}`)
		var want []string
		for i := range 65 {
			want = append(want, r.message(chatOfA, conv, user, fmt.Sprint(i))["id"].(string))
		}
		slices.Reverse(want)
		got := r.pages(botOfA, "/v1/chat/messages", "messages", func() { r.message(chatOfA, conv, user, "later") })
		if diff := cmp.Diff(want, got); diff != "" {
			r.Error(diff)
		}
	})
}

func TestTheBotSpeaksAsItself(t *testing.T) {
	each(t, func(r *rig) {
		conv, user := r.conversation(chatOfA, "channel", `{}`), r.user(chatOfA, `{"fid":"u"}`)
		if m := r.message(botOfA, conv, botA, "hello"); m["direction"] != "outgoing" {
			r.Errorf("direction is %v", m["direction"])
		}
		status, out := r.do(botOfA, "POST", "/v1/chat/messages", messageBody(conv, user, "x"))
		want := fmt.Sprintf("User %q is not the bot; to post as this user send x-integration-id", user)
		if status != 400 || out["type"] != "InvalidPayload" || out["message"] != want {
			r.Errorf("got %d %v, want the sentence %q", status, out, want)
		}
		if status, out = r.do(chatOfA, "POST", "/v1/chat/messages", messageBody(conv, botA, "x")); status != 400 || out["type"] != "InvalidPayload" {
			r.Errorf("an integration that posts as the bot got %d %v", status, out)
		}
		if got := r.pages(botOfA, "/v1/chat/messages", "messages", nil); len(got) != 1 {
			r.Errorf("%d messages were stored, want 1", len(got))
		}
	})
}

// Every operation on messages, with the ids of others.
func TestMessagesOfOthersDoNotExist(t *testing.T) {
	each(t, func(r *rig) {
		conv, user := r.conversation(chatOfA, "channel", `{}`), r.user(chatOfA, `{"fid":"u"}`)
		m := r.message(chatOfA, conv, user, "secret")["id"].(string)
		hookConv, hookUser := r.conversation(hookOfA, "hook", `{}`), r.user(hookOfA, `{"id":"u"}`)
		for _, c := range []struct {
			name, method, path, body string
			who                      as
			kind                     *fault.Kind
			message                  string
		}{
			{"get, other bot", "GET", "/v1/chat/messages/" + m, "", botOfB, fault.ResourceNotFound, fmt.Sprintf("Message %q doesn't exist for bot %q", m, botB)},
			{"get, other installation", "GET", "/v1/chat/messages/" + m, "", hookOfA, fault.ResourceNotFound, fmt.Sprintf("Message %q doesn't exist for bot %q", m, botA)},
			{"get, unknown", "GET", "/v1/chat/messages/" + id.New("msg"), "", botOfA, fault.ResourceNotFound, ""},
			{"get, garbage", "GET", "/v1/chat/messages/%2e%2e%2fx", "", botOfA, fault.ResourceNotFound, ""},
			{"update, other bot", "PUT", "/v1/chat/messages/" + m, `{"tags":{"ab":"1"}}`, botOfB, fault.ResourceNotFound, ""},
			{"delete, other bot", "DELETE", "/v1/chat/messages/" + m, "", botOfB, fault.ResourceNotFound, ""},
			{"delete, other installation", "DELETE", "/v1/chat/messages/" + m, "", hookOfA, fault.ResourceNotFound, ""},
			{"list of another bot's conversation", "GET", "/v1/chat/messages?conversationId=" + conv, "", botOfB, fault.ReferenceNotFound, fmt.Sprintf("Conversation %q doesn't exist for bot %q", conv, botB)},
			{"list, malformed id", "GET", "/v1/chat/messages?conversationId=your_conversation_id", "", botOfA, fault.InvalidPayload, "The provided UUID is invalid"},
			{"create in another bot's conversation", "POST", "/v1/chat/messages", messageBody(conv, botB, "x"), botOfB, fault.ReferenceNotFound, fmt.Sprintf("Conversation %q doesn't exist for bot %q", conv, botB)},
			{"create in another installation's conversation", "POST", "/v1/chat/messages", messageBody(conv, hookUser, "x"), hookOfA, fault.ReferenceNotFound, ""},
			{"create as another installation's user", "POST", "/v1/chat/messages", messageBody(hookConv, user, "x"), hookOfA, fault.ReferenceNotFound, fmt.Sprintf("User %q doesn't exist for bot %q", user, botA)},
			{"create as an unknown user", "POST", "/v1/chat/messages", messageBody(conv, "7caa8576-f1f5-4108-9011-2280af3af42c", "x"), chatOfA, fault.ReferenceNotFound, fmt.Sprintf("User %q doesn't exist for bot %q", "7caa8576-f1f5-4108-9011-2280af3af42c", botA)},
			{"create in a malformed conversation", "POST", "/v1/chat/messages", messageBody("your_conversation_id", user, "x"), chatOfA, fault.InvalidPayload, "The provided UUID is invalid"},
		} {
			status, out := r.do(c.who, c.method, c.path, c.body)
			if status != c.kind.Status || out["type"] != c.kind.Type || !strings.HasPrefix(out["message"].(string), c.message) {
				r.Errorf("%s: got %d %v, want %s %q", c.name, status, out, c.kind.Type, c.message)
			}
		}
		if got := r.pages(botOfB, "/v1/chat/messages", "messages", nil); got != nil {
			r.Errorf("bot B lists %v", got)
		}
		if got := r.pages(hookOfA, "/v1/chat/messages", "messages", nil); got != nil {
			r.Errorf("the other installation lists %v", got)
		}
		if got := r.pages(chatOfA, "/v1/chat/messages", "messages", nil); !slices.Equal(got, []string{m}) {
			r.Errorf("the installation lists %v, want %v", got, m)
		}
	})
}

func TestBadMessagesChangeNothing(t *testing.T) {
	each(t, func(r *rig) {
		conv, user := r.conversation(chatOfA, "channel", `{}`), r.user(chatOfA, `{"fid":"u"}`)
		good := messageBody(conv, user, "x")
		for name, c := range map[string]struct {
			body   string
			status int
			kind   string
			says   string
		}{
			"truncated":               {good[:len(good)-3], 400, "InvalidPayload", ""},
			"not an object":           {`[]`, 400, "InvalidPayload", ""},
			"empty":                   {`{}`, 400, "InvalidPayload", "required"},
			"unknown member":          {strings.Replace(good, `{`, `{"foo":1,`, 1), 400, "InvalidPayload", "foo"},
			"mass assignment":         {strings.Replace(good, `{`, `{"direction":"outgoing",`, 1), 400, "InvalidPayload", "direction"},
			"payload is no object":    {strings.Replace(good, `{"text":"x"}`, `"x"`, 1), 400, "InvalidPayload", "payload"},
			"type is a number":        {strings.Replace(good, `"text",`, `7,`, 1), 400, "InvalidPayload", "type"},
			"empty type":              {strings.Replace(good, `"type":"text"`, `"type":""`, 1), 400, "InvalidPayload", "type"},
			"long type":               {strings.Replace(good, `"type":"text"`, `"type":"`+strings.Repeat("t", 201)+`"`, 1), 400, "InvalidPayload", "type"},
			"tag value is no string":  {strings.Replace(good, `"tags":{}`, `"tags":{"ab":1}`, 1), 400, "InvalidPayload", "tags"},
			"tag of another owner":    {strings.Replace(good, `"tags":{}`, `"tags":{"acme/hooky:id":"1"}`, 1), 400, "InvalidPayload", "acme/hooky:id"},
			"bad tag key":             {strings.Replace(good, `"tags":{}`, `"tags":{"A b":"1"}`, 1), 400, "InvalidIdentifier", "A b"},
			"unknown origin":          {strings.Replace(good, `{`, `{"origin":"x",`, 1), 400, "InvalidPayload", "origin"},
			"empty schedule":          {strings.Replace(good, `{`, `{"schedule":{},`, 1), 400, "InvalidPayload", "schedule"},
			"payload over 128 KB":     {strings.Replace(good, `"text":"x"`, `"text":"`+strings.Repeat("x", MaxPayload)+`"`, 1), 413, "PayloadTooLarge", "payload"},
			"body over 1 MB":          {strings.Replace(good, `"text":"x"`, `"text":"`+strings.Repeat("x", 2<<20)+`"`, 1), 413, "PayloadTooLarge", ""},
			"deep payload":            {strings.Replace(good, `{"text":"x"}`, strings.Repeat(`{"a":`, 5000)+"1"+strings.Repeat("}", 5000), 1), 400, "InvalidPayload", ""},
			"duplicate member":        {strings.Replace(good, `{`, `{"type":"text",`, 1), 400, "InvalidPayload", "type"},
			"zero byte in an id":      {strings.Replace(good, conv, conv[:30]+`\u0000`, 1), 400, "InvalidPayload", "conversationId"},
			"zero byte in the type":   {strings.Replace(good, `"type":"text"`, `"type":"a\u0000b"`, 1), 400, "InvalidPayload", ""},
			"lone surrogate":          {strings.Replace(good, `"text":"x"`, `"text":"\ud800"`, 1), 400, "InvalidPayload", ""},
			"second value after body": {good + "{}", 400, "InvalidPayload", ""},
		} {
			status, out := r.do(chatOfA, "POST", "/v1/chat/messages", c.body)
			if status != c.status || out["type"] != c.kind || !strings.Contains(out["message"].(string), c.says) {
				r.Errorf("%s: got %d %v, want %d %s with %q", name, status, out, c.status, c.kind, c.says)
			}
		}
		if got := r.pages(botOfA, "/v1/chat/messages", "messages", nil); got != nil {
			r.Errorf("refused messages were stored: %v", got)
		}
		if got := r.pages(botOfA, "/v1/chat/events", "events", nil); got != nil {
			r.Errorf("refused messages made events: %v", got)
		}
	})
}

func TestARepeatedKeyDoublesNothing(t *testing.T) {
	each(t, func(r *rig) {
		conv, user := r.conversation(chatOfA, "channel", `{}`), r.user(chatOfA, `{"fid":"u"}`)
		body := messageBody(conv, user, "once")
		answers := make([]map[string]any, 12)
		var wg sync.WaitGroup
		for i := range answers {
			wg.Go(func() {
				status := 409
				for status == 409 { // an in-flight twin
					status, answers[i] = r.do(chatOfA, "POST", "/v1/chat/messages", body, "Idempotency-Key", "k1")
				}
				if status != 201 {
					r.Errorf("answered %d %v", status, answers[i])
				}
			})
		}
		wg.Wait()
		for _, a := range answers[1:] {
			if diff := cmp.Diff(answers[0], a); diff != "" {
				r.Errorf("the answers differ: %s", diff)
			}
		}
		if got := r.pages(botOfA, "/v1/chat/messages", "messages", nil); len(got) != 1 {
			r.Errorf("%d messages, want 1", len(got))
		}
		if status, out := r.do(chatOfA, "POST", "/v1/chat/messages", messageBody(conv, user, "other"), "Idempotency-Key", "k1"); status != 400 || !strings.Contains(out["message"].(string), "Idempotency-Key") {
			r.Errorf("another request under the key got %d %v", status, out)
		}
	})
}

func TestGetOrCreateMessage(t *testing.T) {
	each(t, func(r *rig) {
		conv, user := r.conversation(hookOfA, "hook", `{}`), r.user(hookOfA, `{"id":"u"}`)
		other := r.conversation(hookOfA, "hook", `{"id":"2"}`)
		with := func(conv, tags, more string) map[string]any {
			body := strings.Replace(messageBody(conv, user, "x"), `"tags":{}`, `"tags":`+tags+more, 1)
			return r.ok(hookOfA, "POST", "/v1/chat/messages/get-or-create", body, "message")
		}
		first := with(conv, `{"id":"m1","lang":"en"}`, "")
		for _, c := range []struct {
			conv, tags, more string
			same             bool
		}{
			{conv, `{"id":"m1","lang":"en"}`, "", true},
			{conv, `{"id":"m1","lang":"fr"}`, `,"discriminateByTags":["id"]`, true},
			{conv, `{"id":"m1"}`, "", false},
			{conv, `{"id":"m2","lang":"en"}`, "", false},
			{other, `{"id":"m1","lang":"en"}`, "", false},
		} {
			if got := with(c.conv, c.tags, c.more); (got["id"] == first["id"]) != c.same {
				r.Errorf("%s%s in %s: same is %v, want %v", c.tags, c.more, c.conv, !c.same, c.same)
			}
		}
	})
}

func TestADeletedMessageIsGoneAndNotDelivered(t *testing.T) {
	each(t, func(r *rig) {
		conv, user := r.conversation(chatOfA, "channel", `{}`), r.user(chatOfA, `{"fid":"u"}`)
		m := r.message(chatOfA, conv, user, "x")["id"].(string)
		r.await(1)
		r.ok(chatOfA, "DELETE", "/v1/chat/messages/"+m, "", "")
		if status, _ := r.do(chatOfA, "GET", "/v1/chat/messages/"+m, ""); status != 404 {
			r.Errorf("a deleted message answers %d", status)
		}
		e := r.ok(botOfA, "GET", "/v1/chat/events", "", "")["events"].([]any)[0].(map[string]any)
		if _, there := e["payload"].(map[string]any)["message"]; there {
			r.Errorf("the event still shows the message: %v", e)
		}
		q := r.s.DB.Reader(r.Context())
		signals, _, err := r.s.Signals(q, conv, 0, 100)
		if err != nil {
			r.Fatal(err)
		}
		var types []string
		for _, g := range signals {
			types = append(types, g.Type)
		}
		if diff := cmp.Diff([]string{ParticipantAdded, MessageDeleted}, types); diff != "" {
			r.Errorf("signals: %s", diff)
		}
	})
}

func TestUpdateMessageMergesTags(t *testing.T) {
	each(t, func(r *rig) {
		conv, user := r.conversation(hookOfA, "hook", `{}`), r.user(hookOfA, `{"id":"u"}`)
		m := r.message(hookOfA, conv, user, "x")["id"].(string)
		path := "/v1/chat/messages/" + m
		r.ok(hookOfA, "PUT", path, `{"tags":{"id":"1","lang":"en"}}`, "message")
		got := r.ok(botOfA, "PUT", path, `{"tags":{"mine":"2","acme/hooky:id":"1"},"payload":{"text":"y"}}`, "message")
		if diff := cmp.Diff(map[string]any{"acme/hooky:id": "1", "acme/hooky:lang": "en", "mine": "2"}, got["tags"]); diff != "" {
			r.Error(diff)
		}
		got = r.ok(hookOfA, "PUT", path, `{"tags":{"id":null,"lang":""}}`, "message")
		if diff := cmp.Diff(map[string]any{}, got["tags"]); diff != "" {
			r.Error(diff)
		}
		if text, _ := json.Marshal(got["payload"]); string(text) != `{"text":"y"}` {
			r.Errorf("payload is %s", text)
		}
		if n := len(r.pages(botOfA, "/v1/chat/messages?tags.acme/hooky%3Aid=1", "messages", nil)); n != 0 {
			r.Errorf("a removed tag still finds %d", n)
		}
		if n := len(r.pages(botOfA, "/v1/chat/messages?tags[mine]=2", "messages", nil)); n != 1 {
			r.Errorf("the bot's tag finds %d, want 1", n)
		}
	})
}

func TestInitializeIncomingMessage(t *testing.T) {
	each(t, func(r *rig) {
		body := `{"user":{"tags":{"id":"u1"},"name":"Bob","discriminateByTags":["id"]},"conversation":{"channel":"hook","tags":{"id":"c1"},"discriminateByTags":["id"]},
			"message":{"type":"text","payload":{"text":"hi"},"tags":{"id":"m1"},"discriminateByTags":["id"]}}`
		first := r.ok(hookOfA, "POST", "/v1/chat/initialize-incoming-message", body, "")
		again := r.ok(hookOfA, "POST", "/v1/chat/initialize-incoming-message", body, "")
		if diff := cmp.Diff(first, again); diff != "" {
			r.Errorf("the second call made something new: %s", diff)
		}
		if e := r.await(1); len(e) != 1 || e[0]["messageId"] != first["message"].(map[string]any)["id"] {
			r.Errorf("the bot got %v", e)
		}
		userID, conversationID := first["user"].(map[string]any)["id"].(string), first["conversation"].(map[string]any)["id"].(string)
		known := r.ok(hookOfA, "POST", "/v1/chat/initialize-incoming-message", fmt.Sprintf(`{"userId":%q,"conversationId":%q}`, userID, conversationID), "")
		if _, made := known["message"]; made || known["user"].(map[string]any)["id"] != userID {
			r.Errorf("known ids gave %v", known)
		}
		for name, c := range map[string]struct {
			who  as
			body string
			kind string
		}{
			"as the bot":           {botOfA, body, "Forbidden"},
			"nothing":              {hookOfA, `{}`, "InvalidPayload"},
			"user twice":           {hookOfA, strings.Replace(body, `{`, fmt.Sprintf(`{"userId":%q,`, userID), 1), "InvalidPayload"},
			"unknown user":         {hookOfA, fmt.Sprintf(`{"userId":%q,"conversationId":%q}`, id.New("user"), conversationID), "ReferenceNotFound"},
			"unknown conversation": {hookOfA, fmt.Sprintf(`{"userId":%q,"conversationId":%q}`, userID, id.New("conv")), "ReferenceNotFound"},
			"foreign user":         {hookOfA, fmt.Sprintf(`{"userId":%q,"conversationId":%q}`, r.user(chatOfA, `{"fid":"x"}`), conversationID), "ReferenceNotFound"},
		} {
			if status, out := r.do(c.who, "POST", "/v1/chat/initialize-incoming-message", c.body); status < 400 || out["type"] != c.kind {
				r.Errorf("%s: got %d %v, want %s", name, status, out, c.kind)
			}
		}
	})
}

// Clients sort by createdAt: it goes on growing while the clock stands still or is set back.
func TestTimeGrowsWhateverTheClockSays(t *testing.T) {
	each(t, func(r *rig) {
		var clock atomic.Int64
		clock.Store(time.Now().UnixMilli())
		cfg := r.s.Config
		cfg.Now = func() time.Time { return time.UnixMilli(clock.Load()) }
		s, err := New(cfg)
		if err != nil {
			r.Fatal(err)
		}
		defer s.Close()
		user, conversation := r.user(chatOfA, `{"fid":"u"}`), r.conversation(chatOfA, "channel", `{}`)
		c := r.caller(chatOfA)
		var texts []string
		var last api.Time
		for n, step := range []int64{0, 0, -3_600_000, 0, 1, 7_200_000, -1} {
			clock.Add(step)
			texts = append(texts, fmt.Sprint(n))
			r.write(func(tx *sqldb.Tx) error {
				m, err := s.AddMessage(tx, c, NewMessage{ConversationID: conversation, UserID: user, Type: "text", Payload: api.Object(fmt.Sprintf(`{"text":"%d"}`, n))})
				if err == nil && m.CreatedAt <= last {
					r.Errorf("message %d has createdAt %d after %d", n, m.CreatedAt, last)
				}
				if err == nil {
					last = m.CreatedAt
				}
				return err
			})
		}
		var listed []string
		for _, m := range r.ok(botOfA, "GET", "/v1/chat/messages?conversationId="+conversation, "", "")["messages"].([]any) {
			listed = append(listed, m.(map[string]any)["payload"].(map[string]any)["text"].(string))
		}
		slices.Reverse(listed)
		if !slices.Equal(listed, texts) {
			r.Errorf("listed %q, want %q", listed, texts)
		}
		var delivered []string
		for _, e := range r.await(len(texts)) {
			delivered = append(delivered, e["payload"].(map[string]any)["message"].(map[string]any)["payload"].(map[string]any)["text"].(string))
		}
		if !slices.Equal(delivered, texts) {
			r.Errorf("delivered %q, want %q", delivered, texts)
		}
	})
}
