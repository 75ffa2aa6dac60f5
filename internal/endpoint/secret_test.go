package endpoint

import (
	"net/http"
	"strings"
	"testing"

	"parley/internal/fault"
)

func TestCheckSecret(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "s", "whsec_c2VjcmV0", "new old", strings.Repeat("x", maxSecret)} {
		if err := CheckSecret("configuration.webhookSecret", text); err != nil {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	for _, text := range []string{" s", "s ", "s\n", "a\tb", "é", "\x00", "\x7f", strings.Repeat("x", maxSecret+1)} {
		err := CheckSecret("configuration.webhookSecret", text)
		if !fault.Is(err, fault.InvalidPayload) || !strings.HasPrefix(fault.From(err).Message, "configuration.webhookSecret is sent in a header") || strings.Contains(err.Error(), text) && len(text) > 2 {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}

func TestWithSecret(t *testing.T) {
	t.Parallel()
	given := http.Header{"X-One": {"1"}}
	for text, want := range map[string]string{"": "", "s": "s", "new old": "new", "three of them": "three of them"} {
		for _, h := range []http.Header{nil, given} {
			op := Operation{Name: "signal", Header: h}.WithSecret(text)
			if got := op.Header.Get("X-Secret-Key"); got != want || op.Name != "signal" || op.Header.Get("X-One") != h.Get("X-One") {
				t.Errorf("%q: got %v", text, op)
			}
		}
	}
	if len(given) != 1 {
		t.Errorf("the header of the operation was changed: %v", given)
	}
}
