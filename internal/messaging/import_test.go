package messaging

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/internal/id"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

const importPath = "/v1/chat/messages/import-messages"

// imported is one message of an import.
func imported(conversation, user, fid, createdAt string) string {
	return fmt.Sprintf(`{"conversationId":%q,"userId":%q,"type":"text","payload":{"text":%q},"tags":{"fid":%q,"lang":"en"},"createdAt":%q,"discriminateByTags":["fid"]}`,
		conversation, user, "text of "+fid, fid, createdAt)
}

func importBody(messages ...string) string {
	return `{"messages":[` + strings.Join(messages, ",") + `]}`
}

func (r *rig) imports(who as, messages ...string) []map[string]any {
	r.Helper()
	var out []map[string]any
	for _, m := range r.ok(who, "POST", importPath, importBody(messages...), "")["messages"].([]any) {
		out = append(out, m.(map[string]any))
	}
	return out
}

func TestImportedMessagesAreHistory(t *testing.T) {
	each(t, func(r *rig) {
		conv, user := r.conversation(hookOfA, "hook", `{}`), r.user(hookOfA, `{"id":"u"}`)
		other := r.conversation(hookOfA, "hook", `{}`)
		got := r.imports(hookOfA,
			imported(conv, user, "m2", "2020-01-02T00:00:00.000Z"),
			imported(conv, botA, "m1", "2020-01-01T12:00:00.123+02:00"),
			imported(other, user, "m3", "1970-01-01T00:00:00.000Z"),
		)
		want := map[string]any{
			"id": got[0]["id"], "createdAt": "2020-01-02T00:00:00.000Z", "updatedAt": "2020-01-02T00:00:00.000Z", "type": "text", "payload": map[string]any{"text": "text of m2"},
			"direction": "incoming", "userId": user, "conversationId": conv, "tags": map[string]any{"fid": "m2", "lang": "en"},
		}
		if diff := cmp.Diff(want, got[0]); diff != "" {
			r.Error(diff)
		}
		if got[1]["direction"] != "outgoing" || got[1]["createdAt"] != "2020-01-01T10:00:00.123Z" || got[2]["createdAt"] != "1970-01-01T00:00:00.000Z" {
			r.Errorf("imported %v", got[1:])
		}
		for _, m := range got {
			if mid := m["id"].(string); !id.Valid(mid) || cmp.Diff(m, r.ok(hookOfA, "GET", "/v1/chat/messages/"+mid, "", "message")) != "" {
				r.Errorf("read back %s", cmp.Diff(m, r.ok(hookOfA, "GET", "/v1/chat/messages/"+mid, "", "message")))
			}
		}
		// They lie before what is said now, in every list.
		live := r.message(hookOfA, conv, user, "now")["id"].(string)
		ids := []string{live, got[0]["id"].(string), got[1]["id"].(string)}
		if diff := cmp.Diff(ids, r.pages(hookOfA, "/v1/chat/messages?conversationId="+conv, "messages", nil)); diff != "" {
			r.Error(diff)
		}
		if diff := cmp.Diff(append(ids, got[2]["id"].(string)), r.pages(botOfA, "/v1/chat/messages", "messages", nil)); diff != "" {
			r.Error(diff)
		}
		if found := r.pages(botOfA, "/v1/chat/messages?tags.acme/hooky%3Afid=m1", "messages", nil); len(found) != 1 || found[0] != got[1]["id"] {
			r.Errorf("the tag finds %v", found)
		}
		// The author takes part, and nobody was told of anything.
		r.ok(hookOfA, "GET", "/v1/chat/conversations/"+other+"/participants/"+user, "", "participant")
		if events := r.await(1); len(events) != 1 || events[0]["messageId"] != live {
			r.Errorf("the bot got %v", events)
		}
		r.mu.Lock()
		if len(r.signals) != 1 || r.signals[0].Pos != 1 || r.signals[0].Message.Seq != 1 {
			r.Errorf("the listeners got %d signals", len(r.signals))
		}
		r.mu.Unlock()
		signals, upTo, err := r.s.Signals(r.s.DB.Reader(r.Context()), conv, 0, 100)
		if err != nil || len(signals) != 1 || upTo != 1 {
			r.Errorf("the log replays %d signals up to %d, %v", len(signals), upTo, err)
		}
		if n := r.pages(botOfA, "/v1/chat/events", "events", nil); len(n) != 1 {
			r.Errorf("there are %d events", len(n))
		}
	})
}

func TestARepeatedImportDoublesNothing(t *testing.T) {
	each(t, func(r *rig) {
		conv, user := r.conversation(hookOfA, "hook", `{}`), r.user(hookOfA, `{"id":"u"}`)
		other := r.conversation(hookOfA, "hook", `{}`)
		at := "2020-01-01T00:00:00.000Z"
		first := r.imports(hookOfA, imported(conv, user, "a1", at), imported(conv, user, "a2", at), imported(conv, user, "a1", at), imported(other, user, "a1", at))
		if first[0]["id"] != first[2]["id"] || first[0]["id"] == first[1]["id"] || first[0]["id"] == first[3]["id"] {
			r.Fatalf("imported %v", first)
		}
		again := r.imports(hookOfA, imported(conv, user, "a2", "2021-01-01T00:00:00.000Z"), imported(conv, user, "a3", at), imported(conv, user, "a1", at))
		if again[0]["id"] != first[1]["id"] || again[0]["createdAt"] != at || again[2]["id"] != first[0]["id"] {
			r.Errorf("imported again %v", again)
		}
		live := r.ok(hookOfA, "POST", "/v1/chat/messages/get-or-create", strings.Replace(messageBody(conv, user, "x"), `"tags":{}`, `"tags":{"fid":"a3"},"discriminateByTags":["fid"]`, 1), "message")
		if live["id"] != again[1]["id"] {
			r.Error("a get-or-create did not find the imported message")
		}
		if n := len(r.pages(hookOfA, "/v1/chat/messages?conversationId="+conv, "messages", nil)); n != 3 {
			r.Errorf("there are %d messages, want 3", n)
		}
		// Without names, all of the caller's tags have to be the same.
		whole := strings.Replace(imported(conv, user, "a1", at), `["fid"]`, `[]`, 1)
		if got := r.imports(hookOfA, whole, strings.Replace(whole, `,"lang":"en"`, "", 1)); got[0]["id"] != first[0]["id"] || got[1]["id"] == first[0]["id"] {
			r.Errorf("by all tags: %v", got)
		}
		// The bot's tags are its own: the same value is another message.
		mine := r.imports(botOfA, imported(conv, user, "a1", at))
		if mine[0]["id"] == first[0]["id"] || mine[0]["direction"] != "incoming" {
			r.Errorf("the bot imported %v", mine)
		}
		if got := r.ok(hookOfA, "POST", importPath, `{"messages":[]}`, "")["messages"].([]any); len(got) != 0 {
			r.Errorf("nothing imports %v", got)
		}
	})
}

// Many import the same at once, in different orders; on PostgreSQL through two nodes.
func TestImportsRace(t *testing.T) {
	t.Parallel()
	race := func(t *testing.T, rigs ...*rig) {
		r := rigs[0]
		user := r.user(hookOfA, `{"id":"u"}`)
		var messages []string
		for n := range 4 {
			conv := r.conversation(hookOfA, "hook", `{}`)
			for m := range 5 {
				messages = append(messages, imported(conv, user, fmt.Sprintf("m%d", m), fmt.Sprintf("2020-01-0%dT00:00:00.000Z", n+1)))
			}
		}
		var wg sync.WaitGroup
		for n := range 24 {
			wg.Go(func() {
				mine := append(append([]string{}, messages[n%len(messages):]...), messages[:n%len(messages)]...)
				if n%2 == 0 {
					for i, j := 0, len(mine)-1; i < j; i, j = i+1, j-1 {
						mine[i], mine[j] = mine[j], mine[i]
					}
				}
				if status, out := rigs[n%len(rigs)].do(hookOfA, "POST", importPath, importBody(mine...)); status != 200 {
					t.Errorf("import answered %d %v", status, out)
				}
			})
		}
		wg.Wait()
		if n := len(r.pages(hookOfA, "/v1/chat/messages", "messages", nil)); n != len(messages) {
			t.Errorf("there are %d messages, want %d", n, len(messages))
		}
	}
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) { race(t, newRig(t, db)) })
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) { race(t, newRig(t, a), newRig(t, b)) })
}

func TestBadImportsImportNothing(t *testing.T) {
	each(t, func(r *rig) {
		conv, user := r.conversation(hookOfA, "hook", `{}`), r.user(hookOfA, `{"id":"u"}`)
		chatConv, chatUser := r.conversation(chatOfA, "channel", `{}`), r.user(chatOfA, `{"fid":"u"}`)
		past := "2020-01-01T00:00:00.000Z"
		good := imported(conv, user, "ok", past)
		swap := func(old, with string) string {
			if !strings.Contains(good, old) {
				r.Fatalf("%s is not in %s", old, good)
			}
			return strings.Replace(good, old, with, 1)
		}
		many := func(n, tags int) []string {
			var out []string
			for i := range n {
				var b strings.Builder
				for k := range tags {
					fmt.Fprintf(&b, `,"tag%02d":"x"`, k)
				}
				out = append(out, strings.Replace(imported(conv, user, fmt.Sprint("m", i), past), `,"lang":"en"`, b.String(), 1))
			}
			return out
		}
		for name, c := range map[string]struct {
			messages []string
			status   int
			says     string
		}{
			"an unknown author":            {[]string{good, swap(user, id.New("user"))}, 400, "messages[1].userId: User "},
			"another installation's user":  {[]string{swap(user, chatUser)}, 400, "messages[0].userId: User "},
			"an unknown conversation":      {[]string{good, good, good, swap(conv, id.New("conv"))}, 400, "messages[3].conversationId: Conversation "},
			"another's conversation":       {[]string{good, swap(conv, chatConv)}, 400, "messages[1].conversationId: Conversation "},
			"an id that is none":           {[]string{good, swap(user, "x")}, 400, "messages[1].userId"},
			"a time that is none":          {[]string{good, swap(past, "yesterday")}, 400, "messages[1].createdAt"},
			"a time before 1970":           {[]string{good, swap(past, "1969-12-31T23:59:59.999Z")}, 400, "messages[1].createdAt must not be before 1970"},
			"a time to come":               {[]string{good, swap(past, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))}, 400, "messages[1].createdAt lies in the future"},
			"no time":                      {[]string{good, swap(`"createdAt":"`+past+`",`, "")}, 400, "messages[1].createdAt is required"},
			"no discriminator member":      {[]string{swap(`,"discriminateByTags":["fid"]`, "")}, 400, "messages[0].discriminateByTags is required"},
			"a discriminator that is none": {[]string{good, swap(`["fid"]`, `["id"]`)}, 400, `messages[1].discriminateByTags[0] names "id"`},
			"nothing to be told apart by":  {[]string{good, swap(`{"fid":"ok","lang":"en"}`, `{}`)}, 400, "messages[1].discriminateByTags[0]"},
			"no tags at all":               {[]string{strings.Replace(swap(`{"fid":"ok","lang":"en"}`, `{}`), `["fid"]`, `[]`, 1)}, 400, "messages[0].tags must hold at least one tag"},
			"a long tag":                   {[]string{good, swap(`"ok"`, `"`+strings.Repeat("x", 501)+`"`)}, 400, "messages[1].tags.fid must have at most 500 characters"},
			"another's tag":                {[]string{good, swap(`"lang"`, `"chat:lang"`)}, 400, "messages[1].tags.chat:lang"},
			"a bad key":                    {[]string{good, swap(`"lang"`, `"Lang"`)}, 400, "messages[1].tags: "},
			"an empty type":                {[]string{good, swap(`"type":"text"`, `"type":""`)}, 400, "messages[1].type must not be empty"},
			"a long type":                  {[]string{good, swap(`"type":"text"`, `"type":"`+strings.Repeat("t", 201)+`"`)}, 400, "messages[1].type"},
			"a payload that is none":       {[]string{good, swap(`{"text":"text of ok"}`, `"x"`)}, 400, "messages[1].payload"},
			"a large payload":              {[]string{good, swap("text of ok", strings.Repeat("x", MaxPayload))}, 413, "messages[1].payload has"},
			"a direction":                  {[]string{swap(`"type":"text"`, `"type":"text","direction":"incoming"`)}, 400, "direction"},
			"101 messages":                 {many(101, 0), 400, "messages"},
			"too many rows":                {many(100, 5), 413, "messages would write"},
		} {
			status, out := r.do(hookOfA, "POST", importPath, importBody(c.messages...))
			if status != c.status || !strings.Contains(out["message"].(string), c.says) {
				r.Errorf("%s: got %d %v, want %q", name, status, out, c.says)
			}
		}
		for body, says := range map[string]string{`{}`: "messages is required", `{"messages":{}}`: "messages must be an array", `{"messages":[null]}`: "messages[0] must not be null"} {
			if status, out := r.do(hookOfA, "POST", importPath, body); status != 400 || !strings.Contains(out["message"].(string), says) {
				r.Errorf("%s: got %d %v", body, status, out)
			}
		}
		if status, out := r.do(botOfB, "POST", importPath, importBody(good)); status != 400 || out["type"] != "ReferenceNotFound" {
			r.Errorf("another bot: %d %v", status, out)
		}
		if n := r.pages(botOfA, "/v1/chat/messages", "messages", nil); len(n) != 0 {
			r.Errorf("%d messages came in all the same", len(n))
		}
		if got := r.imports(hookOfA, many(100, 2)...); len(got) != 100 {
			r.Errorf("imported %d of 100", len(got))
		}
	})
}

func TestAGetOrCreateFindsAMessageAmongManyLikeIt(t *testing.T) {
	each(t, func(r *rig) {
		user := r.user(hookOfA, `{"id":"u"}`)
		conv, other := r.conversation(hookOfA, "hook", `{}`), r.conversation(hookOfA, "hook", `{}`)
		want := r.imports(hookOfA, imported(conv, user, "old", "2020-01-01T00:00:00.000Z"))[0]["id"]
		for n := range 6 {
			var messages []string
			for i := range 100 {
				messages = append(messages, imported(other, user, fmt.Sprint(n, " ", i), "2021-01-01T00:00:00.000Z"))
			}
			r.imports(hookOfA, messages...)
		}
		body := strings.Replace(messageBody(conv, user, "x"), `"tags":{}`, `"tags":{"lang":"en"},"discriminateByTags":["lang"]`, 1)
		if got := r.ok(hookOfA, "POST", "/v1/chat/messages/get-or-create", body, "message"); got["id"] != want {
			r.Errorf("found %v, want %v", got["id"], want)
		}
	})
}
