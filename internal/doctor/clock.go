package doctor

import (
	"context"
	"errors"
	"time"

	"parley/internal/sqldb"
)

// clock looks whether the clock of this machine can be believed.
func (e *exam) clock(ctx context.Context) {
	const check = "clock"
	const do = "let it be synchronised: timedatectl set-ntp true, or chrony"
	sound := true
	if ahead := e.newest(ctx).Sub(time.Now()); ahead > clockOff {
		sound = false
		e.warn(check, "set it right; times go on from the newest until it has caught up", "it was set back, or another server's is ahead: the database holds a time that is %s in the future", age(ahead))
	}
	// Times without their monotonic reading tell how far the clock was moved.
	wall, steady := time.Now().Round(0).Sub(e.began.Round(0)), time.Since(e.began)
	if step := wall - steady; step.Abs() > 100*time.Millisecond {
		sound = false
		e.warn(check, do, "it was moved by %s while this ran", age(step))
	}
	switch synced, off, err := synchronised(); {
	case errors.Is(err, errors.ErrUnsupported):
		if sound {
			e.ok(check, "it runs evenly; whether it is synchronised is not known on this system")
		}
	case err != nil:
		e.info(check, "whether it is synchronised cannot be asked: %v", err)
	case !synced:
		e.warn(check, do, "the kernel says that it is not synchronised")
	case sound:
		e.ok(check, "it is synchronised, with an estimated error of %s", age(off))
	}
}

// newest is a time that servers wrote recently with their own clocks, the zero
// time where there is none. Each is the end of an index.
func (e *exam) newest(ctx context.Context) (at time.Time) {
	if !e.tables {
		return at
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	for _, query := range []string{
		"SELECT COALESCE(MAX(started_at), 0) FROM attempts",
		"SELECT COALESCE(MAX(created_at), 0) FROM idempotency",
		"SELECT COALESCE(MAX(created_at), 0) FROM signals",
		"SELECT COALESCE(MAX(applied_at), 0) FROM migrations",
	} {
		// What cannot be read here the checks of the database have told.
		if ms, err := sqldb.Scalar[int64](e.db.Reader(ctx), query); err == nil && ms > 0 && time.UnixMilli(ms).After(at) {
			at = time.UnixMilli(ms)
		}
	}
	return at
}
