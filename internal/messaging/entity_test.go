package messaging

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/internal/id"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

func TestUsers(t *testing.T) {
	each(t, func(r *rig) {
		u := r.ok(chatOfA, "POST", "/v1/chat/users", `{"tags":{"fid":"u1","profile":"`+strings.Repeat("p", 1000)+`"},"name":"Bob","pictureUrl":"https://x/y.png"}`, "user")
		path := "/v1/chat/users/" + u["id"].(string)
		if got := r.ok(chatOfA, "GET", path, "", "user"); cmp.Diff(u, got) != "" {
			r.Errorf("read back: %s", cmp.Diff(u, got))
		}
		got := r.ok(botOfA, "PUT", path, `{"tags":{"tier":"gold"},"name":null,"pictureUrl":"z"}`, "user")
		if _, named := got["name"]; named || got["pictureUrl"] != "z" || got["tags"].(map[string]any)["tier"] != "gold" || got["tags"].(map[string]any)["chat:fid"] != "u1" {
			r.Errorf("the bot's update gave %v", got)
		}
		if tags := r.ok(chatOfA, "GET", path, "", "user")["tags"].(map[string]any); tags["tier"] != nil {
			r.Errorf("the installation sees the bot's tag: %v", tags)
		}
		for name, c := range map[string]struct {
			who        as
			query      string
			want, asks int
		}{
			"dots":                       {botOfA, "?tags.chat%3Afid=u1", 1, 200},
			"brackets":                   {botOfA, "?tags[chat:fid]=u1", 1, 200},
			"bare as the installation":   {chatOfA, "?tags.fid=u1", 1, 200},
			"bare as the bot":            {botOfA, "?tags.fid=u1", 0, 200},
			"two tags":                   {botOfA, "?tags.chat%3Afid=u1&tags.tier=gold", 1, 200},
			"two tags, one wrong":        {botOfA, "?tags.chat%3Afid=u1&tags.tier=silver", 0, 200},
			"unknown alias":              {botOfA, "?tags.slack%3Afid=u1", 0, 200},
			"another bot":                {botOfB, "?tags.chat%3Afid=u1", 0, 200},
			"another installation":       {hookOfA, "", 0, 200},
			"everybody but the bot":      {botOfA, "", 1, 200},
			"before the beginning":       {botOfA, "?beforeDate=2001-01-01T00:00:00.000Z", 0, 200},
			"since the beginning":        {botOfA, "?afterDate=2001-01-01T00:00:00.000Z&rangeField=updatedAt&sortField=updatedAt&sortDirection=asc", 1, 200},
			"a date that is none":        {botOfA, "?afterDate=yesterday", 0, 400},
			"a sort that is none":        {botOfA, "?sortField=name", 0, 400},
			"a parameter that is none":   {botOfA, "?limit=5", 0, 400},
			"a token that is none":       {botOfA, "?nextToken=abc", 0, 400},
			"an unknown conversation":    {botOfA, "?conversationId=" + id.New("conv"), 0, 400},
			"a malformed conversation":   {botOfA, "?conversationId=x", 0, 400},
			"a conversation given twice": {botOfA, "?conversationId=" + id.New("conv") + "&conversationId=" + id.New("conv"), 0, 400},
		} {
			status, out := r.do(c.who, "GET", "/v1/chat/users"+c.query, "")
			if status != c.asks || status == 200 && len(out["users"].([]any)) != c.want {
				r.Errorf("%s: got %d %v, want %d users", name, status, out, c.want)
			}
		}
		r.town.rules[botA] = &Rules{Tags: map[string]map[string]int{"user": {"vip": 500}}}
		if n := len(r.pages(botOfA, "/v1/chat/users?tags.tier=gold", "users", nil)); n != 0 {
			r.Errorf("a tag that the bot no longer declares finds %d", n)
		}
		if status, out := r.do(botOfA, "PUT", path, `{"tags":{"tier":"silver"}}`); status != 400 || !strings.Contains(out["message"].(string), "tags.tier") {
			r.Errorf("writing an undeclared tag: %d %v", status, out)
		}
		delete(r.town.rules, botA)
		if status, out := r.do(chatOfA, "POST", "/v1/chat/users", `{}`); status != 400 || out["message"] != "tags is required; send {}" {
			r.Errorf("without tags: %d %v", status, out)
		}
		if status, out := r.do(botOfA, "DELETE", "/v1/chat/users/"+botA, `{}`); status != 409 {
			r.Errorf("deleting the bot's own user: %d %v", status, out)
		}
		r.ok(botOfA, "DELETE", path, `{}`, "")
		if status, _ := r.do(botOfA, "GET", path, ""); status != 404 {
			r.Errorf("a deleted user answers %d", status)
		}
		if n := len(r.pages(botOfA, "/v1/chat/users?tags.tier=gold", "users", nil)); n != 0 {
			r.Errorf("a deleted user's tag finds %d", n)
		}
	})
}

// A hundred clients ask for the same thing at once; on PostgreSQL through two nodes.
func TestGetOrCreateRace(t *testing.T) {
	t.Parallel()
	race := func(t *testing.T, rigs ...*rig) {
		for _, c := range []struct{ path, body, member string }{
			{"/v1/chat/users/get-or-create", `{"tags":{"id":"7","lang":"en"}}`, "user"},
			{"/v1/chat/users/get-or-create", `{"tags":{"id":"8","lang":"%d"},"discriminateByTags":["id"]}`, "user"},
			{"/v1/chat/conversations/get-or-create", `{"channel":"hook","tags":{"id":"7"}}`, "conversation"},
		} {
			seen := map[string]int{}
			var mu sync.Mutex
			var wg sync.WaitGroup
			for i := range 100 {
				wg.Go(func() {
					body := c.body
					if strings.Contains(body, "%d") {
						body = fmt.Sprintf(body, i)
					}
					status, out := rigs[i%len(rigs)].do(hookOfA, "POST", c.path, body)
					if status != 200 {
						t.Errorf("%s answered %d %v", c.path, status, out)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					seen[out[c.member].(map[string]any)["id"].(string)]++
				})
			}
			wg.Wait()
			if len(seen) != 1 {
				t.Errorf("%s %s made %d: %v", c.path, c.body, len(seen), seen)
			}
		}
	}
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) { race(t, newRig(t, db)) })
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) { race(t, newRig(t, a), newRig(t, b)) })
}

func TestGetOrCreateComparesTheCallersTags(t *testing.T) {
	each(t, func(r *rig) {
		get := func(who as, body string) string {
			return r.ok(who, "POST", "/v1/chat/users/get-or-create", body, "user")["id"].(string)
		}
		first := get(hookOfA, `{"tags":{"id":"1"}}`)
		r.ok(botOfA, "PUT", "/v1/chat/users/"+first, `{"tags":{"tier":"gold"}}`, "user")
		if get(hookOfA, `{"tags":{"id":"1"}}`) != first {
			r.Error("the bot's tag made the installation's user another one")
		}
		if get(hookOfA, `{"tags":{"id":"1","lang":"en"}}`) == first {
			r.Error("a further tag found the user without it")
		}
		if get(chatOfA, `{"tags":{"fid":"1"}}`) == first {
			r.Error("another installation found the user")
		}
		for body, says := range map[string]string{
			`{"tags":{}}`: "at least one tag",
			`{"tags":{"id":"1"},"discriminateByTags":["lang"]}`: `discriminateByTags[0] names "lang"`,
		} {
			if status, out := r.do(hookOfA, "POST", "/v1/chat/users/get-or-create", body); status != 400 || !strings.Contains(out["message"].(string), says) {
				r.Errorf("%s: got %d %v", body, status, out)
			}
		}
	})
}

func TestConversations(t *testing.T) {
	each(t, func(r *rig) {
		for name, c := range map[string]struct {
			who  as
			body string
			says string
		}{
			"undeclared channel":         {chatOfA, `{"channel":"sms","tags":{}}`, "sms"},
			"no such channel in the bot": {botOfA, `{"channel":"sms","tags":{}}`, "sms"},
			"unknown integration":        {botOfA, `{"channel":"channel","tags":{},"integrationName":"slack"}`, "slack"},
			"undeclared tag":             {chatOfA, `{"channel":"channel","tags":{"lang":"en"}}`, "lang"},
			"no tags":                    {chatOfA, `{"channel":"channel"}`, "tags is required; send {}"},
		} {
			if status, out := r.do(c.who, "POST", "/v1/chat/conversations", c.body); status != 400 || !strings.Contains(out["message"].(string), c.says) {
				r.Errorf("%s: got %d %v", name, status, out)
			}
		}
		byBot := r.ok(botOfA, "POST", "/v1/chat/conversations", `{"channel":"hook","tags":{"topic":"x"}}`, "conversation")
		if byBot["integration"] != "acme/hooky" {
			r.Errorf("the bot's conversation went to %v", byBot["integration"])
		}
		conv := byBot["id"].(string)
		user := r.user(hookOfA, `{"id":"u"}`)
		path := "/v1/chat/conversations/" + conv
		r.ok(hookOfA, "POST", path+"/participants", `{"userId":"`+user+`"}`, "participant")
		r.ok(hookOfA, "POST", path+"/participants", `{"userId":"`+user+`"}`, "participant")
		for query, want := range map[string]int{
			"": 1, "?participantIds=" + user: 1, "?participantIds=" + user + "&participantIds=" + botA: 0, "?channel=hook": 1, "?channel=channel": 0,
			"?integrationName=acme/hooky": 1, "?integrationName=chat": 0, "?integrationName=slack": 0, "?tags.topic=x": 1, "?tags.topic=y": 0,
		} {
			if got := r.pages(botOfA, "/v1/chat/conversations"+query, "conversations", nil); len(got) != want {
				r.Errorf("%q lists %v, want %d", query, got, want)
			}
		}
		if got := r.pages(chatOfA, "/v1/chat/conversations", "conversations", nil); got != nil {
			r.Errorf("another installation lists %v", got)
		}
		if status, out := r.do(hookOfA, "POST", path+"/participants", `{"userId":"`+id.New("user")+`"}`); status != 400 || out["type"] != "ReferenceNotFound" {
			r.Errorf("an unknown participant: %d %v", status, out)
		}
		if status, out := r.do(botOfB, "GET", path+"/participants/"+user, ``); status != 404 {
			r.Errorf("a foreign bot's look at a participant: %d %v", status, out)
		}
		r.ok(botOfA, "GET", path+"/participants/"+user, "", "participant")
		r.ok(botOfA, "DELETE", path+"/participants/"+user, "{}", "")
		if status, out := r.do(botOfA, "DELETE", path+"/participants/"+user, "{}"); status != 404 {
			r.Errorf("removing nobody: %d %v", status, out)
		}
		m := r.message(hookOfA, conv, user, "x")["id"].(string)
		r.ok(botOfA, "DELETE", path, "{}", "")
		if got := r.pages(botOfA, "/v1/chat/messages", "messages", nil); got != nil {
			r.Errorf("messages of a deleted conversation are listed: %v", got)
		}
		for _, p := range []string{path, path + "/participants", "/v1/chat/messages/" + m} {
			if status, out := r.do(botOfA, "GET", p, ""); status != 404 || out["type"] != "ResourceNotFound" {
				r.Errorf("%s after the deletion: %d %v", p, status, out)
			}
		}
		if status, out := r.do(hookOfA, "POST", "/v1/chat/messages", messageBody(conv, user, "late")); status != 400 || out["type"] != "ReferenceNotFound" {
			r.Errorf("a message into a deleted conversation: %d %v", status, out)
		}
	})
}

func TestSweepRemovesWhatHungOnTheDeleted(t *testing.T) {
	each(t, func(r *rig) {
		conv, user := r.conversation(hookOfA, "hook", `{"id":"1"}`), r.user(hookOfA, `{"id":"u"}`)
		for i := range 3 {
			r.message(hookOfA, conv, user, fmt.Sprint(i))
		}
		r.await(3)
		if err := r.s.Delivery.Idle(r.Context()); err != nil {
			r.Fatal(err)
		}
		r.ok(hookOfA, "POST", "/v1/chat/states/conversation/"+conv+"/s", `{"payload":{"n":1}}`, "state")
		kept := r.conversation(chatOfA, "channel", `{}`)
		r.ok(botOfA, "DELETE", "/v1/chat/conversations/"+conv, "{}", "")
		r.sweep()
		count := func(table, where string, args ...any) int64 {
			n, err := sqldb.Scalar[int64](r.s.DB.Reader(r.Context()), "SELECT count(*) FROM "+table+" WHERE "+where, args...)
			if err != nil {
				r.Fatal(err)
			}
			return n
		}
		for _, table := range []string{"messages", "events", "signals", "participants", "conversation_heads"} {
			if n := count(table, "conversation_id = $1", conv); n != 0 {
				r.Errorf("%d rows of %s stayed", n, table)
			}
		}
		r.write(func(tx *sqldb.Tx) error { return r.s.BuryBot(tx, botA) })
		r.sweep()
		for _, table := range []string{"users", "conversations", "messages", "events", "states", "tags", "tombstones"} {
			if n := count(table, "bot_id = $1", botA); n != 0 {
				r.Errorf("%d rows of %s outlived the bot", n, table)
			}
		}
		if n := count("conversations", "id = $1", kept); n != 0 {
			r.Error("the bot's conversation stayed")
		}
		if n := count("users", "bot_id = $1", botB); n != 1 {
			r.Errorf("the other bot has %d users left, want 1", n)
		}
	})
}

func (r *rig) sweep() {
	r.Helper()
	for range 100 {
		more, err := r.s.Sweep(r.Context())
		if err != nil {
			r.Fatal(err)
		}
		if !more {
			return
		}
	}
	r.Fatal("the sweeper finds no end")
}

func TestStates(t *testing.T) {
	each(t, func(r *rig) {
		conv := r.conversation(chatOfA, "channel", `{}`)
		path := "/v1/chat/states/conversation/" + conv + "/counter"
		if status, out := r.do(botOfA, "GET", path, ""); status != 404 || out["type"] != "ResourceNotFound" {
			r.Errorf("a missing state: %d %v", status, out)
		}
		if got := r.ok(botOfA, "POST", path+"/get-or-set", `{"payload":{"n":0}}`, "state"); got["conversationId"] != conv || got["botId"] != botA {
			r.Errorf("getOrSet gave %v", got)
		}
		if got := r.ok(botOfA, "POST", path+"/get-or-set", `{"payload":{"n":9}}`, "state"); got["payload"].(map[string]any)["n"] != 0.0 {
			r.Errorf("the second getOrSet gave %v", got)
		}
		r.ok(botOfA, "POST", path, `{"payload":{"n":1,"a":{"b":1}}}`, "state")
		if got := r.ok(botOfA, "PATCH", path, `{"payload":{"n":2,"a":null,"c":[1]}}`, "state"); cmp.Diff(map[string]any{"n": 2.0, "c": []any{1.0}}, got["payload"]) != "" {
			r.Errorf("patch gave %v", got)
		}
		if status, _ := r.do(chatOfA, "GET", path, ""); status != 404 {
			r.Errorf("the installation reads the bot's state: %d", status)
		}
		r.ok(botOfA, "POST", path, `{"payload":null}`, "state")
		if status, _ := r.do(botOfA, "GET", path, ""); status != 404 {
			r.Errorf("a deleted state answers %d", status)
		}
		inst := r.ok(hookOfA, "POST", "/v1/chat/states/integration/"+hookA+"/token", `{"payload":{"t":1}}`, "state")
		if again := r.ok(hookOfA, "GET", "/v1/chat/states/integration/intver_"+hookA[5:]+"/token", "", "state"); again["id"] != inst["id"] {
			r.Error("the version id names another state than the installation")
		}
		r.town.rules[botA] = &Rules{States: map[string]StateRule{"counter": {Type: "conversation"}}}
		for name, c := range map[string]struct {
			who                as
			method, path, body string
			status             int
			kind               string
		}{
			"undeclared":            {botOfA, "POST", strings.Replace(path, "counter", "other", 1), `{"payload":{}}`, 400, "InvalidPayload"},
			"declared as another":   {botOfA, "POST", "/v1/chat/states/bot/" + botA + "/counter", `{"payload":{}}`, 400, "InvalidPayload"},
			"unknown conversation":  {botOfA, "POST", "/v1/chat/states/conversation/" + id.New("conv") + "/counter", `{"payload":{}}`, 404, "ResourceNotFound"},
			"another bot's":         {botOfB, "GET", path, "", 404, "ResourceNotFound"},
			"a bot that is another": {botOfB, "POST", "/v1/chat/states/bot/" + botA + "/x", `{"payload":{}}`, 404, "ResourceNotFound"},
			"an unknown type":       {botOfA, "GET", "/v1/chat/states/planet/" + botA + "/x", "", 400, "InvalidPayload"},
			"no payload":            {botOfA, "POST", path, `{}`, 400, "InvalidPayload"},
			"patch of nothing":      {botOfA, "PATCH", path, `{"payload":{}}`, 404, "ResourceNotFound"},
			"too large":             {botOfA, "POST", path, `{"payload":{"x":"` + strings.Repeat("x", MaxPayload) + `"}}`, 413, "PayloadTooLarge"},
			"an integration's bot":  {chatOfA, "POST", "/v1/chat/states/bot/" + botA + "/x", `{"payload":{}}`, 403, "Forbidden"},
			"a bot's integration":   {botOfA, "POST", "/v1/chat/states/integration/" + hookA + "/x", `{"payload":{}}`, 403, "Forbidden"},
		} {
			if status, out := r.do(c.who, c.method, c.path, c.body); status != c.status || out["type"] != c.kind {
				r.Errorf("%s: got %d %v, want %d %s", name, status, out, c.status, c.kind)
			}
		}
	})
}

func TestConcurrentGetOrSetMakesOneState(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
		rigs := []*rig{newRig(t, a), newRig(t, b)}
		conv := rigs[0].conversation(chatOfA, "channel", `{}`)
		var mu sync.Mutex
		seen := map[any]bool{}
		var wg sync.WaitGroup
		for i := range 60 {
			wg.Go(func() {
				got := rigs[i%2].ok(botOfA, "POST", "/v1/chat/states/conversation/"+conv+"/n/get-or-set", fmt.Sprintf(`{"payload":{"n":%d}}`, i), "state")
				mu.Lock()
				defer mu.Unlock()
				seen[got["payload"].(map[string]any)["n"]] = true
			})
		}
		wg.Wait()
		if len(seen) != 1 {
			t.Errorf("the callers saw %v", seen)
		}
	})
}

func TestEvents(t *testing.T) {
	each(t, func(r *rig) {
		conv := r.conversation(chatOfA, "channel", `{}`)
		own := r.ok(botOfA, "POST", "/v1/chat/events", `{"type":"tick","payload":{"n":1}}`, "event")
		theirs := r.ok(chatOfA, "POST", "/v1/chat/events", `{"type":"custom","payload":{"n":2},"conversationId":"`+conv+`"}`, "event")
		if theirs["type"] != "custom" || own["failureReason"] != nil {
			r.Errorf("created %v and %v", own, theirs)
		}
		var types []string
		for _, e := range r.await(2) {
			types = append(types, e["type"].(string))
		}
		slices.Sort(types)
		if diff := cmp.Diff([]string{"chat:custom", "tick"}, types); diff != "" {
			r.Errorf("the bot got %s", diff)
		}
		for query, want := range map[string]int{
			"": 2, "?type=chat%3Acustom": 1, "?type=tick": 1, "?type=custom": 0, "?conversationId=" + conv: 1, "?type=slack%3Acustom": 0,
		} {
			if got := r.pages(botOfA, "/v1/chat/events"+query, "events", nil); len(got) != want {
				r.Errorf("%q lists %v, want %d", query, got, want)
			}
		}
		if got := r.pages(chatOfA, "/v1/chat/events", "events", nil); len(got) != 1 {
			r.Errorf("the installation lists %v", got)
		}
		for name, c := range map[string]struct {
			who  as
			body string
			kind string
		}{
			"reserved":             {botOfA, `{"type":"message_created","payload":{}}`, "InvalidPayload"},
			"somebody else's":      {botOfA, `{"type":"chat:custom","payload":{}}`, "InvalidPayload"},
			"undeclared":           {chatOfA, `{"type":"other","payload":{}}`, "InvalidPayload"},
			"unknown conversation": {botOfA, `{"type":"x","payload":{},"conversationId":"` + id.New("conv") + `"}`, "ReferenceNotFound"},
			"unknown user":         {botOfA, `{"type":"x","payload":{},"userId":"` + id.New("user") + `"}`, "ReferenceNotFound"},
			"unknown message":      {botOfA, `{"type":"x","payload":{},"messageId":"` + id.New("msg") + `"}`, "ReferenceNotFound"},
			"unknown workflow":     {botOfA, `{"type":"x","payload":{},"workflowId":"` + id.New("wrkflow") + `"}`, "ReferenceNotFound"},
		} {
			if status, out := r.do(c.who, "POST", "/v1/chat/events", c.body); status != 400 || out["type"] != c.kind {
				r.Errorf("%s: got %d %v, want %s", name, status, out, c.kind)
			}
		}
		if status, _ := r.do(botOfB, "GET", "/v1/chat/events/"+own["id"].(string), ""); status != 404 {
			r.Errorf("another bot reads the event: %d", status)
		}
	})
}

func TestCallAction(t *testing.T) {
	each(t, func(r *rig) {
		if got := r.ok(botOfA, "POST", "/v1/chat/actions", `{"type":"acme/hooky:echo","input":{"a":[1]}}`, "output"); cmp.Diff(map[string]any{"a": []any{1.0}}, got) != "" {
			r.Errorf("got %v", got)
		}
		for body, status := range map[string]int{
			`{"type":"slack:echo","input":{}}`: 400, `{"type":"nope","input":{}}`: 400, `{"type":"echo","input":{}}`: 200, `{"type":"chat:nope","input":{}}`: 400, `{"type":"chat:echo"}`: 400,
		} {
			if got, out := r.do(botOfA, "POST", "/v1/chat/actions", body); got != status {
				r.Errorf("%s: got %d %v, want %d", body, got, out, status)
			}
		}
		for _, own := range []string{"chat:echo", "echo"} {
			if status, out := r.do(chatOfA, "POST", "/v1/chat/actions", `{"type":"`+own+`","input":{}}`); status != 403 {
				r.Errorf("an integration got %d %v for %s", status, out, own)
			}
		}
		r.outside(nil)
		_, out := r.do(botOfA, "POST", "/v1/chat/actions", `{"type":"acme/hooky:echo","input":{"a":1}}`, "Idempotency-Key", "0123456789abcdefghij")
		if cmp.Diff(map[string]any{"output": map[string]any{"a": 1.0}, "meta": map[string]any{"cached": true}}, out) != "" {
			r.Errorf("got %v", out)
		}
		if status, out := r.do(botOfA, "POST", "/v1/chat/actions", `{"type":"acme/hooky:fail","input":{}}`); status != 400 || out["type"] != "Runtime" || out["message"] != "no luck" {
			r.Errorf("got %d %v", status, out)
		}
		want := map[string]int{"ok": 3, "InvalidPayload": 2, "Runtime": 1}
		for deadline := time.Now().Add(patience); ; runtime.Gosched() {
			got := map[string]int{}
			for outcome := range want {
				got[outcome] = r.count("SELECT count(*) FROM action_log WHERE bot_id = $1 AND outcome = $2", botA, outcome)
			}
			if cmp.Equal(got, want) {
				break
			}
			if time.Now().After(deadline) {
				r.Fatalf("the log holds %v, want %v", got, want)
			}
		}
	})
}

// The log gives every signal once and in order, from any position, however
// long ago that is.
func TestSignalsFromAnyPosition(t *testing.T) {
	each(t, func(r *rig) {
		conv, user := r.conversation(hookOfA, "hook", `{}`), r.user(hookOfA, `{"id":"u"}`)
		const messages = 150
		for i := range messages {
			if i%60 == 30 {
				other := r.user(hookOfA, fmt.Sprintf(`{"id":"%d"}`, i))
				r.ok(hookOfA, "POST", "/v1/chat/conversations/"+conv+"/participants", `{"userId":"`+other+`"}`, "participant")
			}
			r.message(hookOfA, conv, user, fmt.Sprint(i))
		}
		r.mu.Lock()
		told := append([]*Signal{}, r.signals...)
		r.mu.Unlock()
		q := r.s.DB.Reader(r.Context())
		for _, after := range []int64{0, 1, 17, 100, int64(len(told)) - 51, int64(len(told)) - 1, int64(len(told)), 1 << 40} {
			for _, limit := range []int{7, 500} {
				var got []int64
				for at := after; ; {
					some, upTo, err := r.s.Signals(q, conv, at, limit)
					if err != nil {
						r.Fatal(err)
					}
					for _, g := range some {
						got = append(got, g.Pos)
					}
					if upTo <= at {
						break
					}
					at = upTo
				}
				var want []int64
				for _, g := range told {
					if g.Pos > after {
						want = append(want, g.Pos)
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					r.Errorf("after %d by %d: %s", after, limit, diff)
				}
			}
		}
		for _, g := range told {
			want := g.Pos - 1
			for _, o := range told {
				if o.At >= g.At {
					want = min(want, o.Pos-1)
				}
			}
			if since, err := r.s.SignalSince(q, conv, int64(g.At)); err != nil || since != want {
				r.Fatalf("since the time of %d is %d, %v; want %d", g.Pos, since, err, want)
			}
		}
		if late, err := r.s.SignalSince(q, conv, time.Now().Add(time.Hour).UnixMilli()); err != nil || late != told[len(told)-1].Pos {
			r.Errorf("since tomorrow is %d, %v", late, err)
		}
	})
}

// Of several who delete the same thing at once one is told that it is done, and
// the others that it is not there.
func TestOneOfSeveralDeletesWins(t *testing.T) {
	each(t, func(r *rig) {
		for range 20 {
			user := r.user(chatOfA, `{}`)
			conversation := r.conversation(chatOfA, "channel", `{}`)
			message := r.message(chatOfA, conversation, r.user(chatOfA, `{}`), "hi")["id"].(string)
			for _, path := range []string{"users/" + user, "messages/" + message, "conversations/" + conversation} {
				var done, missing atomic.Int64
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() {
						switch status, out := r.do(chatOfA, "DELETE", "/v1/chat/"+path, ""); status {
						case 200:
							done.Add(1)
						case 404:
							missing.Add(1)
						default:
							r.Errorf("DELETE %s answers %d %v", path, status, out)
						}
					})
				}
				wg.Wait()
				if done.Load() != 1 || missing.Load() != 3 {
					r.Errorf("%s was deleted %d times and missing %d times, want 1 and 3", path, done.Load(), missing.Load())
				}
			}
		}
	})
}
