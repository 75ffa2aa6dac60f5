package messaging

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

// calendar is the time of a rig. It moves when a test says so, and by a
// millisecond when somebody looks at it, so that what happens later has a later
// time: how fast the machine is makes no difference.
type calendar struct {
	*rig
	*passed
}

type passed struct {
	since time.Time
	ahead atomic.Int64
}

// calendar must be called before the rig is asked anything.
func (r *rig) calendar() *calendar { return r.shares(&passed{since: time.Now()}) }

// shares is calendar with the time of another rig.
func (r *rig) shares(p *passed) *calendar {
	c := &calendar{r, p}
	r.s.Now, r.s.Timers.Now = c.now, c.now
	r.s.Log = slog.New(slog.DiscardHandler)
	return c
}

func (p *passed) now() time.Time {
	return p.since.Add(time.Duration(p.ahead.Add(int64(time.Millisecond))))
}

// in is a time from now as clients write it.
func (c *calendar) in(d time.Duration) string { return api.At(c.now().Add(d)).String() }

// forward lets time pass, and what is due happen. What was written before and
// nobody waited for, as the use of a state, is written first.
func (c *calendar) forward(d time.Duration) {
	c.Helper()
	c.settle()
	c.ahead.Add(int64(d))
	c.fire()
}

func (c *calendar) fire() {
	c.Helper()
	if _, err := c.s.Timers.Due(c.Context()); err != nil {
		c.Fatal(err)
	}
}

// event creates an event; more are members of its body.
func (r *rig) event(who as, typ, more string) map[string]any {
	r.Helper()
	return r.ok(who, "POST", "/v1/chat/events", `{"type":"`+typ+`","payload":{"n":1}`+more+`}`, "event")
}

// status of an event.
func (r *rig) status(eventID any) string {
	r.Helper()
	return r.ok(botOfA, "GET", "/v1/chat/events/"+eventID.(string), "", "event")["status"].(string)
}

func TestScheduledEvent(t *testing.T) {
	each(t, func(r *rig) {
		c := r.calendar()
		conv := r.conversation(chatOfA, "channel", `{}`)
		user := r.user(chatOfA, `{}`)
		e := r.event(chatOfA, "custom", `,"conversationId":"`+conv+`","userId":"`+user+`","schedule":{"delay":60000}`)
		other := r.event(botOfA, "tick", `,"schedule":{"dateTime":"`+c.in(time.Hour)+`"}`)
		if e["status"] != "scheduled" || e["failureReason"] != nil || e["conversationId"] != conv {
			r.Errorf("created %v", e)
		}
		r.event(chatOfA, "custom", `,"conversationId":"`+conv+`"`) // it does not wait for the one of before
		r.await(1)
		r.idle()
		c.forward(55 * time.Second)
		if got := r.status(e["id"]); got != "scheduled" {
			r.Errorf("before its time it is %s", got)
		}
		for query, want := range map[string][]any{
			"?status=scheduled":                        {other["id"], e["id"]},
			"?status=scheduled&conversationId=" + conv: {e["id"]},
			"?status=scheduled&type=chat%3Acustom":     {e["id"]},
			"?status=pending":                          nil,
			"?status=processed&conversationId=" + conv: {nil},
			"?conversationId=" + conv:                  {nil, e["id"]},
			"?status=scheduled&userId=" + user:         {e["id"]},
		} {
			got := r.pages(botOfA, "/v1/chat/events"+query, "events", nil)
			if len(got) != len(want) {
				r.Errorf("%q lists %v, want %v", query, got, want)
				continue
			}
			for i, id := range want {
				if id != nil && got[i] != id {
					r.Errorf("%q lists %v, want %v", query, got, want)
				}
			}
		}
		c.forward(5 * time.Second)
		got := r.await(1)[1]
		if got["id"] != e["id"] || got["createdAt"] != e["createdAt"] || got["status"] != "pending" || got["type"] != "chat:custom" || got["conversationId"] != conv {
			r.Errorf("the bot got %v, created was %v", got, e)
		}
		r.idle()
		if got := r.status(e["id"]); got != "processed" {
			r.Errorf("after its time it is %s", got)
		}
		if newest := r.pages(botOfA, "/v1/chat/events?conversationId="+conv, "events", nil); newest[0] != e["id"] {
			r.Errorf("the events of the conversation are %v, want %v first", newest, e["id"])
		}
		c.forward(time.Hour)
		if got := r.await(1)[2]; got["id"] != other["id"] {
			r.Errorf("the bot got %v", got)
		}
		c.forward(24 * time.Hour)
		if n := r.count("SELECT count(*) FROM timers"); n != 0 {
			r.Errorf("%d timers are left", n)
		}
	})
}

func TestScheduledForNowOrBefore(t *testing.T) {
	each(t, func(r *rig) {
		c := r.calendar()
		conv, user := r.conversation(chatOfA, "channel", `{}`), r.user(chatOfA, `{}`)
		for i, schedule := range []string{`{"delay":0}`, `{"dateTime":"1999-12-31T23:59:59.999Z"}`, `{"dateTime":"` + c.in(0) + `"}`, `{"dateTime":"2020-02-29T12:00:00.0+0200"}`} {
			if e := r.event(botOfA, "tick", `,"schedule":`+schedule); e["status"] != "pending" {
				r.Errorf("%s: the event is %v", schedule, e)
			}
			body := strings.Replace(messageBody(conv, user, "x"), `{`, `{"schedule":`+schedule+`,`, 1)
			m := r.ok(chatOfA, "POST", "/v1/chat/messages", body, "message")
			r.ok(chatOfA, "GET", "/v1/chat/messages/"+m["id"].(string), "", "message")
			r.await(2)
			if n := r.count("SELECT count(*) FROM timers"); n != 0 {
				r.Errorf("round %d left %d timers", i, n)
			}
		}
	})
}

func TestBadSchedules(t *testing.T) {
	each(t, func(r *rig) {
		c := r.calendar()
		conv, user := r.conversation(chatOfA, "channel", `{}`), r.user(chatOfA, `{"fid":"u"}`)
		decade := 10 * 365 * 24 * time.Hour
		for schedule, says := range map[string]string{
			`{}`: "schedule must have dateTime or delay",
			`{"dateTime":"` + c.in(time.Hour) + `","delay":1}`: "either dateTime or delay",
			`{"delay":-1}`:      "schedule.delay",
			`{"delay":-0.001}`:  "schedule.delay",
			`{"delay":"60000"}`: "schedule.delay",
			`{"delay":"NaN"}`:   "schedule.delay",
			`{"delay":NaN}`:     "",
			`{"delay":1e400}`:   "schedule.delay",
			`{"delay":1e300}`:   "schedule.delay",
			fmt.Sprintf(`{"delay":%d}`, decade.Milliseconds()+1): "ten years",
			`{"delay":null}`:                                     "schedule",
			`{"delay":true}`:                                     "schedule.delay",
			`{"delay":[1]}`:                                      "schedule.delay",
			`{"delay":{}}`:                                       "schedule.delay",
			`{"dateTime":null}`:                                  "schedule",
			`{"dateTime":1700000000000}`:                         "schedule.dateTime",
			`{"dateTime":""}`:                                    "schedule.dateTime",
			`{"dateTime":"tomorrow at nine o'clock"}`:            "schedule.dateTime",
			`{"dateTime":"2026-13-01T00:00:00.000Z"}`:            "schedule.dateTime",
			`{"dateTime":"2026-02-30T00:00:00.000Z"}`:            "schedule.dateTime",
			`{"dateTime":"2026-01-01T00:00:00"}`:                 "schedule.dateTime",
			`{"dateTime":"2026-01-01 00:00:00.0000"}`:            "schedule.dateTime",
			`{"dateTime":"2126-01-01T00:00:00.000Z"}`:            "ten years",
			`{"dateTime":"` + c.in(decade+time.Hour) + `"}`:      "ten years",
			`{"dateTime":"2026-01-01T00:00:00.000000000+02:00"}`: "schedule.dateTime",
			`{"delay":5,"in":"an hour"}`:                         "in",
			`5`:                                                  "schedule",
			`"5"`:                                                "schedule",
			`[]`:                                                 "schedule",
		} {
			for path, body := range map[string]string{
				"/v1/chat/events":                 `{"type":"custom","payload":{},"schedule":` + schedule + `}`,
				"/v1/chat/messages":               strings.Replace(messageBody(conv, user, "x"), `{`, `{"schedule":`+schedule+`,`, 1),
				"/v1/chat/messages/get-or-create": strings.Replace(strings.Replace(messageBody(conv, user, "x"), `{`, `{"schedule":`+schedule+`,`, 1), `"tags":{}`, `"tags":{"ab":"c"}`, 1),
			} {
				status, out := r.do(chatOfA, "POST", path, body)
				if status != 400 || out["type"] != "InvalidPayload" || !strings.Contains(out["message"].(string), says) {
					r.Errorf("%s %s: got %d %v, want InvalidPayload with %q", path, schedule, status, out, says)
				}
			}
		}
		if n := r.count("SELECT count(*) FROM timers") + r.count("SELECT count(*) FROM events") + r.count("SELECT count(*) FROM scheduled_messages"); n != 0 {
			r.Errorf("bad schedules left %d rows", n)
		}
		if e := r.event(botOfA, "edge", fmt.Sprintf(`,"schedule":{"delay":%d}`, decade.Milliseconds())); e["status"] != "scheduled" {
			r.Errorf("ten years ahead: %v", e)
		}
	})
}

func TestCancelScheduledEvent(t *testing.T) {
	each(t, func(r *rig) {
		c := r.calendar()
		conv := r.conversation(chatOfA, "channel", `{}`)
		theirs := r.event(chatOfA, "custom", `,"conversationId":"`+conv+`","schedule":{"delay":1000}`)["id"].(string)
		own := r.event(botOfA, "tick", `,"schedule":{"delay":1000}`)["id"].(string)
		late := r.event(botOfA, "tick", `,"schedule":{"delay":1000}`)["id"].(string)
		cancel := func(who as, id string) (int, map[string]any) {
			return r.do(who, "DELETE", "/v1/chat/events/scheduled/"+id, "")
		}
		for _, k := range []struct {
			who as
			id  string
		}{{botOfB, own}, {botOfB, theirs}, {hookOfA, theirs}, {chatOfA, own}, {chatOfB, theirs}, {botOfA, "evt_unknown"}, {botOfA, "x%20y"}, {botOfA, conv}} {
			if status, out := cancel(k.who, k.id); status != 404 || out["type"] != "ResourceNotFound" {
				r.Errorf("%v cancels %s: %d %v", k.who, k.id, status, out)
			}
		}
		for range 2 { // a repeated request gets the same answer
			for who, id := range map[as]string{chatOfA: theirs, botOfA: own} {
				if status, out := cancel(who, id); status != 200 || len(out) != 0 {
					r.Errorf("cancel: %d %v", status, out)
				}
			}
		}
		c.forward(time.Minute)
		if got := r.await(1); got[0]["id"] != late {
			r.Errorf("the bot got %v", got)
		}
		r.idle()
		for id, want := range map[string]string{theirs: "canceled", own: "canceled", late: "processed"} {
			if got := r.status(id); got != want {
				r.Errorf("%s is %s, want %s", id, got, want)
			}
		}
		status, out := cancel(botOfA, late)
		if status != 404 || out["type"] != "ResourceNotFound" || !strings.Contains(out["message"].(string), "processed") {
			r.Errorf("cancel what has been processed: %d %v", status, out)
		}
		if got := r.pages(botOfA, "/v1/chat/events?status=scheduled", "events", nil); got != nil {
			r.Errorf("scheduled are still %v", got)
		}
	})
}

// An event that is canceled while it fires is either canceled or delivered.
func TestCancelRacesWithFiring(t *testing.T) {
	each(t, func(r *rig) {
		c := r.calendar()
		const n = 40
		conv := r.conversation(chatOfA, "channel", `{}`)
		var ids [n]string
		for i := range ids {
			more := `,"schedule":{"delay":1000}`
			if i%2 == 0 {
				more += `,"conversationId":"` + conv + `"`
			}
			ids[i] = r.event(chatOfA, "custom", more)["id"].(string)
		}
		c.ahead.Add(int64(time.Second))
		var g sync.WaitGroup
		var canceled [n]bool
		g.Go(c.fire)
		for i := n - 1; i >= 0; i-- {
			g.Go(func() {
				status, out := r.do(chatOfA, "DELETE", "/v1/chat/events/scheduled/"+ids[i], "")
				if canceled[i] = status == 200; status != 200 && status != 404 {
					r.Errorf("cancel: %d %v", status, out)
				}
			})
		}
		g.Wait()
		fired := n
		for _, was := range canceled {
			if was {
				fired--
			}
		}
		got := r.await(fired)
		r.idle()
		for i, was := range canceled {
			delivered := slices.ContainsFunc(got, func(e map[string]any) bool { return e["id"] == ids[i] })
			if want := map[bool]string{true: "canceled", false: "processed"}[was]; r.status(ids[i]) != want || delivered == was {
				r.Errorf("canceled %v, delivered %v, status %s", was, delivered, r.status(ids[i]))
			}
		}
	})
}

func TestScheduledEventOfADeletedConversation(t *testing.T) {
	each(t, func(r *rig) {
		c := r.calendar()
		conv, other := r.conversation(chatOfA, "channel", `{}`), r.conversation(chatOfA, "channel", `{}`)
		fired := r.event(chatOfA, "custom", `,"conversationId":"`+conv+`","schedule":{"delay":1000}`)["id"]
		for range 3 {
			r.event(chatOfA, "custom", `,"conversationId":"`+other+`","schedule":{"delay":100000}`)
		}
		r.ok(chatOfA, "DELETE", "/v1/chat/conversations/"+conv, "", "")
		c.forward(time.Second) // before the sweeper comes
		e := r.ok(botOfA, "GET", "/v1/chat/events/"+fired.(string), "", "event")
		if e["status"] != "ignored" || !strings.Contains(e["failureReason"].(string), "deleted") {
			r.Errorf("the event is %v", e)
		}
		r.ok(chatOfA, "DELETE", "/v1/chat/conversations/"+other, "", "")
		r.sweep()
		if n := r.count("SELECT count(*) FROM timers") + r.count("SELECT count(*) FROM events") + r.count("SELECT count(*) FROM lanes"); n != 0 {
			r.Errorf("%d rows are left", n)
		}
	})
}

// How long a bot may be away counts from the time the event was for.
func TestPatienceBeginsWhenAScheduledEventFires(t *testing.T) {
	each(t, func(r *rig) {
		c := r.calendar()
		e := r.event(botOfA, "tick", `,"schedule":{"delay":864000000}`) // ten days
		fired := c.now().Add(240 * time.Hour)
		// Nobody delivers it yet: its lane is somebody else's.
		lane := "evt:" + e["id"].(string)
		r.write(func(tx *sqldb.Tx) error {
			_, err := tx.Exec(`INSERT INTO lanes (key, endpoint, seq, done, ephemeral, due, lease_until, owner) VALUES ($1, $2, 1, 0, TRUE, 0, $3, 'else')`, lane, "bot:"+botA, fired.Add(time.Hour).UnixMilli())
			return err
		})
		c.forward(240 * time.Hour)
		w, err := Source{r.s}.Next(r.Context(), lane, 0)
		if err != nil || w == nil || w.CreatedAt < fired.UnixMilli() {
			r.Errorf("the work is %+v, %v; want it to begin at %d", w, err, fired.UnixMilli())
		}
	})
}

// scheduled posts a message that is to be made.
func (r *rig) scheduled(who as, conversation, user, text, schedule string) map[string]any {
	r.Helper()
	body := strings.Replace(messageBody(conversation, user, text), `{`, `{"schedule":`+schedule+`,`, 1)
	return r.ok(who, "POST", "/v1/chat/messages", body, "message")
}

func TestScheduledMessage(t *testing.T) {
	each(t, func(r *rig) {
		c := r.calendar()
		conv, user := r.conversation(chatOfA, "channel", `{}`), r.user(chatOfA, `{"fid":"u"}`)
		due := c.in(time.Minute)
		in := r.scheduled(chatOfA, conv, user, "later", `{"dateTime":"`+due+`"}`)
		out := r.scheduled(botOfA, conv, botA, "even later", `{"delay":120000}`)
		if in["createdAt"] != due || in["direction"] != "incoming" || out["direction"] != "outgoing" || in["conversationId"] != conv {
			r.Errorf("promised %v and %v", in, out)
		}
		for _, id := range []any{in["id"], out["id"]} {
			for _, method := range []string{"GET", "PUT"} {
				if status, _ := r.do(chatOfA, method, "/v1/chat/messages/"+id.(string), `{"tags":{}}`); status != 404 {
					r.Errorf("%s before its time: %d", method, status)
				}
			}
		}
		now := r.message(chatOfA, conv, user, "now")
		r.await(1)
		if got := r.pages(botOfA, "/v1/chat/messages?conversationId="+conv, "messages", nil); !slices.Equal(got, []string{now["id"].(string)}) {
			r.Errorf("before its time there are %v", got)
		}
		c.forward(time.Minute)
		event := r.await(1)[1]
		if event["type"] != "message_created" || event["messageId"] != in["id"] {
			r.Errorf("the bot got %v", event)
		}
		made := r.ok(chatOfA, "GET", "/v1/chat/messages/"+in["id"].(string), "", "message")
		if made["createdAt"].(string) < due {
			r.Errorf("made at %v, due at %v", made["createdAt"], due)
		}
		made["createdAt"], made["updatedAt"] = in["createdAt"], in["updatedAt"]
		if diff := cmp.Diff(in, made); diff != "" {
			r.Errorf("what was made is not what was promised: %s", diff)
		}
		c.forward(time.Minute)
		want := []string{out["id"].(string), in["id"].(string), now["id"].(string)}
		for _, query := range []string{"?conversationId=" + conv, ""} {
			if got := r.pages(botOfA, "/v1/chat/messages"+query, "messages", nil); !slices.Equal(got, want) {
				r.Errorf("%q lists %v, want %v", query, got, want)
			}
		}
		r.mu.Lock()
		var told []string
		for _, g := range r.signals {
			if g.Type == MessageCreated {
				told = append(told, g.Message.ID)
			}
		}
		r.mu.Unlock()
		slices.Reverse(told)
		if !slices.Equal(told, want) {
			r.Errorf("listeners were told of %v, want %v", told, want)
		}
		if n := r.count("SELECT message_seq FROM conversation_heads"); n != 3 {
			r.Errorf("message_seq is %d, want 3", n)
		}
		r.nothingAhead()
	})
}

// nothingAhead checks that nothing is left of what was scheduled.
func (r *rig) nothingAhead() {
	r.Helper()
	for _, query := range []string{"timers", "scheduled_messages", "tags WHERE kind = '" + tagScheduled + "'"} {
		if n := r.count("SELECT count(*) FROM " + query); n != 0 {
			r.Errorf("%d rows are left in %s", n, query)
		}
	}
}

func TestGetOrCreateScheduledMessage(t *testing.T) {
	each(t, func(r *rig) {
		c := r.calendar()
		conv, other := r.conversation(chatOfA, "channel", `{"fid":"a"}`), r.conversation(chatOfA, "channel", `{"fid":"b"}`)
		user := r.user(chatOfA, `{"fid":"u"}`)
		get := func(conv, tags, more string) map[string]any {
			body := fmt.Sprintf(`{"conversationId":%q,"userId":%q,"type":"text","payload":{"text":"x"},"tags":%s%s}`, conv, user, tags, more)
			return r.ok(chatOfA, "POST", "/v1/chat/messages/get-or-create", body, "message")
		}
		const later = `,"schedule":{"delay":60000}`
		first := get(conv, `{"key":"1","more":"x"}`, later)
		for name, same := range map[string]map[string]any{
			"scheduled too":    get(conv, `{"key":"1","more":"x"}`, later),
			"scheduled later":  get(conv, `{"key":"1","more":"x"}`, `,"schedule":{"delay":90000}`),
			"not scheduled":    get(conv, `{"key":"1","more":"x"}`, ""),
			"some of the tags": get(conv, `{"key":"1","more":"y"}`, `,"discriminateByTags":["key"]`+later),
			"only one of them": get(conv, `{"key":"1"}`, `,"discriminateByTags":["key"]`),
		} {
			if diff := cmp.Diff(first, same); diff != "" {
				r.Errorf("%s: %s", name, diff)
			}
		}
		second, third := get(conv, `{"key":"1"}`, later), get(other, `{"key":"1","more":"x"}`, later)
		if second["id"] == first["id"] || third["id"] == first["id"] {
			r.Errorf("other tags or another conversation found the same promise: %v %v %v", first, second, third)
		}
		c.forward(time.Minute)
		r.await(3)
		for name, same := range map[string]map[string]any{
			"whole": get(conv, `{"key":"1","more":"x"}`, later), "unscheduled": get(conv, `{"key":"1","more":"x"}`, ""),
		} {
			if same["id"] != first["id"] || same["createdAt"].(string) < first["createdAt"].(string) {
				r.Errorf("%s: once it is made get-or-create gives %v, want %v", name, same["id"], first["id"])
			}
		}
		tagged := r.pages(chatOfA, "/v1/chat/messages?conversationId="+conv+"&tags.key=1", "messages", nil)
		if len(tagged) != 2 {
			r.Errorf("found by their tag are %v", tagged)
		}
		r.nothingAhead()
	})
}

// Requests that race make one promise, and one message.
func TestGetOrCreateScheduledMessageRaces(t *testing.T) {
	each(t, func(r *rig) {
		c := r.calendar()
		conv, user := r.conversation(chatOfA, "channel", `{}`), r.user(chatOfA, `{}`)
		body := strings.Replace(strings.Replace(messageBody(conv, user, "x"), `{`, `{"schedule":{"delay":60000},`, 1), `"tags":{}`, `"tags":{"key":"1"}`, 1)
		var g sync.WaitGroup
		var ids sync.Map
		ask := func() {
			ids.Store(r.ok(chatOfA, "POST", "/v1/chat/messages/get-or-create", body, "message")["id"], true)
		}
		for range 20 {
			g.Go(ask)
		}
		g.Wait()
		c.ahead.Add(int64(time.Minute))
		g.Go(c.fire)
		for range 20 {
			g.Go(ask)
		}
		g.Wait()
		n := 0
		ids.Range(func(any, any) bool { n++; return true })
		if n != 1 {
			r.Errorf("racing requests got %d messages, want 1", n)
		}
		r.await(1)
	})
}

func TestCancelScheduledMessage(t *testing.T) {
	each(t, func(r *rig) {
		c := r.calendar()
		conv, user := r.conversation(chatOfA, "channel", `{}`), r.user(chatOfA, `{}`)
		m := r.scheduled(chatOfA, conv, user, "x", `{"delay":1000}`)["id"].(string)
		for _, who := range []as{botOfB, chatOfB, hookOfA} {
			if status, _ := r.do(who, "DELETE", "/v1/chat/messages/"+m, ""); status != 404 {
				r.Errorf("%v deletes the promise: %d", who, status)
			}
		}
		if status, _ := r.do(botOfA, "DELETE", "/v1/chat/events/scheduled/"+m, ""); status != 404 {
			r.Errorf("a message is canceled as an event: %d", status)
		}
		r.ok(chatOfA, "DELETE", "/v1/chat/messages/"+m, "", "")
		if status, _ := r.do(chatOfA, "DELETE", "/v1/chat/messages/"+m, ""); status != 404 {
			r.Errorf("deleted again: %d", status)
		}
		c.forward(time.Minute)
		if got := r.pages(botOfA, "/v1/chat/messages", "messages", nil); got != nil {
			r.Errorf("made all the same: %v", got)
		}
		r.nothingAhead()

		// While it fires it is either never made, or made and deleted.
		for range 20 {
			m := r.scheduled(chatOfA, conv, user, "x", `{"delay":1000}`)["id"].(string)
			c.ahead.Add(int64(time.Second))
			var g sync.WaitGroup
			g.Go(c.fire)
			g.Go(func() { r.ok(chatOfA, "DELETE", "/v1/chat/messages/"+m, "", "") })
			g.Wait()
		}
		if got := r.pages(botOfA, "/v1/chat/messages", "messages", nil); got != nil {
			r.Errorf("deleted while they fired, and there all the same: %v", got)
		}
		r.nothingAhead()
	})
}

// A scheduled message whose conversation, author or maker is gone by its time is
// not made, and leaves no gap in the numbers of the messages.
func TestScheduledMessageWithoutGround(t *testing.T) {
	change := func(fn func(in *auth.Installation)) func(r *rig, conv, user string) {
		return func(r *rig, _, _ string) {
			r.outside(func(in *auth.Installation, _ *Rules) { fn(in) })
		}
	}
	for name, ruin := range map[string]func(r *rig, conv, user string){
		"conversation deleted": func(r *rig, conv, _ string) { r.ok(hookOfA, "DELETE", "/v1/chat/conversations/"+conv, "", "") },
		"conversation swept": func(r *rig, conv, _ string) {
			r.ok(hookOfA, "DELETE", "/v1/chat/conversations/"+conv, "", "")
			r.sweep()
		},
		"author deleted":         func(r *rig, _, user string) { r.ok(hookOfA, "DELETE", "/v1/chat/users/"+user, "", "") },
		"installation removed":   change(func(in *auth.Installation) { in.Removed = true }),
		"installation disabled":  change(func(in *auth.Installation) { in.Enabled = false }),
		"installation forgotten": change(func(in *auth.Installation) { in.ID = "another" }),
		"bot deleted": func(r *rig, _, _ string) {
			r.town.mu.Lock()
			defer r.town.mu.Unlock()
			delete(r.town.bots, botA)
		},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(r *rig) {
				c := r.calendar()
				conv, user := r.conversation(hookOfA, "hook", `{}`), r.user(hookOfA, `{}`)
				r.scheduled(hookOfA, conv, user, "x", `{"delay":1000}`)
				ruin(r, conv, user)
				c.forward(time.Second)
				if n := r.count("SELECT count(*) FROM messages") + r.count("SELECT count(*) FROM events"); n != 0 {
					r.Errorf("it was made all the same: %d rows", n)
				}
				if n := r.count("SELECT coalesce(sum(message_seq), 0) FROM conversation_heads"); n != 0 {
					r.Errorf("message_seq is %d", n)
				}
				r.nothingAhead()
			})
		})
	}
}

// What is scheduled for a conversation happens in the order of its times, also
// when all of it is late.
func TestScheduledThingsOfAConversationKeepTheirOrder(t *testing.T) {
	each(t, func(r *rig) {
		c := r.calendar()
		conv, user := r.conversation(chatOfA, "channel", `{}`), r.user(chatOfA, `{}`)
		const n = 30
		want := make([]any, n)
		for i := n - 1; i >= 0; i-- {
			schedule := fmt.Sprintf(`{"delay":%d}`, 1000*(i+1))
			if i%2 == 0 {
				want[i] = r.scheduled(chatOfA, conv, user, "x", schedule)["id"]
				continue
			}
			want[i] = r.event(chatOfA, "custom", `,"conversationId":"`+conv+`","schedule":`+schedule)["id"]
		}
		c.forward(time.Hour)
		for i, e := range r.await(n) {
			got := e["id"]
			if e["messageId"] != nil {
				got = e["messageId"]
			}
			if got != want[i] {
				r.Fatalf("number %d is %v, want %v", i, got, want[i])
			}
		}
	})
}

func TestDeletedConversationTakesWhatIsAhead(t *testing.T) {
	each(t, func(r *rig) {
		r.calendar()
		conv, user := r.conversation(chatOfA, "channel", `{}`), r.user(chatOfA, `{}`)
		for range 5 {
			r.scheduled(chatOfA, conv, user, "x", `{"delay":1000}`)
		}
		kept := r.conversation(chatOfA, "channel", `{}`)
		r.scheduled(chatOfA, kept, user, "x", `{"delay":1000}`)
		r.ok(chatOfA, "DELETE", "/v1/chat/conversations/"+conv, "", "")
		r.sweep()
		if a, b := r.count("SELECT count(*) FROM timers"), r.count("SELECT count(*) FROM scheduled_messages"); a != 1 || b != 1 {
			r.Errorf("%d timers and %d messages are ahead, want the one of the other conversation", a, b)
		}
	})
}

// Tags are checked when a message is scheduled; what is declared later does not
// keep it from being made.
func TestScheduledMessageKeepsItsTags(t *testing.T) {
	each(t, func(r *rig) {
		c := r.calendar()
		conv, user := r.conversation(hookOfA, "hook", `{}`), r.user(hookOfA, `{}`)
		body := strings.Replace(strings.Replace(messageBody(conv, user, "x"), `{`, `{"schedule":{"delay":1000},`, 1), `"tags":{}`, `"tags":{"key":"1"}`, 1)
		m := r.ok(hookOfA, "POST", "/v1/chat/messages", body, "message")
		r.outside(func(_ *auth.Installation, rules *Rules) {
			rules.Tags = map[string]map[string]int{tag.Message: {"another": 10}}
		})
		c.forward(time.Second)
		made := r.ok(botOfA, "GET", "/v1/chat/messages/"+m["id"].(string), "", "message")
		if diff := cmp.Diff(map[string]any{"acme/hooky:key": "1"}, made["tags"]); diff != "" {
			r.Error(diff)
		}
	})
}

// The cancellation of an event is its end for the workflow that is bound to it,
// and nothing for one that listens.
func TestCanceledEventOfAWorkflow(t *testing.T) {
	each(t, func(r *rig) {
		c := r.calendar()
		r.acts(func(_ string, w, _ map[string]any) error {
			r.putWorkflow(w["id"], `{"status":"paused"}`)
			return nil
		})
		listening := r.workflow(`{"name":"listens","status":"listening"}`)
		e := r.event(botOfA, "answer", fmt.Sprintf(`,"workflowId":%q,"schedule":{"delay":60000}`, listening["id"]))
		r.workflow(fmt.Sprintf(`{"name":"bound","status":"in_progress","eventId":%q}`, e["id"]))
		r.ok(botOfA, "DELETE", "/v1/chat/events/scheduled/"+e["id"].(string), "", "")
		c.rig.fire()
		r.wantUpdates("workflow_continued bound in_progress")
		if got := r.getWorkflow(listening["id"])["status"]; got != "listening" {
			r.Errorf("the one that listens is %v", got)
		}
		again := r.event(botOfA, "answer", fmt.Sprintf(`,"workflowId":%q,"schedule":{"delay":60000}`, listening["id"]))
		c.forward(time.Minute)
		c.rig.fire()
		r.wantUpdates("workflow_continued bound in_progress", "workflow_continued listens in_progress")
		if got := r.status(again["id"]); got != "processed" {
			r.Errorf("the event is %s", got)
		}
	})
}

// Whether anybody wants to hear of a scheduled event is decided at its time.
func TestScheduledEventNobodyWants(t *testing.T) {
	gone := func(fn func(in *auth.Installation)) func(r *rig) {
		return func(r *rig) { r.outside(func(in *auth.Installation, _ *Rules) { fn(in) }) }
	}
	for name, c := range map[string]struct {
		change func(r *rig)
		reason string
	}{
		"not subscribed to":      {func(r *rig) { r.subscribe("chat:custom") }, unsubscribed},
		"installation removed":   {gone(func(in *auth.Installation) { in.Removed = true }), "no longer installed"},
		"installation disabled":  {gone(func(in *auth.Installation) { in.Enabled = false }), "no longer installed"},
		"installation forgotten": {gone(func(in *auth.Installation) { in.ID = "another" }), "no longer installed"},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(r *rig) {
				cal := r.calendar()
				conv := r.conversation(hookOfA, "hook", `{}`)
				later := r.event(hookOfA, "received", `,"conversationId":"`+conv+`","schedule":{"delay":1000}`)
				if later["status"] != "scheduled" {
					r.Errorf("created %v", later)
				}
				c.change(r)
				cal.forward(time.Second)
				e := r.ok(botOfA, "GET", "/v1/chat/events/"+later["id"].(string), "", "event")
				if e["status"] != "ignored" || !strings.Contains(fmt.Sprint(e["failureReason"]), c.reason) {
					r.Errorf("the event is %v", e)
				}
			})
		})
	}
}
