package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/internal/parleytest"
)

// TestNeighbour has the program of one bot make ten times as many requests as it
// may. It is told so, with how long to wait; the people of another bot neither
// feel it nor are counted with it.
func TestNeighbour(t *testing.T) {
	const limit = 20 // more than one of the other people makes
	t.Setenv("PARLEY_RATE_LIMIT", strconv.Itoa(limit))
	parleytest.Each(t, func(t *testing.T, s *parleytest.Setup) {
		_, env := s.Settings()
		v := newVisitors(t, env.ChatURL)
		n := &neighbour{api: env, bot: newSilentBot(t, env)}
		began := time.Now()
		var loud time.Duration
		ratio, calm, beside := v.pairs(t, func(during func()) {
			from := time.Now()
			n.during(t, 10*limit*len(s.Nodes), during)
			loud += time.Since(from)
		})
		bearable(t, ratio)
		// Each server counts for itself, and begins with the allowance of a second.
		most := int64(float64(limit*len(s.Nodes)) * (time.Since(began).Seconds() + 1))
		if served := n.served.Load(); served > most || n.refused.Load() == 0 {
			t.Errorf("%d of its requests were served and %d refused in %v, want %d served at most", served, n.refused.Load(), loud, most)
		}
		record(t, "noisy neighbour, "+s.Name, fmt.Sprintf("a bot at ten times its limit: %d requests served, %d refused with 429; p99 of another bot's people %v without and %v beside it, median of the ratios %.2f",
			n.served.Load(), n.refused.Load(), calm, beside, ratio))
	})
}

// neighbour is the program of a bot.
type neighbour struct {
	api             parleytest.Settings
	bot             string
	served, refused atomic.Int64
}

// newSilentBot makes a bot that runs nowhere.
func newSilentBot(t *testing.T, api parleytest.Settings) (id string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", api.APIURL+"/v1/admin/bots", strings.NewReader(`{"name":"neighbour"}`))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range map[string]string{"content-type": "application/json", "authorization": "Bearer " + api.Token, "x-workspace-id": api.WorkspaceID} {
		r.Header.Set(k, v)
	}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var made struct{ Bot struct{ ID string } }
	if err := json.NewDecoder(answer.Body).Decode(&made); err != nil || answer.StatusCode != http.StatusCreated && answer.StatusCode != http.StatusOK {
		t.Fatalf("createBot: %s, %v", answer.Status, err)
	}
	return made.Bot.ID
}

// during makes so many requests a second while something else goes on.
func (n *neighbour) during(t *testing.T, pace int, other func()) {
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() {
		const burst = 4
		tick := time.NewTicker(time.Second * burst / time.Duration(pace))
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			for range burst {
				all.Go(func() { n.ask(t, ctx) })
			}
		}
	})
	other()
	stop()
	all.Wait()
}

func (n *neighbour) ask(t *testing.T, ctx context.Context) {
	r, err := http.NewRequestWithContext(ctx, "POST", n.api.APIURL+"/v1/chat/users", strings.NewReader(`{"tags":{}}`))
	if err != nil {
		t.Error(err)
		return
	}
	for k, v := range map[string]string{"content-type": "application/json", "authorization": "Bearer " + n.api.Token, "x-bot-id": n.bot} {
		r.Header.Set(k, v)
	}
	answer, err := client.Do(r)
	if err != nil {
		if ctx.Err() == nil {
			t.Errorf("a request of the neighbour: %v", err)
		}
		return
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return // ctx is over
	}
	reset, _ := strconv.Atoi(answer.Header.Get("RateLimit-Reset")) // 0 is wrong too
	switch {
	case answer.StatusCode == http.StatusCreated || answer.StatusCode == http.StatusOK:
		n.served.Add(1)
	case answer.StatusCode == http.StatusTooManyRequests && answer.Header.Get("Retry-After") != "" && answer.Header.Get("RateLimit-Remaining") == "0" &&
		reset == 1 && strings.Contains(string(text), `"type":"RateLimited"`):
		n.refused.Add(1)
	default:
		t.Errorf("the neighbour is answered %s %v %s", answer.Status, answer.Header, text)
	}
}
