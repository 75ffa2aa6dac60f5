package bot

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"parley/internal/delivery"
	"parley/internal/endpoint"
	"parley/internal/sqldb"
)

// An integration that deliveries reach is told when it is installed, set up
// anew, disabled or removed. What it is to be told stands in the status of the
// installation, and the installation has a lane of its own in which it is
// called; the outcome becomes its next status (PROTOCOL §2.7):
//
//	registration_pending   ─ register ──►   registered   | registration_failed
//	unregistration_pending ─ unregister ──► unregistered | unregistration_failed
//
// While its endpoint cannot be reached the status stays pending, with the reason.
const (
	registrationPending   = "registration_pending"
	registered            = "registered"
	registrationFailed    = "registration_failed"
	unregistrationPending = "unregistration_pending"
	unregistered          = "unregistered"
	unregistrationFailed  = "unregistration_failed"
)

// RegistrationEndpoint is the endpoint over which an installation is registered:
// the place of the installation, with a breaker and bounds apart from those of
// its messages. Its lane goes by the same name.
func RegistrationEndpoint(installationID string) string { return registrationLane + installationID }

const registrationLane = "reg:"

// IsRegistration tells the lanes of registrations from all others.
func IsRegistration(lane string) bool { return strings.HasPrefix(lane, registrationLane) }

// settle works out what an installation is to be told after a change, and its
// status until it has been.
func (in *installation) settle(before *installation, told bool) {
	was := before != nil && before.live()
	in.Gone = false
	switch {
	case !told && in.live():
		in.Status, in.StatusReason = registered, "" // nothing to tell
	case !told:
		in.Status, in.StatusReason = unregistered, ""
	case in.live() && (!was || !in.sameSetup(before) || in.Status == registrationFailed):
		in.Status, in.StatusReason, in.call = registrationPending, "", true
	case !in.live() && was:
		in.Status, in.StatusReason, in.call = unregistrationPending, "", true
	case before == nil:
		in.Status = unregistered
	}
}

// sameSetup reports whether an integration would be registered in the same way.
func (in *installation) sameSetup(o *installation) bool {
	return in.IntegrationID == o.IntegrationID && in.ConfigurationType == o.ConfigurationType && string(in.configuration) == string(o.configuration)
}

// enqueue hands an installation that has something to be told to its lane.
func (s *Service) enqueue(tx *sqldb.Tx, in *installation) error {
	if !in.call {
		return nil
	}
	in.call = false
	lane := RegistrationEndpoint(in.ID)
	seq, err := s.Enqueue(tx, delivery.Lane{Key: lane, Endpoint: lane})
	in.RegistrationSeq, in.RegistrationAttempts = seq, 0
	return err
}

// Registrations hands the calls that register installations to the delivery engine.
type Registrations struct{ *Service }

var _ delivery.Source = Registrations{}

// Next implements delivery.Source.
func (s Registrations) Next(ctx context.Context, lane string, after int64) (*delivery.Work, error) {
	installationID := strings.TrimPrefix(lane, registrationLane)
	in, err := sqldb.One[installation](s.DB.Reader(ctx), "installations", "WHERE id = $1 AND registration_seq > $2 AND status IN ($3, $4)",
		installationID, after, registrationPending, unregistrationPending)
	if errors.Is(err, sqldb.ErrNoRow) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	name := "register"
	if in.Status == unregistrationPending {
		name = "unregister"
	}
	workID := in.ID + "_" + strconv.FormatInt(in.RegistrationSeq, 10)
	return &delivery.Work{
		ID: workID, Ref: in.ID, Seq: in.RegistrationSeq, Attempt: int(in.RegistrationAttempts) + 1, CreatedAt: int64(in.UpdatedAt),
		Operation: endpoint.Operation{Name: name, Body: endpoint.Register(s.webhookURL(in.WebhookID)), Subject: workID},
	}, nil
}

// outcomes are the statuses that the outcomes of a call lead to.
var outcomes = map[string]map[delivery.Status]string{
	registrationPending:   {delivery.Processed: registered, delivery.Failed: registrationFailed, delivery.Pending: registrationPending, delivery.Ignored: registrationFailed},
	unregistrationPending: {delivery.Processed: unregistered, delivery.Failed: unregistrationFailed, delivery.Pending: unregistrationPending, delivery.Ignored: unregistrationFailed},
}

// Done implements delivery.Source. An installation that was changed meanwhile
// has a newer call to wait for.
func (s Registrations) Done(tx *sqldb.Tx, w *delivery.Work, o delivery.Outcome) error {
	from := registrationPending
	if w.Operation.Name == "unregister" {
		from = unregistrationPending
	}
	reason := o.Reason
	if o.Status == delivery.Processed {
		reason = ""
	}
	_, err := tx.Exec(`UPDATE installations SET status = $1, status_reason = $2, registration_attempts = $3
		WHERE id = $4 AND registration_seq = $5 AND status = $6`, outcomes[from][o.Status], reason, int64(o.Attempts), w.Ref, w.Seq, from)
	return err
}

// goneReason is what the owner of a bot reads where a webhook wants no more.
const goneReason = "the webhook answered HTTP 410 Gone, so it is told nothing any more; set its URL again with updateBot to go on"

// Gone notes that the place an installation tells of things wants to be told no
// more. asOf is when it was looked up: a setup that is as new is not meant.
func (s *Service) Gone(tx *sqldb.Tx, botID, installationID string, asOf int64) error {
	n, err := tx.Exec("UPDATE installations SET status = $1, status_reason = $2, gone = TRUE WHERE id = $3 AND bot_id = $4 AND updated_at < $5 AND NOT gone AND enabled",
		registrationFailed, goneReason, installationID, botID, asOf)
	if err == nil && n > 0 {
		s.announce(tx, botID, nil)
	}
	return err
}
