package catalog

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/internal/api"
	"parley/internal/bus"
	"parley/internal/fault"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// full is a definition with everything that the published schema has.
const full = `{
	"name":"acme/hooky","version":"0.2.0","title":"Hooky","description":"Brings what a webhook says.",
	"icon":"PHN2Zy8+","readme":"IyBIb29reQ==","url":"https://hooky.example.com/parley","visibility":"private","sdkVersion":"5.4.3",
	"configuration":{"title":"Basic","schema":{"type":"object","properties":{"token":{"type":"string"}},"required":["token"],"additionalProperties":false},
		"identifier":{"required":true,"linkTemplateScript":"to_string!(.webhookId)"}},
	"configurations":{"oauth":{"description":"With an account","schema":{"type":"object","properties":{"scope":{"type":"string"}}}}},
	"states":{"session":{"type":"integration","schema":{"type":"object"}},"cursor":{"type":"conversation","schema":{"type":"object"}}},
	"events":{"received":{"title":"Received","schema":{"type":"object","properties":{"a":{"type":"number"}}},"attributes":{"x":"y"}}},
	"actions":{"ping":{"title":"Ping","billable":false,"cacheable":true,
		"input":{"schema":{"type":"object","properties":{"n":{"type":"number"}},"required":["n"],"additionalProperties":false}},
		"output":{"schema":{"type":"object","properties":{"pong":{"type":"number"}},"required":["pong"]}},"attributes":{"k":"v"}}},
	"entities":{"ticket":{"title":"Ticket","schema":{"type":"object"}}},
	"attributes":{"category":"support"},
	"identifier":{"extractScript":"parse_json!(.body).team","fallbackHandlerScript":"{\"status\":200}"},
	"sandbox":{"identifierExtractScript":".body"},
	"channels":{"channel":{"title":"Channel","messages":{"text":{"schema":{"type":"object","properties":{"text":{"type":"string"}}}}},
		"conversation":{"tags":{"id":{"title":"Id"}},"creation":{"enabled":true,"requiredTags":["id"]}},"message":{"tags":{"id":{}}}}},
	"user":{"tags":{"id":{"description":"Id outside"}},"creation":{"enabled":false,"requiredTags":[]}},
	"interfaces":{"hitl":{"id":"ifver_01HZZZZZZZZZZZZZZZZZZZZZZZ","name":"hitl","version":"1.0.0","actions":{"startHitl":{"name":"startHitl"}}}},
	"extraOperations":{"message_updated":{"enabled":true},"conversation_updated":{"enabled":false}},
	"maxExecutionTime":60,
	"secrets":{"CLIENT_SECRET":"s3cr3t-of-hooky","SIGNING":"another"},
	"somethingNew":{"a":[1,2]}}`

// created masks the ids of integrations that were made by a test.
var created = regexp.MustCompile(`(intver|devint)_01[A-Z0-9]{24}`)

func (a answer) goldenMade(t *testing.T, name string) {
	t.Helper()
	answer{a.status, created.ReplaceAll(a.body, []byte("${1}_…"))}.golden(t, name)
}

func TestCreateIntegration(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		made := r.do(t, wsA, "POST "+own, full)
		made.goldenMade(t, "createIntegration/full")
		d := made.integration(t)
		if !strings.HasPrefix(d.ID, "intver_") {
			t.Errorf("the id is %s", d.ID)
		}
		got := r.do(t, wsA, "GET "+own+"/"+d.ID, "")
		if !bytes.Equal(got.body, made.body) {
			t.Errorf("getIntegration answers\n%s\ncreateIntegration answered\n%s", got.body, made.body)
		}
		r.do(t, wsA, "POST "+own, `{"name":"plain","version":"1.0.0"}`).goldenMade(t, "createIntegration/plain")
		r.do(t, wsA, "POST "+own, `{"name":"plain","version":"1.0.0","dev":true,"url":"http://127.0.0.1:8076"}`).goldenMade(t, "createIntegration/dev")
		// What this version does not know is kept for a client that does.
		text, err := sqldb.Scalar[string](r.DB.Reader(t.Context()), "SELECT definition FROM integrations WHERE id = $1", d.ID)
		if err != nil || !strings.Contains(text, `"somethingNew":{"a":[1,2]}`) || strings.Contains(text, "s3cr3t") {
			t.Errorf("the database holds %s, %v", text, err)
		}
	})
}

func TestLookup(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		d, err := r.Lookup(t.Context(), r.create(t, wsA, full).ID)
		if err != nil || d == nil {
			t.Fatal(d, err)
		}
		if d.URL != "https://hooky.example.com/parley" || !d.Outside() || d.WorkspaceID != wsA || d.Family() != wsA+"/acme/hooky" || d.Limit().Seconds() != 60 || d.SDKVersion != "5.4.3" {
			t.Errorf("got %+v", d)
		}
		if d.SecretValues["CLIENT_SECRET"] != "s3cr3t-of-hooky" || len(d.SecretValues) != 2 {
			t.Errorf("%d secrets are open", len(d.SecretValues))
		}
		if diff := cmp.Diff(map[string]bool{"message_updated": true}, d.ExtraOperations); diff != "" {
			t.Error(diff)
		}
		want := map[string]map[string]int{"user": {"id": 500}, "conversation": {"id": 500}, "message": {"id": 500}}
		if diff := cmp.Diff(want, d.Tags()); diff != "" {
			t.Error(diff)
		}
		if !d.Cacheable("ping") || d.Cacheable("pong") {
			t.Error("ping is cacheable, and nothing else is")
		}
		if again, _ := r.Lookup(t.Context(), d.ID); again != d {
			t.Error("the second look-up does not come from memory")
		}
		for _, c := range []struct {
			err  error
			kind *fault.Kind
			want string
		}{
			{d.ValidateInput("ping", api.Object(`{"n":1}`)), nil, ""},
			{d.ValidateInput("ping", nil), fault.InvalidDataFormat, "input.n is required"},
			{d.ValidateInput("ping", api.Object(`{"n":"1"}`)), fault.InvalidDataFormat, "input.n must be a number"},
			{d.ValidateInput("ping", api.Object(`{"n":1,"m":2}`)), fault.InvalidDataFormat, "input.m is not a member"},
			{d.ValidateInput("pong", api.Object(`{}`)), fault.InvalidPayload, `has no action "pong"; it has ping`},
			{d.ValidateOutput("ping", api.Object(`{"pong":1,"more":2}`)), nil, ""},
			{d.ValidateOutput("ping", api.Object(`{"pong":null}`)), fault.InvalidDataFormat, "output.pong must be a number"},
			{d.ValidateOutput("pong", api.Object(`{}`)), fault.InvalidPayload, "has no action"},
			{d.CheckConfiguration("", api.Object(`{"token":"t"}`)), nil, ""},
			{d.CheckConfiguration("", nil), fault.InvalidDataFormat, "configuration.token is required"},
			{d.CheckConfiguration("", api.Object(`{"token":7}`)), fault.InvalidDataFormat, "configuration.token must be a string"},
			{d.CheckConfiguration("oauth", api.Object(`{"scope":"all"}`)), nil, ""},
			{d.CheckConfiguration("oauth", api.Object(`{"scope":[]}`)), fault.InvalidDataFormat, "configuration.scope must be a string"},
			{d.CheckConfiguration("saml", nil), fault.InvalidPayload, `configurationType "saml" is not one that integration "acme/hooky" 0.2.0 has; it has oauth`},
		} {
			if c.kind == nil && c.err != nil || c.kind != nil && (!fault.Is(c.err, c.kind) || !strings.Contains(c.err.Error(), c.want)) {
				t.Errorf("got %v, want %q", c.err, c.want)
			}
		}
	})
}

// Secrets are written and never read back, in whatever way one asks.
func TestSecretsStaySecret(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		d := r.create(t, wsA, full)
		r.do(t, wsA, "PUT "+own+"/"+d.ID, `{"secrets":{"CLIENT_SECRET":"changed-s3cr3t","SIGNING":null,"MORE":""}}`).want(t, 200, `"secrets":["CLIENT_SECRET","MORE"]`)
		for _, request := range []string{own, own + "/" + d.ID, own + "/acme%2Fhooky/latest", own + "?search=s3cr3t"} {
			if got := r.do(t, wsA, "GET "+request, ""); got.status != 200 || bytes.Contains(got.body, []byte("s3cr3t")) {
				t.Errorf("%s answers %d %s", request, got.status, got.body)
			}
		}
		sealed, err := sqldb.Scalar[[]byte](r.DB.Reader(t.Context()), "SELECT secrets FROM integrations WHERE id = $1", d.ID)
		if err != nil || len(sealed) == 0 || bytes.Contains(sealed, []byte("s3cr3t")) || strings.Contains(r.log.String(), "s3cr3t") {
			t.Errorf("the secrets lie open: %s, %v; log: %s", sealed, err, r.log.String())
		}
		got, err := r.Lookup(t.Context(), d.ID)
		if err != nil || got.SecretValues["CLIENT_SECRET"] != "changed-s3cr3t" || len(got.SecretValues) != 2 {
			t.Errorf("the integration would get %d secrets, %v", len(got.SecretValues), err)
		}
	})
}

func TestCreateIntegrationRefuses(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		r.homes.handles[wsB] = "acme"
		with := func(member string) string { return `{"name":"x","version":"1.0.0",` + member + `}` }
		many := func(n int, entry string) string {
			var b strings.Builder
			for i := range n {
				fmt.Fprintf(&b, `,"n%d":%s`, i, entry)
			}
			return "{" + b.String()[1:] + "}"
		}
		for _, c := range []struct {
			body   string
			status int
			want   string
		}{
			{`{}`, 400, "name is required"},
			{`{"name":"x"}`, 400, "version is required"},
			{`{"name":7,"version":"1.0.0"}`, 400, "name must be a string"},
			{`{"name":"","version":"1.0.0"}`, 400, "InvalidIdentifier"},
			{`{"name":"a b","version":"1.0.0"}`, 400, "InvalidIdentifier"},
			{`{"name":"a/b/c","version":"1.0.0"}`, 400, "InvalidIdentifier"},
			{`{"name":"/b","version":"1.0.0"}`, 400, "InvalidIdentifier"},
			{`{"name":"a/","version":"1.0.0"}`, 400, "InvalidIdentifier"},
			{`{"name":"a:b","version":"1.0.0"}`, 400, "InvalidIdentifier"},
			{`{"name":"7a","version":"1.0.0"}`, 400, "InvalidIdentifier"},
			{`{"name":"é","version":"1.0.0"}`, 400, "InvalidIdentifier"},
			{`{"name":"a\u0000b","version":"1.0.0"}`, 400, `name`},
			{`{"name":"` + strings.Repeat("x", 201) + `","version":"1.0.0"}`, 400, "name must have at most 200"},
			{`{"name":"chat","version":"1.0.0"}`, 409, `\"chat\" is an integration that Parley brings along`},
			{`{"name":"Chat","version":"1.0.0"}`, 409, "AlreadyExists"},
			{`{"name":"acme/x","version":"1.0.0"}`, 400, `\"acme\" is the handle of another workspace`},
			{`{"name":"x","version":"1"}`, 400, "version must have the form 1.2.3"},
			{`{"name":"x","version":"v1.0.0"}`, 400, "version must have the form 1.2.3"},
			{`{"name":"x","version":"latest"}`, 400, "version must have the form 1.2.3"},
			{`{"name":"x","version":">=1.0.0"}`, 400, "version must have the form 1.2.3"},
			{`{"name":"x","version":"01.0.0"}`, 400, "version must have the form 1.2.3"},
			{`{"name":"x","version":"1.0.0+build"}`, 400, "ends with +build"},
			{with(`"url":"http://x","code":"module.exports = {}"`), 400, "url and code exclude each other"},
			{with(`"code":"module.exports = {}"`), 400, "does not run uploaded code yet, it is planned"},
			{with(`"url":"ftp://x"`), 400, "url must be an absolute http"},
			{with(`"url":"/relative"`), 400, "url must be an absolute http"},
			{with(`"url":"http://a:b@x/"`), 400, "url must not hold credentials"},
			{with(`"url":"http://` + strings.Repeat("x", 2000) + `"`), 400, "url must have at most 2000"},
			{with(`"visibility":"secret"`), 400, "visibility must be one of"},
			{with(`"visibility":"private","public":true`), 400, "public and visibility contradict"},
			{with(`"dev":true,"visibility":"public"`), 400, "an integration under development is private"},
			{with(`"dev":true,"public":true`), 400, "an integration under development is private"},
			{with(`"title":""`), 400, "title must not be empty"},
			{with(`"title":"` + strings.Repeat("x", 65) + `"`), 400, "title must have at most 64"},
			{with(`"description":"` + strings.Repeat("x", 257) + `"`), 400, "description must have at most 256"},
			{with(`"icon":"not base64!"`), 400, "icon must be a file in base64"},
			{with(`"icon":"` + base64.StdEncoding.EncodeToString(make([]byte, maxIcon+1)) + `"`), 413, "icon has 262145 bytes"},
			{with(`"readme":"%"`), 400, "readme must be a file in base64"},
			{with(`"maxExecutionTime":0`), 400, "maxExecutionTime must be at least 1"},
			{with(`"maxExecutionTime":1.5`), 400, "maxExecutionTime"},
			{with(`"secrets":{"a":7}`), 400, "secrets.a must be a string"},
			{with(`"secrets":{"a":"` + strings.Repeat("x", 20001) + `"}`), 400, "secrets.a must have at most 20000"},
			{with(`"secrets":{"":"x"}`), 400, "secrets: the name"},
			{with(`"secrets":` + many(51, `"x"`)), 413, "51 secrets"},
			{with(`"actions":{"a":{"input":{"schema":{}}}}`), 400, "actions.a.output is required"},
			{with(`"actions":{"a":{"input":{"schema":{"type":"nonsense"}},"output":{"schema":{}}}}`), 400, "actions.a.input.schema is not a JSON Schema: type must"},
			{with(`"actions":{"a":{"input":{"schema":{}},"output":{"schema":{"properties":{"x":{"minLength":-1}}}}}}`), 400, "actions.a.output.schema is not a JSON Schema: properties.x.minLength must"},
			{with(`"actions":{"a":{"input":{"schema":[]},"output":{"schema":{}}}}`), 400, "actions.a.input.schema must be an object"},
			{with(`"actions":{"a\u0000":{"input":{"schema":{}},"output":{"schema":{}}}}`), 400, "actions"},
			{with(`"events":{"e":{}}`), 400, "events.e.schema is required"},
			{with(`"events":{"e":{"schema":{"$ref":"file:///etc/passwd"}}}`), 400, "events.e.schema is not a JSON Schema: it refers to"},
			{with(`"events":{"e":{"schema":{"$ref":"http://127.0.0.1/"}}}`), 400, "events.e.schema is not a JSON Schema: it refers to"},
			{with(`"events":{"e":{"schema":{"pattern":"("}}}`), 400, "events.e.schema is not a JSON Schema: pattern"},
			{with(`"states":{"s":{"type":"bot","schema":{}}}`), 400, "states.s.type must be one of"},
			{with(`"states":{"s":{"type":"user","schema":{"required":"x"}}}`), 400, "states.s.schema is not a JSON Schema: required must"},
			{with(`"configuration":{"schema":{"type":7}}`), 400, "configuration.schema is not a JSON Schema"},
			{with(`"configurations":{"c":{"schema":{"type":7}}}`), 400, "configurations.c.schema is not a JSON Schema"},
			{with(`"channels":{"c":{"messages":{"m":{"schema":{"type":7}}}}}`), 400, "channels.c.messages.m.schema is not a JSON Schema"},
			{with(`"channels":{"c":{"messages":{"m":{}}}}`), 400, "channels.c.messages.m.schema is required"},
			{with(`"channels":{"c":{"messages":{},"message":{"tags":{"BAD":{}}}}}`), 400, `channels.c.message.tags: \"BAD\" is not a valid tag key`},
			{with(`"channels":{"c":{"messages":{},"conversation":{"creation":{"enabled":true,"requiredTags":["no"]}}}}`), 400, `channels.c.conversation.creation.requiredTags names the tag \"no\"`},
			{with(`"user":{"tags":{"x":{}}}`), 400, `user.tags: \"x\" is not a valid tag key`},
			{with(`"user":{"creation":{"enabled":true,"requiredTags":["id"]}}`), 400, `user.creation.requiredTags names the tag \"id\"`},
			{with(`"user":{"tags":` + many(51, `{}`) + `}`), 413, "user.tags would have 51 entries"},
			{with(`"entities":{"e":{"schema":{"enum":{}}}}`), 400, "entities.e.schema is not a JSON Schema: enum must"},
			{with(`"interfaces":{"i":{"id":"x"}}`), 400, "The provided UUID is invalid"},
			{with(`"interfaces":{"i":{}}`), 400, "interfaces.i.id is required"},
			{with(`"identifier":{"extractScript":"` + strings.Repeat("x", 2001) + `"}`), 400, "identifier.extractScript must have at most 2000"},
			{with(`"extraOperations":{"message_updated":{}}`), 400, "extraOperations.message_updated.enabled is required"},
			{with(`"attributes":{"a":"` + strings.Repeat("x", 201) + `"}`), 400, "attributes.a must have at most 200"},
			{with(`"events":` + many(201, `{"schema":{}}`)), 413, "events has 201 entries"},
			{with(`"events":{"e":{"schema":{"description":"` + strings.Repeat("x", 2<<20) + `"}}}`), 413, "events.e.schema has 2097"},
			{with(`"unknown":"` + strings.Repeat("x", 9<<20) + `"`), 413, "the definition would have"},
			{`[]`, 400, "must be a JSON object"},
			{`{"name":"x",`, 400, "JSON"},
		} {
			for _, request := range []string{"POST " + own, "POST " + own + "/validate"} {
				if got := r.do(t, wsA, request, c.body); got.status != c.status || !bytes.Contains(got.body, []byte(c.want)) {
					t.Errorf("%s %.200s: got %d %.500s; want %d with %q", request, c.body, got.status, got.body, c.status, c.want)
				}
			}
		}
		r.do(t, wsB, "POST "+own, `{"name":"x","version":"1.0.0"}`).want(t, 400, "integrations of this workspace are called acme/…")
		r.do(t, wsB, "POST "+own, `{"name":"other/x","version":"1.0.0"}`).want(t, 400, "integrations of this workspace are called acme/…")
		r.do(t, wsA, "GET "+own, "").want(t, 200, `"integrations":[]`)
		// Large is not too large.
		schema := `{"schema":{"type":"object","description":"` + strings.Repeat("x", 20<<10) + `"}}`
		r.do(t, wsA, "POST "+own, with(`"events":`+many(100, schema))).want(t, 200, `"n99"`)
		r.do(t, wsB, "POST "+own, `{"name":"acme/x","version":"1.0.0"}`).want(t, 200, `"name":"acme/x"`)
		r.do(t, wsA, "POST "+own, `{"name":"nobody/x","version":"1.0.0"}`).want(t, 200, `"name":"nobody/x"`)
	})
}

func TestCreateIntegrationTwice(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		const one = `{"name":"hooky","version":"1.0.0"}`
		r.create(t, wsA, one)
		r.do(t, wsA, "POST "+own, one).goldenMade(t, "createIntegration/twice")
		r.do(t, wsA, "POST "+own+"/validate", one).want(t, 409, "AlreadyExists")
		r.create(t, wsA, `{"name":"hooky","version":"1.0.1"}`)
		r.create(t, wsB, one) // nobody knows of the other
		r.create(t, wsA, `{"name":"hooky","version":"1.0.0","dev":true}`)
		r.create(t, wsA, `{"name":"hooky","version":"1.0.0","dev":true}`)

		var wg sync.WaitGroup
		var mu sync.Mutex
		got := map[int]int{}
		for range 20 {
			wg.Go(func() {
				a := r.do(t, wsA, "POST "+own, `{"name":"raced","version":"1.0.0","visibility":"public"}`)
				mu.Lock()
				defer mu.Unlock()
				got[a.status]++
			})
		}
		wg.Wait()
		if diff := cmp.Diff(map[int]int{200: 1, 409: 19}, got); diff != "" {
			t.Error(diff)
		}
	})
}

// Two workspaces cannot publish under one name, not even at once.
func TestPublicNamesAreOnes(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		a := r.create(t, wsA, `{"name":"hooky","version":"1.0.0","public":true}`)
		if a.Visibility != "public" || !a.Public {
			t.Errorf("public: true makes it %q", a.Visibility)
		}
		b := r.create(t, wsB, `{"name":"hooky","version":"2.0.0"}`)
		for _, visibility := range []string{`"visibility":"public"`, `"visibility":"unlisted"`, `"public":true`} {
			r.do(t, wsB, "PUT "+own+"/"+b.ID, `{`+visibility+`}`).want(t, 409, "another workspace has published")
			r.do(t, wsB, "POST "+own, `{"name":"hooky","version":"3.0.0",`+visibility+`}`).want(t, 409, "another workspace has published")
		}
		r.do(t, wsA, "PUT "+own+"/"+a.ID, `{"public":false}`).want(t, 200, `"visibility":"private"`)
		r.do(t, wsB, "PUT "+own+"/"+b.ID, `{"visibility":"unlisted"}`).want(t, 200, `"visibility":"unlisted"`)
		r.do(t, wsB, "PUT "+own+"/"+b.ID, `{"public":false}`).want(t, 200, `"visibility":"unlisted"`)

		var wg sync.WaitGroup
		var mu sync.Mutex
		published := map[string]bool{}
		for n := range 20 {
			wg.Go(func() {
				workspace := []string{wsA, wsB}[n%2]
				if r.do(t, workspace, "POST "+own, fmt.Sprintf(`{"name":"raced","version":"1.0.%d","visibility":"public"}`, n)).status == 200 {
					mu.Lock()
					defer mu.Unlock()
					published[workspace] = true
				}
			})
		}
		wg.Wait()
		if len(published) != 1 {
			t.Errorf("%v have published the same name", published)
		}
	})
}

func TestGetIntegrationByName(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		for _, v := range []string{"0.1.0", "0.1.10", "0.1.9", "1.0.0", "2.0.0-beta.1"} {
			r.create(t, wsA, `{"name":"acme/hooky","version":"`+v+`"}`)
		}
		r.create(t, wsA, `{"name":"acme/hooky","version":"9.0.0","dev":true}`)
		r.create(t, wsA, `{"name":"next","version":"1.0.0-rc.1"}`)
		r.create(t, wsB, `{"name":"acme/hooky","version":"3.0.0"}`)
		for _, c := range []struct{ path, want string }{
			{"acme%2Fhooky/latest", "1.0.0"},
			{"acme%2Fhooky/0.1.0", "0.1.0"},
			{"acme%2Fhooky/%3C0.1.10", "0.1.9"},
			{"acme%2Fhooky/%3C1.0.0", "0.1.10"},
			{"acme%2Fhooky/%5E0.1.0", "0.1.10"},
			{"acme%2Fhooky/*", "1.0.0"},
			{"acme%2Fhooky/%3E=0.1.0%20%3C0.1.10", "0.1.9"},
			{"acme%2Fhooky/2.0.0-beta.1", "2.0.0-beta.1"},
			{"next/latest", "1.0.0-rc.1"},
		} {
			r.do(t, wsA, "GET "+own+"/"+c.path, "").want(t, 200, `"version":"`+c.want+`"`)
		}
		for _, path := range []string{
			"acme%2Fhooky/3.0.0", "acme%2Fhooky/9.0.0", "acme%2Fhooky/%3C0.1.0", "acme%2Fhooky/nonsense", "hooky/latest", "acme/latest", "next/*",
			"acme%2Fhooky/" + strings.Repeat("1", 300), strings.Repeat("x", 500) + "/latest", "chat/latest", "%00/latest",
		} {
			if got := r.do(t, wsA, "GET "+own+"/"+path, ""); got.status != 404 && got.status != 400 {
				t.Errorf("%s: got %d %s", path, got.status, got.body)
			}
		}
		r.do(t, wsB, "GET "+own+"/acme%2Fhooky/latest", "").want(t, 200, `"version":"3.0.0"`)
	})
}

func TestVisibility(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		const hub = "/v1/admin/hub/integrations"
		mine := map[string]string{}
		for _, v := range []string{"private", "unlisted", "public"} {
			mine[v] = r.create(t, wsA, `{"name":"`+v+`","version":"1.0.0","visibility":"`+v+`","url":"https://where.example.com","secrets":{"KEY":"v"}}`).ID
		}
		mine["dev"] = r.create(t, wsA, `{"name":"dev","version":"1.0.0","dev":true}`).ID
		for _, c := range []struct {
			what              string
			byID, listed, use bool
		}{
			{"private", false, false, false},
			{"dev", false, false, false},
			{"unlisted", true, false, true},
			{"public", true, true, true},
		} {
			for _, path := range []string{hub + "/" + mine[c.what], hub + "/" + c.what + "/latest", hub + "/" + c.what + "/1.0.0"} {
				if got := r.do(t, wsB, "GET "+path, ""); (got.status == 200) != c.byID || got.status != 200 && got.status != 404 || bytes.Contains(got.body, []byte("where.example.com")) {
					t.Errorf("%s: %d %s", path, got.status, got.body)
				}
			}
			list := r.do(t, wsB, "GET "+hub+"?version=*", "").want(t, 200, `"chat"`)
			if bytes.Contains(list.body, []byte(mine[c.what])) != c.listed {
				t.Errorf("the hub lists %s", list.body)
			}
			// Nobody else has it among their own.
			r.do(t, wsB, "GET "+own+"/"+mine[c.what], "").want(t, 404, "doesn't exist")
			r.do(t, wsB, "GET "+own+"/"+c.what+"/latest", "").want(t, 404, "doesn't exist")
			r.do(t, wsB, "PUT "+own+"/"+mine[c.what], `{"title":"stolen"}`).want(t, 404, "doesn't exist")
			r.do(t, wsB, "PUT "+own+"/"+mine[c.what]+"/validate", `{"title":"stolen"}`).want(t, 404, "doesn't exist")
			r.do(t, wsB, "DELETE "+own+"/"+mine[c.what], "").want(t, 404, "doesn't exist")
			if got, err := r.install(t.Context(), wsB, mine[c.what]); got != c.use || err != nil {
				t.Errorf("another workspace may install %s: %v, %v", c.what, got, err)
			}
			if got, err := r.install(t.Context(), wsA, mine[c.what]); !got || err != nil {
				t.Errorf("the owner may install %s: %v, %v", c.what, got, err)
			}
			if got, err := r.Owns(r.DB.Reader(t.Context()), wsB, mine[c.what]); got || err != nil {
				t.Errorf("another workspace owns %s: %v, %v", c.what, got, err)
			}
			r.do(t, wsA, "GET "+own+"/"+mine[c.what], "").want(t, 200, c.what)
		}
		r.homes.handles[wsA] = "acme"
		r.do(t, wsB, "GET "+hub+"/public/1.0.0", "").goldenMade(t, "getPublicIntegration/ofWorkspace")
		r.do(t, wsB, "GET "+hub+"?name=public", "").goldenMade(t, "listPublicIntegrations/ofWorkspace")
		r.do(t, wsB, "GET "+own, "").want(t, 200, `"integrations":[]`)
	})
}

func TestListIntegrations(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		for n := range 25 {
			r.clock.Add(1000)
			r.create(t, wsA, fmt.Sprintf(`{"name":"one","version":"1.%d.0"}`, n))
		}
		r.clock.Add(1000)
		r.create(t, wsA, `{"name":"two","version":"1.0.0","visibility":"public","description":"Finds TICKETS","actions":{"findTicket":{"input":{"schema":{}},"output":{"schema":{}}}},
			"interfaces":{"hitl":{"id":"ifver_01HZZZZZZZZZZZZZZZZZZZZZZZ"}}}`)
		r.create(t, wsA, `{"name":"dev","version":"1.0.0","dev":true}`)
		r.create(t, wsB, `{"name":"theirs","version":"1.0.0"}`)
		all := func(query string) (versions []string, sizes []int) {
			next := ""
			for {
				a := r.do(t, wsA, "GET "+own+"?"+query+"&nextToken="+next, "")
				list := decode(t, a)
				sizes = append(sizes, len(list.Integrations))
				for _, l := range list.Integrations {
					versions = append(versions, l.Name+" "+l.Version)
				}
				if next = list.Meta.NextToken; next == "" {
					return versions, sizes
				}
			}
		}
		got, sizes := all("")
		if len(got) != 27 || got[0] != "dev 1.0.0" && got[0] != "two 1.0.0" || got[2] != "one 1.24.0" || got[26] != "one 1.0.0" || !cmp.Equal(sizes, []int{20, 7}) {
			t.Errorf("%v in pages of %v", got, sizes)
		}
		if got, sizes := all("limit=5&sortBy=name&name=one&version=1.2.x"); !cmp.Equal(got, []string{"one 1.2.0"}) || len(sizes) != 1 {
			t.Errorf("%v in pages of %v", got, sizes)
		}
		if got, sizes := all("limit=10&sortBy=name&dev=false"); len(got) != 26 || got[0] != "one 1.24.0" || got[1] != "one 1.23.0" || got[25] != "two 1.0.0" || len(sizes) != 3 {
			t.Errorf("%v in pages of %v", got, sizes)
		}
		for query, want := range map[string]string{
			"version=latest&sortBy=name":  "dev 1.0.0,one 1.24.0,two 1.0.0",
			"name=one&version=%3C1.2.0":   "one 1.1.0,one 1.0.0",
			"dev=true":                    "dev 1.0.0",
			"visibility=public":           "two 1.0.0",
			"search=ticket":               "two 1.0.0",
			"interfaceName=hitl":          "two 1.0.0",
			"verificationStatus=approved": "",
			"name=theirs":                 "",
			"name=none":                   "",
			"sortBy=createdAt&direction=asc&name=one&version=%3C1.2.0": "one 1.0.0,one 1.1.0",
		} {
			if got, _ := all(query); strings.Join(got, ",") != want {
				t.Errorf("%s: %v, want %s", query, got, want)
			}
		}
		// A token stays true when rows come and go.
		page := decode(t, r.do(t, wsA, "GET "+own+"?name=one&limit=5", ""))
		last := page.Integrations[4]
		r.do(t, wsA, "DELETE "+own+"/"+last.ID, "").want(t, 200, "{}")
		next := decode(t, r.do(t, wsA, "GET "+own+"?name=one&limit=5&nextToken="+page.Meta.NextToken, ""))
		if next.Integrations[0].Version != "1.19.0" {
			t.Errorf("after the row before was deleted the page begins with %s", next.Integrations[0].Version)
		}
		for _, query := range []string{
			"nextToken=x", "limit=0", "limit=101", "visibility=unlisted", "dev=maybe", "sortBy=size", "name=two&nextToken=" + page.Meta.NextToken,
		} {
			r.do(t, wsA, "GET "+own+"?"+query, "").want(t, 400, "InvalidQuery")
		}
		r.do(t, wsA, "GET "+own+"?installedByBotId="+botB, "").want(t, 400, "ReferenceNotFound")
		r.do(t, wsA, "GET "+own+"?installedByBotId="+botA, "").want(t, 200, `"integrations":[]`)
		r.do(t, wsA, "GET "+own+"?name=two", "").goldenMade(t, "listIntegrations/one")
	})
}

func TestUpdateIntegration(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		d := r.create(t, wsA, full)
		r.clock.Add(5000)
		at := "PUT " + own + "/" + d.ID
		r.do(t, wsA, at, `{"name":"acme/hooky","version":"0.2.0","dev":false,"title":"Hooky 2","url":"https://new.example.com","maxExecutionTime":90,"icon":"iVBORw0KGgo=",
			"configuration":{"description":"More","identifier":{"linkTemplateScript":null}},"configurations":{"oauth":null,"key":{"schema":{"type":"object"}}},
			"channels":{"channel":{"messages":{"text":null,"image":{"schema":{"type":"object"}}},"conversation":{"tags":{"thread":{}}},"message":{"tags":{"id":null}}},"more":{"messages":{}}},
			"states":{"cursor":null,"other":{"type":"user","schema":{}}},"events":{"received":{"schema":{"type":"object"},"attributes":{"x":null,"z":"w"}}},
			"actions":{"ping":null,"pong":{"input":{"schema":{}},"output":{"schema":{}}}},"entities":{"ticket":null},"attributes":{"category":null,"level":"gold"},
			"identifier":{"extractScript":null},"user":{"tags":{"email":{}}},"interfaces":{"hitl":null},"extraOperations":{"message_updated":{"enabled":false},"ping":{"enabled":true}},
			"secrets":{"SIGNING":null,"NEW":"n"},"somethingNew":null,"somethingElse":1}`).goldenMade(t, "updateIntegration/ok")
		got, err := r.Lookup(t.Context(), d.ID)
		if err != nil || got.URL != "https://new.example.com" || !got.ExtraOperations["ping"] || len(got.ExtraOperations) != 1 {
			t.Errorf("Lookup = %+v, %v", got, err)
		}
		if fmt.Sprint(r.changed) != fmt.Sprint([]string{d.ID}) {
			t.Errorf("changed: %v", r.changed)
		}
		before := r.do(t, wsA, "GET "+own+"/"+d.ID, "")
		r.do(t, wsA, at, `{}`).want(t, 200, `"updatedAt":"2026-03-01T12:00:05.000Z"`)
		r.do(t, wsA, at, `{"url":null}`).want(t, 200, `"url":""`)
		r.do(t, wsA, at, `{"url":"https://new.example.com"}`)
		if after := r.do(t, wsA, "GET "+own+"/"+d.ID, ""); !bytes.Equal(before.body, after.body) {
			t.Errorf("an empty change made\n%s\nof\n%s", after.body, before.body)
		}
		for _, c := range []struct {
			body   string
			status int
			want   string
		}{
			{`{"name":"other"}`, 400, "name: the name of an integration cannot change"},
			{`{"version":"0.3.0"}`, 400, "version: the version of an integration cannot change"},
			{`{"dev":true}`, 400, "dev: an integration stays"},
			{`{"code":"x"}`, 400, "does not run uploaded code yet"},
			{`{"code":"x","url":"http://x"}`, 400, "url and code exclude"},
			{`{"actions":{"pong":{"input":{"schema":{"type":"x"}},"output":{"schema":{}}}}}`, 400, "actions.pong.input.schema is not a JSON Schema"},
			{`{"user":{"creation":{"enabled":true,"requiredTags":["none"]}}}`, 400, "user.creation.requiredTags"},
			{`{"title":null}`, 400, "title must not be null"},
			{`{"visibility":null}`, 400, "visibility must not be null"},
		} {
			r.do(t, wsA, at, c.body).want(t, c.status, c.want)
			r.do(t, wsA, at+"/validate", c.body).want(t, c.status, c.want)
		}
		r.do(t, wsA, at+"/validate", `{"title":"Never","visibility":"public","secrets":{"X":"y"}}`).want(t, 200, "{}")
		if after := r.do(t, wsA, "GET "+own+"/"+d.ID, ""); !bytes.Equal(before.body, after.body) {
			t.Errorf("what was refused or only tried made\n%s\nof\n%s", after.body, before.body)
		}
		for _, no := range []string{"intver_01ZZZZZZZZZZZZZZZZZZZZZZZZ", "nonsense", r.Builtin("chat", "latest").ID, "%00"} {
			for _, request := range []string{"PUT " + own + "/" + no, "PUT " + own + "/" + no + "/validate", "DELETE " + own + "/" + no, "GET " + own + "/" + no} {
				if got := r.do(t, wsA, request, `{"title":"x"}`); got.status != 404 {
					t.Errorf("%s: %d %s", request, got.status, got.body)
				}
			}
		}
		dev := r.create(t, wsA, `{"name":"dev","version":"1.0.0","dev":true}`)
		r.do(t, wsA, "PUT "+own+"/"+dev.ID, `{"visibility":"public"}`).want(t, 400, "under development is private")
	})
}

// Updates of one version at once are each there in the end.
func TestUpdateIntegrationAtOnce(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		d := r.create(t, wsA, `{"name":"hooky","version":"1.0.0"}`)
		var wg sync.WaitGroup
		for n := range 20 {
			wg.Go(func() {
				r.do(t, wsA, "PUT "+own+"/"+d.ID, fmt.Sprintf(`{"events":{"e%d":{"schema":{}}},"secrets":{"S%d":"x"}}`, n, n)).want(t, 200, "hooky")
			})
		}
		wg.Wait()
		got, err := r.Lookup(t.Context(), d.ID)
		if err != nil || len(got.Events) != 20 || len(got.SecretValues) != 20 {
			t.Errorf("%d events and %d secrets, %v", len(got.Events), len(got.SecretValues), err)
		}
	})
}

func TestDeleteIntegration(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		d := r.create(t, wsA, `{"name":"hooky","version":"1.0.0","visibility":"public"}`)
		at := own + "/" + d.ID
		for _, workspace := range []string{wsA, wsB} {
			if ok, err := r.install(t.Context(), workspace, d.ID); !ok || err != nil {
				t.Fatal(ok, err)
			}
		}
		r.do(t, wsA, "DELETE "+at, "").goldenMade(t, "deleteIntegration/installed")
		r.do(t, wsA, "PUT "+at, `{"visibility":"private"}`).goldenMade(t, "updateIntegration/withdrawn")
		r.do(t, wsA, "PUT "+at+"/validate", `{"public":false}`).want(t, 409, "ReferenceConstraint")
		r.do(t, wsA, "PUT "+at, `{"visibility":"unlisted"}`).want(t, 200, "unlisted")
		r.uninstall(t)
		r.do(t, wsA, "PUT "+at, `{"visibility":"private"}`).want(t, 200, "private")
		r.do(t, wsA, "DELETE "+at, "").want(t, 200, "{}")
		if fmt.Sprint(r.deleted) != fmt.Sprint([]string{d.ID}) {
			t.Errorf("deleted: %v", r.deleted)
		}
		r.do(t, wsA, "DELETE "+at, "").want(t, 404, "doesn't exist")
		r.do(t, wsA, "GET "+at, "").want(t, 404, "doesn't exist")
		if got, err := r.Lookup(t.Context(), d.ID); got != nil || err != nil {
			t.Errorf("Lookup = %v, %v", got, err)
		}
		r.create(t, wsA, `{"name":"hooky","version":"1.0.0"}`)
	})
}

// Whatever comes first, a version that is installed is there.
func TestDeleteWhileInstalling(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		for n := range 20 {
			d := r.create(t, wsA, fmt.Sprintf(`{"name":"hooky","version":"1.0.%d"}`, n))
			var installed bool
			var err error
			var deleted int
			var wg sync.WaitGroup
			wg.Go(func() { installed, err = r.install(t.Context(), wsA, d.ID) })
			wg.Go(func() { deleted = r.do(t, wsA, "DELETE "+own+"/"+d.ID, "").status })
			wg.Wait()
			if err != nil || installed == (deleted == 200) {
				t.Fatalf("installed: %v, %v; deleted: %d", installed, err, deleted)
			}
		}
	})
}

// What one node changes the other sees.
func TestTwoNodes(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
		wire := bus.NewLocal()
		here, there := newRigOn(t, a, wire, 0), newRigOn(t, b, wire, 0)
		if err := here.exec(t.Context(), installsTable); err != nil {
			t.Fatal(err)
		}
		d := here.create(t, wsA, `{"name":"hooky","version":"1.0.0","url":"http://one.example.com"}`)
		if got, err := there.Lookup(t.Context(), d.ID); err != nil || got.URL != "http://one.example.com" {
			t.Fatalf("Lookup = %v, %v", got, err)
		}
		here.do(t, wsA, "PUT "+own+"/"+d.ID, `{"url":"http://two.example.com"}`).want(t, 200, "two.example.com")
		if got, err := there.Lookup(t.Context(), d.ID); err != nil || got.URL != "http://two.example.com" {
			t.Errorf("Lookup = %v, %v", got, err)
		}
		here.do(t, wsA, "DELETE "+own+"/"+d.ID, "").want(t, 200, "{}")
		if got, err := there.Lookup(t.Context(), d.ID); got != nil || err != nil {
			t.Errorf("Lookup = %v, %v", got, err)
		}
	})
}

func TestBreakingChanges(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		d := r.create(t, wsA, full)
		at := "PUT " + own + "/" + d.ID
		breaking := map[string]string{
			`{"channels":{"channel":null}}`:                                                                                 "channels.channel is removed",
			`{"channels":{"channel":{"messages":{"text":null}}}}`:                                                           "channels.channel.messages.text is removed",
			`{"channels":{"channel":{"messages":{"text":{"schema":{"type":"object","required":["x"]}}}}}}`:                  "channels.channel.messages.text.x becomes required",
			`{"channels":{"channel":{"conversation":{"tags":{"id":null},"creation":{"enabled":false,"requiredTags":[]}}}}}`: "channels.channel.conversation.tags.id is removed",
			`{"channels":{"channel":{"message":{"tags":{"id":null}}}}}`:                                                     "channels.channel.message.tags.id is removed",
			`{"user":{"tags":{"id":null}}}`:                                                                                 "user.tags.id is removed",
			`{"events":{"received":null}}`:                                                                                  "events.received is removed",
			`{"events":{"received":{"schema":{"type":"object"}}}}`:                                                          "events.received.a is removed",
			`{"actions":{"ping":null}}`:                                                                                     "actions.ping is removed",
			`{"actions":{"ping":{"input":{"schema":{"type":"object","properties":{"n":{"type":"string"}}}},"output":{"schema":{"type":"object","properties":{"pong":{"type":"number"}},"required":["pong"]}}}}}`: "actions.ping.input.n changes its type",
			`{"actions":{"ping":{"input":{"schema":{"type":"object","properties":{"n":{"type":"number"}}}},"output":{"schema":{"type":"object","properties":{"pong":{"type":"number"}}}}}}}`:                     "actions.ping.output.pong becomes optional",
			`{"configuration":{"schema":{"type":"object","properties":{"token":{"type":"string"},"more":{}},"required":["token","more"]}}}`:                                                                      "configuration.more becomes required",
			`{"configuration":{"schema":{"type":"object","additionalProperties":false}}}`:                                                                                                                        "configuration.token is removed",
			`{"configuration":{"schema":{"type":"object","properties":{"token":{"enum":["a"]}}}}}`:                                                                                                               "configuration.token",
			`{"configurations":{"oauth":null}}`:                             "configurations.oauth is removed",
			`{"configurations":{"oauth":{"identifier":{"required":true}}}}`: "configurations.oauth.identifier becomes required",
			`{"states":{"session":null}}`:                                   "states.session is removed",
			`{"states":{"session":{"type":"user","schema":{}}}}`:            "states.session.type changes from integration to user",
			`{"entities":{"ticket":null}}`:                                  "entities.ticket is removed",
			`{"interfaces":{"hitl":null}}`:                                  "interfaces.hitl is removed",
		}
		for body := range breaking {
			r.do(t, wsA, at+"/validate", body).want(t, 200, "{}") // nobody has it installed
		}
		if ok, err := r.install(t.Context(), wsA, d.ID); !ok || err != nil {
			t.Fatal(ok, err)
		}
		for body, want := range breaking {
			r.do(t, wsA, at+"/validate", body).want(t, 400, "BreakingChanges").want(t, 400, want)
			r.do(t, wsA, at, body).want(t, 400, want)
		}
		r.do(t, wsA, at, `{"events":{"received":null},"actions":{"ping":null}}`).goldenMade(t, "updateIntegration/breaking")
		for _, fine := range []string{
			`{"title":"New"}`, `{"url":"http://elsewhere.example.com"}`, `{"secrets":{"SIGNING":null}}`, `{"events":{"more":{"schema":{}}}}`,
			`{"configuration":{"schema":{"type":"object","properties":{"token":{"type":["string","null"]},"more":{"type":"string"}},"required":["token"],"additionalProperties":false}}}`,
			`{"actions":{"ping":{"input":{"schema":{"type":"object","properties":{"n":{"type":["number","string"]}}}},"output":{"schema":{"type":"object","properties":{"pong":{"type":"integer"},"more":{}},"required":["pong","more"]}}}}}`,
			`{"channels":{"channel":{"messages":{"text":{"schema":{"type":"object","properties":{"text":{"type":"string"},"more":{}}}},"image":{"schema":{}}}}}}`,
		} {
			r.do(t, wsA, at, fine).want(t, 200, "acme/hooky")
		}
		r.uninstall(t)
		r.do(t, wsA, at, `{"actions":{"ping":null}}`).want(t, 200, "acme/hooky")

		dev := r.create(t, wsA, strings.Replace(full, `"visibility":"private"`, `"dev":true`, 1))
		if ok, err := r.install(t.Context(), wsA, dev.ID); !ok || err != nil {
			t.Fatal(ok, err)
		}
		r.do(t, wsA, "PUT "+own+"/"+dev.ID, `{"actions":{"ping":null},"channels":{"channel":null}}`).want(t, 200, "acme/hooky")
	})
}

// A repeated request under one idempotency key makes one version.
func TestCreateIntegrationIdempotent(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r *rig) {
		first := r.do(t, wsA, "POST "+own, full, "Idempotency-Key: one")
		again := r.do(t, wsA, "POST "+own, full, "Idempotency-Key: one")
		if first.status != 200 || !bytes.Equal(first.body, again.body) {
			t.Errorf("got %d %s and %d %s", first.status, first.body, again.status, again.body)
		}
	})
}
