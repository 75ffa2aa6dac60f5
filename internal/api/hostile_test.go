package api_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
)

const goodBody = `{"conversationId":"` + convID + `","payload":{"type":"text","text":"hi"},"tags":{}}`

// body replaces or adds members of a good body; an empty value drops one.
func body(members ...string) string {
	parts := map[string]string{"conversationId": `"` + convID + `"`, "payload": `{"type":"text","text":"hi"}`, "tags": `{}`}
	order := []string{"conversationId", "payload", "tags"}
	for i := 0; i < len(members); i += 2 {
		if _, known := parts[members[i]]; !known {
			order = append(order, members[i])
		}
		parts[members[i]] = members[i+1]
	}
	var list []string
	for _, name := range order {
		if parts[name] != "" {
			list = append(list, `"`+name+`":`+parts[name])
		}
	}
	return "{" + strings.Join(list, ",") + "}"
}

func TestBodiesThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	takes := "conversationId, userId, payload, tags, name, origin, count, weight, loud, names, when, pictureUrl, state, any, free"
	cases := []struct{ name, body, message string }{
		{"malformed", `{"conversationId":}`, "The body is not valid JSON: invalid character '}' at start of value, at byte 18"},
		{"truncated", `{"conversationId":"abc`, "The body is not valid JSON: it ends too early, at byte 22"},
		{"truncated object", `{"tags":{`, "The body is not valid JSON: it ends too early, at byte 9"},
		{"no comma", `{"tags":{} "name":"x"}`, "The body is not valid JSON: invalid character '\"' after object value (expecting ',' or '}'), at byte 11"},
		{"single quotes", `{'tags':{}}`, "The body is not valid JSON: invalid character '\\'' at start of value, at byte 1"},
		{"comment", `{/* no */}`, "The body is not valid JSON: invalid character '/' at start of value, at byte 1"},
		{"trailing comma", `{"tags":{},}`, "The body is not valid JSON: invalid character ',' at start of value, at byte 10"},
		{"not a number", `{"count":NaN}`, "The body is not valid JSON: invalid character 'N' at start of value, at byte 9"},
		{"leading zero", body("weight", "01"), "The body is not valid JSON: invalid character '1' after object value (expecting ',' or '}'), at byte 110"},
		{"number as name", `{1:2}`, "The body is not valid JSON: object member name must be a string, at byte 1"},
		{"byte order mark", "\ufeff{}", "The body is not valid JSON: invalid character '\\ufeff' at start of value, at byte 0"},
		{"control character", "{\"name\":\"a\nb\"}", "The body is not valid JSON: invalid character '\\n' in string (expecting non-control character), at byte 10"},
		{"invalid UTF-8", body("name", "\"a\xffb\""), "The body is not valid JSON: invalid UTF-8, at byte 109"},
		{"lone surrogate", body("name", `"\ud800"`), `The body is not valid JSON: invalid surrogate pair ` + "`\\ud800\"}`" + ` in string, at byte 108`},
		{"array", `[]`, "The body must be a JSON object"},
		{"string", `"x"`, "The body must be a JSON object"},
		{"null", `null`, "The body must not be null"},
		{"blank", "  \n", "The body is empty; send a JSON object"},
		{"two values", goodBody + goodBody, "The body goes on after its JSON value, at byte 100"},
		{"text after", goodBody + " x", "The body goes on after its JSON value, at byte 101"},
		{"duplicate member", `{"tags":{},"tags":{}}`, `The body has the member "tags" twice, at byte 11`},
		{"duplicate by escape", `{"tags":{},"t\u0061gs":{}}`, `The body has the member "tags" twice, at byte 11`},
		{"duplicate in a map", body("tags", `{"a":"1","a":"2"}`), `The body has the member "a" twice, at byte 106`},
		{"duplicate in a raw object", body("state", `{"a":{"b":1,"b":2}}`), `The body has the member "b" twice, at byte 120`},
		{"duplicate discriminator", body("payload", `{"type":"text","type":"choice","text":"x"}`), `The body has the member "type" twice, at byte 77`},
		{"deep", body("state", strings.Repeat(`{"a":`, 70)+"1"+strings.Repeat("}", 70)), "The body is nested more than 64 levels deep, at byte 423"},
		{"very deep", body("free", strings.Repeat("[", 300000)), "The body is nested more than 64 levels deep, at byte 170"},
		{"deep and torn", strings.Repeat(`{"payload":`, 300), "The body is nested more than 64 levels deep, at byte 704"},

		{"unknown member", body("foo", "1"), `"foo" is not a member of createMessage; it takes ` + takes},
		{"misspelt member", body("conversationid", `"x"`), `"conversationid" is not a member of createMessage; it takes ` + takes + `; did you mean conversationId?`},
		{"path field by its Go name", body("Name", `"x"`), `"Name" is not a member of createMessage; it takes ` + takes + `; did you mean name?`},
		{"unknown in a payload", body("payload", `{"type":"text","text":"x","txt":1}`), `"txt" is not a member of payload; it takes type, text; did you mean text?`},
		{"unknown deep in a union", body("payload", `{"type":"bloc","items":[{"type":"text","text":"a"},{"type":"choice","options":[{"label":"l","value":"v"},{"label":"l","value":"v","x":1}]}]}`),
			`"x" is not a member of payload.items[1].options[1]; it takes label, value`},
		{"long name", body(strings.Repeat("x", 5000), "1"), `"` + strings.Repeat("x", 60) + `…" is not a member of createMessage; it takes ` + takes},

		{"nothing", `{}`, "conversationId is required"},
		{"no tags", body("tags", ""), "tags is required; send {}"},
		{"no payload", body("payload", ""), "payload is required"},
		{"no discriminator", body("payload", `{"text":"x"}`), "payload.type is required; it is one of text, choice, dropdown, bloc"},
		{"unknown variant", body("payload", `{"type":"video","text":"x"}`), "payload.type must be one of text, choice, dropdown, bloc"},
		{"variant is a number", body("payload", `{"type":1}`), "payload.type must be one of text, choice, dropdown, bloc"},
		{"payload is a string", body("payload", `"hi"`), "payload must be an object"},
		{"payload is null", body("payload", `null`), "payload must not be null"},
		{"member of a variant missing", body("payload", `{"type":"text"}`), "payload.text is required"},
		{"empty text", body("payload", `{"type":"text","text":""}`), "payload.text must not be empty"},
		{"long text", body("payload", `{"text":"`+strings.Repeat("é", 101)+`","type":"text"}`), "payload.text must have at most 100 characters"},
		{"empty bloc", body("payload", `{"type":"bloc","items":[]}`), "payload.items must not be empty"},
		{"long bloc", body("payload", `{"type":"bloc","items":[`+strings.Repeat(`{"type":"text","text":"x"},`, 5)+`{"type":"text","text":"x"}]}`), "payload.items must have at most 5 items"},
		{"array missing", body("payload", `{"type":"bloc"}`), "payload.items is required"},
		{"unknown in a variant that is two", body("payload", `{"type":"dropdown","options":[],"x":1}`), `"x" is not a member of payload; it takes type, options`},
		{"empty array would do", body("payload", `{"type":"choice"}`), "payload.options is required; send []"},
		{"nested union, wrong item", body("payload", `{"type":"bloc","items":[{"type":"text","text":"x"},7]}`), "payload.items[1] must be an object"},
		{"nested union, wrong member", body("payload", `{"items":[{"text":"x","type":"text"},{"options":[{"label":""}],"type":"choice"}],"type":"bloc"}`), "payload.items[1].options[0].label must not be empty"},
		{"optional object, incomplete", body("payload", `{"type":"bloc","items":[{"type":"text","text":"x"}],"note":{"label":"l"}}`), "payload.note.value is required"},

		{"id", body("conversationId", `"x"`), `The provided UUID is invalid: conversationId "x"`},
		{"id of an optional member", body("userId", `"user_1"`), `The provided UUID is invalid: userId "user_1"`},
		{"id as a number", body("conversationId", `17`), "conversationId must be a string"},
		{"id with a line break", body("conversationId", `"a\nb"`), `The provided UUID is invalid: conversationId "a\nb"`},
		{"tag value", body("tags", `{"a":1}`), "tags.a must be a string"},
		{"long tag value", body("tags", `{"a":"`+strings.Repeat("x", 11)+`"}`), "tags.a must have at most 10 characters"},
		{"many tags", body("tags", `{"a":"","b":"","c":"","d":"","e":""}`), "tags must have at most 4 members"},
		{"tags as an array", body("tags", `[]`), "tags must be an object"},
		{"null in tags", body("tags", `{"a":null}`), "tags.a must not be null"},
		{"long name value", body("name", `"`+strings.Repeat("x", 201)+`"`), "name must have at most 200 characters"},
		{"null name", body("name", `null`), "name must not be null"},
		{"zero character", body("name", `"a\u0000b"`), "name must not contain the character U+0000"},
		{"zero character in a key", body("tags", `{"a\u0000":"b"}`), "tags.a? must not contain the character U+0000 in its name"},
		{"enum of one", body("origin", `"human"`), "origin must be synthetic"},
		{"integer", body("count", `1.5`), "count must be an integer"},
		{"integer with exponent", body("count", `1e0`), "count must be an integer"},
		{"integer as a string", body("count", `"1"`), "count must be an integer"},
		{"huge integer", body("count", `9223372036854775808`), "count must be an integer"},
		{"too small", body("count", `0`), "count must be at least 1"},
		{"too large", body("count", `10`), "count must be at most 9"},
		{"number", body("weight", `true`), "weight must be a number"},
		{"number out of range", body("weight", `1e400`), "weight must be a number"},
		{"large number", body("weight", `100.5`), "weight must be at most 100"},
		{"boolean", body("loud", `"true"`), "loud must be true or false"},
		{"boolean as a number", body("loud", `1`), "loud must be true or false"},
		{"array member", body("names", `"a"`), "names must be an array"},
		{"item", body("names", `["a",1]`), "names[1] must be a string"},
		{"item pattern", body("names", `["A"]`), "names[0] must match ^(?:[a-z]+)$"},
		{"many items", body("names", `["a","b","c"]`), "names must have at most 2 items"},
		{"date", body("when", `"yesterday"`), "when must be an ISO 8601 date and time with an offset such as 2026-11-20T12:05:00.000Z"},
		{"date without offset", body("when", `"2026-11-20T12:05:00"`), "when must be an ISO 8601 date and time with an offset such as 2026-11-20T12:05:00.000Z"},
		{"date as a number", body("when", `1763640300123`), "when must be a string"},
		{"URL", body("pictureUrl", `"picture.png"`), "pictureUrl must be a complete URL such as https://example.com/picture.png"},
		{"raw object", body("state", `[]`), "state must be an object"},
		{"check", body("name", `"checked"`), "name is checked"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			wantFault(t, w.ask("POST", "/v1/chat/messages", c.body), fault.InvalidPayload, c.message)
		})
	}
	if n := w.count("createMessage"); n != 0 {
		t.Errorf("the operation ran %d times", n)
	}
}

func TestBodiesThatAreTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	text := `{"message":{"id":"msg_1","createdAt":"2026-11-20T12:05:00.123Z","payload":{"type":"text","text":"hi"},"tags":{},"names":[]}}`
	cases := []struct{ name, body, want string }{
		{"plain", goodBody, text},
		{"spaced", " \n" + strings.ReplaceAll(goodBody, ":{", " :\t{ ") + "\r\n", ""},
		{"discriminator last", body("payload", `{"text":"hi","type":"text"}`), strings.Replace(text, `{"type":"text","text":"hi"}`, `{"text":"hi","type":"text"}`, 1)},
		{"discriminator escaped", body("payload", `{"\u0074ype":"te\u0078t","text":"hi"}`), strings.Replace(text, `"type":"text"`, `"\u0074ype":"te\u0078t"`, 1)},
		{"HTML is not escaped", body("tags", `{"a":"<b>&"}`), strings.Replace(text, `"tags":{}`, `"tags":{"a":"<b>&"}`, 1)},
		{"map in order", body("tags", `{"b":"2","a":"1"}`), strings.Replace(text, `"tags":{}`, `"tags":{"a":"1","b":"2"}`, 1)},
		{"optional members", body("name", `"n"`, "names", `["a","b"]`, "count", "9", "weight", "1e2", "loud", "true", "when", `"2026-11-20T13:05:00+01:00"`, "origin", `"synthetic"`, "userId", `"`+userID+`"`, "pictureUrl", `"https://example.com/a b.png"`),
			strings.Replace(text, `"names":[]`, `"names":["a","b"],"name":"n"`, 1)},
		{"raw members", body("state", `{"a":[1,2.50,{"b":null}]}`, "any", `null`, "free", `[[]]`), text},
		{"as deep as allowed", body("state", strings.Repeat(`{"a":`, 62)+"{}"+strings.Repeat("}", 62)), text},
		{"many brackets in strings", body("name", `"`+strings.Repeat("[{", 90)+`"`), ""},
		{"UUID", body("conversationId", `"6ba7b810-9dad-11d1-80b4-00c04fd430c8"`), text},
		{"nested union", body("payload", `{"type":"bloc","items":[{"type":"bloc","items":[{"type":"text","text":"x"}]},{"options":[],"type":"choice"}],"note":{"label":"l","value":""},"meta":{"any":[1]}}`), ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			rec := w.ask("POST", "/v1/chat/messages", c.body)
			if rec.Code != http.StatusCreated || rec.Header().Get("Content-Type") != "application/json" {
				t.Fatalf("got %d %s", rec.Code, rec.Body)
			}
			if c.want != "" && rec.Body.String() != c.want {
				t.Errorf("got  %s\nwant %s", rec.Body, c.want)
			}
		})
	}
}

func TestNullableMembersTellAbsentFromNull(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cases := []struct{ body, want string }{
		{`{}`, `id name={Set:false Null:false Value:} tags=map[] sub={Set:false Null:false Value:{Label: Value:}}`},
		{``, `id name={Set:false Null:false Value:} tags=map[] sub={Set:false Null:false Value:{Label: Value:}}`},
		{`{"name":null,"sub":null}`, `id name={Set:true Null:true Value:} tags=map[] sub={Set:true Null:true Value:{Label: Value:}}`},
		{`{"name":"n","tags":{"a":null,"b":"2"},"sub":{"label":"l","value":"v"}}`,
			`id name={Set:true Null:false Value:n} tags=map[a:{true true } b:{true false 2}] sub={Set:true Null:false Value:{Label:l Value:v}}`},
	}
	for _, c := range cases {
		rec := w.ask("PUT", "/v1/chat/messages/id", c.body)
		if want := `{"what":"` + c.want + `"}`; rec.Body.String() != want {
			t.Errorf("%s: got %d %s, want %s", c.body, rec.Code, rec.Body, want)
		}
	}
	wantFault(t, w.ask("PUT", "/v1/chat/messages/id", `{"name":"toolong"}`), fault.InvalidPayload, "name must have at most 5 characters")
	wantFault(t, w.ask("PUT", "/v1/chat/messages/id", `{"sub":{"label":"l"}}`), fault.InvalidPayload, "sub.value is required")
	wantFault(t, w.ask("PUT", "/v1/chat/messages/id", `{"tags":null}`), fault.InvalidPayload, "tags must not be null")
}

func TestOpenOperationsKeepWhatTheyDoNotKnow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 2 {
		rec := w.ask("PUT", "/v1/admin/bots?id=7", `{"name":"n","newer":{"a" : [1]},"plan":"x"}`)
		if got, want := rec.Body.String(), `{"what":"n 7 {\"newer\":{\"a\" : [1]},\"plan\":\"x\"}"}`; got != want {
			t.Errorf("got %d %s, want %s", rec.Code, got, want)
		}
	}
	if n := strings.Count(w.log.String(), "accepted a body member"); n != 2 {
		t.Errorf("%d members were logged, want each of the two once:\n%s", n, w.log)
	}
	// JSON knows the query field ID by its Go name; it is no member all the same.
	wantFault(t, w.ask("PUT", "/v1/admin/bots", `{"name":"n","ID":"9"}`), fault.InvalidPayload, `"ID" is not a member of define; it takes name`)
	wantFault(t, w.ask("PUT", "/v1/admin/bots", `{"name":"n","a":{"b":1,"b":1}}`), fault.InvalidPayload, `The body has the member "b" twice, at byte 23`)
}

func TestContentTypesAndSizes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mediaType := fault.UnsupportedMediaType
	cases := []struct {
		name, path, body string
		headers          []string
		kind             *fault.Kind // nil = taken
		message          string
	}{
		{"with a character set", "messages", goodBody, []string{"Content-Type: application/json; charset=utf-8"}, nil, ""},
		{"in capitals", "messages", goodBody, []string{"Content-Type: Application/JSON;charset=UTF-8"}, nil, ""},
		{"none", "messages", goodBody, []string{"Content-Type: "}, mediaType, "The header content-type is missing; send content-type: application/json"},
		{"text", "messages", goodBody, []string{"Content-Type: text/plain"}, mediaType, `The header content-type is "text/plain"; send content-type: application/json`},
		{"form", "messages", goodBody, []string{"Content-Type: application/x-www-form-urlencoded"}, mediaType, `The header content-type is "application/x-www-form-urlencoded"; send content-type: application/json`},
		{"malformed", "messages", goodBody, []string{"Content-Type: ;;"}, mediaType, `The header content-type is ";;"; send content-type: application/json`},
		{"other character set", "messages", goodBody, []string{"Content-Type: application/json; charset=latin1"}, mediaType, `The header content-type asks for the character set "latin1"; JSON is UTF-8`},
		{"gzip", "messages", goodBody, []string{"Content-Encoding: gzip"}, mediaType, `The header content-encoding is "gzip"; send the body as it is, without compression`},
		{"identity", "messages", goodBody, []string{"Content-Encoding: identity"}, nil, ""},
		{"no body, something required", "messages", "", nil, fault.InvalidPayload, "conversationId is required"},
		{"no body, nothing required", "messages/m/touch", "", nil, nil, ""},
		{"a body where none is needed", "messages/m/touch", "{}", nil, nil, ""},
		{"a body without a type where none is needed", "messages/m/touch", "{}", []string{"Content-Type: "}, mediaType, "The header content-type is missing; send content-type: application/json"},
		{"a member where there is none", "messages/m/touch", `{"a":1}`, nil, fault.InvalidPayload, `"a" is not a member of touch; it takes no members`},
		{"2 MB", "messages", body("free", `"`+strings.Repeat("x", 2<<20)+`"`), nil, fault.PayloadTooLarge, "The body of createMessage is over its limit of 1 MB"},
		{"just over", "messages", body("free", `"`+strings.Repeat("x", 1<<20)+`"`), nil, fault.PayloadTooLarge, "The body of createMessage is over its limit of 1 MB"},
		{"just under", "messages", body("free", `"`+strings.Repeat("x", 1<<20-200)+`"`), nil, nil, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			rec := w.ask("POST", "/v1/chat/"+c.path, c.body, c.headers...)
			if c.kind != nil {
				wantFault(t, rec, c.kind, c.message)
			} else if rec.Code >= 300 {
				t.Errorf("got %d %s", rec.Code, rec.Body)
			}
		})
	}
	rec := w.ask("PUT", "/v1/admin/bots", `{"name":"`+strings.Repeat("x", 3<<19)+`"}`)
	if rec.Code != 200 {
		t.Errorf("an operation with a limit of 2 MB refused 1.5 MB: %d", rec.Code)
	}
}

// askSoft sends a body to an operation that takes it as these options say.
func askSoft(body, contentType string, opts ...api.Option) *httptest.ResponseRecorder {
	op := api.Handle("createMessage", "POST /messages", auth.Public, func(_ context.Context, in createMessage) (seen, error) { return seen{in.ConversationID}, nil }, opts...)
	r := httptest.NewRequest("POST", "/messages", strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	rec := httptest.NewRecorder()
	api.New(api.Config{Ops: []api.Op{op}}).ServeHTTP(rec, r)
	return rec
}

func TestUntypedOperationsReadJSONUnderAnyType(t *testing.T) {
	t.Parallel()
	for _, contentType := range []string{"", "text/plain", "application/x-www-form-urlencoded", ";;", "application/json; charset=latin1"} {
		if rec := askSoft(goodBody, contentType, api.Untyped); rec.Code != 200 {
			t.Errorf("%q: got %d %s", contentType, rec.Code, rec.Body)
		}
	}
	wantFault(t, askSoft("a=b", "application/x-www-form-urlencoded", api.Untyped), fault.InvalidPayload, "The body is not valid JSON: invalid character 'a' at start of value, at byte 0")
}

func TestThoroughOperationsNameEveryMemberAtFault(t *testing.T) {
	t.Parallel()
	many := make([]string, 30)
	for i := range many {
		many[i] = fmt.Sprintf(`"x%02d":1`, i)
	}
	unknown := func(name string) string {
		return strconv.Quote(name) + " is not a member of createMessage; it takes conversationId, userId, payload, tags, name, origin, count, weight, loud, names, when, pictureUrl, state, any, free"
	}
	cases := []struct{ name, body, message string }{
		{"one", body("count", "0"), "count must be at least 1"},
		{"missing", `{}`, "conversationId is required; payload is required; tags is required; send {}"},
		{"wrong, deep and missing", `{"tags":{"a":"12345678901","b":1},"payload":{"type":"bloc","items":[{"type":"text","text":""},7]},"userId":null,"loud":1,"names":[1,"A"],"name":"n"}`,
			"tags.a must have at most 10 characters; payload.items[0].text must not be empty; userId must not be null; loud must be true or false; names[0] must be a string; conversationId is required"},
		{"a member that is none", body("contents", `{"a":[1,{"b":2}]}`, "origin", `"x"`), unknown("contents") + "; origin must be synthetic"},
		{"not JSON behind a fault", `{"loud":1,"tags":}`, "The body is not valid JSON: invalid character '}' at start of value, at byte 17"},
		{"not JSON inside a fault", `{"tags":{"a":1,}}`, "The body is not valid JSON: invalid character ',' at start of value, at byte 14"},
		{"no object", `[]`, "The body must be a JSON object"},
		{"a member twice", `{"loud":1,"loud":2}`, `The body has the member "loud" twice, at byte 10`},
	}
	for _, c := range cases {
		wantFault(t, askSoft(c.body, "application/json", api.Thorough), fault.InvalidPayload, c.message)
	}
	if got := strings.Count(askSoft("{"+strings.Join(many, ",")+"}", "application/json", api.Thorough).Body.String(), "is not a member"); got != 20 {
		t.Errorf("%d members are named, want 20", got)
	}
	if rec := askSoft(body("more", "1"), "application/json", api.Thorough, api.Open); rec.Code != 200 {
		t.Errorf("an unknown member where all are accepted: got %d %s", rec.Code, rec.Body)
	}
}

func TestBodiesOfReadsAreIgnored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, method := range []string{"GET", "HEAD", "DELETE"} {
		for _, kind := range []string{"application/json", "text/plain", ""} {
			rec := w.ask(method, "/v1/chat/messages/m", `{"not":"json`, "Content-Type: "+kind)
			if rec.Code != 200 {
				t.Errorf("%s with a body of type %q: got %d %s", method, kind, rec.Code, rec.Body)
			}
		}
	}
}

func TestQueries(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cases := []struct{ query, want string }{
		{"must=1", "token= conversation= tags=map[] participants=[] labels=[] after= sort= limit=0 ratio=0 deep=false must=1"},
		{"must=1&tags.chat%3Aid=x%20y&tags.b=", "token= conversation= tags=map[b: chat:id:x y] participants=[] labels=[] after= sort= limit=0 ratio=0 deep=false must=1"},
		{"must=1&tags[chat:id]=x+y&tags%5Bb%5D=%26", "token= conversation= tags=map[b:& chat:id:x y] participants=[] labels=[] after= sort= limit=0 ratio=0 deep=false must=1"},
		{"must=1&tags.a.b=c", "token= conversation= tags=map[a.b:c] participants=[] labels=[] after= sort= limit=0 ratio=0 deep=false must=1"},
		{"must=1&participantIds=" + userID + "&participantIds=" + convID, "token= conversation= tags=map[] participants=[" + userID + " " + convID + "] labels=[] after= sort= limit=0 ratio=0 deep=false must=1"},
		{"must=1&labels[]=a&labels[0]=b&labels=c", "token= conversation= tags=map[] participants=[] labels=[a b c] after= sort= limit=0 ratio=0 deep=false must=1"},
		{"must=&&nextToken=a%2Bb%2F%3D&conversationId=" + convID + "&", "token=a+b/= conversation=" + convID + " tags=map[] participants=[] labels=[] after= sort= limit=0 ratio=0 deep=false must="},
		{"must=1&afterDate=2026-11-20T13:05:00.5%2B01:00&sortDirection=asc&limit=100&ratio=-0.5&deep=true",
			"token= conversation= tags=map[] participants=[] labels=[] after=2026-11-20T12:05:00.500Z sort=asc limit=100 ratio=-0.5 deep=true must=1"},
	}
	for _, c := range cases {
		rec := w.ask("GET", "/v1/chat/messages?"+c.query, "")
		if want := `{"what":"` + c.want + ` ws="}`; rec.Body.String() != want {
			t.Errorf("%s\ngot  %d %s\nwant %s", c.query, rec.Code, rec.Body, want)
		}
	}
}

func TestQueriesThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	takes := "nextToken, conversationId, tags, participantIds, labels, afterDate, sortDirection, limit, ratio, deep, must"
	cases := []struct{ query, message string }{
		{"", "must is required in the query of listMessages"},
		{"must=1&foo=1", `"foo" is not a query parameter of listMessages; it takes ` + takes},
		{"must=1&nexttoken=1", `"nexttoken" is not a query parameter of listMessages; it takes ` + takes + "; did you mean nextToken?"},
		{"must=1&must=2", "must occurs twice in the query"},
		{"must=1&tags.a=1&tags[a]=2", `"tags[a]" occurs twice in the query`},
		{"must=1&tags=1", `"tags" is not well formed; the query takes tags.key=value or tags[key]=value`},
		{"must=1&tags[a][b]=1", `"tags[a][b]" is not well formed; the query takes tags.key=value or tags[key]=value`},
		{"must=1&tags[a=1", `"tags[a" is not well formed; the query takes tags.key=value or tags[key]=value`},
		{"must=1&tags[]=1", `"tags[]" is not well formed; the query takes tags.key=value or tags[key]=value`},
		{"must=1&tags.=1", `"tags." is not well formed; the query takes tags.key=value or tags[key]=value`},
		{"must=1&limit[a]=1", `"limit[a]" is not well formed; the query takes limit=value`},
		{"must=1&labels[x]=1", `"labels[x]" is not well formed; the query takes labels=value, as often as needed`},
		{"must=1&labels=a&labels=b&labels=c&labels=d", "labels must have at most 3 items"},
		{"must=%zz", `The query has an invalid escape in "must=%zz"`},
		{"%=1", `The query has an invalid escape in "%=1"`},
		{"must=%ff", "must must be valid UTF-8"},
		{"must=a%00b", "must must not contain the character U+0000"},
		{"must=1&tags[%00]=b", `The key in "tags[\x00]" must not contain the character U+0000`},
		{"must=1&limit=ten", "limit must be an integer"},
		{"must=1&limit=", "limit must be an integer"},
		{"must=1&limit=%2B5", "limit must be an integer"},
		{"must=1&limit=5.0", "limit must be an integer"},
		{"must=1&limit=0", "limit must be at least 1"},
		{"must=1&limit=101", "limit must be at most 100"},
		{"must=1&ratio=0x10", "ratio must be a number"},
		{"must=1&ratio=NaN", "ratio must be a number"},
		{"must=1&deep=1", "deep must be true or false"},
		{"must=1&sortDirection=up", "sortDirection must be one of asc, desc"},
		{"must=1&afterDate=2026-11-20", "afterDate must be an ISO 8601 date and time with an offset such as 2026-11-20T12:05:00.000Z"},
		{strings.Repeat("labels=a&", 300), "The query has more than 200 parameters"},
	}
	for _, c := range cases {
		t.Run(c.query[:min(len(c.query), 40)], func(t *testing.T) {
			wantFault(t, w.ask("GET", "/v1/chat/messages?"+c.query, ""), fault.InvalidQuery, c.message)
		})
	}
	wantFault(t, w.ask("GET", "/v1/chat/messages?must=1&conversationId=x", ""), fault.InvalidPayload, `The provided UUID is invalid: conversationId "x"`)
	wantFault(t, w.ask("GET", "/v1/chat/messages?must=1&participantIds="+userID+"&participantIds=", ""), fault.InvalidPayload, `The provided UUID is invalid: participantIds ""`)
	wantFault(t, w.ask("GET", "/v1/chat/messages?must=1", "", "X-Workspace-Id: w"), fault.InvalidPayload, `The provided UUID is invalid: x-workspace-id "w"`)
	wantFault(t, w.ask("GET", "/v1/chat/messages/m?a=1", ""), fault.InvalidQuery, `"a" is not a query parameter of getMessage; it takes none`)
	wantFault(t, w.ask("POST", "/v1/chat/messages?a=1", goodBody), fault.InvalidQuery, `"a" is not a query parameter of createMessage; it takes none`)
}

func TestParseTime(t *testing.T) {
	t.Parallel()
	good := map[string]string{
		"2026-11-20T12:05:00Z": "2026-11-20T12:05:00.000Z", "2026-11-20T12:05:00.1Z": "2026-11-20T12:05:00.100Z",
		"2026-11-20T12:05:00.123456789Z": "2026-11-20T12:05:00.123Z", "2026-11-20T12:05:00-0330": "2026-11-20T15:35:00.000Z",
		"2026-11-20T12:05Z": "2026-11-20T12:05:00.000Z", "1969-12-31T23:59:59.999Z": "1969-12-31T23:59:59.999Z",
		"0001-01-01T00:00:00Z": "0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z": "9999-12-31T23:59:59.999Z",
	}
	for in, want := range good {
		if got, err := api.ParseTime(in); err != nil || got.String() != want {
			t.Errorf("ParseTime(%q) = %v, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "2026", "2026-11-20", "2026-11-20T12:05:00", "2026-13-20T12:05:00Z", "2026-11-31T12:05:00Z", "2026-11-20 12:05:00Z", strings.Repeat("2", 500)} {
		if got, err := api.ParseTime(in); err == nil {
			t.Errorf("ParseTime(%q) = %v, want an error", in, got)
		}
	}
}
