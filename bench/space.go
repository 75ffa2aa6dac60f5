package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"parley/internal/sqldb"
)

// space measures what conversations and turns take on the disk: the tables with
// their indexes after many of them, and what is written on the way.
type space struct{}

func (space) prepare(context.Context, *bench) error { return nil }
func (space) round(context.Context, *bench) error   { return nil }

// spaceResult is of one database, in bytes.
type spaceResult struct {
	turns                 int
	rows                  map[string]float64 // of one of each kind, with its indexes
	written, log, commits float64            // by a turn, of many at once
	commitsAlone          float64            // by a turn that nothing else goes on beside
}

// kinds say which tables grow with what. A key is an Idempotency-Key; an attempt
// is an entry of the log of deliveries.
var kinds = []struct {
	name   string
	tables []string
}{
	{"conversation", []string{"users", "conversations", "conversation_heads", "participants", "tags", "lanes"}},
	{"message", []string{"messages"}},
	{"event", []string{"events"}},
	{"attempt", []string{"attempts"}},
	{"key", []string{"idempotency"}},
}

// turnsEach is how many turns each guest has.
const turnsEach = 10

func (s space) finish(ctx context.Context, b *bench) error {
	b.results.space = map[string]*spaceResult{}
	for _, engine := range engines {
		got, err := s.on(ctx, b, engine)
		if err != nil {
			return fmt.Errorf("on %s: %w", engine, err)
		}
		b.results.space[engine] = got
	}
	return nil
}

func (s space) on(ctx context.Context, b *bench, engine string) (*spaceResult, error) {
	p, err := b.at(ctx, engine, "space")
	if err != nil {
		return nil, err
	}
	r, err := newReplier(b)
	if err != nil {
		return nil, err
	}
	if r.self, err = p.newBot(ctx, r.address); err != nil {
		return nil, err
	}
	empty, err := tableSizes(ctx, p)
	if err != nil {
		return nil, err
	}
	guests, err := manyGuests(ctx, r.self, max(b.turns/turnsEach, 40))
	if err != nil {
		return nil, err
	}
	all := len(guests) * turnsEach
	out := &spaceResult{turns: all, rows: map[string]float64{}}
	alone, keyed, rest := guests[:len(guests)/20], guests[len(guests)/20:len(guests)/4], guests[len(guests)/4:]
	if out.commitsAlone, err = converse(ctx, r.self, alone, 1, false); err != nil {
		return nil, err
	}
	if _, err = converse(ctx, r.self, keyed, talking, true); err != nil {
		return nil, err
	}
	before, err := b.traffic(ctx, p)
	if err != nil {
		return nil, err
	}
	if out.commits, err = converse(ctx, r.self, rest, talking, false); err != nil {
		return nil, err
	}
	after, err := b.traffic(ctx, p)
	if err != nil {
		return nil, err
	}
	turns := float64(len(rest) * turnsEach)
	out.written, out.log = float64(after.written-before.written)/turns, float64(after.log-before.log)/turns
	full, err := tableSizes(ctx, p)
	if err != nil {
		return nil, err
	}
	count := map[string]int{"conversation": len(guests), "message": 2 * all, "event": all, "attempt": all, "key": len(keyed) * turnsEach}
	for _, kind := range kinds {
		for _, table := range kind.tables {
			out.rows[kind.name] += float64(full[table]-empty[table]) / float64(count[kind.name])
		}
	}
	return out, p.end()
}

// converse lets guests have their turns, some at a time, and tells how many
// commits a turn has taken.
func converse(ctx context.Context, of *bot, guests []guest, workers int, keys bool) (float64, error) {
	const commits = "parley_db_commits_total"
	before, err := of.p.metric(ctx, commits)
	if err != nil {
		return 0, err
	}
	err = each(workers, func(w int) error {
		c, err := dial(of.p.addr)
		if err != nil {
			return err
		}
		for i := w; i < len(guests) && err == nil; i += workers {
			err = errors.Join(talk(of, c, guests[i], keys), ctx.Err())
		}
		return errors.Join(err, c.close())
	})
	if err != nil {
		return 0, err
	}
	after, err := of.p.metric(ctx, commits)
	return (after - before) / float64(len(guests)*turnsEach), err
}

// talk is a guest who listens, and says the next thing when the bot has answered.
func talk(of *bot, c *conn, g guest, keys bool) error {
	stream, err := of.listen(g)
	if err != nil {
		return err
	}
	for i := range turnsEach {
		header := http.Header{}
		if keys {
			header.Set("Idempotency-Key", fmt.Sprintf("%s-%d", g.conversation, i))
		}
		if _, err = c.expect(http.StatusCreated, of.sayWith(header, g, spoken)); err != nil {
			break
		}
		if err = stream.answer(); err != nil {
			break
		}
	}
	return errors.Join(err, stream.close())
}

// traffic is what has gone to the disk for a server.
type traffic struct{ written, log int64 }

func (b *bench) traffic(ctx context.Context, p *parley) (t traffic, err error) {
	if p.database == "" {
		t.written, err = written(p.cmd.Process.Pid)
		return t, err
	}
	if err := execute(ctx, p.database, "CHECKPOINT"); err != nil {
		return t, err
	}
	if t.written, err = writtenByFamily(b.pg.pid); err != nil {
		return t, err
	}
	t.log, err = scalar(ctx, p.database, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint")
	return t, err
}

// tableSizes are the bytes of each table and its indexes, read while the server is down.
func tableSizes(ctx context.Context, p *parley) (map[string]int64, error) {
	if err := p.end(); err != nil {
		return nil, err
	}
	text := "SELECT s.tbl_name, sum(d.pgsize) FROM dbstat d JOIN sqlite_schema s ON s.name = d.name GROUP BY s.tbl_name"
	if p.database != "" {
		text = "SELECT relname, pg_total_relation_size(oid) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
	}
	sizes := map[string]int64{}
	err := p.open(ctx, func(db *sqldb.DB) error {
		rows, err := db.Reader(ctx).Query(text)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var table string
			var size int64
			if err := rows.Scan(&table, &size); err != nil {
				return err
			}
			sizes[table] = size
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	_, err = p.run(ctx)
	return sizes, err
}

func (b *bench) spaceTable(w *strings.Builder) {
	if b.results.space == nil {
		return
	}
	lite, pg := b.results.space[onSQLite], b.results.space[onPostgres]
	fmt.Fprintf(w, "\n## Space\n\n%d turns, %d in each of the new conversations, %d at a time: texts of %d characters, answers of about as many. Bytes of tables with their indexes, and with the room in them that PostgreSQL will use again.\n\n", lite.turns, turnsEach, talking, len(spoken))
	w.WriteString("| bytes | SQLite | PostgreSQL |\n|---|--:|--:|\n")
	titles := map[string]string{
		"conversation": "a conversation with its user", "message": "a message", "event": "an event, which tells the bot of a message",
		"attempt": "an entry of the log of deliveries, kept for `--delivery-log`", "key": "an `Idempotency-Key`, kept for a day",
	}
	for _, kind := range kinds {
		fmt.Fprintf(w, "| %s | %.0f | %.0f |\n", titles[kind.name], lite.rows[kind.name], pg.rows[kind.name])
	}
	fmt.Fprintf(w, "| given to the disk by a turn | %.0f | %.0f |\n| of that the log of PostgreSQL (WAL), from a checkpoint on | | %.0f |\n", lite.written, pg.written, pg.log)
	fmt.Fprintf(w, "\nA turn takes %.1f commits on SQLite and %.1f on PostgreSQL when nothing else goes on, %.1f and %.1f where %d go on at a time; each commit waits for the disk, those that come together for one sync.\n",
		lite.commitsAlone, pg.commitsAlone, lite.commits, pg.commits, talking)
}
