package bot

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/internal/bus"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

const everything = `{
	"name":"Bella","description":"A bot.","url":"https://bella.example.com/hook","tags":{"team":"a","stage":"live"},
	"user":{"tags":{"language":{"title":"Language"},"plan":{"title":"Plan","description":"What they pay for.","colour":"red"}}},
	"conversation":{"tags":{"topic":{}}},"message":{"tags":{"mood":{"title":"Mood"}}},
	"states":{"counter":{"type":"conversation","schema":{"type":"object","z":1,"a":[1.0,2e3]},"expiry":5000,"workflow":"x"}},
	"events":{"nudge":{"title":"Nudge","schema":{"type":"object"},"attributes":{"a":"1"}}},
	"actions":{"add":{"title":"Add","billable":true,"cacheable":false,"input":{"schema":{"type":"object"}},"output":{"schema":{}},"attributes":{"b":"2"}}},
	"recurringEvents":{},"subscriptions":{"events":{"chat:custom":{}}},
	"configuration":{"data":{"greeting":"hi","token":"s3cret"},"schema":{"type":"object"}},
	"medias":[{"url":"https://x.example.com/1.png","name":"one"}],
	"futureMember":{"deep":[1,{"er":true}]},"maxExecutionTime":30,"alwaysAlive":true
}`

func TestCreateBot(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		for name, body := range map[string]string{"empty": `{}`, "everything": everything, "dev": `{"dev":true,"url":"http://127.0.0.1:8075"}`} {
			made := r.do(t, ours, "POST "+bots, body).want(t, 200, `"bot"`)
			made.golden(t, "createBot/"+name)
			botID := made.get(t, "bot", "id")
			if prefix := map[bool]string{true: "devbot", false: "bot"}[name == "dev"]; !id.Minted(prefix, botID) {
				t.Errorf("%s: the id is %s", name, botID)
			}
			if got := r.do(t, ours, "GET "+bots+"/"+botID, ""); string(got.body) != string(made.body) {
				t.Errorf("getBot shows another bot than createBot:\n%s", cmp.Diff(string(made.body), string(got.body)))
			}
			user, err := sqldb.Scalar[string](db.Reader(t.Context()), "SELECT bot_id FROM users WHERE id = $1", botID)
			if err != nil || user != botID {
				t.Errorf("%s: the bot's own user: %q, %v", name, user, err)
			}
		}
		if got := r.do(t, ours, "POST "+bots, `{"name":"n"}`).get(t, "bot", "signingSecret"); got == r.do(t, ours, "POST "+bots, `{"name":"n"}`).get(t, "bot", "signingSecret") {
			t.Errorf("two bots share the signing secret %s", got)
		}
	})
}

// What cannot be a bot leaves nothing behind.
func TestCreateBotRefuses(t *testing.T) {
	t.Parallel()
	many := func(n int, entry string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"key%d":%s`, i, entry)
		}
		return "{" + b.String()[1:] + "}"
	}
	big := `{"x":"` + strings.Repeat("x", 101<<10) + `"}`
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		for _, c := range []struct{ name, body, want string }{
			{"code", `{"code":"module.exports={}"}`, "code: this version of Parley does not run uploaded code yet"},
			{"empty code", `{"code":""}`, "code: this version"},
			{"code and url", `{"code":"x","url":"https://x.example.com"}`, "url and code exclude each other"},
			{"relative url", `{"url":"/hook"}`, "url must be an absolute http or https URL"},
			{"other scheme", `{"url":"ftp://x.example.com"}`, "url must be an absolute http or https URL"},
			{"no host", `{"url":"http:///x"}`, "url must be an absolute"},
			{"script", `{"url":"javascript:alert(1)"}`, "url must be an absolute"},
			{"broken url", `{"url":"http://[::1"}`, "url must be an absolute"},
			{"credentials", `{"url":"https://me:pw@x.example.com"}`, "url must not hold credentials"},
			{"long url", `{"url":"https://x.example.com/` + strings.Repeat("x", 2000) + `"}`, "url must have at most 2000"},
			{"null url", `{"url":null}`, "url must not be null"},
			{"empty name", `{"name":""}`, "name must not be empty"},
			{"number name", `{"name":1}`, "name must be a string"},
			{"long description", `{"description":"` + strings.Repeat("x", 2001) + `"}`, "description must have at most 2000"},
			{"integrations", `{"integrations":{"chat":{"integrationId":"` + chat10 + `"}}}`, "createBot installs nothing"},
			{"plugins", `{"plugins":{"p":{"id":"x"}}}`, "plugins: this version of Parley has no plugins"},
			{"secrets", `{"secrets":{"KEY":"v"}}`, "secrets: this version of Parley has no secrets"},
			{"tag key", `{"user":{"tags":{"Bad.Key":{}}}}`, "user.tags: \\\"Bad.Key\\\" is not a valid tag key"},
			{"bot tag key", `{"tags":{"x y":"1"}}`, "is not a valid tag key"},
			{"bot tag value", `{"tags":{"team":"` + strings.Repeat("x", 501) + `"}}`, "at most 500"},
			{"a state's schema that is none", `{"states":{"s":{"type":"bot","schema":{"type":"nothing"}}}}`, "InvalidJsonSchema"},
			{"an event's schema that is none", `{"events":{"e":{"schema":{"properties":[]}}}}`, "InvalidJsonSchema"},
			{"an action's schema that is none", `{"actions":{"a":{"input":{"schema":{"required":1}},"output":{"schema":{}}}}}`, "InvalidJsonSchema"},
			{"a configuration schema that is none", `{"configuration":{"schema":{"$ref":"file:///etc/passwd"}}}`, "InvalidJsonSchema"},
			{"many bot tags", `{"tags":` + many(51, `"x"`) + `}`, "LimitExceeded"},
			{"many tags", `{"message":{"tags":` + many(51, `{}`) + `}}`, "message.tags would have 51 entries, the limit is 50"},
			{"many states", `{"states":` + many(21, `{"type":"bot","schema":{}}`) + `}`, "states would have 21 entries, the limit is 20"},
			{"many events", `{"events":` + many(21, `{"schema":{}}`) + `}`, "events would have 21 entries, the limit is 20"},
			{"state type", `{"states":{"a":{"type":"galaxy","schema":{}}}}`, "states.a.type must be one of"},
			{"state schema", `{"states":{"a":{"type":"bot"}}}`, "states.a.schema is required"},
			{"schema text", `{"events":{"a":{"schema":"{}"}}}`, "events.a.schema must be an object"},
			{"state name", `{"states":{"":{"type":"bot","schema":{}}}}`, "states: the name"},
			{"large schema", `{"actions":{"a":{"input":{"schema":` + big + `},"output":{"schema":{}}}}}`, "actions.a.input.schema has"},
			{"large data", `{"configuration":{"data":` + big + `}}`, "configuration.data has"},
			{"data text", `{"configuration":{"data":"x"}}`, "configuration.data must be an object"},
			{"execution time", `{"maxExecutionTime":0}`, "maxExecutionTime must be at least 1"},
			{"title", `{"user":{"tags":{"plan":{"title":"` + strings.Repeat("x", 65) + `"}}}}`, "at most 64"},
			{"attribute", `{"events":{"a":{"schema":{},"attributes":{"x":"` + strings.Repeat("x", 201) + `"}}}}`, "at most 200"},
			{"large definition", `{"futureMember":"` + strings.Repeat("x", maxDefinition) + `"}`, "the definition would have"},
			{"malformed", `{"name":`, "InvalidPayload"},
			{"array", `[]`, "InvalidPayload"},
			{"twice", `{"name":"a","name":"b"}`, "InvalidPayload"},
			{"field name", `{"ID":"bot_x","Name":"y"}`, "is not a member"},
			{"zero byte", `{"name":"a\u0000"}`, "InvalidPayload"},
		} {
			got := r.do(t, ours, "POST "+bots, c.body)
			if got.status < 400 || got.status >= 500 || !strings.Contains(string(got.body), c.want) {
				t.Errorf("%s: got %d %s; want %q", c.name, got.status, got.body, c.want)
			}
		}
		r.do(t, ours, "POST "+bots, `{"name":"fails"}`).want(t, 500, "Internal")
		r.do(t, ours, "GET "+bots, "").want(t, 200, `"bots":[]`)
	})
}

func TestGetBot(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		botID := r.make(t, `{"name":"Bella"}`)
		r.do(t, ours, "GET "+bots+"/"+botID+"?shouldMergePlugins=true", "").golden(t, "getBot/ok")
		r.do(t, other, "GET "+bots+"/"+botID, "").golden(t, "getBot/foreign")
	})
}

// An id in the path that is unknown, foreign or no id is told alike, whatever the operation, and nothing changes.
func TestMissingBot(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		theirs := r.do(t, other, "POST "+bots, `{"name":"theirs"}`).get(t, "bot", "id")
		before := r.do(t, other, "GET "+bots+"/"+theirs, "").body
		for _, botID := range []string{theirs, "bot_01ZZZZZZZZZZZZZZZZZZZZZZZZ", "nonsense", "a%2Fb", "%27%20OR%201=1"} {
			for method, body := range map[string]string{"GET": "", "PUT": `{"name":"mine now"}`, "DELETE": ""} {
				got := r.do(t, ours, method+" "+bots+"/"+botID, body)
				if got.status != 404 || !strings.HasPrefix(got.get(t, "message"), `Bot "`) || !strings.HasSuffix(got.get(t, "message"), `" doesn't exist`) {
					t.Errorf("%s %s: got %d %s", method, botID, got.status, got.body)
				}
			}
		}
		if after := r.do(t, other, "GET "+bots+"/"+theirs, "").body; string(after) != string(before) {
			t.Errorf("somebody else's bot changed: %s", after)
		}
	})
}

func TestUpdateBot(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		botID := r.make(t, everything)
		before := string(r.put(t, botID, `{}`).body)
		r.clock.Add(1000)
		after := string(r.put(t, botID, `{}`).body)
		if want := strings.ReplaceAll(before, `"updatedAt":"2026-03-01T12:00:00.000Z"`, `"updatedAt":"2026-03-01T12:00:01.000Z"`); after != want {
			t.Errorf("an empty update changed:\n%s", cmp.Diff(want, after))
		}
		r.put(t, botID, `{
			"name":"Bob","tags":{"team":"","stage":null,"size":"xl"},
			"user":{"tags":{"language":null,"mood":{"title":"Mood"}}},
			"states":{"counter":null,"list":{"type":"user","schema":{"items":{}}}},
			"events":{"nudge":{"schema":{"type":"array"},"attributes":{"a":null,"c":"3"}}},
			"actions":{"add":{"input":{"schema":{}},"output":{"schema":{}}},"gone":null},
			"subscriptions":{"events":{"chat:custom":null,"chat:other":{}}},
			"configuration":{"data":{"greeting":"hello"}},"medias":[],"alwaysAlive":false,
			"recurringEvents":{"old":null},"plugins":{},"blocked":false,"layers":["x"],"authentication":"iam","shouldMergePlugins":true,"futureMember":null
		}`).golden(t, "updateBot/patch")
		if got := decode[botResult](t, r.put(t, botID, `{"subscriptions":{"events":null}}`)).Bot; !got.Subscriptions.Events.Null {
			t.Errorf("subscriptions are %+v, want null", got.Subscriptions)
		}
	})
}

// A request that is refused changes nothing, not even the parts of it that are in order.
func TestUpdateBotRefuses(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		botID := r.make(t, everything)
		r.put(t, botID, `{"integrations":{"chat":{"integrationId":"`+chat10+`"}}}`).want(t, 200, "chat")
		before := string(r.put(t, botID, `{}`).body)
		for _, c := range []struct{ name, body, want string }{
			{"code", `{"name":"x","code":"y"}`, "code: this version of Parley"},
			{"code and url", `{"code":"y","url":"https://x.example.com"}`, "url and code exclude each other"},
			{"url", `{"name":"x","url":"nowhere"}`, "url must be an absolute"},
			{"blocked", `{"blocked":true}`, "blocked: this version of Parley cannot block"},
			{"plugins", `{"plugins":{"p":{"id":"x"}}}`, "plugins.p: this version of Parley has no plugins"},
			{"secrets", `{"secrets":{"K":"v"}}`, "secrets: this version"},
			{"recurring", `{"recurringEvents":{"r":{}}}`, "recurringEvents.r.schedule is required"},
			{"authentication", `{"authentication":"none"}`, "authentication must be iam"},
			{"late limit", `{"name":"x","states":{` + strings.Repeat(`"s":null,`, 0) + manyStates(20) + `}}`, "states would have 21 entries"},
			{"unknown integration", `{"name":"x","integrations":{"foo":{"integrationId":"` + nobody + `"}}}`, "ReferenceNotFound"},
			{"malformed integration id", `{"integrations":{"foo":{"integrationId":"zzz"}}}`, "The provided UUID is invalid"},
			{"unknown integration key", `{"integrations":{"` + nobody + `":{}}}`, "ReferenceNotFound"},
			{"alias without integration", `{"integrations":{"foo":{"enabled":true}}}`, "nothing is installed under this alias"},
			{"alias form", `{"integrations":{"my.chat":{"integrationId":"` + chat10 + `"}}}`, "is not a valid alias"},
			{"alias with a colon", `{"integrations":{"my:chat":{"integrationId":"` + chat10 + `"}}}`, "is not a valid alias"},
			{"alias of another integration", `{"integrations":{"chat":{"integrationId":"` + hooky + `"}}}`, "RelationConflict"},
			{"spoken of twice", `{"integrations":{"chat":{"enabled":false},"` + chat10 + `":{"enabled":true}}}`, "speak of the same installation"},
			{"setting", `{"name":"x","integrations":{"chat":{"integrationId":"` + chat11 + `","configuration":{"encriptionKey":"k"}}}}`, "integrations.chat.configuration.encriptionKey is not a setting"},
			{"configuration type", `{"integrations":{"chat":{"configurationType":"nope"}}}`, "integrations.chat.configurationType"},
			{"large configuration", `{"integrations":{"chat":{"configuration":{"encryptionKey":"` + strings.Repeat("x", 20<<10) + `"}}}}`, "LimitExceeded"},
			{"channel", `{"integrations":{"chat":{"disabledChannels":["email"]}}}`, "has no channel"},
			{"many integrations", `{"integrations":{` + manyIntegrations(30) + `}}`, "the limit is 30"},
			{"field name", `{"Multiple":"false"}`, "is not a member"},
		} {
			got := r.put(t, botID, c.body)
			if got.status < 400 || got.status >= 500 || !strings.Contains(string(got.body), c.want) {
				t.Errorf("%s: got %d %s; want %q", c.name, got.status, got.body, c.want)
			}
		}
		if after := string(r.put(t, botID, `{}`).body); after != before {
			t.Errorf("refused updates changed the bot:\n%s", cmp.Diff(before, after))
		}
	})
}

func manyStates(n int) string {
	var s []string
	for i := range n {
		s = append(s, fmt.Sprintf(`"s%d":{"type":"bot","schema":{}}`, i))
	}
	return strings.Join(s, ",")
}

func manyIntegrations(n int) string {
	var s []string
	for i := range n {
		s = append(s, fmt.Sprintf(`"a%d":{"integrationId":"%s"}`, i, hooky))
	}
	return strings.Join(s, ",")
}

// What a newer client sends is kept and never shown, and told in the log once.
func TestUnknownMembersAreKept(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		botID := r.make(t, everything)
		r.put(t, botID, `{"anotherMember":"x","integrations":{"chat":{"integrationId":"`+chat10+`","priority":1}},"secrets":{}}`).want(t, 200, botID)
		r.put(t, botID, `{"anotherMember":"y"}`).want(t, 200, botID)
		stored, err := sqldb.Scalar[string](db.Reader(t.Context()), "SELECT definition FROM bots WHERE id = $1", botID)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{`"futureMember":{"deep":[1,{"er":true}]}`, `"anotherMember":"y"`, `"colour":"red"`, `"workflow":"x"`, `"schema":{"type":"object","z":1,"a":[1.0,2e3]}`} {
			if !strings.Contains(stored, want) {
				t.Errorf("%s is not in %s", want, stored)
			}
		}
		if strings.Contains(stored, "s3cret") || strings.Contains(stored, "secrets") {
			t.Errorf("a secret stands in clear: %s", stored)
		}
		for _, member := range []string{"futureMember", "anotherMember", "user.tags.*.colour", "states.*.workflow", "integrations.*.priority"} {
			if n := strings.Count(r.log.String(), "member="+member+"\n"); n != 1 {
				t.Errorf("%s was logged %d times", member, n)
			}
		}
	})
}

// Nothing secret stands in clear in the database.
func TestSecretsAreSealed(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		botID := r.make(t, everything)
		r.put(t, botID, `{"integrations":{"chat":{"integrationId":"`+chat10+`","configuration":{"encryptionKey":"k3yk3y"}}}}`).want(t, 200, "k3yk3y")
		q := db.Reader(t.Context())
		b, err := sqldb.One[row](q, "bots", "WHERE id = $1", botID)
		if err != nil {
			t.Fatal(err)
		}
		in, err := sqldb.One[installation](q, "installations", "WHERE bot_id = $1", botID)
		if err != nil {
			t.Fatal(err)
		}
		all := string(slices.Concat(b.SealedConfig, in.Sealed))
		for _, clear := range []string{"s3cret", "k3yk3y"} {
			if strings.Contains(all, clear) {
				t.Errorf("%s stands in clear", clear)
			}
		}
		if _, err := r.Box.Open(in.Sealed, b.ID+"/configuration"); err == nil {
			t.Error("a configuration opens under another owner")
		}
	})
}

func TestURLIsNeverShown(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		for _, dev := range []string{"true", "false"} {
			botID := r.make(t, `{"dev":`+dev+`}`)
			if b := r.shown(t, botID); b.DeployedAt != 0 {
				t.Errorf("deployed at %s without a place to run at", b.DeployedAt)
			}
			r.clock.Add(1000)
			got := r.put(t, botID, `{"url":"http://127.0.0.1:8075/x"}`)
			if got.want(t, 200, `"deployedAt"`); strings.Contains(string(got.body), "8075") {
				t.Errorf("the url is shown: %s", got.body)
			}
			for body, want := range map[string]string{`{}`: "http://127.0.0.1:8075/x", `{"name":"n"}`: "http://127.0.0.1:8075/x"} {
				r.put(t, botID, body).want(t, 200, botID)
				if d, err := r.Definition(t.Context(), botID); err != nil || d.URL != want {
					t.Errorf("after %s: %+v, %v", body, d, err)
				}
			}
			r.put(t, botID, `{"url":null}`).want(t, 200, botID)
			if d, err := r.Definition(t.Context(), botID); err != nil || d.URL != "" {
				t.Errorf("after null: %+v, %v", d, err)
			}
		}
	})
}

func TestDeleteBot(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		var deleting []string
		r.Deleting = func(_ *sqldb.Tx, botID string) error { deleting = append(deleting, botID); return nil }
		botID, kept := r.make(t, `{}`), r.make(t, `{}`)
		r.put(t, botID, `{"integrations":{"chat":{"integrationId":"`+chat10+`"}}}`).want(t, 200, "chat")
		d, err := r.Definition(t.Context(), botID)
		if err != nil {
			t.Fatal(err)
		}
		in := d.Installations[0]
		if found, _, err := r.ByWebhook(t.Context(), in.WebhookID); err != nil || found == nil {
			t.Fatalf("%v, %v", found, err)
		}
		r.do(t, ours, "DELETE "+bots+"/"+botID, "{}").want(t, 200, "{}").golden(t, "deleteBot/ok")

		r.do(t, ours, "GET "+bots+"/"+botID, "").want(t, 404, "doesn't exist")
		r.do(t, ours, "DELETE "+bots+"/"+botID, "").want(t, 404, "doesn't exist")
		r.do(t, ours, "GET "+bots, "").want(t, 200, kept)
		if b, err := r.Bot(t.Context(), botID); b != nil || err != nil {
			t.Errorf("the directory still has %v, %v", b, err)
		}
		if found, _, err := r.ByWebhook(t.Context(), in.WebhookID); found != nil || err != nil {
			t.Errorf("its door is still open: %v, %v", found, err)
		}
		if n, err := sqldb.Scalar[int64](db.Reader(t.Context()), "SELECT COUNT(*) FROM installations WHERE bot_id = $1", botID); n != 0 || err != nil {
			t.Errorf("%d installations are left, %v", n, err)
		}
		if kind, err := sqldb.Scalar[string](db.Reader(t.Context()), "SELECT kind FROM tombstones WHERE id = $1 AND bot_id = $1", botID); kind != "bot" || err != nil {
			t.Errorf("tombstone %q, %v", kind, err)
		}
		if !slices.Contains(deleting, botID) || slices.Contains(deleting, kept) || !slices.Equal(r.ended, []string{in.ID}) || !slices.Contains(r.changed, botID) {
			t.Errorf("told: deleting %v, ended %v, changed %v", deleting, r.ended, r.changed)
		}
	})
}

func TestListBots(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		r.do(t, other, "POST "+bots, `{"name":"theirs","tags":{"team":"a"}}`).want(t, 200, "theirs")
		var made []string
		for i := range 45 {
			r.clock.Add(1000)
			made = append(made, r.make(t, fmt.Sprintf(`{"name":"b%d","dev":%v,"tags":{"team":"t%d","quote":"a\"b: x"}}`, i, i%2 == 0, i%3)))
		}
		r.clock.Add(1000)
		r.put(t, made[7], `{"description":"touched"}`).want(t, 200, made[7])

		newest := slices.Clone(made)
		slices.Reverse(newest)
		if got, pages := r.list(t, ""); !slices.Equal(got, newest) || pages != 3 {
			t.Errorf("%d pages, %d bots", pages, len(got))
		}
		if got, _ := r.list(t, "sortDirection=asc&sortField=createdAt"); !slices.Equal(got, made) {
			t.Errorf("oldest first: %v", got)
		}
		if got, _ := r.list(t, "sortField=updatedAt"); got[0] != made[7] || got[1] != made[44] || len(got) != 45 {
			t.Errorf("by update: %v", got)
		}
		count := func(query string, want int) {
			t.Helper()
			if got, _ := r.list(t, query); len(got) != want {
				t.Errorf("%s: %d bots, want %d", query, len(got), want)
			}
		}
		count("dev=true", 23)
		count("dev=false", 22)
		count("tags.team=t1", 15)
		count("tags[team]=t1&dev=true", 7)
		count("tags.team=t", 0)
		count("tags.team=T1", 0)
		count("tags.team=t1&tags.other=x", 0)
		count("tags.quote=a%22b%3A%20x", 45)
		count("tags.quote=%25", 0)
		count("tags.b=x", 0)

		first := decode[botList](t, r.do(t, ours, "GET "+bots, ""))
		if want := []string{"createdAt", "id", "name", "tags", "updatedAt"}; len(first.Bots) != 20 || !slices.Equal(members0(t, r.do(t, ours, "GET "+bots, "")), want) {
			t.Errorf("%d bots with members %v", len(first.Bots), members0(t, r.do(t, ours, "GET "+bots, "")))
		}
		for query, workspace := range map[string]string{"": other, "dev=true": ours, "sortDirection=asc": ours, "tags.team=t1": ours} {
			r.do(t, workspace, "GET "+bots+"?"+query+"&nextToken="+first.Meta.NextToken, "").want(t, 400, "InvalidQuery")
		}
		r.do(t, ours, "GET "+bots+"?nextToken=zzz", "").want(t, 400, "InvalidQuery")
		r.do(t, ours, "GET "+bots+"?sortField=name", "").want(t, 400, "InvalidQuery")
		r.do(t, ours, "GET "+bots+"?dev=maybe", "").want(t, 400, "InvalidQuery")
		r.do(t, other, "GET "+bots, "").golden(t, "listBots/ok")
	})
}

// list reads a list to its end.
func (r *rig) list(t *testing.T, query string) (ids []string, pages int) {
	t.Helper()
	for next := ""; ; {
		got := decode[botList](t, r.do(t, ours, "GET "+bots+"?"+query+"&nextToken="+next, ""))
		pages++
		for _, b := range got.Bots {
			ids = append(ids, b.ID)
		}
		if next = got.Meta.NextToken; next == "" {
			return ids, pages
		}
	}
}

// members0 names the members of the first bot of a list.
func members0(t *testing.T, a answer) []string {
	t.Helper()
	all := decode[struct {
		Bots []map[string]any `json:"bots"`
	}](t, a)
	var names []string
	for name := range all.Bots[0] {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// A repeated createBot under one key makes one bot.
func TestCreateBotOnce(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		a := r.do(t, ours, "POST "+bots, `{"name":"x"}`, "Idempotency-Key: k").want(t, 200, "x")
		b := r.do(t, ours, "POST "+bots, `{"name":"x"}`, "Idempotency-Key: k").want(t, 200, "x")
		if string(a.body) != string(b.body) {
			t.Errorf("first %s, then %s", a.body, b.body)
		}
		r.do(t, ours, "POST "+bots, `{"name":"y"}`, "Idempotency-Key: k").want(t, 400, "Idempotency-Key")
		if got, _ := r.list(t, ""); len(got) != 1 {
			t.Errorf("%d bots", len(got))
		}
	})
}

func TestNewChecksConfig(t *testing.T) {
	t.Parallel()
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "is missing") {
		t.Errorf("got %v", err)
	}
}

func TestSeed(t *testing.T) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		r := newRig(t, db, bus.NewLocal(), 0)
		ctx := t.Context()
		botID, err := r.Create(ctx, NewBot{WorkspaceID: ours, AccountID: "accnt_1", Name: "Echo", Builtin: "echo"})
		if err != nil {
			t.Fatal(err)
		}
		in, err := r.Install(ctx, botID, "chat", chat10, nil)
		if err != nil || in.Alias != "chat" || !in.Enabled || in.WebhookURL != "https://bots.example.com/"+in.WebhookID {
			t.Fatalf("%+v, %v", in, err)
		}
		again, err := r.Install(ctx, botID, "chat", chat11, []byte(`{"encryptionKey":"k"}`))
		if err != nil || again.ID != in.ID || again.WebhookID != in.WebhookID || again.Version != "1.1.0" {
			t.Fatalf("%+v, %v", again, err)
		}
		d, err := r.Definition(ctx, botID)
		if err != nil || d.Builtin != "echo" || d.URL != "" || d.Name != "Echo" || string(d.Installations[0].Configuration) != `{"encryptionKey":"k"}` {
			t.Errorf("%+v, %v", d, err)
		}
		if b := r.shown(t, botID); b.DeployedAt == 0 || b.CreatedBy != "accnt_1" {
			t.Errorf("%+v", b)
		}
		r.put(t, botID, `{"url":"https://x.example.com"}`).want(t, 400, "this bot runs inside Parley")
		r.put(t, botID, `{"builtin":"other","url":null}`).want(t, 200, botID)
		if d, _ = r.Definition(ctx, botID); d.Builtin != "echo" {
			t.Error("a request changed what runs inside Parley")
		}
		if _, err := r.Install(ctx, "bot_01ZZZZZZZZZZZZZZZZZZZZZZZZ", "chat", chat10, nil); !fault.Is(err, fault.ResourceNotFound) {
			t.Errorf("got %v", err)
		}
		if _, err := r.Create(ctx, NewBot{WorkspaceID: ours, Name: "fails"}); err == nil {
			t.Error("a bot without a user was made")
		}
	})
}
