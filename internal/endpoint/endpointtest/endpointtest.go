// Package endpointtest is the contract of endpoint.Endpoint as a suite that
// every way of reaching a peer has to pass.
package endpointtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/internal/endpoint"
)

// Open makes the endpoint under test, at whose other end peer answers. A peer
// sees the operation as a POST: Operation.Name and Type arrive as x-bp-operation
// and x-bp-type beside Operation.Header. It may panic, and it may wait for the
// end of its request's context.
type Open func(t *testing.T, peer http.Handler) endpoint.Endpoint

// Run runs the contract.
func Run(t *testing.T, open Open) {
	for name, test := range map[string]func(*testing.T, Open){
		"the operation arrives whole":                        testArrives,
		"the answer comes back whole":                        testAnswer,
		"an operation without a body is an empty object":     testNoBody,
		"text of all scripts arrives":                        testScripts,
		"a large body arrives whole":                         testLarge,
		"statuses are classified":                            testStatuses,
		"the deadline is a time limit":                       testTimeLimit,
		"a deadline that has passed starts nothing":          testPassedDeadline,
		"the caller may give up":                             testCancel,
		"a panic is a failed attempt":                        testPanic,
		"no answer is a failed attempt":                      testNoAnswer,
		"an answer that is too large is final":               testHuge,
		"the largest answer passes":                          testLargestAnswer,
		"an endpoint survives every failure":                 testSurvives,
		"many at once do not mix":                            testConcurrent,
		"the same operation can be invoked again, unaltered": testUnaltered,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open)
		})
	}
}

func operation(body string) endpoint.Operation {
	return endpoint.BotCall{
		BotID: "bot_1", BotUserID: "bot_1", Operation: "event_received", Type: "message_created", EventID: "evt_1", Attempt: 1,
	}.With([]byte(body))
}

// within bounds a test that would otherwise hang.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func reply(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func testArrives(t *testing.T, open Open) {
	e := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		h := r.Header
		fmt.Fprint(w, r.Method, " ", h.Get("X-Bot-Id"), " ", h.Get("X-Bp-Operation"), " ", h.Get("X-Bp-Type"), " ", h.Get("Webhook-Id"), " ",
			h.Get("X-Bp-Configuration") != "", " ", string(body), " ", err)
	}))
	a, err := e.Invoke(within(t), operation(`{"a":1}`))
	if want := `POST bot_1 event_received message_created evt_1 true {"a":1} <nil>`; err != nil || string(a.Body) != want {
		t.Errorf("the peer saw %q, %v; want %q", a.Body, err, want)
	}
}

func testAnswer(t *testing.T, open Open) {
	e := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-One", "1")
		w.Header().Add("X-Two", "a")
		w.Header().Add("X-Two", "b")
		w.WriteHeader(http.StatusTeapot)
		w.Write([]byte{0, 1, 0xff, '\n'})
	}))
	a, err := e.Invoke(within(t), operation("{}"))
	if err != nil || a.Status != http.StatusTeapot || !bytes.Equal(a.Body, []byte{0, 1, 0xff, '\n'}) ||
		a.Header.Get("X-One") != "1" || !slices.Equal(a.Header["X-Two"], []string{"a", "b"}) {
		t.Errorf("got %+v, %v", a, err)
	}
}

func testNoBody(t *testing.T, open Open) {
	e := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }))
	a, err := e.Invoke(within(t), operation(""))
	if body := string(a.Body); err != nil || body != "" && body != "{}" {
		t.Errorf("got %q, %v", body, err)
	}
}

func testScripts(t *testing.T, open Open) {
	const text = `{"text":"é 漢字 𝄞 🇨🇭 \u00e9 \\u00e9 \"\\"}`
	e := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Write(endpoint.ASCII(body))
	}))
	a, err := e.Invoke(within(t), operation(text))
	if want := endpoint.ASCII([]byte(text)); err != nil || !bytes.Equal(a.Body, want) {
		t.Errorf("got %s, %v; want %s", a.Body, err, want)
	}
}

func testLarge(t *testing.T, open Open) {
	body := `{"a":"` + strings.Repeat("0123456789", 200_000) + `"}`
	e := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, _ := io.ReadAll(r.Body)
		io.WriteString(w, strconv.FormatBool(string(got) == body))
	}))
	if a, err := e.Invoke(within(t), operation(body)); err != nil || string(a.Body) != "true" {
		t.Errorf("got %q, %v", a.Body, err)
	}
}

func testStatuses(t *testing.T, open Open) {
	for status, want := range map[int]endpoint.Class{
		200: endpoint.OK, 201: endpoint.OK, 202: endpoint.OK, 204: endpoint.OK,
		301: endpoint.Failed, 302: endpoint.Failed, 304: endpoint.Failed, 307: endpoint.Failed,
		400: endpoint.Final, 401: endpoint.Final, 404: endpoint.Final, 408: endpoint.Final, 410: endpoint.Final, 429: endpoint.Final, 431: endpoint.Final,
		500: endpoint.Failed, 501: endpoint.Failed, 505: endpoint.Failed, 599: endpoint.Failed,
		502: endpoint.Unreachable, 503: endpoint.Unreachable, 504: endpoint.Unreachable,
	} {
		e := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
		}))
		a, err := e.Invoke(within(t), operation("{}"))
		if got := endpoint.Classify(a, err); err != nil || a.Status != status || got != want {
			t.Errorf("%d: got %d, %v, class %v; want class %v", status, a.Status, err, got, want)
		}
	}
}

// stuck answers only when its caller has gone.
func stuck(t *testing.T) (peer http.Handler, running <-chan struct{}) {
	began := make(chan struct{}, 1)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		began <- struct{}{}
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}), began
}

func testTimeLimit(t *testing.T, open Open) {
	peer, _ := stuck(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	began := time.Now()
	a, err := open(t, peer).Invoke(ctx, operation("{}"))
	if got := endpoint.Classify(a, err); got != endpoint.TimedOut {
		t.Errorf("got %v (%v), want timed out", got, err)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("a limit of 2s took %v", took)
	}
}

func testPassedDeadline(t *testing.T, open Open) {
	e := open(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the peer was called") }))
	ctx, cancel := context.WithTimeout(t.Context(), -time.Second)
	defer cancel()
	a, err := e.Invoke(ctx, operation("{}"))
	if got := endpoint.Classify(a, err); got != endpoint.Unreachable {
		t.Errorf("got %v (%v), want unreachable: nothing was sent", got, err)
	}
}

func testCancel(t *testing.T, open Open) {
	peer, running := stuck(t)
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	e := open(t, peer)
	var waiting sync.WaitGroup
	waiting.Go(func() {
		a, err := e.Invoke(ctx, operation("{}"))
		if err != context.Canceled || endpoint.Classify(a, err) != endpoint.Canceled {
			t.Errorf("got %v, want context.Canceled", err)
		}
	})
	<-running
	cancel()
	waiting.Wait()
}

func testPanic(t *testing.T, open Open) {
	e := open(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("a bug in the peer") }))
	a, err := e.Invoke(within(t), operation("{}"))
	if got := endpoint.Classify(a, err); got != endpoint.Failed {
		t.Errorf("got %v (%v), want failed", got, err)
	}
	if endpoint.Reason(a, err) == "" {
		t.Error("there is no reason")
	}
}

func testNoAnswer(t *testing.T, open Open) {
	e := open(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	a, err := e.Invoke(within(t), operation("{}"))
	if got := endpoint.Classify(a, err); got != endpoint.Failed {
		t.Errorf("got %v (%v), want failed", got, err)
	}
}

func testHuge(t *testing.T, open Open) {
	e := open(t, reply(http.StatusOK, strings.Repeat("x", endpoint.MaxAnswer+1)))
	a, err := e.Invoke(within(t), operation("{}"))
	if got := endpoint.Classify(a, err); got != endpoint.Final || len(a.Body) != 0 {
		t.Errorf("got %v (%v) with %d bytes, want final with none", got, err, len(a.Body))
	}
}

func testLargestAnswer(t *testing.T, open Open) {
	e := open(t, reply(http.StatusOK, strings.Repeat("x", endpoint.MaxAnswer)))
	if a, err := e.Invoke(within(t), operation("{}")); err != nil || len(a.Body) != endpoint.MaxAnswer {
		t.Errorf("got %d bytes, %v", len(a.Body), err)
	}
}

func testSurvives(t *testing.T, open Open) {
	e := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch string(body) {
		case `"panic"`:
			panic("a bug in the peer")
		case `"huge"`:
			w.Write(make([]byte, endpoint.MaxAnswer+1))
		case `"error"`:
			w.WriteHeader(http.StatusInternalServerError)
		case `"stuck"`:
			<-r.Context().Done()
		}
	}))
	for _, trouble := range []string{`"panic"`, `"huge"`, `"error"`, `"stuck"`} {
		ctx, cancel := context.WithTimeout(within(t), 300*time.Millisecond)
		_, _ = e.Invoke(ctx, operation(trouble)) // what it means is tested elsewhere
		cancel()
		if a, err := e.Invoke(within(t), operation("{}")); err != nil || a.Status != http.StatusOK {
			t.Errorf("after %s: got %d, %v", trouble, a.Status, err)
		}
	}
}

func testConcurrent(t *testing.T, open Open) {
	e := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Echo", r.Header.Get("X-Call"))
		w.Write(body)
	}))
	shared := operation("{}")
	ctx := within(t)
	var calls sync.WaitGroup
	for g := range 32 {
		calls.Go(func() {
			for i := range 20 {
				op, id := shared, fmt.Sprintf("%d-%d", g, i)
				if i%2 == 0 { // the others share one header map
					op.Header = maps.Clone(op.Header)
					op.Header.Set("X-Call", id)
				}
				op.Body = fmt.Appendf(nil, `{"id":%q}`, id)
				a, err := e.Invoke(ctx, op)
				if err != nil || !bytes.Equal(a.Body, op.Body) || a.Header.Get("X-Echo") != op.Header.Get("X-Call") {
					t.Errorf("call %s: got %s, %v", id, a.Body, err)
					return
				}
			}
		})
	}
	calls.Wait()
}

func testUnaltered(t *testing.T, open Open) {
	e := open(t, reply(http.StatusInternalServerError, "{}"))
	op := operation(`{"a":"é"}`)
	header, body := op.Header.Clone(), bytes.Clone(op.Body)
	for range 3 {
		if a, err := e.Invoke(within(t), op); err != nil || a.Status != http.StatusInternalServerError {
			t.Fatalf("got %d, %v", a.Status, err)
		}
		if !maps.EqualFunc(op.Header, header, slices.Equal) || !bytes.Equal(op.Body, body) {
			t.Fatalf("Invoke changed the operation to %v %s", op.Header, op.Body)
		}
	}
}
