package messaging

import (
	"slices"
	"strings"

	"parley/internal/api"
	"parley/internal/id"
	"parley/internal/page"
	"parley/internal/sqldb"
)

// deliveryFilter chooses among the deliveries of a bot.
type deliveryFilter struct {
	caller         Caller
	status         string
	kind           string
	operation      string
	installationID string
	conversationID string
	dead           *bool
	span
}

// ask is everything that chooses rows, for the token of the next page.
func (f *deliveryFilter) ask() []any {
	return []any{f.caller.Bot.ID, f.status, f.kind, f.operation, f.installationID, f.conversationID, f.dead, f.after, f.before}
}

// fits reports whether a delivery, named already, is among those chosen.
func (f *deliveryFilter) fits(d *Delivery) bool {
	return d.isOne() && (f.status == "" || f.status == d.Status) && (f.kind == "" || f.kind == d.Kind) && (f.operation == "" || f.operation == d.Operation) &&
		(f.installationID == "" || f.installationID == d.InstallationID) && (f.conversationID == "" || f.conversationID == d.ConversationID) &&
		(f.dead == nil || *f.dead == d.Dead)
}

// deliveryTable is one of the two tables that hold deliveries. What they have in
// common is the order: their ids differ in the prefix, and all that follows is a
// time and then chance.
type deliveryTable struct {
	name, prefix string
	read         func(q sqldb.Q, tail string, args ...any) ([]*Delivery, error)
}

var (
	eventTable = deliveryTable{"events", "evt", func(q sqldb.Q, tail string, args ...any) ([]*Delivery, error) {
		rows, err := sqldb.Select[deliveredEvent](q, "events", tail, args...)
		out := make([]*Delivery, len(rows))
		for i, r := range rows {
			out[i] = &r.Delivery
		}
		return out, err
	}}
	entryTable = deliveryTable{"outbox", "dlv", func(q sqldb.Q, tail string, args ...any) ([]*Delivery, error) {
		rows, err := sqldb.Select[deliveredEntry](q, "outbox", tail, args...)
		out := make([]*Delivery, len(rows))
		for i, r := range rows {
			out[i] = &r.Delivery
		}
		return out, err
	}}
)

// place is where an id stands in the order of both tables.
func place(deliveryID string) string {
	_, at, _ := strings.Cut(deliveryID, "_")
	return at
}

// deliveryWalk goes through the deliveries of a bot in their order, a bounded
// number at a time, and finds those that a filter chooses. Where an index knows
// them, the others are not even looked at.
type deliveryWalk struct {
	deliveryFilter
	order  page.Order
	at     string // everything up to this place has been looked at; "" = nothing
	looked int
	ended  bool
}

// next looks at up to n rows of each table.
func (w *deliveryWalk) next(q sqldb.Q, n int) ([]*Delivery, error) {
	var found []*Delivery
	horizon := "" // up to here both tables are known
	for _, t := range w.tables() {
		tail, args := w.statement(t, n)
		some, err := t.read(q, tail, args...)
		if err != nil {
			return nil, err
		}
		w.looked += len(some)
		if len(some) == n {
			if last := place(some[n-1].ID); horizon == "" || w.sooner(last, horizon) {
				horizon = last
			}
		}
		found = append(found, some...)
	}
	w.at, w.ended = horizon, horizon == ""
	found = slices.DeleteFunc(found, func(d *Delivery) bool {
		return !w.ended && w.sooner(horizon, place(d.ID)) || !w.fits(d.as(w.caller))
	})
	slices.SortFunc(found, func(a, b *Delivery) int {
		if w.order == page.NewestFirst {
			a, b = b, a
		}
		return strings.Compare(place(a.ID), place(b.ID))
	})
	return found, nil
}

// sooner reports whether one place comes before another on the walk.
func (w *deliveryWalk) sooner(a, b string) bool {
	return a != b && a < b == bool(w.order)
}

// tables are those that can hold what is looked for.
func (w *deliveryWalk) tables() []deliveryTable {
	var all []deliveryTable
	if w.kind != toIntegration && w.kind != toWebhook && w.installationID == "" && (w.operation == "" || w.operation == opEventReceived) {
		all = append(all, eventTable)
	}
	if w.kind != toBot && w.operation != opEventReceived {
		all = append(all, entryTable)
	}
	return all
}

// statement is the end of one that reads the next n rows of a table. Its
// conditions are those that an index answers; the others would make it look at
// any number of rows.
func (w *deliveryWalk) statement(t deliveryTable, n int) (string, []any) {
	in := &sqldb.Where{}
	events, status, ids := t.prefix == eventTable.prefix, w.status, false
	if w.dead != nil && *w.dead {
		status = Failed
	}
	if events && w.conversationID != "" {
		// Not of the bot, whom the name of the lane holds: planners would walk all that the bot has.
		in.And("lane = ?", lane(&Event{BotID: w.caller.Bot.ID, ConversationID: w.conversationID}).Key)
	} else {
		in.And("bot_id = ?", w.caller.Bot.ID)
		// Literals, so that the partial indexes serve them.
		switch {
		case events && status != "" && status != Processed:
			ids = true
			in.And("status <> 'processed' AND status = ?", status)
		case !events && (status == Failed || status == Ignored):
			in.And("status IN ('failed', 'ignored') AND status = ?", status)
		}
	}
	if w.after != nil {
		in.And("id >= ?", id.Oldest(t.prefix, max(0, int64(*w.after))))
	}
	if w.before != nil {
		in.And("id < ?", id.Oldest(t.prefix, max(0, int64(*w.before)+1)))
	}
	than, order := "<", " ORDER BY id DESC"
	if w.order == page.OldestFirst {
		than, order = ">", " ORDER BY id"
	}
	if w.at != "" {
		in.And("id "+than+" ?", t.prefix+"_"+w.at)
	}
	tail := in.String() + order + " LIMIT " + in.Arg(n)
	if ids { // that SQLite finds in the index alone: for whole rows it prefers to walk the table
		tail = "WHERE (bot_id, id) IN (SELECT bot_id, id FROM " + t.name + " " + tail + ")" + order
	}
	return tail, in.Args
}

// page reads one page of a list, the newest first.
func (f *deliveryFilter) page(q sqldb.Q, pq page.Query) ([]*Delivery, page.Meta, error) {
	pages, err := pq.Open("deliveries", page.NewestFirst, f.ask()...)
	if err != nil {
		return nil, page.Meta{}, err
	}
	w := &deliveryWalk{deliveryFilter: *f, at: place(pages.After().ID)}
	out := []*Delivery{}
	for n := range steps {
		some, err := w.next(q, n)
		if err != nil {
			return nil, page.Meta{}, err
		}
		out = append(out, some...)
		if w.ended || len(out) > page.Size {
			break
		}
		if w.looked >= maxLooked {
			meta, err := pages.Short(page.Cursor{ID: entryTable.prefix + "_" + w.at})
			return out, meta, err
		}
	}
	return page.Cut(pages, out, func(d *Delivery) (int64, string) { return int64(d.CreatedAt), d.ID })
}

// oneDelivery reads a delivery of the caller's bot; what is missing is a client's error.
func (s *Service) oneDelivery(q sqldb.Q, c Caller, deliveryID string) (*Delivery, error) {
	t := eventTable
	if id.Minted(entryTable.prefix, deliveryID) {
		t = entryTable
	}
	found, err := t.read(q, "WHERE bot_id = $1 AND id = $2", c.Bot.ID, deliveryID)
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0 || !found[0].isOne():
		return nil, c.missing("Delivery", deliveryID)
	}
	return found[0].as(c), nil
}

// Attempt is one try at a delivery.
type Attempt struct {
	Number     int64            `json:"number"`
	StartedAt  api.Time         `json:"startedAt"`
	DurationMs int64            `json:"durationMs"`
	Outcome    string           `json:"outcome" doc:"ok, final, failed, unreachable or timed out."`
	Status     int64            `json:"status,omitempty" doc:"The HTTP status; absent where there was no answer."`
	Reason     string           `json:"reason,omitempty" doc:"Why the attempt was no success."`
	Response   *attemptResponse `json:"response,omitempty" doc:"How the answer begins; absent where it said no more than its status."`

	body, contentType string
}

type attemptResponse struct {
	ContentType string `json:"contentType,omitempty"`
	Body        string `json:"body"`
}

// Columns binds columns of table attempts.
func (a *Attempt) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "number", Field: &a.Number},
		{Name: "started_at", Field: (*int64)(&a.StartedAt)},
		{Name: "duration_ms", Field: &a.DurationMs},
		{Name: "outcome", Field: &a.Outcome},
		{Name: "status", Field: &a.Status},
		{Name: "reason", Field: &a.Reason},
		{Name: "response", Field: &a.body},
		{Name: "response_type", Field: &a.contentType},
	}
}

// attempts are the newest tries at a delivery that the log still has, in their order.
func attempts(q sqldb.Q, deliveryID string) ([]*Attempt, error) {
	all, err := sqldb.Select[Attempt](q, "attempts", "WHERE work_id = $1 ORDER BY number DESC LIMIT $2", deliveryID, maxAttempts)
	if err != nil {
		return nil, err
	}
	slices.Reverse(all)
	for _, a := range all {
		if a.body != "" {
			a.Response = &attemptResponse{a.contentType, a.body}
		}
	}
	return all, nil
}

// maxAttempts bounds what is shown of one delivery.
const maxAttempts = 500
