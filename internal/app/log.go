package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"strings"
)

// newLogger makes the logger of a server. Whatever is logged, tokens, keys and
// passwords do not reach the log.
func newLogger(to io.Writer, level slog.Level, format string) *slog.Logger {
	if to == nil {
		return slog.New(slog.DiscardHandler)
	}
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: redactAttr}
	if format == "text" || format == "auto" && isTerminal(to) {
		return slog.New(redacting{slog.NewTextHandler(to, o)})
	}
	return slog.New(redacting{slog.NewJSONHandler(to, o)})
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// redacting cleans messages; the attributes go through redactAttr.
type redacting struct{ slog.Handler }

func (h redacting) Handle(ctx context.Context, r slog.Record) error {
	r.Message = redact(r.Message)
	return h.Handler.Handle(ctx, r)
}

func (h redacting) WithAttrs(a []slog.Attr) slog.Handler { return redacting{h.Handler.WithAttrs(a)} }
func (h redacting) WithGroup(name string) slog.Handler   { return redacting{h.Handler.WithGroup(name)} }

const redacted = "[redacted]"

// Attributes that never show their value, whatever it is.
var secretKeys = map[string]bool{
	"authorization": true, "cookie": true, "set-cookie": true, "x-user-key": true, "x-admin-secret": true, "x-secret-key": true,
	"token": true, "key": true, "userkey": true, "password": true, "secret": true, "signingsecret": true,
	"encryptionkey": true, "webhooksecret": true, "masterkey": true,
}

func redactAttr(_ []string, a slog.Attr) slog.Attr {
	if secretKeys[strings.ToLower(strings.NewReplacer("_", "", " ", "").Replace(a.Key))] {
		return slog.String(a.Key, redacted)
	}
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(redact(a.Value.String()))
	case slog.KindAny:
		switch v := a.Value.Any().(type) {
		case error:
			a.Value = slog.StringValue(redact(v.Error()))
		case fmt.Stringer:
			a.Value = slog.StringValue(redact(v.String()))
		case []string, []byte, map[string]string, map[string][]string:
			a.Value = slog.StringValue(redact(fmt.Sprintf("%s", v)))
		}
	}
	return a
}

// What a secret looks like in running text. User keys travel in queries, so a
// query goes whole wherever a path stands before it.
var secretForms = []struct {
	form *regexp.Regexp
	put  string
}{
	{regexp.MustCompile(`\b(bp_[a-z]{3})_[A-Za-z0-9_-]{8,}`), "${1}_" + redacted},
	{regexp.MustCompile(`\bwhsec_[A-Za-z0-9+/=_-]{8,}`), "whsec_" + redacted},
	{regexp.MustCompile(`\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*`), redacted},
	{regexp.MustCompile(`(://[^\s/?#:@]*):[^\s/?#@]*@`), "${1}:" + redacted + "@"},
	{regexp.MustCompile(`(?i)\b(authorization|x-user-key|x-secret-key|password|encryptionKey|webhookSecret|signingSecret)(["']?\s*[:=]\s*["']?)(bearer\s+)?[^\s"'&,}]+`), "${1}${2}" + redacted},
	{regexp.MustCompile(`(/[^\s?"'<>]*)\?[^\s"'<>]+`), "${1}"},
}

func redact(s string) string {
	// Most texts hold none of these; three scans are cheaper than six expressions.
	if !strings.ContainsAny(s, "?@=:.") && !strings.Contains(s, "bp_") && !strings.Contains(s, "whsec_") {
		return s
	}
	for _, f := range secretForms {
		s = f.form.ReplaceAllString(s, f.put)
	}
	return s
}
