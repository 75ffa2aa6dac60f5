package patch

import (
	"bytes"
	"log/slog"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/internal/api"
	"parley/internal/fault"
)

func TestMerge(t *testing.T) {
	t.Parallel()
	a, b, c := "a", "b", "c"
	old := map[string]*string{"one": &a, "two": &b}
	in := map[string]*string{"one": &c, "two": nil, "three": &c, "none": nil}
	want := map[string]*string{"one": &c, "three": &c}
	if d := cmp.Diff(want, Merge(old, in, nil)); d != "" {
		t.Error(d)
	}
	if len(old) != 2 || len(in) != 4 {
		t.Errorf("the maps became %v and %v", old, in)
	}
	if got := Merge[string](nil, nil, nil); got != nil {
		t.Errorf("nothing made %v", got)
	}
	joined := Merge(old, in, func(now, was *string) *string {
		text := *now
		if was != nil {
			text += *was
		}
		return &text
	})
	if *joined["one"] != "ca" || *joined["three"] != "c" {
		t.Errorf("joined to %q and %q", *joined["one"], *joined["three"])
	}
}

func TestExtra(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ old, in, want string }{
		{"", "", ""},
		{`{"a":1}`, "", `{"a":1}`},
		{"", `{"b": [1, 2]}`, `{"b":[1, 2]}`},
		{`{"a":1,"c":3}`, `{"b":2,"a":null}`, `{"b":2,"c":3}`},
		{`{"a":1}`, `{"a":null}`, `{}`},
	} {
		if got := Extra(api.Extra(c.old), api.Extra(c.in)); string(got) != c.want {
			t.Errorf("%s with %s: %s, want %s", c.old, c.in, got, c.want)
		}
	}
}

func TestCheckNames(t *testing.T) {
	t.Parallel()
	for name, good := range map[string]bool{
		"a": true, "a b": true, "é": true, strings.Repeat("é", MaxName): true,
		"": false, "a\nb": false, "\x7f": false, strings.Repeat("x", MaxName+1): false,
	} {
		err := CheckNames("events", map[string]*int{name: nil})
		if good != (err == nil) || err != nil && !fault.Is(err, fault.InvalidPayload) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestNoted(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	n := &Noted{Log: slog.New(slog.NewTextHandler(&log, nil)), What: "a definition"}
	for range 2 {
		Unknown("events.*", api.Extra(`{"x":1,"y":2}`), n.Note)
	}
	for i := range 2 * maxNoted {
		n.Note(strconv.Itoa(i))
	}
	if got := strings.Count(log.String(), "\n"); got != maxNoted || !strings.Contains(log.String(), "member=events.*.x") {
		t.Errorf("%d lines: %.300s", got, log.String())
	}
}
