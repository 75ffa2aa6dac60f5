package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"parley/internal/sqldb"
)

// tags measures the first page of listConversations filtered by tags, beside the
// unfiltered one, over many conversations, on each kind of database.
type tags struct{ at []*tagged }

// tagged is a server over conversations with tags.
type tagged struct {
	p        *parley
	database string
	bot      http.Header
}

// A tagFilter is measured as the series of its name.
type tagFilter struct{ name, query, title string }

const unfiltered = "all"

// slowest is more than the slowest page takes.
const slowest = 300 * time.Millisecond

// Of the conversations each second is even and the rest are odd, one of a
// thousand is rare, and odd as well, the later half is late and the other early.
var tagFilters = []tagFilter{
	{unfiltered, "", "no filter"},
	{"one", "tags.one=x", "one row"},
	{"rare", "tags.rare=x", "0.1 %"},
	{"half", "tags.half=even", "50 %"},
	{"half and one", "tags.half=odd&tags.one=x", "50 % and one row: that row"},
	{"half and rare", "tags.half=odd&tags.rare=x", "50 % and 0.1 %: 0.1 %"},
	{"half without one", "tags.half=even&tags.one=x", "50 % and one row: none"},
	{"half and late", "tags.half=even&tags.age=late", "50 % and 50 %: 25 %"},
	{"early and late", "tags.age=early&tags.late=x", "50 % and 50 % apart: none"},
	{"half without rare", "tags.half=even&tags.rare=x", "50 % and 0.1 % among each other: none"},
	{"even and odd", "tags.half=even&tags.odd=x", "50 % and 50 % row by row: none"},
	{"half, updated", "tags.half=even&sortField=updatedAt", "50 %, by updatedAt"},
	{"rare, updated", "tags.rare=x&sortField=updatedAt", "0.1 %, by updatedAt"},
	{"one, updated", "tags.one=x&sortField=updatedAt", "one row, by updatedAt"},
}

func (s *tags) prepare(ctx context.Context, b *bench) error {
	if err := s.add(ctx, b, "SQLite", ""); err != nil {
		return err
	}
	url, stop, err := postgres(ctx, false)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: tags without PostgreSQL:", err)
		return nil
	}
	b.later(stop)
	return s.add(ctx, b, "PostgreSQL", url)
}

// add starts a server whose bot has the conversations.
func (s *tags) add(ctx context.Context, b *bench, database, url string) error {
	p, err := b.startOn(ctx, "tags-"+strings.ToLower(database), url)
	if err != nil {
		return err
	}
	definition := map[string]any{}
	for _, key := range []string{"one", "rare", "half", "odd", "age", "late"} {
		definition[key] = struct{}{}
	}
	var made struct{ Bot struct{ ID string } }
	if err := p.call(ctx, "POST", "/v1/admin/bots", p.person(), map[string]any{"name": "bench", "conversation": map[string]any{"tags": definition}}, &made); err != nil {
		return err
	}
	if err := p.end(); err != nil {
		return err
	}
	if err := p.open(ctx, func(db *sqldb.DB) error { return seedConversations(ctx, db, made.Bot.ID, b.conversations) }); err != nil {
		return err
	}
	if _, err := p.run(ctx); err != nil {
		return err
	}
	bot := (&bot{p: p, id: made.Bot.ID}).asBot()
	s.at = append(s.at, &tagged{p, database, bot})
	return nil
}

// seedConversations writes n conversations past the server, which takes the
// time of a few thousand writes through it.
func seedConversations(ctx context.Context, db *sqldb.DB, botID string, n int) error {
	const chunk = 10_000
	for from := 0; from < n; from += chunk {
		numbers := fmt.Sprintf("WITH RECURSIVE n (i) AS (SELECT CAST(%d AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < %d) ", from, min(from+chunk, n)-1)
		err := db.Write(ctx, func(tx *sqldb.Tx) error {
			// The order of updates is another than that of creation.
			_, err := tx.Exec(`INSERT INTO conversations (id, bot_id, installation_id, channel, tags, created_at, updated_at) `+numbers+`
				SELECT `+seededID+`, $1, '', 'channel', '{"":{"half":"odd"}}', `+seededAt+`, 1800000000000 + (i * 7919) % 1000003 FROM n`, botID)
			for _, t := range []struct{ key, value, where string }{
				{"half", "'even'", "i % 2 = 0"}, {"half", "'odd'", "i % 2 = 1"}, {"odd", "'x'", "i % 2 = 1"},
				{"rare", "'x'", "i % 1000 = 501"}, {"one", "'x'", fmt.Sprintf("i = %d", n/4*2+1)},
				{"age", "'early'", fmt.Sprintf("i < %d", n/2)}, {"age", "'late'", fmt.Sprintf("i >= %d", n/2)}, {"late", "'x'", fmt.Sprintf("i >= %d", n/2)},
			} {
				if err != nil {
					return err
				}
				_, err = tx.Exec(`INSERT INTO tags (bot_id, kind, owner, key, value, created_at, entity) `+numbers+`
					SELECT $1, 'conversation', '', '`+t.key+`', `+t.value+`, `+seededAt+`, `+seededID+` FROM n WHERE `+t.where, botID)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	// As the database does by itself after a while.
	return db.Write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec("ANALYZE")
		return err
	})
}

// The id and the creation of the i-th conversation that is seeded.
const (
	seededID = "'conv_' || CAST(1000000000 + i AS TEXT)"
	seededAt = "1700000000000 + i * 10"
)

func (s *tags) round(ctx context.Context, b *bench) error {
	for _, at := range s.at {
		for _, f := range tagFilters {
			request := format("GET", "/v1/chat/conversations?"+f.query, at.p.addr, at.bot, "")
			got, err := requests(ctx, at.p.addr, 1, http.StatusOK, max(b.step/4, slowest), func(int, int) []byte { return request })
			if err != nil {
				return fmt.Errorf("%s on %s: %w", f.title, at.database, err)
			}
			b.results.add(at.database+" "+f.name, got)
		}
	}
	return nil
}

func (s *tags) finish(context.Context, *bench) error {
	var errs []error
	for _, at := range s.at {
		errs = append(errs, at.p.end())
	}
	return errors.Join(errs...)
}

// tagTarget is the target of the issue for a filter.
func tagTarget(database, filter string) target {
	series, floor := database+" "+filter, database+" "+unfiltered
	title := tagFilters[slices.IndexFunc(tagFilters, func(f tagFilter) bool { return f.name == filter })].title
	return target{"first page by tags on " + database + ", " + title + ", of the unfiltered page", []string{series, floor},
		func(r *results) float64 { return r.ratio(series, floor, p50) }, 2, true, "×", 2}
}

func (b *bench) tagTable(w *strings.Builder) {
	r := &b.results
	for i, database := range []string{"SQLite", "PostgreSQL"} {
		if !r.has(database + " " + unfiltered) {
			continue
		}
		if i == 0 {
			fmt.Fprintf(w, "\n## Tag filters\n\nThe first page of `listConversations` over %d conversations of one bot, at 1 connection, beside the first page without a filter. ", b.conversations)
			w.WriteString("Two tags that no conversation has both of have no index that says so: the server looks through the rarer one, at most 20,000 entries in a request, and then answers a `nextToken` with what it has.\n")
		}
		fmt.Fprintf(w, "\n| %s: conversations that match | p50, of the unfiltered page | pages/s | p50 ms | p99 ms |\n|---|--:|--:|--:|--:|\n", database)
		for _, f := range tagFilters {
			s := database + " " + f.name
			fmt.Fprintf(w, "| %s | %.2f | %s |\n", f.title, r.ratio(s, database+" "+unfiltered, p50), r.figures(s))
		}
	}
}
