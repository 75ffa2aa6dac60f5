package messagingapi

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/internal/auth"
	"parley/internal/endpoint"
	"parley/internal/outbound"
	"parley/internal/signing"
)

func TestTheBotsMessagesGoToTheResponseEndpoint(t *testing.T) {
	each(t, func(r *rig) {
		in := r.ok(text("u", "case 7/é", "m", "Hello"))
		conversation := field(in, "conversation", "id")
		for i, c := range []struct{ typ, payload string }{
			{"text", `{"text":"Grüezi 漢字 𝄞"}`},
			{"choice", `{"text":"Which?","options":[{"label":"One","value":"1"}]}`},
			{"markdown", `{"markdown":"**x**"}`},
			{"a type of the bot's own", `{}`},
		} {
			said := r.says(conversation, c.typ, c.payload)
			got := r.gets()
			want := map[string]any{
				"type": c.typ, "payload": said["payload"], "conversationId": "case 7/é",
				"botpressUserId": hereA.bot, "botpressMessageId": said["id"], "botpressConversationId": conversation,
			}
			if d := cmp.Diff(want, got.body); d != "" {
				t.Errorf("%s: %s", c.typ, d)
			}
			for name, value := range map[string]string{"Content-Type": "application/json", "X-Parley-Attempt": "1", "Authorization": "", "X-Bp-Operation": "", "X-Bp-Configuration": "", "X-Bot-Id": "", "X-Secret-Key": ""} {
				if got.header.Get(name) != value {
					t.Errorf("the header %s is %q, want %q", name, got.header.Get(name), value)
				}
			}
			r.idle()
			id := got.header.Get("Webhook-Id")
			if n := r.count("SELECT count(*) FROM outbox WHERE id = $1 AND status = 'processed'", id); n != 1 || !strings.HasPrefix(id, "dlv_") {
				t.Errorf("delivery %q is recorded %d times", id, n)
			}
			if n := r.count("SELECT count(*) FROM outbox"); n != i+1 {
				t.Errorf("%d deliveries after message %d", n, i)
			}
		}
	})
}

// What comes in is not sent back, nor what the bot only notes.
func TestWhatIsNotSentOut(t *testing.T) {
	each(t, func(r *rig) {
		conversation := field(r.ok(text("u", "c", "m", "Hello")), "conversation", "id")
		r.runtime("POST", "/messages", fmt.Sprintf(`{"conversationId":%q,"userId":%q,"type":"text","payload":{"text":"noted"},"tags":{},"origin":"synthetic"}`, conversation, hereA.bot))
		r.idle()
		if n := r.count("SELECT count(*) FROM outbox"); n != 0 || len(r.sink.arrived) != 0 {
			t.Errorf("%d deliveries, %d requests", n, len(r.sink.arrived))
		}
	})
}

// An endpoint that fails at first gets everything all the same, and of each
// conversation in order.
func TestTheOrderOfAConversationIsKept(t *testing.T) {
	each(t, func(r *rig) {
		const conversations, messages = 4, 6
		var n atomic.Int32
		r.sink.answers(func(w http.ResponseWriter, _ *http.Request) {
			if n.Add(1) <= conversations {
				w.WriteHeader(http.StatusInternalServerError)
			}
		})
		var opened []string
		for c := range conversations {
			opened = append(opened, field(r.ok(text("u", fmt.Sprint("c", c), "m", "x")), "conversation", "id"))
		}
		for m := range messages {
			for _, conversation := range opened {
				r.says(conversation, "text", fmt.Sprintf(`{"text":"%d"}`, m))
			}
		}
		got, last := map[string][]string{}, map[string]string{}
		for done := 0; done < conversations*messages; {
			one := r.gets()
			conversation, words := field(one.body, "conversationId"), field(one.body, "payload", "text")
			if last[conversation] == words {
				continue // once more after a failure
			}
			last[conversation] = words
			got[conversation] = append(got[conversation], words)
			done++
		}
		for c := range conversations {
			if d := cmp.Diff([]string{"0", "1", "2", "3", "4", "5"}, got[fmt.Sprint("c", c)]); d != "" {
				t.Errorf("c%d: %s", c, d)
			}
		}
	})
}

func TestWithoutAResponseEndpointTheRecordSaysWhy(t *testing.T) {
	each(t, func(r *rig) {
		conversation := field(r.ok(text("u", "c", "m", "Hello")), "conversation", "id")
		r.town.change(hereA, func(in *Installation) { in.Configuration = Configuration{} })
		r.says(conversation, "text", `{"text":"lost?"}`)
		r.idle()
		if n := r.count("SELECT count(*) FROM outbox WHERE status = 'ignored' AND failure_reason LIKE '%no response endpoint; set responseEndpointUrl%'"); n != 1 {
			t.Errorf("%d deliveries say why", n)
		}
		r.town.change(hereA, func(in *Installation) { in.Configuration.ResponseEndpointURL = r.sink.at() })
		r.says(conversation, "text", `{"text":"heard"}`)
		if got := r.gets(); field(got.body, "payload", "text") != "heard" {
			t.Errorf("the endpoint got %s", got.text)
		}
	})
}

func operation(name, body string) endpoint.Operation {
	return endpoint.Operation{Name: name, Body: []byte(body), Subject: "dlv_1"}
}

func TestWhatTheResponseEndpointAnswersIsTheOutcome(t *testing.T) {
	t.Parallel()
	s := newSink(t)
	e := NewEndpoint(client, Configuration{ResponseEndpointURL: s.at()})
	for status, want := range map[int]endpoint.Class{200: endpoint.OK, 204: endpoint.OK, 302: endpoint.Failed, 404: endpoint.Final, 410: endpoint.Final, 500: endpoint.Failed, 503: endpoint.Unreachable} {
		s.answers(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
		})
		a, err := e.Invoke(t.Context(), operation("message_created", `{"type":"text","payload":{},"conversation":{"id":"c"},"message":{"id":"m","userId":"b"}}`))
		if got := endpoint.Classify(a, err); got != want || a.Status != status || a.Header.Get("Retry-After") != "7" {
			t.Errorf("%d: got %v %+v %v, want %v", status, got, a, err, want)
		}
	}
	for name, want := range map[string]endpoint.Class{"ping": endpoint.OK, "unregister": endpoint.OK, "action_triggered": endpoint.Final, "": endpoint.Final} {
		if a, err := e.Invoke(t.Context(), operation(name, "{}")); endpoint.Classify(a, err) != want {
			t.Errorf("%q: got %+v %v, want %v", name, a, err, want)
		}
	}
	if a, err := e.Invoke(t.Context(), operation("message_created", "[]")); endpoint.Classify(a, err) != endpoint.Final {
		t.Errorf("a body that is none: got %+v %v", a, err)
	}
}

func TestWhatGoesOutIsSigned(t *testing.T) {
	t.Parallel()
	s := newSink(t)
	for _, secret := range []auth.Secret{"", "whsec_c2VjcmV0", "new old"} {
		e := NewEndpoint(client, Configuration{ResponseEndpointURL: s.at(), WebhookSecret: secret})
		secrets := signing.Split(string(secret))
		op := operation("register", "{}")
		op.Signer = signing.New(time.Now, secrets...)
		if a, err := e.Invoke(t.Context(), op); endpoint.Classify(a, err) != endpoint.OK {
			t.Fatalf("%+v %v", a, err)
		}
		got := <-s.arrived
		want := ""
		if len(secrets) > 0 {
			want = string(secrets[0])
			if err := signing.Verify(got.header, []byte(got.text), time.Now(), secrets...); err != nil {
				t.Errorf("%q: %v", secret, err)
			}
		}
		if got.header.Get("X-Secret-Key") != want || op.Header != nil {
			t.Errorf("%q: x-secret-key is %q, want %q; the operation has %v", secret, got.header.Get("X-Secret-Key"), want, op.Header)
		}
	}
}

func TestRegistrationProbesTheResponseEndpoint(t *testing.T) {
	t.Parallel()
	s := newSink(t)
	register := func(url string) (endpoint.Class, string) {
		a, err := NewEndpoint(client, Configuration{ResponseEndpointURL: url}).Invoke(t.Context(), operation("register", `{"webhookUrl":"http://x"}`))
		return endpoint.Classify(a, err), endpoint.Reason(a, err)
	}
	if class, why := register(s.at()); class != endpoint.OK {
		t.Errorf("got %v %s", class, why)
	}
	if got := <-s.arrived; got.text != `{"type":"test","payload":"test"}` || got.header.Get("Content-Type") != "application/json" {
		t.Errorf("the probe was %s, %v", got.text, got.header)
	}
	if class, why := register(""); class != endpoint.OK || len(s.arrived) != 0 {
		t.Errorf("without an endpoint: got %v %s and %d requests", class, why, len(s.arrived))
	}
	for status, says := range map[int]string{201: "", 299: "", 302: "redirects are not followed", 400: "HTTP 400 Bad Request: no", 500: "HTTP 500 Internal Server Error: no", 503: "HTTP 503 Service Unavailable: no"} {
		s.answers(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "no")
		})
		class, why := register(s.at())
		<-s.arrived
		if says == "" && class != endpoint.OK || says != "" && (class != endpoint.Final || !strings.Contains(why, says) || !strings.HasPrefix(why, "the response endpoint does not take messages: ")) {
			t.Errorf("%d: got %v %s, want %q", status, class, why, says)
		}
	}
	// Somebody waits for the outcome, so that which may pass is told at once too.
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	for url, says := range map[string]string{
		"http://" + gone.Addr().String(): gone.Addr().String() + " is unreachable",
		"http://10.0.0.1/":               "calls to the address 10.0.0.1 are not allowed",
	} {
		if class, why := register(url); class != endpoint.Final || !strings.Contains(why, says) {
			t.Errorf("%s: got %v %s, want %q", url, class, why, says)
		}
	}
}

// A call that is given up says nothing about the endpoint.
func TestARegistrationThatIsGivenUp(t *testing.T) {
	t.Parallel()
	s := newSink(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.answers(func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() })
	a, err := NewEndpoint(client, Configuration{ResponseEndpointURL: s.at()}).Invoke(ctx, operation("register", "{}"))
	if got := endpoint.Classify(a, err); got != endpoint.Canceled {
		t.Errorf("got %v %+v %v", got, a, err)
	}
}

func TestReadConfiguration(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Configuration{
		``:                                   {},
		`{}`:                                 {},
		`{"responseEndpointUrl":"http://a"}`: {"http://a", ""},
		`{"responseEndpointURL":"http://b"}`: {"http://b", ""},
		`{"responseEndpointUrl":"","responseEndpointURL":"http://b","webhookSecret":"s"}`: {"http://b", "s"},
	} {
		if got, err := ReadConfiguration([]byte(text)); err != nil || got != want {
			t.Errorf("%s: got %v %v", text, got, err)
		}
	}
	if _, err := ReadConfiguration([]byte(`{"responseEndpointUrl":1}`)); err == nil {
		t.Error("a number was read as a URL")
	}
}

func TestCheckConfiguration(t *testing.T) {
	t.Parallel()
	closed := outbound.New(outbound.Config{})
	for text, says := range map[string]string{
		``:                           "",
		`{}`:                         "",
		`{"responseEndpointUrl":""}`: "",
		`{"responseEndpointUrl":"https://example.com/replies?a=b"}`:                     "",
		`{"responseEndpointURL":"http://example.com:8080"}`:                             "",
		`{"responseEndpointUrl":"http://example.com","responseEndpointURL":""}`:         "",
		`{"responseEndpointUrl":"http://a.com/","responseEndpointURL":"http://a.com/"}`: "",
		`{"responseEndpointUrl":"http://a.com","responseEndpointURL":"http://b.com"}`:   "configuration.responseEndpointUrl and configuration.responseEndpointURL are two names of one setting and hold different URLs",
		`{"responseEndpointUrl":"example.com/replies"}`:                                 "configuration.responseEndpointUrl can never be called: only http and https URLs can be called",
		`{"responseEndpointURL":"ftp://example.com"}`:                                   "configuration.responseEndpointURL can never be called: only http and https URLs can be called",
		`{"responseEndpointUrl":"http://"}`:                                             "configuration.responseEndpointUrl can never be called: the URL has no host",
		`{"responseEndpointUrl":"http://u:p@example.com"}`:                              "must not contain a user name or password",
		`{"responseEndpointUrl":"http://127.0.0.1:1"}`:                                  "calls to the address 127.0.0.1 are not allowed; the operator of the server allows networks with --allow-outbound",
		`{"responseEndpointUrl":"http://[::ffff:10.0.0.1]/"}`:                           "are not allowed",
		`{"responseEndpointUrl":"http://example.com:25"}`:                               "port 25 cannot be called",
		`{"responseEndpointUrl":"http://%zz"}`:                                          "cannot be parsed",
		`{"webhookSecret":"sécret"}`:                                                    "configuration.webhookSecret is sent in a header",
		`{"responseEndpointUrl":1}`:                                                     `configuration is not that of the integration "messaging"`,
	} {
		err := CheckConfiguration(closed, []byte(text))
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: got %v, want %q", text, err, says)
		}
	}
	if err := CheckConfiguration(client, []byte(`{"responseEndpointUrl":"http://127.0.0.1:1"}`)); err != nil {
		t.Errorf("loopback where it is allowed: %v", err)
	}
}
