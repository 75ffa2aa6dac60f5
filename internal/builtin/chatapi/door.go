package chatapi

import (
	"context"
	"net/http"
	"strings"

	"parley/internal/auth"
	"parley/internal/fault"
)

// Installation is an installation of `chat` with what its configuration says.
type Installation struct {
	auth.Installation
	BotID, WorkspaceID string
	EncryptionKey      string // "" = the installation's own key signs
}

// Installations finds the installation behind a door, nil if there is none.
type Installations interface {
	ByWebhook(ctx context.Context, webhookID string) (*Installation, error)
}

// installation finds the installation a request's door belongs to. Clients know
// by the words in brackets that they have a wrong webhook id.
func (s *Service) installation(ctx context.Context, webhookID string) (*Installation, error) {
	in, err := s.Installations.ByWebhook(ctx, webhookID)
	if err != nil {
		return nil, err
	}
	if in == nil || in.Removed {
		return nil, fault.ResourceNotFound.New("[Webhook Handler] No installation has the webhook id %q", webhookID)
	}
	if !in.Enabled {
		return nil, fault.Forbidden.New("The integration %q is disabled in bot %q", in.Alias, in.BotID)
	}
	return in, nil
}

// Admit decides who a request to a door acts as. For the class Chat the user of
// a valid key need not exist yet: UserID is "" then, and only getOrCreateUser
// goes on. TokenID is what chat clients call the user.
func (s *Service) Admit(r *http.Request, class auth.Class) (auth.Principal, error) {
	ctx := r.Context()
	in, err := s.installation(ctx, r.PathValue("webhookId"))
	if err != nil {
		return auth.Principal{}, err
	}
	p := auth.Principal{Kind: auth.Anonymous, WorkspaceID: in.WorkspaceID, BotID: in.BotID, InstallationID: in.ID, Alias: in.Alias}
	if class == auth.Public {
		return p, nil
	}
	p.Kind = auth.ChatUser
	if p.TokenID, err = s.verify(in, userKey(r)); err != nil {
		return auth.Principal{}, err
	}
	c, err := s.Messaging.CallerFor(ctx, in.BotID, in.ID)
	if err != nil {
		return auth.Principal{}, err
	}
	u, err := s.user(ctx, c, p.TokenID)
	if u != nil {
		p.UserID, p.TokenID = u.ID, s.nameOf(u.ID, u.Tags)
	}
	return p, err
}

// userKey takes the key from its header or, for streams opened by a browser,
// from the query.
func userKey(r *http.Request) string {
	if key := r.Header.Get("X-User-Key"); key != "" {
		return key
	}
	// The escaped path: an id may hold a slash.
	if strings.HasSuffix(strings.TrimSuffix(r.URL.EscapedPath(), "/"), "/listen") {
		return r.URL.Query().Get("x-user-key")
	}
	return ""
}

// verify returns the user id a key was signed for.
func (s *Service) verify(in *Installation, key string) (string, error) {
	if key == "" {
		return "", fault.Unauthorized.New("The header x-user-key is missing; createUser answers a key, or sign one with the encryption key of this installation")
	}
	return auth.VerifyUserKey(s.signingKey(in), key, s.Now())
}
