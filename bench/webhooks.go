package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// webhooks measures the way of a bot's messages to the response endpoints of the
// Messaging API: how many a second arrive, how soon one arrives at an idle
// server, and how much later those of healthy endpoints arrive while others
// fail, hang or break off. For the last there are two servers that take turns:
// one whose endpoints are all healthy, and one that has ill ones beside as many
// healthy ones.
type webhooks struct {
	sink        *sink
	alone, amid *hooked
}

const (
	healthyHooks = 14
	illHooks     = 6   // 30 % of all
	hookRate     = 280 // messages a second to the healthy ones, while p99 is measured
	hookCalm     = 20  // a second, as gateways are measured that are not under load
	hookPairs    = 7
	hookTalks    = 50 // conversations of each
)

// sink is where webhooks go. It notes when each message arrives first.
type sink struct {
	address string
	ctx     context.Context // of those that hang
	seen    atomic.Int64
	mu      sync.Mutex
	at      map[string]time.Time // by the text of the message
}

func newSink(ctx context.Context, b *bench) (*sink, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &sink{address: "http://" + l.Addr().String(), ctx: ctx, at: map[string]time.Time{}}
	server := &http.Server{Handler: s}
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(l) }) // it ends by Close
	b.later(func() error {
		cancel()
		err := server.Close()
		running.Wait()
		return err
	})
	return s, nil
}

// ServeHTTP answers as the path says. The probe of a registration is always welcome.
func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	arrived := time.Now()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the sender has gone
	}
	var in struct {
		Type    string
		Payload json.RawMessage
	}
	if err := json.Unmarshal(body, &in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if in.Type != "test" {
		switch r.URL.Path {
		case "/fails":
			w.WriteHeader(http.StatusInternalServerError)
			return
		case "/hangs":
			select {
			case <-s.ctx.Done():
			case <-r.Context().Done():
			}
			return
		case "/breaks":
			panic(http.ErrAbortHandler)
		}
		s.note(in.Payload, arrived)
	}
	_, _ = io.WriteString(w, "{}") // a sender that has gone does not read it
}

func (s *sink) note(payload json.RawMessage, arrived time.Time) {
	text, ok := bytes.CutPrefix(payload, []byte(`{"text":"`))
	if !ok {
		return
	}
	text, _, _ = bytes.Cut(text, []byte(`"`))
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, twice := s.at[string(text)]; !twice {
		s.at[string(text)] = arrived
		s.seen.Add(1)
	}
}

// took is how long after each of the times its message arrived.
func (s *sink) took(sent map[string]time.Time) (took []time.Duration, missing int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for text, at := range sent {
		arrived, ok := s.at[text]
		if !ok {
			missing++
			continue
		}
		took = append(took, max(0, arrived.Sub(at)))
	}
	return took, missing
}

// hooked is a server with bots whose messages leave by webhooks, one endpoint each.
type hooked struct {
	p             *parley
	healthy, ills []*hook
	n             atomic.Int64
}

// hook is a bot with an endpoint, and conversations of it that take turns: as
// many as an ill endpoint needs to hold up whatever it can.
type hook struct {
	bot           string
	conversations []string
	n             atomic.Int64
}

func (s *webhooks) prepare(ctx context.Context, b *bench) (err error) {
	if s.sink, err = newSink(ctx, b); err != nil {
		return err
	}
	if s.alone, err = s.server(ctx, b, "webhooks-alone", 0); err != nil {
		return err
	}
	s.amid, err = s.server(ctx, b, "webhooks-amid", illHooks)
	return err
}

func (s *webhooks) server(ctx context.Context, b *bench, name string, ills int) (*hooked, error) {
	p, err := b.start(ctx, name)
	if err != nil {
		return nil, err
	}
	h := &hooked{p: p}
	for range healthyHooks {
		k, err := h.hook(ctx, s.sink.address+"/")
		if err != nil {
			return nil, err
		}
		h.healthy = append(h.healthy, k)
	}
	for i := range ills {
		k, err := h.hook(ctx, s.sink.address+[]string{"/fails", "/hangs", "/breaks"}[i%3])
		if err != nil {
			return nil, err
		}
		h.ills = append(h.ills, k)
	}
	return h, nil
}

// hook makes a bot that has the Messaging API with an endpoint, and a conversation of it.
func (h *hooked) hook(ctx context.Context, endpoint string) (*hook, error) {
	var hub struct{ Integration struct{ ID string } }
	if err := h.p.call(ctx, "GET", "/v1/admin/hub/integrations/messaging/latest", h.p.person(), struct{}{}, &hub); err != nil {
		return nil, err
	}
	var made struct {
		Bot struct {
			ID           string
			Integrations map[string]struct{ Status string }
		}
	}
	if err := h.p.call(ctx, "POST", "/v1/admin/bots", h.p.person(), map[string]any{"name": "bench"}, &made); err != nil {
		return nil, err
	}
	id := made.Bot.ID
	if err := h.p.call(ctx, "PUT", "/v1/admin/bots/"+id, h.p.person(), map[string]any{"integrations": map[string]any{"messaging": map[string]any{
		"integrationId": hub.Integration.ID, "enabled": true, "configuration": map[string]any{"responseEndpointUrl": endpoint},
	}}}, &made); err != nil {
		return nil, err
	}
	for made.Bot.Integrations["messaging"].Status != "registered" {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		time.Sleep(5 * time.Millisecond)
		if err := h.p.call(ctx, "GET", "/v1/admin/bots/"+id, h.p.person(), struct{}{}, &made); err != nil {
			return nil, err
		}
	}
	as := http.Header{"Authorization": {"Bearer " + h.p.Env.Token}, "X-Bot-Id": {id}, "X-Integration-Id": {hub.Integration.ID}}
	k := &hook{bot: id}
	for n := range hookTalks {
		var made struct{ Conversation struct{ ID string } }
		if err := h.p.call(ctx, "POST", "/v1/chat/conversations", as, map[string]any{"channel": "channel", "tags": map[string]string{"id": strconv.Itoa(n)}}, &made); err != nil {
			return nil, err
		}
		k.conversations = append(k.conversations, made.Conversation.ID)
	}
	return k, nil
}

// say makes a message of the bot, and the text by which it is known.
func (h *hooked) say(k *hook) (text string, request []byte) {
	text = h.p.dir + "/" + strconv.FormatInt(h.n.Add(1), 10)
	as := http.Header{"Authorization": {"Bearer " + h.p.Env.Token}, "X-Bot-Id": {k.bot}}
	return text, format("POST", "/v1/chat/messages", h.p.addr, as,
		fmt.Sprintf(`{"userId":%q,"conversationId":%q,"type":"text","payload":{"text":%q},"tags":{}}`, k.bot, k.conversations[k.n.Add(1)%hookTalks], text))
}

// round measures what arrives with the server busy, and when it is calm.
func (s *webhooks) round(ctx context.Context, b *bench) error {
	const workers = 64
	conns, closeAll, err := pool(s.alone.p.addr, workers)
	if err != nil {
		return err
	}
	before, begin := s.sink.seen.Load(), time.Now()
	made, err := closedLoop(ctx, workers, b.step, func(w, n int) error {
		_, request := s.alone.say(s.alone.healthy[w%healthyHooks])
		_, err := conns[w].expect(http.StatusCreated, request)
		return err
	})
	if err := errors.Join(err, closeAll()); err != nil {
		return err
	}
	arrived, took := s.sink.seen.Load()-before, time.Since(begin)
	b.results.add("webhooks/made", made)
	b.results.add("webhooks/arrived", sample{rate: float64(arrived) / took.Seconds()})
	if err := s.drained(ctx, s.alone); err != nil {
		return err
	}
	calm, err := s.send(ctx, s.alone, hookCalm, b.step)
	if err != nil {
		return err
	}
	b.results.add("webhooks/calm", calm)
	return nil
}

// drained waits until all that was sent to healthy endpoints of h has arrived.
func (s *webhooks) drained(ctx context.Context, h *hooked) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		var left int
		s.sink.mu.Lock()
		for n := range h.n.Load() {
			if _, ok := s.sink.at[h.p.dir+"/"+strconv.FormatInt(n+1, 10)]; !ok {
				left++
			}
		}
		s.sink.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d webhooks have not arrived: %w", left, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// send makes messages at a steady rate for the healthy endpoints of h, and for
// its ill ones their share beside, and says how long after the answer to each
// that of a healthy one arrived.
func (s *webhooks) send(ctx context.Context, h *hooked, rate int, step time.Duration) (sample, error) {
	const workers = 16
	conns, closeAll, err := pool(h.p.addr, workers)
	if err != nil {
		return sample{}, err
	}
	all := slices.Concat(h.healthy, h.ills)
	every := time.Second * time.Duration(len(h.healthy)) / time.Duration(rate*len(all))
	due := make(chan *hook, workers)
	sent := map[string]time.Time{}
	var mu sync.Mutex
	errs := make([]error, workers)
	var running sync.WaitGroup
	for w := range workers {
		running.Go(func() {
			for k := range due {
				text, request := h.say(k)
				if errs[w] != nil {
					continue
				}
				if _, errs[w] = conns[w].expect(http.StatusCreated, request); errs[w] != nil || slices.Contains(h.ills, k) {
					continue
				}
				now := time.Now()
				mu.Lock()
				sent[text] = now
				mu.Unlock()
			}
		})
	}
	tick, begin := time.NewTicker(every), time.Now()
	for n := 0; time.Since(begin) < step && ctx.Err() == nil; n++ {
		<-tick.C
		due <- all[n%len(all)]
	}
	tick.Stop()
	close(due)
	running.Wait()
	if err := errors.Join(append(errs, closeAll(), ctx.Err())...); err != nil {
		return sample{}, err
	}
	return s.arrivals(ctx, sent, step)
}

// arrivals waits for what was sent.
func (s *webhooks) arrivals(ctx context.Context, sent map[string]time.Time, step time.Duration) (sample, error) {
	end := time.Now().Add(30 * time.Second)
	for {
		took, missing := s.sink.took(sent)
		if missing == 0 {
			return summarise(took, step), nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return sample{}, fmt.Errorf("%d of %d webhooks have not arrived at healthy endpoints", missing, len(sent))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// finish measures the pairs.
func (s *webhooks) finish(ctx context.Context, b *bench) error {
	pairs := min(hookPairs, 1+2*b.rounds) // one round is a smoke run
	for range pairs {
		for name, h := range map[string]*hooked{"webhooks/alone": s.alone, "webhooks/amid": s.amid} {
			got, err := s.send(ctx, h, hookRate, b.step)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			b.results.add(name, got)
		}
	}
	return nil
}

func (b *bench) webhookTable(w *strings.Builder) {
	r := &b.results
	if !r.has("webhooks/alone") {
		return
	}
	w.WriteString("\n## Webhooks\n\nMessages of bots to the response endpoints of the Messaging API, each a signed POST, in order, through the durable outbox.\n\n")
	fmt.Fprintf(w, "Made by 64 connections as fast as they are answered: %.0f messages/s, of which %.0f/s arrive meanwhile; the others wait their turn.\n\n", r.median("webhooks/made", rate), r.median("webhooks/arrived", rate))
	fmt.Fprintf(w, "| from the answer to the arrival | webhooks/s | p50 ms | p99 ms |\n|---|--:|--:|--:|\n| calm | %s |\n", r.figures("webhooks/calm"))
	fmt.Fprintf(w, "| %d healthy endpoints | %s |\n| the same, beside %d that fail, hang or break off | %s |\n", healthyHooks, r.figures("webhooks/alone"), illHooks, r.figures("webhooks/amid"))
	fmt.Fprintf(w, "\nThe last two take turns, %d times; the p99 of the second is %.2f of that of the first.\n", len(r.series["webhooks/alone"]), r.ratio("webhooks/amid", "webhooks/alone", p99))
}
