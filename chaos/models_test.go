package chaos

import (
	"fmt"
	"strings"

	"github.com/anishathalye/porcupine"
)

// wish is what a client asks of a thing, and told what it is told. A thing is
// in a state that fits in a text.
type wish struct{ what, key, value string }

type told struct {
	missing bool // 404
	value   string
}

// step says whether a thing in a state may give that answer, and in what state it
// is then. The answer is nil where it was lost: the request may have been carried
// out.
type step func(state string, r wish, a *told) (possible bool, next string)

// upsert is what a get-or-create makes one of: its state is the id, "" for none,
// and "?" for one that was made in a request whose answer was lost.
func upsert(state string, r wish, a *told) (bool, string) {
	switch r.what {
	case "get-or-create":
		switch {
		case a == nil && state == "":
			return true, "?"
		case a == nil:
			return true, state
		case state == "" || state == "?":
			return true, a.value
		}
		return a.value == state, state
	case "remove":
		next := state
		if state == r.value {
			next = ""
		}
		return a == nil || a.missing == (state != r.value), next
	}
	if state == "?" && a.value != "" {
		return true, a.value
	}
	return a.value == state, state
}

// stateModel is a state of the API with two members, "one|two", "" for none.
func stateModel(state string, r wish, a *told) (bool, string) {
	switch there := state != ""; {
	case r.what == "remove" || !there && (r.what == "get" || r.what == "patch"):
		return a == nil || a.missing != there, ""
	case r.what == "set":
		state = r.value
	case r.what == "get-or-set" && !there:
		state = r.value
	case r.what == "patch":
		state = putMember(state, r)
	}
	return a == nil || !a.missing && a.value == state, state
}

// tagged is something with two tags, "one|two".
func tagged(state string, r wish, a *told) (bool, string) {
	if r.what == "put" {
		state = putMember(state, r)
	}
	return a == nil || !a.missing && a.value == state, state
}

// putMember changes one of two members.
func putMember(state string, r wish) string {
	one, two, _ := strings.Cut(state, "|")
	if r.key == "one" {
		return r.value + "|" + two
	}
	return one + "|" + r.value
}

// members is a set, with the names of those who are in it in order.
func members(state string, r wish, a *told) (bool, string) {
	there := strings.Contains(state, r.key)
	switch r.what {
	case "add":
		return true, among(func(name string) bool { return name == r.key || strings.Contains(state, name) })
	case "remove":
		return a == nil || a.missing != there, strings.ReplaceAll(state, r.key, "")
	case "get":
		return a == nil || a.missing != there, state
	}
	return a.value == state, state
}

// gatherers are those of a set.
var gatherers = []string{"a", "b", "c"}

func among(in func(name string) bool) (set string) {
	for _, name := range gatherers {
		if in(name) {
			set += name
		}
	}
	return set
}

// model is a step for the checker.
func model(start string, s step) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return start },
		Step: func(state, in, out any) (bool, any) { return s(state.(string), in.(wish), out.(*told)) },
		DescribeOperation: func(in, out any) string {
			r, a := in.(wish), out.(*told)
			text := strings.Join(strings.Fields(r.what+" "+r.key+" "+r.value), " ") + " → "
			switch {
			case a == nil:
				return text + "lost"
			case a.missing:
				return text + "404"
			}
			return text + fmt.Sprintf("%q", a.value)
		},
		DescribeState: func(state any) string { return fmt.Sprintf("%q", state) },
	}
}
