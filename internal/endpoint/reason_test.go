package endpoint

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"parley/internal/outbound"
)

func TestReason(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]struct {
		answer Answer
		err    error
	}{
		"the key is wrong":                         {answer: Answer{Status: 400, Body: []byte(`{"id":"err_1","code":400,"type":"Runtime","message":"the key is wrong"}`)}},
		"Missing configuration":                    {answer: Answer{Status: 500, Body: []byte(`{"error":"Missing configuration"}`)}},
		"first line second line":                   {answer: Answer{Status: 400, Body: []byte(`{"message":"\n first line\r\n\tsecond\u0000 line\u0007 "}`)}},
		"safe gpj.exe":                             {answer: Answer{Status: 400, Body: []byte("{\"message\":\"safe \u202egpj.exe\u2069\"}")}},
		"kept 👩‍🚀 whole":                           {answer: Answer{Status: 400, Body: []byte(`{"message":"kept 👩‍🚀 whole"}`)}},
		"HTTP 500 Internal Server Error: Oh no":    {answer: Answer{Status: 500, Body: []byte("Oh\x00\n\nno\n")}},
		"HTTP 502 Bad Gateway: <html>":             {answer: Answer{Status: 502, Body: []byte("<html>")}},
		"HTTP 503 Service Unavailable":             {answer: Answer{Status: 503}},
		`HTTP 400 Bad Request: {"message":7}`:      {answer: Answer{Status: 400, Body: []byte(`{"message":7}`)}},
		`HTTP 400 Bad Request: ["x"]`:              {answer: Answer{Status: 400, Body: []byte(`["x"]`)}},
		"HTTP 599":                                 {answer: Answer{Status: 599}},
		"HTTP 0":                                   {},
		"HTTP 500 Internal Server Error: a\ufffdb": {answer: Answer{Status: 500, Body: []byte("a\xffb")}},
		"HTTP 302 Found: redirects are not followed (Location: /x)": {answer: Answer{Status: 302, Header: http.Header{"Location": {"/x"}}, Body: []byte("<a>")}},
		"calls to the address 10.0.0.1 are not allowed":             {err: &Error{Final, &outbound.RefusedError{Addr: netip.MustParseAddr("10.0.0.1"), Reason: "calls to the address 10.0.0.1 are not allowed"}}},
		"h gave no answer within 1m0s":                              {err: &Error{TimedOut, &outbound.TimeoutError{Host: "h", Limit: time.Minute}}},
		"the handler panicked: oh no":                               {err: &Error{Failed, &PanicError{Value: "oh\nno"}}},
	} {
		got := Reason(c.answer, c.err)
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		checkReason(t, got)
	}
	if got := Reason(Answer{Status: 431}, nil); !strings.Contains(got, "--max-http-header-size") {
		t.Errorf("a Node server's 431 is not explained: %q", got)
	}
}

func checkReason(t *testing.T, reason string) {
	t.Helper()
	if n := len(utf16.Encode([]rune(reason))); n == 0 || n > 2000 {
		t.Errorf("a reason of %d characters", n)
	}
	if !utf8.ValidString(reason) || strings.ContainsFunc(reason, unicode.IsControl) {
		t.Errorf("the reason %q is not fit to be shown", reason)
	}
}

func TestReasonsAreBounded(t *testing.T) {
	t.Parallel()
	for _, text := range []string{strings.Repeat("a", 5000), strings.Repeat("𝄞", 5000), strings.Repeat("漢 ", 5000), strings.Repeat("\xff", 5000)} {
		checkReason(t, Reason(Answer{}, errors.New(text)))
		checkReason(t, Reason(Answer{Status: 500, Body: []byte(text)}, nil))
		checkReason(t, Reason(Answer{Status: 302, Header: http.Header{"Location": {text}}}, nil))
		checkReason(t, Reason(Answer{Status: 400, Body: fmt.Appendf(nil, `{"message":%q}`, strings.ToValidUTF8(text, "?"))}, nil))
	}
	if got := Reason(Answer{}, errors.New(strings.Repeat("a", 1999)+"𝄞")); got != strings.Repeat("a", 1999) {
		t.Errorf("a pair of surrogates was cut: %q", got[1990:])
	}
}

func TestClassify(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want Class
	}{
		{&outbound.UnreachableError{Err: context.DeadlineExceeded}, Unreachable},
		{&outbound.UnreachableError{Err: &outbound.RefusedError{}}, Unreachable},
		{&outbound.RefusedError{}, Final},
		{&outbound.TooLargeError{}, Final},
		{&outbound.TimeoutError{}, TimedOut},
		{&outbound.BrokenError{Err: errors.New("EOF")}, Failed},
		{context.DeadlineExceeded, TimedOut},
		{fmt.Errorf("invoke: %w", context.Canceled), Canceled},
		{fmt.Errorf("invoke: %w", &Error{Unreachable, errors.New("x")}), Unreachable},
		{errors.New("anything"), Failed},
	} {
		if got := Classify(Answer{Status: 200}, c.err); got != c.want {
			t.Errorf("Classify(%T %v) = %v, want %v", c.err, c.err, got, c.want)
		}
	}
	names := map[string]bool{}
	for c := Failed; c <= Ignored; c++ {
		names[c.String()] = true
	}
	if len(names) != 7 {
		t.Errorf("classes share names: %v", names)
	}
}

func TestExcerptKeepsHowAnAnswerBegins(t *testing.T) {
	t.Parallel()
	header := http.Header{"Content-Type": {"text/plain; charset=utf-8"}}
	long := strings.Repeat("x", maxExcerpt-1)
	for name, c := range map[string]struct {
		status   int
		body     string
		text     string
		typeless bool
	}{
		"text":                            {500, "Oops", "Oops", false},
		"a success with a text":           {200, `{"ok":true}`, `{"ok":true}`, false},
		"nothing":                         {500, " \n", "", true},
		"a success that says no more":     {200, " {} ", "", true},
		"a failure that says no more":     {500, "{}", "{}", false},
		"too much":                        {500, long + "yz", long + "y", false},
		"a character cut in two":          {500, long + "€", long, false},
		"a character that ends in time":   {500, long[:len(long)-2] + "€z", long[:len(long)-2] + "€", false},
		"what is no text":                 {500, "\xff\x00a", "\uFFFD\uFFFDa", false},
		"what is no text at the very end": {500, long + "\xff\xff", long + "\uFFFD", false},
	} {
		text, contentType := Excerpt(Answer{Status: c.status, Header: header, Body: []byte(c.body)})
		if text != c.text || (contentType == "") != c.typeless {
			t.Errorf("%s: %.40q of %d bytes, %q", name, text, len(text), contentType)
		}
	}
	if text, contentType := Excerpt(Answer{}); text != "" || contentType != "" {
		t.Errorf("of no answer: %q, %q", text, contentType)
	}
}
