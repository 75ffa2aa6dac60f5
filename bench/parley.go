package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"parley/internal/sqldb"
)

// parley is a server under measurement, with a directory of the run.
type parley struct {
	bin, dir, addr string
	database       string // of PostgreSQL; "" = SQLite in dir
	wire           *floor // the NATS server between it and others; nil = it is alone
	env            []string
	cmd            *exec.Cmd
	Env            struct {
		URL       string `json:"BP_API_URL"`
		Token     string `json:"BP_TOKEN"`
		Workspace string `json:"BP_WORKSPACE_ID"`
	}
}

// shared starts the server that the scenarios have in common, once.
func (b *bench) shared(ctx context.Context) (*parley, error) {
	if b.server != nil {
		return b.server, nil
	}
	p, err := b.start(ctx, "shared")
	b.server = p
	return p, err
}

// start runs a fresh server on SQLite and stops it with the run.
func (b *bench) start(ctx context.Context, name string) (*parley, error) {
	return b.startOn(ctx, name, "")
}

// startOn is start for a server on the database of a URL.
func (b *bench) startOn(ctx context.Context, name, database string) (*parley, error) {
	bin, err := b.binary(ctx)
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	p := &parley{bin: bin, dir: filepath.Join(b.dir, name), addr: addr, database: database}
	if _, err := p.run(ctx); err != nil {
		return nil, err
	}
	b.later(p.end)
	return p, p.ask()
}

// ask reads what the command line says of the server.
func (p *parley) ask() error {
	out, err := p.command("env", "--json").Output()
	if err != nil {
		return fmt.Errorf("parley env: %w", err)
	}
	return json.Unmarshal(out, &p.Env)
}

func (p *parley) command(args ...string) *exec.Cmd {
	cmd := exec.Command(p.bin, args...)
	cmd.Env = append(os.Environ(), "PARLEY_ADDR="+p.addr, "PARLEY_DATA="+p.dir, "PARLEY_DATABASE_URL="+p.database, "PARLEY_LOG_LEVEL=warn")
	cmd.Env = append(cmd.Env, p.env...)
	return cmd
}

// run starts the process and returns how long it took until it was ready.
func (p *parley) run(ctx context.Context) (time.Duration, error) {
	log, err := os.OpenFile(p.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	p.cmd = p.command("dev")
	p.cmd.Stdout, p.cmd.Stderr = log, log
	begin := time.Now()
	if err := p.cmd.Start(); err != nil {
		return 0, err
	}
	if err := ready(ctx, p.addr); err != nil {
		return 0, errors.Join(fmt.Errorf("parley: %w", err), p.end())
	}
	return time.Since(begin), nil
}

// ready asks for /readyz until it answers 200. Questions come quickly: a start takes some tens of milliseconds.
func ready(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	request := format("GET", "/readyz", addr, nil, "")
	for {
		c, err := dial(addr)
		if err == nil {
			var status int
			status, _, err = c.do(request)
			_ = c.close() // it was only for asking
			if err == nil && status == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w, %v", ctx.Err(), err)
		case <-time.After(200 * time.Microsecond):
		}
	}
}

// end stops the process and waits for it.
func (p *parley) end() error {
	if p.cmd == nil || p.cmd.ProcessState != nil {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself; Wait tells
	late := time.AfterFunc(20*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	if err := p.cmd.Wait(); err != nil {
		text, _ := os.ReadFile(p.dir + ".log") // it only adds to the error
		return fmt.Errorf("parley: %w\n%s", err, text[max(0, len(text)-2000):])
	}
	return nil
}

// open opens the database of a server that does not run, to write or read what
// would take too long through it.
func (p *parley) open(ctx context.Context, fn func(db *sqldb.DB) error) error {
	db, err := sqldb.Open(ctx, sqldb.Options{URL: cmp.Or(p.database, filepath.Join(p.dir, "parley.db"))})
	if err != nil {
		return err
	}
	return errors.Join(fn(db), db.Close())
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// call sends one request of the preparations, which are not measured.
func (p *parley) call(ctx context.Context, method, path string, header http.Header, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+p.addr+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header = header.Clone()
	r.Header.Set("Content-Type", "application/json")
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		return err
	}
	if a.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, a.Status, text)
	}
	return json.Unmarshal(text, out)
}

// bot is a bot with the chat integration in it.
type bot struct {
	p                    *parley
	id, integration, web string
}

func (p *parley) person() http.Header {
	return http.Header{"Authorization": {"Bearer " + p.Env.Token}, "X-Workspace-Id": {p.Env.Workspace}, "X-Multiple-Integrations": {"true"}}
}

// newBot creates a bot whose program is at address.
func (p *parley) newBot(ctx context.Context, address string) (*bot, error) {
	var hub struct{ Integration struct{ ID string } }
	if err := p.call(ctx, "GET", "/v1/admin/hub/integrations/chat/latest", p.person(), struct{}{}, &hub); err != nil {
		return nil, err
	}
	type made struct {
		Bot struct {
			ID           string
			Integrations map[string]struct{ WebhookID string }
		}
	}
	var created, updated made
	if err := p.call(ctx, "POST", "/v1/admin/bots", p.person(), map[string]any{"name": "bench"}, &created); err != nil {
		return nil, err
	}
	change := map[string]any{
		"url":          address,
		"integrations": map[string]any{"chat": map[string]any{"integrationId": hub.Integration.ID, "enabled": true, "configuration": struct{}{}}},
	}
	if err := p.call(ctx, "PUT", "/v1/admin/bots/"+created.Bot.ID, p.person(), change, &updated); err != nil {
		return nil, err
	}
	return &bot{p, created.Bot.ID, hub.Integration.ID, "/" + updated.Bot.Integrations["chat"].WebhookID}, nil
}

// asBot and asIntegration are the headers of their processes.
func (b *bot) asBot() http.Header {
	return http.Header{"Authorization": {"Bearer " + b.p.Env.Token}, "X-Bot-Id": {b.id}}
}

func (b *bot) asIntegration() http.Header {
	h := b.asBot()
	h.Set("X-Integration-Id", b.integration)
	return h
}

// through is the bot as it is seen at another server.
func (b *bot) through(p *parley) *bot {
	c := *b
	c.p = p
	return &c
}

// room makes a conversation of the installation and a user to write in it.
func (b *bot) room(ctx context.Context) (user, conversation string, err error) {
	var u struct{ User struct{ ID string } }
	var c struct{ Conversation struct{ ID string } }
	none := struct{}{}
	err = errors.Join(
		b.p.call(ctx, "POST", "/v1/chat/users", b.asIntegration(), map[string]any{"tags": none}, &u),
		b.p.call(ctx, "POST", "/v1/chat/conversations", b.asIntegration(), map[string]any{"channel": "channel", "tags": none}, &c),
	)
	return u.User.ID, c.Conversation.ID, err
}

// guest is a chat user with a conversation of its own.
type guest struct{ key, user, conversation string }

func (b *bot) guest(ctx context.Context) (guest, error) {
	var u struct {
		Key  string
		User struct{ ID string }
	}
	if err := b.p.call(ctx, "POST", b.web+"/users", http.Header{}, struct{}{}, &u); err != nil {
		return guest{}, err
	}
	var c struct{ Conversation struct{ ID string } }
	err := b.p.call(ctx, "POST", b.web+"/conversations", http.Header{"X-User-Key": {u.Key}}, struct{}{}, &c)
	return guest{u.Key, u.User.ID, c.Conversation.ID}, err
}

// say is the request that sends a text in the guest's conversation.
func (b *bot) say(g guest, text string) []byte { return b.sayWith(http.Header{}, g, text) }

// sayWith is say with headers.
func (b *bot) sayWith(header http.Header, g guest, text string) []byte {
	header.Set("X-User-Key", g.key)
	body := fmt.Sprintf(`{"conversationId":%q,"payload":{"type":"text","text":%q}}`, g.conversation, text)
	return format("POST", b.web+"/messages", b.p.addr, header, body)
}

// listen opens the stream of the guest's conversation.
func (b *bot) listen(g guest) (*conn, error) {
	c, err := dial(b.p.addr)
	if err != nil {
		return nil, err
	}
	request := format("GET", b.web+"/conversations/"+url.PathEscape(g.conversation)+"/listen", b.p.addr, http.Header{"X-User-Key": {g.key}}, "")
	if err := c.open(request); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// metric reads one figure of /metrics, named with its labels.
func (p *parley) metric(ctx context.Context, named string) (float64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, named+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(v), 64)
		}
	}
	return 0, fmt.Errorf("%s: no metric %s", p.addr, named)
}
