// Package patch is how definitions change: by what is sent of them, entry for
// entry. What is sent replaces what stands under its name, null deletes it, what
// is not sent stays. Members that this version does not know are kept as they
// came, so that a newer client finds them again, and are logged once.
package patch

import (
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"parley/internal/api"
	"parley/internal/fault"
)

// Merge is old with the changes in: nil deletes. join, if any, makes the entry
// that now becomes where it replaces was, which may be nil. Neither map is
// changed: a transaction that runs again starts from the same ones.
func Merge[V any](old, in map[string]*V, join func(now, was *V) *V) map[string]*V {
	out := maps.Clone(old)
	for name, v := range in {
		if v == nil {
			delete(out, name)
			continue
		}
		if out == nil {
			out = map[string]*V{}
		}
		if join != nil {
			v = join(v, out[name])
		}
		out[name] = v
	}
	return out
}

// Extra is the members of old with those of in put over them; null deletes.
func Extra(old, in api.Extra) api.Extra {
	if len(in) == 0 {
		return old
	}
	members := map[string]api.Raw{}
	for _, from := range []api.Extra{old, in} {
		for name, v := range api.Object(from).Members() {
			members[name] = slices.Clone(v)
			if string(v) == "null" {
				delete(members, name)
			}
		}
	}
	var b api.Builder
	for _, name := range slices.Sorted(maps.Keys(members)) {
		b.Add(name, members[name])
	}
	return api.Extra(b.Object())
}

// MaxName is how many characters the name of an entry may have.
const MaxName = 200

// CheckNames refuses entries with names that nobody could call them by.
func CheckNames[V any](part string, entries map[string]*V) error {
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		if !goodName(name) {
			return fault.InvalidPayload.New("%s: the name %.200q must have 1 to %d characters and no control characters", part, name, MaxName)
		}
	}
	return nil
}

func goodName(s string) bool {
	return s != "" && utf8.RuneCountInString(s) <= MaxName && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// Unknown visits the members that a part of a definition keeps without knowing them.
func Unknown(path string, extra api.Extra, visit func(path string)) {
	for name := range api.Object(extra).Members() {
		visit(path + "." + name)
	}
}

// Noted logs each unknown member once. The zero value is ready once Log is set.
type Noted struct {
	Log  *slog.Logger
	What string // whose definition it is

	mu   sync.Mutex
	seen map[string]bool
}

// maxNoted bounds that memory; what comes later is not logged.
const maxNoted = 1000

// Note logs a member unless it was before.
func (n *Noted) Note(path string) {
	n.mu.Lock()
	first := !n.seen[path] && len(n.seen) < maxNoted
	if first {
		if n.seen == nil {
			n.seen = map[string]bool{}
		}
		n.seen[path] = true
	}
	n.mu.Unlock()
	if first {
		n.Log.Warn("accepted a member of "+n.What+" that is not in the published schema", "member", path)
	}
}
