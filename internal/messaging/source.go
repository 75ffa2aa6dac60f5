package messaging

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json"

	"parley/internal/delivery"
	"parley/internal/endpoint"
	"parley/internal/fault"
	"parley/internal/sqldb"
)

// Source hands pending events to the delivery engine. It is the port's
// messaging side: see package delivery for the order and the guarantees.
type Source struct{ *Service }

var _ delivery.Source = Source{}

// Next implements delivery.Source.
func (s Source) Next(ctx context.Context, lane string, after int64) (*delivery.Work, error) {
	if isOutgoing(lane) {
		return s.nextOutgoing(ctx, lane, after)
	}
	e, m := s.fresh.take(s.Now(), lane, after+1)
	if e == nil {
		var err error
		if e, err = sqldb.One[Event](s.DB.Reader(ctx), "events", "WHERE lane = $1 AND lane_seq > $2 AND status = 'pending' ORDER BY lane_seq LIMIT 1", lane, after); errors.Is(err, sqldb.ErrNoRow) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
	}
	w, err := s.eventWork(ctx, e, m)
	if err != nil || w.Skip != nil {
		return w, err
	}
	return w, s.watch(ctx, w, e)
}

// eventWork is the work of telling a bot of an event. m is its message if that
// is known already. It changes nothing: the log of deliveries shows it too.
func (s *Service) eventWork(ctx context.Context, e *Event, m *Message) (*delivery.Work, error) {
	w := &delivery.Work{
		ID: e.ID, Seq: e.LaneSeq, Attempt: int(e.Attempts) + 1, Before: int(e.TriesBefore), CreatedAt: max(int64(e.CreatedAt), e.PendingAt), Ref: &inHand{botID: e.BotID, from: e.RepliesFrom},
	}
	c, err := s.CallerFor(ctx, e.BotID, "")
	if err != nil && !fault.Is(err, fault.Forbidden) {
		return nil, err
	}
	if err != nil {
		w.Skip = &delivery.Outcome{Status: delivery.Ignored, Reason: "the bot has been deleted", Attempts: int(e.Attempts)}
		return w, nil
	}
	if e.workflowUpdate() != "" {
		why, err := s.fillWorkflowUpdate(s.DB.Reader(ctx), c, e)
		if err != nil {
			return nil, err
		}
		if why != "" {
			w.Skip = &delivery.Outcome{Status: delivery.Ignored, Reason: why, Attempts: int(e.Attempts)}
			return w, nil
		}
	}
	if err := s.fillOne(ctx, c, e, m); errors.Is(err, sqldb.ErrNoRow) {
		w.Skip = &delivery.Outcome{Status: delivery.Ignored, Reason: "the message, its author or its conversation was deleted before the bot was told", Attempts: int(e.Attempts)}
		return w, nil
	} else if err != nil {
		return nil, err
	}
	body, err := json.Marshal(delivered{e.As(c), e.WorkflowID})
	if err != nil {
		return nil, err
	}
	w.Operation = endpoint.Operation{
		Name: "event_received", Type: e.Type, Body: endpoint.EventReceived(body), Subject: e.ID,
		Header: http.Header{"X-Parley-Attempt": {strconv.Itoa(w.Attempt)}},
	}
	return w, nil
}

// delivered is an event as the bot gets it: it is told, beyond what answers
// hold, which workflow the event was made for.
type delivered struct {
	*Event
	WorkflowID string `json:"workflowId,omitempty"`
}

// fillOne is fill for one event that is about to be delivered. m is its message
// if that is known already; what is missing is ErrNoRow.
func (s *Service) fillOne(ctx context.Context, c Caller, e *Event, m *Message) error {
	if e.BareType != eventMessageCreated || e.InstallationID != "" {
		return nil
	}
	var err error
	if m == nil {
		if m, err = sqldb.One[Message](s.DB.Reader(ctx), "messages", "WHERE bot_id = $1 AND id = $2", e.BotID, e.MessageID); err != nil {
			return err
		}
	}
	v, err := s.cachedConversation(ctx, c, e.ConversationID)
	if err != nil {
		return err
	}
	u, err := s.CachedUser(ctx, c, e.UserID)
	if err != nil {
		return err
	}
	if v == nil || u == nil {
		return sqldb.ErrNoRow
	}
	e.Payload, err = json.Marshal(messageCreated{u, v, m.As(c)})
	return err
}

// Done implements delivery.Source.
func (s Source) Done(tx *sqldb.Tx, w *delivery.Work, o delivery.Outcome) error {
	if isOutgoing(w.Lane) {
		return s.doneOutgoing(tx, w, o)
	}
	if err := s.recurred(tx, w.Lane, o); err != nil {
		return err
	}
	h := w.Ref.(*inHand)
	if o.Dead {
		if err := tx.Send("UPDATE events SET dead = TRUE WHERE bot_id = $1 AND id = $2 AND status = 'pending'", h.botID, w.ID); err != nil {
			return err
		}
	}
	// No row: the event was deleted with its conversation while the bot had it.
	workflowID, awaited := "", true
	rows, err := tx.Query("UPDATE events SET status = $1, failure_reason = $2, attempts = $3, replies_from = $4, replies_to = $5 WHERE bot_id = $6 AND id = $7 AND status = 'pending' RETURNING workflow_id, awaited",
		string(o.Status), o.Reason, int64(o.Attempts), h.from, h.to, h.botID, w.ID)
	if err != nil {
		return err
	}
	defer rows.Close()
	if rows.Next() {
		err = rows.Scan(&workflowID, &awaited)
	}
	if err = errors.Join(err, rows.Err(), rows.Close()); err != nil || o.Status == delivery.Pending {
		return err
	}
	tx.AfterCommit(func() { s.over(w.Lane) })
	if workflowID == "" && !awaited {
		return nil
	}
	return s.eventOver(tx, h.botID, w.ID)
}
