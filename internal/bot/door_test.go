package bot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/internal/auth"
	"parley/internal/bus"
	"parley/internal/delivery"
	"parley/internal/endpoint"
	"parley/internal/fault"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// knock sends a request to the door of in and returns the answer, what the
// integration was handed, and the fault that Parley answers itself.
func knock(t *testing.T, s *Service, in *Installation, r *http.Request, path string, answer endpoint.Answer, failure error) (*httptest.ResponseRecorder, endpoint.Operation, error) {
	t.Helper()
	var got endpoint.Operation
	d := NewDoors(s, func(_ context.Context, endpointID string, op endpoint.Operation) (endpoint.Answer, error) {
		if endpointID != InstallationEndpoint(in.ID) {
			t.Errorf("called %s", endpointID)
		}
		got = op
		return answer, failure
	})
	w := httptest.NewRecorder()
	err := d.Serve(w, r, in, path)
	if !d.memory.TryAcquire(doorMemory) {
		t.Error("the memory of a request is not given back")
	}
	return w, got, err
}

func hooked() *Installation {
	return &Installation{Installation: auth.Installation{ID: "inst_x", Alias: "acme/hooky", WebhookID: "w", Enabled: true, Outside: true}, BotID: "bot_x"}
}

type handedOver struct {
	Req struct {
		Method, Path, Query, Body string
		Headers                   map[string]string
	}
}

func TestADoorHandsEverythingOver(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("PATCH", "http://bots.example.com/w/sub/p%C3%A4th?a=1&b=%20x", strings.NewReader(`{"text":"h€llo"}`))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Add("X-Hub", "1")
	r.Header.Add("X-Hub", "2")
	r.Header.Add("Cookie", "a=1")
	r.Header.Add("Cookie", "b=2")
	r.Header.Set("Connection", "keep-alive, X-Private")
	r.Header.Set("X-Private", "p")
	r.Header.Set("Te", "trailers")
	w, op, err := knock(t, nil, hooked(), r, "/sub/p%C3%A4th", endpoint.Answer{
		Status: 202, Body: []byte("ok!"), Header: http.Header{
			"Content-Type": {"text/plain"}, "X-Foo": {"bar", "baz"}, "Connection": {"close, X-Hop"}, "X-Hop": {"h"},
			"Transfer-Encoding": {"chunked"}, "Keep-Alive": {"timeout=5"}, "Content-Length": {"99"}, "X-Bp-Disable-Interstitial": {"true"}, "Set-Cookie": {"s=1"},
		},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got handedOver
	if err := json.Unmarshal(op.Body, &got); err != nil || op.Name != "webhook_received" {
		t.Fatalf("%s %s: %v", op.Name, op.Body, err)
	}
	want := handedOver{}
	want.Req.Method, want.Req.Path, want.Req.Query, want.Req.Body = "PATCH", "/sub/p%C3%A4th", "a=1&b=%20x", `{"text":"h€llo"}`
	want.Req.Headers = map[string]string{"content-type": "application/json", "x-hub": "1, 2", "cookie": "a=1; b=2", "host": "bots.example.com", "content-length": "18"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if w.Code != 202 || w.Body.String() != "ok!" {
		t.Errorf("relayed %d %q", w.Code, w.Body)
	}
	if diff := cmp.Diff(http.Header{"Content-Type": {"text/plain"}, "X-Foo": {"bar", "baz"}, "Set-Cookie": {"s=1"}}, w.Header()); diff != "" {
		t.Error(diff)
	}
}

func TestADoorWithoutBodyOrAnswer(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "DELETE"} {
		w, op, err := knock(t, nil, hooked(), httptest.NewRequest(method, "/w", nil), "", endpoint.Answer{Status: 200, Header: http.Header{}}, nil)
		if err != nil || w.Code != 200 || w.Body.Len() != 0 {
			t.Errorf("%s: %d %q %v", method, w.Code, w.Body, err)
		}
		if _, named := w.Header()["Content-Type"]; named && w.Header().Get("Content-Type") != "" {
			t.Errorf("%s: a content type was guessed: %v", method, w.Header())
		}
		if bytes.Contains(op.Body, []byte(`"body"`)) {
			t.Errorf("%s: a request without a body hands over %s", method, op.Body)
		}
	}
}

func TestWhatADoorRefuses(t *testing.T) {
	t.Parallel()
	answer := endpoint.Answer{Status: 200, Header: http.Header{}}
	disabled := hooked()
	disabled.Enabled = false
	large := httptest.NewRequest("POST", "/w", nil)
	large.ContentLength = MaxDoorBody + 1
	endless := httptest.NewRequest("POST", "/w", io.LimitReader(endlessly('x'), MaxDoorBody+10))
	endless.ContentLength = -1
	for name, c := range map[string]struct {
		in      *Installation
		r       *http.Request
		answer  endpoint.Answer
		failure error
		kind    *fault.Kind
		says    string
	}{
		"a disabled installation": {disabled, httptest.NewRequest("GET", "/w", nil), answer, nil, fault.Forbidden, "disabled"},
		"binary data":             {hooked(), httptest.NewRequest("POST", "/w", strings.NewReader("\xff\xfe\x00")), answer, nil, fault.UnsupportedMediaType, "UTF-8"},
		"too much, announced":     {hooked(), large, answer, nil, fault.PayloadTooLarge, "104857600"},
		"too much":                {hooked(), endless, answer, nil, fault.PayloadTooLarge, "104857600"},
		"nobody there":            {hooked(), httptest.NewRequest("GET", "/w", nil), answer, &endpoint.Error{Class: endpoint.Unreachable, Err: errors.New("connection refused")}, fault.OperationTimeout, "connection refused"},
		"no answer in time":       {hooked(), httptest.NewRequest("GET", "/w", nil), answer, &endpoint.Error{Class: endpoint.TimedOut, Err: context.DeadlineExceeded}, fault.OperationTimeout, "time limit"},
		"an answer too large":     {hooked(), httptest.NewRequest("GET", "/w", nil), answer, &endpoint.Error{Class: endpoint.Final, Err: errors.New("more than 8 MB")}, fault.Unknown, "more than 8 MB"},
		"too many":                {hooked(), httptest.NewRequest("GET", "/w", nil), answer, delivery.ErrFull, fault.RateLimited, "too many"},
		"a strange status":        {hooked(), httptest.NewRequest("GET", "/w", nil), endpoint.Answer{Status: 999, Header: http.Header{}}, nil, fault.Unknown, "999"},
	} {
		_, _, err := knock(t, nil, c.in, c.r, "", c.answer, c.failure)
		if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %s with %q", name, err, c.kind.Type, c.says)
		}
	}
}

// endlessly reads one byte for ever.
type endlessly byte

func (e endlessly) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(e)
	}
	return len(p), nil
}

// One large body leaves room for others; together they have a bound.
func TestDoorsShareTheirMemory(t *testing.T) {
	t.Parallel()
	d := NewDoors(nil, func(context.Context, string, endpoint.Operation) (endpoint.Answer, error) {
		return endpoint.Answer{Status: 200, Header: http.Header{}}, nil
	})
	if !d.memory.TryAcquire(doorMemory - 1000) {
		t.Fatal("no memory")
	}
	if err := d.Serve(httptest.NewRecorder(), httptest.NewRequest("POST", "/w", strings.NewReader(strings.Repeat("x", 5000))), hooked(), ""); !fault.Is(err, fault.RateLimited) {
		t.Errorf("got %v, want RateLimited", err)
	}
	d.memory.Release(doorMemory - 1000)
	if err := d.Serve(httptest.NewRecorder(), httptest.NewRequest("POST", "/w", strings.NewReader(strings.Repeat("x", 5000))), hooked(), ""); err != nil {
		t.Errorf("got %v after room was made", err)
	}
}

func TestConfigureIntegration(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		r.run(t, fine)
		botID := r.make(t, `{}`)
		r.put(t, botID, `{"integrations":{"acme/hooky":{"integrationId":"`+hooky+`"}}}`).want(t, 200, "hooky")
		r.called(t)
		b, err := r.Bot(t.Context(), botID)
		if err != nil {
			t.Fatal(err)
		}
		configure := func(in configureInput) error {
			ctx := auth.With(t.Context(), auth.Principal{BotID: botID, InstallationID: b.Installations[0].ID})
			_, err := r.configureIntegration(ctx, in)
			return err
		}
		shown := func() installed { return r.shown(t, botID).Integrations["acme/hooky"] }
		one := configureInput{}
		one.Identifier.Set, one.Identifier.Value, one.ScheduleRegisterCall = true, "team-1", "daily"
		if err := configure(one); err != nil || shown().Identifier != "team-1" || shown().Status != "registered" {
			t.Errorf("%+v, %v", shown(), err)
		}
		if err := configure(configureInput{}); err != nil || shown().Identifier != "team-1" {
			t.Errorf("what is absent stays: %+v, %v", shown(), err)
		}
		// A day later it is registered anew, and each day after.
		for range 2 {
			r.clock.Add(24*3_600_000 + 1)
			if _, err := r.timers.Due(t.Context()); err != nil {
				t.Fatal(err)
			}
			if op := r.called(t); op.Name != "register" || shown().Status != "registered" {
				t.Errorf("%s, then %s", op.Name, shown().Status)
			}
		}
		// A disabled one keeps its rhythm and is not called.
		r.put(t, botID, `{"integrations":{"acme/hooky":{"enabled":false}}}`).want(t, 200, "hooky")
		r.called(t)
		r.clock.Add(24*3_600_000 + 1)
		if next, err := r.timers.Due(t.Context()); err != nil || next != r.clock.Load()+24*3_600_000 {
			t.Errorf("next %d, %v", next, err)
		}
		clear := configureInput{}
		clear.Identifier.Set, clear.Identifier.Null = true, true
		if err := configure(clear); err != nil || shown().Identifier != "" {
			t.Errorf("%+v, %v", shown(), err)
		}
		bad := configureInput{}
		bad.SandboxIdentifiers.Set, bad.SandboxIdentifiers.Value = true, []byte(`{"a":1}`)
		if err := configure(bad); !fault.Is(err, fault.InvalidPayload) {
			t.Errorf("sandboxes: %v", err)
		}
		if _, err := r.configureIntegration(auth.With(t.Context(), auth.Principal{BotID: botID}), one); !fault.Is(err, fault.Forbidden) {
			t.Errorf("a bot configures: %v", err)
		}
	})
}
