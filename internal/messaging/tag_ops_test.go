package messaging

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/internal/sqldb"
)

// tagValues reads the values of a tag to the end of the list.
func (r *rig) tagValues(who as, kind, key string, between func()) []string {
	r.Helper()
	values := []string{}
	token := ""
	for {
		out := r.ok(who, "GET", "/v1/chat/tags/"+url.PathEscape(key)+"/values?type="+kind+token, "", "")
		for _, row := range out["tags"].([]any) {
			values = append(values, row.(map[string]any)["value"].(string))
		}
		next, more := out["meta"].(map[string]any)["nextToken"]
		if !more {
			return values
		}
		token = "&nextToken=" + next.(string)
		if between != nil {
			between()
		}
	}
}

// declare sets what botA declares; nil is nothing.
func (r *rig) declare(rules *Rules) {
	r.town.mu.Lock()
	defer r.town.mu.Unlock()
	r.town.rules[botA] = rules
}

func TestTagValuesInEachView(t *testing.T) {
	each(t, func(r *rig) {
		for _, fid := range []string{"u2", "u1", "U3"} {
			r.user(chatOfA, `{"fid":"`+fid+`"}`)
		}
		hooked := r.user(hookOfA, `{"fid":"h1","lang":"en"}`)
		r.user(hookOfA, `{"fid":"h2","lang":"en"}`)
		r.user(chatOfB, `{"fid":"b1"}`)
		r.ok(botOfA, "PUT", "/v1/chat/users/"+hooked, `{"tags":{"fid":"mine","tier":"gold"}}`, "user")
		conv := r.conversation(hookOfA, "hook", `{"fid":"c1"}`)
		m := r.message(hookOfA, conv, hooked, "x")["id"].(string)
		r.ok(hookOfA, "PUT", "/v1/chat/messages/"+m, `{"tags":{"fid":"m1"}}`, "message")
		for _, c := range []struct {
			who       as
			kind, key string
			want      []string
		}{
			{botOfA, "user", "chat:fid", []string{"U3", "u1", "u2"}},
			{botOfA, "user", "acme/hooky:fid", []string{"h1", "h2"}},
			{botOfA, "user", "hooky:lang", []string{"en"}}, // the name of the integration means its one installation
			{botOfA, "user", "fid", []string{"mine"}},
			{botOfA, "user", "tier", []string{"gold"}},
			{botOfA, "user", "slack:fid", nil},
			{botOfA, "conversation", "acme/hooky:fid", []string{"c1"}},
			{botOfA, "message", "acme/hooky:fid", []string{"m1"}},
			{botOfA, "message", "chat:fid", nil},
			{chatOfA, "user", "fid", []string{"U3", "u1", "u2"}},
			{chatOfA, "user", "chat:fid", []string{"U3", "u1", "u2"}},
			{chatOfA, "user", "acme/hooky:fid", nil},
			{chatOfA, "user", "tier", nil},
			{chatOfA, "conversation", "fid", nil},
			{hookOfA, "user", "fid", []string{"h1", "h2"}},
			{hookOfA, "user", "chat:fid", nil},
			{hookOfA, "conversation", "fid", []string{"c1"}},
			{botOfB, "user", "chat:fid", []string{"b1"}},
			{botOfB, "user", "tier", nil},
		} {
			if diff := cmp.Diff(append([]string{}, c.want...), r.tagValues(c.who, c.kind, c.key, nil)); diff != "" {
				r.Errorf("%v lists %s of %s: %s", c.who, c.key, c.kind, diff)
			}
		}
		r.declare(&Rules{Tags: map[string]map[string]int{"user": {"vip": 500}}})
		if got := r.tagValues(botOfA, "user", "tier", nil); len(got) != 0 {
			r.Errorf("a tag that the bot no longer declares has %v", got)
		}
		r.declare(nil)
		r.ok(hookOfA, "PUT", "/v1/chat/users/"+hooked, `{"tags":{"fid":"h9","lang":""}}`, "user")
		if got := r.tagValues(hookOfA, "user", "fid", nil); cmp.Diff([]string{"h2", "h9"}, got) != "" {
			r.Errorf("after a change: %v", got)
		}
		r.ok(hookOfA, "DELETE", "/v1/chat/users/"+hooked, "{}", "")
		if got := r.tagValues(botOfA, "user", "tier", nil); len(got) != 0 {
			r.Errorf("a deleted user leaves %v", got)
		}
	})
}

func TestTagValuesPage(t *testing.T) {
	each(t, func(r *rig) {
		want := []string{}
		for n := range 45 {
			// The longest values there are end the pages, too, and three have each value.
			v := fmt.Sprintf("%02d%s", n, strings.Repeat("𝕏", 498))
			want = append(want, v)
			for range 3 {
				r.user(hookOfA, `{"long":"`+v+`"}`)
			}
		}
		added := 0
		got := r.tagValues(hookOfA, "user", "long", func() {
			r.user(hookOfA, fmt.Sprintf(`{"long":"!before %d"}`, added))
			r.user(hookOfA, `{"long":"`+want[44]+`"}`)
			added++
		})
		if added != 2 || cmp.Diff(want, got) != "" {
			r.Errorf("%d pages: %s", added+1, cmp.Diff(want, got))
		}
		first := r.ok(hookOfA, "GET", "/v1/chat/tags/long/values?type=user", "", "")
		token := first["meta"].(map[string]any)["nextToken"].(string)
		for name, target := range map[string]string{
			"another key":          "/v1/chat/tags/other/values?type=user&nextToken=" + token,
			"another type":         "/v1/chat/tags/long/values?type=message&nextToken=" + token,
			"a token that is none": "/v1/chat/tags/long/values?type=user&nextToken=abc",
		} {
			if status, out := r.do(hookOfA, "GET", target, ""); status != 400 || out["type"] != "InvalidQuery" {
				r.Errorf("%s: %d %v", name, status, out)
			}
		}
		if status, out := r.do(botOfA, "GET", "/v1/chat/tags/long/values?type=user&nextToken="+token, ""); status != 400 {
			r.Errorf("another's token: %d %v", status, out)
		}
	})
}

func TestTagValuesRefuse(t *testing.T) {
	each(t, func(r *rig) {
		for target, says := range map[string]string{
			"/v1/chat/tags/fid/values":                                           "type is required",
			"/v1/chat/tags/fid/values?type=":                                     "type must be",
			"/v1/chat/tags/fid/values?type=event":                                "type must be",
			"/v1/chat/tags/fid/values?type=user&type=user":                       "twice",
			"/v1/chat/tags/fid/values?type=user&limit=3":                         "limit",
			"/v1/chat/tags/f/values?type=user":                                   `"f" is not a valid tag key`,
			"/v1/chat/tags/Fid/values?type=user":                                 `"Fid" is not a valid tag key`,
			"/v1/chat/tags/a.b/values?type=user":                                 `"a.b" is not a valid tag key`,
			"/v1/chat/tags/chat%3A/values?type=user":                             `"" is not a valid tag key`,
			"/v1/chat/tags/" + strings.Repeat("k", 101) + "/values?type=message": "is not a valid tag key",
		} {
			if status, out := r.do(botOfA, "GET", target, ""); status != 400 || !strings.Contains(out["message"].(string), says) {
				r.Errorf("%s: got %d %v, want %q", target, status, out, says)
			}
		}
	})
}

// What each of the three may write is the same on all that carries tags.
func TestTagRulesInEachView(t *testing.T) {
	each(t, func(r *rig) {
		long := strings.Repeat("é", 500)
		declared := map[string]int{"tier": 500, "note": 500}
		r.declare(&Rules{Tags: map[string]map[string]int{"user": declared, "conversation": declared, "message": declared}})
		conv, user := r.conversation(chatOfA, "channel", `{"fid":"c"}`), r.user(chatOfA, `{"fid":"u"}`)
		m := r.message(chatOfA, conv, user, "x")["id"].(string)
		hookConv, hookUser := r.conversation(hookOfA, "hook", `{"fid":"c"}`), r.user(hookOfA, `{"fid":"u"}`)
		hookM := r.message(hookOfA, hookConv, hookUser, "x")["id"].(string)
		for _, e := range []struct{ member, ours, others string }{
			{"user", "/v1/chat/users/" + user, "/v1/chat/users/" + hookUser},
			{"conversation", "/v1/chat/conversations/" + conv, "/v1/chat/conversations/" + hookConv},
			{"message", "/v1/chat/messages/" + m, "/v1/chat/messages/" + hookM},
		} {
			for _, c := range []struct {
				name, path string
				who        as
				tags, says string
			}{
				{"the bot's own", e.ours, botOfA, `{"tier":"` + long + `"}`, ""},
				{"501 characters", e.ours, botOfA, `{"tier":"` + long + `x"}`, "tags.tier must have at most 500 characters"},
				{"a key with an underscore", e.ours, botOfA, `{"my_tier":"x"}`, `"my_tier"`},
				{"undeclared", e.ours, botOfA, `{"other":"x"}`, "tags.other is not declared"},
				{"an installation's, by the bot", e.ours, botOfA, `{"chat:fid":"x"}`, "tags.chat:fid belongs to an integration"},
				{"nobody's", e.ours, botOfA, `{"slack:fid":"x"}`, "tags.slack:fid belongs to an integration"},
				{"the bot's, by an installation", e.others, hookOfA, `{"acme/hooky:tier":"x"}`, ""},
				{"another installation's", e.others, hookOfA, `{"chat:fid":"x"}`, "tags.chat:fid is not a tag of this integration"},
				{"of another installation's thing", e.ours, hookOfA, `{"fid":"x"}`, "doesn't exist"},
				{"of another bot's thing", e.ours, botOfB, `{"tier":"x"}`, "doesn't exist"},
			} {
				status, out := r.do(c.who, "PUT", c.path, `{"tags":`+c.tags+`}`)
				if c.says == "" && status != 200 || c.says != "" && (status < 400 || status >= 500 || !strings.Contains(out["message"].(string), c.says)) {
					r.Errorf("%s of a %s: got %d %v", c.name, e.member, status, out)
				}
			}
			r.ok(botOfA, "PUT", e.others, `{"tags":{"note":"1"}}`, e.member)
			seen := r.ok(hookOfA, "GET", e.others, "", e.member)["tags"].(map[string]any)
			if seen["tier"] != "x" || seen["note"] != nil {
				r.Errorf("the installation sees %v on its %s", seen, e.member)
			}
			r.ok(hookOfA, "PUT", e.others, `{"tags":{"tier":"","fid":null}}`, e.member)
			if diff := cmp.Diff(map[string]any{"note": "1"}, r.ok(botOfA, "GET", e.others, "", e.member)["tags"]); diff != "" {
				r.Errorf("after removal the bot sees on a %s: %s", e.member, diff)
			}
		}
	})
}

func TestNoEntityHasMoreTagsThanADefinitionMayName(t *testing.T) {
	each(t, func(r *rig) {
		tags := func(from, to int) string {
			var b []string
			for n := from; n < to; n++ {
				b = append(b, fmt.Sprintf(`"tag%02d":"x"`, n))
			}
			return "{" + strings.Join(b, ",") + "}"
		}
		user := r.user(hookOfA, tags(0, 50))
		for _, c := range []struct {
			method, path string
		}{{"PUT", "/v1/chat/users/" + user}, {"POST", "/v1/chat/users"}} {
			body := map[string]string{"PUT": tags(50, 51), "POST": tags(0, 51)}[c.method]
			if status, out := r.do(hookOfA, c.method, c.path, `{"tags":`+body+`}`); status != 413 || !strings.Contains(out["message"].(string), "tags") {
				r.Errorf("%s: %d %v", c.method, status, out)
			}
		}
		r.ok(hookOfA, "PUT", "/v1/chat/users/"+user, `{"tags":{"tag00":"","other":"x"}}`, "user")
		r.ok(botOfA, "PUT", "/v1/chat/users/"+user, `{"tags":{"mine":"x"}}`, "user")
	})
}

// A value that nothing can compress still fits the index.
func TestTheLongestTagsFit(t *testing.T) {
	each(t, func(r *rig) {
		random := func(n int) string {
			var b strings.Builder
			for range n {
				b.WriteRune(rune(0x4e00 + rand.IntN(0x5000)))
			}
			return b.String()
		}
		profile := random(1000)
		key := "k" + strings.Repeat("e", 99)
		user := r.user(chatOfA, `{"profile":"`+profile+`"}`)
		r.user(hookOfA, `{"`+key+`":"`+random(500)+`"}`)
		if got := r.pages(chatOfA, "/v1/chat/users?tags.profile="+url.QueryEscape(profile), "users", nil); !slices.Equal(got, []string{user}) {
			r.Errorf("the tag finds %v", got)
		}
		if got := r.tagValues(botOfA, "user", "chat:profile", nil); !slices.Equal(got, []string{profile}) {
			r.Errorf("the values are %d", len(got))
		}
	})
}

func TestTagValuesThatManyShare(t *testing.T) {
	each(t, func(r *rig) {
		for v := range 30 {
			for chunk := range 4 {
				r.write(func(tx *sqldb.Tx) error {
					_, err := tx.Exec(`INSERT INTO tags (bot_id, kind, owner, key, value, created_at, entity)
						WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
						SELECT $1, 'user', $2, 'lang', $3, i, $4 || i FROM n`, botA, hookA, fmt.Sprintf("v%02d", v), fmt.Sprintf("user_%d_%d_", v, chunk))
					return err
				})
			}
		}
		if got := r.tagValues(hookOfA, "user", "lang", nil); len(got) != 30 || got[0] != "v00" || got[29] != "v29" {
			r.Errorf("listed %v", got)
		}
	})
}
