package cron

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 20, 12, 0, 30, 5e8, time.UTC) // a Friday

func TestNext(t *testing.T) {
	t.Parallel()
	for line, want := range map[string][]string{
		"* * * * *":           {"2026-11-20T12:01:00Z", "2026-11-20T12:02:00Z"},
		"*/5 * * * *":         {"2026-11-20T12:05:00Z", "2026-11-20T12:10:00Z"},
		"30 9 * * 1-5":        {"2026-11-23T09:30:00Z", "2026-11-24T09:30:00Z"},
		"0 0 29 2 *":          {"2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"},
		"0 0 31 * *":          {"2026-12-31T00:00:00Z", "2027-01-31T00:00:00Z"},
		"0 12 1,15 JAN,jul *": {"2027-01-01T12:00:00Z", "2027-01-15T12:00:00Z"},
		"0 0 13 * 5":          {"2026-11-27T00:00:00Z", "2026-12-04T00:00:00Z"}, // either of the two days
		"0 0 * * 0":           {"2026-11-22T00:00:00Z", "2026-11-29T00:00:00Z"},
		"0 0 * * 7":           {"2026-11-22T00:00:00Z", "2026-11-29T00:00:00Z"},
		"59 23 31 12 *":       {"2026-12-31T23:59:00Z", "2027-12-31T23:59:00Z"},
		"@hourly":             {"2026-11-20T13:00:00Z", "2026-11-20T14:00:00Z"},
		"@daily":              {"2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z"},
		"@weekly":             {"2026-11-22T00:00:00Z", "2026-11-29T00:00:00Z"},
		"@monthly":            {"2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		"@yearly":             {"2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z"},
		" 0\t0  * * * ":       {"2026-11-21T00:00:00Z"},
	} {
		l, err := Parse(line)
		if err != nil {
			t.Errorf("%q: %v", line, err)
			continue
		}
		at := noon
		for _, w := range want {
			if at = l.Next(at); at.Format(time.RFC3339) != w {
				t.Errorf("%q comes round at %v, want %s", line, at, w)
			}
		}
	}
}

func TestBadLines(t *testing.T) {
	t.Parallel()
	for line, says := range map[string]string{
		"": "five fields", "   ": "five fields", "* * * *": "five fields", "* * * * * *": "five fields", "0 0 1 1 * 2099": "five fields", "0 * * * * * *": "five fields",
		"@reboot": "cron line", "@every 5m": "five fields", "@Daily": "cron line", "@": "cron line", "CRON_TZ=Asia/Tokyo 0 0 * * *": "five fields",
		"60 * * * *": "minute", "0 24 * * *": "hour", "0 0 0 * *": "day-of-month", "0 0 32 * *": "day-of-month", "0 0 1 13 *": "month", "0 0 * * 8": "day-of-week",
		"a b c d e": "cron line", "H * * * *": "cron line", "-1 * * * *": "cron line", "*/0 * * * *": "interval", "10-20/0 * * * *": "interval", "*/100 * * * *": "interval",
		"99999999999999999999 * * * *": "cron line", "\x00 * * * *": "cron line",
		"0 0 30 2 *": "never", "0 0 31 4,6,9,11 *": "never", "5-1 * * * *": "never",
	} {
		if _, err := Parse(line); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want something with %q", line, err, says)
		}
	}
}

// Next agrees with a look at each minute.
func TestNextAgreesWithTheMinutes(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	dice := rand.New(rand.NewPCG(seed, 1))
	some := func(from, to int) (string, []int) {
		if dice.IntN(3) == 0 {
			return "*", nil
		}
		var values []int
		var texts []string
		for range 1 + dice.IntN(3) {
			v := from + dice.IntN(to-from+1)
			values, texts = append(values, v), append(texts, strconv.Itoa(v))
		}
		return strings.Join(texts, ","), values
	}
	in := func(values []int, v int) bool { return values == nil || slices.Contains(values, v) }
	for range 300 {
		m, minutes := some(0, 59)
		h, hours := some(0, 23)
		d, days := some(1, 28)
		mo, months := some(1, 12)
		w, weekdays := some(0, 6)
		line := strings.Join([]string{m, h, d, mo, w}, " ")
		l, err := Parse(line)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		from := noon.Add(time.Duration(dice.IntN(400*24*60)) * time.Minute)
		got := l.Next(from)
		for at := from.Truncate(time.Minute).Add(time.Minute); ; at = at.Add(time.Minute) {
			day := in(days, at.Day()) && in(weekdays, int(at.Weekday()))
			if days != nil && weekdays != nil {
				day = in(days, at.Day()) || in(weekdays, int(at.Weekday()))
			}
			if in(minutes, at.Minute()) && in(hours, at.Hour()) && in(months, int(at.Month())) && day {
				if !got.Equal(at) {
					t.Errorf("seed %d: %q after %v comes round at %v, want %v", seed, line, from, got, at)
				}
				break
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, line := range []string{"* * * * *", "0 0 29 2 *", "1-5/2,7 L 15W JAN 5#3", "@daily", "?"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		l, err := Parse(line)
		if err != nil {
			return
		}
		at := noon
		for range 3 {
			next := l.Next(at)
			if next.IsZero() {
				return
			}
			if !next.After(at) || next.Second() != 0 {
				t.Fatalf("%q after %v comes round at %v", line, at, next)
			}
			at = next
		}
	})
}
