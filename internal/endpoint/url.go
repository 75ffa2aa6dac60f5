package endpoint

import (
	"errors"
	"net/url"

	"parley/internal/fault"
	"parley/internal/outbound"
)

// CheckURL refuses a text that is no place where something can run: the member
// url of a bot or an integration.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return fault.InvalidPayload.New("url must be an absolute http or https URL, not %.200q", text)
	case u.User != nil:
		return fault.InvalidPayload.New("url must not hold credentials: it shows up in logs")
	}
	return nil
}

// CheckWebhook refuses a URL that can never be called. It is the member of a
// configuration that the fault names, and it may be "", which stands for none.
func CheckWebhook(client Client, member, text string) error {
	if text == "" {
		return nil
	}
	_, err := client.Check(text)
	if refused, ok := errors.AsType[*outbound.RefusedError](err); ok && refused.Addr.IsValid() {
		return fault.InvalidPayload.New("%s can never be called: %s; the operator of the server allows networks with --allow-outbound", member, err)
	}
	if err != nil {
		return fault.InvalidPayload.New("%s can never be called: %s", member, err)
	}
	return nil
}
