package messaging

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"parley/internal/api"
	"parley/internal/fault"
	"parley/internal/once"
	"parley/internal/page"
	"parley/internal/sqldb"
)

// A replay makes a delivery that is over pending once more. It keeps its row,
// its id and the record of its tries, and goes to the end of its lane: what came
// after it has been told already, or is about to be. The receiver knows by the
// id that it may have seen it.
//
// What is pending is being delivered as it is. What somebody has switched off,
// an installation or an event that the bot does not subscribe to, stays
// undelivered until that changes.
//
// Who waits for the end of an event waits for the new one: a workflow that is
// still bound to it, or listens for it, goes on when the bot has handled it
// again. One that has gone on meanwhile does not do so twice, for it is not
// bound to the event any more; and the bot is told to work on a workflow only
// while that is so (see fillWorkflowUpdate).

const (
	maxReplayed     = 5_000   // deliveries that one request replays
	maxReplayLooked = 100_000 // rows that it looks at to find them
)

func (s *Service) replayDelivery(ctx context.Context, in deliveryRef) (deliveryResult, error) {
	c, err := s.operated(ctx, in.BotID)
	if err != nil {
		return deliveryResult{}, err
	}
	d, err := s.oneDelivery(s.DB.Reader(ctx), c, in.ID)
	if err == nil {
		err = c.replayable(d)
	}
	if err != nil {
		return deliveryResult{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (deliveryResult, error) {
		n, err := s.replay(tx, []*Delivery{d})
		if err != nil {
			return deliveryResult{}, err
		}
		now, err := s.oneDelivery(tx, c, in.ID)
		if err == nil && n == 0 {
			err = stillPending(now.ID)
		}
		return deliveryResult{now}, err
	})
}

func stillPending(deliveryID string) error {
	return fault.ResourceLocked.New("Delivery %q is pending: it is replayed once it is processed, failed or ignored", deliveryID)
}

// replayable refuses what cannot be replayed.
func (c Caller) replayable(d *Delivery) error {
	if d.Status == Pending {
		return stillPending(d.ID)
	}
	if why := c.unwanted(d); why != "" {
		return fault.InvalidPayload.New("Delivery %q cannot be replayed: %s", d.ID, why)
	}
	return nil
}

// unwanted says why a delivery would reach nobody now, "" if it would not.
func (c Caller) unwanted(d *Delivery) string {
	if d.InstallationID == "" {
		of := Caller{Bot: c.Bot, Installation: installation(c.Bot, d.owner), Subscriptions: c.Subscriptions}
		if of.ignores(d.bare) {
			return unsubscribed
		}
		return ""
	}
	why := deaf(installation(c.Bot, d.InstallationID), d.Operation)
	if why != "" {
		why = fmt.Sprintf("installation %s (%s): %s", d.InstallationID, d.Integration, why)
	}
	return why
}

type replayDeliveriesInput struct {
	BotID          string    `json:"botId,omitempty" format:"id" doc:"The bot, unless the header x-bot-id or the token names it."`
	Dead           bool      `json:"dead,omitempty" doc:"All dead letters; a range is not needed then."`
	After          *api.Time `json:"after,omitempty" doc:"The beginning of the range; with before it is needed unless dead is true."`
	Before         *api.Time `json:"before,omitempty" doc:"The end of the range."`
	Status         string    `json:"status,omitempty" enum:"processed,failed,ignored"`
	Kind           string    `json:"kind,omitempty" enum:"bot,integration,webhook"`
	Operation      string    `json:"operation,omitempty" enum:"event_received,message_created,message_updated,conversation_updated,signal"`
	InstallationID string    `json:"installationId,omitempty" format:"id"`
	ConversationID string    `json:"conversationId,omitempty" format:"id"`
	NextToken      string    `json:"nextToken,omitempty" doc:"Goes on where the meta.nextToken of an earlier answer says, with the same range and filters."`
}

// Check implements api's rule across members.
func (in *replayDeliveriesInput) Check() error {
	if !in.Dead && (in.After == nil || in.Before == nil) {
		return fault.InvalidPayload.New("say what is to be replayed: after and before, or dead: true")
	}
	return nil
}

type replayResult struct {
	Replayed int       `json:"replayed" doc:"How many are pending again."`
	LeftOut  []leftOut `json:"leftOut" doc:"How many would reach nobody, and why."`
	Meta     page.Meta `json:"meta" doc:"One request replays 5000 at most: with a nextToken there are more."`
}

type leftOut struct {
	Reason string `json:"reason"`
	Count  int    `json:"count"`
}

func (s *Service) replayDeliveries(ctx context.Context, in replayDeliveriesInput) (replayResult, error) {
	c, err := s.operated(ctx, in.BotID)
	if err != nil {
		return replayResult{}, err
	}
	f := &deliveryFilter{c, in.Status, in.Kind, in.Operation, in.InstallationID, in.ConversationID, nil, span{in.After, in.Before}}
	if in.Dead {
		f.dead = &in.Dead
	}
	if err := f.check(fault.InvalidPayload); err != nil {
		return replayResult{}, err
	}
	all, meta, err := f.over(s.DB.Reader(ctx), page.Query{NextToken: in.NextToken})
	if err != nil {
		return replayResult{}, err
	}
	out := replayResult{Meta: meta}
	all, out.LeftOut = c.wanted(all)
	// In the order of their lanes, and there of their places: locks are taken so,
	// and a lane is told again what it was told in the same order.
	slices.SortFunc(all, func(a, b *Delivery) int {
		return cmp.Or(cmp.Compare(a.lane, b.lane), cmp.Compare(a.laneSeq, b.laneSeq))
	})
	for len(all) > chunk {
		var n int
		if err := s.DB.Write(ctx, func(tx *sqldb.Tx) (err error) {
			n, err = s.replay(tx, all[:chunk])
			return err
		}); err != nil {
			return replayResult{}, err
		}
		out.Replayed, all = out.Replayed+n, all[chunk:]
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (replayResult, error) {
		n, err := s.replay(tx, all)
		last := out
		last.Replayed += n
		return last, err
	})
}

// over reads the deliveries chosen that are over, the oldest first.
func (f *deliveryFilter) over(q sqldb.Q, pq page.Query) ([]*Delivery, page.Meta, error) {
	pages, err := pq.Open("replays", page.OldestFirst, f.ask()...)
	if err != nil {
		return nil, page.Meta{}, err
	}
	w := &deliveryWalk{deliveryFilter: *f, order: page.OldestFirst, at: place(pages.After().ID)}
	var out []*Delivery
	for n := range steps {
		some, err := w.next(q, n)
		if err != nil {
			return nil, page.Meta{}, err
		}
		out = append(out, slices.DeleteFunc(some, func(d *Delivery) bool { return d.Status == Pending })...)
		switch {
		case len(out) > maxReplayed:
			out = out[:maxReplayed]
			meta, err := pages.Short(page.Cursor{ID: out[maxReplayed-1].ID})
			return out, meta, err
		case w.ended:
			return out, page.Meta{}, nil
		case w.looked >= maxReplayLooked:
			meta, err := pages.Short(page.Cursor{ID: entryTable.prefix + "_" + w.at})
			return out, meta, err
		}
	}
	return out, page.Meta{}, nil
}

// wanted takes out what would reach nobody.
func (c Caller) wanted(all []*Delivery) (rest []*Delivery, out []leftOut) {
	left := map[string]int{}
	rest = slices.DeleteFunc(all, func(d *Delivery) bool {
		why := c.unwanted(d)
		if why != "" {
			left[why]++
		}
		return why != ""
	})
	out = []leftOut{}
	for _, why := range slices.Sorted(maps.Keys(left)) {
		out = append(out, leftOut{why, left[why]})
	}
	return rest, out
}

// replay makes deliveries pending again that are over, at the end of their
// lanes. They come in the order of their lanes. It reports how many were over.
//
// Timers are taken before lanes, and lanes before their entries, as everywhere.
func (s *Service) replay(tx *sqldb.Tx, ds []*Delivery) (n int, err error) {
	for _, d := range ds {
		if d.awaited || d.WorkflowID != "" {
			// The end that this timer is about to tell of is none any more.
			if _, err := s.Timers.Cancel(tx, timerEventOver, d.ID); err != nil {
				return 0, err
			}
		}
	}
	now := s.now()
	for _, d := range ds {
		seq, err := s.Delivery.Enqueue(tx, d.route())
		if err != nil {
			return 0, err
		}
		text := "UPDATE events SET status = 'pending', failure_reason = '', lane_seq = $1, pending_at = $2, tries_before = attempts, dead = FALSE"
		if d.InstallationID != "" {
			text = "UPDATE outbox SET status = 'pending', failure_reason = '', lane_seq = $1, pending_at = $2, tries_before = attempts, dead = FALSE, done_at = 0"
		}
		over, err := tx.Exec(text+" WHERE bot_id = $3 AND id = $4 AND status IN ('processed', 'failed', 'ignored')", seq, now, d.BotID, d.ID)
		if err != nil {
			return 0, err
		}
		n += int(over)
	}
	return n, nil
}
