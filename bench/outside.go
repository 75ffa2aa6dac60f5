package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"
)

// outside measures what passes through Parley to integrations that run outside:
// requests at a door, and actions. The same endpoints are asked directly beside
// it: a Go program as a floor of its own, and the SDK integration of the
// conformance suite where Node and its packages are there.
type outside struct {
	p         *parley
	endpoints []*endpoint
	action    []byte
}

// endpoint is an integration at an address, installed in a bot.
type endpoint struct {
	name, addr string
	status     int
	direct     []byte // the operation as Parley would send it
	door       []byte
}

var doorConnections = []int{1, 64}

const knocked = `{"text":"This is a webhook of an ordinary length, as services send them by the thousand."}`

// integrationFloor answers operations with the least that is right.
func integrationFloor(l net.Listener) error {
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var in struct {
			Req   json.RawMessage
			Input json.RawMessage
		}
		if err == nil {
			err = json.Unmarshal(body, &in)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if in.Req != nil {
			w.WriteHeader(http.StatusAccepted)
		}
		_, _ = io.WriteString(w, `{"output":{"pong":1,"alias":"x"}}`)
	}))
}

func (s *outside) prepare(ctx context.Context, b *bench) (err error) {
	if s.p, err = b.shared(ctx); err != nil {
		return err
	}
	addr, err := startFloor(b, "integration")
	if err != nil {
		return err
	}
	if err := s.add(ctx, "go", addr, http.StatusAccepted); err != nil {
		return err
	}
	if addr, err = sdkIntegration(ctx, b, s.p); err != nil {
		fmt.Fprintln(os.Stderr, "bench: without the SDK integration:", err)
		return nil
	}
	return s.add(ctx, "sdk", addr, http.StatusAccepted)
}

// add installs the integration at addr in a bot of its own.
func (s *outside) add(ctx context.Context, name, addr string, status int) error {
	anything := map[string]any{"schema": map[string]any{"type": "object"}}
	var made struct{ Integration struct{ ID string } }
	if err := s.p.call(ctx, "POST", "/v1/admin/integrations", s.p.person(), map[string]any{
		"name": "bench" + name, "version": "0.1.0", "url": "http://" + addr, "configuration": anything,
		"channels": map[string]any{}, "actions": map[string]any{"ping": map[string]any{"input": anything, "output": anything}},
	}, &made); err != nil {
		return err
	}
	var bot struct {
		Bot struct {
			ID           string
			Integrations map[string]struct{ WebhookID string }
		}
	}
	if err := s.p.call(ctx, "POST", "/v1/admin/bots", s.p.person(), map[string]any{"name": "bench"}, &bot); err != nil {
		return err
	}
	id := bot.Bot.ID
	if err := s.p.call(ctx, "PUT", "/v1/admin/bots/"+id, s.p.person(), map[string]any{"integrations": map[string]any{
		name: map[string]any{"integrationId": made.Integration.ID, "enabled": true, "configuration": map[string]any{}},
	}}, &bot); err != nil {
		return err
	}
	webhook := bot.Bot.Integrations[name].WebhookID
	operation := http.Header{
		"X-Bot-Id": {id}, "X-Bot-User-Id": {id}, "X-Integration-Id": {made.Integration.ID}, "X-Integration-Alias": {name}, "X-Webhook-Id": {webhook},
		"X-Bp-Operation": {"webhook_received"}, "X-Bp-Type": {"webhook_received"}, "X-Bp-Configuration": {"e30="},
	}
	request, err := json.Marshal(map[string]any{"req": map[string]any{
		"method": "POST", "path": "/plain", "query": "", "headers": map[string]string{"content-type": "application/json", "host": s.p.addr}, "body": knocked,
	}})
	if err != nil {
		return err
	}
	s.endpoints = append(s.endpoints, &endpoint{
		name: name, addr: addr, status: status,
		direct: format("POST", "/", addr, operation, string(request)),
		door:   format("POST", "/"+webhook+"/plain", s.p.addr, nil, knocked),
	})
	if s.action == nil {
		h := http.Header{"Authorization": {"Bearer " + s.p.Env.Token}, "X-Bot-Id": {id}}
		s.action = format("POST", "/v1/chat/actions", s.p.addr, h, fmt.Sprintf(`{"type":"%s:ping","input":{"n":1}}`, name))
	}
	return nil
}

// sdkIntegration runs the integration of the conformance suite.
func sdkIntegration(ctx context.Context, b *bench, p *parley) (addr string, err error) {
	program := "conformance/integration.cjs"
	if _, err := os.Stat("conformance/node_modules/@botpress/sdk"); err != nil {
		return "", errors.New("its packages are not installed; make conformance installs them")
	}
	node, err := exec.LookPath("node")
	if err != nil {
		return "", err
	}
	if addr, err = freeAddr(); err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	cmd := exec.Command(node, program)
	cmd.Env = append(os.Environ(), "PORT="+port, "BP_API_URL="+p.Env.URL, "BP_TOKEN="+p.Env.Token)
	if err := cmd.Start(); err != nil {
		return "", err
	}
	b.later(func() error {
		_ = cmd.Process.Kill() // it knows no other end
		_ = cmd.Wait()
		return nil
	})
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		if c, err := net.Dial("tcp", addr); err == nil {
			return addr, c.Close()
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("%s does not answer", program)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *outside) round(ctx context.Context, b *bench) error {
	for _, e := range s.endpoints {
		for _, n := range doorConnections {
			for _, way := range []struct {
				name, addr string
				request    []byte
			}{{"direct", e.addr, e.direct}, {"door", s.p.addr, e.door}} {
				got, err := requests(ctx, way.addr, n, e.status, b.step, func(int, int) []byte { return way.request })
				if err != nil {
					return fmt.Errorf("%s %s: %w", way.name, e.name, err)
				}
				b.results.add(name(way.name+" "+e.name, n), got)
			}
		}
	}
	got, err := requests(ctx, s.p.addr, 1, http.StatusOK, b.step, func(int, int) []byte { return s.action })
	if err != nil {
		return fmt.Errorf("callAction: %w", err)
	}
	b.results.add("action/1", got)
	return nil
}

func (s *outside) finish(context.Context, *bench) error { return nil }

func (b *bench) outsideTable(w *strings.Builder) {
	r := &b.results
	if !r.has("action/1") {
		return
	}
	w.WriteString("\n## Integrations outside\n\nA request at the door of an installation, relayed to its integration and back, beside the same operation sent to the integration directly. ")
	w.WriteString("The Go program does nothing; the SDK integration is the one of the conformance suite.\n\n")
	w.WriteString("| integration | connections | of asking it directly | requests/s | p50 ms | p99 ms |\n|---|--:|--:|--:|--:|--:|\n")
	for _, e := range []struct{ series, title string }{{"go", "Go"}, {"sdk", "official SDK on Node"}} {
		for _, n := range doorConnections {
			if s := name("door "+e.series, n); r.has(s) {
				fmt.Fprintf(w, "| %s | %d | %.2f | %s |\n", e.title, n, r.ratio(s, name("direct "+e.series, n), rate), r.figures(s))
			}
		}
	}
	fmt.Fprintf(w, "\n`callAction` to the Go program, its input and output held against their schemas: %.2f of the floor's requests/s at 1 connection (plain HTTP + JSON), p50 %.3f ms.\n",
		r.ratioTo("action/1", "echo/1", rate), milliseconds(r.median("action/1", p50)))
}
