package chaos

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"parley/internal/id"
	"parley/internal/parleytest"
)

// TestForeignIDs has strangers call every operation that is done with what
// belongs to somebody else, in its path, its query, its headers and its body:
// another workspace, another bot, another installation, another user, with every
// kind of credential. Nothing of the owner's is shown or changed, and the answer
// is the same as for an id that does not exist. At the end the owner makes the
// same requests, which proves that they are right.
func TestForeignIDs(t *testing.T) {
	parleytest.Each(t, func(t *testing.T, s *parleytest.Setup) {
		w := newTown(t, s)
		victim, strangers := w.inhabit()
		walk := &trespass{town: w, victim: victim, nobody: nobodyLike(victim)}
		before := w.rowsOf(victim)
		if len(before) < 20 {
			t.Fatalf("the victim has %d rows only", len(before))
		}
		ops := operations(t, s)
		each(ops, func(op *operation) {
			for _, who := range strangers {
				for _, as := range who.as(sampleOf(op)) {
					walk.try(sampleOf(op), who, as)
				}
			}
		})
		if n := walk.leaks.Load(); n > 0 {
			t.Errorf("%d leaks in all", n)
		}
		if after := w.rowsOf(victim); !slices.Equal(before, after) {
			t.Errorf("strangers changed rows of the victim from\n%s\nto\n%s", without(before, after), without(after, before))
		}
		for _, who := range strangers {
			walk.replay(who)
			who.alive(w)
		}
		w.ownWalk(ops, victim)
		record(t, "foreign ids, "+s.Name, fmt.Sprintf("%d operations, %d strangers, %d requests with what is not theirs; 0 shown, 0 changed, 0 told from what does not exist", len(ops), len(strangers), walk.n.Load()))
	})
}

// without lists the rows that others do not have.
func without(rows, others []string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(rows), func(row string) bool { return slices.Contains(others, row) }), "\n")
}

// each does something with every operation, several at a time.
func each(ops []*operation, do func(op *operation)) {
	next := make(chan *operation)
	var working sync.WaitGroup
	for range 8 {
		working.Go(func() {
			for op := range next {
				do(op)
			}
		})
	}
	for _, op := range ops {
		next <- op
	}
	close(next)
	working.Wait()
}

// stranger is somebody who must not reach the victim.
type stranger struct {
	name string
	place
	// as says with which credentials a request is tried.
	as func(x sample) []acts
	// guest says that the stranger uses the victim's own chat.
	guest bool
	// known are names that the stranger may use as the victim does.
	known []string
}

// inhabit makes the victim, and everybody who must not reach it.
func (w *town) inhabit() (victim place, strangers []*stranger) {
	w.t.Helper()
	other := w.furnish(w.stranger())
	mine := w.furnish(w.mine())
	first, second := w.house(mine)
	neighbour, _ := w.house(mine)
	foreign, _ := w.house(other)
	victim = w.settle(first)
	installation, bot, workspace, guest := w.settle(second), w.settle(neighbour), w.settle(foreign), w.settle(first)
	w.botKeys(victim, installation, bot, workspace, guest)
	only := func(own ...acts) func(sample) []acts {
		return func(x sample) (as []acts) {
			for _, a := range own {
				if a == withBotKey || a == withIntegrationKey || a == x.as {
					as = append(as, a)
				}
			}
			return as
		}
	}
	// A person of the workspace may name each of its bots; its keys may be in both.
	person := []string{"workspace", "token", "integration", "hooky", "iak"}
	return victim, []*stranger{
		{name: "another workspace", place: workspace, as: func(x sample) []acts {
			kinds := []acts{asPerson, withBotKey, withIntegrationKey, asVisitor}
			if x.as == asBot || x.as == asInstallation {
				kinds[0] = x.as
			}
			return kinds
		}},
		{name: "another bot of the workspace", place: bot, as: only(asBot, asInstallation, withBotKey, asVisitor), known: person},
		{name: "another installation of the bot", place: installation, as: only(asInstallation, asVisitor), known: append(person, "bot")},
		// Users of a chat invite each other by their ids.
		{name: "another user of the chat", place: guest, as: only(asVisitor), known: append(person, "bot", "door", "user", "friend"), guest: true},
	}
}

// trespass is a walk over all operations with what belongs to the victim.
type trespass struct {
	*town
	victim, nobody place // nobody has ids of the same form, which do not exist
	n, leaks       atomic.Int64
}

// ids are what an id of the victim's can be, for where another kind is meant.
var ids = []string{"conversation", "user", "friend", "message", "event", "scheduled", "workflow", "task", "bot", "workspace", "integration", "hooky", "token", "iak", "door"}

// nobodyLike makes ids that nobody has.
func nobodyLike(p place) place {
	out := place{}
	for _, name := range ids {
		switch prefix, _, ok := strings.Cut(p[name], "_"); {
		case ok:
			out[name] = id.New(prefix)
		case name == "door":
			out[name] = id.UUID()
		default:
			out[name] = "hooky-" + strings.ToLower(id.New("x")[15:])
		}
	}
	return out
}

// swap says by which of the victim's ids a name is replaced: in the path, query
// and body of a request, and in its header.
type swap struct{ request, header map[string]string }

func (m swap) String() string {
	return strings.TrimSpace(strings.NewReplacer("map[", " ", "]", "").Replace(fmt.Sprintf("%v in the request,%v in the header", m.request, m.header)))
}

// try makes a sample's request with each of the victim's names in turn, then
// with all; in a long run with ids of each kind, too.
func (w *trespass) try(x sample, who *stranger, as acts) {
	var theirs []string
	for _, name := range x.names() {
		if w.victim[name] != who.place[name] && !slices.Contains(who.known, name) {
			theirs = append(theirs, name)
		}
	}
	kinds := []string{""} // the right one
	if long() {
		kinds = append(kinds, ids...)
	}
	for _, kind := range kinds {
		if kind != "" && (w.victim[kind] == who.place[kind] || slices.Contains(who.known, kind)) {
			continue
		}
		if kind != "" && x.op.body != nil && x.op.body.Properties["id"] != nil {
			continue // whoever makes something may call it as he likes
		}
		by := func(names ...string) map[string]string {
			out := map[string]string{}
			for _, name := range names {
				if out[name] = cmp.Or(kind, name); out[name] == "chat" {
					out[name] = "integration" // the chat is everybody's
				}
			}
			return out
		}
		swaps := []swap{{by(theirs...), nil}}
		for _, name := range theirs {
			swaps = append(swaps, swap{by(name), nil})
		}
		if len(theirs) < 2 {
			swaps = swaps[1:]
		}
		for name, header := range map[string]string{"bot": "x-bot-id", "workspace": "x-workspace-id", "chat": "x-integration-id"} {
			sent := slices.ContainsFunc(who.header(as), func(h pair) bool { return h.name == header })
			if len(who.known) > 0 && as != withBotKey || !sent || x.op.param("header", header) == nil {
				continue // a person may name it there, or it is not looked at
			}
			if len(theirs) > 0 {
				swaps = append(swaps, swap{by(theirs...), by(name)})
			}
			if x.op.Method != "DELETE" { // it may be that the header is not looked at
				swaps = append(swaps, swap{nil, by(name)})
			}
		}
		for _, m := range swaps {
			w.compare(x, who, as, m)
		}
	}
}

// compare makes a request with ids of the victim's, and with some that do not exist.
func (w *trespass) compare(x sample, who *stranger, as acts, m swap) {
	theirs, sent, err := w.send(x, who, as, m, w.victim)
	if err != nil {
		w.t.Errorf("%s, %s: %v", x.op, who.name, err)
		return
	}
	none, _, err := w.send(x, who, as, m, w.nobody)
	if err != nil {
		w.t.Errorf("%s, %s: %v", x.op, who.name, err)
		return
	}
	told := theirs.status != none.status || w.says(theirs) != w.says(none)
	if m.request["door"] != "" || who.guest {
		// That there is a door is no secret, nor is a conversation among the users of one chat.
		told = theirs.status < 300 && none.status >= 300 && (x.op.userKey || x.op.token)
	}
	shown := w.shown(theirs.text, who, sent)
	if (told || shown != "" || theirs.status >= 500) && w.leaks.Add(1) <= 20 {
		w.t.Errorf("%s tries %s with %v (credential %d): %d %s shows %q; what does not exist answers %d %s", who.name, x.op, m, as, theirs.status, theirs.text, shown, none.status, none.text)
	}
}

// replied is an answer.
type replied struct {
	status int
	text   string
}

// says is what an answer says, but for the ids in it and its own.
func (w *trespass) says(r replied) string {
	var e struct {
		Type, Message string
		Metadata      json.RawMessage
	}
	if r.status < 300 || json.Unmarshal([]byte(r.text), &e) != nil {
		return "" // what is in it is another question
	}
	text := e.Type + " " + e.Message + string(e.Metadata)
	for _, name := range ids {
		text = strings.NewReplacer(w.victim[name], "…", w.nobody[name], "…").Replace(text)
	}
	return text
}

// send makes a request with ids of somebody's in it. It returns all that was sent.
func (w *trespass) send(x sample, who *stranger, as acts, m swap, whose place) (replied, string, error) {
	w.n.Add(1)
	from := func(by map[string]string) place {
		p := maps.Clone(who.place)
		for name, kind := range by {
			p[name] = whose[kind]
		}
		return p
	}
	request, head := from(m.request), from(m.header)
	what := func(name string) string { return request[name] }
	target, header, body := x.target(what), head.header(as), put(x.body, what)
	status, text, err := w.ask(x.op.Method, target, header, body)
	return replied{status, text}, fmt.Sprint(target, header, body), err
}

// shown is something of the victim's that an answer tells and the request did not know.
func (w *trespass) shown(text string, who *stranger, sent string) string {
	for name, value := range w.victim {
		if value != who.place[name] && !slices.Contains(who.known, name) && name != "alias" && strings.Contains(text, value) && !strings.Contains(sent, value) && !who.has(value) {
			return name
		}
	}
	return ""
}

// has reports whether something is the stranger's, too, under another name.
func (who *stranger) has(value string) bool {
	for _, own := range who.place {
		if own == value {
			return true
		}
	}
	return false
}

// replay sends an idempotency key of the victim's: the kept answer is not the stranger's.
func (w *trespass) replay(who *stranger) {
	w.t.Helper()
	for _, q := range []struct {
		as         acts
		path, body string
	}{
		{asBot, "/v1/chat/users", `{"tags":{},"name":"` + w.victim["secret"] + `"}`},
		{asVisitor, "/{door}/messages", `{"conversationId":"{conversation}","payload":{"type":"text","text":"` + w.victim["secret"] + `"}}`},
	} {
		send := func(p place) (int, string) {
			w.t.Helper()
			what := func(name string) string { return p[name] }
			status, text, err := w.ask("POST", put(q.path, what), append(p.header(q.as), pair{"idempotency-key", "a key that two might choose"}), put(q.body, what))
			if err != nil {
				w.t.Fatal(err)
			}
			return status, text
		}
		if status, text := send(w.victim); status >= 300 {
			w.t.Fatalf("%s answers the victim %d %s", q.path, status, text)
		}
		if q.as == asBot && slices.Contains(who.known, "bot") {
			continue // it is the same person with the same bot
		}
		if status, text := send(who.place); status >= 300 || w.shown(strings.ReplaceAll(text, w.victim["secret"], ""), who, "") != "" {
			w.t.Errorf("%s sends an idempotency key of the victim's to %s: %d %s", who.name, q.path, status, text)
		}
	}
}

// alive proves that a stranger could act until the end: a walk by the dead shows nothing.
func (who *stranger) alive(w *town) {
	w.t.Helper()
	what := func(name string) string { return who.place[name] }
	for _, q := range []struct {
		as   acts
		path string
	}{{asPerson, "/v1/admin/bots/{bot}"}, {asBot, "/v1/chat/conversations/{conversation}"}, {withBotKey, "/v1/chat/messages/{message}"}, {withIntegrationKey, "/v1/chat/users"}, {asVisitor, "/{door}/conversations/{conversation}"}} {
		w.must("GET", put(q.path, what), who.header(q.as), "", nil)
	}
}

// ownWalk proves that the samples are right: the owner may make each of them.
func (w *town) ownWalk(ops []*operation, p place) {
	w.t.Helper()
	// What is deleted goes last, the inner before the outer.
	last := []string{"runtime/deleteWorkflow", "runtime/deleteTask", "runtime/removeParticipant", "runtime/deleteMessage", "chat/deleteMessage", "chat/removeParticipant", "chat/deleteConversation", "runtime/deleteConversation", "chat/deleteUser", "runtime/deleteUser", "admin/deleteBot", "admin/deleteIntegrationApiKey", "admin/deleteIntegration", "admin/deletePersonalAccessToken"}
	place := func(op *operation) int {
		if i := slices.Index(last, op.Family+"/"+op.Name); i >= 0 || op.Method != "DELETE" {
			return i
		}
		return 0 // one that came later
	}
	ops = slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b *operation) int { return place(a) - place(b) })
	for _, op := range ops {
		x, own := sampleOf(op), p
		if op.Method == "DELETE" && op.Family != "admin" {
			own = w.settle(p)
		}
		what := func(name string) string { return own[name] }
		status, text, err := w.ask(op.Method, x.target(what), own.header(x.as), put(x.body, what))
		if err != nil || status != op.Status {
			w.t.Errorf("the owner may not %s: %d %s %v; if it is right that this needs more than the document says, tell it in specials\n%s %s %s", op, status, text, err, op.Method, x.target(what), put(x.body, what))
		}
	}
}

// rowsOf are the rows that name the victim's bot, workspace or people.
func (w *town) rowsOf(p place) (out []string) {
	w.t.Helper()
	own := func(row string, names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return strings.Contains(row, p[name]) })
	}
	for _, row := range w.rows() {
		switch table, _, _ := strings.Cut(row, ":"); {
		case own(row, "user", "friend", "conversation", "message", "event", "scheduled", "workflow", "task", "token", "integration", "iak"),
			slices.Contains([]string{"bots", "installations", "signing_secrets"}, table) && own(row, "bot"),
			slices.Contains([]string{"workspaces", "members", "integrations", "signing_secrets"}, table) && own(row, "workspace"):
			out = append(out, row)
		}
	}
	return out
}
