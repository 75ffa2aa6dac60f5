// Package tag holds the rules of tags: their form and limits, how changes
// merge, and how a tag is named by each of those who may see it.
//
// A tag belongs to an owner: the bot ("") or one installation. Inside, tags are
// kept by owner and bare key. At the boundary the bot sees its own tags bare
// and those of its installations as alias:key; an installation sees its own
// tags bare and nobody else's.
package tag

import (
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"parley/internal/fault"
)

// Kinds of entities that carry tags.
const (
	User         = "user"
	Conversation = "conversation"
	Message      = "message"
	Workflow     = "workflow"
	Task         = "task"
)

// MaxValue is the number of characters a tag's value may have, unless its
// definition allows more.
const MaxValue = 500

// MaxTags is the number of tags an owner may have on one entity: as many as it
// may define.
const MaxTags = 50

// Set holds the tags of one entity: owner → key → value.
type Set map[string]map[string]string

// Equal reports whether the tags of one owner are exactly want.
func (s Set) Equal(owner string, want map[string]string) bool {
	return maps.Equal(s[owner], want)
}

// Apply merges changes into the owner's tags: an empty value removes its key.
func (s Set) Apply(owner string, changes map[string]string) {
	for k, v := range changes {
		if v == "" {
			delete(s[owner], k)
			continue
		}
		if s[owner] == nil {
			s[owner] = map[string]string{}
		}
		s[owner][k] = v
	}
	if len(s[owner]) == 0 {
		delete(s, owner)
	}
}

// Clone copies s, so that one can be changed without the other.
func (s Set) Clone() Set {
	c := make(Set, len(s))
	for o, m := range s {
		c[o] = maps.Clone(m)
	}
	return c
}

// Names tells how owners are called in one bot.
type Names interface {
	// Alias returns the alias of an installation, "" if there is none.
	Alias(installationID string) string
	// Owner returns the installation that goes by an alias, "" if there is none.
	Owner(alias string) string
}

// View names every tag of s as the viewer sees it: viewer "" is the bot, else
// an installation.
func (s Set) View(viewer string, n Names) map[string]string {
	if viewer != "" {
		if own := s[viewer]; own != nil {
			return own
		}
		return map[string]string{}
	}
	out := make(map[string]string, len(s))
	for owner, tags := range s {
		prefix := ""
		if owner != "" {
			alias := n.Alias(owner)
			if alias == "" {
				continue
			}
			prefix = alias + ":"
		}
		for k, v := range tags {
			out[prefix+k] = v
		}
	}
	return out
}

// Ref is one tag a caller named: whose it is and its bare key.
type Ref struct{ Owner, Key string }

// Resolve finds out which tag a viewer means by name. An unknown alias resolves
// to an owner that has no tags, so that filters match nothing.
func Resolve(viewer, name string, n Names) Ref {
	alias, key, qualified := strings.Cut(name, ":")
	switch {
	case !qualified:
		return Ref{viewer, name}
	case viewer != "":
		if n.Owner(alias) == viewer {
			return Ref{viewer, key} // integrations of before 2024 use the long form for their own tags
		}
	case n.Owner(alias) != "":
		return Ref{n.Owner(alias), key}
	}
	return Ref{"?", key}
}

// Limit tells how many characters the value of a declared tag may have and
// whether the tag is declared at all.
type Limit func(key string) (maxValue int, declared bool)

// Any accepts every key with the ordinary limit: the rule of an owner that
// declares no tags.
func Any(string) (int, bool) { return MaxValue, true }

// Changes checks the tags a viewer wants to write and returns them under their
// bare keys. A bot that sends back another owner's tag with the value it has
// is not contradicted: clients read an entity and write all of it.
func Changes(viewer string, in map[string]string, have Set, limit Limit, n Names) (map[string]string, error) {
	if len(in) == 0 {
		return nil, nil
	}
	out := make(map[string]string, len(in))
	for _, name := range slices.Sorted(maps.Keys(in)) {
		value := in[name]
		ref := Resolve(viewer, name, n)
		if ref.Owner != viewer {
			if now, ok := have[ref.Owner][ref.Key]; ok && now == value && viewer == "" {
				continue
			}
			if viewer != "" {
				return nil, fault.InvalidPayload.New("tags.%s is not a tag of this integration; it writes its own tags by their bare names", name)
			}
			return nil, fault.InvalidPayload.New("tags.%s belongs to an integration; the bot can read it but not write it", name)
		}
		if err := CheckKey(ref.Key); err != nil {
			return nil, err
		}
		longest, declared := limit(ref.Key)
		if !declared {
			return nil, fault.InvalidPayload.New("tags.%s is not declared in the definition", name)
		}
		if utf8.RuneCountInString(value) > longest {
			return nil, fault.InvalidPayload.New("tags.%s must have at most %d characters", name, longest)
		}
		out[ref.Key] = value
	}
	return out, nil
}

// CheckKey reports a key that has not the form of an identifier. A plugin's
// tags carry its alias and # in front.
func CheckKey(key string) error {
	bare := key
	if i := strings.LastIndexByte(key, '#'); i >= 0 {
		bare = key[i+1:]
	}
	ok := len(bare) >= 2 && len(key) <= 100 && bare[0] >= 'a' && bare[0] <= 'z' && !strings.ContainsAny(key, ".[]:")
	for _, c := range []byte(bare) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9')
	}
	if !ok {
		return fault.InvalidIdentifier.New("tags: %q is not a valid tag key; it starts with a lowercase letter and has 2 to 100 letters and digits", key)
	}
	return nil
}
