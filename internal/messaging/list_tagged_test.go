package messaging

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"

	"parley/internal/api"
	"parley/internal/sqldb"
)

// seeded is a conversation as the tests remember it.
type seeded struct {
	id               string
	created, updated int64
	channel          string
	tags             map[string]string // of botA itself
}

// seed stores conversations of botA with its own tags, past the service: the
// tests choose their times.
func (r *rig) seed(all []seeded) {
	r.Helper()
	for some := range slices.Chunk(all, 500) {
		r.write(func(tx *sqldb.Tx) error {
			for _, c := range some {
				set := map[string]map[string]string{}
				if len(c.tags) > 0 {
					set[""] = c.tags
				}
				v := &Conversation{ID: c.id, BotID: botA, Channel: c.channel, CreatedAt: api.Time(c.created), UpdatedAt: api.Time(c.updated), AllTags: set}
				if _, err := sqldb.Insert(tx, "conversations", v); err != nil {
					return err
				}
				if err := writeTags(tx, entity{botA, "conversation", c.id, c.created}, nil, set); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// naive is a list as the filter means it.
func naive(all []seeded, keep func(seeded) bool, updated, oldestFirst bool) []string {
	var found []seeded
	for _, c := range all {
		if keep(c) {
			found = append(found, c)
		}
	}
	slices.SortFunc(found, func(a, b seeded) int {
		at, bt := a.created, b.created
		if updated {
			at, bt = a.updated, b.updated
		}
		order := cmp.Or(cmp.Compare(at, bt), strings.Compare(a.id, b.id))
		if oldestFirst {
			return order
		}
		return -order
	})
	ids := []string{}
	for _, c := range found {
		ids = append(ids, c.id)
	}
	return ids
}

// Whatever tags, dates, channels and orders are asked for, the pages are what a
// filter of all conversations in memory gives.
func TestListsByTagsAreWhatAFilterGives(t *testing.T) {
	each(t, func(r *rig) {
		r.town.rules[botA] = &Rules{Tags: map[string]map[string]int{"conversation": {"half": 500, "third": 500, "rare": 500, "block": 500, "one": 500}}}
		const first = 1_700_000_000_000
		one := func(n, of int) seeded {
			c := seeded{
				id: fmt.Sprintf("conv_%06d", rand.IntN(1_000_000)), channel: []string{"a", "b"}[rand.IntN(2)],
				created: first + int64(n/3), updated: first + int64(rand.IntN(of)), // several at one time
				tags: map[string]string{"half": []string{"even", "odd"}[n%2], "third": fmt.Sprint(rand.IntN(3)), "block": fmt.Sprint(n * 4 / of)},
			}
			if rand.IntN(100) == 0 {
				c.tags["rare"] = "x"
			}
			if n == of/2 {
				c.tags["one"] = "x"
			}
			return c
		}
		const count = 1500
		all := []seeded{}
		for n := range count {
			if c := one(n, count); !slices.ContainsFunc(all, func(o seeded) bool { return o.id == c.id }) {
				all = append(all, c)
			}
		}
		r.seed(all)
		for range 120 {
			want, updated, oldestFirst := map[string]string{}, rand.IntN(3) == 0, rand.IntN(2) == 0
			q := url.Values{}
			for _, t := range []struct {
				key    string
				values []string
			}{{"half", []string{"even", "odd"}}, {"third", []string{"0", "1", "2", "3"}}, {"block", []string{"0", "1", "3"}}, {"rare", []string{"x", "y"}}, {"one", []string{"x"}}} {
				if rand.IntN(3) == 0 {
					want[t.key] = t.values[rand.IntN(len(t.values))]
					q.Set("tags."+t.key, want[t.key])
				}
			}
			if updated {
				q.Set("sortField", "updatedAt")
			}
			if oldestFirst {
				q.Set("sortDirection", "asc")
			}
			channel, after, before := "", int64(0), int64(1<<60)
			if rand.IntN(4) == 0 {
				channel = "a"
				q.Set("channel", channel)
			}
			if rand.IntN(3) == 0 {
				after = first + int64(rand.IntN(count/3))
				q.Set("afterDate", api.Time(after).String())
			}
			if rand.IntN(3) == 0 {
				before = first + int64(rand.IntN(count/3))
				q.Set("beforeDate", api.Time(before).String())
			}
			wanted := naive(all, func(c seeded) bool {
				for k, v := range want {
					if c.tags[k] != v {
						return false
					}
				}
				at := c.created
				if updated {
					at = c.updated
				}
				return (channel == "" || c.channel == channel) && at >= after && at <= before
			}, updated, oldestFirst)
			if got := r.pages(botOfA, "/v1/chat/conversations?"+q.Encode(), "conversations", nil); !slices.Equal(wanted, got) {
				r.Fatalf("%s lists %d, a filter gives %d:\n%v\n%v", q.Encode(), len(got), len(wanted), got, wanted)
			}
		}
	})
}

// What is added at either end while a list is read neither repeats nor hides anything.
func TestListsByTagsStayWhileRowsAreAdded(t *testing.T) {
	each(t, func(r *rig) {
		r.town.rules[botA] = &Rules{Tags: map[string]map[string]int{"conversation": {"a": 500, "b": 500}}}
		both := func(id string, at int64) seeded {
			return seeded{id: id, created: at, updated: at, channel: "c", tags: map[string]string{"a": "x", "b": "x"}}
		}
		all := []seeded{}
		for n := range 95 {
			c := both(fmt.Sprintf("conv_%04d", n), 1_700_000_000_000+int64(n/4))
			if n%3 == 0 {
				delete(c.tags, "b")
			}
			all = append(all, c)
		}
		r.seed(all)
		added := 0
		for _, sort := range []string{"", "&sortField=updatedAt", "&sortDirection=asc", "&sortField=updatedAt&sortDirection=asc"} {
			asc := strings.Contains(sort, "asc")
			wanted := naive(all, func(c seeded) bool { return len(c.tags) == 2 }, false, asc)
			got := r.pages(botOfA, "/v1/chat/conversations?tags.a=x&tags.b=x"+sort, "conversations", func() {
				added++
				c := both(fmt.Sprintf("conv_added%04d", added), 1_800_000_000_000+int64(added))
				if asc {
					c.created, c.updated = 1_600_000_000_000-int64(added), 1_600_000_000_000-int64(added)
				}
				r.seed([]seeded{c})
				if !asc {
					all = append(all, c)
				} else {
					all = append([]seeded{c}, all...)
				}
			})
			if !slices.Equal(wanted, got) {
				r.Errorf("%q: lists %v, want %v", sort, got, wanted)
			}
		}
	})
}

// Where a page would take too many steps the request ends early and its token
// goes on: together the pages are whole.
func TestListsByTagsEndARequestThatLooksForLong(t *testing.T) {
	each(t, func(r *rig) {
		r.town.rules[botA] = &Rules{Tags: map[string]map[string]int{"conversation": {"even": 500, "odd": 500}}}
		const count = 2*maxLooked + 5000
		for from := 0; from < count; from += 5000 {
			r.write(func(tx *sqldb.Tx) error {
				numbers := fmt.Sprintf("WITH RECURSIVE n (i) AS (SELECT CAST(%d AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < %d) ", from, from+4999)
				_, err := tx.Exec(`INSERT INTO conversations (id, bot_id, installation_id, channel, tags, created_at, updated_at) `+numbers+
					`SELECT 'conv_' || CAST(100000 + i AS TEXT), $1, '', 'c', '{}', i, i FROM n`, botA)
				for rest, key := range []string{"even", "odd"} {
					if err == nil {
						_, err = tx.Exec(`INSERT INTO tags (bot_id, kind, owner, key, value, created_at, entity) `+numbers+
							`SELECT $1, 'conversation', '', $2, 'x', i, 'conv_' || CAST(100000 + i AS TEXT) FROM n WHERE i % 2 = `+fmt.Sprint(rest), botA, key)
					}
				}
				return err
			})
		}
		oldest := seeded{id: "conv_0", created: -1, updated: -1, channel: "rare", tags: map[string]string{"even": "x", "odd": "x"}}
		r.seed([]seeded{oldest})
		for _, path := range []string{
			"/v1/chat/conversations?tags.even=x&tags.odd=x",
			"/v1/chat/conversations?tags.even=x&channel=rare",
			"/v1/chat/conversations?tags.even=x&tags.odd=x&sortField=updatedAt",
		} {
			first := r.ok(botOfA, "GET", path, "", "")
			if len(first["conversations"].([]any)) != 0 || first["meta"].(map[string]any)["nextToken"] == nil {
				r.Errorf("%s: the first page is %v", path, first)
			}
			pages := 1
			if got := r.pages(botOfA, path, "conversations", func() { pages++ }); !slices.Equal(got, []string{oldest.id}) || pages > 4 {
				r.Errorf("%s: %d pages give %v", path, pages, got)
			}
		}
	})
}

// A tag that all have does not stand in the way of one that tells them apart,
// whichever comes first by name.
func TestGetOrCreateFindsBehindATagThatAllHave(t *testing.T) {
	each(t, func(r *rig) {
		conv := r.conversation(hookOfA, "hook", `{}`)
		for _, kind := range []struct{ path, member, rest string }{
			{"conversations", "conversation", `"channel":"hook"`},
			{"messages", "message", fmt.Sprintf(`"type":"text","payload":{"text":"x"},"conversationId":%q,"userId":%q`, conv, r.user(hookOfA, `{}`))},
		} {
			get := func(n int) string {
				return r.ok(hookOfA, "POST", "/v1/chat/"+kind.path+"/get-or-create",
					fmt.Sprintf(`{%s,"tags":{"aa":"all","mm":"%d","zz":"all"},"discriminateByTags":["aa","mm","zz"]}`, kind.rest, n), kind.member)["id"].(string)
			}
			var ids []string
			for n := range 150 {
				id := get(n)
				if slices.Contains(ids, id) {
					r.Fatalf("%s: %d is one that was there", kind.member, n)
				}
				ids = append(ids, id)
			}
			for _, n := range []int{0, 1, 75, 148, 149} {
				if id := get(n); id != ids[n] {
					r.Errorf("%s: %d is %s, want %s", kind.member, n, id, ids[n])
				}
			}
		}
	})
}
