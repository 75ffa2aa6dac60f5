package api_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/page"
	"parley/internal/sqldb"
)

// The operations of these tests: small ones of every shape that the real tables have.

const (
	convID = "conv_01JD3ZK8B9Q2W5T7Y4X6V8N1M0"
	userID = "user_01JD3ZK8B9Q2W5T7Y4X6V8N1M0"
)

type textPayload struct {
	Type string `json:"type" enum:"text"`
	Text string `json:"text" min:"1" max:"100"`
}

// choicePayload does not declare its type: it is two variants.
type choicePayload struct {
	Options []option `json:"options" max:"3"`
}

type option struct {
	Label string `json:"label" min:"1"`
	Value string `json:"value"`
}

type blocPayload struct {
	Type  string        `json:"type" enum:"bloc"`
	Items []blocMember  `json:"items" min:"1" max:"5"`
	Note  *option       `json:"note"`
	Meta  api.Object    `json:"meta,omitempty"`
	Extra *benchPayload `json:"extra,omitempty"`
}

// payload is a union that is kept as it came; a bloc holds others.
type payload struct{ api.Raw }

func (payload) Union() api.Variants {
	return api.Variants{By: "type", Types: []api.Variant{
		api.VariantOf[textPayload]("text"), api.VariantOf[choicePayload]("choice"), api.VariantOf[choicePayload]("dropdown"), api.VariantOf[blocPayload]("bloc"),
	}}
}

type blocMember struct{ payload }

type createMessage struct {
	ConversationID string            `json:"conversationId" format:"id"`
	UserID         string            `json:"userId,omitempty" format:"id"`
	Payload        payload           `json:"payload"`
	Tags           map[string]string `json:"tags" max:"4" each.max:"10"`
	Name           *string           `json:"name" max:"200"`
	Origin         string            `json:"origin,omitempty" enum:"synthetic"`
	Count          int64             `json:"count,omitempty" min:"1" max:"9"`
	Weight         float64           `json:"weight,omitempty" max:"100"`
	Loud           bool              `json:"loud,omitempty"`
	Names          []string          `json:"names,omitempty" max:"2" each.pattern:"[a-z]+"`
	When           *api.Time         `json:"when"`
	Picture        string            `json:"pictureUrl,omitempty" format:"uri"`
	State          api.Object        `json:"state,omitempty"`
	Any            api.Raw           `json:"any,omitempty"`
	Free           any               `json:"free,omitempty"`
}

func (in createMessage) Check() error {
	if in.Name != nil && *in.Name == "checked" {
		return fault.InvalidPayload.New("name is checked")
	}
	return nil
}

type message struct {
	ID        string            `json:"id" doc:"Its identifier."`
	CreatedAt api.Time          `json:"createdAt"`
	Payload   payload           `json:"payload"`
	Tags      map[string]string `json:"tags"`
	Names     []string          `json:"names"`
	Name      *string           `json:"name,omitempty"`
}

type messageResult struct {
	Message *message `json:"message"`
}

type listInput struct {
	page.Query
	ConversationID string            `query:"conversationId" format:"id"`
	Tags           map[string]string `query:"tags"`
	Participants   []string          `query:"participantIds" format:"id"`
	Labels         []string          `query:"labels" max:"3"`
	After          *api.Time         `query:"afterDate"`
	Sort           string            `query:"sortDirection" enum:"asc,desc"`
	Limit          *int              `query:"limit" min:"1" max:"100"`
	Ratio          float64           `query:"ratio"`
	Deep           bool              `query:"deep"`
	Must           string            `query:"must,required"`
	Workspace      string            `header:"x-workspace-id" format:"id"`
}

type seen struct {
	What string `json:"what"`
}

type ref struct {
	ID string `path:"id"`
}

type versionRef struct {
	Name    string `path:"name"`
	Version string `path:"version"`
}

type updateInput struct {
	ID   string                          `path:"id"`
	Name api.Nullable[string]            `json:"name,omitempty" max:"5"`
	Tags map[string]api.Nullable[string] `json:"tags,omitempty"`
	Sub  api.Nullable[option]            `json:"sub,omitempty"`
}

type definition struct {
	Name  string    `json:"name"`
	ID    string    `query:"id"`
	Extra api.Extra `json:",embed"`
}

type nothing struct{}

type world struct {
	*api.API
	log *logBuffer

	mu    sync.Mutex
	calls map[string]int
}

// logBuffer is a log that tests read.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (w *world) called(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls[name]++
}

func (w *world) count(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls[name]
}

var testNow = time.Date(2026, 11, 20, 12, 5, 0, 123e6, time.UTC)

// admit knows the tokens "good", "other" and "stranger".
func admit(r *http.Request, class auth.Class) (auth.Principal, error) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case class == auth.Public:
		return auth.Principal{}, nil
	case token == "good" || token == "other":
		return auth.Principal{Kind: auth.BotKey, TokenID: token, BotID: "bot_1"}, nil
	case token == "stranger":
		return auth.Principal{}, fault.Forbidden.New("Bot %q doesn't exist or this token does not reach it", "bot_1")
	}
	return auth.Principal{}, fault.Unauthorized.New("The request carries no token")
}

func newWorld(t testing.TB, change ...func(*api.Config)) *world {
	t.Helper()
	w := &world{log: &logBuffer{}, calls: map[string]int{}}
	c := api.Config{
		Name: "test", Admit: admit, CheckAnswers: true, Now: func() time.Time { return testNow },
		Log: slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelInfo})),
		Ops: w.ops(),
	}
	for _, f := range change {
		f(&c)
	}
	w.API = api.New(c)
	return w
}

func (w *world) ops() []api.Op {
	return []api.Op{
		api.Handle("createMessage", "POST /v1/chat/messages", auth.Runtime, w.createMessage, api.Created, api.Doc("Creates a message.")),
		api.Handle("listMessages", "GET /v1/chat/messages", auth.Runtime, w.list),
		api.Handle("getMessage", "GET /v1/chat/messages/{id}", auth.Runtime, w.get),
		api.Handle("updateMessage", "PUT /v1/chat/messages/{id}", auth.Runtime, w.update),
		api.Handle("deleteMessage", "DELETE /v1/chat/messages/{id}", auth.Runtime, func(_ context.Context, in ref) (nothing, error) {
			w.called("deleteMessage")
			return nothing{}, nil
		}),
		api.Handle("touch", "POST /v1/chat/messages/{id}/touch", auth.Runtime, func(_ context.Context, in ref) (seen, error) {
			w.called("touch")
			return seen{in.ID}, nil
		}),
		api.Handle("getVersion", "GET /v1/admin/integrations/{name}/{version}", auth.Runtime, func(_ context.Context, in versionRef) (seen, error) {
			return seen{in.Name + " " + in.Version}, nil
		}),
		api.Handle("getPreference", "GET /v1/admin/workspaces/preferences/{id}", auth.Runtime, func(_ context.Context, in ref) (seen, error) {
			return seen{"preference " + in.ID}, nil
		}),
		api.Handle("getPublic", "GET /v1/admin/workspaces/{id}/public", auth.Public, func(_ context.Context, in ref) (seen, error) {
			return seen{"public " + in.ID}, nil
		}),
		api.Handle("define", "PUT /v1/admin/bots", auth.Runtime, func(_ context.Context, in definition) (seen, error) {
			return seen{in.Name + " " + in.ID + " " + string(in.Extra)}, nil
		}, api.Open, api.MaxBody(2<<20)),
		api.Handle("fails", "POST /v1/chat/fails/{id}", auth.Public, fails),
		api.HandleRaw("stream", "GET /v1/chat/stream/{id}", auth.Runtime, stream, api.Produces("text/event-stream"), api.Takes[streamInput]),
	}
}

func (w *world) createMessage(ctx context.Context, in createMessage) (messageResult, error) {
	w.called("createMessage")
	return messageResult{&message{ID: "msg_1", CreatedAt: api.At(testNow), Payload: in.Payload, Tags: in.Tags, Names: in.Names, Name: in.Name}}, nil
}

func (w *world) list(_ context.Context, in listInput) (seen, error) {
	w.called("listMessages")
	limit := 0
	if in.Limit != nil {
		limit = *in.Limit
	}
	after := ""
	if in.After != nil {
		after = in.After.String()
	}
	return seen{fmt.Sprintf("token=%s conversation=%s tags=%v participants=%v labels=%v after=%s sort=%s limit=%d ratio=%v deep=%v must=%s ws=%s",
		in.NextToken, in.ConversationID, in.Tags, in.Participants, in.Labels, after, in.Sort, limit, in.Ratio, in.Deep, in.Must, in.Workspace)}, nil
}

func (w *world) get(ctx context.Context, in ref) (seen, error) {
	if auth.From(ctx).BotID == "" {
		return seen{}, errors.New("no principal")
	}
	return seen{in.ID}, nil
}

func (w *world) update(_ context.Context, in updateInput) (seen, error) {
	return seen{fmt.Sprintf("%s name=%+v tags=%v sub=%+v", in.ID, in.Name, in.Tags, in.Sub)}, nil
}

// fails fails in the way its path asks for.
func fails(ctx context.Context, in ref) (seen, error) {
	switch in.ID {
	case "fault":
		e := fault.ReferenceNotFound.New("User %q doesn't exist for bot %q", "user_1", "bot_1")
		e.Metadata = map[string]any{"userId": "user_1"}
		return seen{}, fmt.Errorf("create message: %w", e)
	case "outage":
		return seen{}, fmt.Errorf("insert: %w", errors.New("dial tcp 10.0.0.1:5432: secret refused"))
	case "busy":
		return seen{}, fmt.Errorf("write: %w", sqldb.ErrBusy)
	case "closed":
		return seen{}, sqldb.ErrClosed
	case "text":
		return seen{}, sqldb.ErrText
	case "deadline":
		return seen{}, context.DeadlineExceeded
	case "waits":
		<-ctx.Done()
		return seen{}, errors.New("interrupted (9)")
	case "panic":
		panic("the moon is full")
	case "metadata":
		e := fault.InvalidPayload.New("m")
		e.Metadata = map[string]any{"f": func() {}}
		return seen{}, e
	}
	return seen{}, nil
}

type streamInput struct {
	ID    string `path:"id"`
	After *int   `query:"after" min:"0" doc:"A position."`
}

func stream(w http.ResponseWriter, r *http.Request) error {
	in, err := api.Params[streamInput](r)
	if err != nil {
		return err
	}
	if in.ID == "none" {
		return fault.ResourceNotFound.New("Stream %q doesn't exist", in.ID)
	}
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprintf(w, "data: %s of %s\n\n", in.ID, auth.From(r.Context()).BotID)
	w.(http.Flusher).Flush()
	switch in.ID {
	case "late":
		return errors.New("the log is gone")
	case "panic":
		panic("late")
	}
	return nil
}

// ask sends one request to the handler. A header is "name: value"; a good token
// and a JSON content type are there unless one says otherwise.
func (w *world) ask(method, target, body string, headers ...string) *httptest.ResponseRecorder {
	var text io.Reader
	if body != "" {
		text = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, target, text)
	r.Header.Set("Authorization", "Bearer good")
	r.Header.Set("X-Request-Id", "req_test")
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Del(name)
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, r)
	return rec
}

// faultOf reads an error's body.
func faultOf(t testing.TB, rec *httptest.ResponseRecorder) fault.Body {
	t.Helper()
	var b fault.Body
	if err := json.Unmarshal(rec.Body.Bytes(), &b); err != nil {
		t.Fatalf("the answer is no error body: %v: %s", err, rec.Body)
	}
	if b.Code != rec.Code || b.Status != rec.Code || b.ID == "" || b.Description == "" {
		t.Errorf("the error body does not agree with the status %d: %+v", rec.Code, b)
	}
	if got := rec.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("error has content type %q", got)
	}
	return b
}

func wantFault(t testing.TB, rec *httptest.ResponseRecorder, kind *fault.Kind, message string) {
	t.Helper()
	if rec.Code < 400 {
		t.Fatalf("got %d %s, want %s", rec.Code, rec.Body, kind.Type)
	}
	b := faultOf(t, rec)
	if rec.Code != kind.Status || b.Type != kind.Type || b.Message != message {
		t.Errorf("got  %d %s %q\nwant %d %s %q", rec.Code, b.Type, b.Message, kind.Status, kind.Type, message)
	}
}
