package messaging

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"parley/internal/schema"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

func isBench(t testing.TB) bool {
	_, is := t.(*testing.B)
	return is
}

// BenchmarkCreateMessage is one durable createMessage through the router, with
// its event, over 256 conversations. The bot is down, so that events stay pending.
func BenchmarkCreateMessage(b *testing.B) {
	for _, clients := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			db := sqldbtest.Open(b, sqldbtest.SQLiteURL(b))
			if err := db.Migrate(b.Context(), schema.FS, sqldb.MigrateOptions{}); err != nil {
				b.Fatal(err)
			}
			r := newRig(b, db)
			bodies := make([]string, 256)
			user := r.user(chatOfA, `{"fid":"u"}`)
			for i := range bodies {
				bodies[i] = messageBody(r.conversation(chatOfA, "channel", `{}`), user, "a message of the usual length, as people write them in a chat")
			}
			var next atomic.Int64
			b.SetParallelism(max(clients/2, 1)) // times GOMAXPROCS
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					req := httptest.NewRequest("POST", "/v1/chat/messages", strings.NewReader(bodies[next.Add(1)%256]))
					req.Header.Set("Content-Type", "application/json")
					req.Header.Set("X-Bot-Id", botA)
					req.Header.Set("X-Integration-Id", chatA)
					w := httptest.NewRecorder()
					r.server.ServeHTTP(w, req)
					if w.Code != 201 {
						b.Errorf("answered %d %s", w.Code, w.Body)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}
