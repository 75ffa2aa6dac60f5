package echobot

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/internal/endpoint"
	"parley/internal/fault"
)

// sent keeps what the bot asked for, by key.
type sent struct {
	messages map[string]Message
	calls    map[string]Call
	err      error
}

func newSent() *sent { return &sent{messages: map[string]Message{}, calls: map[string]Call{}} }

func (s *sent) CreateMessage(_ context.Context, key string, m Message) error {
	if s.err == nil {
		s.messages[key] = m
	}
	return s.err
}

func (s *sent) CallAction(_ context.Context, key string, c Call) error {
	if s.err == nil {
		s.calls[key] = c
	}
	return s.err
}

func receive(t *testing.T, s Sender, eventText string) (endpoint.Answer, error) {
	t.Helper()
	h := http.Header{}
	h.Set("X-Bot-Id", "bot_1")
	return New(s).Invoke(t.Context(), endpoint.Operation{Name: "event_received", Header: h, Body: endpoint.EventReceived([]byte(eventText))})
}

const incoming = `{"id":"evt_1","type":"message_created","conversationId":"conv_1","payload":{"user":{"id":"user_1"},"conversation":{"id":"conv_1"},
	"message":{"id":"msg_1","conversationId":"conv_1","userId":"user_1","direction":"incoming","type":"text","payload":{"text":"h\u00e9","metadata":{"a":1}}}}}`

func TestAMessageComesBackAsItWas(t *testing.T) {
	t.Parallel()
	s := newSent()
	for range 2 { // a delivery may come twice
		if a, err := receive(t, s, incoming); err != nil || a.Status != 200 {
			t.Fatalf("answer %d %s, %v", a.Status, a.Body, err)
		}
	}
	want := map[string]Message{"echo:evt_1": {"bot_1", "conv_1", "text", []byte(`{"text":"h\u00e9","metadata":{"a":1}}`)}}
	if d := cmp.Diff(want, s.messages); d != "" {
		t.Error(d)
	}
}

func TestItsOwnWordsAreNotRepeated(t *testing.T) {
	t.Parallel()
	for _, old := range [][2]string{{`"incoming"`, `"outgoing"`}, {`"userId":"user_1"`, `"userId":"bot_1"`}} {
		s := newSent()
		a, err := receive(t, s, strings.Replace(incoming, old[0], old[1], 1))
		if err != nil || a.Status != 200 || len(s.messages) != 0 {
			t.Errorf("%s: answer %d, %v, said %v", old[1], a.Status, err, s.messages)
		}
	}
}

func TestACustomEventComesBackThroughTheSameAlias(t *testing.T) {
	t.Parallel()
	s := newSent()
	a, err := receive(t, s, `{"id":"evt_2","type":"my/chat:custom","payload":{"userId":"user_1","conversationId":"conv_1","payload":{"n":1}}}`)
	if err != nil || a.Status != 200 {
		t.Fatalf("answer %d %s, %v", a.Status, a.Body, err)
	}
	want := map[string]Call{"echo:evt_2": {"bot_1", "my/chat:sendEvent", []byte(`{"conversationId":"conv_1","payload":{"n":1}}`)}}
	if d := cmp.Diff(want, s.calls); d != "" {
		t.Error(d)
	}
}

func TestOtherEventsAndOperations(t *testing.T) {
	t.Parallel()
	s := newSent()
	if a, err := receive(t, s, `{"id":"evt_3","type":"hourly","payload":{}}`); err != nil || a.Status != 200 {
		t.Errorf("an event it does not know: answer %d, %v", a.Status, err)
	}
	if a, err := receive(t, s, `{}`); err != nil || a.Status != 400 {
		t.Errorf("no event: answer %d, %v", a.Status, err)
	}
	for op, want := range map[string]int{"ping": 200, "register": 200, "unregister": 200, "action_triggered": 400} {
		if a, err := New(s).Invoke(t.Context(), endpoint.Operation{Name: op}); err != nil || a.Status != want {
			t.Errorf("%s: answer %d, %v, want %d", op, a.Status, err, want)
		}
	}
	if len(s.messages)+len(s.calls) != 0 {
		t.Errorf("said %v, called %v", s.messages, s.calls)
	}
}

func TestWhatARefusalMeansForTheDelivery(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want endpoint.Class
	}{
		{fault.ReferenceNotFound.New("Conversation \"conv_1\" doesn't exist"), endpoint.Final},
		{fault.RateLimited.New("too many writes are waiting"), endpoint.Unreachable},
		{fault.ResourceLocked.New("the same request is being carried out"), endpoint.Unreachable},
		{fault.Internal.New("An internal error occurred"), endpoint.Failed},
		{errors.New("disk"), endpoint.Failed},
	} {
		s := newSent()
		s.err = c.err
		if got := endpoint.Classify(receive(t, s, incoming)); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}
