package endpoint_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"parley/internal/endpoint"
	"parley/internal/fault"
	"parley/internal/outbound"
	"parley/internal/signing"
)

func TestAWebhookGetsTheBodyAndNothingOfOperations(t *testing.T) {
	t.Parallel()
	var got *http.Request
	var body []byte
	s := server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
	}))
	secret := signing.NewSecret()
	op := endpoint.Operation{
		Name: "signal", Type: "signal", Subject: "dlv_1", Body: []byte(`{"text":"é 漢 𝄞"}`), Signer: signing.New(time.Now, secret),
		Header: http.Header{"X-Secret-Key": {"s"}, "X-Parley-Attempt": {"3"}},
	}
	if _, err := endpoint.NewWebhook(s.URL+"/some/path/?a=b", local(t)).Invoke(t.Context(), op); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"Content-Type": "application/json", "X-Secret-Key": "s", "X-Parley-Attempt": "3", "Webhook-Id": "dlv_1", "User-Agent": "Parley/1.2.3"} {
		if h := got.Header.Get(name); h != want {
			t.Errorf("%s = %q, want %q", name, h, want)
		}
	}
	for name := range got.Header {
		if strings.HasPrefix(name, "X-Bp-") {
			t.Errorf("%s came along", name)
		}
	}
	if got.Method != "POST" || got.URL.String() != "/some/path/?a=b" || string(body) != string(op.Body) {
		t.Errorf("got %s %s %s", got.Method, got.URL, body)
	}
	if err := signing.Verify(got.Header, body, time.Now(), secret); err != nil {
		t.Errorf("signature: %v", err)
	}
}

func TestCheckWebhook(t *testing.T) {
	t.Parallel()
	c := outbound.New(outbound.Config{})
	t.Cleanup(c.Close)
	for _, text := range []string{"", "https://example.com", "http://example.com:8080/a?b=c"} {
		if err := endpoint.CheckWebhook(c, "configuration.webhookUrl", text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	for text, want := range map[string]string{
		"example.com":           "only http and https URLs can be called",
		"ftp://example.com":     "only http and https URLs can be called",
		"https://":              "the URL has no host",
		"http://a b/":           "the URL cannot be parsed",
		"http://u:p@a.com":      "the URL must not contain a user name or password",
		"http://example.com:25": "port 25 cannot be called",
		"http://127.0.0.1/x":    "calls to the address 127.0.0.1 are not allowed; the operator of the server allows networks with --allow-outbound",
	} {
		err := endpoint.CheckWebhook(c, "configuration.webhookUrl", text)
		if !fault.Is(err, fault.InvalidPayload) || fault.From(err).Message != "configuration.webhookUrl can never be called: "+want {
			t.Errorf("%q: %v", text, err)
		}
	}
}
