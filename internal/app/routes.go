package app

import (
	"fmt"
	"net/http"
	"strings"
	"sync"

	"parley/internal/api"
	"parley/internal/builtin/messagingapi"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/spec"
)

// routes finds out by the first segment of a path what answers. Webhook ids are
// UUIDs and everything else is a fixed word, so nothing can collide.
type routes struct {
	*parts
	// Made when first asked for: a start does not wait for them.
	document, chatDocument, messagesDocument, page func() http.Handler
}

func newRoutes(p *parts) *routes {
	rt := &routes{parts: p}
	whole := sync.OnceValue(rt.wholeDocument)
	rt.document = sync.OnceValue(func() http.Handler { return api.DocumentHandler(whole()) })
	rt.page = sync.OnceValue(func() http.Handler { return api.DocsHandler("Parley", whole()) })
	rt.chatDocument = sync.OnceValue(func() http.Handler {
		return api.DocumentHandler(api.Document(api.Info{Title: "Parley Chat API", Version: p.cfg.Version}, api.Mount{API: p.chats}))
	})
	rt.messagesDocument = sync.OnceValue(func() http.Handler {
		return api.DocumentHandler(api.Document(api.Info{Title: "Parley Messaging API", Version: p.cfg.Version}, api.Mount{API: p.messages}))
	})
	return rt
}

// wholeDocument documents what works. What is planned answers, but is not
// documented as if it did more.
func (rt *routes) wholeDocument() []byte {
	built := api.New(api.Config{Ops: rt.ops(), Admit: rt.gate().Admit})
	return api.Document(api.Info{
		Title: "Parley", Version: rt.cfg.Version, Server: rt.url,
		Description: "The operations that this server carries out. Those of the chat family hang under the door of one installation, /{webhookId}.",
	}, api.Mount{API: built}, api.Mount{API: rt.chats, Name: "chat"})
}

func (rt *routes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.EscapedPath()
	if len(path) > 1 {
		path = strings.TrimSuffix(path, "/")
	}
	switch path {
	case "/", "/openapi.json", "/docs":
		api.Head(w, r)
	}
	switch first := firstSegment(path); {
	case path == "/":
		rt.hello(w, r)
	case path == "/openapi.json":
		rt.document().ServeHTTP(w, r)
	case path == "/docs":
		rt.page().ServeHTTP(w, r)
	case isWebhookID(first):
		rt.door(w, r, first, r.URL.EscapedPath()[1+len(first):])
	case first == "oauth":
		rt.oauth(w, r)
	case strings.HasPrefix(path, "/integration/global/"):
		rt.global(w, r)
	default:
		rt.main.ServeHTTP(w, r)
	}
}

func isWebhookID(segment string) bool { return len(segment) == 36 && id.Valid(segment) }

// door is the way in through one installation: the Chat API answers for chat,
// the Messaging API for messaging, an integration that runs outside Parley for
// itself. path is what follows the webhook id.
func (rt *routes) door(w http.ResponseWriter, r *http.Request, webhookID, path string) {
	in, _, err := rt.bot.ByWebhook(r.Context(), webhookID)
	rest := strings.TrimSuffix(path, "/")
	switch {
	case err != nil:
		rt.chats.Fail(w, r, err)
	case in == nil || in.Removed:
		// Webchat clients know by these words that they have a wrong id.
		rt.chats.Fail(w, r, fault.ResourceNotFound.New("[Webhook Handler] No installation has the webhook id %q", webhookID))
	case in.Outside:
		if err = rt.cfg.Roles.need(RoleAPI); err == nil {
			err = rt.doors.Serve(w, r, in, path)
		}
		if err != nil {
			rt.chats.Fail(w, r, err)
		}
	case in.IntegrationName == messagingapi.Name:
		rt.message(w, r, rest)
	case rest == "/hello" && r.Method != http.MethodOptions:
		api.Head(w, r)
		plain(w, http.StatusOK, "hello")
	case rest == "/openapi.json" && r.Method != http.MethodOptions:
		api.Head(w, r)
		rt.chatDocument().ServeHTTP(w, r)
	default:
		rt.chats.ServeHTTP(w, r)
	}
}

// message is the door of the Messaging API.
func (rt *routes) message(w http.ResponseWriter, r *http.Request, path string) {
	if path == "/openapi.json" && r.Method != http.MethodOptions {
		api.Head(w, r)
		rt.messagesDocument().ServeHTTP(w, r)
		return
	}
	rt.messages.ServeHTTP(w, r)
}

// oauth is where services send people back to whom an integration asked for
// consent. The state says which installation they come from.
func (rt *routes) oauth(w http.ResponseWriter, r *http.Request) {
	state := r.URL.Query().Get("state")
	if !isWebhookID(state) {
		rt.main.Fail(w, r, fault.ResourceNotFound.New("[Webhook Handler] The query parameter state must be the webhook id of an installation, not %.100q", state))
		return
	}
	rt.door(w, r, state, r.URL.EscapedPath())
}

// global is the door that all installations of an integration share. Which one
// is meant, a script of the integration says.
func (rt *routes) global(w http.ResponseWriter, r *http.Request) {
	rt.main.Fail(w, r, fault.MethodNotFound.New("%s: the scripts that find an installation by a request (identifier.extractScript) are planned and not evaluated yet in this version of Parley; use the webhook URL of the installation", r.URL.Path))
}

// hello tells whoever looks at the bare address what this is.
func (rt *routes) hello(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		rt.main.ServeHTTP(w, r)
		return
	}
	done := 0
	for _, o := range spec.Operations() {
		if o.State == spec.Done {
			done++
		}
	}
	plain(w, http.StatusOK, fmt.Sprintf(helloText, rt.cfg.Version, rt.url, done))
}

const helloText = `Parley %[1]s: a self-hosted home for conversational bots.

  %[2]s/docs           what this server does: %[3]d operations
  %[2]s/openapi.json   the same for programs
  %[2]s/readyz         whether it can serve, and /healthz, /metrics

Clients written for Botpress Cloud take %[2]s as their API URL.`
