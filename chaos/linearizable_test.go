package chaos

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"parley/internal/parleytest"
)

// TestLinearizable has several clients at a time use the same few things on all
// servers while these are killed, and asks a checker whether each history can have
// come from one server that does one thing after the other: each request takes
// effect at one moment between its being sent and its answer. One whose answer was
// lost may have taken effect at any moment since, or never.
func TestLinearizable(t *testing.T) {
	parleytest.Each(t, func(t *testing.T, s *parleytest.Setup) {
		j := newJury(t, s)
		n, runs := &toll{}, rounds(1, 30)
		for range runs {
			j.run(n)
		}
		if n.kills == 0 || j.histories.Load() == 0 {
			t.Errorf("%d servers were killed, %d histories checked", n.kills, j.histories.Load())
		}
		record(t, "linearizability, "+s.Name, fmt.Sprintf("%v; %d runs of %v over %d kinds of things: %d histories of %d requests, %d of them without an answer, all linearizable; %d races of %d get-or-creates, each made one",
			n, runs, j.lasts, len(j.things()), j.histories.Load(), j.requests.Load(), j.lost.Load(), j.races.Load(), racers))
	})
}

const (
	clients = 4
	asks    = 12  // requests of each client about one thing
	maxLost = 6   // of one history, so that it can be decided
	racers  = 100 // get-or-creates at once
	tooLong = 30 * time.Second
)

// jury are clients and the checker of what they are told.
type jury struct {
	*plain
	s       *parleytest.Setup
	dice    *rand.Rand
	lasts   time.Duration // one run
	between time.Duration // kills
	began   time.Time
	next    atomic.Int64 // value

	histories, requests, lost, races atomic.Int64
}

func newJury(t *testing.T, s *parleytest.Setup) *jury {
	j := &jury{s: s, lasts: 4 * time.Second, between: 900 * time.Millisecond, began: time.Now()}
	if long() {
		j.lasts, j.between = time.Minute, 3*time.Second
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	j.dice = rand.New(rand.NewPCG(seed, 1))
	j.plain, _ = newChatBot(t, s, "")
	return j
}

// run uses things of every kind while servers are killed.
func (j *jury) run(n *toll) {
	j.t.Helper()
	ctx, cancel := context.WithTimeout(j.t.Context(), j.lasts)
	defer cancel()
	var using sync.WaitGroup
	defer using.Wait()
	for _, kind := range j.things() {
		seed := j.dice.Uint64()
		using.Go(func() {
			dice := rand.New(rand.NewPCG(seed, 2))
			for raced := false; ctx.Err() == nil; raced = true {
				th, err := kind.begin(ctx)
				if err != nil {
					if ctx.Err() == nil {
						j.t.Errorf("%s: %v", kind.name, err)
					}
					return
				}
				if _, ok := th.(*thingMade); ok && !raced {
					j.race(kind.name, th)
				} else {
					j.use(ctx, dice.Uint64(), kind, th)
				}
			}
		})
	}
	killUntil(j.t, j.s, n, j.dice, j.between, ctx.Done())
}

// thing is what clients ask something of.
type thing interface {
	// draw makes a request up.
	draw(dice *rand.Rand) wish
	// do carries it out on a server. Without an answer it returns nil, and whether the request was sent.
	do(ctx context.Context, node string, r wish) (a *told, sent bool)
}

// use has clients use a thing, and has their history checked.
func (j *jury) use(ctx context.Context, seed uint64, k kind, th thing) {
	var mu sync.Mutex
	var history []porcupine.Operation
	lost := 0
	note := func(op porcupine.Operation) (goOn bool) {
		mu.Lock()
		defer mu.Unlock()
		history = append(history, op)
		if op.Return == math.MaxInt64 {
			lost++
		}
		return lost < maxLost
	}
	var all sync.WaitGroup
	for id := range clients {
		all.Go(func() {
			dice := rand.New(rand.NewPCG(seed, uint64(id)))
			for range asks {
				r := th.draw(dice)
				op := porcupine.Operation{ClientId: id, Input: r, Call: j.now()}
				a, sent := th.do(ctx, j.s.Nodes[dice.IntN(len(j.s.Nodes))].Addr, r)
				op.Output, op.Return = a, j.now()
				if a == nil {
					op.Return = math.MaxInt64
					<-time.After(10 * time.Millisecond) // a server is being started
				}
				if a == nil && (!sent || reads(r)) {
					continue // nothing was done
				}
				if !note(op) || ctx.Err() != nil {
					return
				}
			}
		})
	}
	all.Wait()
	j.histories.Add(1)
	j.requests.Add(int64(len(history)))
	j.lost.Add(int64(lost))
	j.judge(k, history)
}

func (j *jury) now() int64 { return int64(time.Since(j.began)) }

// reads reports whether a request changes nothing.
func reads(r wish) bool { return r.what == "get" || r.what == "list" }

// judge has a history checked. One that cannot be is shown, and left in a file as a picture.
func (j *jury) judge(k kind, history []porcupine.Operation) {
	m := model(k.start, k.step)
	verdict, info := porcupine.CheckOperationsVerbose(m, history, tooLong)
	if verdict == porcupine.Ok {
		return
	}
	slices.SortFunc(history, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	var text strings.Builder
	for _, op := range history {
		fmt.Fprintf(&text, "\n  client %d  %12d … %20d  %s", op.ClientId, op.Call, op.Return, m.DescribeOperation(op.Input, op.Output))
	}
	picture := "no picture"
	if dir, err := os.MkdirTemp("", "parley-linearizable-"); err == nil {
		picture = filepath.Join(dir, "history.html")
		if err := porcupine.VisualizePath(m, info, picture); err != nil {
			picture = err.Error()
		}
	}
	j.t.Errorf("%s: the history is %s, want Ok; see %s%s", k.name, verdict, picture, text.String())
}

// race has many clients get or create the same thing at the same moment, and
// looks at what there is then, also when the time of the run is over.
func (j *jury) race(name string, th thing) {
	ctx := j.t.Context()
	var mu sync.Mutex
	ids := map[string]int{}
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range racers {
		all.Go(func() {
			<-start
			if a, _ := th.do(ctx, j.s.Nodes[i%len(j.s.Nodes)].Addr, wish{what: "get-or-create"}); a != nil {
				mu.Lock()
				defer mu.Unlock()
				ids[a.value]++
			}
		})
	}
	close(start)
	all.Wait()
	for ctx.Err() == nil {
		a, _ := th.do(ctx, j.s.Nodes[0].Addr, wish{what: "list"})
		if a == nil {
			<-time.After(10 * time.Millisecond) // the server is being started
			continue
		}
		if _, ok := ids[a.value]; !ok && len(ids) > 0 || len(ids) > 1 || strings.Contains(a.value, " ") {
			j.t.Errorf("%s: %d get-or-creates at once answered %v, and %q is listed", name, racers, ids, a.value)
		}
		if len(ids) > 0 {
			j.races.Add(1)
		}
		return
	}
}

// ask sends a request of the bot to one server. sent is false where it certainly
// was not carried out, and status is 0 where there is no answer that says anything.
func (j *jury) ask(ctx context.Context, node, method, path string, header map[string]string, in, out any) (status int, sent bool) {
	all := j.who(j.asBot())
	for k, v := range header {
		all[k] = v
	}
	status, err := call(context.WithoutCancel(ctx), method, "http://"+node+path, all, in, out)
	switch {
	case err == nil || status == http.StatusNotFound:
		return status, true
	case status == http.StatusConflict || status == http.StatusTooManyRequests:
		return 0, false
	case status == 0 && errors.Is(err, syscall.ECONNREFUSED):
		// The client may have sent a request with a key before, on an old connection.
		return 0, header["idempotency-key"] != ""
	case status == 0 || status >= 500:
		return 0, true
	}
	j.t.Errorf("%s %s: %v", method, path, err)
	return 0, true
}

// create makes something to begin with.
func (j *jury) create(ctx context.Context, path, member string, in object) (id string, err error) {
	var out map[string]struct{ ID string }
	_, err = insist(ctx, func(ctx context.Context) (int, error) {
		return call(ctx, "POST", j.api.APIURL+path, j.who(j.asBot()), in, &out)
	})
	return out[member].ID, err
}

func (j *jury) value() string { return fmt.Sprintf("v%d", j.next.Add(1)) }

// kind is a sort of things.
type kind struct {
	name  string
	start string // state
	step  step
	begin func(ctx context.Context) (thing, error)
}

const (
	pathUsers         = "/v1/chat/users"
	pathConversations = "/v1/chat/conversations"
	pathMessages      = "/v1/chat/messages"
	pathWorkflows     = "/v1/chat/workflows"
)

// things are the kinds that are used at the same time.
func (j *jury) things() []kind {
	all := []kind{
		{"states", "", stateModel, j.aState},
		{"participants", "", members, j.aConversation},
		{"messages under a key", "", upsert, func(ctx context.Context) (thing, error) { return j.aMade(ctx, pathMessages, j.value()) }},
	}
	for _, path := range []string{pathUsers, pathConversations, pathMessages, pathWorkflows} {
		what := strings.TrimPrefix(path, "/v1/chat/")
		all = append(all,
			kind{"get-or-create of " + what, "", upsert, func(ctx context.Context) (thing, error) { return j.aMade(ctx, path, "") }},
			kind{"tags of " + what, "|", tagged, func(ctx context.Context) (thing, error) { return j.aTagged(ctx, path) }})
	}
	return all
}

// body is what something of a sort is made of, and about what.
func (j *jury) body(ctx context.Context, path string) (in object, conversation string, err error) {
	switch path {
	case pathConversations:
		return object{"channel": "channel", "integrationName": "chat"}, "", nil
	case pathMessages:
		conversation, err = j.create(ctx, pathConversations, "conversation", object{"channel": "channel", "integrationName": "chat", "tags": object{}})
		return object{"conversationId": conversation, "userId": j.botID, "type": "text", "payload": object{"text": "x"}}, conversation, err
	case pathWorkflows:
		return object{"name": "work", "status": "listening"}, "", nil
	}
	return object{}, "", nil
}

// singular is the member of an answer that holds one thing.
func singular(path string) string {
	return strings.TrimSuffix(strings.TrimPrefix(path, "/v1/chat/"), "s")
}

// thingMade is what clients get or create: by a tag, or under an idempotency key.
type thingMade struct {
	*jury
	path, key string
	in        object
	list      string
	last      atomic.Value // id
}

func (j *jury) aMade(ctx context.Context, path, key string) (thing, error) {
	m := &thingMade{jury: j, path: path, key: key}
	m.last.Store("")
	name := j.value()
	in, conversation, err := j.body(ctx, path)
	if err != nil {
		return nil, err
	}
	in["tags"] = object{"name": name}
	m.in, m.list = in, path+"?tags[name]="+name
	if conversation != "" {
		m.list += "&conversationId=" + url.QueryEscape(conversation)
	}
	return m, nil
}

func (m *thingMade) draw(dice *rand.Rand) wish {
	last := m.last.Load().(string)
	switch n := dice.IntN(6); {
	case n == 0 && last != "" && m.key == "": // what was made under a key is answered after its end, too
		return wish{what: "remove", value: last}
	case n <= 2:
		return wish{what: "list"}
	}
	return wish{what: "get-or-create"}
}

func (m *thingMade) do(ctx context.Context, node string, r wish) (*told, bool) {
	switch r.what {
	case "remove":
		status, sent := m.ask(ctx, node, "DELETE", m.path+"/"+r.value, nil, object{}, &struct{}{})
		return m.answer(status, ""), sent
	case "list":
		var out map[string]any
		status, sent := m.ask(ctx, node, "GET", m.list, nil, object{}, &out)
		found, _ := out[singular(m.path)+"s"].([]any) // nothing without an answer
		var ids []string
		for _, v := range found {
			ids = append(ids, v.(map[string]any)["id"].(string))
		}
		return m.answer(status, strings.Join(ids, " ")), sent
	}
	path, header := m.path+"/get-or-create", map[string]string{}
	if m.key != "" {
		path, header["idempotency-key"] = m.path, "made-"+m.key
	}
	var out map[string]any
	status, sent := m.ask(ctx, node, "POST", path, header, m.in, &out)
	if status == 0 {
		return nil, sent
	}
	id := out[singular(m.path)].(map[string]any)["id"].(string)
	m.last.Store(id)
	return m.answer(status, id), sent
}

// answer is what a status and a value say.
func (j *jury) answer(status int, value string) *told {
	switch status {
	case 0:
		return nil
	case http.StatusNotFound:
		return &told{missing: true}
	}
	return &told{value: value}
}

// withTags is something whose tags are changed.
type withTags struct {
	*jury
	path, member string
}

func (j *jury) aTagged(ctx context.Context, path string) (thing, error) {
	in, _, err := j.body(ctx, path)
	if err != nil {
		return nil, err
	}
	in["tags"] = object{}
	id, err := j.create(ctx, path, singular(path), in)
	return &withTags{j, path + "/" + id, singular(path)}, err
}

func (w *withTags) draw(dice *rand.Rand) wish {
	switch dice.IntN(5) {
	case 0, 1:
		return wish{what: "get"}
	case 2:
		return wish{"put", pickOne(dice), ""}
	}
	return wish{"put", pickOne(dice), w.value()}
}

func pickOne(dice *rand.Rand) string { return []string{"one", "two"}[dice.IntN(2)] }

func (w *withTags) do(ctx context.Context, node string, r wish) (*told, bool) {
	method, in := "GET", object{}
	if r.what == "put" {
		method, in = "PUT", object{"tags": object{r.key: r.value}}
	}
	var out map[string]struct{ Tags map[string]string }
	status, sent := w.ask(ctx, node, method, w.path, nil, in, &out)
	tags := out[w.member].Tags
	return w.answer(status, tags["one"]+"|"+tags["two"]), sent
}

// inState is a state of the API.
type inState struct {
	*jury
	path   string
	header map[string]string
}

// aState hangs on something of another type each time.
func (j *jury) aState(ctx context.Context) (thing, error) {
	st := &inState{jury: j}
	typ := []string{"conversation", "user", "bot", "integration", "workflow", "task"}[j.next.Add(1)%6]
	id := j.botID
	var err error
	switch typ {
	case "conversation", "task":
		id, err = j.create(ctx, pathConversations, "conversation", object{"channel": "channel", "integrationName": "chat", "tags": object{}})
		if typ == "task" && err == nil {
			id, err = j.create(ctx, "/v1/chat/tasks", "task", object{"type": "t", "conversationId": id})
		}
	case "user":
		id, err = j.create(ctx, pathUsers, "user", object{"tags": object{}})
	case "workflow":
		id, err = j.create(ctx, pathWorkflows, "workflow", object{"name": "work", "status": "listening"})
	case "integration":
		id, st.header = j.id, map[string]string{"x-integration-id": j.id}
	}
	st.path = "/v1/chat/states/" + typ + "/" + id + "/" + j.value()
	return st, err
}

func (st *inState) draw(dice *rand.Rand) wish {
	switch dice.IntN(8) {
	case 0:
		return wish{what: "remove"}
	case 1:
		return wish{what: "set", value: st.value() + "|" + st.value()}
	case 2, 3:
		return wish{what: "get-or-set", value: st.value() + "|" + st.value()}
	case 4, 5:
		return wish{"patch", pickOne(dice), st.value()}
	}
	return wish{what: "get"}
}

func (st *inState) do(ctx context.Context, node string, r wish) (*told, bool) {
	method, path, in := "POST", st.path, object{}
	switch r.what {
	case "get":
		method = "GET"
	case "remove":
		in["payload"] = nil
	case "patch":
		method, in["payload"] = "PATCH", object{r.key: r.value}
	default:
		one, two, _ := strings.Cut(r.value, "|")
		in["payload"] = object{"one": one, "two": two}
		if r.what == "get-or-set" {
			path += "/get-or-set"
		}
	}
	var out struct {
		State struct{ Payload map[string]string }
	}
	status, sent := st.ask(ctx, node, method, path, st.header, in, &out)
	payload := out.State.Payload
	return st.answer(status, payload["one"]+"|"+payload["two"]), sent
}

// gathering is a conversation with those who may take part in it.
type gathering struct {
	*jury
	path  string
	users map[string]string // by name
}

func (j *jury) aConversation(ctx context.Context) (thing, error) {
	g := &gathering{jury: j, users: map[string]string{}}
	id, err := j.create(ctx, pathConversations, "conversation", object{"channel": "channel", "integrationName": "chat", "tags": object{}})
	g.path = pathConversations + "/" + id + "/participants"
	for _, name := range gatherers {
		if err == nil {
			g.users[name], err = j.create(ctx, pathUsers, "user", object{"tags": object{}})
		}
	}
	return g, err
}

func (g *gathering) draw(dice *rand.Rand) wish {
	name := gatherers[dice.IntN(len(gatherers))]
	return []wish{{"add", name, ""}, {"remove", name, ""}, {"get", name, ""}, {"list", "", ""}}[dice.IntN(4)]
}

func (g *gathering) do(ctx context.Context, node string, r wish) (*told, bool) {
	var status int
	var sent bool
	switch r.what {
	case "add":
		status, sent = g.ask(ctx, node, "POST", g.path, nil, object{"userId": g.users[r.key]}, &struct{}{})
	case "remove":
		status, sent = g.ask(ctx, node, "DELETE", g.path+"/"+g.users[r.key], nil, object{}, &struct{}{})
	case "get":
		status, sent = g.ask(ctx, node, "GET", g.path+"/"+g.users[r.key], nil, object{}, &struct{}{})
	default:
		var out struct{ Participants []struct{ ID string } }
		status, sent = g.ask(ctx, node, "GET", g.path, nil, object{}, &out)
		return g.answer(status, among(func(name string) bool {
			return slices.ContainsFunc(out.Participants, func(u struct{ ID string }) bool { return u.ID == g.users[name] })
		})), sent
	}
	return g.answer(status, ""), sent
}
