package messaging

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/internal/api"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
	"parley/internal/timer"
)

const statePath = "/v1/chat/states/"

func (r *rig) setState(who as, at, body string) map[string]any {
	r.Helper()
	return r.ok(who, "POST", statePath+at, body, "state")
}

// hasState reports whether there is a state, without using it.
func (r *rig) hasState(name string) bool {
	r.Helper()
	return r.count("SELECT count(*) FROM states WHERE name = $1", name) > 0
}

func TestStateExpires(t *testing.T) {
	each(t, func(r *rig) {
		c := r.calendar()
		conv, user := r.conversation(chatOfA, "channel", `{}`), r.user(chatOfA, `{}`)
		set := r.setState(botOfA, "conversation/"+conv+"/session", `{"payload":{"n":1},"expiry":60000}`)
		r.setState(botOfA, "user/"+user+"/cart", `{"payload":{"a":[]},"expiry":120000}`)
		r.setState(botOfA, "bot/"+botA+"/kept", `{"payload":{}}`)
		r.setState(botOfA, "bot/"+botA+"/kept2", `{"payload":{},"expiry":null}`)
		c.forward(59 * time.Second)
		if !r.hasState("session") {
			r.Error("it expired early")
		}
		c.forward(time.Second)
		e := r.await(1)[0]
		if e["type"] != "state_expired" || e["conversationId"] != nil || e["status"] != "pending" {
			r.Errorf("the bot got %v", e)
		}
		if diff := cmp.Diff(map[string]any{"state": set}, e["payload"]); diff != "" {
			r.Errorf("the state in the event is not what it was: %s", diff)
		}
		if status, _ := r.do(botOfA, "GET", statePath+"conversation/"+conv+"/session", ""); status != 404 {
			r.Errorf("the expired state answers %d", status)
		}
		r.idle()
		if got := r.ok(botOfA, "GET", "/v1/chat/events/"+e["id"].(string), "", "event"); got["status"] != "processed" {
			r.Errorf("the event is %v", got)
		}
		c.forward(time.Minute)
		if e := r.await(1)[1]; e["payload"].(map[string]any)["state"].(map[string]any)["userId"] != user {
			r.Errorf("the bot got %v", e)
		}
		c.forward(24 * 365 * time.Hour)
		if !r.hasState("kept") || !r.hasState("kept2") {
			r.Error("a state without expiry is gone")
		}
		r.idle()
		if n := r.count("SELECT count(*) FROM events"); n != 2 {
			r.Errorf("%d events, want one for each state", n)
		}
		if n := r.count("SELECT count(*) FROM timers") + r.count("SELECT count(*) FROM lanes"); n != 0 {
			r.Errorf("%d timers and lanes are left", n)
		}
	})
}

// Reading and writing both put the end of a state off; looking at something else does not.
func TestUseKeepsAState(t *testing.T) {
	each(t, func(r *rig) {
		c := r.calendar()
		at := "bot/" + botA + "/session"
		for name, use := range map[string]func(){
			"get":        func() { r.ok(botOfA, "GET", statePath+at, "", "state") },
			"get-or-set": func() { r.ok(botOfA, "POST", statePath+at+"/get-or-set", `{"payload":{}}`, "state") },
			"set":        func() { r.setState(botOfA, at, `{"payload":{"x":1}}`) },
			"patch":      func() { r.ok(botOfA, "PATCH", statePath+at, `{"payload":{"y":1}}`, "state") },
			"expiry":     func() { r.setState(botOfA, at+"/expiry", `{"expiry":60000}`) },
		} {
			r.setState(botOfA, at, `{"payload":{"n":1},"expiry":60000}`)
			before := r.count("SELECT due FROM timers")
			c.ahead.Add(int64(40 * time.Second))
			use()
			for r.count("SELECT due FROM timers") == before { // a read is noted soon
				runtime.Gosched()
			}
			c.forward(40 * time.Second)
			if !r.hasState("session") {
				r.Fatalf("%s: it expired though it was used", name)
			}
			c.forward(20 * time.Second)
			if r.hasState("session") {
				r.Errorf("%s: idle for its time and still there", name)
			}
			r.await(1)
		}
		r.setState(botOfA, at, `{"payload":{},"expiry":60000}`)
		r.setState(botOfA, "bot/"+botA+"/another", `{"payload":{}}`)
		if status, _ := r.do(botOfA, "GET", statePath+"bot/"+botA+"/third", ""); status != 404 {
			r.Fatal(status)
		}
		c.forward(time.Minute)
		if r.hasState("session") {
			r.Error("it was kept by the use of another")
		}
	})
}

func TestSetStateExpiry(t *testing.T) {
	each(t, func(r *rig) {
		c := r.calendar()
		at := "bot/" + botA + "/session"
		state := r.setState(botOfA, at, `{"payload":{"n":1}}`)
		if diff := cmp.Diff(state, r.setState(botOfA, at+"/expiry", `{"expiry":1000}`)); diff != "" {
			r.Errorf("the answer is not the state as it is: %s", diff)
		}
		r.setState(botOfA, at+"/expiry", `{"expiry":null}`)
		c.forward(time.Hour)
		if !r.hasState("session") {
			r.Fatal("it expired though it never does any more")
		}
		r.setState(botOfA, at+"/expiry", `{"expiry":1.5}`)
		c.forward(2 * time.Millisecond)
		c.forward(time.Millisecond)
		if r.await(1); r.hasState("session") {
			r.Error("it did not expire")
		}
		if status, out := r.do(botOfA, "POST", statePath+at+"/expiry", `{"expiry":1000}`); status != 404 || out["type"] != "ResourceNotFound" {
			r.Errorf("the expiry of a state that is gone: %d %v", status, out)
		}
		r.setState(botOfA, at, `{"payload":{},"expiry":1000}`)
		r.setState(botOfA, at, `{"payload":{},"expiry":null}`)
		c.forward(time.Hour)
		if !r.hasState("session") {
			r.Error("setState with a null expiry left it")
		}
		r.setState(botOfA, at, `{"payload":{},"expiry":2592000000}`)
		r.setState(botOfA, at, `{"payload":{"n":2}}`) // absent = as before
		c.forward(30*24*time.Hour - time.Minute)
		if !r.hasState("session") {
			r.Error("it expired early")
		}
		c.forward(time.Minute)
		if r.hasState("session") {
			r.Error("a write without an expiry took the one of before")
		}
	})
}

func TestGetOrSetStateWithExpiry(t *testing.T) {
	each(t, func(r *rig) {
		c := r.calendar()
		at := statePath + "bot/" + botA + "/session/get-or-set"
		r.ok(botOfA, "POST", at, `{"payload":{"n":1},"expiry":1000}`, "state")
		if got := r.ok(botOfA, "POST", at, `{"payload":{"n":2},"expiry":100000}`, "state"); cmp.Diff(map[string]any{"n": 1.0}, got["payload"]) != "" {
			r.Errorf("got %v", got)
		}
		c.forward(2 * time.Second) // the expiry is that of who made it
		if r.await(1); r.hasState("session") {
			r.Error("it did not expire")
		}
	})
}

func TestBadExpiries(t *testing.T) {
	each(t, func(r *rig) {
		at := "bot/" + botA + "/session"
		r.setState(botOfA, at, `{"payload":{"n":1}}`)
		for expiry, says := range map[string]string{
			"0": "expiry", "-1": "expiry", "0.5": "expiry", "2592000001": "expiry", "1e300": "expiry", "1e999": "expiry", `"60000"`: "expiry", "true": "expiry", "{}": "expiry", "[1]": "expiry", "NaN": "",
		} {
			for path, body := range map[string]string{
				at: `{"payload":{},"expiry":` + expiry + `}`, at + "/get-or-set": `{"payload":{},"expiry":` + expiry + `}`, at + "/expiry": `{"expiry":` + expiry + `}`,
			} {
				status, out := r.do(botOfA, "POST", statePath+path, body)
				if status != 400 || out["type"] != "InvalidPayload" || !strings.Contains(out["message"].(string), says) {
					r.Errorf("%s %s: got %d %v, want InvalidPayload", path, expiry, status, out)
				}
			}
		}
		for name, k := range map[string]struct {
			who        as
			path, body string
			status     int
			kind       string
		}{
			"no expiry":            {botOfA, at + "/expiry", `{}`, 400, "InvalidPayload"},
			"another member":       {botOfA, at + "/expiry", `{"expiry":1,"payload":{}}`, 400, "InvalidPayload"},
			"unknown state":        {botOfA, "bot/" + botA + "/other/expiry", `{"expiry":1}`, 404, "ResourceNotFound"},
			"another bot's":        {botOfB, at + "/expiry", `{"expiry":1}`, 404, "ResourceNotFound"},
			"an installation":      {chatOfA, at + "/expiry", `{"expiry":1}`, 403, "Forbidden"},
			"an unknown type":      {botOfA, "planet/" + botA + "/x/expiry", `{"expiry":1}`, 400, "InvalidPayload"},
			"unknown conversation": {botOfA, "conversation/" + id.New("conv") + "/x/expiry", `{"expiry":1}`, 404, "ResourceNotFound"},
			"patch takes none":     {botOfA, at, `{"payload":{},"expiry":1,"x":1}`, 400, "InvalidPayload"},
		} {
			if status, out := r.do(k.who, "POST", statePath+k.path, k.body); status != k.status || out["type"] != k.kind {
				r.Errorf("%s: got %d %v, want %d %s", name, status, out, k.status, k.kind)
			}
		}
		if status, out := r.do(botOfA, "PATCH", statePath+at, `{"payload":{},"expiry":1}`); status != 400 {
			r.Errorf("patchState with an expiry: %d %v", status, out)
		}
		if n := r.count("SELECT count(*) FROM timers"); n != 0 {
			r.Errorf("%d timers were set", n)
		}
	})
}

// The states of an installation end, and the bot, who cannot see them, is not told.
func TestStatesOfAnInstallationExpireInSilence(t *testing.T) {
	each(t, func(r *rig) {
		c := r.calendar()
		conv := r.conversation(chatOfA, "channel", `{}`)
		r.setState(chatOfA, "conversation/"+conv+"/session", `{"payload":{},"expiry":1000}`)
		r.setState(chatOfA, "integration/"+chatA+"/token", `{"payload":{},"expiry":1000}`)
		c.forward(time.Second)
		if n := r.count("SELECT count(*) FROM states") + r.count("SELECT count(*) FROM events"); n != 0 {
			r.Errorf("%d states and events are left", n)
		}
	})
}

func TestDeletedStateDoesNotExpire(t *testing.T) {
	each(t, func(r *rig) {
		c := r.calendar()
		conv, user := r.conversation(chatOfA, "channel", `{}`), r.user(chatOfA, `{}`)
		at := "bot/" + botA + "/session"
		r.setState(botOfA, at, `{"payload":{},"expiry":1000}`)
		r.setState(botOfA, at, `{"payload":null}`)
		if n := r.count("SELECT count(*) FROM timers"); n != 0 {
			r.Errorf("%d timers are left", n)
		}
		r.setState(botOfA, "conversation/"+conv+"/a", `{"payload":{},"expiry":1000}`)
		r.setState(botOfA, "user/"+user+"/b", `{"payload":{},"expiry":1000}`)
		r.ok(chatOfA, "DELETE", "/v1/chat/conversations/"+conv, "", "")
		r.ok(chatOfA, "DELETE", "/v1/chat/users/"+user, "", "")
		r.sweep()
		if n := r.count("SELECT count(*) FROM timers") + r.count("SELECT count(*) FROM states"); n != 0 {
			r.Errorf("%d timers and states are left of what was deleted", n)
		}
		c.forward(time.Hour)
		if n := r.count("SELECT count(*) FROM events"); n != 0 {
			r.Errorf("%d events", n)
		}
	})
}

// A state of which the server did not see the end expires once at the next start.
func TestStateExpiresAfterARestart(t *testing.T) {
	each(t, func(r *rig) {
		c := r.calendar()
		r.setState(botOfA, "bot/"+botA+"/session", `{"payload":{"n":1},"expiry":1000}`)
		c.ahead.Add(int64(time.Hour))
		// Another engine on the same database, as after a restart.
		r.s.Timers = timer.New(timer.Config{DB: r.s.DB, Now: c.now})
		r.s.handleStateTimers()
		c.fire()
		c.fire()
		r.await(1)
		r.idle()
		if n := r.count("SELECT count(*) FROM events"); n != 1 {
			r.Errorf("%d events, want 1", n)
		}
	})
}

// Whoever writes while the state expires either keeps it or makes a new one;
// nothing is lost and no two transactions wait for each other.
func TestWritesRaceWithExpiry(t *testing.T) {
	each(t, func(r *rig) {
		c := r.calendar()
		at := "bot/" + botA + "/session"
		for i := range 20 {
			r.setState(botOfA, at, `{"payload":{"n":0},"expiry":1000}`)
			c.ahead.Add(int64(time.Second))
			var g sync.WaitGroup
			g.Go(c.fire)
			for n := range 4 {
				g.Go(func() { r.setState(botOfA, at, fmt.Sprintf(`{"payload":{"n":%d}}`, n+1)) })
			}
			g.Go(func() {
				if status, out := r.do(botOfA, "PATCH", statePath+at, `{"payload":{"p":1}}`); status != 200 && status != 404 {
					r.Errorf("patchState: %d %v", status, out)
				}
			})
			g.Wait()
			if got := r.ok(botOfA, "GET", statePath+at, "", "state"); got["payload"].(map[string]any)["n"] == 0.0 {
				r.Errorf("round %d: a write was lost: %v", i, got)
			}
			if n := r.count("SELECT count(*) FROM states"); n != 1 {
				r.Fatalf("%d states, want 1", n)
			}
		}
		expired := r.count("SELECT count(*) FROM events")
		r.await(expired)
		r.idle()
	})
}

// A firing gives way to a request that holds the state, and comes back.
func TestExpiryWaitsForNobody(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
		r := newRig(t, a)
		c := r.calendar()
		r.setState(botOfA, "bot/"+botA+"/session", `{"payload":{},"expiry":1000}`)
		c.ahead.Add(int64(time.Second))
		held, release := make(chan struct{}), make(chan struct{})
		var g sync.WaitGroup
		g.Go(func() {
			if err := b.Write(t.Context(), func(tx *sqldb.Tx) error {
				_, err := oneState(tx, "WHERE name = 'session' {for_update}")
				close(held)
				<-release
				return err
			}); err != nil {
				t.Error(err)
			}
		})
		<-held
		before := c.now()
		c.fire()
		if !r.hasState("session") || r.count("SELECT count(*) FROM timers WHERE due > $1", before.Add(busyWait).UnixMilli()) != 1 {
			t.Error("the firing did not put itself off")
		}
		close(release)
		g.Wait()
		c.forward(time.Second)
		if r.await(1); r.hasState("session") {
			t.Error("it did not expire")
		}
	})
}

func TestDeclaredStates(t *testing.T) {
	each(t, func(r *rig) {
		c := r.calendar()
		conv := r.conversation(chatOfA, "channel", `{}`)
		number := func(payload api.Object) error {
			if n := payload.Member("n"); n != nil && n[0] == '"' {
				return fault.InvalidDataFormat.New("payload.n must be a number")
			}
			return nil
		}
		r.declare(&Rules{States: map[string]StateRule{
			"session": {Type: "conversation", Expiry: 1000, Check: number},
			"plain":   {Type: "bot"},
		}})
		at := "conversation/" + conv + "/session"
		for name, k := range map[string]struct{ method, path, body string }{
			"set":        {"POST", at, `{"payload":{"n":"x"}}`},
			"get-or-set": {"POST", at + "/get-or-set", `{"payload":{"n":"x"}}`},
		} {
			if status, out := r.do(botOfA, k.method, statePath+k.path, k.body); status != 400 || out["type"] != "InvalidDataFormat" || !strings.HasPrefix(out["message"].(string), "payload.n ") {
				r.Errorf("%s: %d %v", name, status, out)
			}
		}
		r.setState(botOfA, at, `{"payload":{"n":1}}`)
		if status, out := r.do(botOfA, "PATCH", statePath+at, `{"payload":{"n":"x"}}`); status != 400 || out["type"] != "InvalidDataFormat" {
			r.Errorf("patch: %d %v", status, out)
		}
		r.ok(botOfA, "PATCH", statePath+at, `{"payload":{"n":null,"m":"x"}}`, "state")
		c.forward(time.Second)
		if r.await(1); r.hasState("session") {
			r.Error("the declared expiry does not apply")
		}
		r.setState(botOfA, at, `{"payload":{"n":1},"expiry":null}`)
		r.setState(botOfA, at, `{"payload":{"n":2}}`)
		c.forward(time.Hour)
		if !r.hasState("session") {
			r.Error("the request's null does not win over the declaration")
		}
		r.setState(botOfA, "bot/"+botA+"/plain", `{"payload":{}}`)
		r.declare(&Rules{States: map[string]StateRule{"plain": {Type: "bot", Expiry: 1e300}}})
		r.setState(botOfA, "bot/"+botA+"/plain", `{"payload":{}}`) // what is declared later applies from the next write on
		if due := r.count("SELECT due FROM timers"); int64(due) < c.now().Add(furthest-time.Hour).UnixMilli() {
			r.Errorf("a declared expiry beyond all measure is due at %d", due)
		}
		// States of workflows cannot be declared.
		w := r.workflow(`{"name":"w","status":"listening"}`)
		r.setState(botOfA, "workflow/"+w["id"].(string)+"/any", `{"payload":{},"expiry":1000}`)
	})
}

// Two servers on one database end a state once, and its use on either keeps it.
func TestExpiryOnTwoServers(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
		one, two := newRig(t, a), newRig(t, b)
		c := one.calendar()
		d := two.shares(c.passed)
		var names []string
		for i := range 50 {
			names = append(names, fmt.Sprint("s", i))
			one.setState(botOfA, "bot/"+botA+"/"+names[i], `{"payload":{},"expiry":1000}`)
		}
		c.ahead.Add(int64(time.Second))
		var g sync.WaitGroup
		g.Go(c.fire)
		g.Go(d.fire)
		g.Wait()
		c.fire()
		one.idle()
		two.idle()
		rows, err := column(one.s.DB.Reader(t.Context()), "SELECT payload FROM events WHERE type = 'state_expired'")
		if err != nil || len(rows) != len(names) {
			t.Fatalf("%d events for %d states, %v", len(rows), len(names), err)
		}
		slices.Sort(rows)
		if len(slices.Compact(rows)) != len(names) {
			t.Error("a state expired twice")
		}
	})
}
