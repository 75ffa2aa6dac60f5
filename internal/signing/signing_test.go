package signing_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/internal/auth"
	"parley/internal/signing"
)

func at(seconds int64) func() time.Time { return func() time.Time { return time.Unix(seconds, 0) } }

func signed(s *signing.Signer, id string, body string) http.Header {
	h := http.Header{signing.HeaderID: {id}}
	s.Sign(h, []byte(body))
	return h
}

// The example of the Standard Webhooks specification and its libraries.
func TestSignAgreesWithTheSpecification(t *testing.T) {
	t.Parallel()
	const body = `{"test": 2432232314}`
	h := signed(signing.New(at(1614265330), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "msg_p5jXN8AQM9LWM0D4loKWxJek", body)
	want := http.Header{
		"Webhook-Id": {"msg_p5jXN8AQM9LWM0D4loKWxJek"}, "Webhook-Timestamp": {"1614265330"},
		"Webhook-Signature": {"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
	}
	if fmt.Sprint(h) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", h, want)
	}
	if err := signing.Verify(h, []byte(body), time.Unix(1614265330, 0), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"); err != nil {
		t.Error(err)
	}
}

func TestWhatASecretSignsWith(t *testing.T) {
	t.Parallel()
	key := []byte("\xff\xfe a key")
	text := base64.StdEncoding.EncodeToString(key)
	for _, c := range []struct {
		a, b auth.Secret
		same bool
	}{
		{auth.Secret("whsec_" + text), auth.Secret(key), true},
		{auth.Secret("whsec_" + text), auth.Secret("whsec_" + strings.TrimRight(text, "=")), true},
		{auth.Secret("whsec_" + text), auth.Secret(text), false},
		{"whsec_not base64!", "not base64!", false},
		{"whsec_", "", false},
	} {
		a, b := signed(signing.New(at(1), c.a), "m", "{}"), signed(signing.New(at(1), c.b), "m", "{}")
		if got := a.Get("webhook-signature") == b.Get("webhook-signature"); got != c.same {
			t.Errorf("%q and %q sign alike: %v", string(c.a), string(c.b), got)
		}
	}
	first, second := signing.NewSecret(), signing.NewSecret()
	if first == second || !strings.HasPrefix(string(first), "whsec_") || len(first) != 50 {
		t.Errorf("new secrets are %q and %q", string(first), string(second))
	}
}

func TestSplit(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]auth.Secret{
		"": nil, "a": {"a"}, "a b": {"a", "b"}, "whsec_A whsec_B": {"whsec_A", "whsec_B"},
		"a b c": {"a b c"}, " a": {" a"}, "a ": {"a "}, "a  b": {"a  b"}, " ": {" "},
	} {
		if got := signing.Split(text); !slices.Equal(got, want) {
			t.Errorf("Split(%q) has %d secrets", text, len(got))
		}
	}
}

func TestSignersCanBeShared(t *testing.T) {
	t.Parallel()
	s := signing.New(at(7), "one", "two")
	want := signed(s, "m", "body")
	if n := len(strings.Fields(want.Get("webhook-signature"))); n != 2 {
		t.Errorf("%d signatures", n)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 200 {
				if got := signed(s, "m", "body"); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%d: got %v, want %v", i, got, want)
					return
				}
				signed(s, "n", "another body")
			}
		})
	}
	all.Wait()
}

func TestNobodySignsNothing(t *testing.T) {
	t.Parallel()
	for _, s := range []*signing.Signer{nil, signing.New(at(1))} {
		if h := signed(s, "m", "{}"); len(h) != 1 {
			t.Errorf("got %v", h)
		}
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	const body = `{"a":1}`
	now := time.Unix(1772366400, 0)
	good := signed(signing.New(at(1772366400), "new", "old"), "msg_1", body)
	with := func(name, value string) http.Header {
		h := good.Clone()
		h.Set(name, value)
		return h
	}
	for _, c := range []struct {
		what    string
		h       http.Header
		body    string
		now     time.Time
		secrets []auth.Secret
		err     string // "" = it verifies
	}{
		{"the newer secret", good, body, now, []auth.Secret{"new"}, ""},
		{"the older secret", good, body, now, []auth.Secret{"old"}, ""},
		{"one of several", good, body, now, []auth.Secret{"other", "old"}, ""},
		{"a late receiver", good, body, now.Add(5 * time.Minute), []auth.Secret{"new"}, ""},
		{"a clock that is behind", good, body, now.Add(-5 * time.Minute), []auth.Secret{"new"}, ""},
		{"another version beside it", with("webhook-signature", "v1a,xxx "+good.Get("webhook-signature")), body, now, []auth.Secret{"new"}, ""},
		{"another secret", good, body, now, []auth.Secret{"other"}, "no signature"},
		{"no secret", good, body, now, nil, "no signature"},
		{"another body", good, body + " ", now, []auth.Secret{"new"}, "no signature"},
		{"another id", with("webhook-id", "msg_2"), body, now, []auth.Secret{"new"}, "no signature"},
		{"another time", with("webhook-timestamp", "1772366401"), body, now, []auth.Secret{"new"}, "no signature"},
		{"another version", with("webhook-signature", "v2,"+good.Get("webhook-signature")[3:47]), body, now, []auth.Secret{"new"}, "no signature"},
		{"a broken signature", with("webhook-signature", "v1,%%%"), body, now, []auth.Secret{"new"}, "no signature"},
		{"an old request", good, body, now.Add(5*time.Minute + time.Second), []auth.Secret{"new"}, "5m1s off"},
		{"a request from the future", good, body, now.Add(-6 * time.Minute), []auth.Secret{"new"}, "6m0s off"},
		{"no time", with("webhook-timestamp", ""), body, now, []auth.Secret{"new"}, "is missing"},
		{"no id", with("webhook-id", ""), body, now, []auth.Secret{"new"}, "is missing"},
		{"a time that is none", with("webhook-timestamp", "soon"), body, now, []auth.Secret{"new"}, `"soon" is no number`},
		{"a time beyond all bounds", with("webhook-timestamp", "9223372036854775807"), body, now, []auth.Secret{"new"}, "off"},
		{"a time before all bounds", with("webhook-timestamp", "-9223372036854775808"), body, now, []auth.Secret{"new"}, "off"},
	} {
		err := signing.Verify(c.h, []byte(c.body), c.now, c.secrets...)
		switch {
		case c.err == "" && err != nil:
			t.Errorf("%s: %v", c.what, err)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || errors.Is(err, signing.ErrUnsigned)):
			t.Errorf("%s: got %v, want %q", c.what, err, c.err)
		}
	}
	for _, h := range []http.Header{nil, {"Webhook-Id": {"m"}, "Webhook-Timestamp": {"1"}}} {
		if err := signing.Verify(h, nil, now, "new"); !errors.Is(err, signing.ErrUnsigned) {
			t.Errorf("%v: got %v", h, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add("msg_1", "1772366400", "v1,abc v1,def", "{}", "whsec_YQ==")
	f.Fuzz(func(t *testing.T, id, stamp, signature, body, secret string) {
		h := http.Header{signing.HeaderID: {id}, signing.HeaderTimestamp: {stamp}, signing.HeaderSignature: {signature}}
		if signing.Verify(h, []byte(body), time.Unix(1772366400, 0), auth.Secret(secret)) != nil {
			return
		}
		again := signed(signing.New(at(1772366400), auth.Secret(secret)), id, body)
		if stamp == "1772366400" && !strings.Contains(signature, again.Get(signing.HeaderSignature)) {
			t.Errorf("%q verifies and is not what is signed", signature)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	body := []byte(strings.Repeat("x", 1024))
	for _, n := range []int{1, 2} {
		s := signing.New(time.Now, slices.Repeat([]auth.Secret{signing.NewSecret()}, n)...)
		b.Run(fmt.Sprint(n, " secrets"), func(b *testing.B) {
			h := http.Header{signing.HeaderID: {"evt_01M7WG5B4NG636278DN5Q0FC0Z"}}
			b.ReportAllocs()
			for b.Loop() {
				s.Sign(h, body)
			}
		})
	}
}
