package auth

import (
	"errors"
	"log/slog"
)

// Secret is text that must not leave by accident: it refuses to become JSON
// and prints as a placeholder. Convert it to string where it is meant to leave.
type Secret string

const redacted = "[redacted]"

func (Secret) String() string       { return redacted }
func (Secret) GoString() string     { return redacted }
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON always fails.
func (Secret) MarshalJSON() ([]byte, error) {
	return nil, errors.New("auth: a secret has no JSON form")
}
