package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
)

// The kinds of token, as they stand in a token's text and in its row.
const (
	PAT = "pat" // a person's
	BAK = "bak" // a bot's
	IAK = "iak" // an integration's
)

const (
	tokenBrand = "bp_"
	secretLen  = 43 // 256 bits in unpadded base64url
)

// Token is a stored credential. Its text is stored nowhere.
type Token struct {
	ID            string
	Kind          string // PAT, BAK or IAK
	AccountID     string // of a PAT
	WorkspaceID   string // a PAT with one reaches only that workspace
	BotID         string // of a BAK
	IntegrationID string // of an IAK
	ExpiresAt     int64  // milliseconds since the epoch, 0 = never
}

// NewToken makes a token of a kind. The text is shown to its owner once; the
// hash is what is kept.
func NewToken(kind string) (text, hash string) {
	var b [32]byte
	rand.Read(b[:])
	text = tokenBrand + kind + "_" + base64.RawURLEncoding.EncodeToString(b[:])
	return text, HashToken(text)
}

// HashToken is the form a token is looked up by. A fast hash is enough: the
// text holds 256 random bits, so there is nothing to guess.
func HashToken(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// wellFormed reports whether text has the form NewToken gives, so that junk
// costs no look-up.
func wellFormed(text string) bool {
	rest, ok := strings.CutPrefix(text, tokenBrand)
	if !ok {
		return false
	}
	kind, secret, ok := strings.Cut(rest, "_")
	if !ok || kind != PAT && kind != BAK && kind != IAK || len(secret) != secretLen {
		return false
	}
	for _, c := range []byte(secret) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// bearer cuts the token out of the values of an Authorization header. The
// scheme is matched in any case; two headers are nobody's intent and refused.
func bearer(values []string) (string, bool) {
	if len(values) != 1 {
		return "", false
	}
	scheme, text, ok := strings.Cut(strings.TrimSpace(values[0]), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	text = strings.TrimLeft(text, " ")
	return text, wellFormed(text)
}
