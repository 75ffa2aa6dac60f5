package messagingapi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/bus"
	"parley/internal/delivery"
	"parley/internal/endpoint"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/messaging"
	"parley/internal/outbound"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// patience is how long a test waits for what must come.
const patience = time.Minute

// rig is a Service with everything real around it: database, messaging,
// delivery, the gate, a response endpoint and a server on loopback. The doors
// and, below /v1, the Runtime API answer there. In it are two bots of two
// workspaces, each with the integration installed; bot A has it twice, and
// another integration besides.
type rig struct {
	testing.TB
	api    *Service
	msg    *messaging.Service
	engine *delivery.Engine
	town   *town
	sink   *sink
	tokens map[string]string // by whose it is

	url string // of the server

	mu    sync.Mutex
	reply func(event map[string]any) // the bots' program, nil = they keep silent
	heard []map[string]any           // the events that reached the bots
}

// town stands for the modules that know bots, installations and tokens.
type town struct {
	mu     sync.Mutex
	doors  map[string]Installation // by webhook id
	tokens map[string]*auth.Token  // by hash
}

// place names an installation in the tests.
type place struct{ bot, installation, webhook string }

var (
	hereA   = place{id.New("bot"), id.New("inst"), id.UUID()}
	secondA = place{hereA.bot, id.New("inst"), id.UUID()}
	hookA   = place{hereA.bot, id.New("inst"), id.UUID()}
	hereB   = place{id.New("bot"), id.New("inst"), id.UUID()}
)

func (t *town) install(p place, alias, name, url string) {
	t.doors[p.webhook] = Installation{
		Installation: auth.Installation{
			ID: p.installation, Alias: alias, IntegrationID: "intver_" + p.installation[5:], IntegrationName: name, WebhookID: p.webhook, Enabled: true, Told: name == Name,
		},
		BotID: p.bot, Configuration: Configuration{ResponseEndpointURL: url},
	}
}

// ByWebhook implements Installations.
func (t *town) ByWebhook(_ context.Context, webhookID string) (*Installation, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	in, ok := t.doors[webhookID]
	if !ok {
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

// Bot implements messaging.Directory and auth.Directory.
func (t *town) Bot(_ context.Context, botID string) (*auth.Bot, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := &auth.Bot{ID: botID, WorkspaceID: workspaceOf(botID)}
	for _, p := range []place{hereA, secondA, hookA, hereB} {
		if in := t.doors[p.webhook]; in.BotID == botID {
			b.Installations = append(b.Installations, in.Installation)
		}
	}
	if b.Installations == nil {
		return nil, nil
	}
	return b, nil
}

// workspaceOf is the workspace of a bot, and the name of its only member.
func workspaceOf(botID string) string { return "wkspace_" + strings.TrimPrefix(botID, "bot_") }

// Member implements auth.Directory.
func (t *town) Member(_ context.Context, accountID, workspaceID string) (bool, error) {
	return accountID == workspaceID, nil
}

// Family implements auth.Directory.
func (t *town) Family(_ context.Context, integrationID string) (string, error) {
	return integrationID, nil
}

// Token implements auth.Tokens.
func (t *town) Token(_ context.Context, hash string) (*auth.Token, error) { return t.tokens[hash], nil }

// Rules implements messaging.Directory with what the integration declares.
func (t *town) Rules(_ context.Context, _, installationID string) (*messaging.Rules, error) {
	if installationID == "" || installationID == hookA.installation {
		return &messaging.Rules{}, nil
	}
	id := map[string]int{nameTag: 500}
	return &messaging.Rules{Tags: map[string]map[string]int{"user": id, "conversation": id, "message": id}, Channels: map[string]bool{channel: true}}, nil
}

// sink is a response endpoint: it keeps what comes, and answers as it is told.
type sink struct {
	*httptest.Server
	arrived chan taken

	mu     sync.Mutex
	answer http.HandlerFunc // nil = 200
}

// taken is a request that a sink got.
type taken struct {
	header http.Header
	body   map[string]any
	text   string
}

func newSink(t testing.TB) *sink {
	s := &sink{arrived: make(chan taken, 1000)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		got := taken{r.Header, map[string]any{}, string(text)}
		_ = json.Unmarshal(text, &got.body)
		if r.Method != "POST" || r.URL.Path != "/replies" {
			t.Errorf("the response endpoint got %s %s", r.Method, r.URL.Path)
		}
		s.mu.Lock()
		answer := s.answer
		s.mu.Unlock()
		if answer != nil {
			answer(w, r)
		}
		s.arrived <- got
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *sink) at() string { return s.URL + "/replies" }

// answers says how the sink answers from now on.
func (s *sink) answers(fn http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = fn
}

// each runs fn on every database.
func each(t *testing.T, fn func(r *rig)) {
	t.Helper()
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) { fn(newRig(t, db)) })
}

func newRig(t testing.TB, db *sqldb.DB) *rig {
	t.Helper()
	r := &rig{TB: t, sink: newSink(t), tokens: map[string]string{}}
	r.town = &town{doors: map[string]Installation{}, tokens: map[string]*auth.Token{}}
	r.town.install(hereA, Name, Name, r.sink.at())
	r.town.install(secondA, "second/messaging", Name, r.sink.at())
	r.town.install(hookA, "hooky", "hooky", "")
	r.town.install(hereB, Name, Name, r.sink.at())
	r.mint("annA", auth.Token{Kind: auth.PAT, AccountID: workspaceOf(hereA.bot)})
	r.mint("bobB", auth.Token{Kind: auth.PAT, AccountID: workspaceOf(hereB.bot)})
	r.mint("botA", auth.Token{Kind: auth.BAK, BotID: hereA.bot})
	r.mint("botB", auth.Token{Kind: auth.BAK, BotID: hereB.bot})
	r.mint("hooky", auth.Token{Kind: auth.IAK, IntegrationID: "intver_" + hookA.installation[5:]})
	r.mint("old", auth.Token{Kind: auth.PAT, AccountID: workspaceOf(hereA.bot), ExpiresAt: 1})
	source := &messaging.Source{}
	r.engine = must(delivery.New(delivery.Config{DB: db, Bus: bus.NewLocal(), Source: source, Invoker: r, Exclusive: true, WebhookPauses: []time.Duration{50 * time.Millisecond}}))
	r.msg = must(messaging.New(messaging.Config{DB: db, Directory: r.town, Delivery: r.engine}))
	source.Service = r.msg
	gate := &auth.Gate{Tokens: r.town, Directory: r.town, Now: time.Now}
	r.api = must(New(Config{DB: db, Messaging: r.msg, Installations: r.town, Enter: gate.Enter}))
	r.serve(db, gate)
	for _, p := range []place{hereA, hereB} {
		must(0, db.Write(r.Context(), func(tx *sqldb.Tx) error { return r.msg.CreateBotUser(tx, p.bot, "Bot", 1) }))
	}
	return r
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (r *rig) mint(whose string, t auth.Token) {
	text, hash := auth.NewToken(t.Kind)
	t.ID = whose
	r.tokens[whose], r.town.tokens[hash] = text, &t
}

// serve opens the server and starts the engine, for as long as the test runs.
func (r *rig) serve(db *sqldb.DB, gate *auth.Gate) {
	doors := api.New(api.Config{Name: Name, Prefix: Prefix, Ops: r.api.Ops(), Admit: r.api.Admit, DB: db, CheckAnswers: true})
	runtime := api.New(api.Config{Name: "v1", Ops: r.msg.Ops(), Admit: gate.Admit, DB: db, CheckAnswers: true})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasPrefix(req.URL.Path, "/v1/") {
			runtime.ServeHTTP(w, req)
		} else {
			doors.ServeHTTP(w, req)
		}
	}))
	r.url = server.URL
	ctx, stop := context.WithCancel(context.Background())
	var runs sync.WaitGroup
	runs.Go(func() { _ = r.engine.Run(ctx) })
	r.Cleanup(func() {
		if err := r.engine.Stop(ctx); err != nil {
			r.Errorf("stop delivery: %v", err)
		}
		server.Close()
		stop()
		runs.Wait()
		r.msg.Close()
	})
}

var client = outbound.New(outbound.Config{AllowLoopback: true})

// Invoke implements delivery.Invoker: it is the bots, and leads to the response
// endpoints.
func (r *rig) Invoke(ctx context.Context, endpointID string, op endpoint.Operation) (endpoint.Answer, error) {
	if installationID, ok := strings.CutPrefix(endpointID, "inst:"); ok {
		return NewEndpoint(client, r.configuration(installationID)).Invoke(ctx, op)
	}
	var body struct {
		Event map[string]any `json:"event"`
	}
	if err := json.Unmarshal(op.Body, &body); err != nil {
		return endpoint.Answer{}, err
	}
	r.mu.Lock()
	r.heard = append(r.heard, body.Event)
	reply := r.reply
	r.mu.Unlock()
	if reply != nil {
		reply(body.Event)
	}
	return endpoint.Answer{Status: http.StatusOK, Body: []byte("{}")}, nil
}

func (r *rig) configuration(installationID string) Configuration {
	r.town.mu.Lock()
	defer r.town.mu.Unlock()
	for _, in := range r.town.doors {
		if in.ID == installationID {
			return in.Configuration
		}
	}
	return Configuration{}
}

// Limit implements delivery.Invoker.
func (r *rig) Limit(context.Context, string) time.Duration { return time.Minute }

// replies gives the bots a program.
func (r *rig) replies(fn func(event map[string]any)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reply = fn
}

// events are those that reached the bots, once nothing is pending.
func (r *rig) events() []map[string]any {
	r.Helper()
	r.idle()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.heard
}

// idle waits until everything that was handed over is delivered.
func (r *rig) idle() {
	r.Helper()
	if err := r.engine.Idle(r.Context()); err != nil {
		r.Fatal(err)
	}
}

// gets returns the next request that reaches the response endpoint.
func (r *rig) gets() taken {
	r.Helper()
	select {
	case got := <-r.sink.arrived:
		return got
	case <-time.After(patience):
		r.Fatal("waited for a request to the response endpoint in vain")
		return taken{}
	}
}

// request makes a request and returns the answer's status and body.
func (r *rig) request(method, path, body string, headers ...string) (int, map[string]any) {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
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

// runtime makes a request that must succeed as bot A itself.
func (r *rig) runtime(method, path, body string, headers ...string) map[string]any {
	r.Helper()
	status, out := r.request(method, "/v1/chat"+path, body, append([]string{"Content-Type", "application/json", "Authorization", "Bearer " + r.tokens["botA"]}, headers...)...)
	if status >= 300 {
		r.Fatalf("%s %s %s answered %d %v", method, path, body, status, out)
	}
	return out
}

// says makes bot A send a message to a conversation.
func (r *rig) says(conversationID, typ, payload string) map[string]any {
	r.Helper()
	return r.runtime("POST", "/messages", fmt.Sprintf(`{"conversationId":%q,"userId":%q,"type":%q,"payload":%s,"tags":{}}`, conversationID, hereA.bot, typ, payload))["message"].(map[string]any)
}

// post brings a body to the door of bot A as its owner, with nothing but the
// header that the instructions name.
func (r *rig) post(body string) (int, map[string]any) {
	r.Helper()
	return r.request("POST", "/"+hereA.webhook, body, "Authorization", "bearer "+r.tokens["annA"])
}

// ok is post for what must succeed.
func (r *rig) ok(body string) map[string]any {
	r.Helper()
	status, out := r.post(body)
	if status != http.StatusOK {
		r.Fatalf("%s answered %d %v", body, status, out)
	}
	return out
}

// text is the body that brings a text.
func text(userID, conversationID, messageID, words string) string {
	return fmt.Sprintf(`{"userId":%q,"conversationId":%q,"messageId":%q,"type":"text","text":%q,"payload":{}}`, userID, conversationID, messageID, words)
}

// wants compares an answer with a fault and the words in its message.
func wants(t testing.TB, what string, status int, out map[string]any, kind *fault.Kind, says ...string) {
	t.Helper()
	message := fmt.Sprint(out["message"])
	for _, words := range says {
		if status != kind.Status || out["type"] != kind.Type || !strings.Contains(message, words) {
			t.Errorf("%.100s: got %d %v %q, want %s with %q", what, status, out["type"], message, kind.Type, words)
		}
	}
}

// field reads a string inside an answer.
func field(v map[string]any, path ...string) string {
	for _, name := range path[:len(path)-1] {
		v, _ = v[name].(map[string]any)
	}
	text, _ := v[path[len(path)-1]].(string)
	return text
}
