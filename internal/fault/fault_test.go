package fault

import (
	"errors"
	"fmt"
	"regexp"
	"testing"
	"time"
)

func TestKindsAreThe26OfTheAPI(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Kinds() {
		if k.Status < 400 || k.Status > 599 || k.Description == "" || seen[k.Type] {
			t.Errorf("kind %+v is malformed or doubled", k)
		}
		seen[k.Type] = true
	}
	if len(seen) != 26 {
		t.Errorf("got %d kinds, want 26", len(seen))
	}
}

func TestFromKeepsTheClientsSentence(t *testing.T) {
	e := ReferenceNotFound.New("User %q doesn't exist for bot %q", "u", "b")
	if got := From(fmt.Errorf("create message: %w", e)); got != e {
		t.Errorf("got %v, want the wrapped error itself", got)
	}
	outage := errors.New("dial tcp 10.0.0.1:5432: refused")
	got := From(outage)
	if got.Kind != Internal || got.Message != "An internal error occurred" || !errors.Is(got, outage) {
		t.Errorf("an outage became %+v", got)
	}
}

func TestNewIDHasTheDocumentedForm(t *testing.T) {
	got := NewID(time.UnixMilli(1701413466111))
	if !regexp.MustCompile(`^err_1701413466111x[0-9A-F]{8}$`).MatchString(got) {
		t.Errorf("got %q", got)
	}
}
