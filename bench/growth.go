package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"parley/internal/page"
	"parley/internal/sqldb"
)

var engines = []string{onSQLite, onPostgres}

// floorOf is the least that stores a message durably on each.
var floorOf = map[string]string{onSQLite: "commit", onPostgres: "insert"}

// sizes are those that are measured on the way to the largest.
func sizes(smallest, largest int) []int {
	var all []int
	for _, n := range []int{1, 1_000, 100_000, 1_000_000} {
		if n >= smallest && n < largest {
			all = append(all, n)
		}
	}
	return append(all, largest)
}

// analysed brings the statistics up to date, as the database does by itself after
// a while, and leaves PostgreSQL nothing to do about what was filled in.
func analysed(ctx context.Context, p *parley) error {
	if p.database != "" {
		return errors.Join(execute(ctx, p.database, "VACUUM ANALYZE"), execute(ctx, p.database, "CHECKPOINT"))
	}
	return p.open(ctx, func(db *sqldb.DB) error {
		return db.Write(ctx, func(tx *sqldb.Tx) error {
			_, err := tx.Exec("ANALYZE")
			return err
		})
	})
}

// grow fills the database of a server past it, and has it run again.
func grow(ctx context.Context, p *parley, fill func(db *sqldb.DB) error) error {
	if err := p.end(); err != nil {
		return err
	}
	if err := p.open(ctx, fill); err != nil {
		return err
	}
	if err := analysed(ctx, p); err != nil {
		return err
	}
	_, err := p.run(ctx)
	return err
}

// manyConversations measures messages in a database of more and more
// conversations, each in another one, beside those of a server with few.
type manyConversations struct{}

func (manyConversations) prepare(context.Context, *bench) error { return nil }
func (manyConversations) round(context.Context, *bench) error   { return nil }

func (s manyConversations) finish(ctx context.Context, b *bench) error {
	for _, engine := range engines {
		if err := s.on(ctx, b, engine); err != nil {
			return fmt.Errorf("on %s: %w", engine, err)
		}
	}
	return nil
}

func (manyConversations) on(ctx context.Context, b *bench, engine string) error {
	few, err := b.at(ctx, engine, "few")
	if err != nil {
		return err
	}
	hears, err := newSilent(ctx, b, few)
	if err != nil {
		return err
	}
	hot, err := messages(ctx, hears.self)
	if err != nil {
		return err
	}
	p, err := b.at(ctx, engine, "many")
	if err != nil {
		return err
	}
	t, err := newPattern(ctx, b, p)
	if err != nil {
		return err
	}
	filled := 0
	for _, size := range sizes(1, b.largest) {
		fmt.Fprintf(os.Stderr, "%s: %s\n", engine, counted(size, "conversation"))
		if err := grow(ctx, p, func(db *sqldb.DB) error { return t.conversations(ctx, db, filled, size) }); err != nil {
			return fmt.Errorf("fill up to %d: %w", size, err)
		}
		filled = size
		// A server that has just been started makes connections and plans first.
		if err := b.tell(ctx, t.hears, 16, "beginning", t.anywhere(size)); err != nil {
			return err
		}
		for range b.rounds {
			for _, n := range []int{1, 16} {
				if err := b.measureFloor(ctx, floorOf[engine], n, floorSeries(engine, size, n)); err != nil {
					return err
				}
				if err := b.tell(ctx, hears, n, fewSeries(engine, size, n), rotate(hot, n)); err != nil {
					return err
				}
				if err := b.tell(ctx, t.hears, n, manySeries(engine, size, n), t.anywhere(size)); err != nil {
					return err
				}
			}
		}
	}
	return errors.Join(few.end(), p.end())
}

// tell measures messages for a bot that takes their events, until it has all of them.
func (b *bench) tell(ctx context.Context, to *replier, n int, series string, pick func(w, i int) []byte) error {
	p := to.self.p
	got, err := metered(b.watch(p), func() (sample, error) {
		return to.taken(ctx, pick, func(pick func(w, i int) []byte) (sample, error) {
			return requests(ctx, p.addr, n, http.StatusCreated, b.step, pick)
		})
	})
	b.results.add(series, got)
	return err
}

// The server with few conversations and the floor are measured anew beside each size.
func fewSeries(engine string, size, n int) string {
	return fmt.Sprintf("%s few beside %d/%d", engine, size, n)
}

func floorSeries(engine string, size, n int) string {
	return fmt.Sprintf("%s floor beside %d/%d", engine, size, n)
}

func manySeries(engine string, size, n int) string {
	return fmt.Sprintf("%s of %d/%d", engine, size, n)
}

// anywhere is a message in a conversation far from the one before.
func (t *pattern) anywhere(size int) func(w, i int) []byte {
	const stride = 7_919 // a prime: conversations repeat only when all have had their turn
	return func(int, int) []byte {
		at := int(t.next.Add(1)) * stride % size
		return format("POST", "/v1/chat/messages", t.bot.p.addr, t.bot.asIntegration(), body(copiedID("user", at), copiedID("conv", at)))
	}
}

func (b *bench) conversationTable(w *strings.Builder) {
	r := &b.results
	if !r.has(manySeries(onSQLite, 1, 1)) {
		return
	}
	fmt.Fprintf(w, "\n## Many conversations\n\n`createMessage` where each message is for another conversation than the last, in a database that holds more and more of them, beside a server with %d, at which they are used in turn; each with its event, which a bot takes without a reply. ", conversations)
	w.WriteString("With one conversation 16 connections wait for each other: its messages are numbered. The conversations are copies, made by SQL past the server while it is down, of one that was made through it: with a user, a participant, tags, two messages, an event and a lane each. Then the statistics are brought up to date, the server starts, and a first step is not counted.\n\n")
	w.WriteString("| database | conversations | connections | p50, of few | CPU of the server, of few | CPU of PostgreSQL, of few | per second, of the floor | CPU µs: server | PostgreSQL | per second | p50 ms | p99 ms |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, engine := range engines {
		for _, size := range sizes(1, b.largest) {
			for _, n := range []int{1, 16} {
				s, few := manySeries(engine, size, n), fewSeries(engine, size, n)
				fmt.Fprintf(w, "| %s | %d | %d | %.2f | %.2f | %s | %.2f | %s | %s | %s |\n", engine, size, n, r.ratio(s, few, p50), r.ratio(s, few, nodesCost), r.ratioText(s, few, databaseCost),
					r.ratio(s, floorSeries(engine, size, n), rate), r.micros(s, nodesCost), r.micros(s, databaseCost), r.figures(s))
			}
		}
	}
}

// longConversation measures one conversation of more and more messages: writing
// to it beside writing to short ones, and reading its pages.
type longConversation struct{}

func (longConversation) prepare(context.Context, *bench) error { return nil }
func (longConversation) round(context.Context, *bench) error   { return nil }

func (s longConversation) finish(ctx context.Context, b *bench) error {
	for _, engine := range engines {
		if err := s.on(ctx, b, engine); err != nil {
			return fmt.Errorf("on %s: %w", engine, err)
		}
	}
	return nil
}

// pagesOf are the pages that are measured, by how many of the others come before them.
var pagesOf = []string{"newest", "middle", "deepest"}

func (longConversation) on(ctx context.Context, b *bench, engine string) error {
	p, err := b.at(ctx, engine, "long")
	if err != nil {
		return err
	}
	t, err := newPattern(ctx, b, p)
	if err != nil {
		return err
	}
	short, err := messages(ctx, t.bot)
	if err != nil {
		return err
	}
	long := format("POST", "/v1/chat/messages", p.addr, t.bot.asIntegration(), body(t.guest.user, t.guest.conversation))
	filled, said := 0, 2 // the pattern's own
	for _, size := range sizes(fewestMessages, b.largest) {
		fmt.Fprintf(os.Stderr, "%s: a conversation of %s\n", engine, counted(size, "message"))
		if err := grow(ctx, p, func(db *sqldb.DB) error { return t.messages(ctx, db, filled, size) }); err != nil {
			return fmt.Errorf("fill up to %d: %w", size, err)
		}
		filled = size
		at, err := t.walk(ctx, filled+said)
		if err != nil {
			return err
		}
		if err := b.tell(ctx, t.hears, 1, "beginning", rotate(short, 1)); err != nil {
			return err
		}
		for range b.rounds {
			read, err := inTurn(ctx, b.step, p.addr, at)
			if err != nil {
				return err
			}
			for i, got := range read {
				b.results.add(longSeries(engine, size, pagesOf[i]), got)
			}
			if err := b.tell(ctx, t.hears, 1, longSeries(engine, size, "short"), rotate(short, 1)); err != nil {
				return err
			}
			if err := b.tell(ctx, t.hears, 1, longSeries(engine, size, "long"), func(int, int) []byte { said++; return long }); err != nil {
				return err
			}
		}
	}
	return p.end()
}

// inTurn measures requests one after the other over one connection, so that what
// the machine does meanwhile is the same for all.
func inTurn(ctx context.Context, step time.Duration, addr string, each [][]byte) ([]sample, error) {
	c, err := dial(addr)
	if err != nil {
		return nil, err
	}
	defer c.close()
	took := make([][]time.Duration, len(each))
	begin := time.Now().Add(warm(step))
	for end := begin.Add(step * time.Duration(len(each))); time.Now().Before(end) && ctx.Err() == nil; {
		for i, request := range each {
			start := time.Now()
			if _, err := c.expect(http.StatusOK, request); err != nil {
				return nil, err
			}
			if start.After(begin) {
				took[i] = append(took[i], time.Since(start))
			}
		}
	}
	out := make([]sample, len(each))
	for i := range out {
		out[i] = summarise(took[i], step)
	}
	return out, ctx.Err()
}

// fewestMessages is the least that makes a conversation long.
const fewestMessages = 1_000

func longSeries(engine string, size int, what string) string {
	return fmt.Sprintf("%s %s of %d", engine, what, size)
}

// walk reads the whole conversation, page after page, as a client does, and
// returns the requests for its newest page, the one in the middle and the last
// full one. A message that is missing or comes out of order is an error.
func (t *pattern) walk(ctx context.Context, messages int) ([][]byte, error) {
	c, err := dial(t.bot.p.addr)
	if err != nil {
		return nil, err
	}
	defer c.close()
	var full [][]byte
	seen, last, token := 0, "", ""
	for ctx.Err() == nil {
		request := format("GET", "/v1/chat/messages?conversationId="+t.guest.conversation+token, t.bot.p.addr, t.bot.asBot(), "")
		text, err := c.expect(http.StatusOK, request)
		if err != nil {
			return nil, err
		}
		var got struct {
			Messages []struct{ ID string }
			Meta     struct{ NextToken string }
		}
		if err := json.Unmarshal(text, &got); err != nil {
			return nil, err
		}
		for _, m := range got.Messages {
			if seen > 0 && m.ID >= last {
				return nil, fmt.Errorf("message %s comes after %s", m.ID, last)
			}
			last = m.ID
			seen++
		}
		if len(got.Messages) == page.Size {
			full = append(full, request)
		}
		if got.Meta.NextToken == "" {
			if seen != messages {
				return nil, fmt.Errorf("the pages held %d messages of %d", seen, messages)
			}
			return [][]byte{full[0], full[len(full)/2], full[len(full)-1]}, nil
		}
		token = "&nextToken=" + url.QueryEscape(got.Meta.NextToken)
	}
	return nil, ctx.Err()
}

func (b *bench) longTable(w *strings.Builder) {
	r := &b.results
	all := sizes(fewestMessages, b.largest)
	if !r.has(longSeries(onSQLite, all[0], "long")) {
		return
	}
	fmt.Fprintf(w, "\n## A long conversation\n\nOne conversation that grows, at 1 connection: `createMessage` in it beside %d short ones of the same bot, which takes the events without a reply, and the pages of `listMessages`, %d messages each, asked for in turn. ", conversations, page.Size)
	w.WriteString("The deepest is the last full one; the way to it was walked page by page, and each message was there once, in order. The messages are copies, made by SQL past the server while it is down, with an event for each of the guest's.\n\n")
	w.WriteString("| database | messages | create: p50, of short ones | CPU of the server | of PostgreSQL | middle page: p50, of the newest | deepest page | create: p50 ms | p99 ms | newest page: p50 ms | p99 ms | deepest: p50 ms | p99 ms |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, engine := range engines {
		for _, size := range all {
			long, short, newest, deepest := longSeries(engine, size, "long"), longSeries(engine, size, "short"), longSeries(engine, size, "newest"), longSeries(engine, size, "deepest")
			fmt.Fprintf(w, "| %s | %d | %.2f | %.2f | %s | %.2f | %.2f | %s | %s | %s |\n", engine, size, r.ratio(long, short, p50), r.ratio(long, short, nodesCost), r.ratioText(long, short, databaseCost),
				r.ratio(longSeries(engine, size, "middle"), newest, p50), r.ratio(deepest, newest, p50), r.latencies(long), r.latencies(newest), r.latencies(deepest))
		}
	}
}

// pageTargets are that of the issue, for the longest conversation of each database.
func (b *bench) pageTargets() []target {
	var all []target
	for _, engine := range engines {
		deepest, newest := longSeries(engine, b.largest, "deepest"), longSeries(engine, b.largest, "newest")
		all = append(all, target{fmt.Sprintf("deepest page of a conversation of %d messages on %s, of the newest", b.largest, engine), []string{deepest, newest},
			func(r *results) float64 { return r.ratio(deepest, newest, p50) }, 1.2, true, "×", 2})
	}
	return all
}
