package messagingapi

import (
	"net/http"

	"parley/internal/auth"
	"parley/internal/fault"
)

// Admit decides who a request to a door acts as: the installation, for a person
// or a bot whose token reaches the bot. That replies can reach anybody is asked
// before that.
//
// Compat: the original answers errors in plain text, with 400 for most; here they
// are JSON with the types and statuses of all other APIs.
func (s *Service) Admit(r *http.Request, _ auth.Class) (auth.Principal, error) {
	webhookID := r.PathValue("webhookId")
	in, err := s.Installations.ByWebhook(r.Context(), webhookID)
	switch {
	case err != nil:
		return auth.Principal{}, err
	case in == nil || in.Removed:
		return auth.Principal{}, fault.ResourceNotFound.New("[Webhook Handler] No installation has the webhook id %q", webhookID)
	case !in.Enabled:
		return auth.Principal{}, fault.Forbidden.New("the integration %q is disabled in its bot", in.Alias)
	case in.Configuration.ResponseEndpointURL == "" && !r.URL.Query().Has("wait"):
		return auth.Principal{}, fault.InvalidPayload.New("The integration %q has no response endpoint, so nobody would get the bot's replies; set responseEndpointUrl in its configuration, or ask for the replies in the answer with ?wait=10", in.Alias)
	}
	return s.Enter(r, in.BotID, &in.Installation)
}
