package app

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"parley/internal/auth"
	"parley/internal/schema"
	"parley/internal/workspace"
	"parley/spec"
)

// place is what one bot, one installation of it and one chat user have. The
// names in braces in the requests below are the keys.
type place map[string]string

// acts says as whom a request of the walk is made.
type acts int

const (
	asBot acts = iota
	asInstallation
	asPerson  // of the workspace
	asVisitor // of the chat
)

// walk is one valid request for every operation that is done, and what of it
// names things that belong to somebody.
type walk struct {
	as    acts
	query string
	body  string
	path  map[string]string // parameters of the path
	open  bool              // names nothing of anybody's: strangers may call it, and learn nothing of others
	none  bool              // there is nothing yet that it could find
}

var walks = map[string]walk{
	"runtime/createConversation":        {as: asInstallation, body: `{"channel":"channel","tags":{}}`, open: true},
	"runtime/getOrCreateConversation":   {as: asInstallation, body: `{"channel":"channel","tags":{"fid":"f"}}`, open: true},
	"runtime/getConversation":           {},
	"runtime/listConversations":         {query: "participantIds={user}"},
	"runtime/updateConversation":        {as: asInstallation, body: `{"tags":{}}`},
	"runtime/deleteConversation":        {},
	"runtime/listParticipants":          {},
	"runtime/addParticipant":            {body: `{"userId":"{user}"}`},
	"runtime/getParticipant":            {},
	"runtime/removeParticipant":         {},
	"runtime/createEvent":               {body: `{"type":"custom","payload":{},"conversationId":"{conversation}","userId":"{user}","messageId":"{message}"}`},
	"runtime/getEvent":                  {},
	"runtime/cancelScheduledEvent":      {as: asInstallation},
	"runtime/listEvents":                {query: "conversationId={conversation}&userId={user}&messageId={message}"},
	"runtime/createMessage":             {as: asInstallation, body: `{"type":"text","payload":{"text":"x"},"tags":{},"conversationId":"{conversation}","userId":"{user}"}`},
	"runtime/getOrCreateMessage":        {as: asInstallation, body: `{"type":"text","payload":{"text":"x"},"tags":{"fid":"f"},"conversationId":"{conversation}","userId":"{user}"}`},
	"runtime/initializeIncomingMessage": {as: asInstallation, body: `{"conversation":{"channel":"channel","tags":{"fid":"f"}},"user":{"tags":{"fid":"f"}},"message":{"type":"text","payload":{"text":"x"},"tags":{"fid":"f"},"discriminateByTags":[]}}`, open: true},
	"runtime/importMessages":            {as: asInstallation, body: `{"messages":[{"type":"text","payload":{"text":"x"},"tags":{"fid":"i"},"conversationId":"{conversation}","userId":"{user}","createdAt":"2020-01-01T00:00:00.000Z","discriminateByTags":["fid"]}]}`},
	"runtime/getMessage":                {},
	"runtime/updateMessage":             {body: `{"tags":{}}`},
	"runtime/listMessages":              {query: "conversationId={conversation}"},
	"runtime/deleteMessage":             {},
	"runtime/createUser":                {body: `{"tags":{}}`, open: true},
	"runtime/getUser":                   {},
	"runtime/listUsers":                 {query: "conversationId={conversation}"},
	"runtime/getOrCreateUser":           {as: asInstallation, body: `{"tags":{"fid":"f"}}`, open: true},
	"runtime/updateUser":                {body: `{"tags":{},"name":"x"}`},
	"runtime/deleteUser":                {},
	"runtime/getState":                  {path: map[string]string{"type": "conversation", "id": "{conversation}", "name": "kept"}},
	"runtime/setStateExpiry":            {path: map[string]string{"type": "user", "id": "{user}", "name": "kept"}, body: `{"expiry":3600000}`},
	"runtime/setState":                  {path: map[string]string{"type": "user", "id": "{user}", "name": "kept"}, body: `{"payload":{"a":1}}`},
	"runtime/getOrSetState":             {path: map[string]string{"type": "bot", "id": "{bot}", "name": "kept"}, body: `{"payload":{"a":1}}`},
	"runtime/patchState":                {path: map[string]string{"type": "conversation", "id": "{conversation}", "name": "kept"}, body: `{"payload":{"a":2}}`},
	"runtime/createWorkflow":            {body: `{"name":"w","status":"in_progress","eventId":"{event}","parentWorkflowId":"{workflow}","conversationId":"{conversation}","userId":"{user}"}`},
	"runtime/getOrCreateWorkflow":       {body: `{"name":"g","status":"in_progress","eventId":"{event}","parentWorkflowId":"{workflow}","conversationId":"{conversation}","userId":"{user}"}`},
	"runtime/getWorkflow":               {},
	"runtime/updateWorkflow":            {body: `{"status":"in_progress","eventId":"{event}","userId":"{user}"}`},
	"runtime/listWorkflows":             {query: "conversationId={conversation}&userId={user}&parentWorkflowId={workflow}"},
	"runtime/deleteWorkflow":            {},
	"runtime/createTask":                {body: `{"type":"t","parentTaskId":"{task}","conversationId":"{conversation}","userId":"{user}"}`},
	"runtime/getTask":                   {},
	"runtime/updateTask":                {body: `{"status":"blocked"}`},
	"runtime/listTasks":                 {query: "conversationId={conversation}&userId={user}&parentTaskId={task}"},
	"runtime/deleteTask":                {},
	"runtime/listTagValues":             {path: map[string]string{"key": "fid"}, query: "type=user", open: true},
	"runtime/trackAnalytics":            {body: `{"name":"x","count":1}`, open: true},
	"runtime/callAction":                {body: `{"type":"chat:sendEvent","input":{"conversationId":"{conversation}","payload":{}}}`},

	"runtime/configureIntegration": {as: asInstallation, body: `{}`, open: true},

	"admin/getAccount":                  {as: asPerson, open: true},
	"admin/listPersonalAccessTokens":    {as: asPerson, open: true},
	"admin/createPersonalAccessToken":   {as: asPerson, body: `{"note":"x"}`, open: true},
	"admin/deletePersonalAccessToken":   {as: asPerson, path: map[string]string{"id": "{token}"}},
	"admin/listPublicIntegrations":      {as: asPerson, open: true},
	"admin/getPublicIntegrationById":    {as: asPerson, path: map[string]string{"id": "{chat}"}, open: true},
	"admin/getPublicIntegration":        {as: asPerson, path: map[string]string{"name": "chat", "version": "latest"}, open: true},
	"admin/createBot":                   {as: asPerson, body: `{"name":"x"}`, open: true},
	"admin/updateBot":                   {as: asPerson, body: `{"name":"x"}`},
	"admin/listBots":                    {as: asPerson, open: true},
	"admin/getBot":                      {as: asPerson},
	"admin/deleteBot":                   {as: asPerson},
	"admin/getWorkspace":                {as: asPerson},
	"admin/listWorkspaces":              {as: asPerson, open: true},
	"admin/listIntegrations":            {as: asPerson, open: true},
	"admin/getIntegration":              {as: asPerson},
	"admin/getIntegrationByName":        {as: asPerson, path: map[string]string{"name": "{hooky}", "version": "latest"}},
	"admin/createIntegration":           {as: asPerson, body: `{"name":"another","version":"1.0.0","dev":true}`, open: true},
	"admin/validateIntegrationCreation": {as: asPerson, body: `{"name":"another","version":"1.0.0"}`, open: true},
	"admin/updateIntegration":           {as: asPerson, body: `{"title":"x"}`},
	"admin/validateIntegrationUpdate":   {as: asPerson, body: `{"title":"x"}`},
	"admin/deleteIntegration":           {as: asPerson},
	"admin/listIntegrationApiKeys":      {as: asPerson, query: "integrationId={integration}"},
	"admin/createIntegrationApiKey":     {as: asPerson, body: `{"integrationId":"{integration}"}`},
	"admin/deleteIntegrationApiKey":     {as: asPerson, path: map[string]string{"id": "{iak}"}},

	"parley/listDeliveries":      {as: asPerson, query: "botId={bot}&conversationId={conversation}"},
	"parley/getDelivery":         {path: map[string]string{"id": "{event}"}},
	"parley/replayDelivery":      {path: map[string]string{"id": "{event}"}},
	"parley/replayDeliveries":    {as: asPerson, body: `{"botId":"{bot}","dead":true}`},
	"parley/getSigningSecrets":   {as: asPerson, query: "botId={bot}"},
	"parley/rotateSigningSecret": {as: asPerson, body: `{"integrationId":"{integration}"}`},

	"chat/createUser":              {as: asVisitor, body: `{}`, open: true},
	"chat/getOrCreateUser":         {as: asVisitor, body: `{}`, open: true},
	"chat/getUser":                 {as: asVisitor, open: true},
	"chat/updateUser":              {as: asVisitor, body: `{"name":"x"}`, open: true},
	"chat/deleteUser":              {as: asVisitor, open: true},
	"chat/createConversation":      {as: asVisitor, body: `{}`, open: true},
	"chat/getOrCreateConversation": {as: asVisitor, body: `{"id":"{conversation}"}`},
	"chat/getConversation":         {as: asVisitor},
	"chat/listConversations":       {as: asVisitor, open: true},
	"chat/deleteConversation":      {as: asVisitor},
	"chat/listenConversation":      {as: asVisitor},
	"chat/listMessages":            {as: asVisitor},
	"chat/addParticipant":          {as: asVisitor, body: `{"userId":"{friend}"}`},
	"chat/removeParticipant":       {as: asVisitor, path: map[string]string{"userId": "{friend}"}},
	"chat/getParticipant":          {as: asVisitor},
	"chat/listParticipants":        {as: asVisitor},
	"chat/createMessage":           {as: asVisitor, body: `{"conversationId":"{conversation}","payload":{"type":"text","text":"x"}}`},
	"chat/getMessage":              {as: asVisitor},
	"chat/deleteMessage":           {as: asVisitor},
	"chat/createEvent":             {as: asVisitor, body: `{"conversationId":"{conversation}","payload":{}}`},
	"chat/getEvent":                {as: asVisitor},
}

// named finds what a request names.
var named = regexp.MustCompile(`\{[a-z]+\}`)

// target is the request line of an operation, with names in braces.
func (w walk) target(op spec.Operation) string {
	segments := strings.Split(op.Path, "/")
	for i, s := range segments {
		if !strings.HasPrefix(s, "{") {
			continue
		}
		param := strings.Trim(s, "{}")
		switch value, ok := w.path[param]; {
		case ok:
			segments[i] = value
		case param == "id":
			segments[i] = "{" + strings.TrimSuffix(segments[i-1], "s") + "}"
		default:
			segments[i] = "{" + strings.TrimSuffix(param, "Id") + "}"
		}
	}
	path := strings.Join(segments, "/")
	if op.Family == "chat" {
		path = "{door}" + path
	}
	if w.query != "" {
		path += "?" + w.query
	}
	return path
}

// send makes the request of an operation as somebody, with the names of what.
func (w walk) send(s *server, op spec.Operation, who place, what func(name string) string) (int, string) {
	s.t.Helper()
	put := func(text string) string {
		return named.ReplaceAllStringFunc(text, func(name string) string { return what(strings.Trim(name, "{}")) })
	}
	var body any
	if w.body != "" {
		body = rawJSON(put(w.body))
	}
	target := put(w.target(op))
	if op.Name == "listenConversation" {
		return s.opened(target, who.header(w.as))
	}
	status, text := s.raw(op.Method, target, who.header(w.as), body)
	return status, string(text)
}

// opened is the status of a stream, which would not end by itself.
func (s *server) opened(target string, header map[string]string) (int, string) {
	req, err := http.NewRequestWithContext(s.t.Context(), "GET", s.URL()+target, nil)
	must(s.t, err)
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	must(s.t, err)
	defer resp.Body.Close()
	return resp.StatusCode, ""
}

type rawJSON string

func (r rawJSON) MarshalJSON() ([]byte, error) { return []byte(r), nil }

func (p place) header(as acts) map[string]string {
	h := map[string]string{"Authorization": "Bearer " + p["pat"], "x-workspace-id": p["workspace"], "x-multiple-integrations": "true"}
	switch as {
	case asBot:
		h["x-bot-id"] = p["bot"]
	case asInstallation:
		h["x-bot-id"], h["x-integration-id"], h["x-integration-alias"] = p["bot"], p["chat"], p["alias"]
	case asVisitor:
		h = map[string]string{"x-user-key": p["key"]}
	}
	return h
}

// settle furnishes a place: a conversation with two users, a message, an event and states.
func (s *server) settle(p place) place {
	s.t.Helper()
	p = maps.Clone(p)
	get := func(out *string, w walk, method, path, body, member string) {
		s.t.Helper()
		answer := map[string]any{}
		var in any
		if body != "" {
			in = rawJSON(body)
		}
		if code := s.call(method, path, p.header(w.as), in, &answer); code >= 300 {
			s.t.Fatalf("%s %s answers %d %v", method, path, code, answer)
		}
		*out = answer[member].(map[string]any)["id"].(string)
		if key, ok := answer["key"].(string); ok {
			p["key"] = key
		}
	}
	var id string
	for _, name := range []string{"friend", "user"} { // the key is the last one's
		get(&id, walk{as: asVisitor}, "POST", p["door"]+"/users", `{}`, "user")
		p[name] = id
	}
	get(&id, walk{as: asVisitor}, "POST", p["door"]+"/conversations", `{}`, "conversation")
	p["conversation"] = id
	if code, text := s.raw("POST", p["door"]+"/conversations/"+id+"/participants", p.header(asVisitor), rawJSON(`{"userId":"`+p["friend"]+`"}`)); code != 200 {
		s.t.Fatalf("addParticipant answers %d %s", code, text)
	}
	get(&id, walk{as: asVisitor}, "POST", p["door"]+"/messages", `{"conversationId":"`+p["conversation"]+`","payload":{"type":"text","text":"only for the owner"}}`, "message")
	p["message"] = id
	get(&id, walk{as: asVisitor}, "POST", p["door"]+"/events", `{"conversationId":"`+p["conversation"]+`","payload":{"a":1}}`, "event")
	p["event"] = id
	get(&id, walk{as: asInstallation}, "POST", "/v1/chat/events", `{"type":"custom","payload":{"a":"only for the owner"},"conversationId":"`+p["conversation"]+`","schedule":{"delay":3600000}}`, "event")
	p["scheduled"] = id
	get(&id, walk{as: asBot}, "POST", "/v1/chat/workflows", `{"name":"w","status":"listening","input":{"a":"only for the owner"}}`, "workflow")
	p["workflow"] = id
	get(&id, walk{as: asBot}, "POST", "/v1/chat/tasks", `{"type":"t","title":"only for the owner","conversationId":"`+p["conversation"]+`"}`, "task")
	p["task"] = id
	for _, path := range []string{"conversation/" + p["conversation"], "user/" + p["user"], "bot/" + p["bot"]} {
		if code, text := s.raw("POST", "/v1/chat/states/"+path+"/kept", p.header(asBot), rawJSON(`{"payload":{"a":1}}`)); code != 200 {
			s.t.Fatalf("setState answers %d %s", code, text)
		}
	}
	return p
}

// town is the victim and everybody who must not reach it.
func (s *server) town() (victim place, strangers map[string]place) {
	s.t.Helper()
	ctx := s.t.Context()
	bots := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }))
	s.t.Cleanup(bots.Close)
	var hub struct {
		Integration struct{ ID string } `json:"integration"`
	}
	home := func(pat, tokenID, workspaceID string) place {
		p := place{"pat": pat, "token": tokenID, "workspace": workspaceID, "alias": "chat"}
		if code := s.call("GET", "/v1/admin/hub/integrations/chat/latest", p.header(asPerson), nil, &hub); code != 200 {
			s.t.Fatalf("getPublicIntegration answers %d", code)
		}
		p["chat"] = hub.Integration.ID
		p["hooky"] = "hooky-" + strings.ToLower(workspaceID[len(workspaceID)-8:])
		if code := s.call("POST", "/v1/admin/integrations", p.header(asPerson), map[string]string{"name": p["hooky"], "version": "1.0.0"}, &hub); code != 200 {
			s.t.Fatalf("createIntegration answers %d", code)
		}
		p["integration"] = hub.Integration.ID
		key, _, err := s.parts.workspace.CreateToken(ctx, workspace.Token{Kind: auth.IAK, IntegrationID: p["integration"]})
		must(s.t, err)
		p["iak"] = key.ID
		return p
	}
	// house is a bot with two chats.
	house := func(p place) (first, second place) {
		var made struct {
			Bot struct {
				ID           string
				Integrations map[string]struct{ WebhookID string }
			}
		}
		if code := s.call("POST", "/v1/admin/bots", p.header(asPerson), map[string]string{"name": "a bot", "url": bots.URL}, &made); code != 200 {
			s.t.Fatalf("createBot answers %d", code)
		}
		chat := map[string]any{"integrationId": p["chat"], "enabled": true, "configuration": struct{}{}}
		if code := s.call("PUT", "/v1/admin/bots/"+made.Bot.ID, p.header(asPerson), map[string]any{"integrations": map[string]any{"chat": chat, "chat2": chat}}, nil); code != 200 {
			s.t.Fatalf("updateBot answers %d", code)
		}
		if code := s.call("GET", "/v1/admin/bots/"+made.Bot.ID, p.header(asPerson), nil, &made); code != 200 {
			s.t.Fatalf("getBot answers %d", code)
		}
		first, second = maps.Clone(p), maps.Clone(p)
		for alias, p := range map[string]place{"chat": first, "chat2": second} {
			p["bot"], p["alias"], p["door"] = made.Bot.ID, alias, "/"+made.Bot.Integrations[alias].WebhookID
		}
		return first, second
	}
	person := func() place {
		w, err := s.parts.workspace.Create(ctx, workspace.NewWorkspace{Email: fmt.Sprintf("p%d@example.com", s.people), DisplayName: "P", Name: "W"})
		must(s.t, err)
		s.people++
		t, text, err := s.parts.workspace.CreateToken(ctx, workspace.Token{Kind: auth.PAT, AccountID: w.OwnerID})
		must(s.t, err)
		return home(string(text), t.ID, w.ID)
	}
	one, other := person(), person()
	first, second := house(one)
	neighbour, _ := house(one)
	foreign, _ := house(other)
	victim = s.settle(first)
	intruder := s.settle(foreign)
	intruder["bot"] = victim["bot"] // by name, with a token of its own
	guest := s.settle(first)
	return victim, map[string]place{
		"another installation of the bot": s.settle(second),
		"another bot of the workspace":    s.settle(neighbour),
		"a bot of another workspace":      s.settle(foreign),
		"another workspace":               intruder,
		"another user of the chat":        guest,
	}
}

// mayTry says whether a stranger is one at all to an operation.
func mayTry(stranger string, w walk) bool {
	switch stranger {
	case "another user of the chat":
		return w.as == asVisitor
	case "another installation of the bot":
		return w.as == asInstallation || w.as == asVisitor
	case "another bot of the workspace":
		return w.as != asPerson
	}
	return true
}

// Invariant 7 of the architecture: whoever names what belongs to another bot,
// installation, user or workspace gets an error, and nothing happens.
func TestTenantsNeverMeet(t *testing.T) {
	t.Parallel()
	for name, engine := range engines(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, func(c *Config) { engine(t, c); c.RateLimit = 0 })
			victim, strangers := s.town()
			s.idle()
			before := s.rows(victim)
			if len(before) < 15 {
				t.Fatalf("the victim has %d rows only", len(before))
			}
			for _, op := range spec.Operations() {
				if op.State != spec.Done {
					continue
				}
				w, ok := walks[op.Family+"/"+op.Name]
				if !ok {
					t.Errorf("%s %s is missing in the walk", op.Family, op.Name)
					continue
				}
				for stranger, who := range strangers {
					if mayTry(stranger, w) {
						s.trespass(op, w, stranger, who, victim)
					}
				}
			}
			s.idle()
			if after := s.rows(victim); !slices.Equal(before, after) {
				t.Errorf("strangers changed the rows of the victim from\n%s\nto\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
			}
			s.ownWalk(victim)
		})
	}
}

// trespass tries an operation with one of the victim's names at a time, and with all.
func (s *server) trespass(op spec.Operation, w walk, stranger string, who, victim place) {
	s.t.Helper()
	request := w.target(op) + " " + w.body
	names := map[string]bool{}
	for _, n := range named.FindAllString(request, -1) {
		if n = strings.Trim(n, "{}"); victim[n] != who[n] && !(n == "door" && stranger == "another user of the chat") {
			names[n] = true
		}
	}
	tries := []func(string) string{func(n string) string { return victim[n] }}
	for one := range names {
		tries = append(tries, func(n string) string {
			if n == one {
				return victim[n]
			}
			return who[n]
		})
	}
	for _, what := range tries {
		status, text := w.send(s, op, who, what)
		leaks := !w.open && status < 300 && len(names) > 0
		if leaks && op.Method == "GET" && w.query != "" {
			leaks = strings.Contains(text, "whsec_") // else a filter that matches nothing
			for _, member := range []string{"user", "conversation", "message", "event", "scheduled", "friend", "workflow", "task"} {
				leaks = leaks || strings.Contains(text, `"id":"`+victim[member]+`"`) && who[member] != victim[member]
			}
		}
		if w.open && stranger == "another workspace" && w.as != asPerson && w.as != asVisitor {
			leaks = status < 300 // it acts for a bot that is not its own
		}
		if leaks || strings.Contains(text, "only for the owner") || status >= 500 {
			s.t.Errorf("%s may %s %s: %d %s", stranger, op.Family, op.Name, status, text)
		}
	}
}

// ownWalk proves that the requests themselves are right: the owner may make them.
func (s *server) ownWalk(p place) {
	s.t.Helper()
	// What is deleted goes last, the inner before the outer.
	last := []string{"runtime/deleteWorkflow", "runtime/deleteTask", "runtime/removeParticipant", "runtime/deleteMessage", "chat/deleteMessage", "chat/removeParticipant", "chat/deleteConversation", "runtime/deleteConversation", "chat/deleteUser", "runtime/deleteUser", "admin/deleteBot", "admin/deleteIntegration", "admin/deletePersonalAccessToken"}
	ops := slices.Clone(spec.Operations())
	slices.SortStableFunc(ops, func(a, b spec.Operation) int {
		return slices.Index(last, a.Family+"/"+a.Name) - slices.Index(last, b.Family+"/"+b.Name)
	})
	for _, op := range ops {
		name := op.Family + "/" + op.Name
		w, ok := walks[name]
		if !ok || op.State != spec.Done {
			continue
		}
		mine := p
		if slices.Contains(last, name) && op.Family != "admin" {
			mine = s.settle(p)
		}
		if status, text := w.send(s, op, mine, func(n string) string { return mine[n] }); status >= 300 && !w.none {
			s.t.Errorf("the owner may not %s: %d %s", name, status, text)
		}
	}
}

// rows are the rows of all tables that name the victim's bot, workspace or
// people, as text. What requests leave behind about themselves is left out.
func (s *server) rows(p place) []string {
	s.t.Helper()
	var out []string
	for table, columns := range tables(s.t) {
		if table == "idempotency" || table == "action_log" {
			continue
		}
		var parts []string
		for _, c := range columns {
			parts = append(parts, "COALESCE(CAST("+c+" AS TEXT), '-')")
		}
		rows, err := s.parts.db.Reader(s.t.Context()).Query("SELECT " + strings.Join(parts, " || ' ' || ") + " FROM " + table)
		must(s.t, err)
		for rows.Next() {
			var text string
			must(s.t, rows.Scan(&text))
			if strings.Contains(text, p["user"]) || strings.Contains(text, p["conversation"]) || strings.Contains(text, p["message"]) ||
				strings.Contains(text, p["event"]) || strings.Contains(text, p["scheduled"]) || strings.Contains(text, p["workflow"]) || strings.Contains(text, p["task"]) || (table == "bots" || table == "installations" || table == "signing_secrets") && strings.Contains(text, p["bot"]) ||
				(table == "workspaces" || table == "tokens" || table == "integrations" || table == "signing_secrets") && (strings.Contains(text, p["workspace"]) || strings.Contains(text, p["token"])) {
				out = append(out, table+": "+text)
			}
		}
		must(s.t, rows.Close())
	}
	slices.Sort(out)
	return out
}

// tables reads the tables and their columns from the migrations.
func tables(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	files, err := fs.Glob(schema.FS, "*.sql")
	must(t, err)
	for _, file := range files {
		text, err := fs.ReadFile(schema.FS, file)
		must(t, err)
		for _, m := range regexp.MustCompile(`(?s)CREATE TABLE (\w+) \((.*?)\n\)`).FindAllStringSubmatch(string(text), -1) {
			for _, c := range regexp.MustCompile(`(?m)^  (\w+) +[A-Z{]`).FindAllStringSubmatch(m[2], -1) {
				if c[1] != "PRIMARY" {
					out[m[1]] = append(out[m[1]], c[1])
				}
			}
		}
		for _, m := range regexp.MustCompile(`ALTER TABLE (\w+) DROP COLUMN (\w+)`).FindAllStringSubmatch(string(text), -1) {
			out[m[1]] = slices.DeleteFunc(out[m[1]], func(column string) bool { return column == m[2] })
		}
	}
	return out
}
