package api_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/once"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

type sendInput struct {
	api.Wait
	Text string `json:"text"`
}

type sent struct {
	Text  string   `json:"text"`
	Count int      `json:"count"`
	Came  []string `json:"came,omitzero" doc:"What has come."`
}

// post has an operation that is waited for, in a transaction and without one.
// waiting gets how long, and returns when the test lets it.
func post(t *testing.T, db *sqldb.DB, waiting func(d time.Duration)) *world {
	w := newWorld(t)
	call := func(_ context.Context, in sendInput) (sent, error) {
		w.called("send")
		if in.Text == "refused" {
			return sent{}, fault.Runtime.New("no")
		}
		return sent{Text: in.Text, Count: w.count("send")}, nil
	}
	write := func(ctx context.Context, in sendInput) (sent, error) {
		return once.Write(ctx, db, func(*sqldb.Tx) (sent, error) { return call(ctx, in) })
	}
	wait := func(ctx context.Context, out *sent, d time.Duration) {
		w.called("wait")
		if once.From(ctx) != nil || auth.From(ctx).TokenID == "" {
			t.Error("the wait has a key, or no principal")
		}
		waiting(d)
		out.Came = []string{}
	}
	w.API = api.New(api.Config{Name: "post", Admit: admit, DB: db, CheckAnswers: true, Ops: []api.Op{
		api.HandleWait("send", "POST /send", auth.Runtime, write, wait, api.Created),
		api.HandleWait("call", "POST /call", auth.Runtime, call, wait),
	}})
	return w
}

func wantAnswer(t *testing.T, rec *httptest.ResponseRecorder, code int, body string, again bool) {
	t.Helper()
	if rec.Code != code || rec.Body.String() != body || replayed(rec) != again {
		t.Errorf("got %d %s, replayed %v; want %d %s, %v", rec.Code, rec.Body, replayed(rec), code, body, again)
	}
}

func TestAClientMayWaitForWhatComes(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		var lengths []time.Duration
		w := post(t, db, func(d time.Duration) { lengths = append(lengths, d) })
		wantAnswer(t, w.ask("POST", "/send", `{"text":"a"}`), 201, `{"text":"a","count":1}`, false)
		wantAnswer(t, w.ask("POST", "/send?wait=10", `{"text":"a"}`), 201, `{"text":"a","count":2,"came":[]}`, false)
		w.ask("POST", "/send?wait=2.5", `{"text":"a"}`)
		w.ask("POST", "/send?wa%69t=60", `{"text":"a"}`)
		w.ask("POST", "/send?wait=1e-300", `{"text":"a"}`)
		if got := fmt.Sprint(lengths); got != "[10s 2.5s 1m0s 1ns]" {
			t.Errorf("waited for %s", got)
		}
		wantFault(t, w.ask("POST", "/send?wait=1", `{"text":"refused"}`), fault.Runtime, "no")
		if w.count("wait") != 4 {
			t.Errorf("%d waits", w.count("wait"))
		}
	})
}

func TestWaitsThatAreRefused(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := post(t, db, func(time.Duration) { t.Error("somebody waited") })
		w.ask("POST", "/send", `{"text":"a"}`, "Idempotency-Key: k")
		for _, text := range []string{"", "0", "-1", "60.001", "61", "1e400", "1e30", "ten", "10s", "+1", "0x1", "1_0", "NaN", "Inf", " 1", "%201", "1,5", "%00"} {
			for _, key := range []string{"Idempotency-Key: k", "X-Y: z"} {
				wantFault(t, w.ask("POST", "/send?wait="+strings.ReplaceAll(text, " ", "+"), `{"text":"a"}`, key), fault.InvalidPayload,
					"wait must be a number of seconds above 0 and at most 60, such as 10 or 2.5")
			}
		}
		wantFault(t, w.ask("POST", "/send?wait=1&wait=2", `{"text":"a"}`), fault.InvalidQuery, "wait occurs twice in the query")
		wantFault(t, w.ask("POST", "/send?wait=1&for=2", `{"text":"a"}`), fault.InvalidQuery, `"for" is not a query parameter of send; it takes wait`)
		wantFault(t, w.ask("POST", "/send?wait=%zz", `{"text":"a"}`), fault.InvalidQuery, `The query has an invalid escape in "wait=%zz"`)
		if w.count("send") != 1 {
			t.Errorf("%d effects", w.count("send"))
		}
	})
}

// The answer that is kept is the one without what the wait has brought, and who
// repeats the request may wait too, for another time or not at all.
func TestTheKeptAnswerIsWithoutTheWait(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := post(t, db, func(time.Duration) {})
		for i, c := range []struct {
			path string
			code int
		}{{"/send", 201}, {"/call", 200}} {
			plain := fmt.Sprintf(`{"text":"a","count":%d}`, i+1)
			waited := fmt.Sprintf(`{"text":"a","count":%d,"came":[]}`, i+1)
			wantAnswer(t, w.ask("POST", c.path+"?wait=10", `{"text":"a"}`, "Idempotency-Key: k"), c.code, waited, false)
			wantAnswer(t, w.ask("POST", c.path, `{"text":"a"}`, "Idempotency-Key: k"), c.code, plain, true)
			wantAnswer(t, w.ask("POST", c.path+"?wait=3", `{"text":"a"}`, "Idempotency-Key: k"), c.code, waited, true)
			wantFault(t, w.ask("POST", c.path+"?wait=3", `{"text":"b"}`, "Idempotency-Key: k"), fault.InvalidPayload,
				`Idempotency-Key "k" was used for another request before; send a new key with a new request`)
		}
		wantAnswer(t, w.ask("POST", "/send", `{"text":"x"}`, "Idempotency-Key: k2"), 201, `{"text":"x","count":3}`, false)
		wantAnswer(t, w.ask("POST", "/send?wait=1", `{"text":"x"}`, "Idempotency-Key: k2"), 201, `{"text":"x","count":3,"came":[]}`, true)
	})
}

// While one waits under a key, its twin is let in and waits for the same.
func TestTwinsWaitTogether(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		arrived, end := make(chan struct{}, 2), make(chan struct{})
		w := post(t, db, func(time.Duration) { arrived <- struct{}{}; <-end })
		answers := make(chan *httptest.ResponseRecorder, 2)
		for range 2 {
			go func() { answers <- w.ask("POST", "/send?wait=10", `{"text":"a"}`, "Idempotency-Key: k") }()
			<-arrived
		}
		close(end)
		for range 2 {
			if rec := <-answers; rec.Code != 201 || rec.Body.String() != `{"text":"a","count":1,"came":[]}` {
				t.Errorf("got %d %s", rec.Code, rec.Body)
			}
		}
		if w.count("send") != 1 {
			t.Errorf("%d effects", w.count("send"))
		}
	})
}

// How long somebody wants to wait says nothing about the server.
func TestAWaitIsNotTheTimeOfARequest(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	reg := prometheus.NewRegistry()
	w := newWorld(t)
	w.API = api.New(api.Config{Name: "post", Admit: admit, Metrics: reg, Now: func() time.Time { return now }, Ops: []api.Op{
		api.HandleWait("send", "POST /send", auth.Runtime, func(context.Context, sendInput) (sent, error) {
			now = now.Add(time.Second)
			return sent{}, nil
		}, func(_ context.Context, _ *sent, d time.Duration) { now = now.Add(d) }),
	}})
	if rec := w.ask("POST", "/send?wait=30", `{"text":"a"}`); rec.Code != 200 {
		t.Fatalf("got %d %s", rec.Code, rec.Body)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "parley_http_request_seconds" {
			if got := f.GetMetric()[0].GetHistogram().GetSampleSum(); got != 1 {
				t.Errorf("the request counts as %v seconds, want 1", got)
			}
			return
		}
	}
	t.Error("the request is not counted")
}

func TestTheDocumentSaysHowToWait(t *testing.T) {
	t.Parallel()
	w := post(t, nil, nil)
	doc := string(w.OpenAPI())
	for _, want := range []string{`"name": "wait"`, `"description": "Seconds to wait for what comes of it, above 0 and at most 60, such as 10 or 2.5."`, `"description": "What has come."`} {
		if !strings.Contains(doc, want) {
			t.Errorf("the document lacks %s", want)
		}
	}
}
