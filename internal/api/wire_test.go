package api_test

import (
	stdjson "encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"parley/internal/api"
)

type wire struct {
	Raw      api.Raw              `json:"raw"`
	Object   api.Object           `json:"object"`
	Null     api.Nullable[string] `json:"null,omitzero"`
	Time     api.Time             `json:"time"`
	Optional *api.Time            `json:"optional,omitempty"`
	Extra    api.Extra            `json:",embed"`
}

func TestWireTypesKeepWhatTheyRead(t *testing.T) {
	t.Parallel()
	const text = `{"raw":[1.0,"é<",null],"object":{"b":1,"a":"\u00e9"},"null":null,"time":"2026-11-20T12:05:00.000Z","more":{"x":1}}`
	var w wire
	if err := json.Unmarshal([]byte(text), &w); err != nil {
		t.Fatal(err)
	}
	if !w.Null.Set || !w.Null.Null || w.Time != api.At(time.Date(2026, 11, 20, 12, 5, 0, 0, time.UTC)) {
		t.Errorf("read %+v", w)
	}
	if got := w.Object.Member("a"); string(got) != `"\u00e9"` {
		t.Errorf("member a is %s", got)
	}
	if s, ok := w.Object.Member("a").Text(); !ok || s != "é" {
		t.Errorf("text is %q, %v", s, ok)
	}
	if w.Raw.Member("a") != nil || w.Object.Member("c") != nil {
		t.Error("a member was found that is not there")
	}
	if _, ok := w.Object.Member("b").Text(); ok {
		t.Error("a number is text")
	}
	got, err := json.Marshal(w)
	if want := `{"raw":[1.0,"é<",null],"object":{"b":1,"a":"é"},"null":null,"time":"2026-11-20T12:05:00.000Z","more":{"x":1}}`; err != nil || string(got) != want {
		t.Errorf("wrote %s, %v; want %s", got, err, want)
	}
}

func TestWireTypesThatAreEmpty(t *testing.T) {
	t.Parallel()
	got, err := json.Marshal(wire{})
	if want := `{"raw":null,"object":{},"time":"1970-01-01T00:00:00.000Z"}`; err != nil || string(got) != want {
		t.Errorf("wrote %s, %v; want %s", got, err, want)
	}
	got, err = json.Marshal([]api.Nullable[int]{{}, {Set: true, Null: true}, api.Some(7)})
	if want := `[null,null,7]`; err != nil || string(got) != want {
		t.Errorf("wrote %s, %v; want %s", got, err, want)
	}
	if api.Some(7).Pointer() == nil || (api.Nullable[int]{Set: true, Null: true}).Pointer() != nil || (api.Nullable[int]{}).Pointer() != nil {
		t.Error("Pointer is wrong")
	}
}

func TestWireTypesWithTheStandardLibrary(t *testing.T) {
	t.Parallel()
	in := struct {
		Raw    api.Raw
		Object api.Object
		Time   api.Time
	}{api.Raw(`[1]`), api.Object(`{"a":1}`), 5}
	text, err := stdjson.Marshal(in)
	if want := `{"Raw":[1],"Object":{"a":1},"Time":"1970-01-01T00:00:00.005Z"}`; err != nil || string(text) != want {
		t.Fatalf("wrote %s, %v", text, err)
	}
	out := in
	out.Raw, out.Object, out.Time = nil, nil, 0
	if err := stdjson.Unmarshal(text, &out); err != nil || fmt.Sprint(out) != fmt.Sprint(in) {
		t.Errorf("read %v, %v", out, err)
	}
	if err := stdjson.Unmarshal([]byte(`{"Object":[]}`), &out); err == nil {
		t.Error("an array is an Object")
	}
	if err := stdjson.Unmarshal([]byte(`{"Time":5}`), &out); err == nil {
		t.Error("a number is a Time")
	}
	if v, err := api.Time(5).Value(); err != nil || v != int64(5) {
		t.Errorf("column value %v, %v", v, err)
	}
}

func TestTimeCostsNothing(t *testing.T) {
	buf := make([]byte, 0, 32)
	if n := testing.AllocsPerRun(100, func() { buf = api.Time(1763640300123).AppendTo(buf[:0]) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestTimePrintsAsJavaScriptDoes(t *testing.T) {
	t.Parallel()
	for ms, want := range map[int64]string{
		0: "1970-01-01T00:00:00.000Z", 1: "1970-01-01T00:00:00.001Z", -1: "1969-12-31T23:59:59.999Z",
		1763640300120: "2025-11-20T12:05:00.120Z", 951782399999: "2000-02-28T23:59:59.999Z",
	} {
		if got := api.Time(ms).String(); got != want {
			t.Errorf("%d is %s, want %s", ms, got, want)
		}
	}
}
