package auth

import (
	"encoding/base64"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"

	"parley/internal/fault"
)

const (
	maxUserKeyBytes = 4 << 10
	maxUserIDChars  = 200
)

// SignUserKey makes the user key of a chat user: a JWT, HS256, with the claims
// id and iat. The secret is the installation's encryption key or its
// InstallationKey and must not be empty.
func SignUserKey(secret []byte, userID string, now time.Time) string {
	if len(secret) == 0 {
		panic("auth: a user key needs a secret")
	}
	t := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"id": userID, "iat": now.Unix()})
	text, err := t.SignedString(secret)
	if err != nil {
		panic("auth: sign user key: " + err.Error()) // strings and numbers always encode
	}
	return text
}

// The methods HS256 alone: a key that names another algorithm, or none, is
// refused before its signature is looked at. Strict decoding leaves each key
// exactly one spelling.
var userKeyParser = jwt.NewParser(
	jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
	jwt.WithoutClaimsValidation(), // VerifyUserKey does it, with fractions and without overflow
	jwt.WithStrictDecoding(),
)

// VerifyUserKey checks a user key and returns the user it names: the id claim,
// which a client may have chosen. Every refusal is Unauthorized with one and the
// same sentence, so that a stranger learns nothing from trying; the cause goes to
// the log.
func VerifyUserKey(secret []byte, text string, now time.Time) (userID string, err error) {
	claims, err := openUserKey(secret, text)
	if err == nil {
		userID, err = claims.user(now)
	}
	if err != nil {
		return "", fault.Unauthorized.Wrap(err, "The user key is not valid here; send in x-user-key the key that createUser answered, or one signed with the encryption key of this installation")
	}
	return userID, nil
}

func openUserKey(secret []byte, text string) (userKeyClaims, error) {
	switch {
	case len(secret) == 0:
		return nil, errors.New("no secret to check with")
	case len(text) > maxUserKeyBytes:
		return nil, errors.New("longer than 4 KB")
	}
	if err := checkHeader(text); err != nil {
		return nil, err
	}
	var claims userKeyClaims
	_, err := userKeyParser.ParseWithClaims(text, &claims, func(*jwt.Token) (any, error) { return secret, nil })
	return claims, err
}

// checkHeader refuses what the parser would overlook: a member given twice, and
// extensions that the issuer marks as critical.
func checkHeader(text string) error {
	head, _, _ := strings.Cut(text, ".")
	b, err := base64.RawURLEncoding.Strict().DecodeString(head)
	if err != nil {
		return err
	}
	var members map[string]jsontext.Value
	if err := json.Unmarshal(b, &members); err != nil {
		return err
	}
	if _, ok := members["crit"]; ok {
		return errors.New("header member crit is not supported")
	}
	return nil
}

// userKeyClaims are the claims as they came, so that a wrong type is refused
// and never converted.
type userKeyClaims map[string]jsontext.Value

// UnmarshalJSON refuses a claim that is given twice.
func (c *userKeyClaims) UnmarshalJSON(b []byte) error {
	var m map[string]jsontext.Value
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	*c = m
	return nil
}

func (c userKeyClaims) user(now time.Time) (string, error) {
	exp, hasExp, err := c.seconds("exp")
	if err != nil {
		return "", err
	}
	nbf, hasNbf, err := c.seconds("nbf")
	if err != nil {
		return "", err
	}
	at := float64(now.UnixMilli()) / 1000
	switch {
	case hasExp && at >= exp:
		return "", errors.New("expired")
	case hasNbf && at < nbf:
		return "", errors.New("not valid yet")
	}
	return c.id()
}

func (c userKeyClaims) seconds(name string) (v float64, ok bool, err error) {
	raw, ok := c[name]
	if !ok {
		return 0, false, nil
	}
	if raw.Kind() != '0' {
		return 0, false, errors.New("claim " + name + " is not a number")
	}
	err = json.Unmarshal(raw, &v)
	return v, true, err
}

func (c userKeyClaims) id() (string, error) {
	raw := c["id"]
	if raw.Kind() != '"' {
		return "", errors.New("claim id is not a string")
	}
	var id string
	if err := json.Unmarshal(raw, &id); err != nil {
		return "", err
	}
	if id == "" || utf8.RuneCountInString(id) > maxUserIDChars {
		return "", errors.New("claim id must have 1 to 200 characters")
	}
	if strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", errors.New("claim id holds a control character")
	}
	return id, nil
}

// The parser asks its claims for these; VerifyUserKey has its own checks.

func (userKeyClaims) GetExpirationTime() (*jwt.NumericDate, error) { return nil, nil }
func (userKeyClaims) GetIssuedAt() (*jwt.NumericDate, error)       { return nil, nil }
func (userKeyClaims) GetNotBefore() (*jwt.NumericDate, error)      { return nil, nil }
func (userKeyClaims) GetIssuer() (string, error)                   { return "", nil }
func (userKeyClaims) GetSubject() (string, error)                  { return "", nil }
func (userKeyClaims) GetAudience() (jwt.ClaimStrings, error)       { return nil, nil }
