// Package signing proves to a receiver that a request comes from this server
// and was not changed on its way: it signs in the form of Standard Webhooks,
// and keeps the secrets of what is signed for, two of them while one replaces
// the other. It knows no resource: an owner is any text.
package signing

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"parley/internal/auth"
)

// The headers of a signed request, in canonical spelling.
const (
	HeaderID        = "Webhook-Id"        // of the message, the same on every attempt
	HeaderTimestamp = "Webhook-Timestamp" // of the attempt, in seconds
	HeaderSignature = "Webhook-Signature" // v1,BASE64 for each secret, separated by spaces
)

// Tolerance is how far the time of a request may lie from the receiver's.
const Tolerance = 5 * time.Minute

const (
	prefix      = "whsec_"
	version     = "v1,"
	secretBytes = 32
)

// NewSecret makes a secret in the form of Standard Webhooks.
func NewSecret() auth.Secret {
	var b [secretBytes]byte
	rand.Read(b[:])
	return auth.Secret(prefix + base64.StdEncoding.EncodeToString(b[:]))
}

// Split reads a setting that holds a secret, or two with a space between them
// while the first replaces the second. Any other text is one secret.
func Split(text string) []auth.Secret {
	if first, second, two := strings.Cut(text, " "); two && first != "" && second != "" && !strings.Contains(second, " ") {
		return []auth.Secret{auth.Secret(first), auth.Secret(second)}
	}
	if text == "" {
		return nil
	}
	return []auth.Secret{auth.Secret(text)}
}

// keyOf is what a secret signs with: the bytes behind whsec_, or its own where
// it is not of that form.
func keyOf(secret auth.Secret) []byte {
	if text, ok := strings.CutPrefix(string(secret), prefix); ok {
		if b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "=")); err == nil && len(b) > 0 {
			return b
		}
	}
	return []byte(secret)
}

// Signer signs requests with the secrets of one owner. It is safe for
// concurrent use. A nil Signer signs nothing.
type Signer struct {
	keys []*key
	now  func() time.Time
}

// key signs with one secret.
type key struct {
	until time.Time // zero = for good
	macs  sync.Pool // of *mac: a key is prepared once
}

type mac struct {
	hash.Hash
	sum [sha256.Size]byte
}

func newKey(secret auth.Secret, until time.Time) *key {
	k := &key{until: until}
	b := keyOf(secret)
	k.macs.New = func() any { return &mac{Hash: hmac.New(sha256.New, b)} }
	return k
}

// New makes a signer of secrets that all sign for good. Without a secret it is nil.
func New(now func() time.Time, secrets ...auth.Secret) *Signer {
	if len(secrets) == 0 {
		return nil
	}
	s := &Signer{now: now}
	for _, secret := range secrets {
		s.keys = append(s.keys, newKey(secret, time.Time{}))
	}
	return s
}

// Sign adds to h, which has a webhook-id, the time and a signature of body with
// every secret that is in use.
func (s *Signer) Sign(h http.Header, body []byte) {
	if s == nil {
		return
	}
	now := s.now()
	at := strconv.FormatInt(now.Unix(), 10)
	head := h.Get(HeaderID) + "." + at + "."
	out := make([]byte, 0, 2*(len(version)+base64.StdEncoding.EncodedLen(sha256.Size))+1)
	for _, k := range s.keys {
		if !k.until.IsZero() && !now.Before(k.until) {
			continue
		}
		if len(out) > 0 {
			out = append(out, ' ')
		}
		out = k.sign(append(out, version...), head, body)
	}
	h[HeaderTimestamp], h[HeaderSignature] = []string{at}, []string{string(out)}
}

func (k *key) sign(out []byte, head string, body []byte) []byte {
	m := k.macs.Get().(*mac)
	m.Reset()
	_, _ = m.Write([]byte(head)) // a hash never fails
	_, _ = m.Write(body)
	out = base64.StdEncoding.AppendEncode(out, m.Sum(m.sum[:0]))
	k.macs.Put(m)
	return out
}

// ErrUnsigned says that a request carries no signature.
var ErrUnsigned = errors.New("the request carries no signature")

// Verify tells a receiver whether a request with these headers and exactly
// these bytes was signed with one of the secrets. It returns nil, ErrUnsigned,
// or what is wrong.
func Verify(h http.Header, body []byte, now time.Time, secrets ...auth.Secret) error {
	id, at, signatures := h.Get(HeaderID), h.Get(HeaderTimestamp), h.Get(HeaderSignature)
	switch {
	case signatures == "":
		return ErrUnsigned
	case id == "" || at == "":
		return errors.New("webhook-id or webhook-timestamp is missing")
	}
	seconds, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return fmt.Errorf("webhook-timestamp %.40q is no number of seconds", at)
	}
	if off := now.Sub(time.Unix(seconds, 0)).Abs(); off > Tolerance {
		return fmt.Errorf("webhook-timestamp is %s off, more than %s", off.Round(time.Second), Tolerance)
	}
	for _, secret := range secrets {
		want := newKey(secret, time.Time{}).sign(nil, id+"."+at+".", body)
		for one := range strings.FieldsSeq(signatures) {
			if got, ok := strings.CutPrefix(one, version); ok && hmac.Equal([]byte(got), want) {
				return nil
			}
		}
	}
	return errors.New("no signature is of this body with this secret")
}
