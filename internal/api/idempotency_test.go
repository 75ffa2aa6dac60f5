package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/once"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

type addInput struct {
	ID   string     `path:"id"`
	Name string     `json:"name"`
	Data api.Object `json:"data,omitempty"`
}

type added struct {
	Name  string   `json:"name"`
	Count int      `json:"count"`
	Tags  []string `json:"tags"`
}

// shop has operations that count their effects: add in a transaction, call
// without one, plain without one and not kept.
func shop(t *testing.T, db *sqldb.DB, change ...func(*api.Config)) *world {
	w := newWorld(t)
	insert := func(tx *sqldb.Tx, name string) error {
		_, err := tx.Exec("INSERT INTO tombstones (kind, id, bot_id, created_at) VALUES ('t', $1, '', 0)", fmt.Sprint(name, w.count("add")))
		return err
	}
	add := func(ctx context.Context, in addInput) (added, error) {
		return once.Write(ctx, db, func(tx *sqldb.Tx) (added, error) {
			w.called("add")
			switch in.Name {
			case "refused":
				return added{}, fault.ReferenceNotFound.New("no")
			case "broken":
				return added{}, errors.New("disk")
			case "large":
				return added{Name: strings.Repeat("x", once.MaxAnswer)}, insert(tx, in.Name)
			}
			return added{Name: in.Name, Count: w.count("add")}, insert(tx, in.Name)
		})
	}
	call := func(_ context.Context, in addInput) (added, error) {
		w.called("call")
		if in.Name == "refused" {
			return added{}, fault.Runtime.New("no")
		}
		return added{Name: in.Name, Count: w.count("call")}, nil
	}
	c := api.Config{Name: "shop", Admit: admit, DB: db, Ops: []api.Op{
		api.Handle("add", "POST /add/{id}", auth.Runtime, add, api.Created),
		api.Handle("add2", "POST /add2/{id}", auth.Runtime, add),
		api.Handle("call", "POST /call/{id}", auth.Runtime, call),
		api.Handle("plain", "POST /plain/{id}", auth.Runtime, call, api.NoReplay),
		api.Handle("open", "POST /open/{id}", auth.Public, call),
		api.Handle("get", "GET /add/{id}", auth.Runtime, func(context.Context, ref) (added, error) {
			w.called("get")
			return added{Count: w.count("get")}, nil
		}),
	}}
	for _, f := range change {
		f(&c)
	}
	w.API = api.New(c)
	return w
}

func replayed(rec *httptest.ResponseRecorder) bool {
	return rec.Header().Get("Idempotency-Replayed") == "true"
}

func TestIdempotencyKeyReplaysTheFirstAnswer(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := shop(t, db)
		for _, path := range []string{"/add/1", "/call/1"} {
			first := w.ask("POST", path, `{"name":"n","data":{"a":1,"b":2}}`, "Idempotency-Key: k1")
			again := w.ask("POST", path, ` {"data": {"b":2, "a":1}, "name":"n"} `, "Idempotency-Key: k1")
			if first.Code >= 300 || replayed(first) || again.Code != first.Code || again.Body.String() != first.Body.String() || !replayed(again) {
				t.Errorf("%s: first %d %s, again %d %s (%v)", path, first.Code, first.Body, again.Code, again.Body, again.Header())
			}
			if again.Header().Get("Content-Type") != "application/json" {
				t.Errorf("%s: replay has headers %v", path, again.Header())
			}
		}
		if w.count("add") != 1 || w.count("call") != 1 {
			t.Errorf("effects: %v", w.calls)
		}
		// Another key, no key, another operation and another principal are other requests.
		w.ask("POST", "/add/1", `{"name":"a"}`, "Idempotency-Key: k2")
		w.ask("POST", "/add/1", `{"name":"b"}`)
		w.ask("POST", "/add2/1", `{"name":"c"}`, "Idempotency-Key: k1")
		w.ask("POST", "/add/1", `{"name":"d"}`, "Idempotency-Key: k1", "Authorization: Bearer other")
		if w.count("add") != 5 {
			t.Errorf("effects: %v", w.calls)
		}
	})
}

func TestIdempotencyKeyOfAnotherRequest(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := shop(t, db)
		w.ask("POST", "/add/1", `{"name":"n"}`, "Idempotency-Key: k1")
		for _, c := range [][2]string{{"/add/1", `{"name":"other"}`}, {"/add/2", `{"name":"n"}`}} {
			wantFault(t, w.ask("POST", c[0], c[1], "Idempotency-Key: k1"), fault.InvalidPayload, `Idempotency-Key "k1" was used for another request before; send a new key with a new request`)
		}
		if w.count("add") != 1 {
			t.Errorf("effects: %v", w.calls)
		}
	})
}

func TestIdempotencyKeyAfterAFailure(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := shop(t, db)
		for i, c := range [][2]string{{"/add/1", "refused"}, {"/add/1", "broken"}, {"/call/1", "refused"}} {
			key := fmt.Sprint("Idempotency-Key: k", i)
			if rec := w.ask("POST", c[0], `{"name":"`+c[1]+`"}`, key); rec.Code < 400 {
				t.Errorf("%v: %d", c, rec.Code)
			}
			if rec := w.ask("POST", c[0], `{"name":"good"}`, key); rec.Code >= 300 || replayed(rec) {
				t.Errorf("retry after %v: %d %s", c, rec.Code, rec.Body)
			}
		}
		if w.ask("POST", "/add/1", `{`, "Idempotency-Key: k9"); w.ask("POST", "/add/1", `{"name":"n"}`, "Idempotency-Key: k9").Code != 201 {
			t.Error("an invalid request used up its key")
		}
	})
}

func TestIdempotencyKeyWithALargeAnswer(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := shop(t, db)
		if rec := w.ask("POST", "/add/1", `{"name":"large"}`, "Idempotency-Key: k"); rec.Code != 201 || rec.Body.Len() < once.MaxAnswer {
			t.Fatalf("got %d with %d bytes", rec.Code, rec.Body.Len())
		}
		wantFault(t, w.ask("POST", "/add/1", `{"name":"large"}`, "Idempotency-Key: k"), fault.AlreadyExists,
			`The request with Idempotency-Key "k" was carried out before; its answer has more than 128 KB and was not kept, so read the resource instead`)
		if w.count("add") != 1 {
			t.Errorf("effects: %v", w.calls)
		}
	})
}

func TestIdempotencyKeysThatAreRefused(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := shop(t, db)
		for _, key := range []string{strings.Repeat("k", 256), "é", "a\tb"} {
			wantFault(t, w.ask("POST", "/add/1", `{"name":"n"}`, "Idempotency-Key: "+key), fault.InvalidPayload, "The header Idempotency-Key must be 1 to 255 printable ASCII characters")
		}
		r := httptest.NewRequest("POST", "/call/1", strings.NewReader(`{"name":"n"}`))
		r.Header = http.Header{"Idempotency-Key": {"a", "b"}, "Content-Type": {"application/json"}, "Authorization": {"Bearer good"}}
		rec := httptest.NewRecorder()
		w.ServeHTTP(rec, r)
		wantFault(t, rec, fault.InvalidPayload, "The header Idempotency-Key must be 1 to 255 printable ASCII characters")

		wantFault(t, w.ask("POST", "/open/1", `{"name":"n"}`, "Idempotency-Key: guess"), fault.InvalidPayload,
			"The header Idempotency-Key must have at least 20 characters in a request without a credential, so that nobody guesses it")
		if rec := w.ask("POST", "/open/1", `{"name":"n"}`, "Idempotency-Key: "+strings.Repeat("long", 5)); rec.Code != 200 {
			t.Errorf("a long key without a credential: %d %s", rec.Code, rec.Body)
		}
		if rec := w.ask("POST", "/add/1", `{"name":"n"}`, "Idempotency-Key: "+strings.Repeat("k", 255)); rec.Code != 201 {
			t.Errorf("255 characters: %d", rec.Code)
		}
	})
}

func TestIdempotencyKeyWhereItMeansNothing(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := shop(t, db)
		for range 2 {
			for _, method := range []string{"GET", "HEAD"} {
				if rec := w.ask(method, "/add/1", "", "Idempotency-Key: k"); rec.Code != 200 || replayed(rec) {
					t.Errorf("%s: %d", method, rec.Code)
				}
			}
			w.ask("POST", "/plain/1", `{"name":"n"}`, "Idempotency-Key: k")
		}
		if w.count("get") != 4 || w.count("call") != 2 {
			t.Errorf("calls: %v", w.calls)
		}
	})
	w := shop(t, nil, func(c *api.Config) { c.DB = nil })
	wantFault(t, w.ask("POST", "/call/1", `{"name":"n"}`, "Idempotency-Key: k"), fault.InvalidPayload, "The header Idempotency-Key is of no use here: this server keeps no answers")
}

func TestTwinsInFlight(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		inside, leave := make(chan struct{}), make(chan struct{})
		slow := api.Handle("slow", "POST /slow", auth.Runtime, func(context.Context, nothing) (nothing, error) {
			close(inside)
			<-leave
			return nothing{}, nil
		})
		w := newWorld(t, func(c *api.Config) { c.DB, c.Ops = db, []api.Op{slow} })
		first := make(chan int)
		go func() { first <- w.ask("POST", "/slow", "", "Idempotency-Key: k").Code }()
		<-inside
		wantFault(t, w.ask("POST", "/slow", "", "Idempotency-Key: k"), fault.ResourceLocked,
			`A request with Idempotency-Key "k" is being carried out; send it again in a moment`)
		close(leave)
		if code := <-first; code != 200 {
			t.Errorf("the first got %d", code)
		}
		if rec := w.ask("POST", "/slow", "", "Idempotency-Key: k"); rec.Code != 200 || !replayed(rec) {
			t.Errorf("afterwards: %d", rec.Code)
		}
	})
}

func TestManyTwinsTakeEffectOnce(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		w := shop(t, db)
		answers := make([]*httptest.ResponseRecorder, 20)
		var wg sync.WaitGroup
		for i := range answers {
			wg.Go(func() { answers[i] = w.ask("POST", "/add/1", `{"name":"n"}`, "Idempotency-Key: k") })
		}
		wg.Wait()
		want := w.ask("POST", "/add/1", `{"name":"n"}`, "Idempotency-Key: k").Body.String()
		for _, rec := range answers {
			if rec.Code != 409 && (rec.Code != 201 || rec.Body.String() != want) {
				t.Errorf("got %d %s, want the first answer %s or 409", rec.Code, rec.Body, want)
			}
		}
		if n, err := sqldb.Scalar[int64](db.Reader(t.Context()), "SELECT COUNT(*) FROM tombstones"); err != nil || n != 1 {
			t.Errorf("%d effects, %v; want 1", n, err)
		}
	})
}
