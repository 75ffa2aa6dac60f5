package api

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMembersKeepOrderAndText(t *testing.T) {
	var names, values []string
	for name, v := range Object(`{"b":1.50,"a":{"x":[1, 2]},"é":"\u00e9"}`).Members() {
		names, values = append(names, name), append(values, string(v))
	}
	if diff := cmp.Diff([]string{"b", "a", "é"}, names); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"1.50", `{"x":[1, 2]}`, `"\u00e9"`}, values); diff != "" {
		t.Error(diff)
	}
}

func TestMembersAndItemsOfGarbageAreNone(t *testing.T) {
	for _, text := range []string{"", "null", "[", "{", `{"a"`, `{"a":`, "tru", `"x"`} {
		for name, v := range Object(text).Members() {
			t.Errorf("Members of %q gave %q: %q", text, name, v)
		}
		for v := range Raw(text).Items() {
			t.Errorf("Items of %q gave %q", text, v)
		}
	}
}

func TestBuilderGivesWhatWasAdded(t *testing.T) {
	var b Builder
	b.AddText("type", "te\"xt")
	b.Add("n", Raw("1.0"))
	for v := range Raw(`[{"a":1},[2],null]`).Items() {
		b.Add("item", v)
	}
	if got, want := string(b.Object()), `{"type":"te\"xt","n":1.0,"item":{"a":1},"item":[2],"item":null}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := string(new(Builder).Object()); got != "{}" {
		t.Errorf("an empty object is %s", got)
	}
}
