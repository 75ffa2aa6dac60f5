package messaging

import (
	"errors"

	"github.com/go-json-experiment/json"

	"parley/internal/api"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/sqldb"
	"parley/internal/timer"
)

// timerState is the kind of timers that end states; the id is the state's.
const timerState = "state"

// stateLane is the order in which the bot hears that a state has expired: its own.
const stateLane = "state:"

func (s *Service) handleStateTimers() { s.Timers.Handle(timerState, s.fireState) }

// stateKey is a stateRef that has been checked: whose space, hanging on what.
type stateKey struct{ botID, installationID, typ, ownerID, name string }

func (k stateKey) missing() error {
	return fault.ResourceNotFound.New("State %q of %s %q doesn't exist for bot %q", k.name, k.typ, k.ownerID, k.botID)
}

// stateKey checks what the state hangs on.
func (s *Service) stateKey(q sqldb.Q, c Caller, in stateRef) (stateKey, error) {
	k := stateKey{botID: c.Bot.ID, installationID: c.Owner(), typ: in.Type, ownerID: in.ID, name: in.Name}
	if len(in.Name) > 200 {
		return k, fault.InvalidPayload.New("name must have at most 200 characters")
	}
	if c.Installation != nil && (in.Type == "bot" || in.Type == "task" || in.Type == "workflow") {
		return k, fault.Forbidden.New("states of type %s belong to the bot; an integration has conversation, user and integration states", in.Type)
	}
	var err error
	switch in.Type {
	case "conversation":
		_, err = s.Conversation(q, c, in.ID)
	case "user":
		_, err = s.User(q, c, in.ID)
	case "bot":
		if in.ID != c.Bot.ID {
			err = c.missing("Bot", in.ID)
		}
	case "task":
		_, err = s.Task(q, c, in.ID)
	case "workflow":
		_, err = s.Workflow(q, c, in.ID)
	case "integration":
		if c.Installation == nil {
			return k, fault.Forbidden.New("states of type integration belong to an integration; send x-integration-id")
		}
		// The id sent is a version id, which an upgrade changes: the state hangs on the installation.
		if in.ID != c.Installation.ID && in.ID != c.Installation.IntegrationID && in.ID != in.As {
			err = c.missing("Integration", in.ID)
		}
		k.ownerID = c.Installation.ID
	default:
		err = fault.InvalidPayload.New("type must be one of conversation, user, bot, integration, task, workflow")
	}
	return k, err
}

// readState returns the state under a key, nil if there is none.
func readState(q sqldb.Q, k stateKey, lock string) (*State, error) {
	return oneState(q, "WHERE bot_id = $1 AND installation_id = $2 AND type = $3 AND owner_id = $4 AND name = $5 "+lock,
		k.botID, k.installationID, k.typ, k.ownerID, k.name)
}

// oneState reads the first state that matches, nil if there is none.
func oneState(q sqldb.Q, tail string, args ...any) (*State, error) {
	t, err := sqldb.One[State](q, "states", tail, args...)
	if errors.Is(err, sqldb.ErrNoRow) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return t.named(), nil
}

// addState makes a state, or returns the one that is there.
func (s *Service) addState(tx *sqldb.Tx, w stateWrite, payload api.Object, expiry api.Nullable[float64]) (t *State, added bool, err error) {
	now := s.now()
	k := w.key
	t = &State{
		ID: id.At("state", now), CreatedAt: api.Time(now), UpdatedAt: api.Time(now), BotID: k.botID, Name: k.name, Type: k.typ, Payload: payload,
		InstallationID: k.installationID, OwnerID: k.ownerID,
	}
	w.rule.expires(t, expiry)
	for range 3 { // it may be deleted, or expire, between the two statements
		if added, err = sqldb.Insert(tx, "states", t); err != nil {
			return nil, false, err
		}
		if added {
			return t.named(), true, s.keepState(tx, t)
		}
		if found, err := readState(tx, k, "{for_update}"); err != nil || found != nil {
			return found, false, err
		}
	}
	return nil, false, k.missing()
}

// putState writes a state that is locked and keeps it for its idle time.
func (s *Service) putState(tx *sqldb.Tx, t *State) error {
	t.UpdatedAt = api.Time(max(s.now(), int64(t.CreatedAt)))
	return s.saveExpiry(tx, t)
}

// saveExpiry is putState for a change of the expiry alone, which is none of the state.
func (s *Service) saveExpiry(tx *sqldb.Tx, t *State) error {
	if err := sqldb.Update(tx, "states", t, sqldb.Column{Name: "id", Field: &t.ID}); err != nil {
		return err
	}
	return s.keepState(tx, t)
}

// dropState deletes a state that is locked.
func (s *Service) dropState(tx *sqldb.Tx, t *State) error {
	if err := sqldb.Delete(tx, "states", "WHERE id = $1", t.ID); err != nil {
		return err
	}
	if t.Expiry == 0 {
		return nil
	}
	_, err := s.Timers.Cancel(tx, timerState, t.ID)
	return err
}

// keepState puts the end of a state that is locked off: it is in use. Whoever
// writes a state locks it before its timer; the timer, when it fires, does not
// wait for the state.
func (s *Service) keepState(tx *sqldb.Tx, t *State) error {
	if t.Expiry == 0 {
		return nil // a timer of before does nothing
	}
	return s.Timers.Set(tx, timer.Timer{Kind: timerState, ID: t.ID, BotID: t.BotID, Due: s.now() + t.Expiry})
}

// used puts the end of a state off that was read, soon.
func (s *Service) used(t *State) {
	if t == nil || t.Expiry == 0 {
		return
	}
	stateID, due := t.ID, s.now()+t.Expiry
	s.DB.WriteSoon(func(tx *sqldb.Tx) error { return s.Timers.Postpone(tx, timerState, stateID, due) }, func(err error) {
		if err != nil {
			s.Log.Warn("the use of a state was not noted; it may expire too early", "state", stateID, "err", err)
		}
	})
}

// fireState ends a state. One that somebody writes at this moment is in use.
func (s *Service) fireState(tx *sqldb.Tx, t timer.Timer) error {
	e, err := oneState(tx, "WHERE id = $1 {skip_locked}", t.ID)
	if err != nil {
		return err
	}
	if e == nil {
		if there, err := column(tx, "SELECT id FROM states WHERE id = $1", t.ID); err != nil || len(there) == 0 {
			return err
		}
		return s.comeBack(tx, t)
	}
	if e.Expiry == 0 {
		return nil // it was to expire once, and never expires now
	}
	if err := sqldb.Delete(tx, "states", "WHERE id = $1", e.ID); err != nil || e.InstallationID != "" {
		return err
	}
	payload, err := json.Marshal(struct {
		State *State `json:"state"`
	}{e})
	if err != nil {
		return err
	}
	now := s.now()
	return s.addEvent(tx, &Event{
		ID: id.At("evt", now), CreatedAt: api.Time(now), Type: eventStateExpired, Payload: payload, Status: Pending, BotID: e.BotID, Lane: stateLane + e.ID,
	})
}
