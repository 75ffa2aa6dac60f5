package bot

import (
	"context"
	"errors"
	"time"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/once"
	"parley/internal/sqldb"
	"parley/internal/timer"
)

const maxIdentifier = 200 // characters

// periods are how often an integration may ask to be registered anew.
var periods = map[string]func(time.Time) time.Time{
	"hourly":     func(t time.Time) time.Time { return t.Add(time.Hour) },
	"daily":      func(t time.Time) time.Time { return t.AddDate(0, 0, 1) },
	"weekly":     func(t time.Time) time.Time { return t.AddDate(0, 0, 7) },
	"bi-weekly":  func(t time.Time) time.Time { return t.AddDate(0, 0, 14) },
	"monthly":    func(t time.Time) time.Time { return t.AddDate(0, 1, 0) },
	"bi-monthly": func(t time.Time) time.Time { return t.AddDate(0, 2, 0) },
	"quarterly":  func(t time.Time) time.Time { return t.AddDate(0, 3, 0) },
	"yearly":     func(t time.Time) time.Time { return t.AddDate(1, 0, 0) },
}

// registerTimer is the kind of the timers that register installations anew.
const registerTimer = "register"

// RuntimeOps are the operations of the Runtime API on installations.
func (s *Service) RuntimeOps() []api.Op {
	return []api.Op{
		api.Handle("configureIntegration", "POST /v1/chat/integrations/configure", auth.Runtime, s.configureIntegration, api.Doc("Sets by what outside identifier an installation is found, and how often it is registered anew.")),
	}
}

type configureInput struct {
	Identifier           api.Nullable[string]     `json:"identifier,omitzero" max:"200"`
	ScheduleRegisterCall string                   `json:"scheduleRegisterCall,omitempty" enum:"hourly,daily,weekly,bi-weekly,monthly,bi-monthly,quarterly,yearly"`
	SandboxIdentifiers   api.Nullable[api.Object] `json:"sandboxIdentifiers,omitzero"`
}

func (s *Service) configureIntegration(ctx context.Context, in configureInput) (struct{}, error) {
	p := auth.From(ctx)
	if p.InstallationID == "" {
		return struct{}{}, fault.Forbidden.New("an integration configures itself; send x-integration-id")
	}
	for range in.SandboxIdentifiers.Value.Members() {
		return struct{}{}, fault.InvalidPayload.New("sandboxIdentifiers: sandboxes are planned and not built yet in this version of Parley; leave it out")
	}
	if !in.Identifier.Set && in.ScheduleRegisterCall == "" {
		return struct{}{}, nil
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (struct{}, error) {
		return struct{}{}, s.configureIn(tx, p.BotID, p.InstallationID, func(row *installation) error {
			if in.Identifier.Set {
				row.Identifier = in.Identifier.Value
			}
			if in.ScheduleRegisterCall == "" {
				return nil
			}
			row.RegisterEvery = in.ScheduleRegisterCall
			return s.setRegisterTimer(tx, row)
		})
	})
}

// configure changes an installation on its own behalf.
func (s *Service) configure(ctx context.Context, botID, installationID string, change func(*installation) error) error {
	return s.DB.Write(ctx, func(tx *sqldb.Tx) error { return s.configureIn(tx, botID, installationID, change) })
}

func (s *Service) configureIn(tx *sqldb.Tx, botID, installationID string, change func(*installation) error) error {
	// The bot first, as everybody who changes installations.
	if _, err := s.bot(tx, "", botID, "{for_update}"); err != nil {
		return err
	}
	row, err := sqldb.One[installation](tx, "installations", "WHERE id = $1 AND bot_id = $2 {for_update}", installationID, botID)
	if err != nil {
		return err
	}
	if err := change(row); err != nil {
		return err
	}
	row.UpdatedAt = max(s.now(), row.UpdatedAt)
	if err := sqldb.Update(tx, "installations", row, sqldb.Column{Name: "id", Field: &row.ID}); err != nil {
		return err
	}
	s.announce(tx, botID, nil)
	return nil
}

func (s *Service) setRegisterTimer(tx *sqldb.Tx, row *installation) error {
	next := periods[row.RegisterEvery](s.Now().UTC())
	return s.Timers.Set(tx, timer.Timer{Kind: registerTimer, ID: row.ID, BotID: row.BotID, Due: next.UnixMilli()})
}

// registerAgain is what the timer of an installation does. One that is disabled
// keeps its rhythm for when it is enabled.
func (s *Service) registerAgain(tx *sqldb.Tx, t timer.Timer) error {
	if _, err := s.bot(tx, "", t.BotID, "{for_update}"); fault.Is(err, fault.ResourceNotFound) {
		return nil // deleted
	} else if err != nil {
		return err
	}
	row, err := sqldb.One[installation](tx, "installations", "WHERE id = $1", t.ID)
	if errors.Is(err, sqldb.ErrNoRow) || err == nil && (row.Removed || row.RegisterEvery == "") {
		return nil
	}
	if err != nil {
		return err
	}
	if row.live() {
		row.call = true
		if err := s.enqueue(tx, row); err != nil {
			return err
		}
		if _, err := tx.Exec("UPDATE installations SET status = $1, status_reason = '', registration_seq = $2, registration_attempts = 0 WHERE id = $3",
			registrationPending, row.RegistrationSeq, row.ID); err != nil {
			return err
		}
	}
	return s.setRegisterTimer(tx, row)
}
