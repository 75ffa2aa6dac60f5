package chatapi

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/realtime"
)

// listenInput documents how a stream is opened. Beyond the published API, a
// position continues one: all signals after it are sent first.
type listenInput struct {
	ID        string `path:"id"`
	Header    string `header:"Last-Event-ID" doc:"Continues after this position, the id of the last event received."`
	UserKey   string `query:"x-user-key" doc:"The user key, for clients that cannot send headers."`
	LastEvent string `query:"lastEventId" doc:"Like Last-Event-ID."`
	After     string `query:"after" doc:"Like Last-Event-ID."`
}

func (s *Service) listenOp() api.Op {
	return api.HandleRaw("listenConversation", "GET /conversations/{id}/listen", auth.Chat, s.listenConversation, api.Takes[listenInput], api.Produces("text/event-stream"),
		api.Doc("Streams the signals of a conversation as server-sent events, or as WebSocket messages after an upgrade."))
}

// position is where the stream starts: the first of the three that is given,
// -1 for shortly before now.
func (in listenInput) position() (int64, error) {
	for _, p := range []struct{ name, value string }{{"Last-Event-ID", in.Header}, {"lastEventId", in.LastEvent}, {"after", in.After}} {
		if p.value == "" {
			continue
		}
		n, err := strconv.ParseInt(p.value, 10, 64)
		if err != nil || n < 0 {
			return 0, fault.InvalidQuery.New("%s %.40q is no position; send the id of the last event received", p.name, p.value)
		}
		return n, nil
	}
	return -1, nil
}

func (s *Service) listenConversation(w http.ResponseWriter, r *http.Request) error {
	in, err := api.Params[listenInput](r)
	if err != nil {
		return err
	}
	after, err := in.position()
	if err != nil {
		return err
	}
	m, err := s.me(r.Context())
	if err != nil {
		return err
	}
	v, err := s.conversation(s.DB.Reader(r.Context()), m, in.ID, participant)
	if err != nil {
		return err
	}
	serve := s.Hub.ServeSSE
	if realtime.WantsWebSocket(r) {
		serve = s.Hub.ServeWebSocket
	}
	who := m.listener(v.ID)
	err = serve(w, r, realtime.Listen{Topic: v.ID, After: after, Groups: m.groups(v.ID), Allowed: func(ctx context.Context) (bool, error) {
		return s.allowed(ctx, who)
	}})
	switch {
	case errors.Is(err, realtime.ErrNotAllowed):
		return orForbidden(nil, "conversation", in.ID)
	case errors.Is(err, realtime.ErrShuttingDown):
		return fault.RateLimited.Wrap(err, "The server is stopping; listen again in a second")
	}
	return err
}

// groups names what a stream depends on, as messaging and the bot module end them.
func (m me) groups(conversationID string) []string {
	return []string{"inst:" + m.Installation.ID, "user:" + m.UserID, "conv:" + conversationID, "conv:" + conversationID + ":user:" + m.UserID}
}

// listener is all that a stream keeps of who listens, for as long as it lasts. What
// stands behind these ids changes meanwhile, and may be large.
type listener struct{ webhookID, userID, conversationID string }

func (m me) listener(conversationID string) listener {
	return listener{m.Installation.WebhookID, m.UserID, conversationID}
}

// allowed reports whether a stream may go on: the door is open, the user is
// there and takes part.
func (s *Service) allowed(ctx context.Context, who listener) (bool, error) {
	err := s.checkListener(ctx, who)
	if _, refused := errors.AsType[*fault.Error](err); refused {
		return false, nil
	}
	return err == nil, err
}

func (s *Service) checkListener(ctx context.Context, who listener) error {
	in, err := s.installation(ctx, who.webhookID)
	if err != nil {
		return err
	}
	c, err := s.Messaging.CallerFor(ctx, in.BotID, in.ID)
	if err != nil {
		return err
	}
	q := s.DB.Reader(ctx)
	if _, err := s.Messaging.User(q, c, who.userID); err != nil {
		return err
	}
	_, err = s.conversation(q, me{c, who.userID}, who.conversationID, participant)
	return err
}
