package auth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"parley/internal/fault"
)

var userSecret = []byte("an encryption key of an installation")

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// signed puts a key together by hand, so that it may hold what no library would write.
func signed(secret []byte, header, claims string) string {
	text := b64(header) + "." + b64(claims)
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

const hs256 = `{"alg":"HS256","typ":"JWT"}`

func TestUserKeyRoundTrip(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"user_01AAAAAAAAAAAAAAAAAAAAAAAA", "u", `folder/a\b`, "Zoë \"x\"", strings.Repeat("é", 200)} {
		key := SignUserKey(userSecret, id, testNow)
		got, err := VerifyUserKey(userSecret, key, testNow)
		if err != nil || got != id {
			t.Errorf("got %q, %v; want %q", got, err, id)
		}
		if _, err := VerifyUserKey([]byte("another key"), key, testNow); !fault.Is(err, fault.Unauthorized) {
			t.Errorf("another installation took the key of %q: %v", id, err)
		}
	}
}

func TestUserKeyAccepts(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]string{
		"no typ":          signed(userSecret, `{"alg":"HS256"}`, `{"id":"u1"}`),
		"more claims":     signed(userSecret, hs256, `{"iss":"me","id":"u1","aud":["x"],"sub":3,"iat":"soon"}`),
		"exp ahead":       signed(userSecret, hs256, `{"id":"u1","exp":1772366401}`),
		"exp half ahead":  signed(userSecret, hs256, `{"id":"u1","exp":1772366400.5}`),
		"exp far ahead":   signed(userSecret, hs256, `{"id":"u1","exp":1e300}`),
		"nbf reached":     signed(userSecret, hs256, `{"id":"u1","nbf":1772366400}`),
		"iat in future":   signed(userSecret, hs256, `{"id":"u1","iat":9999999999}`),
		"just under 4 KB": signed(userSecret, hs256, `{"id":"u1","x":"`+strings.Repeat("x", 2900)+`"}`),
	} {
		if id, err := VerifyUserKey(userSecret, key, testNow); err != nil || id != "u1" {
			t.Errorf("%s: %q, %v", name, id, err)
		}
	}
}

// refusedKeys is the corpus of keys that must never pass, though most of them are well signed.
func refusedKeys(t testing.TB) map[string]string {
	good := SignUserKey(userSecret, "u1", testNow)
	parts := strings.Split(good, ".")
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	by := func(m jwt.SigningMethod, key any) string {
		s, err := jwt.NewWithClaims(m, jwt.MapClaims{"id": "u1"}).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	der, err := x509.MarshalPKIXPublicKey(&rsaKey.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	claims := func(c string) string { return signed(userSecret, hs256, c) }
	header := func(h string) string { return signed(userSecret, h, `{"id":"u1"}`) }
	return map[string]string{
		"empty":             "",
		"one part":          "abc",
		"two parts":         parts[0] + "." + parts[1],
		"four parts":        good + ".x",
		"dots":              "..",
		"space around":      " " + good,
		"bearer":            "Bearer " + good,
		"padding":           good + "=",
		"newline inside":    parts[0] + ".\n" + parts[1] + "." + parts[2],
		"standard alphabet": parts[0] + "." + parts[1] + "." + "++//" + parts[2],
		"huge":              claims(`{"id":"u1","x":"` + strings.Repeat("x", 4<<10) + `"}`),

		"alg none, no signature":   b64(`{"alg":"none"}`) + "." + b64(`{"id":"u1"}`) + ".",
		"alg None":                 b64(`{"alg":"None"}`) + "." + b64(`{"id":"u1"}`) + ".",
		"alg none, signed":         header(`{"alg":"none"}`),
		"alg empty":                header(`{"alg":""}`),
		"alg missing":              header(`{"typ":"JWT"}`),
		"alg null":                 header(`{"alg":null}`),
		"alg number":               header(`{"alg":256}`),
		"alg list":                 header(`{"alg":["HS256"]}`),
		"alg lower case":           header(`{"alg":"hs256"}`),
		"alg twice":                header(`{"alg":"none","alg":"HS256"}`),
		"alg twice, other order":   header(`{"alg":"HS256","alg":"none"}`),
		"HS384":                    by(jwt.SigningMethodHS384, userSecret),
		"HS512":                    by(jwt.SigningMethodHS512, userSecret),
		"RS256":                    by(jwt.SigningMethodRS256, rsaKey),
		"PS256":                    by(jwt.SigningMethodPS256, rsaKey),
		"ES256":                    by(jwt.SigningMethodES256, ecKey),
		"RS256 signed with HMAC":   header(`{"alg":"RS256"}`),
		"HS256 with a public key":  signed(public, hs256, `{"id":"u1"}`),
		"HS256 with an empty key":  signed(nil, hs256, `{"id":"u1"}`),
		"HS256 with a known guess": signed([]byte("secret"), hs256, `{"id":"u1"}`),
		"key in the header":        signed([]byte("mine"), `{"alg":"HS256","jwk":{"kty":"oct","k":"bWluZQ"},"kid":"../../dev/null"}`, `{"id":"u1"}`),
		"critical extension":       header(`{"alg":"HS256","crit":["exp"]}`),
		"unencoded payload":        header(`{"alg":"HS256","b64":false,"crit":["b64"]}`),
		"header not an object":     header(`"HS256"`),
		"header null":              header(`null`),
		"header with a tail":       header(hs256 + "{}"),

		"signature cut":      good[:len(good)-1],
		"signature empty":    parts[0] + "." + parts[1] + ".",
		"signature of other": parts[0] + "." + parts[1] + "." + strings.Split(claims(`{"id":"u2"}`), ".")[2],
		"claims swapped":     parts[0] + "." + b64(`{"id":"admin"}`) + "." + parts[2],

		"claims not an object": claims(`["u1"]`),
		"claims null":          claims(`null`),
		"claims cut":           claims(`{"id":"u1"`),
		"claims with a tail":   claims(`{"id":"u1"} {}`),
		"claims empty":         claims(``),
		"id missing":           claims(`{"iat":1}`),
		"id null":              claims(`{"id":null}`),
		"id empty":             claims(`{"id":""}`),
		"id number":            claims(`{"id":1}`),
		"id list":              claims(`{"id":["u1"]}`),
		"id object":            claims(`{"id":{"id":"u1"}}`),
		"id too long":          claims(`{"id":"` + strings.Repeat("x", 201) + `"}`),
		"id with NUL":          claims(`{"id":"u\u0000"}`),
		"id with newline":      claims(`{"id":"u\n"}`),
		"id not UTF-8":         claims("{\"id\":\"u\xff\"}"),
		"id half a surrogate":  claims(`{"id":"\ud800"}`),
		"id twice":             claims(`{"id":"u1","id":"admin"}`),
		"id twice, escaped":    claims(`{"id":"u1","\u0069d":"admin"}`),
		"ID in capitals":       claims(`{"ID":"u1"}`),
		"sub alone":            claims(`{"sub":"u1"}`),

		"expired":      claims(`{"id":"u1","exp":1772366399}`),
		"expires now":  claims(`{"id":"u1","exp":1772366400}`),
		"exp negative": claims(`{"id":"u1","exp":-1}`),
		"exp text":     claims(`{"id":"u1","exp":"9999999999"}`),
		"exp null":     claims(`{"id":"u1","exp":null}`),
		"exp true":     claims(`{"id":"u1","exp":true}`),
		"exp object":   claims(`{"id":"u1","exp":{}}`),
		"exp overflow": claims(`{"id":"u1","exp":1e999}`),
		"exp twice":    claims(`{"id":"u1","exp":1,"exp":9999999999}`),
		"nbf ahead":    claims(`{"id":"u1","nbf":1772366401}`),
		"nbf text":     claims(`{"id":"u1","nbf":"0"}`),
	}
}

func TestUserKeyConfusion(t *testing.T) {
	t.Parallel()
	if testNow.Unix() != 1772366400 {
		t.Fatalf("the corpus is written for another second than %d", testNow.Unix())
	}
	sentences := map[string]bool{}
	for name, key := range refusedKeys(t) {
		id, err := VerifyUserKey(userSecret, key, testNow)
		if !fault.Is(err, fault.Unauthorized) || id != "" {
			t.Errorf("%s: got %q, %v", name, id, err)
			continue
		}
		sentences[fault.From(err).Message] = true
	}
	if len(sentences) != 1 {
		t.Errorf("refusals tell strangers apart: %v", sentences)
	}
}

// Each bit of a key counts: no other spelling of a good key is good.
func TestUserKeyHasOneSpelling(t *testing.T) {
	t.Parallel()
	good := SignUserKey(userSecret, "u1", testNow)
	for i := range good {
		for _, c := range []byte("AQgw_-b.") {
			if good[i] == c {
				continue
			}
			bad := good[:i] + string(c) + good[i+1:]
			if id, err := VerifyUserKey(userSecret, bad, testNow); err == nil {
				t.Errorf("%q passed as %q", bad, id)
			}
		}
	}
}

func TestUserKeyWithoutSecret(t *testing.T) {
	t.Parallel()
	key := signed(nil, hs256, `{"id":"u1"}`)
	if _, err := VerifyUserKey(nil, key, testNow); !fault.Is(err, fault.Unauthorized) {
		t.Errorf("an empty secret verified a key: %v", err)
	}
}

// A stranger without the secret never gets in; what gets in was signed with it.
func FuzzVerifyUserKey(f *testing.F) {
	for _, key := range refusedKeys(f) {
		f.Add(key)
	}
	f.Add(SignUserKey(userSecret, "u1", testNow))
	f.Fuzz(func(t *testing.T, key string) {
		id, err := VerifyUserKey(userSecret, key, testNow)
		if err != nil {
			if !fault.Is(err, fault.Unauthorized) || id != "" {
				t.Fatalf("%q: %q, %v", key, id, err)
			}
			return
		}
		head, sum, _ := cutLast(key)
		m := hmac.New(sha256.New, userSecret)
		m.Write([]byte(head))
		want := base64.RawURLEncoding.EncodeToString(m.Sum(nil))
		if id == "" || !bytes.Equal([]byte(sum), []byte(want)) {
			t.Fatalf("%q passed as %q", key, id)
		}
	})
}

// A stranger's claims, well signed by the owner of the key, never break the reader.
func FuzzUserKeyClaims(f *testing.F) {
	for _, s := range []string{`{"id":"u"}`, `{"id":"u","exp":1}`, `{"id":1}`, `[]`, `{"id":"u","id":"v"}`, "\xff", `{"id":"\ud800"}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, claims string) {
		id, err := VerifyUserKey(userSecret, signed(userSecret, hs256, claims), time.UnixMilli(testNow.UnixMilli()))
		if (err == nil) == (id == "") {
			t.Fatalf("%q: %q, %v", claims, id, err)
		}
	})
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}
