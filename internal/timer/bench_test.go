package timer

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"parley/internal/schema"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

var engines = []struct {
	name string
	url  func(testing.TB) string
}{{"sqlite", sqldbtest.SQLiteURL}, {"postgres", sqldbtest.PostgresURL}}

func benchWorld(b *testing.B, url func(testing.TB) string) *world {
	db := sqldbtest.Open(b, url(b))
	if err := db.Migrate(b.Context(), schema.FS, sqldb.MigrateOptions{}); err != nil {
		b.Fatal(err)
	}
	return newWorld(b, db)
}

// BenchmarkTick is one look for timers while none is due, over queues of
// different lengths.
func BenchmarkTick(b *testing.B) {
	for _, on := range engines {
		for _, waiting := range []int{100, 1_000_000} {
			b.Run(fmt.Sprintf("%s/waiting=%d", on.name, waiting), func(b *testing.B) {
				w := benchWorld(b, on.url)
				w.fill(time.Hour, time.Hour, waiting)
				e := w.engine(nil)
				for b.Loop() {
					if _, err := e.Due(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkCrowd fires 100,000 timers that are due within one second, and says
// how late they are.
func BenchmarkCrowd(b *testing.B) {
	const n = 100_000
	for _, on := range engines {
		b.Run(on.name, func(b *testing.B) {
			for b.Loop() {
				w := benchWorld(b, on.url)
				w.clock.step(time.Until(w.clock.now)*-1 + 2*time.Second)
				w.fill(0, time.Second, n)
				e := New(Config{DB: w.db})
				e.Handle("note", w.note)
				late := make([]time.Duration, n)
				w.run(e)
				for i := range late {
					t := <-w.fired
					late[i] = time.Since(time.UnixMilli(t.Due))
				}
				slices.Sort(late)
				b.ReportMetric(late[n/2].Seconds(), "s-late-p50")
				b.ReportMetric(late[n*99/100].Seconds(), "s-late-p99")
				if got := w.count("SELECT count(DISTINCT id) FROM fired"); got != n || len(w.log()) != n {
					b.Errorf("%d timers fired %d times, want each of %d once", got, len(w.log()), n)
				}
			}
		})
	}
}
