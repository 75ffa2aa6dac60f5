package messaging

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/internal/sqldb"
)

const analyticsPath = "/v1/chat/analytics"

// counted is what stands in the table for one day.
func (r *rig) counted(who as, name string, day time.Time) int64 {
	r.Helper()
	n, err := column64(r.s.DB.Reader(r.Context()), "SELECT CAST(COALESCE(sum(count), 0) AS BIGINT) FROM analytics WHERE bot_id = $1 AND installation_id = $2 AND name = $3 AND day = $4",
		who.bot, who.installation, name, day.UTC().Truncate(24*time.Hour).UnixMilli())
	if err != nil {
		r.Fatal(err)
	}
	return n[0]
}

func TestCountsAddUpForEachBotNameAndDay(t *testing.T) {
	each(t, func(r *rig) {
		clock := time.Date(2026, 3, 1, 23, 59, 59, 999e6, time.UTC)
		r.s.Now = func() time.Time { return clock }
		track := func(who as, name string, count int) {
			r.Helper()
			if got := r.ok(who, "POST", analyticsPath, fmt.Sprintf(`{"name":%q,"count":%d}`, name, count), ""); len(got) != 0 {
				r.Errorf("trackAnalytics answers %v", got)
			}
		}
		track(botOfA, "signup", 1)
		track(botOfA, "signup", 41)
		track(botOfA, "🎉 done", 1_000_000_000)
		track(botOfB, "signup", 5)
		track(hookOfA, "signup", 6)
		first := clock
		clock = clock.Add(time.Millisecond)
		track(botOfA, "signup", 7)
		for _, c := range []struct {
			who  as
			name string
			day  time.Time
			want int64
		}{{botOfA, "signup", first, 42}, {botOfA, "🎉 done", first, 1_000_000_000}, {botOfB, "signup", first, 5}, {hookOfA, "signup", first, 6}, {botOfA, "signup", clock, 7}, {botOfB, "signup", clock, 0}} {
			if n := r.counted(c.who, c.name, c.day); n != c.want {
				r.Errorf("%v counted %d %s on %v, want %d", c.who, n, c.name, c.day, c.want)
			}
		}
		body := `{"name":"once","count":3}`
		for range 2 {
			if status, out := r.do(botOfA, "POST", analyticsPath, body, "Idempotency-Key", "k"); status != 200 {
				r.Errorf("with a key: %d %v", status, out)
			}
		}
		if n := r.counted(botOfA, "once", clock); n != 3 {
			r.Errorf("a repeated request counted %d, want 3", n)
		}
	})
}

func TestManyCountAtOnce(t *testing.T) {
	each(t, func(r *rig) {
		var wg sync.WaitGroup
		var failed atomic.Int32
		for range 8 {
			wg.Go(func() {
				for range 25 {
					if status, _ := r.do(botOfA, "POST", analyticsPath, `{"name":"hot","count":2}`); status != 200 {
						failed.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if n := r.counted(botOfA, "hot", time.Now()); failed.Load() != 0 || n != 400 {
			r.Errorf("counted %d with %d failures, want 400", n, failed.Load())
		}
	})
}

func TestCountsThatAreNone(t *testing.T) {
	each(t, func(r *rig) {
		for body, says := range map[string]string{
			`{}`:                    "is required",
			`{"name":"x"}`:          "count is required",
			`{"count":1}`:           "name is required",
			`{"name":"","count":1}`: "name must",
			`{"name":"` + strings.Repeat("n", 201) + `","count":1}`: "name must",
			`{"name":null,"count":1}`:                               "name must not be null",
			`{"name":"x","count":0}`:                                "count must",
			`{"name":"x","count":-1}`:                               "count must",
			`{"name":"x","count":1.5}`:                              "count must",
			`{"name":"x","count":"1"}`:                              "count must",
			`{"name":"x","count":1e30}`:                             "count must",
			`{"name":"x","count":1000000001}`:                       "count must",
			`{"name":"x","count":1,"day":"x"}`:                      "day",
		} {
			if status, out := r.do(botOfA, "POST", analyticsPath, body); status != 400 || !strings.Contains(out["message"].(string), says) {
				r.Errorf("%s: got %d %v, want %q", body, status, out, says)
			}
		}
	})
}

func TestNamesOfCountsAreBounded(t *testing.T) {
	each(t, func(r *rig) {
		day := time.Now().UTC().Truncate(24 * time.Hour).UnixMilli()
		r.write(func(tx *sqldb.Tx) error {
			for n := range maxCountNames {
				if _, err := tx.Exec("INSERT INTO analytics (bot_id, day, installation_id, name, shard, count) VALUES ($1, $2, '', $3, 0, 1)", botA, day, fmt.Sprint("name ", n)); err != nil {
					return err
				}
			}
			return nil
		})
		if status, out := r.do(botOfA, "POST", analyticsPath, `{"name":"one more","count":1}`); status != 413 || out["type"] != "LimitExceeded" || !strings.Contains(out["message"].(string), `name "one more"`) {
			r.Errorf("a name too many: %d %v", status, out)
		}
		r.ok(botOfA, "POST", analyticsPath, `{"name":"name 7","count":1}`, "")
		r.ok(botOfB, "POST", analyticsPath, `{"name":"one more","count":1}`, "")
	})
}

func TestCountsGoWithTheirBotAndWithTime(t *testing.T) {
	each(t, func(r *rig) {
		clock := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		r.s.Now = func() time.Time { return clock }
		old := clock
		r.ok(botOfA, "POST", analyticsPath, `{"name":"x","count":1}`, "")
		clock = clock.Add(countsKept - 13*time.Hour)
		second := clock
		r.ok(botOfA, "POST", analyticsPath, `{"name":"x","count":1}`, "")
		r.sweep()
		if n := r.counted(botOfA, "x", old); n != 1 {
			r.Errorf("before its time there are %d", n)
		}
		clock = clock.Add(26 * time.Hour)
		r.sweep()
		if n := r.counted(botOfA, "x", old); n != 0 {
			r.Errorf("after its time there are %d", n)
		}
		r.ok(botOfB, "POST", analyticsPath, `{"name":"x","count":1}`, "")
		r.write(func(tx *sqldb.Tx) error { return r.s.BuryBot(tx, botA) })
		r.sweep()
		if n := r.counted(botOfA, "x", second); n != 0 {
			r.Errorf("the bot left %d", n)
		}
		if n := r.counted(botOfB, "x", clock); n != 1 {
			r.Errorf("the other bot has %d left, want 1", n)
		}
	})
}
