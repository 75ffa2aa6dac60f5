package messaging

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"parley/internal/api"
	"parley/internal/fault"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

// entity is something that carries tags, as the tags table knows it.
type entity struct {
	bot, kind, id string
	at            int64 // its creation
}

// tag finds out which tag of a kind of entity the caller asks for by name. One
// that its definition does not know has no values and matches nothing.
func (c Caller) tag(kind, name string) tag.Ref {
	r := tag.Resolve(c.Owner(), name, c.names())
	if _, declared := c.Rules.limit(kind)(r.Key); !declared && r.Owner == c.Owner() {
		r.Owner = "?"
	}
	return r
}

// newTags checks the tags of an entity that is being made.
func newTags(c Caller, kind string, in map[string]string) (tag.Set, error) {
	set := tag.Set{}
	return set, applyTags(c, kind, set, in)
}

// applyTags merges what the caller wants into set, if it may.
func applyTags(c Caller, kind string, set tag.Set, in map[string]string) error {
	changes, err := c.changes(kind, in, set)
	if err != nil {
		return err
	}
	set.Apply(c.Owner(), changes)
	if n := len(set[c.Owner()]); n > tag.MaxTags {
		return fault.LimitExceeded.New("tags would have %d entries, the limit is %d", n, tag.MaxTags)
	}
	return nil
}

// writeTags brings the tags table from before to after.
func writeTags(tx *sqldb.Tx, e entity, before, after tag.Set) error {
	for owner, tags := range before {
		for k, v := range tags {
			if after[owner][k] == v {
				continue
			}
			if err := tx.Send(`DELETE FROM tags WHERE bot_id = $1 AND kind = $2 AND owner = $3 AND key = $4 AND value = $5 AND created_at = $6 AND entity = $7`,
				e.bot, e.kind, owner, k, indexed(v), e.at, e.id); err != nil {
				return err
			}
		}
	}
	for owner, tags := range after {
		for k, v := range tags {
			if before[owner][k] == v {
				continue
			}
			if err := tx.Send(`INSERT INTO tags (bot_id, kind, owner, key, value, created_at, entity) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
				e.bot, e.kind, owner, k, indexed(v), e.at, e.id); err != nil {
				return err
			}
		}
	}
	return nil
}

// FindByTag returns the newest entity of a kind whose tag of that owner has the value, "" if there is none.
func (s *Service) FindByTag(q sqldb.Q, botID, kind, owner, key, value string) (string, error) {
	return firstTagged(q, botID, kind, tag.Ref{Owner: owner, Key: key}, indexed(value))
}

// firstTagged is FindByTag for the indexed form of a value.
func firstTagged(q sqldb.Q, botID, kind string, ref tag.Ref, value string) (string, error) {
	found, err := column(q, `SELECT entity FROM tags WHERE bot_id = $1 AND kind = $2 AND owner = $3 AND key = $4 AND value = $5
		ORDER BY created_at DESC, entity DESC LIMIT 1`, botID, kind, ref.Owner, ref.Key, value)
	if err != nil || len(found) == 0 {
		return "", err
	}
	return found[0], nil
}

// discriminator is what a get-or-create looks for: all of some tags, or, if
// whole, exactly these tags of the caller and no others.
type discriminator struct {
	tags  map[string]string // bare keys of the caller's own tags
	whole bool
}

// discriminators picks the tags that tell entities apart.
func discriminators(c Caller, in map[string]string, by []string) (discriminator, error) {
	bare := make(map[string]string, len(in))
	for name, v := range in {
		if r := tag.Resolve(c.Owner(), name, c.names()); r.Owner == c.Owner() && v != "" {
			bare[r.Key] = v
		}
	}
	if len(by) == 0 {
		if len(bare) == 0 {
			return discriminator{}, fault.InvalidPayload.New("tags must hold at least one tag to find an existing one by")
		}
		return discriminator{bare, true}, nil
	}
	d := discriminator{tags: map[string]string{}}
	for i, name := range by {
		r := tag.Resolve(c.Owner(), name, c.names())
		v, ok := bare[r.Key]
		if !ok || r.Owner != c.Owner() {
			return d, fault.InvalidPayload.New("discriminateByTags[%d] names %q, which tags does not hold", i, name)
		}
		d.tags[r.Key] = v
	}
	return d, nil
}

// lock makes concurrent get-or-creates for the same thing wait for each other.
func (d discriminator) lock(tx *sqldb.Tx, c Caller, kind string, more ...string) error {
	return tx.LockKey(d.lockKey(c, kind, more...)...)
}

// lockKey is what lock locks. It is on all the tags that tell entities apart.
func (d discriminator) lockKey(c Caller, kind string, more ...string) []string {
	parts := append([]string{"get-or-create", c.Bot.ID, c.Owner(), kind}, more...)
	for _, k := range slices.Sorted(maps.Keys(d.tags)) {
		parts = append(parts, k, d.tags[k])
	}
	return parts
}

// candidates lists the newest entities that have all of d's tags.
func (d discriminator) candidates(q sqldb.Q, c Caller, kind string) ([]string, error) {
	w := &walk{bot: c.Bot.ID, kind: kind}
	for _, k := range slices.Sorted(maps.Keys(d.tags)) {
		w.tags = append(w.tags, wantedTag{c.Owner(), k, indexed(d.tags[k])})
	}
	var ids []string
	for n := range steps {
		found, err := w.next(q, n)
		if err != nil {
			return nil, err
		}
		for _, at := range found {
			ids = append(ids, at.ID)
		}
		if w.ended || len(ids) >= maxCandidates {
			break
		}
	}
	return ids, nil
}

// maxCandidates is the number of entities with the same tags among which the one
// that is meant is looked for.
const maxCandidates = 500

// message finds the newest message of a conversation that d means, "" if there is none.
func (d discriminator) message(q sqldb.Q, c Caller, conversationID string) (string, error) {
	return d.within(q, c, tag.Message, "messages", conversationID)
}

// within finds the newest row of a conversation that d means, "" if there is
// none, in a table whose tags are of a kind.
func (d discriminator) within(q sqldb.Q, c Caller, kind, table, conversationID string) (string, error) {
	w, err := d.where(q, c, kind)
	if err != nil {
		return "", err
	}
	w.And("EXISTS (SELECT 1 FROM "+table+" m WHERE m.bot_id = t.bot_id AND m.id = t.entity AND m.conversation_id = ?)", conversationID)
	if d.whole {
		w.And("(SELECT count(*) FROM tags x WHERE x.entity = t.entity AND x.bot_id = t.bot_id AND x.owner = t.owner) = ?", len(d.tags))
	}
	found, err := column(q, "SELECT t.entity FROM tags t "+w.String()+" ORDER BY t.created_at DESC, t.entity DESC LIMIT 1", w.Args...)
	if err != nil || len(found) == 0 {
		return "", err
	}
	return found[0], nil
}

// where is the condition on rows t of the tags table for entities that have all of d's tags.
func (d discriminator) where(q sqldb.Q, c Caller, kind string) (*sqldb.Where, error) {
	keys, err := d.rarestFirst(q, c, kind)
	if err != nil {
		return nil, err
	}
	w := &sqldb.Where{}
	w.And("t.bot_id = ? AND t.kind = ? AND t.owner = ? AND t.key = ? AND t.value = ?", c.Bot.ID, kind, c.Owner(), keys[0], indexed(d.tags[keys[0]]))
	for _, k := range keys[1:] {
		w.And(`EXISTS (SELECT 1 FROM tags x WHERE x.bot_id = t.bot_id AND x.kind = t.kind AND x.owner = t.owner AND x.key = ? AND x.value = ?
			AND x.created_at = t.created_at AND x.entity = t.entity)`, k, indexed(d.tags[k]))
	}
	return w, nil
}

// common is how many entities with a tag are told apart from more of them.
const common = 64

// rarestFirst are the keys of d's tags; the first is one that few entities have,
// if there is any: a tag that all of them share would be walked through.
func (d discriminator) rarestFirst(q sqldb.Q, c Caller, kind string) ([]string, error) {
	keys := slices.Sorted(maps.Keys(d.tags))
	if len(keys) == 1 {
		return keys, nil
	}
	first, fewest := 0, int64(common)
	for i, k := range keys {
		n, err := sqldb.Scalar[int64](q, `SELECT count(*) FROM (SELECT 1 FROM tags t WHERE t.bot_id = $1 AND t.kind = $2 AND t.owner = $3 AND t.key = $4 AND t.value = $5 LIMIT $6) x`,
			c.Bot.ID, kind, c.Owner(), k, indexed(d.tags[k]), common)
		if err != nil {
			return nil, err
		}
		if n < fewest {
			first, fewest = i, n
		}
	}
	keys[0], keys[first] = keys[first], keys[0]
	return keys, nil
}

func (d discriminator) matches(c Caller, set tag.Set) bool {
	return !d.whole || set.Equal(c.Owner(), d.tags)
}

// column reads the first column of every row.
func column(q sqldb.Q, query string, args ...any) ([]string, error) {
	rows, err := q.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var v string
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// encodeTags is the JSON of a set as its column holds it.
func encodeTags(set tag.Set) string {
	if len(set) == 0 {
		return "{}"
	}
	b, _ := json.Marshal(set) // maps of strings always encode
	return string(b)
}

// values turns nullable tags into changes: null and "" both remove.
func values(in map[string]api.Nullable[string]) map[string]string {
	out := make(map[string]string, len(in))
	for k, v := range in {
		out[k] = v.Value
	}
	return out
}

// text turns a nullable member into a change: nil leaves alone, "" removes.
func text(in api.Nullable[string]) *string {
	if !in.Set {
		return nil
	}
	return &in.Value
}

// ownerNamed resolves the deprecated member integrationName: an alias, or the
// name of an integration that is installed once.
func (c Caller) ownerNamed(name string) (string, error) {
	if c.Installation != nil {
		if name != "" && name != c.Installation.Alias && name != c.Installation.IntegrationName {
			return "", fault.InvalidPayload.New("integrationName %q is not the integration that sends the request", name)
		}
		return c.Installation.ID, nil
	}
	if name == "" {
		return "", nil
	}
	id := c.names().Owner(name)
	if in := installation(c.Bot, id); in == nil || in.Removed {
		return "", fault.ReferenceNotFound.New("Integration %q isn't installed in bot %q; installed are: %s", name, c.Bot.ID, c.aliases())
	}
	return id, nil
}

// aliases lists the aliases of the bot's installations for an error text.
func (c Caller) aliases() string {
	var out []string
	for _, in := range c.Bot.Installations {
		if !in.Removed {
			out = append(out, in.Alias)
		}
	}
	if out == nil {
		return "none"
	}
	return strings.Join(out, ", ")
}
