package app

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

func TestSecretsDoNotReachTheLog(t *testing.T) {
	t.Parallel()
	const (
		token = "bp_pat_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
		whsec = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw+/8="
		jwt   = "eyJhbGciOiJIUzI1NiJ9.eyJpZCI6InUifQ.c2lnbmF0dXJl"
	)
	for _, format := range []string{"text", "json"} {
		var b bytes.Buffer
		log := newLogger(&b, slog.LevelDebug, format)
		log.Info("got "+token, "why", "Bearer "+token)
		log.Info("request", "authorization", "Basic aHVudGVyMg==", "X-User-Key", jwt)
		log.Info("request", "path", "/conversations/1/listen?x-user-key="+jwt)
		log.Error("connect", "err", errors.New("dial postgres://parley:hunter2@db:5432/parley: refused"))
		log.Info("header", "sent", map[string][]string{"Authorization": {"Bearer " + token}})
		log.With("token", "hunter2").WithGroup("g").Info("with " + jwt)
		log.Info("body", "raw", []byte(`{"encryptionKey":"hunter2"}`))
		log.Info("signs with " + whsec + " and\n" + whsec)
		log.Info("set up", "with", []byte(`{"webhookUrl":"https://a.example.com","webhookSecret":"hunter2"}`), "webhookSecret", "hunter2")
		for _, secret := range []string{token, jwt, whsec[6:], "hunter2", "aHVudGVyMg", "eyJpZCI6InUifQ"} {
			if strings.Contains(b.String(), secret) {
				t.Errorf("%s: %s stands in the log:\n%s", format, secret, b.String())
			}
		}
		for _, kept := range []string{"/conversations/1/listen", "db:5432/parley: refused", "bp_pat_"} {
			if !strings.Contains(b.String(), kept) {
				t.Errorf("%s: %s is missing from the log:\n%s", format, kept, b.String())
			}
		}
	}
}

func TestOrdinaryTextIsLoggedAsItIs(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"user \"user_01ABC\" does not exist", "listening on http://127.0.0.1:7400", "really? yes", "https://example.com/hook",
		"bot:bot_1:conv:conv_2", "attempt 2 of 4: 503 Service Unavailable",
	} {
		if got := redact(s); got != s {
			t.Errorf("redact(%q) = %q", s, got)
		}
	}
}
