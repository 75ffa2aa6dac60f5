package messaging

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"parley/internal/api"
	"parley/internal/cron"
	"parley/internal/delivery"
	"parley/internal/id"
	"parley/internal/sqldb"
	"parley/internal/timer"
)

// A recurring event is one that a bot gets each time its cron line comes round.
// Each time makes one event, in a lane of its own, so that it neither waits for
// conversations nor keeps them waiting. Of several times that were missed while
// no server ran, or while a server was late, one event is made, and the next
// comes at the next time.

// timerRecurring is the kind of timers that make recurring events.
const timerRecurring = "recurring"

func (s *Service) handleRecurringTimers() { s.Timers.Handle(timerRecurring, s.fireRecurring) }

// Recurring is what a bot declares of a recurring event.
type Recurring struct {
	Cron    string
	Type    string
	Payload api.Object
}

// recurring is a recurring event of a bot.
type recurring struct {
	ID                string
	BotID             string
	Name              string
	Recurring         Recurring
	FailedAttempts    int64 // in a row
	LastFailureReason string
}

// Columns binds the columns of table recurring_events.
func (e *recurring) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "id", Field: &e.ID},
		{Name: "bot_id", Field: &e.BotID},
		{Name: "name", Field: &e.Name},
		{Name: "cron", Field: &e.Recurring.Cron},
		{Name: "type", Field: &e.Recurring.Type},
		{Name: "payload", Field: sqldb.JSON(&e.Recurring.Payload)},
		{Name: "failed_attempts", Field: &e.FailedAttempts},
		{Name: "last_failure_reason", Field: &e.LastFailureReason},
	}
}

// recurringLane is the order in which the bot gets the events of one recurring event.
func recurringLane(botID, recurringID string) string {
	return "bot:" + botID + recurringMark + recurringID
}

const recurringMark = ":recurring:"

// Recur makes exactly these events of a bot recur, by name. One that is as
// before goes on undisturbed; one that has changed begins anew.
//
// The timers come first: a firing holds its own and waits for the rest.
func (s *Service) Recur(tx *sqldb.Tx, botID string, declared map[string]Recurring) error {
	rows, err := sqldb.Select[recurring](tx, "recurring_events", "WHERE bot_id = $1 ORDER BY name", botID)
	if err != nil {
		return err
	}
	var changed, gone []*recurring
	left := maps.Clone(declared)
	for _, e := range rows {
		now, ok := left[e.Name]
		delete(left, e.Name)
		switch {
		case !ok:
			gone = append(gone, e)
		case now.Cron != e.Recurring.Cron || now.Type != e.Recurring.Type || !bytes.Equal(now.Payload, e.Recurring.Payload):
			gone = append(gone, e)
			changed = append(changed, &recurring{ID: e.ID, BotID: botID, Name: e.Name, Recurring: now})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(left)) {
		changed = append(changed, &recurring{ID: id.At("recevt", s.now()), BotID: botID, Name: name, Recurring: left[name]})
	}
	for _, e := range gone {
		if _, err := s.Timers.Cancel(tx, timerRecurring, e.ID); err != nil {
			return err
		}
	}
	for _, e := range changed {
		if err := s.setRecurring(tx, e, s.Now()); err != nil {
			return err
		}
	}
	for _, e := range gone {
		if _, err := tx.Exec("DELETE FROM recurring_events WHERE id = $1", e.ID); err != nil {
			return err
		}
	}
	for _, e := range changed {
		if _, err := sqldb.Insert(tx, "recurring_events", e); err != nil {
			return err
		}
	}
	return nil
}

// setRecurring sets the timer for the first time after one.
func (s *Service) setRecurring(tx *sqldb.Tx, e *recurring, after time.Time) error {
	line, err := cron.Parse(e.Recurring.Cron)
	if err != nil {
		return err // it was checked when it was declared
	}
	next := line.Next(after)
	if next.IsZero() {
		return nil
	}
	return s.Timers.Set(tx, timer.Timer{Kind: timerRecurring, ID: e.ID, BotID: e.BotID, Due: next.UnixMilli()})
}

// fireRecurring makes one event of a recurring event.
func (s *Service) fireRecurring(tx *sqldb.Tx, t timer.Timer) error {
	e, err := sqldb.One[recurring](tx, "recurring_events", "WHERE id = $1", t.ID)
	if errors.Is(err, sqldb.ErrNoRow) {
		return nil
	}
	if err != nil {
		return err
	}
	now := s.now()
	err = s.addEvent(tx, &Event{
		ID: id.At("evt", now), CreatedAt: api.Time(now), Type: e.Recurring.Type, Payload: e.Recurring.Payload, Status: Pending, BotID: e.BotID,
		Lane: recurringLane(e.BotID, e.ID),
	})
	if err != nil {
		return err
	}
	// Not before the time that has come now, should the clock have been set back.
	return s.setRecurring(tx, e, time.UnixMilli(max(now, t.Due)))
}

// recurred notes what has become of a try to deliver an event, if it is a recurring one.
func (s *Service) recurred(tx *sqldb.Tx, lane string, o delivery.Outcome) error {
	_, recurringID, is := strings.Cut(lane, recurringMark)
	if !is {
		return nil
	}
	var err error
	switch o.Status {
	case delivery.Processed:
		_, err = tx.Exec("UPDATE recurring_events SET failed_attempts = 0, last_failure_reason = '' WHERE id = $1 AND failed_attempts > 0", recurringID)
	case delivery.Pending, delivery.Failed:
		_, err = tx.Exec("UPDATE recurring_events SET failed_attempts = failed_attempts + 1, last_failure_reason = $1 WHERE id = $2", o.Reason, recurringID)
	}
	return err
}

// RecurringFailure is what a recurring event has met with.
type RecurringFailure struct {
	Name     string
	Attempts int64 // in a row
	Reason   string
}

// RecurringFailures tells of the recurring events of a bot whose last try failed.
func (s *Service) RecurringFailures(q sqldb.Q, botID string) ([]RecurringFailure, error) {
	rows, err := sqldb.Select[recurring](q, "recurring_events", "WHERE bot_id = $1 AND failed_attempts > 0 ORDER BY name", botID)
	var out []RecurringFailure
	for _, e := range rows {
		out = append(out, RecurringFailure{e.Name, e.FailedAttempts, e.LastFailureReason})
	}
	return out, err
}
