package chatapi

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"parley/internal/api"
	"parley/internal/endpoint"
)

// Name is what the integration is called.
const Name = "chat"

// OpSignal is the operation that an installation with a webhook is told of a
// signal by. Its body is the text of the signal.
const OpSignal = "signal"

// Webhook is the place that an installation tells of every signal, as its
// configuration names it.
type Webhook struct {
	URL    string // "" = there is none
	Secret string // sent along in x-secret-key; two of them while one replaces the other
}

// WebhookOf reads the webhook in a configuration.
func WebhookOf(configuration api.Object) Webhook {
	var w Webhook
	w.URL, _ = configuration.Member("webhookUrl").Text()
	w.Secret, _ = configuration.Member("webhookSecret").Text()
	return w
}

// CheckConfiguration refuses a configuration that fits the schema of the
// integration and names a webhook that cannot be called. It asks no name server.
func CheckConfiguration(client endpoint.Client, configuration api.Object) error {
	w := WebhookOf(configuration)
	if err := endpoint.CheckWebhook(client, "configuration.webhookUrl", w.URL); err != nil {
		return err
	}
	return endpoint.CheckSecret("configuration.webhookSecret", w.Secret)
}

var errNoWebhook = &endpoint.Error{Class: endpoint.Ignored, Err: errors.New("the installation has no webhook any more; set webhookUrl in its configuration")}

// Endpoint is where the operations of an installation with this webhook go.
func (w Webhook) Endpoint(client endpoint.Client) endpoint.Endpoint {
	return endpoint.NewBuiltin(func(ctx context.Context, op endpoint.Operation) (endpoint.Answer, error) {
		switch {
		case op.Name != OpSignal:
			return endpoint.Answer{}, &endpoint.Error{Class: endpoint.Final, Err: fmt.Errorf("the integration %s has no operation %q", Name, op.Name)}
		case w.URL == "":
			return endpoint.Answer{}, errNoWebhook
		}
		return endpoint.NewWebhook(withSlash(w.URL), client).Invoke(ctx, op.WithSecret(w.Secret))
	})
}

// withSlash ends the path of a URL with a slash.
//
// Compat: the official integration joins its URL with "/", so receivers have
// their route there.
func withSlash(text string) string {
	u, err := url.Parse(text)
	if err != nil || strings.HasSuffix(u.Path, "/") {
		return text
	}
	if u.RawPath != "" {
		u.RawPath += "/"
	}
	u.Path += "/"
	return u.String()
}
