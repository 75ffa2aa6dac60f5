package endpoint

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/internal/signing"
)

func full() BotCall {
	return BotCall{
		BotID: "bot_1", BotUserID: "bot_1", WebhookID: "wh_1", Operation: "event_received", Type: "message_created", ConfigurationID: "conf_1",
		ConfigurationType: "special", Configuration: []byte(`{"key":"välue \"q\"","n":1}`), CreatedAt: 1767225600000, UpdatedAt: 1767225600123,
		Tags: map[string]string{"b": "2", "a": "ü"}, TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", TraceState: "k=v", EventID: "evt_1", Attempt: 3,
	}
}

func flat(h http.Header) map[string]string {
	out := map[string]string{}
	for name, values := range h {
		out[name] = strings.Join(values, "|")
	}
	return out
}

func decoded(t *testing.T, base string) string {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(base)
	if err != nil {
		t.Fatalf("%q is not base64: %v", base, err)
	}
	if n := asciiPrefix(b); n != len(b) {
		t.Errorf("%q is not ASCII", b)
	}
	return string(b)
}

func TestBotCallHeader(t *testing.T) {
	t.Parallel()
	h := full().Header()
	got := flat(h)
	configuration, tags := decoded(t, got["X-Bp-Configuration"]), decoded(t, got["X-Bp-Tags"])
	delete(got, "X-Bp-Configuration")
	delete(got, "X-Bp-Tags")
	want := map[string]string{
		"X-Bot-Id": "bot_1", "X-Bot-User-Id": "bot_1", "X-Webhook-Id": "wh_1", "X-Bp-Operation": "event_received", "X-Bp-Type": "message_created",
		"X-Bp-Configuration-Type": "special", "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Tracestate": "k=v",
		"Webhook-Id": "evt_1", "X-Parley-Attempt": "3",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if want := `{"id":"conf_1","type":"bot","createdAt":"2026-01-01T00:00:00.000Z","updatedAt":"2026-01-01T00:00:00.123Z","payload":"{\"key\":\"v\u00e4lue \\\"q\\\"\",\"n\":1}"}`; configuration != want {
		t.Errorf("configuration\n got %s\nwant %s", configuration, want)
	}
	if want := `{"a":"\u00fc","b":"2"}`; tags != want {
		t.Errorf("tags = %s, want %s", tags, want)
	}
	var state struct{ Payload string }
	var payload map[string]any
	if json.Unmarshal([]byte(configuration), &state) != nil || json.Unmarshal([]byte(state.Payload), &payload) != nil || payload["key"] != `välue "q"` {
		t.Errorf("the payload came back as %q %v", state.Payload, payload)
	}
	for name := range h {
		if name != http.CanonicalHeaderKey(name) {
			t.Errorf("%s is not in canonical spelling", name)
		}
	}
}

// A ping needs as many headers as an event: the SDK refuses a call without them.
func TestBotCallHeaderOfAPing(t *testing.T) {
	t.Parallel()
	got := flat(BotCall{BotID: "bot_1", BotUserID: "bot_1", Operation: "ping"}.Header())
	want := `{"id":"bot_1","type":"bot","createdAt":"1970-01-01T00:00:00.000Z","updatedAt":"1970-01-01T00:00:00.000Z","payload":"{}"}`
	if c := decoded(t, got["X-Bp-Configuration"]); c != want {
		t.Errorf("configuration\n got %s\nwant %s", c, want)
	}
	delete(got, "X-Bp-Configuration")
	if diff := cmp.Diff(map[string]string{"X-Bot-Id": "bot_1", "X-Bot-User-Id": "bot_1", "X-Bp-Operation": "ping", "X-Bp-Type": "ping"}, got); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

func TestIntegrationCallHeader(t *testing.T) {
	t.Parallel()
	call := IntegrationCall{
		BotID: "bot_1", BotUserID: "user_1", IntegrationID: "intver_1", Alias: "acme/chat", WebhookID: "wh_1", Operation: "message_created", Type: "text",
		ConfigurationType: "oauth", Configuration: []byte(`{"name":"é"}`), TraceParent: "00-a-b-01", EventID: "dlv_1", Attempt: 1,
	}
	want := map[string]string{
		"X-Bot-Id": "bot_1", "X-Bot-User-Id": "user_1", "X-Integration-Id": "intver_1", "X-Integration-Alias": "acme/chat", "X-Webhook-Id": "wh_1",
		"X-Bp-Operation": "message_created", "X-Bp-Type": "text", "X-Bp-Configuration": base64.StdEncoding.EncodeToString([]byte(`{"name":"\u00e9"}`)),
		"X-Bp-Configuration-Type": "oauth", "Traceparent": "00-a-b-01", "Webhook-Id": "dlv_1", "X-Parley-Attempt": "1",
	}
	if diff := cmp.Diff(want, flat(call.Header())); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	bare := flat(IntegrationCall{Operation: "ping"}.Header())
	for _, name := range []string{"X-Bot-Id", "X-Bot-User-Id", "X-Integration-Id", "X-Integration-Alias", "X-Webhook-Id", "X-Bp-Operation", "X-Bp-Type"} {
		if _, ok := bare[name]; !ok {
			t.Errorf("%s is missing from an otherwise empty call", name)
		}
	}
	if bare["X-Bp-Configuration"] != "e30=" || bare["X-Bp-Type"] != "ping" {
		t.Errorf("a call without configuration: %v", bare)
	}
	if _, ok := bare["X-Bp-Configuration-Type"]; ok {
		t.Error("the default configuration must have no type")
	}
}

func TestCallsBecomeOperations(t *testing.T) {
	t.Parallel()
	op := full().With([]byte("{}"))
	if op.Name != "event_received" || op.Type != "message_created" || op.Subject != "evt_1" || string(op.Body) != "{}" || op.Header.Get("X-Bot-Id") != "bot_1" {
		t.Errorf("got %+v", op)
	}
	op = IntegrationCall{Operation: "action_triggered", Type: "send", EventID: "act_1", Alias: "a/b"}.With([]byte("{}"))
	if op.Name != "action_triggered" || op.Type != "send" || op.Subject != "act_1" || op.Header.Get("X-Integration-Alias") != "a/b" {
		t.Errorf("got %+v", op)
	}
}

// Names come from people. None of them may add a header, break the request or
// be dropped by the transport.
func TestHeadersSurviveAnyName(t *testing.T) {
	t.Parallel()
	var seen http.Header
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { seen = r.Header }))
	t.Cleanup(s.Close)
	for name, want := range map[string]string{
		"acme/chat":           "acme/chat",
		"plugin#event":        "plugin#event",
		"a:b, c;d=\"e\" f":    "a:b, c;d=\"e\" f",
		"naïve":               "na%C3%AFve",
		"漢字":                  "%E6%BC%A2%E5%AD%97",
		"a\r\nX-Evil: 1":      "a%0D%0AX-Evil: 1",
		"nul\x00tab\tdel\x7f": "nul%00tab%09del%7F",
		"bad\xffutf8":         "bad%FFutf8",
		"  spaced  ":          "spaced",
	} {
		calls := []http.Header{
			BotCall{BotID: name, BotUserID: name, WebhookID: name, Operation: "event_received", Type: name, ConfigurationID: name, ConfigurationType: name, Tags: map[string]string{name: name}, TraceParent: name, TraceState: name, EventID: name}.Header(),
			IntegrationCall{BotID: name, BotUserID: name, IntegrationID: name, Alias: name, WebhookID: name, Operation: "message_created", Type: name, ConfigurationType: name, TraceParent: name, EventID: name}.Header(),
		}
		for _, h := range calls {
			r, _ := http.NewRequest("POST", s.URL, nil)
			r.Header = h
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Errorf("%q: %v", name, err)
				continue
			}
			resp.Body.Close()
			if got := seen.Get("X-Bp-Type"); got != want {
				t.Errorf("%q arrived as %q, want %q", name, got, want)
			}
			for sent := range h {
				seen.Del(sent)
			}
			if extra := slices.Sorted(maps.Keys(seen)); !slices.Equal(extra, []string{"Accept-Encoding", "Content-Length", "User-Agent"}) {
				t.Errorf("%q made headers of its own: %v", name, extra)
			}
		}
	}
}

func TestHeaderSize(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	size := make(chan int, 1)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})}
	t.Cleanup(func() { s.Close() })
	counted := make(chan struct{})
	go func() { // measures what a call puts on the wire
		defer close(counted)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		buf, n := make([]byte, 64<<10), 0
		for !strings.Contains(string(buf[:n]), "\r\n\r\n") {
			k, err := conn.Read(buf[n:])
			if err != nil {
				return
			}
			n += k
		}
		size <- strings.Index(string(buf[:n]), "\r\n\r\n")
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	}()
	c := full()
	c.Configuration = []byte(`{"a":"` + strings.Repeat("x", 11<<10) + `"}`)
	op := c.With([]byte("{}"))
	r, _ := http.NewRequest("POST", "http://"+l.Addr().String()+"/", strings.NewReader("{}"))
	op.Signer = signing.New(time.Now, "new", "old")
	r.Header = op.header([]byte("{}"), false)
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	<-counted
	l.Close()
	got, want := HeaderSize(op.Header), <-size
	if got < want || got > want+200 {
		t.Errorf("HeaderSize = %d, on the wire %d", got, want)
	}
	if got > NodeHeaderLimit {
		t.Errorf("11 KB of configuration make %d bytes of headers, over Node's %d", got, NodeHeaderLimit)
	}
	c.Configuration = []byte(`{"a":"` + strings.Repeat("x", 12<<10) + `"}`)
	if got := HeaderSize(c.Header()); got <= NodeHeaderLimit {
		t.Errorf("12 KB of configuration make %d bytes of headers, not over Node's %d", got, NodeHeaderLimit)
	}
}

func BenchmarkBotCallHeader(b *testing.B) {
	c := full()
	b.ReportAllocs()
	for b.Loop() {
		c.Header()
	}
}
