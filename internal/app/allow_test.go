package app

import (
	"net/netip"
	"strings"
	"testing"

	"parley/internal/auth"
	"parley/internal/workspace"
)

// A server that is not for development reaches a bot on its own machine or in
// its own network only where the operator has opened the range.
func TestServeReachesWhatItsOperatorAllows(t *testing.T) {
	t.Parallel()
	url, letters := postbox(t)
	for name, c := range map[string]struct {
		allow  string
		reason string // of the event that fails, "" = the bot gets it
	}{
		"nothing allowed":        {"", "the address 127.0.0.1 are not allowed"},
		"another range allowed":  {"10.0.0.0/8", "the address 127.0.0.1 are not allowed"},
		"the address is allowed": {"127.0.0.0/8", ""},
	} {
		s := start(t, func(cfg *Config) {
			cfg.Dev = false
			if c.allow != "" {
				cfg.AllowOutbound = []netip.Prefix{netip.MustParsePrefix(c.allow)}
			}
		})
		w, err := s.parts.workspace.Create(t.Context(), workspace.NewWorkspace{Email: "a@example.com", DisplayName: "A", Name: "W"})
		must(t, err)
		_, token, err := s.parts.workspace.CreateToken(t.Context(), workspace.Token{Kind: auth.PAT, AccountID: w.OwnerID})
		must(t, err)
		as := map[string]string{"Authorization": "Bearer " + string(token), "x-workspace-id": w.ID}
		as["x-bot-id"] = s.made("bot", "POST", "/v1/admin/bots", as, map[string]string{"url": url + "/bot"})
		eventID := s.made("event", "POST", "/v1/chat/events", as, map[string]any{"type": "custom", "payload": struct{}{}})
		s.idle()
		var got struct {
			Event struct {
				Status        string
				FailureReason *string
			}
		}
		s.call("GET", "/v1/chat/events/"+eventID, as, nil, &got)
		switch {
		case c.reason == "" && got.Event.Status == "processed" && len(letters) == 1:
			<-letters
		case c.reason != "" && got.Event.Status == "failed" && got.Event.FailureReason != nil && strings.Contains(*got.Event.FailureReason, c.reason) && len(letters) == 0:
		default:
			t.Errorf("%s: %d letters, the event is %s (%v)", name, len(letters), got.Event.Status, got.Event.FailureReason)
		}
	}
}
