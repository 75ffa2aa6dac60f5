package bot

import (
	"maps"
	"slices"
	"strings"

	"parley/internal/api"
	"parley/internal/cron"
	"parley/internal/fault"
	"parley/internal/sqldb"
)

// maxRecurringPayload is the size limit of the payload of a recurring event.
const maxRecurringPayload = 128 << 10

// recurringEvent is a recurring event as the owner of the bot sees it.
type recurringEvent struct {
	Schedule          schedule             `json:"schedule"`
	Type              string               `json:"type"`
	Payload           api.Object           `json:"payload"`
	FailedAttempts    int64                `json:"failedAttempts" doc:"Tries in a row that did not reach the bot or that it failed; 0 after one that it took."`
	LastFailureReason api.Nullable[string] `json:"lastFailureReason"`
}

type schedule struct {
	Cron string `json:"cron" max:"200" doc:"Minute, hour, day of the month, month and day of the week, in UTC."`
}

type recurringIn struct {
	Schedule scheduleIn `json:"schedule"`
	Type     string     `json:"type" max:"200"`
	Payload  api.Object `json:"payload"`
	Extra    api.Extra  `json:",embed"`
}

type scheduleIn struct {
	schedule
	Extra api.Extra `json:",embed"`
}

// checkRecurring refuses recurring events that would never happen, or that are
// not the bot's to make.
func (d *definition) checkRecurring() error {
	for _, name := range slices.Sorted(maps.Keys(d.RecurringEvents)) {
		e := d.RecurringEvents[name]
		if e == nil {
			continue
		}
		if _, err := cron.Parse(e.Schedule.Cron); err != nil {
			return fault.InvalidPayload.New("recurringEvents.%s.schedule.cron %v", name, err)
		}
		switch e.Type {
		case "":
			return fault.InvalidPayload.New("recurringEvents.%s.type must not be empty", name)
		case "message_created", "state_expired", "workflow_update":
			return fault.InvalidPayload.New("recurringEvents.%s.type: events of type %q are made by the server only", name, e.Type)
		}
		if strings.Contains(e.Type, ":") {
			return fault.InvalidPayload.New("recurringEvents.%s.type: %q belongs to an integration; only that integration creates such events", name, e.Type)
		}
		if n := len(e.Payload); n > maxRecurringPayload {
			return fault.LimitExceeded.New("recurringEvents.%s.payload has %d bytes, the limit is %d", name, n, maxRecurringPayload)
		}
	}
	return nil
}

// recur makes the events of a bot recur as its definition says, if the change
// touched any.
func (s *Service) recur(tx *sqldb.Tx, r *row, in *common) error {
	if len(in.RecurringEvents) == 0 {
		return nil
	}
	return s.Recurring.Recur(tx, r.ID, shown(r.Definition.RecurringEvents, func(e *recurringIn) RecurringEvent {
		return RecurringEvent{e.Schedule.Cron, e.Type, e.Payload}
	}))
}

// showRecurring fills in the recurring events, with what they have met with.
func (s *Service) showRecurring(q sqldb.Q, r *row, b *Bot) error {
	b.RecurringEvents = shown(r.Definition.RecurringEvents, func(e *recurringIn) recurringEvent {
		return recurringEvent{Schedule: e.Schedule.schedule, Type: e.Type, Payload: e.Payload}
	})
	if len(b.RecurringEvents) == 0 {
		return nil
	}
	failures, err := s.Recurring.Failures(q, r.ID)
	if err != nil {
		return err
	}
	for name, f := range failures {
		if e, ok := b.RecurringEvents[name]; ok {
			e.FailedAttempts = f.Attempts
			e.LastFailureReason = api.Nullable[string]{Set: f.Reason != "", Value: f.Reason}
			b.RecurringEvents[name] = e
		}
	}
	return nil
}
