package api_test

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestRouting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cases := []struct{ method, path, want string }{
		{"GET", "/v1/chat/messages/m", `{"what":"m"}`},
		{"GET", "/v1/chat/messages/m/", `{"what":"m"}`},
		{"GET", "/v1/chat/messages/a%2Fb", `{"what":"a/b"}`},
		{"GET", "/v1/chat/messages/a%2fb%23c%3Ad%20e+f%25", `{"what":"a/b#c:d e+f%"}`},
		{"GET", "/v1/chat/messages/%C3%A9", `{"what":"é"}`},
		{"GET", "/v1/chat/messages/..", `{"what":".."}`},
		{"GET", "/v1/admin/integrations/acme%2Fhooky/%3E%3D1.0.0%20%3C2.0.0", `{"what":"acme/hooky \u003e=1.0.0 \u003c2.0.0"}`},
		{"GET", "/v1/admin/integrations/chat/latest", `{"what":"chat latest"}`},
		{"GET", "/v1/admin/workspaces/preferences/x", `{"what":"preference x"}`},
		{"GET", "/v1/admin/workspaces/preferences/public", `{"what":"preference public"}`},
		{"GET", "/v1/admin/workspaces/w/public", `{"what":"public w"}`},
		{"GET", "/v1/admin/workspaces/pref/public/", `{"what":"public pref"}`},
		{"POST", "/v1/chat/messages/m/touch/", `{"what":"m"}`},
	}
	for _, c := range cases {
		rec := w.ask(c.method, c.path, "")
		if want := strings.NewReplacer(`\u003e`, ">", `\u003c`, "<").Replace(c.want); rec.Code != 200 || rec.Body.String() != want {
			t.Errorf("%s %s: got %d %s, want %s", c.method, c.path, rec.Code, rec.Body, want)
		}
	}
}

func TestPathsThatAreUnknown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cases := []struct{ method, path, message string }{
		{"GET", "/", "GET / is not an operation of this server"},
		{"GET", "/nonsense", "GET /nonsense is not an operation of this server"},
		{"POST", "/chat/messages", "POST /chat/messages is not an operation of this server; did you mean /v1/chat/messages?"},
		{"POST", "/messages", "POST /messages is not an operation of this server; did you mean /v1/chat/messages?"},
		{"POST", "/v1/v1/chat/messages", "POST /v1/v1/chat/messages is not an operation of this server; did you mean /v1/chat/messages?"},
		{"POST", "/v1/chat/mesages", "POST /v1/chat/mesages is not an operation of this server; did you mean /v1/chat/messages?"},
		{"GET", "/v1/chat/message/m1", "GET /v1/chat/message/m1 is not an operation of this server; did you mean /v1/chat/messages/{id}?"},
		{"GET", "/v1/chat//messages", "GET /v1/chat//messages is not an operation of this server"},
		{"GET", "//v1/chat/messages", "GET //v1/chat/messages is not an operation of this server; did you mean /v1/chat/messages?"},
		{"GET", "/v1/chat/messages//", "GET /v1/chat/messages// is not an operation of this server; did you mean /v1/chat/messages?"},
		{"GET", "/v1/chat/messages/a/b/c", "GET /v1/chat/messages/a/b/c is not an operation of this server"},
		{"GET", "/v1/chat/messages/a%00b", "GET /v1/chat/messages/a?b is not an operation of this server; did you mean /v1/chat/messages/{id}?"},
		{"GET", "/v1/chat/messages/%ff", "GET /v1/chat/messages/? is not an operation of this server; did you mean /v1/chat/messages/{id}?"},
		{"BREW", "/nowhere", "BREW /nowhere is not an operation of this server"},
	}
	for _, c := range cases {
		rec := w.ask(c.method, c.path, "")
		wantFault(t, rec, fault.ResourceNotFound, c.message)
		if rec.Header().Get("Location") != "" {
			t.Errorf("%s %s is redirected", c.method, c.path)
		}
	}
	// The standard library refuses such a request line; a rewriting proxy in front might not.
	r := httptest.NewRequest("GET", "/v1/chat/messages/x", nil)
	r.URL.RawPath = "/v1/chat/messages/%zz"
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, r)
	if rec.Code == http.StatusOK {
		t.Errorf("an invalid escape was served: %d %s", rec.Code, rec.Body)
	}
	long := "/v1/chat/messages/" + strings.Repeat("x", 10000)
	if rec := w.ask("GET", long, ""); rec.Code != 404 || rec.Body.Len() > 1000 {
		t.Errorf("a long path: got %d and %d bytes", rec.Code, rec.Body.Len())
	}
}

func TestMethodsThatAreUnknown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cases := []struct{ method, path, allow string }{
		{"PATCH", "/v1/chat/messages/m", "GET, HEAD, PUT, DELETE, OPTIONS"},
		{"DELETE", "/v1/chat/messages/", "GET, HEAD, POST, OPTIONS"},
		{"HEAD", "/v1/chat/messages/m/touch", "POST, OPTIONS"},
		{"BREW", "/v1/chat/messages/m/touch", "POST, OPTIONS"},
		{"TRACE", "/v1/admin/bots", "PUT, OPTIONS"},
	}
	for _, c := range cases {
		rec := w.ask(c.method, c.path, "")
		wantFault(t, rec, fault.MethodNotFound, c.method+" is not a method of "+c.path+"; it takes "+c.allow)
		if got := rec.Header().Get("Allow"); got != c.allow {
			t.Errorf("%s %s: Allow is %q, want %q", c.method, c.path, got, c.allow)
		}
	}
}

func TestGoldenErrors(t *testing.T) {
	t.Parallel()
	patient, hurried := newWorld(t), newWorld(t, func(c *api.Config) { c.Timeout = 5 * time.Millisecond })
	cases := []struct {
		name, method, path, body string
		headers                  []string
	}{
		{"fault_with_metadata", "POST", "/v1/chat/fails/fault", "", nil},
		{"outage", "POST", "/v1/chat/fails/outage", "", nil},
		{"busy", "POST", "/v1/chat/fails/busy", "", nil},
		{"stopping", "POST", "/v1/chat/fails/closed", "", nil},
		{"text", "POST", "/v1/chat/fails/text", "", nil},
		{"deadline", "POST", "/v1/chat/fails/deadline", "", nil},
		{"interrupted", "POST", "/v1/chat/fails/waits", "", nil},
		{"panic", "POST", "/v1/chat/fails/panic", "", nil},
		{"metadata_without_json", "POST", "/v1/chat/fails/metadata", "", nil},
		{"invalid_payload", "POST", "/v1/chat/messages", "{}", nil},
		{"invalid_query", "GET", "/v1/chat/messages?foo=1", "", nil},
		{"unknown_path", "GET", "/v1/chat/nothing", "", nil},
		{"unknown_method", "PUT", "/v1/chat/messages", "", nil},
		{"media_type", "POST", "/v1/chat/messages", "{}", []string{"Content-Type: text/html"}},
		{"unauthorized", "GET", "/v1/chat/messages/m", "", []string{"Authorization: "}},
		{"forbidden", "GET", "/v1/chat/messages/m", "", []string{"Authorization: Bearer stranger"}},
		{"stream_refused", "GET", "/v1/chat/stream/none", "", nil},
		{"stream_query", "GET", "/v1/chat/stream/s?after=-1", "", nil},
	}
	errorID := regexp.MustCompile(`err_1795176300123x[0-9A-F]{8}`)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := patient
			if c.name == "interrupted" {
				w = hurried
			}
			rec := w.ask(c.method, c.path, c.body, c.headers...)
			var got bytes.Buffer
			fmt.Fprintf(&got, "%d\n", rec.Code)
			for _, h := range []string{"Allow", "Content-Type", "Retry-After", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "X-Request-Id", "Vary"} {
				if v := rec.Header().Get(h); v != "" {
					fmt.Fprintf(&got, "%s: %s\n", h, v)
				}
			}
			fmt.Fprintf(&got, "\n%s\n", errorID.ReplaceAllString(rec.Body.String(), "err_1795176300123xXXXXXXXX"))
			golden(t, c.name+".txt", got.Bytes())
		})
	}
}

// golden compares got with a file of testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test -update rewrites it)\ngot:\n%s\nwant:\n%s", file, got, want)
	}
}

func TestFailuresAreLoggedOnceAndNeverShown(t *testing.T) {
	t.Parallel()
	cases := []struct{ path, logged string }{
		{"/v1/chat/fails/outage", `level=ERROR msg="request failed" method=POST path=/v1/chat/fails/outage request_id=req_test operation=fails error_id=err_`},
		{"/v1/chat/fails/panic", `err="panic: the moon is full" stack=`},
		{"/v1/chat/fails/deadline", "level=WARN"},
		{"/v1/chat/fails/fault", ""},
		{"/v1/chat/fails/busy", ""},
	}
	for _, c := range cases {
		w := newWorld(t)
		rec := w.ask("POST", c.path+"?token=hidden", "")
		rec = w.ask("POST", c.path, "")
		log := w.log.String()
		if strings.Contains(rec.Body.String(), "secret") || strings.Contains(rec.Body.String(), "moon") {
			t.Errorf("%s: the client sees the cause: %s", c.path, rec.Body)
		}
		if c.logged == "" && log != "" || !strings.Contains(log, c.logged) || strings.Count(log, "\n") > 1 || strings.Contains(log, "hidden") {
			t.Errorf("%s: log is %q, want one line with %q", c.path, log, c.logged)
		}
	}
}

func TestClientsThatLeaveMakeNoNoise(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequestWithContext(ctx, "POST", "/v1/chat/fails/waits", nil)
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, r)
	if rec.Code != 504 || w.log.String() != "" {
		t.Errorf("got %d and the log %q", rec.Code, w.log)
	}
}

func TestPanicForAbortIsPassedOn(t *testing.T) {
	t.Parallel()
	a := api.New(api.Config{Ops: []api.Op{
		api.HandleRaw("abort", "GET /abort", auth.Public, func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) }),
	}})
	defer func() {
		if p := recover(); p != http.ErrAbortHandler {
			t.Errorf("recovered %v", p)
		}
	}()
	a.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/abort", nil))
}

func TestAccessLogHoldsNoCredentials(t *testing.T) {
	t.Parallel()
	var log logBuffer
	w := newWorld(t, func(c *api.Config) {
		c.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	w.ask("GET", "/v1/chat/messages/m?userKey=hidden", "", "Authorization: Bearer good")
	w.ask("GET", "/v1/chat/stream/s?key=hidden", "", "X-User-Key: hidden", "Authorization: Bearer hidden")
	got := log.String()
	if strings.Contains(got, "hidden") || strings.Contains(got, "good") {
		t.Errorf("the log holds a credential: %s", got)
	}
	if !strings.Contains(got, "level=DEBUG msg=request method=GET path=/v1/chat/messages/m request_id=req_test operation=getMessage status=400 bytes=") {
		t.Errorf("the log is %s", got)
	}
}

func TestHeadersOfEveryAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	asks := []struct{ method, path, body string }{
		{"GET", "/v1/chat/messages/m", ""}, {"POST", "/v1/chat/messages", goodBody}, {"POST", "/v1/chat/messages", "{"}, {"GET", "/nothing", ""},
		{"PATCH", "/v1/chat/messages", ""}, {"POST", "/v1/chat/fails/panic", ""}, {"GET", "/v1/chat/stream/s", ""}, {"OPTIONS", "/v1/chat/messages", ""},
		{"HEAD", "/v1/chat/messages/m", ""}, {"POST", "/v1/chat/fails/busy", ""},
	}
	for _, a := range asks {
		rec := w.ask(a.method, a.path, a.body, "Origin: https://app.example")
		h := rec.Header()
		if h.Get("X-Request-Id") != "req_test" || h.Get("Vary") != "Origin" {
			t.Errorf("%s %s: X-Request-Id %q, Vary %q", a.method, a.path, h.Get("X-Request-Id"), h.Get("Vary"))
		}
		if h.Get("RateLimit-Limit") == "" || h.Get("RateLimit-Remaining") == "" || h.Get("RateLimit-Reset") != "1" {
			t.Errorf("%s %s: rate limit headers are %q %q %q", a.method, a.path, h.Get("RateLimit-Limit"), h.Get("RateLimit-Remaining"), h.Get("RateLimit-Reset"))
		}
		if h.Get("Access-Control-Allow-Origin") != "https://app.example" || h.Get("Access-Control-Allow-Credentials") != "true" ||
			h.Get("Access-Control-Expose-Headers") != "ratelimit-limit, ratelimit-remaining, ratelimit-reset, retry-after, x-request-id" {
			t.Errorf("%s %s: the page may not read the answer: %v", a.method, a.path, h)
		}
	}
	rec := w.ask("GET", "/v1/chat/messages/m", "")
	if rec.Header().Get("Access-Control-Allow-Origin") != "" {
		t.Error("CORS headers without an origin")
	}
}

func TestRequestIDs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, given := range []string{"abc", "a b/c:d", strings.Repeat("x", 100)} {
		if got := w.ask("GET", "/v1/chat/messages/m", "", "X-Request-Id: "+given).Header().Get("X-Request-Id"); got != given {
			t.Errorf("%q became %q", given, got)
		}
	}
	made := regexp.MustCompile(`^req_[0-9A-Z]{26}$`)
	for _, given := range []string{"", strings.Repeat("x", 101), "a\tb", "é"} {
		if got := w.ask("GET", "/v1/chat/messages/m", "", "X-Request-Id: "+given).Header().Get("X-Request-Id"); !made.MatchString(got) {
			t.Errorf("%q became %q, want a new id", given, got)
		}
	}
}

func TestPreflight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rec := w.ask("OPTIONS", "/v1/chat/messages", "", "Origin: https://app.example", "Access-Control-Request-Method: POST",
		"Access-Control-Request-Headers: x-user-key, timeout", "Authorization: ")
	h := rec.Header()
	if rec.Code != 204 || rec.Body.Len() != 0 {
		t.Errorf("got %d %s", rec.Code, rec.Body)
	}
	want := map[string]string{
		"Access-Control-Allow-Origin":      "https://app.example",
		"Access-Control-Allow-Credentials": "true",
		"Access-Control-Allow-Methods":     "GET, HEAD, POST, PUT, PATCH, DELETE",
		"Access-Control-Allow-Headers":     "authorization, content-type, x-bot-id, x-integration-id, x-integration-alias, x-workspace-id, x-multiple-integrations, x-user-key, idempotency-key, last-event-id, timeout",
		"Access-Control-Max-Age":           "7200",
		"Vary":                             "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
	}
	for name, value := range want {
		if got := h.Get(name); got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
}

func TestOptionsWithoutPreflight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rec := w.ask("OPTIONS", "/v1/chat/messages/m/", "", "Authorization: ")
	if rec.Code != 200 || rec.Header().Get("Allow") != "GET, HEAD, PUT, DELETE, OPTIONS" || rec.Body.Len() != 0 {
		t.Errorf("got %d, Allow %q, %s", rec.Code, rec.Header().Get("Allow"), rec.Body)
	}
	wantFault(t, w.ask("OPTIONS", "/nothing", ""), fault.ResourceNotFound, "OPTIONS /nothing is not an operation of this server")
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	now := testNow
	w := newWorld(t, func(c *api.Config) {
		c.RateLimit = 2
		c.Now = func() time.Time { return now }
	})
	ask := func(token string) *httptest.ResponseRecorder {
		return w.ask("GET", "/v1/chat/messages/m", "", "Authorization: Bearer "+token)
	}
	for i, left := range []string{"1", "0"} {
		rec := ask("good")
		if rec.Code != 200 || rec.Header().Get("RateLimit-Limit") != "2" || rec.Header().Get("RateLimit-Remaining") != left || rec.Header().Get("RateLimit-Reset") != "1" {
			t.Errorf("request %d: %d %v", i, rec.Code, rec.Header())
		}
	}
	rec := ask("good")
	wantFault(t, rec, fault.RateLimited, "More than 2 requests a second; wait as RateLimit-Reset says, then go on")
	if h := rec.Header(); h.Get("Retry-After") != "1" || h.Get("RateLimit-Reset") != "1" || h.Get("RateLimit-Remaining") != "0" {
		t.Errorf("headers of a 429: %v", h)
	}
	if rec := ask("other"); rec.Code != 200 {
		t.Errorf("another principal shares the limit: %d", rec.Code)
	}
	for range 5 {
		if rec := w.ask("GET", "/v1/admin/workspaces/w/public", "", "Authorization: "); rec.Code != 200 {
			t.Errorf("a public operation is limited: %d", rec.Code)
		}
	}
	now = now.Add(time.Second)
	if rec := ask("good"); rec.Code != 200 {
		t.Errorf("after a second: %d %s", rec.Code, rec.Body)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	w := newWorld(t, func(c *api.Config) { c.Metrics = reg })
	newWorld(t, func(c *api.Config) { c.Metrics, c.Name = reg, "second" }) // shares the registry
	w.ask("GET", "/v1/chat/messages/m", "")
	w.ask("GET", "/v1/chat/messages/m", "")
	w.ask("GET", "/v1/chat/messages/m?a=1", "")
	w.ask("GET", "/nowhere", "")
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	want := map[string]float64{
		"parley_http_requests_total test getMessage gone": 0, "parley_http_requests_total test getMessage 1xx": 0,
		"parley_http_requests_total test getMessage 2xx": 2, "parley_http_requests_total test getMessage 3xx": 0,
		"parley_http_requests_total test getMessage 4xx": 1, "parley_http_requests_total test getMessage 5xx": 0,
		"parley_http_requests_total test none 4xx":       1,
		"parley_http_request_seconds test getMessage":    3,
		"parley_http_requests_in_flight test getMessage": 0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

func TestStreams(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rec := w.ask("GET", "/v1/chat/stream/a%2Fb", "")
	if rec.Code != 200 || rec.Body.String() != "data: a/b of bot_1\n\n" || rec.Header().Get("Content-Type") != "text/event-stream" || !rec.Flushed {
		t.Errorf("got %d %q %v", rec.Code, rec.Body, rec.Header())
	}
	wantFault(t, w.ask("GET", "/v1/chat/stream/s", "", "Authorization: "), fault.Unauthorized, "The request carries no token")
	if w.log.String() != "" {
		t.Errorf("log: %s", w.log)
	}
	rec = w.ask("GET", "/v1/chat/stream/late", "")
	if rec.Code != 200 || strings.Contains(rec.Body.String(), "err_") || !strings.Contains(w.log.String(), "answer broke off") {
		t.Errorf("a late failure: %d %q, log %q", rec.Code, rec.Body, w.log)
	}
}

func TestFailSpeaksForOtherHandlers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rec := httptest.NewRecorder()
	w.Fail(rec, httptest.NewRequest("GET", "/door", nil), fault.ResourceNotFound.New("No integration is installed under this address"))
	wantFault(t, rec, fault.ResourceNotFound, "No integration is installed under this address")
	if rec.Header().Get("X-Request-Id") == "" || rec.Header().Get("RateLimit-Limit") == "" {
		t.Errorf("headers: %v", rec.Header())
	}
}

// A door may fail before anybody knows which operation is meant.
func TestFailWithoutAnOperation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rec := httptest.NewRecorder()
	w.Fail(rec, httptest.NewRequest("GET", "/door", nil), context.DeadlineExceeded)
	wantFault(t, rec, fault.OperationTimeout, "The request did not finish within its time limit; it may still take effect")
}

func TestPrefixParametersReachAdmitAndInput(t *testing.T) {
	t.Parallel()
	type in struct {
		Webhook string `path:"webhookId"`
		ID      string `path:"id"`
	}
	a := api.New(api.Config{
		Prefix: "/{webhookId}",
		Admit: func(r *http.Request, _ auth.Class) (auth.Principal, error) {
			if r.PathValue("webhookId") != "hook/1" {
				return auth.Principal{}, fault.ResourceNotFound.New("no")
			}
			return auth.Principal{Kind: auth.ChatUser, UserID: "u"}, nil
		},
		Ops: []api.Op{
			api.Handle("getUser", "GET /users/{id}", auth.Runtime, func(_ context.Context, v in) (seen, error) { return seen{v.Webhook + " " + v.ID}, nil }),
			api.HandleRaw("hello", "GET /hello", auth.Public, func(w http.ResponseWriter, r *http.Request) error {
				_, err := io.WriteString(w, r.PathValue("webhookId"))
				return err
			}),
		},
	})
	for path, want := range map[string]string{"/hook%2F1/users/7": `{"what":"hook/1 7"}`, "/hook%2F1/hello/": "hook/1"} {
		rec := httptest.NewRecorder()
		a.ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
		if rec.Body.String() != want {
			t.Errorf("%s: got %d %s, want %s", path, rec.Code, rec.Body, want)
		}
	}
}

func TestMistakesInTheTablePanic(t *testing.T) {
	t.Parallel()
	ok := func(context.Context, nothing) (nothing, error) { return nothing{}, nil }
	type noTag struct{ Name string }
	type getBody struct {
		Name string `json:"name"`
	}
	type badEnum struct {
		N int `json:"n" enum:"1,2"`
	}
	cases := map[string]func(){
		"no method":     func() { api.Handle("a", "/a", auth.Public, ok) },
		"odd method":    func() { api.Handle("a", "BREW /a", auth.Public, ok) },
		"no such field": func() { api.Handle("a", "GET /a/{id}", auth.Public, ok) },
		"no json tag": func() {
			api.Handle("a", "POST /a", auth.Public, func(context.Context, noTag) (nothing, error) { return nothing{}, nil })
		},
		"body of a GET": func() {
			api.Handle("a", "GET /a", auth.Public, func(context.Context, getBody) (nothing, error) { return nothing{}, nil })
		},
		"enum of numbers": func() {
			api.Handle("a", "POST /a", auth.Public, func(context.Context, badEnum) (nothing, error) { return nothing{}, nil })
		},
		"no such path": func() {
			api.New(api.Config{Ops: []api.Op{api.Handle("a", "GET /a", auth.Public, func(context.Context, ref) (nothing, error) { return nothing{}, nil })}})
		},
		"id twice": func() {
			api.New(api.Config{Ops: []api.Op{api.Handle("a", "GET /a", auth.Public, ok), api.Handle("a", "GET /b", auth.Public, ok)}})
		},
		"path twice": func() {
			api.New(api.Config{Ops: []api.Op{api.Handle("a", "GET /a", auth.Public, ok), api.Handle("b", "GET /a/", auth.Public, ok)}})
		},
		"no Admit": func() { api.New(api.Config{Ops: []api.Op{api.Handle("a", "GET /a", auth.Runtime, ok)}}) },
	}
	for name, fn := range cases {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			fn()
		})
	}
}

func TestAnswersAreCheckedWhenAsked(t *testing.T) {
	t.Parallel()
	type out struct {
		Direction string `json:"direction" enum:"incoming,outgoing"`
	}
	op := api.Handle("a", "GET /a", auth.Public, func(context.Context, nothing) (out, error) { return out{"sideways"}, nil })
	for check, want := range map[bool]int{false: 200, true: 500} {
		rec := httptest.NewRecorder()
		api.New(api.Config{Ops: []api.Op{op}, CheckAnswers: check}).ServeHTTP(rec, httptest.NewRequest("GET", "/a", nil))
		if rec.Code != want {
			t.Errorf("CheckAnswers %v: got %d, want %d", check, rec.Code, want)
		}
	}
}

// The rest runs over real connections.

func TestConnectionsSurviveRefusedBodies(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(newWorld(t))
	defer srv.Close()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	send := func(head, body string) *http.Response {
		t.Helper()
		if _, err := io.WriteString(conn, head+"\r\nHost: x\r\nAuthorization: Bearer good\r\n\r\n"+body); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp
	}
	big := strings.Repeat("x", 2<<20)
	steps := []struct {
		head, body string
		status     int
	}{
		{fmt.Sprintf("POST /v1/chat/messages HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d", len(big)), big, 413},
		{fmt.Sprintf("POST /v1/chat/messages HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked"), fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(big), big), 413},
		{fmt.Sprintf("POST /v1/chat/messages HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: %d", 600<<10), big[:600<<10], 415},
		{fmt.Sprintf("DELETE /v1/chat/messages/m HTTP/1.1\r\nContent-Length: %d", 900<<10), big[:900<<10], 200},
		{"POST /v1/chat/messages/m/touch HTTP/1.1\r\nTransfer-Encoding: chunked", "0\r\n\r\n", 200},
		{fmt.Sprintf("POST /v1/chat/messages HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d", len(goodBody)), goodBody, 201},
	}
	for i, s := range steps {
		if resp := send(s.head, s.body); resp.StatusCode != s.status || resp.Close {
			t.Fatalf("step %d: got %d (close %v), want %d on a connection that stays", i, resp.StatusCode, resp.Close, s.status)
		}
	}
}

// A body that means nothing need not be whole, but a client that hangs up in its
// middle has asked for nothing.
func TestNothingIsBegunForAClientThatHangsUpInItsBody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	srv := httptest.NewServer(w)
	defer srv.Close()
	for _, length := range []string{"Content-Length: 100", "Transfer-Encoding: chunked"} {
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, err = io.WriteString(conn, "DELETE /v1/chat/messages/m HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\n"+length+"\r\n\r\n")
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != 400 || !strings.Contains(string(text), "The body ended before its announced length") {
			t.Errorf("%s: got %s %s, %v", length, resp.Status, text, err)
		}
	}
}

func TestHeadAnswersAsGetWithoutBody(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(newWorld(t))
	defer srv.Close()
	for _, path := range []string{"/v1/chat/messages/m", "/v1/chat/messages/m?a=1"} {
		var got [2]*http.Response
		for i, method := range []string{"GET", "HEAD"} {
			r, _ := http.NewRequestWithContext(t.Context(), method, srv.URL+path, nil)
			r.Header.Set("Authorization", "Bearer good")
			resp, err := srv.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			got[i] = resp
		}
		if got[0].StatusCode != got[1].StatusCode || got[0].ContentLength != got[1].ContentLength || got[1].ContentLength <= 0 {
			t.Errorf("%s: GET %d with %d bytes, HEAD %d with %d", path, got[0].StatusCode, got[0].ContentLength, got[1].StatusCode, got[1].ContentLength)
		}
	}
}

func TestPanicInAStreamCutsTheConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	srv := httptest.NewServer(w)
	defer srv.Close()
	r, _ := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/v1/chat/stream/panic", nil)
	r.Header.Set("Authorization", "Bearer good")
	resp, err := srv.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("the answer looks whole")
	}
	if !strings.Contains(w.log.String(), "panic after the answer began") {
		t.Errorf("log: %s", w.log)
	}
}
