package chatapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/bus"
	"parley/internal/delivery"
	"parley/internal/endpoint"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/messaging"
	"parley/internal/realtime"
	"parley/internal/schema"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// patience is how long a test waits for what must come.
const patience = time.Minute

// rig is a Service with everything real around it: database, messaging,
// delivery, hub and a server on loopback. The doors and, below /v1, the Runtime
// API answer there. In it are two bots with a chat each; that of bot B has an
// encryption key. Bot A has a second chat and another integration besides.
type rig struct {
	testing.TB
	chat   *Service
	msg    *messaging.Service
	hub    *realtime.Hub
	engine *delivery.Engine
	town   *town
	clock  *clock

	handler http.Handler
	url     string // of the server it is behind

	mu      sync.Mutex
	reply   func(event map[string]any) // the bots' program, nil = they keep silent
	hook    func(op endpoint.Operation) endpoint.Answer
	arrived chan map[string]any // what reached the bots
}

// town stands for the modules that know bots and installations.
type town struct {
	mu    sync.Mutex
	doors map[string]Installation // by webhook id
}

// place names an installation in the tests.
type place struct{ bot, installation, webhook string }

const keyOfB = "the encryption key of bot B"

var (
	chatA   = place{id.New("bot"), id.New("inst"), id.UUID()}
	secondA = place{chatA.bot, id.New("inst"), id.UUID()}
	hookA   = place{chatA.bot, id.New("inst"), id.UUID()}
	chatB   = place{id.New("bot"), id.New("inst"), id.UUID()}
)

func newTown() *town {
	install := func(p place, alias, name, key string) Installation {
		in := auth.Installation{ID: p.installation, Alias: alias, IntegrationID: "intver_" + p.installation[5:], IntegrationName: name, WebhookID: p.webhook, Enabled: true}
		return Installation{Installation: in, BotID: p.bot, WorkspaceID: "w", EncryptionKey: key}
	}
	return &town{doors: map[string]Installation{
		chatA.webhook: install(chatA, "chat", "chat", ""), secondA.webhook: install(secondA, "support/chat", "chat", ""),
		hookA.webhook: install(hookA, "hooky", "hooky", ""), chatB.webhook: install(chatB, "chat", "chat", keyOfB),
	}}
}

// ByWebhook implements Installations: it finds those of chat.
func (t *town) ByWebhook(_ context.Context, webhookID string) (*Installation, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	in, ok := t.doors[webhookID]
	if !ok || in.IntegrationName != "chat" {
		return nil, nil
	}
	return &in, nil
}

// change changes an installation.
func (t *town) change(p place, fn func(in *Installation)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	in := t.doors[p.webhook]
	fn(&in)
	t.doors[p.webhook] = in
}

// Bot implements messaging.Directory.
func (t *town) Bot(_ context.Context, botID string) (*auth.Bot, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := &auth.Bot{ID: botID, WorkspaceID: "w"}
	for _, p := range []place{chatA, secondA, hookA, chatB} {
		if in := t.doors[p.webhook]; in.BotID == botID {
			b.Installations = append(b.Installations, in.Installation)
		}
	}
	if b.Installations == nil {
		return nil, nil
	}
	return b, nil
}

// Member implements messaging.Directory.
func (t *town) Member(context.Context, string, string) (bool, error) { return false, nil }

// Rules implements messaging.Directory with what the integration chat declares.
func (t *town) Rules(_ context.Context, _, installationID string) (*messaging.Rules, error) {
	if installationID == "" || installationID == hookA.installation {
		return &messaging.Rules{}, nil
	}
	return &messaging.Rules{
		Tags: map[string]map[string]int{
			"user": {"fid": 500, "profile": 1000}, "conversation": {"fid": 500, "owner": 500}, "message": {"fid": 500},
		},
		Channels: map[string]bool{channel: true}, Events: map[string]bool{custom: true},
	}, nil
}

// clock is a time that only tests move, or everybody who looks at it.
type clock struct {
	mu   sync.Mutex
	at   time.Time
	step time.Duration // from one look to the next
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(c.step)
	return c.at
}

func (c *clock) ticks(step time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.step = step
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// each runs fn on every database.
func each(t *testing.T, fn func(r *rig)) {
	t.Helper()
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) { fn(newRig(t, db)) })
}

func newRig(t testing.TB, db *sqldb.DB) *rig {
	t.Helper()
	r := &rig{TB: t, town: newTown(), clock: &clock{at: time.Now().Truncate(time.Millisecond)}, arrived: make(chan map[string]any, 10_000)}
	b := bus.NewLocal()
	source, log := &messaging.Source{}, &Log{}
	r.engine = must(delivery.New(delivery.Config{DB: db, Bus: b, Source: source, Invoker: r, Exclusive: true}))
	r.hub = must(realtime.New(realtime.Config{Bus: b, Log: log, Now: r.clock.now}))
	r.msg = must(messaging.New(messaging.Config{
		DB: db, Directory: r.town, Delivery: r.engine, Actions: r,
		Listeners: func(g *messaging.Signal) { r.chat.Notify(g) }, Ended: r.hub.End, Now: r.clock.now,
		Words: func(q sqldb.Q, c messaging.Caller, g *messaging.Signal) ([]byte, error) { return r.chat.Words(q, c, g) },
	}))
	r.chat = must(New(Config{
		DB: db, Messaging: r.msg, Installations: r.town, Box: must(auth.NewBox(bytes.Repeat([]byte{7}, 32))), Hub: r.hub, Now: r.clock.now, Log: slog.New(slog.DiscardHandler),
	}))
	source.Service, log.Service = r.msg, r.chat
	r.serve(db)
	for _, p := range []place{chatA, chatB} {
		r.write(func(tx *sqldb.Tx) error { return r.msg.CreateBotUser(tx, p.bot, "Bot", 1) })
	}
	return r
}

func (r *rig) write(fn func(tx *sqldb.Tx) error) {
	r.Helper()
	if err := r.chat.DB.Write(r.Context(), fn); err != nil {
		r.Fatal(err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// serve opens the server and starts the engines, for as long as the test runs.
func (r *rig) serve(db *sqldb.DB) {
	doors := api.New(api.Config{Name: "chat", Prefix: Prefix, Ops: r.chat.Ops(), Admit: r.chat.Admit, DB: db, CheckAnswers: true, Now: r.clock.now})
	runtime := api.New(api.Config{Name: "v1", Ops: r.msg.Ops(), Admit: admitRuntime, DB: db, CheckAnswers: true, Now: r.clock.now})
	r.handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasPrefix(req.URL.Path, "/v1/") {
			runtime.ServeHTTP(w, req)
		} else {
			doors.ServeHTTP(w, req)
		}
	})
	server := httptest.NewServer(r.handler)
	r.url = server.URL
	ctx, stop := context.WithCancel(context.Background())
	var runs sync.WaitGroup
	runs.Go(func() { _ = r.engine.Run(ctx) })
	runs.Go(func() { _ = r.hub.Run(ctx) })
	r.Cleanup(func() {
		if err := r.engine.Stop(ctx); err != nil {
			r.Errorf("stop delivery: %v", err)
		}
		if err := r.hub.Shutdown(ctx); err != nil {
			r.Errorf("stop the hub: %v", err)
		}
		server.Close()
		stop()
		runs.Wait()
	})
}

// admitRuntime takes who a Runtime request acts as from its headers.
func admitRuntime(req *http.Request, _ auth.Class) (auth.Principal, error) {
	return auth.Principal{Kind: auth.Person, TokenID: "t", WorkspaceID: "w", BotID: req.Header.Get("X-Bot-Id"), InstallationID: req.Header.Get("X-Integration-Id")}, nil
}

// Act implements messaging.Actions.
func (r *rig) Act(ctx context.Context, botID string, in *auth.Installation, action string, input api.Object) (messaging.Acted, error) {
	return r.chat.Act(ctx, botID, in.ID, action, input)
}

// Invoke implements delivery.Invoker: it is the bots, and the webhooks of
// installations.
func (r *rig) Invoke(_ context.Context, endpointID string, op endpoint.Operation) (endpoint.Answer, error) {
	if strings.HasPrefix(endpointID, "inst:") {
		return r.hook(op), nil
	}
	var body struct {
		Event map[string]any `json:"event"`
	}
	if err := json.Unmarshal(op.Body, &body); err != nil {
		return endpoint.Answer{}, err
	}
	r.mu.Lock()
	reply := r.reply
	r.mu.Unlock()
	if reply != nil {
		reply(body.Event)
	}
	r.arrived <- body.Event
	return endpoint.Answer{Status: http.StatusOK, Body: []byte("{}")}, nil
}

// Limit implements delivery.Invoker.
func (r *rig) Limit(context.Context, string) time.Duration { return time.Minute }

// replies gives the bots a program.
func (r *rig) replies(fn func(event map[string]any)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reply = fn
}

// await returns the next event that reaches a bot.
func (r *rig) await() map[string]any {
	r.Helper()
	select {
	case e := <-r.arrived:
		return e
	case <-time.After(patience):
		r.Fatal("waited for an event in vain")
		return nil
	}
}

// request makes a request and returns the answer's status and body.
func (r *rig) request(method, path, body string, headers ...string) (int, map[string]any) {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(text, &out); err != nil {
		r.Fatalf("%s %s answered %d %q", method, path, res.StatusCode, text)
	}
	return res.StatusCode, out
}

// succeed is request for one that must succeed.
func (r *rig) succeed(method, path, body string, headers ...string) map[string]any {
	r.Helper()
	status, out := r.request(method, path, body, headers...)
	if status >= 300 {
		r.Fatalf("%s %s %s answered %d %v", method, path, body, status, out)
	}
	return out
}

// runtime makes a request that must succeed as the bot itself.
func (r *rig) runtime(p place, method, path, body string) map[string]any {
	r.Helper()
	return r.succeed(method, "/v1/chat"+path, body, "X-Bot-Id", p.bot)
}

// says makes the bot send a message to a conversation, given by its real id.
func (r *rig) says(p place, conversationID, typ, payload string) map[string]any {
	r.Helper()
	return r.runtime(p, "POST", "/messages", fmt.Sprintf(`{"conversationId":%q,"userId":%q,"type":%q,"payload":%s,"tags":{}}`, conversationID, p.bot, typ, payload))["message"].(map[string]any)
}

// person is a chat user with a key.
type person struct {
	*rig
	at  place
	id  string // as chat clients see it
	key string
}

// join creates a chat user of bot A, under a chosen id unless it is "".
func (r *rig) join(name string) *person {
	r.Helper()
	return r.joinAt(chatA, name)
}

func (r *rig) joinAt(p place, name string) *person {
	r.Helper()
	body := "{}"
	if name != "" {
		body = fmt.Sprintf(`{"id":%q}`, name)
	}
	out := r.succeed("POST", "/"+p.webhook+"/users", body)
	return &person{r, p, field(out, "user", "id"), field(out, "key")}
}

// sign makes a key for a user of either bot, which need not exist.
func (r *rig) sign(p place, name string) *person {
	door := r.town.doors[p.webhook]
	return &person{r, p, name, auth.SignUserKey(r.chat.signingKey(&door), name, r.clock.now())}
}

// joinB creates a chat user of bot B, whose keys are signed outside.
func (r *rig) joinB(name string) *person {
	r.Helper()
	p := r.sign(chatB, name)
	p.ok("POST", "/users/get-or-create", "{}")
	return p
}

// do makes a request at the person's door.
func (p *person) do(method, path, body string, headers ...string) (int, map[string]any) {
	p.Helper()
	return p.request(method, "/"+p.at.webhook+path, body, append([]string{"X-User-Key", p.key}, headers...)...)
}

// ok is do for a request that must succeed.
func (p *person) ok(method, path, body string, headers ...string) map[string]any {
	p.Helper()
	return p.succeed(method, "/"+p.at.webhook+path, body, append([]string{"X-User-Key", p.key}, headers...)...)
}

// refused makes a request that must be refused with this kind, saying this.
func (p *person) refused(kind *fault.Kind, says, method, path, body string, headers ...string) {
	p.Helper()
	status, out := p.do(method, path, body, headers...)
	if status != kind.Status || out["type"] != kind.Type || !strings.Contains(fmt.Sprint(out["message"]), says) {
		p.Errorf("%s %s %.300s: got %d %v, want %s with %q", method, path, body, status, out, kind.Type, says)
	}
}

// opens creates a conversation, under a chosen id unless it is "".
func (p *person) opens(name string) string {
	p.Helper()
	body := "{}"
	if name != "" {
		body = fmt.Sprintf(`{"id":%q}`, name)
	}
	return field(p.ok("POST", "/conversations", body), "conversation", "id")
}

// says sends a text.
func (p *person) says(conversation, text string) map[string]any {
	p.Helper()
	return p.ok("POST", "/messages", textBody(conversation, text))["message"].(map[string]any)
}

// adds makes another person a participant.
func (p *person) adds(conversation string, other *person) {
	p.Helper()
	p.ok("POST", "/conversations/"+segment(conversation)+"/participants", fmt.Sprintf(`{"userId":%q}`, other.id))
}

// pages reads a list to its end and returns its rows.
func (p *person) pages(path, member string, between func()) (rows []map[string]any) {
	p.Helper()
	for query := ""; ; {
		out := p.ok("GET", path+query, "")
		for _, row := range out[member].([]any) {
			rows = append(rows, row.(map[string]any))
		}
		next, more := out["meta"].(map[string]any)["nextToken"]
		if !more {
			return rows
		}
		query = "?nextToken=" + url.QueryEscape(next.(string))
		if between != nil {
			between()
		}
	}
}

// real finds the id the server gave to a user or conversation of bot A.
func (r *rig) real(kind, name string) string {
	r.Helper()
	real, err := r.msg.FindByTag(r.chat.DB.Reader(r.Context()), chatA.bot, kind, chatA.installation, fid, name)
	if err != nil || real == "" {
		r.Fatalf("%s %q has the real id %q: %v", kind, name, real, err)
	}
	return real
}

func textBody(conversation, text string) string {
	return fmt.Sprintf(`{"conversationId":%q,"payload":{"type":"text","text":%q}}`, conversation, text)
}

// segment is an id as a part of a path.
func segment(id string) string { return url.PathEscape(id) }

// field reads a string inside an answer.
func field(v map[string]any, path ...string) string {
	for _, name := range path[:len(path)-1] {
		v, _ = v[name].(map[string]any)
	}
	text, _ := v[path[len(path)-1]].(string)
	return text
}

func ids(rows []map[string]any) (out []string) {
	for _, row := range rows {
		out = append(out, row["id"].(string))
	}
	return out
}

var changing = []struct {
	pattern *regexp.Regexp
	becomes string
}{
	{regexp.MustCompile(`"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"`), `"TIME"`},
	{regexp.MustCompile(`"([a-z]+)_[0-9A-HJKMNP-TV-Z]{26}"`), `"$1"`},
	{regexp.MustCompile(`"[\w-]+\.[\w-]+\.[\w-]{43}"`), `"KEY"`},
}

// golden compares a JSON value with how it must look: exactly these members.
// Times, keys and the ids that the server gives stand there by their kind.
func golden(t testing.TB, name string, got any, want string) {
	t.Helper()
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changing {
		text = c.pattern.ReplaceAll(text, []byte(c.becomes))
	}
	if diff := cmp.Diff(parsed(t, want), parsed(t, string(text))); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func parsed(t testing.TB, text string) (v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// ask makes a request without a connection, for fuzzing.
func (r *rig) ask(method, path, body, key string) (int, []byte) {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	req.Header["Content-Type"], req.Header["X-User-Key"] = []string{"application/json"}, []string{key}
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, req)
	return w.Code, w.Body.Bytes()
}

// sqliteDB is a fresh database, for tests that need one only.
func sqliteDB(t testing.TB) *sqldb.DB {
	t.Helper()
	db := sqldbtest.Open(t, sqldbtest.SQLiteURL(t))
	if err := db.Migrate(t.Context(), schema.FS, sqldb.MigrateOptions{}); err != nil {
		t.Fatal(err)
	}
	return db
}

func TestNewNeedsItsParts(t *testing.T) {
	t.Parallel()
	if _, err := New(Config{}); err == nil {
		t.Error("a Service of nothing was made")
	}
}
