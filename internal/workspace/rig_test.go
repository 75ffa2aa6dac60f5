package workspace

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/bus"
	"parley/internal/signing"
	"parley/internal/sqldb"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// rig is the real service behind the real gate and router.
type rig struct {
	*Service
	api   *api.API
	clock atomic.Int64
}

const start = int64(1772366400000) // 2026-03-01T12:00:00Z

func newRig(t *testing.T, db *sqldb.DB, b bus.Bus, maxAge time.Duration) *rig {
	t.Helper()
	r := &rig{}
	r.clock.Store(start)
	now := func() time.Time { return time.UnixMilli(r.clock.Load()) }
	box, err := auth.NewBox(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := signing.NewStore(signing.Config{DB: db, Bus: b, Box: box, Now: now, MaxAge: maxAge})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(secrets.Close)
	s, err := New(Config{DB: db, Bus: b, Secrets: secrets, Integrations: owners{}, Bots: owners{}, Now: now, MaxAge: maxAge})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	gate := &auth.Gate{Tokens: s, Directory: directory{s}, Now: now}
	r.Service = s
	r.api = api.New(api.Config{Name: "admin", Ops: s.Ops(), Admit: gate.Admit, DB: db, Now: now, CheckAnswers: true})
	return r
}

// directory has members, and the bots of the database.
type directory struct{ *Service }

func (d directory) Bot(ctx context.Context, botID string) (*auth.Bot, error) {
	workspaceID, err := owners{}.Home(d.DB.Reader(ctx), botID)
	if workspaceID == "" {
		return nil, err
	}
	return &auth.Bot{ID: botID, WorkspaceID: workspaceID}, nil
}
func (directory) Family(context.Context, string) (string, error) { return "", nil }

// owners gives each workspace the integration whose id ends as its own.
type owners struct{}

func integrationOf(workspaceID string) string { return "intver_" + workspaceID[len(workspaceID)-26:] }

func (owners) Owns(_ sqldb.Q, workspaceID, integrationID string) (bool, error) {
	return integrationID == integrationOf(workspaceID), nil
}

func (owners) Family(q sqldb.Q, integrationID string) (workspaceID, family string, err error) {
	workspaceID, err = owners{}.find(q, "SELECT id FROM workspaces WHERE id = $1", "wkspace_"+integrationID[len(integrationID)-26:])
	return workspaceID, workspaceID + "/hooky", err
}

func (owners) Home(q sqldb.Q, botID string) (workspaceID string, err error) {
	return owners{}.find(q, "SELECT workspace_id FROM bots WHERE id = $1", botID)
}

func (owners) find(q sqldb.Q, query, id string) (string, error) {
	found, err := sqldb.Scalar[string](q, query, id)
	if errors.Is(err, sqldb.ErrNoRow) {
		return "", nil
	}
	return found, err
}

// tick moves the clock, so that what follows is newer.
func (r *rig) tick() { r.clock.Add(1000) }

// person is an account with a workspace and a token.
type person struct{ account, workspace, tokenID, token string }

func (r *rig) person(t *testing.T, email string) person {
	t.Helper()
	w, err := r.Create(t.Context(), NewWorkspace{Email: email, DisplayName: strings.SplitN(email, "@", 2)[0], Name: email + "'s"})
	if err != nil {
		t.Fatal(err)
	}
	tok, text, err := r.CreateToken(t.Context(), Token{Kind: auth.PAT, AccountID: w.OwnerID, Note: "first"})
	if err != nil {
		t.Fatal(err)
	}
	return person{w.OwnerID, w.ID, tok.ID, string(text)}
}

type answer struct {
	status int
	body   []byte
}

// do sends a request. header holds "name: value" lines.
func (r *rig) do(t *testing.T, token, request, body string, header ...string) answer {
	t.Helper()
	method, path, _ := strings.Cut(request, " ")
	q := httptest.NewRequest(method, path, strings.NewReader(body))
	q.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		q.Header.Set("Content-Type", "application/json")
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		q.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	r.api.ServeHTTP(w, q)
	return answer{w.Code, w.Body.Bytes()}
}

// get finds a value in the answer by its members.
func (a answer) get(t *testing.T, path ...string) string {
	t.Helper()
	v := api.Raw(a.body)
	for _, name := range path {
		v = v.Member(name)
	}
	s, ok := v.Text()
	if !ok {
		t.Fatalf("%d %s has no text at %v", a.status, a.body, path)
	}
	return s
}

// want checks the status and that the body contains a text.
func (a answer) want(t *testing.T, status int, text string) answer {
	t.Helper()
	if a.status != status || !bytes.Contains(a.body, []byte(text)) {
		t.Fatalf("got %d %s; want %d with %q", a.status, a.body, status, text)
	}
	return a
}

var (
	ids    = regexp.MustCompile(`[a-z]+_[0-9A-HJKMNP-TV-Z]{26}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	whsecs = regexp.MustCompile(`whsec_[A-Za-z0-9+/=]{44}`)
	tokens = regexp.MustCompile(`bp_([a-z]+)_[A-Za-z0-9_-]{43}`)
	errIDs = regexp.MustCompile(`err_[0-9]{13}x[0-9A-F]{8}`)
)

// golden compares the body with testdata/NAME.json, where ids stand as numbers
// in the order they appear.
func (a answer) golden(t *testing.T, name string) {
	t.Helper()
	seen := map[string]string{}
	body := tokens.ReplaceAll(a.body, []byte("bp_${1}_…"))
	body = whsecs.ReplaceAll(body, []byte("whsec_…"))
	body = errIDs.ReplaceAll(body, []byte("err_…"))
	body = ids.ReplaceAllFunc(body, func(id []byte) []byte {
		if n := len(seen) + 1; seen[string(id)] == "" {
			prefix, _, minted := strings.Cut(string(id), "_")
			seen[string(id)] = fmt.Sprintf("00000000-0000-4000-8000-%012d", n)
			if minted {
				seen[string(id)] = fmt.Sprintf("%s_%026d", prefix, n)
			}
		}
		return []byte(seen[string(id)])
	})
	text := jsontext.Value(body)
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

func decode[T any](t *testing.T, a answer) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(a.body, &v); err != nil || a.status != 200 {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	return v
}
