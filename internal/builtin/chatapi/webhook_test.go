package chatapi

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/internal/api"
	"parley/internal/endpoint"
	"parley/internal/fault"
	"parley/internal/messaging"
	"parley/internal/outbound"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

// hooks gives the chat of bot A a webhook; what it is told comes out of the channel.
func (r *rig) hooks() <-chan endpoint.Operation {
	told := make(chan endpoint.Operation, 10_000)
	r.hook = func(op endpoint.Operation) endpoint.Answer {
		told <- op
		return endpoint.Answer{Status: http.StatusNoContent}
	}
	r.town.change(chatA, func(in *Installation) { in.Signals = true })
	return told
}

func (r *rig) takeHooked(told <-chan endpoint.Operation, n int) (texts []string) {
	r.Helper()
	if err := r.engine.Idle(r.Context()); err != nil {
		r.Fatal(err)
	}
	for range n {
		select {
		case op := <-told:
			if op.Name != OpSignal || !strings.HasPrefix(op.Subject, "dlv_") || op.Header.Get("X-Parley-Attempt") != "1" {
				r.Errorf("the operation is %+v", op)
			}
			texts = append(texts, string(op.Body))
		default:
			r.Fatalf("%d signals, want %d", len(texts), n)
		}
	}
	if len(told) > 0 {
		r.Errorf("%d signals more than %d", len(told), n)
	}
	return texts
}

// A webhook is told what a listener hears, in its order, whatever happens.
func TestTheWebhookIsToldWhatListenersHear(t *testing.T) {
	each(t, func(r *rig) {
		r.clock.ticks(1_000_000)
		told := r.hooks()
		dice := rand.New(rand.NewPCG(5, 6))
		owner := r.join("owner")
		room := owner.opens("room")
		real := r.real(tag.Conversation, room)
		s := owner.listens(room, "?after=0")
		h := &history{rig: r, dice: dice, owner: owner, room: room, real: real, inside: map[*person]bool{owner: true}}
		for i := range 4 {
			h.guests = append(h.guests, r.join([]string{"", fmt.Sprint("guest", i)}[i%2]))
		}
		for range 150 {
			h.step()
		}
		r.published(chatA, real, deltaOf("s1", 0, "Hel", ""))
		deltas := textsOf(s.take(h.signals + 1))
		r.says(chatA, real, "text", `{"text":"Hello","metadata":{"streamId":"s1"}}`)
		r.published(chatA, real, deltaOf("s2", 0, "Oh", ""))
		live := append(deltas, textsOf(s.take(3))...)
		r.published(chatA, real, `{"type":"abort","streamId":"s2"}`)
		live = append(live, textsOf(s.take(1))...)
		if diff := cmp.Diff(live, r.takeHooked(told, len(live))); diff != "" {
			r.Errorf("the webhook (-listener +webhook):\n%s", diff)
		}
	})
}

// A signal is told of although all it speaks of is gone when its turn comes.
func TestTheWebhookIsToldOfWhatIsGone(t *testing.T) {
	each(t, func(r *rig) {
		told := r.hooks()
		ann := r.join("ann")
		room := ann.opens("")
		c := messaging.Caller{Bot: must(r.town.Bot(r.Context(), chatA.bot)), Rules: &messaging.Rules{}}
		var text string
		r.write(func(tx *sqldb.Tx) error {
			m, err := r.msg.AddMessage(tx, c, messaging.NewMessage{ConversationID: room, UserID: chatA.bot, Type: "text", Payload: []byte(`{"text":"gone"}`)})
			if err != nil {
				return err
			}
			text = m.ID
			return r.msg.DropMessage(tx, c, m.ID)
		})
		ann.ok("DELETE", "/conversations/"+room, "")
		got := r.takeHooked(told, 2)
		for i, typ := range []string{"message_created", "message_deleted"} {
			g := parsed(r, got[i]).(map[string]any)
			if data := g["data"].(map[string]any); g["type"] != typ || data["id"] != text || data["conversationId"] != room {
				r.Errorf("signal %d is %s, want %s", i, got[i], typ)
			}
		}
	})
}

func TestWhoIsToldOfNoSignals(t *testing.T) {
	for name, change := range map[string]func(in *Installation){
		"no webhook":              func(in *Installation) { in.Signals = false },
		"a disabled installation": func(in *Installation) { in.Enabled = false },
		"a removed installation":  func(in *Installation) { in.Removed = true },
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(r *rig) {
				room := r.join("ann").opens("")
				told := r.hooks()
				r.town.change(chatA, change)
				r.says(chatA, room, "text", `{"text":"hi"}`)
				r.takeHooked(told, 0)
				if n := must(sqldb.Scalar[int](r.chat.DB.Reader(r.Context()), "SELECT count(*) FROM outbox")); n != 0 {
					r.Errorf("%d rows in the outbox", n)
				}
			})
		})
	}
}

func TestWebhookEndpoint(t *testing.T) {
	t.Parallel()
	var got *http.Request
	var body []byte
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
	}))
	t.Cleanup(s.Close)
	c := outbound.New(outbound.Config{AllowLoopback: true})
	t.Cleanup(c.Close)
	op := endpoint.Operation{Name: OpSignal, Subject: "dlv_1", Body: []byte(`{"type":"é"}`), Header: http.Header{"X-Parley-Attempt": {"2"}}}
	for _, v := range []struct{ path, secret, wantPath, wantSecret string }{
		{"", "", "/", ""},
		{"/", "s3cret", "/", "s3cret"},
		{"/hook", "two secrets", "/hook/", "two"},
		{"/hook/", "", "/hook/", ""},
		{"/a%2Fb?token=x/y", "", "/a%2Fb/?token=x/y", ""},
	} {
		answer, err := Webhook{s.URL + v.path, v.secret}.Endpoint(c).Invoke(t.Context(), op)
		if err != nil || answer.Status != 200 {
			t.Fatalf("%s: %+v %v", v.path, answer, err)
		}
		if got.Method != "POST" || got.URL.String() != v.wantPath || got.Header.Get("X-Secret-Key") != v.wantSecret || !bytes.Equal(body, op.Body) {
			t.Errorf("%s: %s %s with secret %q and body %s", v.path, got.Method, got.URL, got.Header.Get("X-Secret-Key"), body)
		}
		if got.Header.Get("X-Bp-Operation") != "" || got.Header.Get("X-Parley-Attempt") != "2" || got.Header.Get("Webhook-Id") != "dlv_1" {
			t.Errorf("%s: headers %v", v.path, got.Header)
		}
	}
	if op.Header.Get("X-Secret-Key") != "" {
		t.Error("the operation was changed")
	}
	for name, want := range map[string]endpoint.Class{OpSignal: endpoint.Ignored, "register": endpoint.Final} {
		if a, err := (Webhook{}).Endpoint(c).Invoke(t.Context(), endpoint.Operation{Name: name}); endpoint.Classify(a, err) != want {
			t.Errorf("%s without a webhook: %+v %v, want %v", name, a, err, want)
		}
	}
}

func TestConfigurationsThatNameNoWebhook(t *testing.T) {
	t.Parallel()
	c := outbound.New(outbound.Config{})
	t.Cleanup(c.Close)
	for _, text := range []string{"", "{}", `{"webhookUrl":""}`, `{"webhookUrl":"https://example.com/hook","webhookSecret":"whsec_a whsec_b"}`} {
		if err := CheckConfiguration(c, api.Object(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	for text, member := range map[string]string{
		`{"webhookUrl":"example.com"}`:                          "configuration.webhookUrl",
		`{"webhookUrl":"http://169.254.169.254/"}`:              "configuration.webhookUrl",
		`{"webhookUrl":"https://a.com","webhookSecret":"é"}`:    "configuration.webhookSecret",
		`{"webhookSecret":" s"}`:                                "configuration.webhookSecret",
		`{"webhookSecret":"a\nb"}`:                              "configuration.webhookSecret",
		`{"webhookSecret":"` + strings.Repeat("x", 1001) + `"}`: "configuration.webhookSecret",
	} {
		if err := CheckConfiguration(c, api.Object(text)); !fault.Is(err, fault.InvalidPayload) || !strings.HasPrefix(fault.From(err).Message, member) {
			t.Errorf("%.80s: %v, want a fault about %s", text, err, member)
		}
	}
}
