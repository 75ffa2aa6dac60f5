package bot

import (
	"context"
	"errors"
	"testing"
	"time"

	"parley/internal/bus"
	"parley/internal/endpoint"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// run delivers registrations until the test ends.
func (r *rig) run(t *testing.T, answer func(op endpoint.Operation) (endpoint.Answer, error)) {
	t.Helper()
	r.answer = answer
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.engine.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// called waits for the next call of an integration and for what becomes of it.
func (r *rig) called(t *testing.T) endpoint.Operation {
	t.Helper()
	select {
	case op := <-r.calls:
		if err := r.engine.Idle(t.Context()); err != nil {
			t.Fatal(err)
		}
		return op
	case <-time.After(time.Minute):
		t.Fatal("no call came")
	}
	panic("unreachable")
}

func fine(endpoint.Operation) (endpoint.Answer, error) { return endpoint.Answer{Status: 200}, nil }

func TestRegistration(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		next := make(chan endpoint.Answer, 1)
		r.run(t, func(endpoint.Operation) (endpoint.Answer, error) { return <-next, nil })
		botID := r.make(t, `{}`)
		status := func() (string, string) {
			in := r.shown(t, botID).Integrations["acme/hooky"]
			return in.Status, in.StatusReason.Value
		}
		steps := []struct {
			what, body        string
			pending           string // status that the update answers
			answer            endpoint.Answer
			operation         string // "" = none
			status, reasonHas string
		}{
			{"install", `{"integrationId":"` + hooky + `","configuration":{"encryptionKey":"a"}}`, "registration_pending", endpoint.Answer{Status: 200}, "register", "registered", ""},
			{"the same again", `{"integrationId":"` + hooky + `","configuration":{"encryptionKey":"a"}}`, "registered", endpoint.Answer{}, "", "registered", ""},
			{"another configuration", `{"configuration":{"encryptionKey":"b"}}`, "registration_pending", endpoint.Answer{Status: 400, Body: []byte(`{"id":"e","code":400,"type":"Runtime","message":"the key b is no good"}`)}, "register", "registration_failed", "the key b is no good"},
			{"the same after a failure", `{"configuration":{"encryptionKey":"b"}}`, "registration_pending", endpoint.Answer{Status: 200}, "register", "registered", ""},
			{"a channel is no matter", `{"disabledChannels":["channel"]}`, "registered", endpoint.Answer{}, "", "registered", ""},
			{"disable", `{"enabled":false}`, "unregistration_pending", endpoint.Answer{Status: 400, Body: []byte(`{"id":"e","code":400,"type":"Runtime","message":"never"}`)}, "unregister", "unregistration_failed", "never"},
			{"enable", `{"enabled":true}`, "registration_pending", endpoint.Answer{Status: 200}, "register", "registered", ""},
		}
		for _, s := range steps {
			if s.operation != "" {
				next <- s.answer
			}
			r.clock.Add(1000)
			got := decode[botResult](t, r.put(t, botID, `{"integrations":{"acme/hooky":`+s.body+`}}`).want(t, 200, "hooky")).Bot.Integrations["acme/hooky"]
			if got.Status != s.pending {
				t.Errorf("%s: the update answers %s, want %s", s.what, got.Status, s.pending)
			}
			if s.operation != "" {
				op := r.called(t)
				if op.Name != s.operation || string(op.Body) != `{"webhookUrl":"`+got.WebhookURL+`"}` || !IsRegistration(op.Type) {
					t.Errorf("%s: called %s at %s with %s", s.what, op.Name, op.Type, op.Body)
				}
			}
			if got, reason := status(); got != s.status || reason != s.reasonHas {
				t.Errorf("%s: %s %q, want %s %q", s.what, got, reason, s.status, s.reasonHas)
			}
		}
		next <- endpoint.Answer{Status: 200}
		r.put(t, botID, `{"integrations":{"acme/hooky":null}}`).want(t, 200, "bot")
		if op := r.called(t); op.Name != "unregister" {
			t.Errorf("removing calls %s", op.Name)
		}
	})
}

// What could not be told is told later, the newest alone, also after a crash.
func TestRegistrationWaitsForItsEndpoint(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		botID := r.make(t, `{}`)
		r.put(t, botID, `{"integrations":{"acme/hooky":{"integrationId":"`+hooky+`","configuration":{"encryptionKey":"a"}}}}`).want(t, 200, "registration_pending")
		r.put(t, botID, `{"integrations":{"acme/hooky":{"configuration":{"encryptionKey":"b"}}}}`).want(t, 200, "registration_pending")
		// That engine never ran: its process ended.
		again := newRig(t, db, bus.NewLocal(), 0)
		again.clock.Add(time.Hour.Milliseconds())
		again.run(t, func(endpoint.Operation) (endpoint.Answer, error) {
			return endpoint.Answer{}, &endpoint.Error{Class: endpoint.Unreachable, Err: errors.New("connection refused")}
		})
		again.called(t)
		if in := again.shown(t, botID).Integrations["acme/hooky"]; in.Status != "registration_pending" || in.StatusReason.Value != "connection refused" {
			t.Errorf("while nobody answers: %s %q", in.Status, in.StatusReason.Value)
		}
		select {
		case op := <-again.calls:
			t.Errorf("the older call was made too: %+v", op)
		default:
		}
	})
}

func TestBuiltInIntegrationsAreNotCalled(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		r.run(t, fine)
		botID := r.make(t, `{}`)
		r.put(t, botID, `{"integrations":{"chat":{"integrationId":"`+chat10+`"}}}`).want(t, 200, `"registered"`)
		r.put(t, botID, `{"integrations":{"chat":{"enabled":false}}}`).want(t, 200, `"unregistered"`)
		if n, err := sqldb.Scalar[int](db.Reader(t.Context()), "SELECT count(*) FROM lanes"); n != 0 || err != nil {
			t.Errorf("%d lanes, %v", n, err)
		}
	})
}

// The place that an installation tells may want no more, until the installation
// is set up anew.
func TestGone(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		botID := r.make(t, `{}`)
		r.put(t, botID, `{"integrations":{"chat":{"integrationId":"`+chat10+`","configuration":{"webhookUrl":"https://example.com"}}}}`).want(t, 200, `"registered"`)
		shown := func() installed { return r.shown(t, botID).Integrations["chat"] }
		find := func() *Installation {
			b, err := r.Bot(t.Context(), botID)
			if err != nil {
				t.Fatal(err)
			}
			in, _, err := r.Installation(t.Context(), b.Installations[0].ID)
			if err != nil {
				t.Fatal(err)
			}
			return in
		}
		gone := func(botID string, asOf int64) {
			t.Helper()
			if err := db.Write(t.Context(), func(tx *sqldb.Tx) error { return r.Gone(tx, botID, find().ID, asOf) }); err != nil {
				t.Fatal(err)
			}
		}
		if in := find(); !in.Signals || in.Gone {
			t.Fatalf("a new installation is %+v", in.Installation)
		}
		setUp := int64(find().UpdatedAt)
		gone(botID, setUp) // that was the setup before
		gone("bot_other", setUp+1)
		if in := shown(); in.Status != "registered" || find().Gone {
			t.Errorf("gone before its time: %s %q", in.Status, in.StatusReason.Value)
		}
		r.clock.Add(1000)
		gone(botID, setUp+1)
		if in := shown(); in.Status != "registration_failed" || in.StatusReason.Value != goneReason || !find().Gone {
			t.Errorf("when it is gone: %s %q", in.Status, in.StatusReason.Value)
		}
		r.put(t, botID, `{"name":"other"}`).want(t, 200, "registration_failed")
		// The same URL again is an answer to the reason too.
		for _, body := range []string{`{"configuration":{"webhookUrl":"https://example.com"}}`, `{"configuration":{"webhookUrl":"https://example.org"}}`} {
			r.clock.Add(1000)
			r.put(t, botID, `{"integrations":{"chat":`+body+`}}`).want(t, 200, `"registered"`)
			if in := shown(); in.Status != "registered" || in.StatusReason.Value != "" || find().Gone {
				t.Errorf("set up anew: %s %q", in.Status, in.StatusReason.Value)
			}
			r.clock.Add(1000)
			gone(botID, r.clock.Load())
		}
		r.clock.Add(1000)
		r.put(t, botID, `{"integrations":{"chat":{"enabled":false,"configuration":{}}}}`).want(t, 200, `"unregistered"`)
		gone(botID, r.clock.Load()+1) // of a call that was on its way
		if in := shown(); in.Status != "unregistered" || find().Gone || find().Signals {
			t.Errorf("disabled: %s, %+v", in.Status, find().Installation)
		}
	})
}
