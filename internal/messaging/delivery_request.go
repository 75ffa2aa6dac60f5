package messaging

import (
	"context"
	"io"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"parley/internal/api"
	"parley/internal/delivery"
	"parley/internal/sqldb"
)

// deliveryRequest is what is sent for a delivery.
type deliveryRequest struct {
	Method  string            `json:"method"`
	URL     string            `json:"url" doc:"builtin:NAME for what runs inside Parley."`
	Headers map[string]string `json:"headers" doc:"What is secret is shown as ***."`
	Body    api.Raw           `json:"body"`
}

// secretHeaders carry configurations and what proves a request to be genuine.
var secretHeaders = map[string]bool{
	"authorization": true, "cookie": true, "webhook-signature": true, "x-bp-configuration": true, "x-secret-key": true,
}

const masked = "***"

// request puts together what would be sent for a delivery now, or says why
// there is nothing to send.
func (s *Service) request(ctx context.Context, d *Delivery) (r *deliveryRequest, why string, err error) {
	w, err := s.work(ctx, d)
	switch {
	case err != nil:
		return nil, "", err
	case w.Skip != nil:
		return nil, w.Skip.Reason, nil
	}
	sent, err := s.Sketch(ctx, d.route().Endpoint, w.Operation)
	if err != nil {
		return nil, err.Error(), nil
	}
	r = &deliveryRequest{Method: sent.Method, URL: sent.URL.Redacted(), Headers: map[string]string{}}
	for name, values := range sent.Header {
		name = strings.ToLower(name)
		if r.Headers[name] = strings.Join(values, ", "); secretHeaders[name] {
			r.Headers[name] = masked
		}
	}
	r.Body, err = bodyOf(sent)
	return r, "", err
}

// work is what the delivery engine would get for a delivery.
func (s *Service) work(ctx context.Context, d *Delivery) (*delivery.Work, error) {
	q := s.DB.Reader(ctx)
	if d.InstallationID == "" {
		e, err := sqldb.One[Event](q, "events", "WHERE bot_id = $1 AND id = $2", d.BotID, d.ID)
		if err != nil {
			return nil, err
		}
		e.Status, e.Reason = Pending, "" // as it is when it is sent
		return s.eventWork(ctx, e, nil)
	}
	o, err := sqldb.One[outgoing](q, "outbox", "WHERE bot_id = $1 AND id = $2", d.BotID, d.ID)
	if err != nil {
		return nil, err
	}
	return s.entryWork(ctx, o)
}

// bodyOf is the body of a request as JSON: what is none is shown as a string.
func bodyOf(r *http.Request) (api.Raw, error) {
	if r.Body == nil {
		return nil, nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || jsontext.Value(body).IsValid(jsontext.AllowDuplicateNames(true)) {
		return body, err
	}
	return json.Marshal(strings.ToValidUTF8(string(body), "\uFFFD"))
}
