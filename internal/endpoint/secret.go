package endpoint

import (
	"net/http"
	"strings"

	"parley/internal/fault"
	"parley/internal/signing"
)

// maxSecret is how long the secret of a webhook may be: it is a header.
const maxSecret = 1000

// CheckSecret refuses a secret that cannot go along with the calls of a webhook.
// It is the member of a configuration that the fault names, and it may be "",
// which stands for none.
func CheckSecret(member, text string) error {
	if len(text) > maxSecret || strings.TrimSpace(text) != text || strings.IndexFunc(text, notInHeaders) >= 0 {
		return fault.InvalidPayload.New("%s is sent in a header, so it must have at most %d printable ASCII characters and no space around them", member, maxSecret)
	}
	return nil
}

// WithSecret is op with the secret of a webhook in clear, in the header
// x-secret-key: for receivers that check no signatures. Of two secrets it is the
// first, the newer one. Without a secret it is op.
func (op Operation) WithSecret(text string) Operation {
	secrets := signing.Split(text)
	if len(secrets) == 0 {
		return op
	}
	h := op.Header.Clone()
	if h == nil {
		h = http.Header{}
	}
	h["X-Secret-Key"] = []string{string(secrets[0])}
	op.Header = h
	return op
}
