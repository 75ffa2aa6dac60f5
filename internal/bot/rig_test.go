package bot

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/bus"
	"parley/internal/delivery"
	"parley/internal/endpoint"
	"parley/internal/fault"
	"parley/internal/signing"
	"parley/internal/sqldb"
	"parley/internal/timer"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const (
	start = int64(1772366400000) // 2026-03-01T12:00:00Z
	ours  = "wkspace_01AAAAAAAAAAAAAAAAAAAAAAAA"
	other = "wkspace_01BBBBBBBBBBBBBBBBBBBBBBBB"

	chat10 = "intver_01AAAAAAAAAAAAAAAAAAAAAAAA" // chat 1.0.0
	chat11 = "intver_01BBBBBBBBBBBBBBBBBBBBBBBB" // chat 1.1.0
	hooky  = "intver_01CCCCCCCCCCCCCCCCCCCCCCCC" // acme/hooky 0.1.0
	nobody = "intver_01ZZZZZZZZZZZZZZZZZZZZZZZZ"
)

// rig is the real service behind the real router.
type rig struct {
	*Service
	api   *api.API
	clock atomic.Int64
	log   bytes.Buffer

	mu      sync.Mutex
	changed []string
	ended   []string

	engine *delivery.Engine // of registrations; it runs where a test starts it
	timers *timer.Engine
	calls  chan endpoint.Operation
	answer func(op endpoint.Operation) (endpoint.Answer, error)
}

// Invoke is the side of the integrations.
func (r *rig) Invoke(_ context.Context, endpointID string, op endpoint.Operation) (endpoint.Answer, error) {
	op.Type = endpointID
	r.calls <- op
	return r.answer(op)
}

func (*rig) Limit(context.Context, string) time.Duration { return time.Minute }

// late hands the engine a source that is made after it.
type late struct{ r *rig }

func (l late) Next(ctx context.Context, lane string, after int64) (*delivery.Work, error) {
	return Registrations{l.r.Service}.Next(ctx, lane, after)
}

func (l late) Done(tx *sqldb.Tx, w *delivery.Work, o delivery.Outcome) error {
	return Registrations{l.r.Service}.Done(tx, w, o)
}

func newRig(t *testing.T, db *sqldb.DB, b bus.Bus, maxAge time.Duration) *rig {
	t.Helper()
	r := &rig{calls: make(chan endpoint.Operation, 100)}
	r.clock.Store(start)
	now := func() time.Time { return time.UnixMilli(r.clock.Load()) }
	box, err := auth.NewBox(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(&r.log, nil))
	if r.engine, err = delivery.New(delivery.Config{DB: db, Bus: b, Source: late{r}, Invoker: r, Now: now, Log: log}); err != nil {
		t.Fatal(err)
	}
	r.timers = timer.New(timer.Config{DB: db, Now: now, Log: log})
	secrets, err := signing.NewStore(signing.Config{DB: db, Bus: b, Box: box, Now: now, MaxAge: maxAge})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(secrets.Close)
	r.Service, err = New(Config{
		Secrets: secrets, Enqueue: r.engine.Enqueue, Timers: r.timers,
		DB: db, Bus: b, Box: box, Users: users{}, Recurring: recurrences{}, Catalog: catalogue{}, PublicURL: "https://bots.example.com/", Now: now, MaxAge: maxAge, Log: log,
		Changed: func(botID string) { r.note(&r.changed, botID) },
		Ended:   func(installationID string) { r.note(&r.ended, installationID) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	r.api = api.New(api.Config{Name: "admin", Ops: r.Ops(), Admit: admit, DB: db, Now: now, Log: log, CheckAnswers: true})
	return r
}

func (r *rig) note(list *[]string, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*list = append(*list, id)
}

// admit believes the workspace header.
func admit(q *http.Request, _ auth.Class) (auth.Principal, error) {
	w := q.Header.Get("x-workspace-id")
	return auth.Principal{Kind: auth.Person, TokenID: "pat_" + w, AccountID: "accnt_01AAAAAAAAAAAAAAAAAAAAAAAA", WorkspaceID: w}, nil
}

// users keeps the users of bots where messaging does.
type users struct{}

var errNoUser = errors.New("no user for bots of this name")

func (users) CreateBotUser(tx *sqldb.Tx, botID, name string, at int64) error {
	if name == "fails" {
		return errNoUser
	}
	_, err := tx.Exec("INSERT INTO users (id, bot_id, installation_id, name, tags, created_at, updated_at) VALUES ($1, $1, '', $2, '{}', $3, $3)", botID, name, at)
	return err
}

// recurrences keeps the recurring events of bots where messaging does.
type recurrences struct{}

func (recurrences) Recur(tx *sqldb.Tx, botID string, events map[string]RecurringEvent) error {
	if _, err := tx.Exec("DELETE FROM recurring_events WHERE bot_id = $1", botID); err != nil {
		return err
	}
	for name, e := range events {
		if _, err := tx.Exec("INSERT INTO recurring_events (id, bot_id, name, cron, type, payload, failed_attempts, last_failure_reason) VALUES ($1, $2, $3, $4, $5, $6, 0, '')",
			botID+name, botID, name, e.Cron, e.Type, string(e.Payload)); err != nil {
			return err
		}
	}
	return nil
}

func (recurrences) Failures(q sqldb.Q, botID string) (map[string]Failure, error) {
	rows, err := q.Query("SELECT name, failed_attempts, last_failure_reason FROM recurring_events WHERE bot_id = $1 AND failed_attempts > 0", botID)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[string]Failure{}
	for rows.Next() {
		var name string
		var f Failure
		if err := rows.Scan(&name, &f.Attempts, &f.Reason); err != nil {
			return nil, err
		}
		out[name] = f
	}
	return out, rows.Err()
}

// catalogue has two versions of chat and one other integration.
type catalogue struct{}

func (c catalogue) Installable(tx *sqldb.Tx, _, integrationID string) (*Integration, error) {
	return c.Lookup(tx, integrationID)
}

func (catalogue) Lookup(_ sqldb.Q, integrationID string) (*Integration, error) {
	in := Integration{
		ID: integrationID, Title: "T", Description: "D", IconURL: "https://icons.example.com/x.svg", Public: true,
		Visibility: "public", VerificationStatus: "approved", LifecycleStatus: "published", Channels: map[string]bool{"channel": true},
		Check: func(typ string, c api.Object) error {
			if typ != "" && typ != "oauth" {
				return fault.InvalidPayload.New("configurationType %q is unknown", typ)
			}
			for name := range c.Members() {
				if name != "encryptionKey" && name != "webhookUrl" {
					return fault.InvalidDataFormat.New("configuration.%s is not a setting", name)
				}
			}
			return nil
		},
		Signals: func(c api.Object) bool {
			url, _ := c.Member("webhookUrl").Text()
			return url != ""
		},
	}
	switch integrationID {
	case chat10:
		in.Name, in.Version = "chat", "1.0.0"
	case chat11:
		in.Name, in.Version = "chat", "1.1.0"
	case hooky:
		in.Name, in.Version, in.Outside, in.Told = "acme/hooky", "0.1.0", true, true
	default:
		return nil, nil
	}
	return &in, nil
}

type answer struct {
	status int
	body   []byte
}

// do sends a request in a workspace. header holds "name: value" lines.
func (r *rig) do(t *testing.T, workspace, request, body string, header ...string) answer {
	t.Helper()
	method, path, _ := strings.Cut(request, " ")
	q := httptest.NewRequestWithContext(context.Background(), method, path, strings.NewReader(body))
	q.Header.Set("x-workspace-id", workspace)
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

const (
	bots    = "/v1/admin/bots"
	byAlias = "x-multiple-integrations: true"
)

// make creates a bot of ours.
func (r *rig) make(t *testing.T, body string) string {
	t.Helper()
	return r.do(t, ours, "POST "+bots, body).want(t, 200, `"bot"`).get(t, "bot", "id")
}

// put updates a bot of ours and shows it by alias.
func (r *rig) put(t *testing.T, botID, body string) answer {
	t.Helper()
	return r.do(t, ours, "PUT "+bots+"/"+botID, body, byAlias)
}

// shown reads a bot of ours by alias.
func (r *rig) shown(t *testing.T, botID string) *Bot {
	t.Helper()
	return decode[botResult](t, r.do(t, ours, "GET "+bots+"/"+botID, "", byAlias)).Bot
}

// get finds a text in the answer by its members.
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
	ids     = regexp.MustCompile(`[a-z]+_[0-9A-HJKMNP-TV-Z]{26}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	secrets = regexp.MustCompile(`whsec_[A-Za-z0-9+/=]{44}`)
	errIDs  = regexp.MustCompile(`err_[0-9]{13}x[0-9A-F]{8}`)
)

// golden compares the body with testdata/NAME.json, where ids stand as numbers
// in the order they appear.
func (a answer) golden(t *testing.T, name string) {
	t.Helper()
	seen := map[string]string{}
	body := secrets.ReplaceAll(a.body, []byte("whsec_…"))
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
