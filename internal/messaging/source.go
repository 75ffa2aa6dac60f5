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
	q := s.DB.Reader(ctx)
	e, err := sqldb.One[Event](q, "events", "WHERE lane = $1 AND lane_seq > $2 AND status = 'pending' ORDER BY lane_seq LIMIT 1", lane, after)
	if errors.Is(err, sqldb.ErrNoRow) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	w := &delivery.Work{ID: e.ID, Seq: e.LaneSeq, Attempt: int(e.Attempts) + 1, CreatedAt: int64(e.CreatedAt), Ref: e.BotID}
	c, err := s.CallerFor(ctx, e.BotID, "")
	if err != nil && !fault.Is(err, fault.Forbidden) {
		return nil, err
	}
	if err != nil {
		w.Skip = &delivery.Outcome{Status: delivery.Ignored, Reason: "the bot has been deleted", Attempts: int(e.Attempts)}
		return w, nil
	}
	if err := s.fillOne(q, c, e); errors.Is(err, sqldb.ErrNoRow) {
		w.Skip = &delivery.Outcome{Status: delivery.Ignored, Reason: "the message, its author or its conversation was deleted before the bot was told", Attempts: int(e.Attempts)}
		return w, nil
	} else if err != nil {
		return nil, err
	}
	body, err := json.Marshal(e.As(c))
	if err != nil {
		return nil, err
	}
	w.Operation = endpoint.Operation{
		Name: "event_received", Type: e.Type, Body: endpoint.EventReceived(body), Subject: e.ID,
		Header: http.Header{"X-Parley-Attempt": {strconv.Itoa(w.Attempt)}},
	}
	return w, nil
}

// fillOne is fill for one event that is about to be delivered: it takes a
// single read, and what is missing is ErrNoRow.
func (s *Service) fillOne(q sqldb.Q, c Caller, e *Event) error {
	if e.BareType != eventMessageCreated || e.InstallationID != "" {
		return nil
	}
	var m Message
	var v Conversation
	var u User
	var dest []any
	for _, row := range []sqldb.Row{&m, &v, &u} {
		for _, column := range row.Columns() {
			dest = append(dest, column.Field)
		}
	}
	rows, err := q.Query(fillText, e.BotID, e.MessageID)
	if err != nil {
		return err
	}
	defer rows.Close()
	if !rows.Next() {
		return errors.Join(rows.Err(), sqldb.ErrNoRow)
	}
	if err := rows.Scan(dest...); err != nil {
		return err
	}
	e.Payload, err = json.Marshal(messageCreated{u.As(c), v.As(c), m.As(c)})
	return err
}

var fillText = func() string {
	text := "SELECT "
	for i, t := range []struct {
		alias string
		row   sqldb.Row
	}{{"m", &Message{}}, {"v", &Conversation{}}, {"u", &User{}}} {
		for j, column := range t.row.Columns() {
			if i+j > 0 {
				text += ", "
			}
			text += t.alias + "." + column.Name
		}
	}
	return text + " FROM messages m JOIN conversations v ON v.id = m.conversation_id JOIN users u ON u.id = m.user_id WHERE m.bot_id = $1 AND m.id = $2"
}()

// Done implements delivery.Source.
func (s Source) Done(tx *sqldb.Tx, w *delivery.Work, o delivery.Outcome) error {
	_, err := tx.Exec("UPDATE events SET status = $1, failure_reason = $2, attempts = $3 WHERE bot_id = $4 AND id = $5 AND status = 'pending'",
		string(o.Status), o.Reason, int64(o.Attempts), w.Ref, w.ID)
	return err
}
