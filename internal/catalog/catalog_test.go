package catalog

import (
	"bytes"
	"context"
	"flag"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/id"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const (
	wsA, wsB = "wkspace_01AAAAAAAAAAAAAAAAAAAAAAAA", "wkspace_01BBBBBBBBBBBBBBBBBBBBBBBB"
	botA     = "bot_01AAAAAAAAAAAAAAAAAAAAAAAA"   // of wsA, with chat
	botB     = "bot_01BBBBBBBBBBBBBBBBBBBBBBBB"   // of wsB
	empty    = "bot_01CCCCCCCCCCCCCCCCCCCCCCCC"   // of wsA, with chat removed
	ann      = "accnt_01AAAAAAAAAAAAAAAAAAAAAAAA" // of wsA
	bob      = "accnt_01BBBBBBBBBBBBBBBBBBBBBBBB" // of both
)

type directory struct{}

func (directory) Bot(_ context.Context, botID string) (*auth.Bot, error) {
	chat := auth.Installation{IntegrationID: versionID("chat", "1.0.0"), IntegrationName: "chat", Enabled: true, Removed: botID == empty}
	switch botID {
	case botA, empty:
		return &auth.Bot{ID: botID, WorkspaceID: wsA, Installations: []auth.Installation{chat}}, nil
	case botB:
		return &auth.Bot{ID: botID, WorkspaceID: wsB, Installations: []auth.Installation{chat}}, nil
	}
	return nil, nil
}

func (directory) Member(_ context.Context, account, workspace string) (bool, error) {
	return account == ann && workspace == wsA || account == bob, nil
}
func (directory) Family(context.Context, string) (string, error) { return "", nil }

// newAPI is the service on a database of its own that no test of the hub looks into.
func newAPI(t testing.TB) (*Service, *api.API) {
	t.Helper()
	r := newRig(t, fresh(t))
	return r.Service, r.api
}

type answer struct {
	status int
	body   []byte
}

func get(t *testing.T, a *api.API, path string) answer {
	t.Helper()
	q := httptest.NewRequest("GET", path, nil)
	q.Header.Set("Authorization", "Bearer "+token)
	q.Header.Set("x-workspace-id", wsA)
	w := httptest.NewRecorder()
	a.ServeHTTP(w, q)
	return answer{w.Code, w.Body.Bytes()}
}

func (a answer) want(t *testing.T, status int, text string) answer {
	t.Helper()
	if a.status != status || !bytes.Contains(a.body, []byte(text)) {
		t.Fatalf("got %d %s; want %d with %q", a.status, a.body, status, text)
	}
	return a
}

var errIDs = regexp.MustCompile(`err_[0-9]{13}x[0-9A-F]{8}`)

// golden compares the body with testdata/NAME.json. Ids of built-in versions
// stand there as they are: they must never change.
func (a answer) golden(t *testing.T, name string) {
	t.Helper()
	text := jsontext.Value(errIDs.ReplaceAll(a.body, []byte("err_…")))
	if err := text.Indent(jsontext.WithIndent("  ")); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	text = append(text, '\n')
	path := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; run the test with -update to write it", err)
	}
	if d := cmp.Diff(string(want), string(text)); d != "" {
		t.Errorf("%s (-want +got):\n%s", path, d)
	}
}

func TestGetPublicIntegration(t *testing.T) {
	t.Parallel()
	_, a := newAPI(t)
	const hub = "/v1/admin/hub/integrations/"
	get(t, a, hub+"chat/1.0.0").golden(t, "getPublicIntegration/ok")
	get(t, a, hub+"chat/9.9.9").golden(t, "getPublicIntegration/missing")
	get(t, a, hub+"messaging/latest").golden(t, "getPublicIntegration/messaging")
	for _, c := range []struct{ path, want string }{
		{"chat/latest", "1.0.9"},
		{"chat/0.7.3", "0.7.3"},
		{"chat/0.7.6", "0.7.6"},
		{"chat/0.7.9", "0.7.9"},
		{"chat/1.0.0", "1.0.0"},
		{"chat/1.0.9", "1.0.9"},
		{"chat/%3E%3D1.0.0%20%3C2.0.0", "1.0.9"},
		{"chat/%3E%3D0.7.3%20%3C1.0.0", "0.7.9"},
		{"chat/%3E%3D0.7.6%20%3C0.8.0", "0.7.9"},
		{"chat/%5E0.7.3", "0.7.9"},
		{"chat/~1.0.2", "1.0.9"},
		{"chat/%3C1.0.0", "0.7.9"},
		{"chat/0.7.x", "0.7.9"},
		{"chat/1.x", "1.0.9"},
		{"chat/*", "1.0.9"},
		{"chat/0.7.3%20%7C%7C%200.7.5", "0.7.5"},
		{"messaging/latest", "0.2.3"},
		{"messaging/0.2.3", "0.2.3"},
		{"messaging/%5E0.2.0", "0.2.3"},
	} {
		get(t, a, hub+c.path).want(t, 200, `"version":"`+c.want+`"`)
	}
	for _, path := range []string{
		"chat/0.7.2", "chat/1.0.10", "chat/1.1.0", "chat/%3E1.0.9", "chat/%5E2", "chat/nonsense", "chat/v", "chat/" + strings.Repeat("1", 300), "chat/-1", "chat/1.0.0-beta",
		"acme%2Fchat/latest", "Chat/latest", "nope/latest", "chat%2Flatest/1.0.0",
	} {
		get(t, a, hub+path).want(t, 404, "ResourceNotFound")
	}
}

func TestGetPublicIntegrationById(t *testing.T) {
	t.Parallel()
	s, a := newAPI(t)
	const hub = "/v1/admin/hub/integrations/"
	for _, d := range s.brought {
		get(t, a, hub+d.ID).want(t, 200, `"version":"`+d.Version+`"`)
	}
	for _, bad := range []string{"intver_01ZZZZZZZZZZZZZZZZZZZZZZZZ", "chat", "%2F", strings.Repeat("x", 500)} {
		get(t, a, hub+bad).want(t, 404, "doesn't exist")
	}
	get(t, a, hub+"intver_01ZZZZZZZZZZZZZZZZZZZZZZZZ").golden(t, "getPublicIntegrationById/missing")
	get(t, a, hub+s.Builtin("chat", "0.7.6").ID).golden(t, "getPublicIntegrationById/ok")
}

// Clients, lock files and databases keep these ids.
func TestVersionIDsAreForEver(t *testing.T) {
	t.Parallel()
	s, _ := newAPI(t)
	seen := map[string]string{}
	for _, d := range s.brought {
		if !id.Minted("intver", d.ID) || d.ID[len("intver_")] > '7' {
			t.Errorf("%s is no id", d.ID)
		}
		if seen[d.ID] != "" {
			t.Errorf("%s and %s share %s", d.Version, seen[d.ID], d.ID)
		}
		seen[d.ID] = d.Version
		if got, err := s.Lookup(t.Context(), d.ID); err != nil || got != d {
			t.Errorf("Lookup(%s) = %v, %v", d.ID, got, err)
		}
		if family, err := s.Family(t.Context(), d.ID); family != d.Name || err != nil {
			t.Errorf("Family(%s) = %q, %v", d.ID, family, err)
		}
	}
	for _, no := range []string{"intver_nope", "intver_01ZZZZZZZZZZZZZZZZZZZZZZZZ", ""} {
		if family, err := s.Family(t.Context(), no); family != "" || err != nil {
			t.Errorf("Family(%s) = %q, %v", no, family, err)
		}
	}
}

func TestListPublicIntegrations(t *testing.T) {
	t.Parallel()
	_, a := newAPI(t)
	const hub = "/v1/admin/hub/integrations"
	get(t, a, hub).golden(t, "listPublicIntegrations/ok")
	get(t, a, hub+"?search=STREAM").golden(t, "listPublicIntegrations/search")
	for _, c := range []struct {
		query string
		want  []string // versions
	}{
		{"", []string{"1.0.9", "0.2.3"}},
		{"?version=latest", []string{"1.0.9", "0.2.3"}},
		{"?name=chat&version=1.0.0", []string{"1.0.0"}},
		{"?name=messaging", []string{"0.2.3"}},
		{"?version=%3C0.7.5", []string{"0.7.4", "0.7.3", "0.2.3"}},
		{"?version=%3C0.7.5&direction=desc", []string{"0.2.3", "0.7.3", "0.7.4"}},
		{"?version=%3C0.7.5&sortBy=name&direction=asc", []string{"0.7.4", "0.7.3", "0.2.3"}},
		{"?version=%3C0.7.5&sortBy=updatedAt", []string{"0.7.4", "0.7.3", "0.2.3"}},
		{"?version=%3C0.7.5&limit=1", []string{"0.7.4"}},
		{"?version=nonsense", nil},
		{"?name=nope", nil},
		{"?name=cha", nil},
		{"?search=cha", []string{"1.0.9"}},
		{"?search=plain+http", []string{"0.2.3"}},
		{"?search=zzz", nil},
		{"?verificationStatus=approved", []string{"1.0.9", "0.2.3"}},
		{"?verificationStatus=pending", nil},
		{"?interfaceName=hitl", nil},
		{"?installedByBotId=" + botA, []string{"1.0.9"}},
		{"?installedByBotId=" + empty, nil},
	} {
		got := decode(t, get(t, a, hub+c.query))
		var versions []string
		for _, l := range got.Integrations {
			versions = append(versions, l.Version)
		}
		if !slices.Equal(versions, c.want) {
			t.Errorf("%s: got %v, want %v", c.query, versions, c.want)
		}
	}
	for query, want := range map[string]string{
		"?nextToken=nonsense":                      "InvalidQuery",
		"?nextToken=" + versionID("chat", "0.7.3"): "InvalidQuery",
		"?limit=0":                  "InvalidQuery",
		"?limit=101":                "InvalidQuery",
		"?limit=x":                  "InvalidQuery",
		"?sortBy=size":              "InvalidQuery",
		"?direction=up":             "InvalidQuery",
		"?verificationStatus=maybe": "InvalidQuery",
		"?interfaceId=x":            "The provided UUID is invalid",
		"?interfaceId=ifver_01ZZZZZZZZZZZZZZZZZZZZZZZZ":             "ReferenceNotFound",
		"?installedByBotId=x":                                       "The provided UUID is invalid",
		"?installedByBotId=" + botB:                                 "ReferenceNotFound",
		"?installedByBotId=bot_01ZZZZZZZZZZZZZZZZZZZZZZZZ":          "ReferenceNotFound",
		"?search=" + strings.Repeat("x", 201):                       "InvalidQuery",
		"?version=%3C0.7.5&nextToken=" + versionID("chat", "1.0.0"): "InvalidQuery",
	} {
		got := get(t, a, hub+query)
		if got.status != 400 || !bytes.Contains(got.body, []byte(want)) {
			t.Errorf("%s: got %d %s; want 400 with %q", query, got.status, got.body, want)
		}
	}
}

func decode(t *testing.T, a answer) integrationList {
	t.Helper()
	var v integrationList
	if err := json.Unmarshal(a.body, &v); err != nil || a.status != 200 {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	return v
}

func TestListPublicIntegrationsToTheEnd(t *testing.T) {
	t.Parallel()
	s, a := newAPI(t)
	var got []string
	next, pages := "", 0
	for {
		page := decode(t, get(t, a, "/v1/admin/hub/integrations?version=*&limit=5&nextToken="+next))
		pages++
		for _, l := range page.Integrations {
			got = append(got, l.Version)
		}
		if next = page.Meta.NextToken; next == "" {
			break
		}
	}
	var want []string
	for _, d := range s.brought {
		want = append(want, d.Version)
	}
	if !slices.Equal(got, want) || pages != 4 {
		t.Errorf("%d pages: %v; want %v", pages, got, want)
	}
}

// A client asks its own workspace first; what is not there is told so that it goes on to the hub.
func TestOwnIntegrations(t *testing.T) {
	t.Parallel()
	s, a := newAPI(t)
	const own = "/v1/admin/integrations"
	get(t, a, own).golden(t, "listIntegrations/ok")
	get(t, a, own+"?dev=true&visibility=private&name=x").want(t, 200, `"integrations":[]`)
	get(t, a, own+"?nextToken=x").want(t, 400, "InvalidQuery")
	get(t, a, own+"?visibility=unlisted").want(t, 400, "InvalidQuery")
	get(t, a, own+"/chat/latest").golden(t, "getIntegrationByName/missing")
	get(t, a, own+"/acme%2Fhooky/%3C0.1.0").want(t, 404, `Integration \"acme/hooky\" doesn't exist in version \"<0.1.0\"`)
	get(t, a, own+"/"+s.Builtin("chat", "latest").ID).golden(t, "getIntegration/missing")
}

func TestCheckConfiguration(t *testing.T) {
	t.Parallel()
	s, _ := newAPI(t)
	for _, c := range []struct {
		name, typ, configuration string
		kind                     *fault.Kind
		message                  string
	}{
		{"chat", "", ``, nil, ""},
		{"chat", "", `{}`, nil, ""},
		{"chat", "", `{"encryptionKey":"k","webhookUrl":"http://x","webhookSecret":""}`, nil, ""},
		{"chat", "", `{"encriptionKey":"k"}`, fault.InvalidDataFormat, "configuration.encriptionKey is not a member that the schema has"},
		{"chat", "", `{"encryptionKey":1}`, fault.InvalidDataFormat, "configuration.encryptionKey must be a string"},
		{"chat", "", `{"encryptionKey":null}`, fault.InvalidDataFormat, "configuration.encryptionKey must be a string"},
		{"chat", "", `[]`, fault.InvalidDataFormat, "configuration must be an object"},
		{"chat", "oauth", `{}`, fault.InvalidPayload, `configurationType "oauth"`},
		{"messaging", "", `{}`, nil, ""},
		{"messaging", "", `{"responseEndpointUrl":"http://x","webhookSecret":"s"}`, nil, ""},
		{"messaging", "", `{"responseEndpointURL":"http://x"}`, nil, ""},
		{"messaging", "", `{"responseEndpoint":"http://x"}`, fault.InvalidDataFormat, "configuration.responseEndpoint is not a member that the schema has"},
		{"messaging", "", `{"responseEndpointUrl":["http://x"]}`, fault.InvalidDataFormat, "configuration.responseEndpointUrl must be a string"},
	} {
		err := s.Builtin(c.name, "latest").CheckConfiguration(c.typ, api.Object(c.configuration))
		if c.kind == nil && err != nil || c.kind != nil && (!fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.message)) {
			t.Errorf("%s %q %s: got %v", c.name, c.typ, c.configuration, err)
		}
	}
}

func TestBuiltinTags(t *testing.T) {
	t.Parallel()
	s, _ := newAPI(t)
	for name, want := range map[string]map[string]map[string]int{
		"chat": {
			"user":         {"fid": 500, "profile": 1000},
			"conversation": {"fid": 500, "owner": 500},
			"message":      {"fid": 500},
		},
		"messaging": {"user": {"id": 500}, "conversation": {"id": 500}, "message": {"id": 500}},
	} {
		if d := cmp.Diff(want, s.Builtin(name, "latest").Tags()); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// Every schema of a built-in definition is an object that names its required members.
func TestBuiltinSchemas(t *testing.T) {
	t.Parallel()
	s, _ := newAPI(t)
	schemas := map[string]api.Object{}
	for _, name := range []string{"chat", "messaging"} {
		d := s.Builtin(name, "latest")
		schemas[name+" configuration"] = d.Configuration.Schema
		for event, e := range d.Events {
			schemas[name+" event "+event] = e.Schema
		}
		for typ, m := range d.Channels["channel"].Messages {
			schemas[name+" message "+typ] = m.Schema
		}
		for action, a := range d.Actions {
			schemas[name+" input of "+action], schemas[name+" output of "+action] = a.Input.Schema, a.Output.Schema
		}
	}
	if len(schemas) != (1+1+12+4)+(1+12) {
		t.Errorf("%d schemas", len(schemas))
	}
	for name, text := range schemas {
		var v struct {
			Type       string                    `json:"type"`
			Properties map[string]jsontext.Value `json:"properties"`
			Required   []string                  `json:"required"`
		}
		if err := json.Unmarshal(text, &v); err != nil || v.Type != "object" {
			t.Errorf("%s: %v, %s", name, err, text)
		}
		for _, r := range v.Required {
			if v.Properties[r] == nil {
				t.Errorf("%s requires %s and does not describe it", name, r)
			}
		}
	}
}

// The text of a version in a path may be anything.
func FuzzFind(f *testing.F) {
	for _, s := range []string{"latest", "1.0.0", ">=1.0.0 <2.0.0", "^", "||", "1 - 2", "", strings.Repeat(">1 ", 60)} {
		f.Add(s)
	}
	s, _ := newAPI(f)
	f.Fuzz(func(t *testing.T, version string) {
		if d := s.Builtin("chat", version); d != nil && d.Name != "chat" {
			t.Fatalf("%q found %v", version, d)
		}
	})
}
