package messaging

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/endpoint"
	"parley/internal/id"
	"parley/internal/page"
	"parley/internal/sqldb"
)

// talk is a conversation of acme/hooky in bot A that runs outside, with its user.
type talk struct {
	*rig
	conversation, user string
}

func (r *rig) talk() talk {
	r.Helper()
	return talk{r, r.conversation(hookOfA, "hook", `{}`), r.user(hookOfA, `{}`)}
}

// in and out send a message and return the id of its delivery.
func (t talk) in(text string) string {
	t.Helper()
	return t.delivery("events", t.message(hookOfA, t.conversation, t.user, text)["id"].(string))
}

func (t talk) out(text string) string {
	t.Helper()
	return t.delivery("outbox", t.message(botOfA, t.conversation, botA, text)["id"].(string))
}

func (r *rig) delivery(table, messageID string) string {
	r.Helper()
	found, err := sqldb.Scalar[string](r.s.DB.Reader(r.Context()), "SELECT id FROM "+table+" WHERE message_id = $1", messageID)
	if err != nil {
		r.Fatal(err)
	}
	return found
}

// fails makes the bot and the installations refuse whatever holds the text.
func (r *rig) fails(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handle = func(e map[string]any) error {
		if b, _ := json.Marshal(e); text != "" && strings.Contains(string(b), text) {
			return &endpoint.Error{Class: endpoint.Final, Err: fmt.Errorf("%s is refused", text)}
		}
		return nil
	}
	r.answer = func(op endpoint.Operation) (endpoint.Answer, bool) {
		return endpoint.Answer{Status: 400, Body: []byte(`{"error":"` + text + ` is refused"}`)}, text != "" && strings.Contains(string(op.Body), text)
	}
}

// dies makes dead letters of deliveries that failed.
func (r *rig) dies(ids ...string) {
	r.Helper()
	for _, one := range ids {
		table := map[string]string{"evt": "events", "dlv": "outbox"}[one[:3]]
		r.write(func(tx *sqldb.Tx) error {
			n, err := tx.Exec("UPDATE "+table+" SET dead = TRUE WHERE status = 'failed' AND id = $1", one)
			if n != 1 {
				r.Errorf("delivery %s has not failed", one)
			}
			return err
		})
	}
}

func (r *rig) listed(query string) []string {
	r.Helper()
	return r.pages(botOfA, "/v1/parley/deliveries?"+query, "deliveries", nil)
}

func (r *rig) shown(deliveryID string) map[string]any {
	r.Helper()
	return r.ok(botOfA, "GET", "/v1/parley/deliveries/"+deliveryID, "", "delivery")
}

// history is what reached the bots and the installations, as the texts of messages.
func (r *rig) history() []string {
	r.Helper()
	r.idle()
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, e := range r.got {
		all = append(all, e["payload"].(map[string]any)["message"].(map[string]any)["payload"].(map[string]any)["text"].(string))
	}
	for _, c := range r.calls {
		text, _ := api.Raw(c.op.Body).Member("payload").Member("text").Text()
		all = append(all, "out "+text)
	}
	r.got, r.calls = nil, nil
	return all
}

// newestFirst sorts ids of deliveries as the list does. Those of one millisecond
// stand in any order where they are of different tables.
func newestFirst(ids ...string) []string {
	all := slices.Clone(ids)
	slices.SortFunc(all, func(a, b string) int { return strings.Compare(place(b), place(a)) })
	return append([]string{}, all...)
}

func TestDeliveriesAreListed(t *testing.T) {
	each(t, func(r *rig) {
		r.outside(nil)
		a, b := r.talk(), r.talk()
		chat := r.conversation(chatOfA, "channel", `{}`)
		r.fails("bad")
		var all []string
		for _, make := range []func() string{
			func() string { return a.in("one") }, func() string { return a.out("bad two") }, func() string { return b.out("three") }, func() string { return b.in("bad four") },
			func() string {
				return r.ok(chatOfA, "POST", "/v1/chat/events", `{"type":"custom","payload":{"bad":1},"conversationId":"`+chat+`"}`, "event")["id"].(string)
			},
			func() string { return a.out("six") },
		} {
			all = append(all, make())
		}
		scheduled := r.ok(botOfA, "POST", "/v1/chat/events", `{"type":"later","payload":{},"schedule":{"delay":3600000}}`, "event")["id"].(string)
		r.ok(botOfA, "DELETE", "/v1/chat/events/scheduled/"+r.ok(botOfA, "POST", "/v1/chat/events", `{"type":"never","payload":{},"schedule":{"delay":3600000}}`, "event")["id"].(string), "", "")
		r.idle()
		one, two, three, four, five, six := all[0], all[1], all[2], all[3], all[4], all[5]
		r.dies(two, four)
		created := map[string]string{}
		for _, d := range all {
			created[d] = r.shown(d)["createdAt"].(string)
		}
		from := func(after, before string) []string {
			return slices.DeleteFunc(slices.Clone(all), func(d string) bool { return created[d] < after || before != "" && created[d] > before })
		}
		middle := created[three]
		for query, want := range map[string][]string{
			"":                                      all,
			"status=failed":                         {five, four, two},
			"status=processed":                      {six, three, one},
			"status=pending":                        {},
			"status=ignored":                        {},
			"dead=true":                             {four, two},
			"dead=true&status=failed":               {four, two},
			"dead=false&status=failed":              {five},
			"kind=bot":                              {five, four, one},
			"kind=integration":                      {six, three, two},
			"kind=webhook":                          {},
			"operation=event_received":              {five, four, one},
			"operation=message_created":             {six, three, two},
			"operation=message_updated":             {},
			"kind=bot&operation=signal":             {},
			"installationId=" + hookA:               {six, three, two},
			"installationId=" + chatA:               {},
			"conversationId=" + a.conversation:      {six, two, one},
			"conversationId=" + b.conversation:      {four, three},
			"conversationId=" + id.New("conv"):      {},
			"botId=" + botA + "&status=failed":      {five, four, two},
			"after=" + middle:                       from(middle, ""),
			"before=" + middle:                      from("", middle),
			"after=" + middle + "&before=" + middle: from(middle, middle),
			"after=1970-01-01T00:00:00.000Z":        all,
			"before=1970-01-01T00:00:00.000Z":       {},
			"before=9999-12-31T23:59:59.999Z":       all,
			"conversationId=" + b.conversation + "&kind=bot&status=failed": {four},
		} {
			if diff := cmp.Diff(newestFirst(want...), append([]string{}, r.listed(query)...)); diff != "" {
				r.Errorf("%s (-want +got):\n%s", query, diff)
			}
		}
		if status, out := r.do(botOfA, "GET", "/v1/parley/deliveries/"+scheduled, ""); status != 404 {
			r.Errorf("an event that is scheduled: %d %v", status, out)
		}
		if got := r.pages(botOfB, "/v1/parley/deliveries", "deliveries", nil); len(got) != 0 {
			r.Errorf("bot B sees %v", got)
		}
	})
}

func TestADeliveryIsShownWithItsRequestAndAttempts(t *testing.T) {
	each(t, func(r *rig) {
		r.outside(nil)
		a := r.talk()
		r.fails("bad")
		in, out := a.in("good"), a.out("bad")
		r.idle()
		r.dies(out)
		got := r.shown(in)
		request := got["request"].(map[string]any)
		body := request["body"].(map[string]any)["event"].(map[string]any)
		if got["kind"] != "bot" || got["botId"] != botA || got["operation"] != "event_received" || got["type"] != "message_created" || got["status"] != "processed" || got["failureReason"] != nil ||
			got["conversationId"] != a.conversation || got["userId"] != a.user || got["attemptCount"] != 1.0 || got["dead"] != false || got["pendingAt"] != got["createdAt"] || got["integration"] != nil {
			r.Errorf("the event is %v", got)
		}
		if body["id"] != in || body["payload"].(map[string]any)["message"] == nil {
			r.Errorf("its body is %v", body)
		}
		want := map[string]any{
			"method": "POST", "url": "https://u:xxxxx@bot.example/event_received", "body": request["body"],
			"headers": map[string]any{"webhook-id": in, "x-parley-attempt": "2", "x-bp-configuration": "***"},
		}
		if diff := cmp.Diff(want, request); diff != "" {
			r.Errorf("its request (-want +got):\n%s", diff)
		}
		attempt := got["attempts"].([]any)[0].(map[string]any)
		if _, err := time.Parse(time.RFC3339, attempt["startedAt"].(string)); err != nil || attempt["number"] != 1.0 || attempt["outcome"] != "ok" || attempt["status"] != 200.0 || attempt["response"] != nil {
			r.Errorf("its attempt is %v", attempt)
		}

		got = r.shown(out)
		if got["kind"] != "integration" || got["installationId"] != hookA || got["integration"] != "acme/hooky" || got["operation"] != "message_created" || got["type"] != nil ||
			got["status"] != "failed" || got["dead"] != true || got["failureReason"] != "bad is refused" {
			r.Errorf("the entry is %v", got)
		}
		attempt = got["attempts"].([]any)[0].(map[string]any)
		if diff := cmp.Diff(map[string]any{"body": `{"error":"bad is refused"}`}, attempt["response"]); diff != "" || attempt["status"] != 400.0 || attempt["outcome"] != "final" || attempt["reason"] != "bad is refused" {
			r.Errorf("its attempt is %v %s", attempt, diff)
		}

		message := got["messageId"].(string)
		r.ok(botOfA, "DELETE", "/v1/chat/messages/"+message, "", "")
		if got = r.shown(out); got["request"] != nil || got["noRequest"] != "the message has been deleted" {
			r.Errorf("once its message is deleted it has the request %v, %v", got["request"], got["noRequest"])
		}
		conversation, user := r.conversation(chatOfB, "channel", `{}`), r.user(chatOfB, `{}`)
		lost := r.delivery("events", r.message(chatOfB, conversation, user, "x")["id"].(string))
		if got = r.ok(botOfB, "GET", "/v1/parley/deliveries/"+lost, "", "delivery"); got["request"] != nil || got["noRequest"] != "the bot has no url yet" {
			r.Errorf("for a bot that lives nowhere the request is %v, %v", got["request"], got["noRequest"])
		}
		r.idle()
	})
}

// Both tables are read as one list, whose pages neither repeat nor hide anything
// while more is delivered.
func TestTheListIsMergedAndReadInPages(t *testing.T) {
	each(t, func(r *rig) {
		r.outside(nil)
		a := r.talk()
		var all []string
		for i := range 3*page.Size + 5 {
			if i%3 == 0 {
				all = append(all, a.out("x"))
			} else {
				all = append(all, a.in("x"))
			}
		}
		all = newestFirst(all...)
		for _, query := range []string{"", "?conversationId=" + a.conversation} {
			got := r.pages(botOfA, "/v1/parley/deliveries"+query, "deliveries", func() { a.in("more"); a.out("more") })
			first := slices.DeleteFunc(slices.Clone(got), func(d string) bool { return !slices.Contains(all, d) })
			if diff := cmp.Diff(all, first); diff != "" {
				r.Errorf("%q (-want +got):\n%s", query, diff)
			}
			if seen := slices.Compact(slices.Sorted(slices.Values(got))); len(seen) != len(got) {
				r.Errorf("%q: %d of %d are listed twice", query, len(got)-len(seen), len(got))
			}
		}
		r.idle()
	})
}

// fill inserts deliveries that are over, n of each table.
func (r *rig) fill(n int, status string) {
	r.Helper()
	r.write(func(tx *sqldb.Tx) error {
		for _, text := range []string{
			`INSERT INTO events (id, bot_id, installation_id, type, payload, conversation_id, user_id, message_id, workflow_id, failure_reason, lane, lane_seq, attempts, created_at, status) VALUES `,
			`INSERT INTO outbox (id, bot_id, installation_id, operation, payload, conversation_id, message_id, failure_reason, lane, lane_seq, attempts, created_at, status) VALUES `,
		} {
			for done := 0; done < n; done += 500 {
				w := &sqldb.Where{}
				var rows []string
				for i := done; i < min(n, done+500); i++ {
					if strings.Contains(text, "INTO events") {
						rows = append(rows, "("+w.Arg(id.At("evt", int64(1000+i)))+", "+w.Arg(botA)+", '', 't', '', '', '', '', '', '', 'l', 1, 0, "+w.Arg(1000+i)+", "+w.Arg(status)+")")
					} else {
						rows = append(rows, "("+w.Arg(id.At("dlv", int64(1000+i)))+", "+w.Arg(botA)+", "+w.Arg(hookA)+", 'message_created', '', '', '', '', 'l', 1, 0, "+w.Arg(1000+i)+", "+w.Arg(status)+")")
					}
				}
				if _, err := tx.Exec(text+strings.Join(rows, ", "), w.Args...); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// A filter that fits next to nothing answers in time, with a token that goes on.
func TestARareDeliveryIsLookedForInSteps(t *testing.T) {
	each(t, func(r *rig) {
		r.outside(nil)
		r.fill(maxLooked+2_000, Processed)
		oldest := id.At("dlv", 1)
		r.write(func(tx *sqldb.Tx) error {
			_, err := tx.Exec(`UPDATE outbox SET operation = 'message_updated', created_at = 1, id = $1 WHERE id IN (SELECT id FROM outbox LIMIT 1)`, oldest)
			return err
		})
		out := r.ok(botOfA, "GET", "/v1/parley/deliveries?operation=message_updated", "", "")
		if len(out["deliveries"].([]any)) != 0 || out["meta"].(map[string]any)["nextToken"] == nil {
			r.Errorf("the first page is %v", out)
		}
		if got := r.listed("operation=message_updated"); !slices.Equal(got, []string{oldest}) {
			r.Errorf("found %v", got)
		}
	})
}

func TestWhatIsReplayedComesInPages(t *testing.T) {
	each(t, func(r *rig) {
		r.outside(nil)
		r.fill(maxReplayed, Failed)
		f := &deliveryFilter{caller: r.caller(botOfA), status: Failed}
		first, meta, err := f.over(r.s.DB.Reader(r.Context()), page.Query{})
		if err != nil || len(first) != maxReplayed || meta.NextToken == "" {
			r.Fatalf("%d deliveries, %v, %v", len(first), meta, err)
		}
		rest, meta, err := f.over(r.s.DB.Reader(r.Context()), page.Query{NextToken: meta.NextToken})
		if err != nil || len(rest) != maxReplayed || meta.NextToken != "" {
			r.Fatalf("then %d deliveries, %v, %v", len(rest), meta, err)
		}
		var places []string
		for _, d := range append(first, rest...) {
			places = append(places, place(d.ID))
		}
		if !slices.IsSorted(places) || len(slices.Compact(places)) != 2*maxReplayed {
			r.Error("they are not in their order, or some come twice")
		}
	})
}

func TestBadRequestsAboutDeliveries(t *testing.T) {
	each(t, func(r *rig) {
		r.outside(nil)
		a := r.talk()
		done := a.in("x")
		r.idle()
		const list, replay = "GET /v1/parley/deliveries?", "POST /v1/parley/deliveries/replay "
		unknown := id.New("evt")
		for request, want := range map[string]string{
			list + "botId=x":                          "InvalidPayload The provided UUID is invalid",
			list + "botId=" + id.New("bot"):           "InvalidPayload is not the bot of the header x-bot-id",
			list + "botId=" + botB:                    "InvalidPayload is not the bot of the header x-bot-id",
			list + "status=scheduled":                 "InvalidQuery status",
			list + "kind=user":                        "InvalidQuery kind",
			list + "operation=register":               "InvalidQuery operation",
			list + "installationId=x":                 "InvalidPayload The provided UUID is invalid",
			list + "installationId=" + chatB:          "ReferenceNotFound Installation",
			list + "installationId=" + id.New("inst"): "ReferenceNotFound Installation",
			list + "conversationId=x":                 "InvalidPayload The provided UUID is invalid",
			list + "dead=yes":                         "InvalidQuery dead",
			list + "dead=true&status=processed":       "InvalidQuery status must be failed",
			list + "after=yesterday":                  "InvalidQuery after",
			list + "before=1":                         "InvalidQuery before",
			list + "after=2026-01-02T00:00:00.000Z&before=2026-01-01T00:00:00.000Z": "InvalidQuery after must not be later",
			list + "nextToken=x":                                       "InvalidQuery nextToken",
			list + "limit=5":                                           "InvalidQuery limit",
			"GET /v1/parley/deliveries/x":                              "ResourceNotFound Delivery",
			"GET /v1/parley/deliveries/" + unknown:                     "ResourceNotFound Delivery",
			"GET /v1/parley/deliveries/" + id.New("dlv"):               "ResourceNotFound Delivery",
			"GET /v1/parley/deliveries/" + done + "?botId=x":           "InvalidPayload The provided UUID is invalid",
			"GET /v1/parley/deliveries/" + done + "?of=1":              "InvalidQuery of",
			"POST /v1/parley/deliveries/" + unknown + "/replay {}":     "ResourceNotFound Delivery",
			"POST /v1/parley/deliveries/x/replay {}":                   "ResourceNotFound Delivery",
			"POST /v1/parley/deliveries/" + done + "/replay {\"a\":1}": "InvalidPayload a",
			replay + `{}`: "InvalidPayload after and before, or dead: true",
			replay + `{"after":"2026-01-01T00:00:00.000Z"}`:                                     "InvalidPayload after and before, or dead: true",
			replay + `{"before":"2026-01-01T00:00:00.000Z"}`:                                    "InvalidPayload after and before, or dead: true",
			replay + `{"after":"2026-01-02T00:00:00.000Z","before":"2026-01-01T00:00:00.000Z"}`: "InvalidPayload after must not be later",
			replay + `{"after":"x","before":"2026-01-01T00:00:00.000Z"}`:                        "InvalidPayload after",
			replay + `{"after":1,"before":"2026-01-01T00:00:00.000Z"}`:                          "InvalidPayload after",
			replay + `{"dead":"yes"}`:                                                           "InvalidPayload dead",
			replay + `{"dead":false}`:                                                           "InvalidPayload after and before, or dead: true",
			replay + `{"dead":true,"status":"processed"}`:                                       "InvalidPayload status must be failed",
			replay + `{"dead":true,"status":"pending"}`:                                         "InvalidPayload status",
			replay + `{"dead":true,"kind":"x"}`:                                                 "InvalidPayload kind",
			replay + `{"dead":true,"operation":"x"}`:                                            "InvalidPayload operation",
			replay + `{"dead":true,"installationId":"` + chatB + `"}`:                           "ReferenceNotFound Installation",
			replay + `{"dead":true,"installationId":"x"}`:                                       "InvalidPayload The provided UUID is invalid",
			replay + `{"dead":true,"conversationId":"x"}`:                                       "InvalidPayload The provided UUID is invalid",
			replay + `{"dead":true,"botId":"` + botB + `"}`:                                     "InvalidPayload is not the bot of the header x-bot-id",
			replay + `{"dead":true,"nextToken":"x"}`:                                            "InvalidQuery nextToken",
			replay + `{"dead":true,"all":true}`:                                                 "InvalidPayload all",
		} {
			parts := strings.SplitN(request, " ", 3)
			body := ""
			if len(parts) == 3 {
				body = parts[2]
			}
			_, out := r.do(botOfA, parts[0], parts[1], body)
			kind, says, _ := strings.Cut(want, " ")
			if message, _ := out["message"].(string); out["type"] != kind || !strings.Contains(message, says) {
				r.Errorf("%s: %v %q, want %s", request, out["type"], message, want)
			}
		}
	})
}

// A person may name the bot in the request instead of in a header.
func TestAnOperatorNamesTheBot(t *testing.T) {
	each(t, func(r *rig) {
		r.outside(nil)
		a := r.talk()
		done := a.in("x")
		r.idle()
		for request, want := range map[string]string{
			"ann GET /v1/parley/deliveries?botId=" + botA:                                      "",
			"ann GET /v1/parley/deliveries/" + done + "?botId=" + botA:                         "",
			"ann POST /v1/parley/deliveries/replay {\"dead\":true,\"botId\":\"" + botA + "\"}": "",
			"ann POST /v1/parley/deliveries/" + done + "/replay?botId=" + botA:                 "",
			"ann GET /v1/parley/deliveries":                                                    "InvalidPayload botId is missing",
			"ann GET /v1/parley/deliveries/" + done:                                            "InvalidPayload botId is missing",
			"ann POST /v1/parley/deliveries/" + done + "/replay":                               "InvalidPayload botId is missing",
			"ann POST /v1/parley/deliveries/replay {\"dead\":true}":                            "InvalidPayload botId is missing",
			"ann GET /v1/parley/deliveries?botId=" + id.New("bot"):                             "ReferenceNotFound Bot",
			"ann GET /v1/parley/deliveries/" + done + "?botId=" + botB:                         "ResourceNotFound Delivery",
			"bob GET /v1/parley/deliveries?botId=" + botA:                                      "ReferenceNotFound Bot",
			"bob GET /v1/parley/deliveries/" + done + "?botId=" + botA:                         "ReferenceNotFound Bot",
			"bob POST /v1/parley/deliveries/" + done + "/replay?botId=" + botA:                 "ReferenceNotFound Bot",
		} {
			parts := strings.SplitN(request, " ", 4)
			body := ""
			if len(parts) == 4 {
				body = parts[3]
			}
			status, out := r.do(as{}, parts[1], parts[2], body, "X-Account", parts[0])
			kind, says, _ := strings.Cut(want, " ")
			if message, _ := out["message"].(string); (want == "") != (status == 200) || want != "" && (out["type"] != kind || !strings.Contains(message, says)) {
				r.Errorf("%s: %d %v, want %q", request, status, out, want)
			}
			r.idle()
		}
	})
}

func (r *rig) replay(deliveryID string, headers ...string) map[string]any {
	r.Helper()
	status, out := r.do(botOfA, "POST", "/v1/parley/deliveries/"+deliveryID+"/replay", "", headers...)
	if status != 200 {
		r.Fatalf("replayDelivery answers %d %v", status, out)
	}
	return out["delivery"].(map[string]any)
}

func (r *rig) replayAll(body string, headers ...string) map[string]any {
	r.Helper()
	status, out := r.do(botOfA, "POST", "/v1/parley/deliveries/replay", body, headers...)
	if status != 200 {
		r.Fatalf("replayDeliveries %s answers %d %v", body, status, out)
	}
	return out
}

func TestADeliveryIsReplayed(t *testing.T) {
	each(t, func(r *rig) {
		r.outside(nil)
		a := r.talk()
		r.fails("bad")
		in, out := a.in("bad in"), a.out("bad out")
		a.in("later")
		r.history()
		r.dies(in, out)
		before := r.shown(in)
		r.fails("")
		for _, d := range []string{in, out} {
			got := r.replay(d)
			if got["id"] != d || got["status"] != "pending" || got["dead"] != false || got["failureReason"] != nil || got["attemptCount"] != 1.0 || got["pendingAt"].(string) < before["pendingAt"].(string) {
				r.Errorf("a replayed delivery is %v", got)
			}
		}
		if diff := cmp.Diff([]string{"bad in", "out bad out"}, r.history()); diff != "" {
			r.Errorf("what was told again (-want +got):\n%s", diff)
		}
		for _, d := range []string{in, out} {
			got := r.shown(d)
			attempts := got["attempts"].([]any)
			if got["status"] != "processed" || got["attemptCount"] != 2.0 || len(attempts) != 2 || attempts[0].(map[string]any)["outcome"] != "final" || attempts[1].(map[string]any)["outcome"] != "ok" || got["createdAt"].(string) > before["pendingAt"].(string) && d == in {
				r.Errorf("afterwards it is %v", got)
			}
		}
		if n := r.count("SELECT count(*) FROM events WHERE id = $1 AND tries_before = 1 AND NOT dead", in) + r.count("SELECT count(*) FROM outbox WHERE id = $1 AND tries_before = 1 AND NOT dead AND done_at > 0", out); n != 2 {
			r.Errorf("%d rows count their tries anew, want 2", n)
		}
	})
}

// What is being delivered is not replayed, whoever asks at the same time; a
// request that is repeated under its key has happened once.
func TestWhatIsPendingIsNotReplayed(t *testing.T) {
	each(t, func(r *rig) {
		r.outside(nil)
		a := r.talk()
		in := a.in("x")
		r.history()
		hold, held := make(chan struct{}), make(chan struct{}, 1)
		r.mu.Lock()
		r.handle = func(map[string]any) error {
			held <- struct{}{}
			<-hold
			return nil
		}
		r.mu.Unlock()
		r.replay(in, "Idempotency-Key", "once")
		<-held
		status, out := r.do(botOfA, "POST", "/v1/parley/deliveries/"+in+"/replay", "{}")
		if status != 409 || out["type"] != "ResourceLockedConflict" || !strings.Contains(out["message"].(string), in) {
			r.Errorf("while it is pending: %d %v", status, out)
		}
		if out := r.replayAll(`{"after":"2020-01-01T00:00:00.000Z","before":"2099-01-01T00:00:00.000Z"}`); out["replayed"] != 0.0 {
			r.Errorf("of a range: %v", out)
		}
		if again := r.replay(in, "Idempotency-Key", "once"); again["status"] != "pending" {
			r.Errorf("the repeated request answers %v", again)
		}
		close(hold)
		if got := r.history(); len(got) != 1 {
			r.Errorf("the bot got %v, want one more", got)
		}
		if again := r.replay(in, "Idempotency-Key", "once"); again["status"] != "pending" {
			r.Errorf("the repeated request answers %v", again)
		}
		if got := r.history(); len(got) != 0 {
			r.Errorf("the bot got %v again", got)
		}
	})
}

// A range comes again in the order it had, lane by lane, behind what is waiting.
func TestARangeIsReplayedInOrder(t *testing.T) {
	each(t, func(r *rig) {
		r.outside(nil)
		a, b := r.talk(), r.talk()
		const n = chunk/2 + 20 // more than one transaction
		for i := range n {
			a.in(fmt.Sprint("a", i))
			b.in(fmt.Sprint("b", i))
		}
		a.out("o0")
		b.out("o1")
		r.history()
		first := r.pages(botOfA, "/v1/parley/deliveries?conversationId="+a.conversation+"&kind=bot", "deliveries", nil)
		r.replay(first[len(first)-1]) // a0 goes to the end
		r.history()
		const all = `"after":"2020-01-01T00:00:00.000Z","before":"2099-01-01T00:00:00.000Z"`
		for _, c := range []struct {
			filter string
			want   int
			of     string
		}{
			{``, 2*n + 2, "abo"},
			{`,"kind":"bot"`, 2 * n, "ab"},
			{`,"kind":"integration"`, 2, "o"},
			{`,"kind":"webhook"`, 0, ""},
			{`,"operation":"message_created"`, 2, "o"},
			{`,"installationId":"` + hookA + `"`, 2, "o"},
			{`,"conversationId":"` + b.conversation + `","status":"processed","kind":"bot"`, n, "b"},
			{`,"status":"failed"`, 0, ""},
			{`,"status":"ignored"`, 0, ""},
		} {
			out := r.replayAll("{" + all + c.filter + "}")
			if out["replayed"] != float64(c.want) || len(out["leftOut"].([]any)) != 0 || out["meta"].(map[string]any)["nextToken"] != nil {
				r.Errorf("%s: %v, want %d", c.filter, out, c.want)
			}
			told := map[string][]string{}
			for _, text := range r.history() {
				text = strings.TrimPrefix(text, "out ")
				told[text[:1]] = append(told[text[:1]], text)
			}
			if len(told) != len(c.of) {
				r.Errorf("%s: told of %d kinds, want %q", c.filter, len(told), c.of)
			}
			for kind, texts := range told {
				var want []string
				for i := range n {
					want = append(want, fmt.Sprint(kind, i))
				}
				switch kind {
				case "a":
					want = append(want[1:], want[0])
				case "o":
					want = want[:2]
					slices.Sort(texts) // of two conversations
				}
				if diff := cmp.Diff(want, texts); diff != "" {
					r.Errorf("%s: %s (-want +got):\n%s", c.filter, kind, diff)
				}
			}
		}
	})
}

func TestDeadLettersAreReplayed(t *testing.T) {
	each(t, func(r *rig) {
		r.outside(nil)
		a := r.talk()
		r.fails("bad")
		var dead []string
		for i := range 5 {
			in, out := a.in(fmt.Sprint("bad ", i)), a.out(fmt.Sprint("bad ", i))
			dead = append(dead, in, out)
			a.in("good")
		}
		refused := a.in("bad, and refused")
		r.history()
		r.dies(dead...)
		r.fails("")
		if out := r.replayAll(`{"dead":true}`, "Idempotency-Key", "k"); out["replayed"] != 10.0 {
			r.Errorf("got %v", out)
		}
		if diff := cmp.Diff([]string{"bad 0", "bad 1", "bad 2", "bad 3", "bad 4", "out bad 0", "out bad 1", "out bad 2", "out bad 3", "out bad 4"}, r.history()); diff != "" {
			r.Errorf("told again (-want +got):\n%s", diff)
		}
		if got := r.listed("dead=true"); len(got) != 0 {
			r.Errorf("dead letters are left: %v", got)
		}
		if got := r.shown(refused)["status"]; got != "failed" {
			r.Errorf("what was refused is %v", got)
		}
		r.dies(refused)
		if out := r.replayAll(`{"dead":true}`, "Idempotency-Key", "k"); out["replayed"] != 10.0 {
			r.Errorf("the repeated request answers %v", out)
		}
		if got := r.history(); len(got) != 0 {
			r.Errorf("the repeated request made the bot hear %v", got)
		}
	})
}

// What would reach nobody is not replayed, and the answer says why.
func TestWhatNobodyWantsIsNotReplayed(t *testing.T) {
	each(t, func(r *rig) {
		r.outside(nil)
		a := r.talk()
		out := a.out("x")
		event := r.ok(chatOfA, "POST", "/v1/chat/events", `{"type":"custom","payload":{}}`, "event")["id"].(string)
		r.idle()
		for name, c := range map[string]struct {
			change     func()
			delivery   string
			says, left string
		}{
			"a disabled installation":   {func() { r.outside(func(in *auth.Installation, _ *Rules) { in.Enabled = false }) }, out, "installation " + hookA + " (acme/hooky): the integration is disabled", "the integration is disabled"},
			"a removed installation":    {func() { r.outside(func(in *auth.Installation, _ *Rules) { in.Removed = true }) }, out, "no longer installed", "no longer installed"},
			"one whose webhook is gone": {func() { r.outside(func(in *auth.Installation, _ *Rules) { in.Gone = true }) }, out, "is gone (410); set its URL again with updateBot", "is gone (410)"},
			"an event it does not subscribe to": {func() {
				r.town.mu.Lock()
				defer r.town.mu.Unlock()
				r.town.rules[botA] = &Rules{Subscriptions: map[string]bool{"chat:another": true}}
			}, event, "the bot has not subscribed", "the bot has not subscribed"},
		} {
			c.change()
			status, answer := r.do(botOfA, "POST", "/v1/parley/deliveries/"+c.delivery+"/replay", "")
			if status != 400 || answer["type"] != "InvalidPayload" || !strings.Contains(answer["message"].(string), c.delivery) || !strings.Contains(answer["message"].(string), c.says) {
				r.Errorf("%s: %d %v", name, status, answer)
			}
			answer = r.replayAll(`{"after":"2020-01-01T00:00:00.000Z","before":"2099-01-01T00:00:00.000Z"}`)
			found := false
			for _, l := range answer["leftOut"].([]any) {
				l := l.(map[string]any)
				found = found || l["count"] == 1.0 && strings.Contains(l["reason"].(string), c.left)
			}
			if !found {
				r.Errorf("%s: a range answers %v", name, answer)
			}
			r.idle()
			if got := r.shown(c.delivery)["status"]; got != "processed" {
				r.Errorf("%s: the delivery is %v", name, got)
			}
			r.outside(func(in *auth.Installation, _ *Rules) { in.Enabled, in.Removed, in.Gone = true, false, false })
		}
	})
}

// A workflow that waits for the end of an event waits for the new one when the
// event is replayed in time; one that has gone on does not go on twice.
func TestWorkflowsAndReplays(t *testing.T) {
	each(t, func(r *rig) {
		w := r.workflow(`{"name":"w","status":"listening"}`)["id"].(string)
		e := r.ok(botOfA, "POST", "/v1/chat/events", `{"type":"tick","payload":{}}`, "event")["id"].(string)
		r.idle()
		waits := func() int {
			return r.count("SELECT count(*) FROM timers WHERE kind = $1 AND id = $2", timerEventOver, e)
		}
		bound := make(chan struct{}, 1)
		r.mu.Lock()
		r.handle = func(event map[string]any) error {
			if event["id"] == e {
				r.putWorkflow(w, `{"status":"in_progress","eventId":"`+e+`"}`)
				bound <- struct{}{}
			}
			return nil
		}
		r.mu.Unlock()
		r.replay(e)
		<-bound
		r.idle()
		if waits() != 1 {
			r.Fatal("the end of the event is not noted")
		}
		r.replay(e) // before its end is told of
		r.idle()
		<-bound
		if got := r.getWorkflow(w); waits() != 1 || got["status"] != InProgress {
			r.Errorf("the workflow is %v, and %d wait", got, waits())
		}
		r.wantUpdates()
		r.acts(func(_ string, workflow, _ map[string]any) error {
			r.putWorkflow(workflow["id"], `{"status":"paused"}`)
			return nil
		})
		r.fire()
		r.wantUpdates("workflow_continued w in_progress")

		// It is not bound to the event any more.
		r.replay(e)
		r.fire()
		r.wantUpdates("workflow_continued w in_progress")

		// What tells of a workflow is not told again once it has moved on.
		update := r.pages(botOfA, "/v1/chat/events?type=workflow_update", "events", nil)[0]
		r.replay(update)
		r.fire()
		r.wantUpdates("workflow_continued w in_progress")
		got := r.shown(update)
		if got["status"] != "ignored" || !strings.Contains(got["failureReason"].(string), "the workflow is paused") || !strings.Contains(got["noRequest"].(string), "the workflow is paused") {
			r.Errorf("the event about the workflow is %v", got)
		}
	})
}

// A listening workflow goes on each time the bot has handled an event that was
// made for it.
func TestAnEventForAWorkflowIsReplayed(t *testing.T) {
	each(t, func(r *rig) {
		w := r.workflow(`{"name":"w","status":"listening"}`)["id"].(string)
		e := r.ok(botOfA, "POST", "/v1/chat/events", `{"type":"tick","payload":{},"workflowId":"`+w+`"}`, "event")["id"].(string)
		told := 0
		r.acts(func(_ string, workflow, _ map[string]any) error {
			told++
			r.putWorkflow(workflow["id"], `{"status":"listening"}`)
			return nil
		})
		r.fire()
		r.replay(e)
		r.fire()
		if told != 2 {
			r.Errorf("the workflow went on %d times, want twice", told)
		}
	})
}

// However much a bot has been told, the log reads what an index leads to. SQLite
// has no statistics to correct itself with.
func TestTheLogReadsItsIndexes(t *testing.T) {
	each(t, func(r *rig) {
		dead := true
		for name, c := range map[string]struct {
			filter        deliveryFilter
			event, outbox string
		}{
			"all":             {deliveryFilter{}, "PRIMARY KEY (bot_id=? AND id<?)", "outbox_bot (bot_id=? AND id<?)"},
			"failed":          {deliveryFilter{status: Failed}, "events_status (bot_id=? AND status=? AND id<?)", "outbox_status (bot_id=? AND status=? AND id<?)"},
			"pending":         {deliveryFilter{status: Pending}, "events_status (bot_id=? AND status=? AND id<?)", "outbox_bot (bot_id=? AND id<?)"},
			"dead":            {deliveryFilter{dead: &dead}, "events_status (bot_id=? AND status=? AND id<?)", "outbox_status (bot_id=? AND status=? AND id<?)"},
			"a conversation":  {deliveryFilter{conversationID: "c"}, "events_lane (lane=?)", "outbox_bot (bot_id=? AND id<?)"},
			"failed in there": {deliveryFilter{conversationID: "c", status: Failed}, "events_lane (lane=?)", "outbox_status (bot_id=? AND status=? AND id<?)"},
		} {
			c.filter.caller = r.caller(botOfA)
			w := &deliveryWalk{deliveryFilter: c.filter, at: "0"}
			for _, table := range w.tables() {
				tail, args := w.statement(table, 21)
				rows, err := r.s.DB.Reader(r.Context()).Query("EXPLAIN QUERY PLAN SELECT * FROM "+table.name+" "+tail, args...)
				if err != nil {
					continue // PostgreSQL has its own ways, and statistics
				}
				var plan strings.Builder
				for rows.Next() {
					var line string
					if err := rows.Scan(new(int64), new(int64), new(int64), &line); err != nil {
						r.Fatal(err)
					}
					plan.WriteString(line + "\n")
				}
				if err := rows.Close(); err != nil {
					r.Fatal(err)
				}
				want := map[string]string{"events": c.event, "outbox": c.outbox}[table.name]
				if !strings.Contains(plan.String(), want) || strings.Contains(plan.String(), "SCAN") {
					r.Errorf("%s of %s reads\n%swant %s", name, table.name, plan.String(), want)
				}
			}
		}
	})
}
