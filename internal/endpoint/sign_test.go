package endpoint_test

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"parley/internal/auth"
	"parley/internal/endpoint"
	"parley/internal/id"
	"parley/internal/signing"
)

// heard is what arrived at a server.
type heard struct {
	header http.Header
	body   []byte
}

func listener(t *testing.T) (url string, next func() heard) {
	t.Helper()
	arrived := make(chan heard, 100)
	s := server(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		arrived <- heard{r.Header, body}
	}))
	return s.URL, func() heard { return <-arrived }
}

func TestWhatGoesOutIsSigned(t *testing.T) {
	t.Parallel()
	url, next := listener(t)
	var clock atomic.Int64
	clock.Store(1772366400)
	now := func() time.Time { return time.Unix(clock.Load(), 0) }
	secrets := []auth.Secret{signing.NewSecret(), "of old"}
	e := endpoint.NewHTTP(url, local(t))
	op := endpoint.BotCall{BotID: "bot_1", BotUserID: "bot_1", Operation: "event_received", EventID: "evt_1"}.With([]byte(`{"text":"é 漢"}`))
	op.Signer = signing.New(now, secrets...)
	for range 2 { // a later attempt carries its own time and the same id
		if _, err := e.Invoke(t.Context(), op); err != nil {
			t.Fatal(err)
		}
		got := next()
		for _, secret := range secrets {
			if err := signing.Verify(got.header, got.body, now(), secret); err != nil {
				t.Errorf("%v: %v", got.header, err)
			}
		}
		if got.header.Get("webhook-id") != "evt_1" || got.header.Get("webhook-timestamp") != strconv.FormatInt(clock.Load(), 10) {
			t.Errorf("headers are %v", got.header)
		}
		if err := signing.Verify(got.header, append(got.body, ' '), now(), secrets...); err == nil || errors.Is(err, signing.ErrUnsigned) {
			t.Errorf("a body with one byte more: %v", err)
		}
		clock.Add(600)
	}
}

// Where nothing gives a call an id, each attempt has its own.
func TestCallsWithoutAnIDGetOne(t *testing.T) {
	t.Parallel()
	url, next := listener(t)
	e := endpoint.NewHTTP(url, local(t))
	seen := map[string]bool{}
	for _, signer := range []*signing.Signer{nil, signing.New(time.Now, "s")} {
		for range 2 {
			if _, err := e.Invoke(t.Context(), endpoint.Operation{Name: "ping", Signer: signer}); err != nil {
				t.Fatal(err)
			}
			got := next()
			msgID := got.header.Get("webhook-id")
			if !id.Minted("msg", msgID) || seen[msgID] {
				t.Errorf("webhook-id is %q", msgID)
			}
			seen[msgID] = true
			err := signing.Verify(got.header, got.body, time.Now(), "s")
			if signer == nil && !errors.Is(err, signing.ErrUnsigned) || signer != nil && err != nil {
				t.Errorf("signed by %v: %v", signer, err)
			}
		}
	}
}
