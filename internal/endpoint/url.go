package endpoint

import (
	"net/url"

	"parley/internal/fault"
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
