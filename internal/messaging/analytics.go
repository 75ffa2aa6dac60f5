package messaging

import (
	"context"
	"math/rand/v2"
	"time"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/once"
	"parley/internal/sqldb"
)

func (s *Service) analyticsOps() []api.Op {
	return []api.Op{
		api.Handle("trackAnalytics", "POST /v1/chat/analytics", auth.Runtime, s.trackAnalytics, api.Doc("Adds to what is counted under a name today.")),
	}
}

const (
	// countShards is the number of rows a count is spread over.
	countShards = 16
	// maxCountNames is the number of names a bot may count under in a day: they
	// say what happens, not to whom.
	//
	// Compat: the cloud names no such limit.
	maxCountNames = 500
	// countsKept is how long counts are kept: a year can be held against the one before.
	countsKept = 2 * 366 * 24 * time.Hour
)

// Compat: the cloud names no highest count; here the sum of all must stay a number.
type trackAnalyticsInput struct {
	Name  string `json:"name" min:"1" max:"200"`
	Count int64  `json:"count" min:"1" max:"1000000000"`
}

func (s *Service) trackAnalytics(ctx context.Context, in trackAnalyticsInput) (none, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return none{}, err
	}
	day := s.Now().UTC().Truncate(24 * time.Hour).UnixMilli()
	if err := s.checkCountName(s.DB.Reader(ctx), c, day, in.Name); err != nil {
		return none{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (none, error) {
		_, err := tx.Exec(`INSERT INTO analytics (bot_id, day, installation_id, name, shard, count) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (bot_id, day, installation_id, name, shard) DO UPDATE SET count = analytics.count + excluded.count`,
			c.Bot.ID, day, c.Owner(), in.Name, rand.IntN(countShards), in.Count)
		return none{}, err
	})
}

// checkCountName refuses a further name where there are too many already.
func (s *Service) checkCountName(q sqldb.Q, c Caller, day int64, name string) error {
	known, err := column64(q, "SELECT shard FROM analytics WHERE bot_id = $1 AND day = $2 AND installation_id = $3 AND name = $4 LIMIT 1", c.Bot.ID, day, c.Owner(), name)
	if err != nil || len(known) > 0 {
		return err
	}
	names, err := column64(q, "SELECT count(*) FROM (SELECT DISTINCT installation_id, name FROM analytics WHERE bot_id = $1 AND day = $2) AS names", c.Bot.ID, day)
	if err == nil && names[0] >= maxCountNames {
		err = fault.LimitExceeded.New("name %q would be the %dth that bot %q counts under today, the limit is %d", name, names[0]+1, c.Bot.ID, maxCountNames)
	}
	return err
}
