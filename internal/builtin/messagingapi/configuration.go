package messagingapi

import (
	"cmp"

	"github.com/go-json-experiment/json"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/endpoint"
	"parley/internal/fault"
)

// Configuration is what an installation is set to.
type Configuration struct {
	ResponseEndpointURL string // "" = there is none
	// WebhookSecret goes along, and what goes there is signed with it; "" = the
	// bot's own secret signs.
	WebhookSecret auth.Secret
}

// settings are the members of a configuration. The endpoint has two names; the
// second is what older configurations carry.
type settings struct {
	URL    string `json:"responseEndpointUrl"`
	OldURL string `json:"responseEndpointURL"`
	Secret string `json:"webhookSecret"`
}

// ReadConfiguration reads a configuration that was checked when it was set.
func ReadConfiguration(text api.Object) (Configuration, error) {
	in, err := read(text)
	return Configuration{cmp.Or(in.URL, in.OldURL), auth.Secret(in.Secret)}, err
}

func read(text api.Object) (in settings, err error) {
	if len(text) > 0 {
		err = json.Unmarshal(text, &in)
	}
	return in, err
}

// CheckConfiguration refuses a configuration that fits the schema of the
// integration and is of no use all the same. It asks no name server.
func CheckConfiguration(client endpoint.Client, text api.Object) error {
	in, err := read(text)
	if err != nil {
		return fault.InvalidPayload.Wrap(err, "configuration is not that of the integration %q", Name)
	}
	if in.URL != "" && in.OldURL != "" && in.URL != in.OldURL {
		return fault.InvalidPayload.New("configuration.responseEndpointUrl and configuration.responseEndpointURL are two names of one setting and hold different URLs; send responseEndpointUrl alone")
	}
	if err := endpoint.CheckWebhook(client, "configuration.responseEndpointUrl", in.URL); err != nil {
		return err
	}
	if err := endpoint.CheckWebhook(client, "configuration.responseEndpointURL", in.OldURL); err != nil {
		return err
	}
	return endpoint.CheckSecret("configuration.webhookSecret", in.Secret)
}
