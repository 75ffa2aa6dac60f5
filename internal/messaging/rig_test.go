package messaging

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
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
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

// patience bounds how long a failing test waits; a slow machine does not come near it.
const patience = time.Minute

// rig is a Service behind its real router, on a real database, with a bot that
// notes what reaches it. Two bots live in it, each with two installations.
type rig struct {
	testing.TB
	s      *Service
	server *api.API
	town   *town

	mu      sync.Mutex
	got     []map[string]any                                    // events that reached the bots
	calls   []call                                              // operations that reached installations
	answer  func(op endpoint.Operation) (endpoint.Answer, bool) // of installations, nil = {}
	arrived chan struct{}                                       // one for each of both
	handle  func(event map[string]any) error                    // what the bots do with an event; nil = nothing
	signals []*Signal
	waits   chan struct{} // one for each who waits for replies
}

// town is the directory of the tests: it stands for the bot module.
type town struct {
	mu    sync.Mutex
	bots  map[string]*auth.Bot
	rules map[string]*Rules // by bot and installation
}

func (t *town) Bot(_ context.Context, botID string) (*auth.Bot, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bots[botID], nil
}

// Member: one person is at home in the workspace of both bots.
func (t *town) Member(_ context.Context, accountID, workspaceID string) (bool, error) {
	return accountID == "ann" && workspaceID == "w", nil
}

func (t *town) Rules(_ context.Context, botID, installationID string) (*Rules, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.rules[botID+installationID]; r != nil {
		return r, nil
	}
	return &Rules{}, nil
}

var (
	botA, botB   = id.New("bot"), id.New("bot")
	chatA, chatB = id.New("inst"), id.New("inst")
	hookA        = id.New("inst")
)

func newTown() *town {
	install := func(id, alias, name string) auth.Installation {
		return auth.Installation{ID: id, Alias: alias, IntegrationID: "intver_" + id[5:], IntegrationName: name, WebhookID: id, Enabled: true}
	}
	return &town{
		bots: map[string]*auth.Bot{
			botA: {ID: botA, WorkspaceID: "w", Installations: []auth.Installation{install(chatA, "chat", "chat"), install(hookA, "acme/hooky", "hooky")}},
			botB: {ID: botB, WorkspaceID: "w", Installations: []auth.Installation{install(chatB, "chat", "chat")}},
		},
		rules: map[string]*Rules{
			botA + chatA: {
				Tags:     map[string]map[string]int{"user": {"fid": 500, "profile": 1000}, "conversation": {"fid": 500, "owner": 500}},
				Channels: map[string]bool{"channel": true}, Events: map[string]bool{"custom": true},
			},
			botA + hookA: {Channels: map[string]bool{"hook": true}},
			botB + chatB: {Channels: map[string]bool{"channel": true}},
		},
	}
}

// each runs fn on every database.
func each(t *testing.T, fn func(r *rig)) {
	t.Parallel()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) { fn(newRig(t, db)) })
}

func newRig(t testing.TB, db *sqldb.DB) *rig {
	r := &rig{TB: t, town: newTown(), arrived: make(chan struct{}, 1<<20)}
	b := bus.NewLocal()
	source := &Source{}
	engine, err := delivery.New(delivery.Config{Log: slog.New(slog.DiscardHandler), DB: db, Bus: b, Source: source, Invoker: r})
	if err != nil {
		t.Fatal(err)
	}
	r.s, err = New(Config{DB: db, Directory: r.town, Delivery: engine, Calls: delivery.NewPool(r, 8, 8), Actions: r, Sketch: sketch, Listeners: r.listen})
	if err != nil {
		t.Fatal(err)
	}
	source.Service = r.s
	r.waits = make(chan struct{}, 1000)
	r.s.waiting.heed = r.waits
	r.server = api.New(api.Config{Name: "test", Ops: r.s.Ops(), Admit: r.admit, DB: db, CheckAnswers: !isBench(t)})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }()
	t.Cleanup(func() {
		if err := engine.Stop(context.Background()); err != nil {
			t.Errorf("stop delivery: %v", err)
		}
		stop()
		<-done
	})
	for _, botID := range []string{botA, botB} {
		r.write(func(tx *sqldb.Tx) error { return r.s.CreateBotUser(tx, botID, "Bot", 1) })
	}
	return r
}

// idle waits until everything is delivered and marked.
func (r *rig) idle() {
	r.Helper()
	if err := r.s.Delivery.Idle(r.Context()); err != nil {
		r.Fatal(err)
	}
}

// settle waits until what was to be written soon is written.
func (r *rig) settle() {
	r.Helper()
	written := make(chan error, 1)
	r.s.DB.WriteSoon(func(*sqldb.Tx) error { return nil }, func(err error) { written <- err })
	if err := <-written; err != nil {
		r.Fatal(err)
	}
}

func (r *rig) count(query string, args ...any) int {
	r.Helper()
	n, err := sqldb.Scalar[int](r.s.DB.Reader(r.Context()), query, args...)
	if err != nil {
		r.Fatal(err)
	}
	return n
}

func (r *rig) write(fn func(tx *sqldb.Tx) error) {
	r.Helper()
	if err := r.s.DB.Write(r.Context(), fn); err != nil {
		r.Fatal(err)
	}
}

// admit takes the principal from the headers: x-bot-id, and x-integration-id
// with the id of the installation; it is a person, or a bot with its own key. An operator without them is the person of
// x-account.
func (r *rig) admit(req *http.Request, c auth.Class) (auth.Principal, error) {
	if account := req.Header.Get("X-Account"); c == auth.Operator && account != "" {
		return auth.Principal{Kind: auth.Person, TokenID: "t", AccountID: account}, nil
	}
	p := auth.Principal{Kind: auth.Person, TokenID: "t", WorkspaceID: "w", BotID: req.Header.Get("X-Bot-Id"), InstallationID: req.Header.Get("X-Integration-Id")}
	if req.Header.Get("Authorization") == botKey[1] {
		p.Kind = auth.BotKey
	}
	if b, _ := r.town.Bot(req.Context(), p.BotID); b == nil {
		return p, fault.Forbidden.New("no such bot")
	}
	return p, nil
}

// botKey is the header of a request that a bot makes with its own key.
var botKey = []string{"Authorization", "Bearer bp_bak"}

// call is an operation that reached an installation.
type call struct {
	endpoint string
	op       endpoint.Operation
}

// Invoke is the side of bots and installations: it notes what comes.
func (r *rig) Invoke(_ context.Context, endpointID string, op endpoint.Operation) (endpoint.Answer, error) {
	if isOutgoing(endpointID) {
		r.mu.Lock()
		r.calls = append(r.calls, call{endpointID, op})
		r.mu.Unlock()
		if r.answer != nil {
			if a, ok := r.answer(op); ok {
				return a, nil
			}
		}
		r.arrived <- struct{}{}
		return endpoint.Answer{Status: 200, Body: []byte("{}")}, nil
	}
	var body struct {
		Event map[string]any `json:"event"`
	}
	if isBench(r.TB) {
		return endpoint.Answer{}, &endpoint.Error{Class: endpoint.Unreachable, Err: errors.New("down")}
	}
	if err := json.Unmarshal(op.Body, &body); err != nil {
		return endpoint.Answer{}, err
	}
	r.mu.Lock()
	r.got = append(r.got, body.Event)
	handle := r.handle
	r.mu.Unlock()
	var err error
	if handle != nil {
		err = handle(body.Event)
	}
	r.arrived <- struct{}{}
	return endpoint.Answer{Status: 200, Body: []byte("{}")}, err
}

// sketch shows a call as a place on the network would get it.
func sketch(_ context.Context, endpointID string, op endpoint.Operation) (*http.Request, error) {
	if endpointID == "bot:"+botB {
		return nil, errors.New("the bot has no url yet")
	}
	h := op.Header.Clone()
	h.Set("Webhook-Id", op.Subject)
	h.Set("X-Bp-Configuration", "c2VjcmV0")
	return &http.Request{Method: "POST", URL: &url.URL{Scheme: "https", Host: "bot.example", Path: "/" + op.Name, User: url.UserPassword("u", "secret")}, Header: h, Body: io.NopCloser(bytes.NewReader(op.Body))}, nil
}

func (r *rig) Limit(context.Context, string) time.Duration { return time.Minute }

// Act is the action of every installation: it answers its input.
func (r *rig) Act(_ context.Context, _ string, in *auth.Installation, action string, input api.Object) (Acted, error) {
	switch {
	case action == "fail":
		return Acted{}, fault.Runtime.New("no luck")
	case action != "echo":
		return Acted{}, fault.InvalidPayload.New("no action %q", action)
	case in == nil || in.Outside:
		return Acted{Output: input, Cached: in != nil}, nil
	}
	return Acted{Finish: func(*sqldb.Tx) (api.Object, error) { return input, nil }}, nil
}

func (r *rig) listen(g *Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.signals = append(r.signals, g)
}

// await waits until n events have reached the bots, and returns all of them.
func (r *rig) await(n int) []map[string]any {
	r.Helper()
	for range n {
		select {
		case <-r.arrived:
		case <-time.After(patience):
			r.Fatalf("waited for %d events in vain", n)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]map[string]any{}, r.got...)
}

// as is who a request is made as.
type as struct{ bot, installation string }

var (
	botOfA, botOfB   = as{botA, ""}, as{botB, ""}
	chatOfA, chatOfB = as{botA, chatA}, as{botB, chatB}
	hookOfA          = as{botA, hookA}
)

// do makes a request and returns the status and the answer.
func (r *rig) do(who as, method, path, body string, headers ...string) (int, map[string]any) {
	r.Helper()
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Bot-Id", who.bot)
	if who.installation != "" {
		req.Header.Set("X-Integration-Id", who.installation)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	r.server.ServeHTTP(w, req)
	b, _ := io.ReadAll(w.Body)
	var out map[string]any
	if err := json.Unmarshal(b, &out); err != nil {
		r.Fatalf("%s %s answered %d %q", method, path, w.Code, b)
	}
	return w.Code, out
}

// ok is do for a request that must succeed; it returns the member of the answer.
func (r *rig) ok(who as, method, path, body, member string) map[string]any {
	r.Helper()
	status, out := r.do(who, method, path, body)
	if status >= 300 {
		r.Fatalf("%s %s %s answered %d %v", method, path, body, status, out)
	}
	if member == "" {
		return out
	}
	return out[member].(map[string]any)
}

func (r *rig) user(who as, tags string) string {
	r.Helper()
	return r.ok(who, "POST", "/v1/chat/users", `{"tags":`+tags+`}`, "user")["id"].(string)
}

func (r *rig) conversation(who as, channel, tags string) string {
	r.Helper()
	return r.ok(who, "POST", "/v1/chat/conversations", `{"channel":"`+channel+`","tags":`+tags+`}`, "conversation")["id"].(string)
}

func messageBody(conversation, user, text string) string {
	return fmt.Sprintf(`{"conversationId":%q,"userId":%q,"type":"text","payload":{"text":%q},"tags":{}}`, conversation, user, text)
}

func (r *rig) message(who as, conversation, user, text string) map[string]any {
	r.Helper()
	return r.ok(who, "POST", "/v1/chat/messages", messageBody(conversation, user, text), "message")
}

// pages reads a list to its end and returns the ids in order.
func (r *rig) pages(who as, path, member string, between func()) []string {
	r.Helper()
	var ids []string
	token := ""
	for {
		p := path
		if token != "" {
			p += map[bool]string{true: "&", false: "?"}[strings.Contains(path, "?")] + "nextToken=" + token
		}
		out := r.ok(who, "GET", p, "", "")
		for _, row := range out[member].([]any) {
			ids = append(ids, row.(map[string]any)["id"].(string))
		}
		next, more := out["meta"].(map[string]any)["nextToken"]
		if !more {
			return ids
		}
		token = next.(string)
		if between != nil {
			between()
		}
	}
}
