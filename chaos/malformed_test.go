package chaos

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/internal/fault"
	"parley/internal/parleytest"
)

// TestMalformed sends requests of every operation that is done, broken by a
// grammar (breaks_test.go): in their path, method, query, headers, body, and
// below HTTP. The server lives, says nothing of an inner error, and answers each
// with an error of the API or, where a rule lets it, takes it. PARLEY_SEED makes
// the same requests again, but for the ids in them.
func TestMalformed(t *testing.T) {
	parleytest.Each(t, func(t *testing.T, s *parleytest.Setup) {
		w := &mill{town: newTown(t, s), ops: operations(t, s), seed: seed(t), seen: map[string]int{}}
		t.Logf("PARLEY_SEED=%d", w.seed)
		began := time.Now()
		total := uint64(rounds(20_000, 5_000_000))
		for from := uint64(0); from < total && !t.Failed(); from += perStage {
			w.act(from, min(from+perStage, total))
		}
		took := time.Since(began)
		w.check()
		record(t, "malformed requests, "+s.Name, fmt.Sprintf("%d requests of %d operations (seed %d) in %v, %.0f a second: %d refused with a typed error, %d taken by rule, %d cut off before they were whole; 0 panics, 0 answers 5xx, 0 without a type",
			total, len(w.ops), w.seed, took.Round(time.Second), float64(total)/took.Seconds(), w.refused.Load(), w.taken.Load(), w.unanswered.Load()))
	})
}

func seed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("PARLEY_SEED")
	if text == "" {
		return rand.Uint64()
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("PARLEY_SEED: %v", err)
	}
	return n
}

// perStage is how many requests meet the same bots, users and conversations.
// Then all that was made goes, so that a long run fills no disk.
const perStage = 20_000

// mill makes malformed requests and judges the answers.
type mill struct {
	*town
	ops  []*operation
	seed uint64

	refused, taken, unanswered atomic.Int64

	bases map[*operation]*base // of the stage

	mu   sync.Mutex
	seen map[string]int // complaints, by what and of whom
}

// base is the valid request of an operation.
type base struct {
	request
	place place
	tree  *tree
}

// act prepares a stage, sends requests and takes everything away.
func (w *mill) act(from, to uint64) {
	w.t.Helper()
	w.raise()
	w.control()
	var next atomic.Uint64
	next.Store(from)
	var working sync.WaitGroup
	for i := range 24 {
		working.Go(func() {
			c := &wire{addr: w.s.Nodes[i%len(w.s.Nodes)].Addr}
			defer c.close()
			for n := next.Add(1) - 1; n < to && !w.hopeless(); n = next.Add(1) - 1 {
				w.one(c, n)
			}
		})
	}
	working.Wait()
	w.raze()
}

// raise makes what the requests are about.
func (w *mill) raise() {
	w.t.Helper()
	first, _ := w.house(w.furnish(w.mine()))
	stays := w.settle(first)
	doomed, ghost := w.settle(first), w.settle(first)
	own, _ := w.house(w.furnish(w.mine()))
	estate := maps.Clone(stays) // of the operations of administration
	maps.Copy(estate, own)
	w.bases = map[*operation]*base{}
	for _, op := range w.ops {
		p := stays
		switch {
		case op.Name == "deleteUser":
			p = ghost
		case op.Family == "admin" && op.Method != "GET":
			p = estate
		case op.Method == "DELETE":
			p = doomed
		}
		w.bases[op] = w.base(op, p)
	}
}

func (w *mill) base(op *operation, p place) *base {
	w.t.Helper()
	x, what := sampleOf(op), func(name string) string { return p[name] }
	b := &base{place: maps.Clone(p), request: request{op: op, method: op.Method, version: "HTTP/1.1", routed: true, length: none}}
	path, query, _ := strings.Cut(x.target(what), "?")
	b.path = path
	for q := range strings.SplitSeq(query, "&") {
		if name, value, ok := strings.Cut(q, "="); ok {
			b.query = append(b.query, pair{name, value})
		}
	}
	b.header = append([]pair{{"host", "parley"}}, p.header(x.as)...)
	if op.writes() {
		b.header = append(b.header, pair{"content-type", "application/json"})
		b.length = ""
		var err error
		if b.tree, err = plant(put(x.body, what), op.body); err != nil {
			w.t.Fatalf("the sample of %s: %v", op, err)
		}
		b.body = b.tree.bytes()
	}
	return b
}

// control proves that what is broken afterwards is right: it is answered well.
func (w *mill) control() {
	w.t.Helper()
	c := &wire{addr: w.s.Addr}
	defer c.close()
	for _, op := range w.ops {
		if op.Method == "DELETE" {
			continue
		}
		r := w.bases[op].request
		all, err := c.exchange(&r)
		if err != nil || len(all) != 1 || all[0].status != op.Status {
			w.t.Fatalf("%s, unbroken: %v, %v\n%s", op, all, err, r.bytes())
		}
	}
}

// raze deletes what was made since the server began.
func (w *mill) raze() {
	w.t.Helper()
	person := w.mine().header(asPerson)
	for _, kind := range []struct{ path, member, keep string }{
		{"/v1/admin/bots", "bots", w.env.BotID}, {"/v1/admin/integrations", "integrations", ""}, {"/v1/admin/account/pats", "pats", "parley dev"},
	} {
		for {
			var list map[string]json.RawMessage
			var things []struct{ ID, Note string }
			w.must("GET", kind.path, person, "", &list)
			if err := json.Unmarshal(list[kind.member], &things); err != nil {
				w.t.Fatal(err)
			}
			deleted := 0
			for _, thing := range things {
				if thing.ID == kind.keep || thing.Note == kind.keep && kind.keep != "" {
					continue
				}
				w.must("DELETE", kind.path+"/"+thing.ID, person, "", nil)
				deleted++
			}
			if deleted == 0 {
				break
			}
		}
	}
}

// make is the request of a number: the same for the same seed.
func (w *mill) make(n uint64) *request {
	rng := rand.New(rand.NewPCG(w.seed, n))
	op := w.ops[rng.IntN(len(w.ops))]
	b := w.bases[op]
	r := b.request
	r.query, r.header = slices.Clone(r.query), slices.Clone(r.header)
	m := &maker{seeds: seeds{rng}, op: op, r: &r, place: b.place}
	if b.tree != nil {
		m.tree = b.tree.clone()
		if rng.IntN(2) == 0 {
			m.members(m.tree, 0)
		}
	}
	m.breakOnce()
	for rng.IntN(5) == 0 {
		m.breakOnce()
		r.wants = nil // one may undo the other
	}
	if m.tree != nil {
		if r.body = m.tree.bytes(); m.text != nil {
			r.body = m.text(r.body)
		}
	}
	if r.alone {
		r.header = append(r.header, pair{"connection", "close"})
	}
	if m.frame != nil {
		r.raw = m.frame(r.bytes())
	}
	return &r
}

// one sends a request and judges what comes.
func (w *mill) one(c *wire, n uint64) {
	r := w.make(n)
	all, err := c.exchange(r)
	complaint := w.judge(r, all, err)
	switch {
	case complaint != "":
		w.complain(c.addr, n, r, all, complaint)
	case len(all) == 0 || all[0].status == 0:
		w.unanswered.Add(1)
	case all[0].status < 400:
		w.taken.Add(1)
	default:
		w.refused.Add(1)
	}
}

// judge finds what is wrong with the answers to a request, "" if nothing is.
func (w *mill) judge(r *request, all []answer, err error) string {
	if err != nil {
		return "no whole answer: " + err.Error()
	}
	if len(all) == 0 && !r.cut && !r.binary {
		return "no answer"
	}
	for i, a := range all {
		if a.status == 0 && r.binary {
			continue
		}
		typ, why := w.typed(a, r.method == "HEAD")
		if why != "" {
			return why
		}
		if i > 0 || typ == fault.RateLimited.Type {
			continue
		}
		switch {
		case len(r.wants) > 0 && a.status < 400:
			return "taken, and must be refused"
		case len(r.wants) > 0 && r.method != "HEAD" && !slices.Contains(r.wants, typ):
			return "refused as " + typ + ", and must be " + strings.Join(r.wants, " or ")
		case r.routed && a.status < 400 && a.status != r.op.Status && a.status != 101:
			return fmt.Sprintf("taken with %d", a.status)
		case r.routed && !slices.Contains(r.op.answers, a.status):
			return fmt.Sprintf("the status %d is not documented", a.status)
		}
	}
	return ""
}

// wireError is an error as the API describes it.
type wireError struct {
	ID, Type, Message, Description string
	Code, Status                   int
	Metadata                       json.RawMessage
}

var kinds = func() map[string]*fault.Kind {
	out := map[string]*fault.Kind{}
	for _, k := range fault.Kinds() {
		out[k.Type] = k
	}
	return out
}()

// typed is the type of an error, "" if it is none; and what is wrong with the answer.
func (w *mill) typed(a answer, head bool) (typ, why string) {
	text := a.header.Get("content-type")
	switch {
	case a.status >= 500:
		return "", fmt.Sprintf("the status %d", a.status)
	case a.status >= 300 && a.status < 400 || a.status < 101:
		return "", fmt.Sprintf("the status %d", a.status)
	case a.status < 400:
		if text == "application/json" && !head && !json.Valid(a.body) {
			return "", "an answer that is no JSON"
		}
		return "", ""
	case head:
		return "", ""
	case text != "application/json":
		return "", fmt.Sprintf("an error of the content type %q", text)
	}
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.DisallowUnknownFields()
	var e wireError
	if err := d.Decode(&e); err != nil {
		return "", "an error that cannot be read: " + err.Error()
	}
	k := kinds[e.Type]
	if k == nil || k.Status != a.status || e.Status != a.status || e.Code != a.status || e.Description != k.Description || e.Message == "" || !strings.HasPrefix(e.ID, "err_") {
		return "", fmt.Sprintf("an error that is not as described, with the status %d", a.status)
	}
	return e.Type, ""
}

const (
	maxShown = 10  // complaints that are shown
	maxWrong = 200 // after which a run ends
)

func (w *mill) hopeless() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	sum := 0
	for _, n := range w.seen {
		sum += n
	}
	return sum > maxWrong
}

// complain tells of a request that was answered wrongly, as small as it can be
// made, once for each operation and kind of complaint.
func (w *mill) complain(addr string, n uint64, r *request, all []answer, complaint string) {
	key := r.op.String() + ": " + complaint
	w.mu.Lock()
	w.seen[key]++
	first, shown := w.seen[key] == 1, len(w.seen) <= maxShown
	w.mu.Unlock()
	if !first || !shown {
		w.t.Fail()
		return
	}
	c := &wire{addr: addr}
	defer c.close()
	if r.raw == nil {
		r = r.shrunk(func(smaller *request) bool {
			again, err := c.exchange(smaller)
			if w.judge(smaller, again, err) != complaint {
				return false
			}
			all = again
			return true
		})
	}
	said := "nothing"
	if len(all) > 0 {
		said = fmt.Sprintf("%d %.500s", all[0].status, all[0].body)
	}
	w.t.Errorf("%s, request %d, with %s: %s. The answer is %s\n%s", r.op, n, strings.Join(r.breaks, " and "), complaint, said, r.paste(addr))
}

// check looks at what the servers have to say of it: nothing.
func (w *mill) check() {
	w.t.Helper()
	for key, n := range w.seen {
		if n > 1 {
			w.t.Errorf("%d times: %s", n, key)
		}
	}
	for _, s := range w.s.Nodes {
		select {
		case <-s.Gone():
			w.t.Errorf("the process %d has ended", s.PID())
		default:
		}
		w.quiet(s)
	}
}

// quiet reads a log, which must hold no error.
func (w *mill) quiet(s *parleytest.Server) {
	w.t.Helper()
	log := s.Log()
	defer log.Close()
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for n := 0; lines.Scan(); {
		line := lines.Text()
		if strings.Contains(line, `"level":"ERROR"`) || strings.Contains(line, "panic") || strings.Contains(line, "goroutine ") {
			if n++; n <= maxShown {
				w.t.Errorf("the server says %.2000s", line)
			}
		}
	}
	if err := lines.Err(); err != nil {
		w.t.Error(err)
	}
}
