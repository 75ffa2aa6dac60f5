package messagingapi

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/sqldb"
)

func (r *rig) count(query string, args ...any) int {
	r.Helper()
	return must(sqldb.Scalar[int](r.api.DB.Reader(r.Context()), query, args...))
}

func TestAMessageIsBroughtIn(t *testing.T) {
	each(t, func(r *rig) {
		out := r.ok(`{"userId":"ann@example.com","conversationId":"case 7/é","messageId":"m-1","type":"text","text":"Hello","payload":{"mood":"good"}}`)
		message, user, conversation := out["message"].(map[string]any), out["user"].(map[string]any), out["conversation"].(map[string]any)
		if len(out) != 3 {
			r.Fatalf("answered %v", out)
		}
		if d := cmp.Diff(map[string]any{"text": "Hello", "mood": "good"}, message["payload"]); d != "" {
			r.Error(d)
		}
		for what, pair := range map[string][2]any{
			"message type": {message["type"], "text"}, "direction": {message["direction"], "incoming"},
			"message user": {message["userId"], user["id"]}, "message conversation": {message["conversationId"], conversation["id"]},
			"channel": {conversation["channel"], "channel"}, "installation": {conversation["integration"], "messaging"},
		} {
			if pair[0] != pair[1] {
				r.Errorf("%s: got %v, want %v", what, pair[0], pair[1])
			}
		}
		for what, got := range map[string]map[string]any{"ann@example.com": user, "case 7/é": conversation, "m-1": message} {
			if d := cmp.Diff(map[string]any{"id": what}, got["tags"]); d != "" {
				r.Errorf("tags of %v: %s", got, d)
			}
		}
		events := r.events()
		if len(events) != 1 || events[0]["type"] != "message_created" || field(events[0], "payload", "message", "id") != message["id"] {
			r.Fatalf("the bot heard %v", events)
		}
		// The bot sees the names as tags of the installation, under its alias.
		seen := r.runtime("GET", "/users/"+user["id"].(string), "")["user"].(map[string]any)
		if d := cmp.Diff(map[string]any{"messaging:id": "ann@example.com"}, seen["tags"]); d != "" {
			r.Error(d)
		}
	})
}

// The objects are those that the Runtime API shows the installation.
func TestTheAnswerIsWhatTheRuntimeAPIShows(t *testing.T) {
	each(t, func(r *rig) {
		out := r.ok(text("u", "c", "m", "x"))
		for what, path := range map[string]string{"message": "/messages/", "user": "/users/", "conversation": "/conversations/"} {
			got := r.runtime("GET", path+field(out, what, "id"), "", "x-integration-id", "intver_"+hereA.installation[5:], "x-integration-alias", Name)
			if d := cmp.Diff(got[what], out[what]); d != "" {
				r.Errorf("%s (-shown +answered): %s", what, d)
			}
		}
	})
}

func TestThePayloadIsTheTextAndWhatWasSent(t *testing.T) {
	each(t, func(r *rig) {
		for i, c := range []struct{ typ, payload, want string }{
			{"text", `,"payload":{}`, `{"text":"T"}`},
			{"text", ``, `{"text":"T"}`},
			{"text", `,"payload":{"text":"P","a":1.0}`, `{"text":"P","a":1.0}`},
			{"order", `,"payload":{"items":[{"sku":"é","n":2}],"text":null}`, `{"items":[{"sku":"é","n":2}],"text":null}`},
			{"a type nobody has declared", `,"payload":{"big":12345678901234567890}`, `{"text":"T","big":12345678901234567890}`},
			{"image", `,"payload":{"imageUrl":"https://x/y.png"},"more":[1],"botId":"x"`, `{"text":"T","imageUrl":"https://x/y.png"}`},
		} {
			out := r.ok(fmt.Sprintf(`{"userId":"u","conversationId":"c","messageId":"m%d","type":%q,"text":"T"%s}`, i, c.typ, c.payload))
			stored := must(sqldb.Scalar[string](r.api.DB.Reader(r.Context()), "SELECT payload FROM messages WHERE id = $1", field(out, "message", "id")))
			if stored != c.want || field(out, "message", "type") != c.typ {
				r.Errorf("%s %s: stored %s as %s, want %s", c.typ, c.payload, stored, field(out, "message", "type"), c.want)
			}
		}
	})
}

func TestUsersAndConversationsAreFoundAgain(t *testing.T) {
	each(t, func(r *rig) {
		first := r.ok(text("u", "c", "m1", "x"))
		same := r.ok(text("u", "c", "m2", "x"))
		other := r.ok(text("u2", "c2", "m3", "x"))
		crossed := r.ok(text("u2", "c", "m4", "x"))
		for _, what := range []string{"user", "conversation"} {
			if d := cmp.Diff(first[what].(map[string]any)["id"], same[what].(map[string]any)["id"]); d != "" {
				r.Errorf("%s: %s", what, d)
			}
			if field(first, what, "id") == field(other, what, "id") {
				r.Errorf("two names share a %s", what)
			}
		}
		if field(crossed, "user", "id") != field(other, "user", "id") || field(crossed, "conversation", "id") != field(first, "conversation", "id") {
			r.Errorf("another user in the first conversation: %v", crossed)
		}
		if n := r.count("SELECT count(*) FROM participants WHERE conversation_id = $1", field(first, "conversation", "id")); n != 2 {
			r.Errorf("%d participants, want 2", n)
		}
	})
}

func TestAMessageIDIsUsedOnce(t *testing.T) {
	each(t, func(r *rig) {
		first := r.ok(text("u", "c", "m", "first"))
		for _, again := range []string{text("u", "c", "m", "first"), text("u", "c", "m", "second"), text("u2", "c", "m", "third")} {
			out := r.ok(again)
			if d := cmp.Diff(first["message"], out["message"]); d != "" {
				r.Errorf("%s answers another message: %s", again, d)
			}
		}
		if len(r.events()) != 1 {
			r.Errorf("the bot heard %d times of it", len(r.events()))
		}
		elsewhere := r.ok(text("u", "another conversation", "m", "x"))
		if field(elsewhere, "message", "id") == field(first, "message", "id") {
			r.Error("the id of a message counts in its conversation alone")
		}
	})
}

// Services repeat what they got no answer to, and some send everything twice.
func TestTheSameMessageAtTheSameInstant(t *testing.T) {
	each(t, func(r *rig) {
		const messages, twins = 8, 6
		found := make([][twins]map[string]any, messages)
		var wait sync.WaitGroup
		for m := range messages {
			for twin := range twins {
				wait.Go(func() {
					status, out := r.post(text("u", "c", fmt.Sprint("m", m), "x"))
					if status != http.StatusOK {
						r.Errorf("answered %d %v", status, out)
					}
					found[m][twin] = out
				})
			}
		}
		wait.Wait()
		ids := map[string]bool{}
		for m := range messages {
			for twin := range twins {
				if d := cmp.Diff(found[m][0]["message"], found[m][twin]["message"]); d != "" {
					r.Errorf("twins differ: %s", d)
				}
				for _, what := range []string{"user", "conversation"} {
					if field(found[m][twin], what, "id") != field(found[0][0], what, "id") {
						r.Errorf("two of the %s", what)
					}
				}
			}
			ids[field(found[m][0], "message", "id")] = true
		}
		if events := r.events(); len(ids) != messages || len(events) != messages {
			r.Errorf("%d messages, of which the bot heard %d times, want %d", len(ids), len(events), messages)
		}
		if n := r.count("SELECT count(*) FROM messages"); n != messages {
			r.Errorf("%d messages are stored", n)
		}
	})
}

// Everything at fault is named at once, so that nobody has to come back for it.
func TestBodiesThatAreRefused(t *testing.T) {
	each(t, func(r *rig) {
		long := strings.Repeat("é", 501)
		all := []string{"userId is required", "messageId is required", "conversationId is required", "type is required", "text is required"}
		for body, says := range map[string][]string{
			`{}`:               all,
			``:                 all,
			`{"payload":"x"}`:  append([]string{"payload must be an object"}, all...),
			`{"userid":"u"}`:   all,
			`{"payload":null}`: append([]string{"payload must not be null"}, all...),
			`{"payload":[1]}`:  append([]string{"payload must be an object"}, all...),
			`{"userId":7,"messageId":null,"conversationId":["c"],"type":{},"text":true,"payload":0}`: {
				"userId must be a string", "messageId must not be null", "conversationId must be a string", "type must be a string", "text must be a string", "payload must be an object",
			},
			`{"userId":"","messageId":"","conversationId":"","type":"","text":"","payload":{}}`: {
				"userId must not be empty", "messageId must not be empty", "conversationId must not be empty", "type must not be empty", "text must not be empty",
			},
			text(long, long, long, "x"): {"userId must have at most 500 characters", "messageId must have at most 500 characters", "conversationId must have at most 500 characters"},
			`{"userId":"u\u0000","messageId":"m","conversationId":"c","type":"` + strings.Repeat("t", 201) + `","text":"x"}`: {
				"userId must not contain the character U+0000", "type must have at most 200 characters",
			},
			`{"userId":"u","userId":"v"}`:         {`has the member "userId" twice`},
			`{"userId":"u",}`:                     {"not valid JSON"},
			`userId=u&messageId=m`:                {"not valid JSON"},
			`[]`:                                  {"must be a JSON object"},
			`"hello"`:                             {"must be a JSON object"},
			`null`:                                {"must not be null"},
			"\xff\xfe{}":                          {"not valid JSON"},
			`{"userId":"` + "\xff" + `"}`:         {"invalid UTF-8"},
			text("u", "c", "m", "x") + "{}":       {"goes on after its JSON value"},
			strings.Repeat(`{"payload":`, 70):     {"nested more than 64 levels"},
			`{"payload":{"a":1,"a":2},"text":""}`: {`has the member "a" twice`},
		} {
			status, out := r.post(body)
			wants(r, body, status, out, fault.InvalidPayload, says...)
		}
		big := func(n int) string {
			return fmt.Sprintf(`{"userId":"u","messageId":"m","conversationId":"c","type":"text","text":"x","payload":{"a":%q}}`, strings.Repeat("x", n))
		}
		status, out := r.post(big(128 << 10))
		wants(r, "a large payload", status, out, fault.PayloadTooLarge, "payload has", "at most 131072 are allowed")
		status, out = r.post(big(1 << 20))
		wants(r, "a large body", status, out, fault.PayloadTooLarge, "over its limit of 1 MB")
		if n := r.count("SELECT (SELECT count(*) FROM messages) + (SELECT count(*) FROM conversations)"); n != 0 {
			r.Errorf("%d rows came of it", n)
		}
	})
}

// The instructions name the header Authorization and no other.
func TestContentTypesDoNotMatter(t *testing.T) {
	each(t, func(r *rig) {
		for i, contentType := range []string{"", "application/json", "application/json; charset=utf-8", "text/plain", "application/x-www-form-urlencoded", ";"} {
			status, out := r.request("POST", "/"+hereA.webhook, text("u", "c", fmt.Sprint(i), "x"), "Authorization", "bearer "+r.tokens["annA"], "Content-Type", contentType)
			if status != http.StatusOK {
				r.Errorf("%q: answered %d %v", contentType, status, out)
			}
		}
		status, out := r.request("POST", "/"+hereA.webhook, text("u", "c", "z", "x"), "Authorization", "bearer "+r.tokens["annA"], "Content-Encoding", "gzip")
		wants(r, "a compressed body", status, out, fault.UnsupportedMediaType, "without compression")
	})
}

func TestWhoMayBringMessages(t *testing.T) {
	each(t, func(r *rig) {
		body := text("u", "c", "m", "x")
		revoked, _ := auth.NewToken(auth.PAT)
		for header, c := range map[string]struct {
			kind *fault.Kind // nil = taken
			says string
		}{
			"bearer " + r.tokens["annA"]:      {},
			"Bearer " + r.tokens["annA"]:      {},
			"BEARER  " + r.tokens["botA"]:     {},
			"":                                {fault.Unauthorized, "carries no token"},
			r.tokens["annA"]:                  {fault.Unauthorized, "does not hold a token"},
			"bearer":                          {fault.Unauthorized, "does not hold a token"},
			"bearer x":                        {fault.Unauthorized, "does not hold a token"},
			"basic " + r.tokens["annA"]:       {fault.Unauthorized, "does not hold a token"},
			"bearer " + revoked:               {fault.Unauthorized, "unknown or was revoked"},
			"bearer " + r.tokens["old"]:       {fault.Unauthorized, "expired"},
			"bearer " + r.tokens["bobB"]:      {fault.Forbidden, "does not reach the bot behind this door"},
			"bearer " + r.tokens["botB"]:      {fault.Forbidden, "does not reach the bot behind this door"},
			"bearer " + r.tokens["hooky"]:     {fault.Forbidden, "not for integrations"},
			"bearer " + r.tokens["annA"][:20]: {fault.Unauthorized, "does not hold a token"},
		} {
			headers := []string{"X-Bot-Id", hereB.bot, "X-Integration-Id", "x"} // which mean nothing here
			if header != "" {
				headers = append(headers, "Authorization", header)
			}
			status, out := r.request("POST", "/"+hereA.webhook, body, headers...)
			if c.kind == nil {
				if status != http.StatusOK {
					r.Errorf("%q: answered %d %v", header, status, out)
				}
				continue
			}
			wants(r, header, status, out, c.kind, c.says)
			if strings.Contains(fmt.Sprint(out), hereA.bot) {
				r.Errorf("%q: a stranger is told the bot: %v", header, out)
			}
		}
		if n := r.count("SELECT count(*) FROM messages"); n != 1 {
			r.Errorf("%d messages", n)
		}
	})
}

// Names belong to one installation: another one, of the same bot or of another,
// has its own.
func TestInstallationsDoNotShareNames(t *testing.T) {
	each(t, func(r *rig) {
		first := r.ok(text("u", "c", "m", "x"))
		for p, token := range map[place]string{secondA: "annA", hereB: "bobB"} {
			status, out := r.request("POST", "/"+p.webhook, text("u", "c", "m", "x"), "Authorization", "bearer "+r.tokens[token])
			if status != http.StatusOK {
				r.Fatalf("answered %d %v", status, out)
			}
			for _, what := range []string{"message", "user", "conversation"} {
				if field(out, what, "id") == field(first, what, "id") {
					r.Errorf("%s is the same at another door", what)
				}
			}
			// Not even by the id that Parley gave.
			status, out = r.request("POST", "/"+p.webhook, text("u", field(first, "conversation", "id"), "m2", "x"), "Authorization", "bearer "+r.tokens[token])
			if status != http.StatusOK || field(out, "conversation", "id") == field(first, "conversation", "id") {
				r.Errorf("another door leads into the conversation: %d %v", status, out)
			}
		}
	})
}

func TestWhereTheDoorIs(t *testing.T) {
	each(t, func(r *rig) {
		authorized := []string{"Authorization", "bearer " + r.tokens["annA"]}
		for _, path := range []string{"/" + hereA.webhook, "/" + hereA.webhook + "/"} {
			if status, out := r.request("POST", path, text("u", "c", path, "x"), authorized...); status != http.StatusOK {
				r.Errorf("%s: answered %d %v", path, status, out)
			}
			for _, method := range []string{"GET", "PUT", "PATCH", "DELETE"} {
				status, out := r.request(method, path, "", authorized...)
				wants(r, method+" "+path, status, out, fault.MethodNotFound, method+" is not a method", "it takes POST, OPTIONS")
			}
		}
		for _, path := range []string{"/messages", "/x/", "//", "/%2F", "/hello", "/openapi.json"} {
			status, out := r.request("POST", "/"+hereA.webhook+path, text("u", "c", "m", "x"), authorized...)
			wants(r, path, status, out, fault.ResourceNotFound, "is not an operation of this server")
		}
		status, out := r.request("POST", "/"+id.UUID(), text("u", "c", "m", "x"), authorized...)
		wants(r, "an unknown door", status, out, fault.ResourceNotFound, "[Webhook Handler]")
		status, out = r.request("POST", "/"+hereA.webhook+"?weit=10", text("u", "c", "m", "x"), authorized...)
		wants(r, "an unknown parameter", status, out, fault.InvalidQuery, `"weit"`)
		r.town.change(hereA, func(in *Installation) { in.Enabled = false })
		status, out = r.post(text("u", "c", "m", "x"))
		wants(r, "a disabled installation", status, out, fault.Forbidden, `the integration "messaging" is disabled`)
		r.town.change(hereA, func(in *Installation) { in.Removed = true })
		status, out = r.post(text("u", "c", "m", "x"))
		wants(r, "a removed installation", status, out, fault.ResourceNotFound, "[Webhook Handler]")
	})
}

// A request may be wrong in many ways; the path is told first, then whether
// replies can go anywhere, then the token, then the body.
func TestTheOrderOfRefusals(t *testing.T) {
	each(t, func(r *rig) {
		r.town.change(hereA, func(in *Installation) { in.Configuration = Configuration{} })
		status, out := r.request("POST", "/"+hereA.webhook+"/x", `no JSON`)
		wants(r, "path", status, out, fault.ResourceNotFound)
		status, out = r.request("POST", "/"+hereA.webhook, `no JSON`)
		wants(r, "endpoint", status, out, fault.InvalidPayload, "no response endpoint", "set responseEndpointUrl in its configuration", "?wait=10")
		r.town.change(hereA, func(in *Installation) { in.Configuration.ResponseEndpointURL = r.sink.at() })
		status, out = r.request("POST", "/"+hereA.webhook, `no JSON`)
		wants(r, "token", status, out, fault.Unauthorized, "carries no token")
		status, out = r.post(`no JSON`)
		wants(r, "JSON", status, out, fault.InvalidPayload, "not valid JSON")
		status, out = r.post(`{}`)
		wants(r, "members", status, out, fault.InvalidPayload, "userId is required")
	})
}

// A bot may open a conversation by itself. The service is told its id in Parley
// and may answer under it.
func TestAConversationThatTheBotOpened(t *testing.T) {
	each(t, func(r *rig) {
		opened := field(r.runtime("POST", "/conversations", `{"channel":"channel","tags":{},"integrationName":"messaging"}`), "conversation", "id")
		r.says(opened, "text", `{"text":"Hello?"}`)
		got := r.gets()
		if got.body["conversationId"] != opened || got.body["botpressConversationId"] != opened {
			r.Errorf("the service got %s", got.text)
		}
		out := r.ok(text("u", opened, "m", "Hello!"))
		if field(out, "conversation", "id") != opened {
			r.Errorf("the reply went to %v", out["conversation"])
		}
		again := r.ok(text("u", opened, "m", "Hello!"))
		if field(again, "message", "id") != field(out, "message", "id") {
			r.Error("the same message was taken twice")
		}
		// The id of a conversation that has a name is a name like any other.
		named := r.ok(text("u", "c", "m", "x"))
		other := r.ok(text("u", field(named, "conversation", "id"), "m", "x"))
		if field(other, "conversation", "id") == field(named, "conversation", "id") || field(other, "message", "id") == field(named, "message", "id") {
			r.Error("a conversation with a name was found by its id")
		}
		unknown := r.ok(text("u", "conv_01JD3ZK8B9Q2W5T7Y4X6V8N1M0", "m", "x"))
		if d := cmp.Diff(map[string]any{"id": "conv_01JD3ZK8B9Q2W5T7Y4X6V8N1M0"}, unknown["conversation"].(map[string]any)["tags"]); d != "" {
			r.Error(d)
		}
	})
}

// A service without an endpoint asks for the replies in the answer.
func TestRepliesInTheAnswer(t *testing.T) {
	each(t, func(r *rig) {
		r.replies(func(event map[string]any) {
			for _, words := range []string{"one", "two"} {
				r.says(field(event, "conversationId"), "text", fmt.Sprintf(`{"text":%q}`, words))
			}
		})
		said := func(out map[string]any) (words []string) {
			replies, _ := out["replies"].([]any)
			for _, reply := range replies {
				words = append(words, field(reply.(map[string]any), "direction")+" "+field(reply.(map[string]any), "payload", "text"))
			}
			return words
		}
		want := []string{"outgoing one", "outgoing two"}
		for _, configured := range []bool{true, false} {
			if !configured {
				r.town.change(hereA, func(in *Installation) { in.Configuration = Configuration{} })
			}
			for again := range 2 { // the second time they are those to the first message
				status, out := r.request("POST", "/"+hereA.webhook+"?wait=60", text("u", "c", fmt.Sprint("m", configured), "x"), "Authorization", "bearer "+r.tokens["annA"])
				if d := cmp.Diff(want, said(out)); status != http.StatusOK || out["finished"] != true || d != "" {
					r.Errorf("configured %v, time %d: %d %v %s", configured, again, status, out, d)
				}
			}
		}
		for range 2 {
			if got := r.gets(); got.body["conversationId"] != "c" {
				r.Errorf("the endpoint got %s", got.text)
			}
		}
		r.idle()
		if len(r.sink.arrived) != 0 || len(r.events()) != 2 {
			r.Errorf("%d more requests, and the bot heard %d times", len(r.sink.arrived), len(r.events()))
		}
		for _, wait := range []string{"", "0", "61", "soon"} {
			status, out := r.request("POST", "/"+hereA.webhook+"?wait="+wait, text("u", "c", "z", "x"), "Authorization", "bearer "+r.tokens["annA"])
			wants(r, "wait="+wait, status, out, fault.InvalidPayload, "wait must be a number of seconds")
		}
		status, out := r.request("POST", "/"+hereA.webhook+"?wait=10", text("u", "c", "z", "x"), "Authorization", "bearer "+r.tokens["botB"])
		wants(r, "a stranger who waits", status, out, fault.Forbidden)
	})
}

func TestErrorsHaveTheFormOfAllOthers(t *testing.T) {
	each(t, func(r *rig) {
		_, out := r.post(`{}`)
		if got := slices.Sorted(maps.Keys(out)); !slices.Equal(got, []string{"code", "description", "id", "message", "status", "type"}) {
			r.Errorf("members %v", got)
		}
		if !regexp.MustCompile(`^err_\d{13}x[0-9A-F]{8}$`).MatchString(field(out, "id")) {
			r.Errorf("id %v", out["id"])
		}
	})
}

func TestNewNeedsItsParts(t *testing.T) {
	t.Parallel()
	if _, err := New(Config{}); err == nil {
		t.Error("a Service of nothing was made")
	}
}
