package endpoint

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"parley/internal/fault"
	"parley/internal/outbound"
)

func TestBodies(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		string(EventReceived([]byte(`{"id":"evt_1"}`))):             `{"event":{"id":"evt_1"}}`,
		string(ActionTriggered("plugin#do", []byte(`{"a":[1,2]}`))): `{"type":"plugin#do","input":{"a":[1,2]}}`,
		string(ActionTriggered(`dø "it"`, nil)):                     `{"type":"d\u00f8 \"it\"","input":{}}`,
		string(Ping()):                                              `{}`,
		string(Register("")):                                        `{}`,
		string(Register("http://127.0.0.1:7400/w")):                 `{"webhookUrl":"http://127.0.0.1:7400/w"}`,
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if !json.Valid([]byte(got)) {
			t.Errorf("%s is not JSON", got)
		}
	}
}

func TestActionOutput(t *testing.T) {
	t.Parallel()
	huge := `{"output":{"a":"` + strings.Repeat("x", MaxOutput) + `"}}`
	for name, c := range map[string]struct {
		answer Answer
		err    error
		want   string
		kind   *fault.Kind
		text   string
	}{
		"an output":              {answer: Answer{Status: 200, Body: []byte(`{"output":{"a":"é","a":1}, "meta":{"cost":0}}`)}, want: `{"a":"é","a":1}`},
		"none":                   {answer: Answer{Status: 200, Body: []byte(`{}`)}, want: `{}`},
		"null":                   {answer: Answer{Status: 200, Body: []byte(`{"output":null}`)}, want: `{}`},
		"an array":               {answer: Answer{Status: 200, Body: []byte(`{"output":[1]}`)}, kind: fault.Runtime, text: "not an object"},
		"not JSON":               {answer: Answer{Status: 200, Body: []byte(`<html>`)}, kind: fault.Runtime, text: "not valid JSON"},
		"cut JSON":               {answer: Answer{Status: 200, Body: []byte(`{"output":{"a":`)}, kind: fault.Runtime, text: "not valid JSON"},
		"no body":                {answer: Answer{Status: 200}, kind: fault.Runtime, text: "not valid JSON"},
		"an array for an answer": {answer: Answer{Status: 200, Body: []byte(`[]`)}, kind: fault.Runtime, text: "not valid JSON"},
		"deep JSON":              {answer: Answer{Status: 200, Body: []byte(`{"output":` + strings.Repeat(`{"a":`, 200_000))}, kind: fault.Runtime, text: "not valid JSON"},
		"too much":               {answer: Answer{Status: 200, Body: []byte(huge)}, kind: fault.LimitExceeded, text: "larger than 1048576"},
		"an error of the author": {answer: Answer{Status: 400, Body: []byte(`{"id":"err_1","code":400,"type":"Runtime","message":"the key is wrong"}`)}, kind: fault.Runtime, text: "the key is wrong"},
		"an invalid input":       {answer: Answer{Status: 400, Body: []byte(`{"id":"err_1","code":400,"type":"InvalidPayload","message":"a is required"}`)}, kind: fault.InvalidPayload, text: "a is required"},
		"somebody else's 401":    {answer: Answer{Status: 401, Body: []byte(`{"type":"Unauthorized","message":"no token"}`)}, kind: fault.Runtime, text: "no token"},
		"a crash":                {answer: Answer{Status: 500, Body: []byte(`{"error":"oh"}`)}, kind: fault.Runtime, text: "oh"},
		"out of time":            {err: &Error{TimedOut, &outbound.TimeoutError{Host: "h"}}, kind: fault.OperationTimeout, text: "time limit"},
		"unreachable":            {err: &Error{Unreachable, &outbound.UnreachableError{Host: "h", Err: errors.New("refused")}}, kind: fault.Runtime, text: "h is unreachable: refused"},
	} {
		got, err := ActionOutput(c.answer, c.err)
		if c.kind == nil {
			if err != nil || string(got) != c.want {
				t.Errorf("%s: got %s, %v; want %s", name, got, err, c.want)
			}
			continue
		}
		if e, ok := errors.AsType[*fault.Error](err); !ok || e.Kind != c.kind || !strings.Contains(e.Message, c.text) {
			t.Errorf("%s: got %v, want %s with %q", name, err, c.kind.Type, c.text)
		}
	}
	if _, err := ActionOutput(Answer{}, context.Canceled); err != context.Canceled {
		t.Errorf("cancelled: got %v", err)
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add(200, []byte(`{"output":{"a":1}}`))
	f.Add(400, []byte(`{"message":"no","type":"Runtime"}`))
	f.Add(500, []byte(`{"error":"no"}`))
	f.Add(431, []byte{})
	f.Add(200, []byte("{\"output\":{\"\xff\":\"\x00\"}}"))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		a := Answer{Status: status, Body: body}
		if out, err := ActionOutput(a, nil); err == nil && !json.Valid(out) {
			t.Errorf("%q is not JSON", out)
		}
		checkReason(t, Reason(a, nil))
	})
}
