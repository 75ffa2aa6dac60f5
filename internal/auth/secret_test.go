package auth

import (
	"bytes"
	stdjson "encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

func TestSecretStaysIn(t *testing.T) {
	t.Parallel()
	const s = Secret("hunter2")
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "s", s)
	printed := fmt.Sprintf("%s %v %+v %#v %q", s, s, struct{ S Secret }{s}, s, s) + fmt.Sprint(s) + log.String()
	if strings.Contains(printed, "hunter2") {
		t.Errorf("the secret got out: %s", printed)
	}
	if b, err := stdjson.Marshal(struct{ S Secret }{s}); err == nil {
		t.Errorf("encoded as %s", b)
	}
	if b, err := json.Marshal(struct{ S Secret }{s}); err == nil {
		t.Errorf("encoded as %s", b)
	}
	if string(s) != "hunter2" {
		t.Error("the conversion to string must show it")
	}
}
