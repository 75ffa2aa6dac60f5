package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"parley/internal/app"
	"parley/internal/auth"
	"parley/internal/signing"
)

const (
	// maxHeard is how large a request may be, and maxShown how much of a body is printed.
	maxHeard = 10 << 20
	maxShown = 64 << 10
)

type listenOptions struct {
	of     signed
	secret string
	port   int
	status int
	json   bool
}

func (p *program) listen() *cobra.Command {
	var o listenOptions
	c := &cobra.Command{
		Use:   "listen",
		Short: "Receive requests and print them: an endpoint for whoever has none yet",
		Long: `Receive requests on this machine, verify their signatures, print them and answer
{}. Its URL can be given wherever Parley sends something: as the response
endpoint of the Messaging API, as the webhook of a chat, or as the url of a bot
or an integration. What it prints first shows how.

A signature is ok if one of the secrets has signed exactly these bytes within
the last five minutes. The secrets are those of --secret, or what parley secret
show shows for the bot or the integration. A webhook that is set up with a
webhookSecret of its own is signed with that: give it to --secret.`,
		Example: `  parley listen
  parley listen --port 9000 --secret whsec_… --json
  parley listen --status 500      # to see what is tried again, and when`,
		Args: noArgs,
	}
	load := p.settings(c, "data", "database-url", "master-key-file")
	c.Flags().IntVar(&o.port, "port", 7401, "`PORT` to listen on, on 127.0.0.1; 0 takes a free one")
	c.Flags().StringVar(&o.secret, "secret", "", "`SECRET` that signs the requests; two with a space between them are both accepted")
	c.Flags().StringVar(&o.of.botID, "bot", "", "`ID` of the bot that signs them (default: the echo bot of parley dev)")
	c.Flags().StringVar(&o.of.integrationID, "integration", "", "`ID` of a version of the integration that they are for, instead of a bot")
	c.Flags().IntVar(&o.status, "status", http.StatusOK, "`STATUS` to answer with")
	c.Flags().BoolVar(&o.json, "json", false, "print each request as a line of JSON, with all its headers")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case o.of.botID != "" && o.of.integrationID != "":
			return usage("--bot and --integration exclude each other")
		case o.port < 0 || o.port > 65535:
			return usage("--port %d is not a port", o.port)
		case o.status < 200 || o.status > 599:
			return usage("--status %d is not a status from 200 to 599", o.status)
		}
		cfg, err := load()
		if err != nil {
			return err
		}
		return p.inspect(cmd.Context(), cfg, o)
	}
	return c
}

// inspect serves until a signal ends it.
func (p *program) inspect(ctx context.Context, cfg app.Config, o listenOptions) error {
	ctx, release := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer release()
	i := &inspector{listenOptions: o, out: p.out}
	home, err := p.listenFor(ctx, cfg, o)
	if err != nil {
		return err
	}
	i.secrets = home.secrets
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(o.port)))
	if err != nil {
		return fmt.Errorf("%w; choose another port with --port", err)
	}
	greet := p.out
	if o.json {
		greet = p.err
	}
	if _, err := io.WriteString(greet, home.greeting("http://"+l.Addr().String())); err != nil {
		return err
	}
	server := &http.Server{Handler: i, ReadHeaderTimeout: 10 * time.Second}
	g, ended := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ended.Done()
		soon, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(soon) != nil {
			_ = server.Close() // whoever still sends is cut off
		}
		return nil
	})
	return g.Wait()
}

// home is what a listener knows of the server whose requests it waits for.
type home struct {
	secrets []auth.Secret
	whose   string // of the secrets; "" = there are none
	env     environment
	in      map[string]setUp // of the bot, by alias
	dev     bool
}

// listenFor asks the server for its secrets and for what can be set up. Without
// a data directory there is nobody to ask, which is as well: requests may come
// from anywhere.
func (p *program) listenFor(ctx context.Context, cfg app.Config, o listenOptions) (home, error) {
	var h home
	if o.secret != "" {
		h.secrets, h.whose = signing.Split(o.secret), "--secret"
	}
	named := o.of.botID != "" || o.of.integrationID != ""
	echo, err := devBot(cfg)
	h.dev = err == nil
	if !named {
		if o.of.botID = echo; echo == "" {
			return h, nil
		}
	}
	err = p.connect(ctx, cfg, false, func(ctx context.Context, conn *connection) error {
		if h.whose == "" {
			if err := h.ask(ctx, conn, o.of); err != nil {
				return err
			}
		}
		if o.of.botID == "" || !conn.running || conn.token == "" {
			return nil
		}
		var err error
		if h.env, err = conn.environment(ctx, cfg, o.of.botID); err != nil {
			return err
		}
		h.in, err = conn.setUps(ctx, h.env)
		return err
	})
	if err != nil && !named {
		return h, nil // what nobody asked for may be missing
	}
	return h, err
}

// setUp is how an installation is set up.
type setUp struct {
	Name          string         `json:"name"`
	Configuration map[string]any `json:"configuration"`
}

// setUps are those of the installations of a bot, by alias.
func (c *connection) setUps(ctx context.Context, e environment) (map[string]setUp, error) {
	var found struct {
		Bot struct {
			Integrations map[string]setUp `json:"integrations"`
		} `json:"bot"`
	}
	err := c.with("x-workspace-id", e.WorkspaceID).with("x-multiple-integrations", "true").call(ctx, "GET", "/v1/admin/bots/"+url.PathEscape(e.BotID), nil, &found)
	return found.Bot.Integrations, err
}

func (h *home) ask(ctx context.Context, conn *connection, of signed) error {
	var list signingSecrets
	if err := conn.call(ctx, "GET", signingPath+"?"+of.query(), nil, &list); err != nil {
		return err
	}
	for _, one := range list.Secrets {
		h.secrets = append(h.secrets, auth.Secret(one.Secret))
	}
	if h.whose = "bot " + of.botID; of.integrationID != "" {
		h.whose = "the integration of " + of.integrationID
	}
	return nil
}

// greeting says where requests may be sent, and how to have them sent there.
func (h home) greeting(at string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nListening on %s. Ctrl-C ends it.\n\n", at)
	switch h.whose {
	case "":
		fmt.Fprintf(&b, "Signatures are not verified: no secret is known. Give one with --secret.\n")
	case "--secret":
		fmt.Fprintf(&b, "Signatures are verified with the secret given.\n")
	default:
		fmt.Fprintf(&b, "Signatures are verified with the secret of %s.\n", h.whose)
	}
	if h.env.BotID != "" && !h.dev {
		fmt.Fprintf(&b, "parley serve reaches this address only with --allow-outbound 127.0.0.1/32.\n")
	}
	for _, target := range []struct{ integration, setting, what string }{
		{"messaging", "responseEndpointUrl", "the Messaging API of the bot answer here"},
		{"chat", "webhookUrl", "the signals of the bot's chat come here, too"},
	} {
		for _, alias := range slices.Sorted(maps.Keys(h.in)) {
			if in := h.in[alias]; in.Name == target.integration {
				fmt.Fprintf(&b, "\nLet %s:\n\n  %s\n", target.what, h.set(alias, in, target.setting, at+"/"+alias))
			}
		}
	}
	b.WriteString("\n")
	return b.String()
}

// set is the line that changes one setting of an installation and keeps the others.
func (h home) set(alias string, in setUp, setting, value string) string {
	configuration := maps.Clone(in.Configuration)
	if configuration == nil {
		configuration = map[string]any{}
	}
	configuration[setting] = value
	body, err := json.Marshal(map[string]any{"integrations": map[string]any{alias: map[string]any{"configuration": configuration}}})
	if err != nil {
		return err.Error() // what came as JSON can be written as JSON
	}
	return fmt.Sprintf("curl -s -X PUT %s -H %s -H %s -H 'x-multiple-integrations: true' -H 'content-type: application/json' -d %s",
		shellWord(h.env.APIURL+"/v1/admin/bots/"+h.env.BotID), shellQuote("authorization: Bearer "+h.env.Token),
		shellQuote("x-workspace-id: "+h.env.WorkspaceID), shellQuote(string(body)))
}

// inspector prints requests, one after the other.
type inspector struct {
	listenOptions
	secrets []auth.Secret

	mu  sync.Mutex
	out io.Writer
}

// heard is a request as it is printed.
type heard struct {
	Time      string            `json:"time"`
	Method    string            `json:"method"`
	Path      string            `json:"path"`
	Headers   map[string]string `json:"headers"`
	Body      any               `json:"body"`                     // JSON as it came, else a text
	Signature string            `json:"signature"`                // ok, wrong, none or unchecked
	Reason    string            `json:"signatureError,omitempty"` // what is wrong with it
}

// ServeHTTP implements http.Handler.
func (i *inspector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxHeard))
	if err != nil {
		http.Error(w, "the body could not be read: "+err.Error(), http.StatusBadRequest)
		return
	}
	h := heard{Time: now.Format(time.RFC3339Nano), Method: r.Method, Path: r.URL.RequestURI(), Headers: map[string]string{}}
	for name, values := range r.Header {
		h.Headers[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	h.Signature, h.Reason = i.verify(r.Header, body, now)
	h.Body = string(body)
	if i.json && json.Valid(body) {
		h.Body = json.RawMessage(body)
	}
	if err := i.print(h, body, now); err != nil {
		http.Error(w, "the request could not be printed", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(i.status)
	if i.status != http.StatusNoContent && i.status != http.StatusNotModified && r.Method != http.MethodHead {
		_, _ = io.WriteString(w, "{}\n") // who has gone hears nothing
	}
}

func (i *inspector) verify(h http.Header, body []byte, now time.Time) (state, reason string) {
	switch err := signing.Verify(h, body, now, i.secrets...); {
	case errors.Is(err, signing.ErrUnsigned):
		return "none", ""
	case len(i.secrets) == 0:
		return "unchecked", ""
	case err != nil:
		return "wrong", err.Error()
	}
	return "ok", ""
}

func (i *inspector) print(h heard, body []byte, now time.Time) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.json {
		return json.NewEncoder(i.out).Encode(h)
	}
	_, err := io.WriteString(i.out, h.text(body, now))
	return err
}

// Headers that are printed where they come; others are for machines.
var shownHeaders = []string{
	"content-type", "x-bp-operation", "x-bp-type", "x-bot-id", "x-integration-id", "x-integration-alias", "x-secret-key",
	"webhook-id", "webhook-timestamp", "x-parley-attempt",
}

// text is a request for people.
func (h heard) text(body []byte, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s %s  signature %s", now.Format("15:04:05.000"), printable(h.Method), printable(h.Path), h.Signature)
	if h.Reason != "" {
		fmt.Fprintf(&b, ": %s", printable(h.Reason))
	}
	b.WriteString("\n")
	for _, name := range shownHeaders {
		if value, ok := h.Headers[name]; ok {
			fmt.Fprintf(&b, "  %s: %s\n", name, printable(value))
		}
	}
	for line := range strings.Lines(readable(body)) {
		b.WriteString("  " + strings.TrimRight(line, "\n") + "\n")
	}
	b.WriteString("\n")
	return b.String()
}

// readable is a body for people.
func readable(body []byte) string {
	var pretty bytes.Buffer
	switch body = bytes.TrimSpace(body); {
	case len(body) == 0:
		return ""
	case json.Indent(&pretty, body, "", "  ") == nil:
		body = pretty.Bytes()
	case !utf8.Valid(body):
		return fmt.Sprintf("(%d bytes that are no text)", len(body))
	}
	if len(body) > maxShown {
		return printable(strings.ToValidUTF8(string(body[:maxShown]), "")) + fmt.Sprintf("\n… (%d bytes more)", len(body)-maxShown)
	}
	return printable(string(body))
}
