package chaos

import (
	"encoding/json"
	"errors"
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
	"time"

	"parley/internal/auth"
	"parley/internal/id"
	"parley/internal/parleytest"
	schemas "parley/internal/schema"
	"parley/internal/sqldb"
)

// place is what one bot, one installation of it and one chat user have. The
// names in braces in the samples (sample_test.go) are its keys.
type place map[string]string

// acts says as whom a request is made.
type acts int

const (
	asBot acts = iota
	asInstallation
	asPerson  // of the workspace
	asVisitor // of the chat
	withBotKey
	withIntegrationKey
)

// header is what admits a request. Integrations of the bot are told apart.
func (p place) header(as acts) []pair {
	h := []pair{{"authorization", "Bearer " + p["pat"]}, {"x-workspace-id", p["workspace"]}, {"x-multiple-integrations", "true"}}
	switch as {
	case asBot:
		h = append(h, pair{"x-bot-id", p["bot"]})
	case asInstallation:
		h = append(h, pair{"x-bot-id", p["bot"]}, pair{"x-integration-id", p["chat"]}, pair{"x-integration-alias", p["alias"]})
	case asVisitor:
		h = []pair{{"x-user-key", p["key"]}}
	case withBotKey:
		h = []pair{{"authorization", "Bearer " + p["bak"]}, {"x-bot-id", p["bot"]}}
	case withIntegrationKey:
		h = []pair{{"authorization", "Bearer " + p["iakText"]}, {"x-bot-id", p["bot"]}}
	}
	return h
}

type pair struct{ name, value string }

// town is a server with people, bots and what they have.
type town struct {
	t    *testing.T
	s    *parleytest.Setup
	env  parleytest.Settings
	bots string // URL of a program that says yes to everything, for bots and integrations
}

// secret is a word that only the owner of what it is in may read.
func secret() string { return "secret-" + strings.ToLower(id.New("x")) }

func newTown(t *testing.T, s *parleytest.Setup) *town {
	t.Helper()
	w := &town{t: t, s: s}
	_, w.env = s.Settings()
	bots := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "{}")
	}))
	t.Cleanup(bots.Close)
	w.bots = bots.URL
	return w
}

// ask makes a request and returns the answer. A stream is left at its beginning:
// it would not end by itself.
func (w *town) ask(method, target string, header []pair, body string) (status int, text string, err error) {
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.env.APIURL+target, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	if body != "" {
		r.Header.Set("content-type", "application/json")
	}
	for _, h := range header {
		r.Header.Add(h.name, h.value)
	}
	answer, err := client.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	if strings.HasPrefix(answer.Header.Get("content-type"), "text/event-stream") {
		return answer.StatusCode, "", nil
	}
	all, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(all), err
}

// must makes a request that has to succeed.
func (w *town) must(method, path string, header []pair, body string, out any) {
	w.t.Helper()
	status, text, err := w.ask(method, path, header, body)
	if err != nil || status >= 300 {
		w.t.Fatalf("%s %s answers %d %s %v", method, path, status, text, err)
	}
	if out != nil {
		if err := json.Unmarshal([]byte(text), out); err != nil {
			w.t.Fatalf("%s %s answers %s: %v", method, path, text, err)
		}
	}
}

// mine is the workspace that the server has begun with.
func (w *town) mine() place {
	return place{"pat": w.env.Token, "workspace": w.env.WorkspaceID}
}

// made is what an operation has made, whatever it is.
type made struct {
	Integration, PAT, User, Conversation, Message, Event, Workflow, Task struct{ ID string }
	Bot                                                                  struct {
		ID           string
		Integrations map[string]struct{ WebhookID string }
	}
	Key, ID, Value string
}

// furnish gives a workspace an integration of its own with a key, and a token
// that nobody uses.
func (w *town) furnish(p place) place {
	w.t.Helper()
	p, person := maps.Clone(p), p.header(asPerson)
	p["secret of the workspace"] = secret()
	var m made
	w.must("GET", "/v1/admin/hub/integrations/chat/latest", person, "", &m)
	p["chat"], p["alias"] = m.Integration.ID, "chat"
	p["hooky"] = "hooky-" + strings.ToLower(id.New("x")[15:])
	for name, version := range map[string]string{"integration": "1.0.0", "installed": "2.0.0"} {
		w.must("POST", "/v1/admin/integrations", person, fmt.Sprintf(`{"name":%q,"version":%q,"title":%q,"url":%q}`, p["hooky"], version, p["secret of the workspace"], w.bots), &m)
		p[name] = m.Integration.ID
	}
	w.must("POST", "/v1/admin/integrations/iaks", person, fmt.Sprintf(`{"integrationId":%q,"note":%q}`, p["installed"], p["secret of the workspace"]), &m)
	p["iak"], p["iakText"] = m.ID, m.Value
	w.must("POST", "/v1/admin/account/pats", person, fmt.Sprintf(`{"note":%q}`, p["secret of the workspace"]), &m)
	p["token"] = m.PAT.ID
	return p
}

// house is a bot with two chats and the integration of its workspace.
func (w *town) house(p place) (first, second place) {
	w.t.Helper()
	p = maps.Clone(p)
	p["secret of the bot"] = secret()
	var m made
	w.must("POST", "/v1/admin/bots", p.header(asPerson), fmt.Sprintf(`{"name":%q,"url":%q}`, p["secret of the bot"], w.bots), &m)
	install := fmt.Sprintf(`{"integrationId":%q,"enabled":true,"configuration":{}}`, p["chat"])
	w.must("PUT", "/v1/admin/bots/"+m.Bot.ID, p.header(asPerson), `{"integrations":{"chat":`+install+`,"chat2":`+install+`,"hooky":`+strings.Replace(install, p["chat"], p["installed"], 1)+`}}`, &m)
	first, second = maps.Clone(p), maps.Clone(p)
	for alias, p := range map[string]place{"chat": first, "chat2": second} {
		p["bot"], p["alias"], p["door"] = m.Bot.ID, alias, m.Bot.Integrations[alias].WebhookID
	}
	return first, second
}

// settle furnishes an installation: a conversation with two users, a message, an
// event, a workflow, a task and states.
func (w *town) settle(p place) place {
	w.t.Helper()
	p = maps.Clone(p)
	p["secret"] = secret()
	door := "/" + p["door"]
	post := func(as acts, path, body string) (m made) {
		w.t.Helper()
		w.must("POST", path, p.header(as), body, &m)
		return m
	}
	for _, name := range []string{"friend", "user"} { // the key is the last one's
		m := post(asVisitor, door+"/users", `{"name":"`+p["secret"]+`"}`)
		p[name], p["key"] = m.User.ID, m.Key
	}
	p["conversation"] = post(asVisitor, door+"/conversations", `{}`).Conversation.ID
	post(asVisitor, door+"/conversations/"+p["conversation"]+"/participants", `{"userId":"`+p["friend"]+`"}`)
	p["message"] = post(asVisitor, door+"/messages", `{"conversationId":"`+p["conversation"]+`","payload":{"type":"text","text":"`+p["secret"]+`"}}`).Message.ID
	p["event"] = post(asVisitor, door+"/events", `{"conversationId":"`+p["conversation"]+`","payload":{"a":"`+p["secret"]+`"}}`).Event.ID
	p["scheduled"] = post(asInstallation, "/v1/chat/events", `{"type":"custom","payload":{"a":"`+p["secret"]+`"},"conversationId":"`+p["conversation"]+`","schedule":{"delay":3600000}}`).Event.ID
	p["workflow"] = post(asBot, "/v1/chat/workflows", `{"name":"w","status":"listening","input":{"a":"`+p["secret"]+`"}}`).Workflow.ID
	p["task"] = post(asBot, "/v1/chat/tasks", `{"type":"t","title":"`+p["secret"]+`","conversationId":"`+p["conversation"]+`"}`).Task.ID
	for _, of := range []string{"conversation", "user", "bot"} {
		post(asBot, "/v1/chat/states/"+of+"/"+p[of]+"/kept", `{"payload":{"a":"`+p["secret"]+`"}}`)
	}
	for name, value := range p {
		if value == "" {
			w.t.Fatalf("an answer did not hold the %s", name)
		}
	}
	return p
}

// beside writes into the database what no operation writes yet: people, and keys
// of bots. The servers are down meanwhile, for they remember what they have read.
func (w *town) beside(write func(tx *sqldb.Tx) error) {
	w.t.Helper()
	for _, n := range w.s.Nodes {
		n.End()
	}
	db, err := sqldb.Open(w.t.Context(), sqldb.Options{URL: w.s.Database()})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := db.Write(w.t.Context(), write); err != nil {
		w.t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		w.t.Fatal(err)
	}
	for _, n := range w.s.Nodes {
		n.Start()
	}
}

// stranger is another person with another workspace.
func (w *town) stranger() place {
	w.t.Helper()
	account, workspace := id.New("accnt"), id.New("wkspace")
	now := time.Now().UnixMilli() // the first account is the server's own
	pat, hash := auth.NewToken(auth.PAT)
	w.beside(func(tx *sqldb.Tx) error {
		return execAll(tx,
			[]any{"INSERT INTO accounts (id, email, display_name, created_at) VALUES ($1, 'other@example.com', 'Other', $2)", account, now},
			[]any{"INSERT INTO workspaces (id, name, handle, owner_id, created_at, updated_at) VALUES ($1, 'Other', '', $2, $3, $3)", workspace, account, now},
			[]any{"INSERT INTO members (workspace_id, account_id, role, created_at) VALUES ($1, $2, 'owner', $3)", workspace, account, now},
			[]any{insertToken, id.New(auth.PAT), auth.PAT, hash, account, ""})
	})
	return place{"pat": pat, "workspace": workspace}
}

// botKeys gives the bots of places a key each.
func (w *town) botKeys(places ...place) {
	w.t.Helper()
	w.beside(func(tx *sqldb.Tx) error {
		for _, p := range places {
			text, hash := auth.NewToken(auth.BAK)
			p["bak"] = text
			if err := execAll(tx, []any{insertToken, id.New(auth.BAK), auth.BAK, hash, "", p["bot"]}); err != nil {
				return err
			}
		}
		return nil
	})
}

const insertToken = "INSERT INTO tokens (id, kind, hash, account_id, workspace_id, bot_id, integration_id, note, created_at, expires_at) VALUES ($1, $2, $3, $4, '', $5, '', '', 0, 0)"

// execAll runs statements with their arguments.
func execAll(tx *sqldb.Tx, statements ...[]any) error {
	for _, s := range statements {
		if _, err := tx.Exec(s[0].(string), s[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// rows are all rows of all tables, once nothing changes them any more. What
// requests and deliveries leave behind about themselves is left out.
func (w *town) rows() []string {
	w.t.Helper()
	db, err := sqldb.Look(w.t.Context(), sqldb.Options{URL: w.s.Database()})
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			w.t.Error(err)
		}
	}()
	late := time.After(time.Minute)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for last := w.read(db.Reader(w.t.Context())); ; {
		select {
		case <-tick.C:
		case <-late:
			w.t.Fatal("the rows of the database change for a minute now")
		}
		now := w.read(db.Reader(w.t.Context()))
		if slices.Equal(last, now) && !slices.ContainsFunc(now, func(row string) bool { return pending.MatchString(row) }) {
			return now
		}
		last = now
	}
}

// pending is a row of something that is on its way.
var pending = regexp.MustCompile(`^(events|outbox): .* pending `)

func (w *town) read(q sqldb.Q) (out []string) {
	w.t.Helper()
	for table, columns := range tables(w.t) {
		if slices.Contains([]string{"idempotency", "action_log", "leases", "breakers", "attempts"}, table) {
			continue
		}
		var parts []string
		for _, c := range columns {
			parts = append(parts, "COALESCE(CAST("+c+" AS TEXT), '-')")
		}
		rows, err := q.Query("SELECT " + strings.Join(parts, " || ' ' || ") + " FROM " + table)
		if err != nil {
			w.t.Fatal(err)
		}
		for rows.Next() {
			var text string
			if err := rows.Scan(&text); err != nil {
				w.t.Fatal(err)
			}
			out = append(out, table+": "+text)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			w.t.Fatal(err)
		}
	}
	slices.Sort(out)
	return out
}

// tables reads the tables and their columns from the migrations.
func tables(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	files, err := fs.Glob(schemas.FS, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := fs.ReadFile(schemas.FS, file)
		if err != nil {
			t.Fatal(err)
		}
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
