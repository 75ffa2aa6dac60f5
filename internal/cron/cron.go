// Package cron reads cron lines and says when they come round. Times are in UTC,
// so there is no hour that a change of clocks skips or repeats.
package cron

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/cronexpr"
)

// Line is a cron line.
type Line struct{ e *cronexpr.Expression }

// Parse reads a line of the five fields minute, hour, day of the month, month
// and day of the week, or one of @hourly, @daily, @weekly, @monthly and @yearly.
// A line that never comes round is refused. The error is written for
// whoever wrote the line.
//
// Compat: lines with seconds or years are refused: programs do not agree on
// where they stand.
func Parse(text string) (*Line, error) {
	if n := len(strings.Fields(text)); n != 5 && !(n == 1 && strings.HasPrefix(text, "@")) {
		return nil, errors.New("must have the five fields minute, hour, day of the month, month and day of the week")
	}
	e, err := cronexpr.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("is no cron line: %.200s", err)
	}
	l := &Line{e}
	if l.Next(epoch).IsZero() {
		return nil, errors.New("never comes round")
	}
	return l, nil
}

// epoch is where the search for a time begins: without years all of them are alike.
var epoch = time.Unix(0, 0)

// Next is the first time after t that the line comes round, zero if there is none.
func (l *Line) Next(t time.Time) time.Time { return l.e.Next(t.UTC()) }
