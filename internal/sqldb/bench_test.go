//go:build unix

package sqldb_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"parley/internal/id"
	"parley/internal/schema"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

func benchDB(b *testing.B, url string) *sqldb.DB {
	b.Helper()
	db, err := sqldb.Open(context.Background(), sqldb.Options{URL: url})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	if err := db.Migrate(context.Background(), schema.FS, sqldb.MigrateOptions{}); err != nil {
		b.Fatal(err)
	}
	return db
}

// BenchmarkWrite measures durable writes per second: one small row, and the
// five statements of a message.
func BenchmarkWrite(b *testing.B) {
	for _, engine := range []string{"sqlite", "postgres"} {
		for name, fn := range map[string]func(*testing.B, *sqldb.DB) func(int) error{"row": smallRow, "message": message} {
			for _, waiters := range []int{1, 16, 64, 256} {
				b.Run(fmt.Sprintf("%s/%s/%d", engine, name, waiters), func(b *testing.B) {
					url := "sqlite://" + b.TempDir() + "/x.db"
					if engine == "postgres" {
						url = sqldbtest.PostgresURL(b)
					}
					db := benchDB(b, url)
					write := fn(b, db)
					var n atomic.Int64
					b.SetParallelism(max(1, waiters/2))
					before, cpu := db.Stats(), cpuTime()
					b.ResetTimer()
					start := time.Now()
					b.RunParallel(func(pb *testing.PB) {
						w := int(n.Add(1))
						if w > waiters {
							return
						}
						for pb.Next() {
							if err := write(w); err != nil {
								b.Error(err)
								return
							}
						}
					})
					b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "writes/s")
					b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs/write")
					s := db.Stats()
					b.ReportMetric(float64((s.CommitTime-before.CommitTime).Microseconds())/float64(s.Batches-before.Batches), "µs/commit")
					b.ReportMetric(float64(b.N)/float64(s.Batches-before.Batches), "writes/commit")
				})
			}
		}
	}
}

type benchMessage struct {
	ID, BotID, ConversationID, UserID, Type, Payload, Tags string
	Seq, CreatedAt                                         int64
}

func (m *benchMessage) Columns() []sqldb.Column {
	return []sqldb.Column{{"id", &m.ID}, {"bot_id", &m.BotID}, {"conversation_id", &m.ConversationID}, {"user_id", &m.UserID}, {"type", &m.Type},
		{"payload", &m.Payload}, {"tags", &m.Tags}, {"seq", &m.Seq}, {"created_at", &m.CreatedAt}}
}

// BenchmarkRead measures a row by its key and a page of fifty by an index, alone
// and beside a writer.
func BenchmarkRead(b *testing.B) {
	for _, engine := range []string{"sqlite", "postgres"} {
		url := "sqlite://" + b.TempDir() + "/x.db"
		if engine == "postgres" {
			url = sqldbtest.PostgresURL(b)
		}
		db := benchDB(b, url)
		write := message(b, db)
		var wg sync.WaitGroup
		for w := range 64 {
			wg.Go(func() {
				for range 1000 {
					if err := write(w); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		all, err := sqldb.Select[benchMessage](db.Reader(b.Context()), "messages", "ORDER BY id LIMIT 1000")
		if err != nil {
			b.Fatal(err)
		}
		var n atomic.Int64
		one := func(ctx context.Context) error {
			m := all[int(n.Add(7919))%len(all)]
			_, err := sqldb.One[benchMessage](db.Reader(ctx), "messages", "WHERE bot_id = $1 AND id = $2", m.BotID, m.ID)
			return err
		}
		page := func(ctx context.Context) error {
			m := all[int(n.Add(7919))%len(all)]
			_, err := sqldb.Select[benchMessage](db.Reader(ctx), "messages", "WHERE conversation_id = $1 ORDER BY created_at DESC, id DESC LIMIT 50", m.ConversationID)
			return err
		}
		for name, read := range map[string]func(context.Context) error{"one": one, "page": page} {
			for _, beside := range []string{"alone", "writer"} {
				b.Run(engine+"/"+name+"/"+beside, func(b *testing.B) {
					stop := make(chan struct{})
					var wg sync.WaitGroup
					if beside == "writer" {
						wg.Go(func() {
							for {
								select {
								case <-stop:
									return
								default:
									_ = write(0) // only there to be in the way
								}
							}
						})
					}
					ctx, cancel := context.WithCancel(context.Background())
					defer cancel()
					b.SetParallelism(4)
					b.ReportAllocs()
					cpu := cpuTime()
					b.ResetTimer()
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							if err := read(ctx); err != nil {
								b.Error(err)
								return
							}
						}
					})
					b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs/read")
					close(stop)
					wg.Wait()
				})
			}
		}
	}
}

// cpuTime is steadier than the clock on a machine that does other things too.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail with these arguments
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func smallRow(b *testing.B, db *sqldb.DB) func(int) error {
	return func(int) error {
		key := id.New("tomb")
		return db.Write(b.Context(), func(tx *sqldb.Tx) error {
			_, err := tx.Exec("INSERT INTO tombstones (kind, id, bot_id, created_at) VALUES ($1, $2, $3, $4)", "user", key, "bot_1", int64(1700000000000))
			return err
		})
	}
}

const benchPayload = `{"type":"text","text":"hello, this is message text of a usual length, neither short nor long"}`

// message writes what createMessage writes, to one of 1,000 conversations.
func message(b *testing.B, db *sqldb.DB) func(int) error {
	var convs []string
	bot, user := id.New("bot"), id.New("user")
	for range 1000 {
		convs = append(convs, id.New("conv"))
	}
	for i := 0; i < len(convs); i += 100 {
		err := db.Write(b.Context(), func(tx *sqldb.Tx) error {
			for _, c := range convs[i : i+100] {
				if _, err := tx.Exec("INSERT INTO conversation_heads (conversation_id, bot_id, installation_id, message_seq, signal_pos, last_at) VALUES ($1, $2, '', 0, 0, 0)", c, bot); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	var n atomic.Int64
	return func(int) error {
		conv := convs[int(n.Add(1)*7919)%len(convs)]
		msg, event, now := id.New("msg"), id.New("evt"), time.Now().UnixMilli()
		return db.Write(b.Context(), func(tx *sqldb.Tx) error {
			var seq, pos, at int64
			if err := one(tx, []any{&seq, &pos, &at}, `UPDATE conversation_heads SET message_seq = message_seq + 1, signal_pos = signal_pos + 1,
				last_at = CASE WHEN last_at >= $2 THEN last_at + 1 ELSE $2 END WHERE conversation_id = $1 AND bot_id = $3 RETURNING message_seq, signal_pos, last_at`, conv, now, bot); err != nil {
				return err
			}
			if _, err := tx.Exec(`INSERT INTO participants (conversation_id, user_id, bot_id, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`, conv, user, bot, at); err != nil {
				return err
			}
			if _, err := tx.Exec(`INSERT INTO messages (id, bot_id, installation_id, conversation_id, user_id, direction, type, payload, tags, origin, seq, signal_pos, created_at, updated_at)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`,
				msg, bot, "", conv, user, "incoming", "text", benchPayload, "{}", "", seq, pos, at, at); err != nil {
				return err
			}
			var laneSeq int64
			lane := "bot:" + bot + ":conv:" + conv
			if err := one(tx, []any{&laneSeq}, `INSERT INTO lanes (key, endpoint, seq, done, ephemeral, due, lease_until, owner) VALUES ($1, $2, 1, 0, FALSE, $3, 0, '')
				ON CONFLICT (key) DO UPDATE SET seq = lanes.seq + 1, due = CASE WHEN lanes.due > excluded.due THEN excluded.due ELSE lanes.due END RETURNING seq`, lane, "bot:"+bot, now); err != nil {
				return err
			}
			_, err := tx.Exec(`INSERT INTO events (id, bot_id, installation_id, type, payload, conversation_id, user_id, message_id, workflow_id, status, failure_reason, lane, lane_seq, attempts, created_at)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`,
				event, bot, "", "message_created", "", conv, user, msg, "", "pending", "", lane, laneSeq, int64(0), at)
			return err
		})
	}
}

func one(q sqldb.Q, dest []any, query string, args ...any) error {
	rows, err := q.Query(query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	if !rows.Next() {
		return sqldb.ErrNoRow
	}
	return rows.Scan(dest...)
}
