package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"parley/internal/app"
)

// delivered is an entry of the log of deliveries, as far as a table shows it.
type delivered struct {
	ID            string    `json:"id"`
	CreatedAt     time.Time `json:"createdAt"`
	Kind          string    `json:"kind"`
	Integration   string    `json:"integration"`
	Operation     string    `json:"operation"`
	Type          string    `json:"type"`
	Conversation  string    `json:"conversationId"`
	Message       string    `json:"messageId"`
	Status        string    `json:"status"`
	Dead          bool      `json:"dead"`
	FailureReason string    `json:"failureReason"`
	AttemptCount  int       `json:"attemptCount"`
}

// what says what is told: the type of an event says more than that it is one.
func (d delivered) what() string { return cmp.Or(d.Type, d.Operation) }

// state is the status, which does not tell dead letters from what was refused.
func (d delivered) state() string {
	if d.Dead {
		return "dead"
	}
	return d.Status
}

const deliveriesPath = "/v1/parley/deliveries"

// deliveryChoice says which deliveries are meant.
type deliveryChoice struct {
	botID, status, kind, operation, installationID, conversationID string
	since, until                                                   string
	dead                                                           bool
}

func (p *program) deliveries() *cobra.Command {
	c := &cobra.Command{
		Use:   "deliveries",
		Short: "List, show and replay what bots, integrations and webhooks were told",
		Long: `List, show and replay what bots, integrations and webhooks were told: each
delivery with its request, and every attempt with its time, status and answer.

A delivery that failed because its tries or its time ran out is a dead letter.
Once its endpoint works again, parley deliveries replay --dead delivers all of
them once more, under the same ids and in the order they had.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(p.deliveriesList(), p.deliveriesShow(), p.deliveriesReplay())
	return c
}

// deliveriesCommand adds what the three have in common.
func (p *program) deliveriesCommand(c *cobra.Command, of *deliveryChoice, run func(ctx context.Context, conn *connection, cfg app.Config, args []string) error) *cobra.Command {
	load := p.settings(c, "data", "database-url", "master-key-file")
	c.Flags().StringVar(&of.botID, "bot", "", "`ID` of the bot (default: the echo bot of parley dev)")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		if of.botID == "" {
			if of.botID, err = devBot(cfg); err != nil {
				return err
			}
		}
		return p.connect(cmd.Context(), cfg, false, func(ctx context.Context, conn *connection) error { return run(ctx, conn, cfg, args) })
	}
	return c
}

// filters adds the flags that choose among deliveries.
func (of *deliveryChoice) filters(c *cobra.Command, statuses string) {
	c.Flags().StringVar(&of.status, "status", "", "only those with this `STATUS`: "+statuses)
	c.Flags().StringVar(&of.kind, "kind", "", "only those to a bot, an integration or a webhook: that is the `KIND`")
	c.Flags().StringVar(&of.operation, "operation", "", "only this `OPERATION`, such as event_received or message_created")
	c.Flags().StringVar(&of.installationID, "installation", "", "only those to the installation with this `ID`")
	c.Flags().StringVar(&of.conversationID, "conversation", "", "only those of the conversation with this `ID`")
	c.Flags().BoolVar(&of.dead, "dead", false, "only dead letters")
	c.Flags().StringVar(&of.since, "since", "", "only those created after this `TIME`: 1h for an hour ago, or 2026-01-31T09:00:00Z")
	c.Flags().StringVar(&of.until, "until", "", "only those created before this `TIME`")
}

// given are the filters as members of a request.
func (of *deliveryChoice) given(now time.Time) (map[string]any, error) {
	in := map[string]any{}
	for name, value := range map[string]string{
		"botId": of.botID, "status": of.status, "kind": of.kind, "operation": of.operation, "installationId": of.installationID, "conversationId": of.conversationID,
	} {
		if value != "" {
			in[name] = value
		}
	}
	if of.dead {
		in["dead"] = true
	}
	for _, end := range []struct{ flag, name, value string }{{"since", "after", of.since}, {"until", "before", of.until}} {
		if end.value == "" {
			continue
		}
		at, err := moment(end.value, now)
		if err != nil {
			return nil, usage("--%s %q %w", end.flag, end.value, err)
		}
		in[end.name] = at.UTC().Format("2006-01-02T15:04:05.000Z")
	}
	return in, nil
}

// moment reads a time, or how long ago it was.
func moment(text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, fmt.Errorf("is neither how long ago, such as 90m, nor a time, such as 2026-01-31T09:00:00Z")
	}
	return at, nil
}

func (p *program) deliveriesList() *cobra.Command {
	var of deliveryChoice
	var limit int
	var asJSON bool
	c := p.deliveriesCommand(&cobra.Command{
		Use:   "list",
		Short: "List deliveries, the newest first",
		Example: `  parley deliveries list --dead
  parley deliveries list --status failed --since 1h --json`,
		Args: noArgs,
	}, &of, func(ctx context.Context, conn *connection, _ app.Config, _ []string) error {
		if limit < 0 {
			return usage("--limit %d is not a number of deliveries, 0 for all", limit)
		}
		in, err := of.given(time.Now())
		if err != nil {
			return err
		}
		list, more, err := conn.deliveries(ctx, in, limit)
		if err != nil {
			return err
		}
		if asJSON {
			return p.writeJSON(list)
		}
		return p.printDeliveries(list, more)
	})
	of.filters(c, "pending, processed, failed or ignored")
	c.Flags().IntVar(&limit, "limit", 50, "how many to list at most, 0 for all")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// deliveries reads a list up to a limit, 0 for all of it, and reports whether there are more.
func (c *connection) deliveries(ctx context.Context, in map[string]any, limit int) (list []json.RawMessage, more bool, err error) {
	query := url.Values{}
	for name, value := range in {
		query.Set(name, fmt.Sprint(value))
	}
	list = []json.RawMessage{}
	for {
		var page struct {
			Deliveries []json.RawMessage `json:"deliveries"`
			Meta       struct {
				NextToken string `json:"nextToken"`
			} `json:"meta"`
		}
		if err := c.call(ctx, "GET", deliveriesPath+"?"+query.Encode(), nil, &page); err != nil {
			return nil, false, err
		}
		list = append(list, page.Deliveries...)
		if limit > 0 && len(list) > limit {
			return list[:limit], true, nil
		}
		if page.Meta.NextToken == "" {
			return list, false, nil
		}
		if limit > 0 && len(list) == limit {
			return list, true, nil
		}
		query.Set("nextToken", page.Meta.NextToken)
	}
}

// The table of deliveries is wide characters wide.
const (
	wide      = 100
	whatWidth = 21
	rowFormat = "%-30s  %-14s  %-11s  %-21s  %-9s  %s\n"
)

func (p *program) printDeliveries(list []json.RawMessage, more bool) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(p.err, "no deliveries")
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, rowFormat, "ID", "CREATED (UTC)", "TO", "WHAT", "STATUS", "TRIES")
	for _, text := range list {
		var d delivered
		if err := json.Unmarshal(text, &d); err != nil {
			return err
		}
		fmt.Fprintf(&b, rowFormat, d.ID, d.CreatedAt.UTC().Format("01-02 15:04:05"), d.Kind, shorten(d.what(), whatWidth), d.state(), strconv.Itoa(d.AttemptCount))
		if d.FailureReason != "" {
			fmt.Fprintln(&b, shorten("  "+d.FailureReason, wide))
		}
	}
	if _, err := io.WriteString(p.out, b.String()); err != nil || !more {
		return err
	}
	_, err := fmt.Fprintln(p.err, "There are more; --limit 0 lists all.")
	return err
}

// shorten makes one printable line of at most width characters.
func shorten(text string, width int) string {
	text = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		return r
	}, printable(text))
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:width-1]) + "…"
}

// shownDelivery is a delivery with all that is known of it.
type shownDelivery struct {
	delivered
	Request *struct {
		Method  string            `json:"method"`
		URL     string            `json:"url"`
		Headers map[string]string `json:"headers"`
		Body    json.RawMessage   `json:"body"`
	} `json:"request"`
	NoRequest string `json:"noRequest"`
	Attempts  []struct {
		Number     int       `json:"number"`
		StartedAt  time.Time `json:"startedAt"`
		DurationMs int64     `json:"durationMs"`
		Outcome    string    `json:"outcome"`
		Status     int       `json:"status"`
		Reason     string    `json:"reason"`
		Response   *struct {
			ContentType string `json:"contentType"`
			Body        string `json:"body"`
		} `json:"response"`
	} `json:"attempts"`
}

func (p *program) deliveriesShow() *cobra.Command {
	var of deliveryChoice
	var asJSON bool
	c := p.deliveriesCommand(&cobra.Command{
		Use:     "show ID",
		Short:   "Show a delivery with its request and its attempts",
		Example: "  parley deliveries show evt_01…",
		Args:    oneArg("delivery id"),
	}, &of, func(ctx context.Context, conn *connection, _ app.Config, args []string) error {
		var out struct {
			Delivery json.RawMessage `json:"delivery"`
		}
		if err := conn.call(ctx, "GET", deliveriesPath+"/"+url.PathEscape(args[0])+"?botId="+url.QueryEscape(of.botID), nil, &out); err != nil {
			return err
		}
		if asJSON {
			return p.writeJSON(out.Delivery)
		}
		var d shownDelivery
		if err := json.Unmarshal(out.Delivery, &d); err != nil {
			return err
		}
		_, err := io.WriteString(p.out, d.text())
		return err
	})
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// text is the delivery for people.
func (d *shownDelivery) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s is %s after %s\n\n", d.ID, d.state(), plural(d.AttemptCount, "attempt"))
	for _, line := range []struct{ name, value string }{
		{"reason", d.FailureReason},
		{"created", d.CreatedAt.Format(time.RFC3339)},
		{"to", strings.TrimSpace(d.Kind + " " + d.Integration)},
		{"operation", d.Operation},
		{"event", d.Type},
		{"conversation", d.Conversation},
		{"message", d.Message},
	} {
		if line.value != "" {
			fmt.Fprintf(&b, "  %-13s %s\n", line.name, printable(line.value))
		}
	}
	if d.Request == nil {
		fmt.Fprintf(&b, "\nThere would be nothing to send: %s\n", printable(d.NoRequest))
	} else {
		fmt.Fprintf(&b, "\n%s %s\n", d.Request.Method, printable(d.Request.URL))
		for _, name := range slices.Sorted(maps.Keys(d.Request.Headers)) {
			fmt.Fprintf(&b, "%s: %s\n", name, printable(d.Request.Headers[name]))
		}
		var body bytes.Buffer
		if json.Indent(&body, d.Request.Body, "", "  ") == nil {
			fmt.Fprintf(&b, "\n%s\n", printable(body.String()))
		}
	}
	for _, a := range d.Attempts {
		status := ""
		if a.Status != 0 {
			status = fmt.Sprintf(", status %d", a.Status)
		}
		fmt.Fprintf(&b, "\nattempt %d at %s: %s%s, in %d ms\n", a.Number, a.StartedAt.Format(time.RFC3339), a.Outcome, status, a.DurationMs)
		if a.Reason != "" {
			fmt.Fprintf(&b, "  %s\n", printable(a.Reason))
		}
		if a.Response != nil {
			fmt.Fprintf(&b, "  answered %s\n", strings.ReplaceAll(printable(strings.TrimSpace(a.Response.ContentType+"\n"+a.Response.Body)), "\n", "\n  "))
		}
	}
	return b.String()
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (p *program) deliveriesReplay() *cobra.Command {
	var of deliveryChoice
	var asJSON bool
	c := p.deliveriesCommand(&cobra.Command{
		Use:   "replay [ID…]",
		Short: "Deliver once more: some, a range, or all dead letters",
		Long: `Deliver once more, under the same ids and in the order they had: the deliveries
named, those of a range of time, or all dead letters. They go behind what waits
for the same conversation. What is pending is left as it is.

A server has to run: it is the one that delivers.`,
		Example: `  parley deliveries replay evt_01… evt_01…
  parley deliveries replay --dead
  parley deliveries replay --since 2026-01-31T09:00:00Z --until 2026-01-31T10:00:00Z --kind webhook`,
	}, &of, func(ctx context.Context, conn *connection, cfg app.Config, ids []string) error {
		in, err := of.given(time.Now())
		if err != nil {
			return err
		}
		switch {
		case len(ids) > 0 && len(in) > 1:
			return usage("name deliveries by their ids, or choose them with flags, not both")
		case len(ids) == 0 && !of.dead && of.since == "":
			return usage("say what to replay: ids, --dead, or --since with a time; see parley deliveries replay --help")
		case !conn.running:
			return fmt.Errorf("no server uses %s, and it takes one to deliver; start it with parley serve or parley dev", cfg.Data)
		}
		if of.since != "" && of.until == "" {
			in["before"] = time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
		}
		done, err := conn.replay(ctx, ids, in)
		if err != nil {
			return err
		}
		if asJSON {
			return p.writeJSON(done)
		}
		return p.printReplayed(done)
	})
	of.filters(c, "processed, failed or ignored")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// replayed is what came of a replay.
type replayed struct {
	Replayed int       `json:"replayed"`
	LeftOut  []leftOut `json:"leftOut"`
}

type leftOut struct {
	Reason string `json:"reason"`
	Count  int    `json:"count"`
}

// replay replays the deliveries named, or those of a request for many.
func (c *connection) replay(ctx context.Context, ids []string, in map[string]any) (replayed, error) {
	out := replayed{LeftOut: []leftOut{}}
	for i, one := range ids {
		path := deliveriesPath + "/" + url.PathEscape(one) + "/replay?botId=" + url.QueryEscape(fmt.Sprint(in["botId"]))
		if err := c.call(ctx, "POST", path, struct{}{}, nil); err != nil {
			return out, fmt.Errorf("%w; replayed before it: %d", err, i)
		}
		out.Replayed++
	}
	left := map[string]int{}
	for len(ids) == 0 {
		var some struct {
			replayed
			Meta struct {
				NextToken string `json:"nextToken"`
			} `json:"meta"`
		}
		if err := c.call(ctx, "POST", deliveriesPath+"/replay", in, &some); err != nil {
			return out, err
		}
		out.Replayed += some.Replayed
		for _, l := range some.LeftOut {
			left[l.Reason] += l.Count
		}
		if some.Meta.NextToken == "" {
			break
		}
		in["nextToken"] = some.Meta.NextToken
	}
	for _, reason := range slices.Sorted(maps.Keys(left)) {
		out.LeftOut = append(out.LeftOut, leftOut{reason, left[reason]})
	}
	return out, nil
}

func (p *program) printReplayed(done replayed) error {
	if _, err := fmt.Fprintf(p.out, "%d replayed\n", done.Replayed); err != nil {
		return err
	}
	for _, l := range done.LeftOut {
		if _, err := fmt.Fprintf(p.out, "%d left out: %s\n", l.Count, printable(l.Reason)); err != nil {
			return err
		}
	}
	return nil
}
