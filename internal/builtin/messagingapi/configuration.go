package messagingapi

import (
	"cmp"
	"errors"

	"github.com/go-json-experiment/json"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/endpoint"
	"parley/internal/fault"
	"parley/internal/outbound"
)

// Configuration is what an installation is set to.
type Configuration struct {
	ResponseEndpointURL string      // "" = there is none
	WebhookSecret       auth.Secret // signs what goes there; "" = nothing does
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
	for member, url := range map[string]string{"responseEndpointUrl": in.URL, "responseEndpointURL": in.OldURL} {
		if url == "" {
			continue
		}
		if _, err := client.Check(url); err != nil {
			return fault.InvalidPayload.New("configuration.%s can never be called: %s%s", member, err, wayOut(err))
		}
	}
	return nil
}

// wayOut is what helps where an address was the reason.
func wayOut(err error) string {
	if refused, ok := errors.AsType[*outbound.RefusedError](err); ok && refused.Addr.IsValid() {
		return "; the operator of the server allows networks with --allow-outbound"
	}
	return ""
}
