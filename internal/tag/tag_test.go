package tag

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/internal/fault"
)

type names map[string]string // installation → alias

func (n names) Alias(id string) string { return n[id] }
func (n names) Owner(alias string) string {
	for id, a := range n {
		if a == alias {
			return id
		}
	}
	return ""
}

var two = names{"inst_1": "chat", "inst_2": "acme/hooky"}

func TestViewNamesTagsForWhoLooks(t *testing.T) {
	s := Set{"": {"tier": "gold"}, "inst_1": {"fid": "u1"}, "inst_2": {"id": "7"}, "inst_gone": {"id": "8"}}
	for viewer, want := range map[string]map[string]string{
		"":          {"tier": "gold", "chat:fid": "u1", "acme/hooky:id": "7"},
		"inst_1":    {"fid": "u1"},
		"inst_2":    {"id": "7"},
		"inst_none": {},
	} {
		if diff := cmp.Diff(want, s.View(viewer, two)); diff != "" {
			t.Errorf("view of %q: %s", viewer, diff)
		}
	}
}

func TestChanges(t *testing.T) {
	have := Set{"inst_1": {"fid": "u1"}}
	limit := func(key string) (int, bool) {
		if key == "profile" {
			return 1000, true
		}
		return MaxValue, key != "unknown"
	}
	for _, c := range []struct {
		name, viewer string
		in, want     map[string]string
		kind         *fault.Kind
	}{
		{"bare keys are the viewer's own", "", map[string]string{"tier": "gold"}, map[string]string{"tier": "gold"}, nil},
		{"an installation may use the long form for its own", "inst_1", map[string]string{"chat:fid": "x"}, map[string]string{"fid": "x"}, nil},
		{"an unchanged foreign tag is no change", "", map[string]string{"chat:fid": "u1"}, map[string]string{}, nil},
		{"a changed foreign tag is refused", "", map[string]string{"chat:fid": "u2"}, nil, fault.InvalidPayload},
		{"an unknown alias is refused", "", map[string]string{"slack:id": "u2"}, nil, fault.InvalidPayload},
		{"another installation's tag is refused", "inst_1", map[string]string{"acme/hooky:id": "9"}, nil, fault.InvalidPayload},
		{"an undeclared key is refused", "", map[string]string{"unknown": "1"}, nil, fault.InvalidPayload},
		{"a key with a dot is refused", "", map[string]string{"a.b": "1"}, nil, fault.InvalidIdentifier},
		{"a short key is refused", "", map[string]string{"a": "1"}, nil, fault.InvalidIdentifier},
		{"an upper-case start is refused", "", map[string]string{"Tier": "1"}, nil, fault.InvalidIdentifier},
		{"a plugin's key is kept whole", "", map[string]string{"hitl#state": "1"}, map[string]string{"hitl#state": "1"}, nil},
		{"500 characters fit, not bytes", "", map[string]string{"long": strings.Repeat("é", 500)}, map[string]string{"long": strings.Repeat("é", 500)}, nil},
		{"501 do not", "", map[string]string{"long": strings.Repeat("é", 501)}, nil, fault.InvalidPayload},
		{"a declared longer limit counts", "inst_1", map[string]string{"profile": strings.Repeat("p", 1000)}, map[string]string{"profile": strings.Repeat("p", 1000)}, nil},
		{"empty removes and is passed on", "", map[string]string{"tier": ""}, map[string]string{"tier": ""}, nil},
	} {
		got, err := Changes(c.viewer, c.in, have, limit, two)
		if c.kind != nil {
			if !fault.Is(err, c.kind) {
				t.Errorf("%s: got %v, want %s", c.name, err, c.kind.Type)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func TestApplyMergesAndRemoves(t *testing.T) {
	s := Set{"": {"a1": "1", "b1": "2"}, "inst_1": {"fid": "x"}}
	before := s.Clone()
	s.Apply("", map[string]string{"a1": "", "c1": "3"})
	s.Apply("inst_1", map[string]string{"fid": ""})
	if diff := cmp.Diff(Set{"": {"b1": "2", "c1": "3"}}, s); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Set{"": {"a1": "1", "b1": "2"}, "inst_1": {"fid": "x"}}, before); diff != "" {
		t.Error("the clone changed too:", diff)
	}
}

func TestResolveOfAnUnknownAliasMatchesNothing(t *testing.T) {
	for _, c := range []struct {
		viewer, name string
		want         Ref
	}{
		{"", "chat:fid", Ref{"inst_1", "fid"}},
		{"", "acme/hooky:id", Ref{"inst_2", "id"}},
		{"", "slack:id", Ref{"?", "id"}},
		{"inst_1", "acme/hooky:id", Ref{"?", "id"}},
		{"inst_1", "fid", Ref{"inst_1", "fid"}},
	} {
		if got := Resolve(c.viewer, c.name, two); got != c.want {
			t.Errorf("Resolve(%q, %q) = %+v, want %+v", c.viewer, c.name, got, c.want)
		}
	}
}
