package api_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"parley/internal/api"
	"parley/internal/fault"
)

// What the validator takes, the decoder takes too, and what it refuses is the client's fault.
func FuzzValidate(f *testing.F) {
	for _, text := range []string{
		goodBody, `{}`, `[]`, `null`, body("payload", `{"type":"bloc","items":[{"type":"text","text":"x"},{"options":[],"type":"choice"}]}`),
		body("payload", `{"text":"x","\u0074ype":"text"}`), body("count", "-0", "weight", "1e400"), body("when", `"2026-11-20T12:05Z"`, "any", "[1]"),
		body("names", `["a"]`, "state", `{"a":{"a":1}}`), `{"tags":{"a":"\u0000"}}`, strings.Repeat("[", 100), `{"name":"\ud800"}`,
	} {
		f.Add([]byte(text))
	}
	s := api.SchemaOf[createMessage]()
	f.Fuzz(func(t *testing.T, text []byte) {
		err := s.Validate("createMessage", text)
		soft := askSoft(string(text), "", api.Thorough, api.Untyped)
		if fits := soft.Code == 200 || strings.Contains(soft.Body.String(), "name is checked"); len(text) > 0 && fits != (err == nil) {
			t.Errorf("%q: an operation that names everything answers %d %s, one that does not says %v", text, soft.Code, soft.Body, err)
		}
		if err != nil {
			if !fault.Is(err, fault.InvalidPayload) || err.Error() == "" {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		var in createMessage
		if err := json.Unmarshal(text, &in, json.RejectUnknownMembers(true)); err != nil {
			t.Errorf("%q is valid and cannot be decoded: %v", text, err)
		}
		if again, err := json.Marshal(in.Payload); err != nil || s.Validate("x", []byte(`{"conversationId":"`+convID+`","tags":{},"payload":`+string(again)+`}`)) != nil {
			t.Errorf("the payload %s does not survive: %v", again, err)
		}
	})
}

func FuzzQuery(f *testing.F) {
	for _, q := range []string{"must=1", "must=1&tags.a%3Ab=x&tags[c]=d", "labels[]=a&labels[0]=b", "%", "a=%zz", "tags[a][b]=1", "&&&=", "limit=5&afterDate=2026-11-20T12:05:00Z"} {
		f.Add(q)
	}
	w := newWorld(f)
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequest("GET", "/v1/chat/messages", nil)
		r.URL.RawQuery = query
		r.Header.Set("Authorization", "Bearer good")
		rec := httptest.NewRecorder()
		w.ServeHTTP(rec, r)
		if rec.Code != 200 && rec.Code != 400 {
			t.Errorf("%q: %d %s", query, rec.Code, rec.Body)
		}
		values, err := url.ParseQuery(query)
		if rec.Code == 200 && err == nil && values.Get("must") != "" && !strings.Contains(rec.Body.String(), "must=") {
			t.Errorf("%q: %s", query, rec.Body)
		}
	})
}

func FuzzPath(f *testing.F) {
	for _, p := range []string{"/v1/chat/messages/m", "/v1/chat/messages/a%2Fb/", "//", "/%", "/v1/chat/messages/%00", "/v1/admin/integrations/a%2Fb/%3E%3D1", "/v1/admin/workspaces/x/public", "*", ""} {
		f.Add(p)
	}
	w := newWorld(f)
	f.Fuzz(func(t *testing.T, path string) {
		u, err := url.ParseRequestURI(path)
		if err != nil {
			u = &url.URL{Path: path, RawPath: path}
		}
		for _, method := range []string{"GET", "OPTIONS"} {
			r := &http.Request{Method: method, URL: u, Header: http.Header{"Authorization": {"Bearer good"}}}
			rec := httptest.NewRecorder()
			w.ServeHTTP(rec, r)
			if rec.Code >= 500 || rec.Code >= 300 && rec.Code < 400 {
				t.Errorf("%s %q: %d %s", method, path, rec.Code, rec.Body)
			}
		}
	})
}

// Whatever headers say of a body and of a repetition, the answer is the client's business.
func FuzzHeaders(f *testing.F) {
	for _, h := range [][3]string{
		{"application/json", "", "k"}, {"application/json; charset=utf-8", "identity", ""}, {"multipart/form-data; boundary=x", "gzip", "ä"},
		{";;", "x", strings.Repeat("k", 300)}, {"", "", "\x00"}, {"a/b; c*=utf-8''%zz", "br, identity", "a b"},
	} {
		f.Add(h[0], h[1], h[2])
	}
	w := newWorld(f)
	f.Fuzz(func(t *testing.T, contentType, encoding, key string) {
		r := httptest.NewRequest("POST", "/v1/chat/messages", strings.NewReader(goodBody))
		for name, value := range map[string]string{"Authorization": "Bearer good", "Content-Type": contentType, "Content-Encoding": encoding, "Idempotency-Key": key} {
			r.Header[name] = []string{value}
		}
		rec := httptest.NewRecorder()
		w.ServeHTTP(rec, r)
		if rec.Code != 201 && rec.Code != 400 && rec.Code != 415 {
			t.Errorf("%v: %d %s", r.Header, rec.Code, rec.Body)
		}
	})
}

// A time that is taken is written in a form that is taken as the same time.
func FuzzParseTime(f *testing.F) {
	for _, text := range []string{"2026-11-20T12:05:00Z", "2026-11-20T12:05:00.123456789+01:00", "0001-01-01T00:00Z", "9999-12-31T23:59:59.999-2359", "2026-02-30T00:00:00Z", "x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		at, err := api.ParseTime(text)
		if err != nil {
			return
		}
		if year := at.Time().Year(); year < 0 || year > 9999 {
			return // an offset moved it out of what the form can say
		}
		if again, err := api.ParseTime(at.String()); err != nil || again != at {
			t.Errorf("%q is %v, which is read as %v, %v", text, at, again, err)
		}
	})
}
