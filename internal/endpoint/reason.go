package endpoint

import (
	"net/http"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	maxReason = 2000 // of failureReason, as JavaScript counts
	maxQuoted = 500  // of a body that is not an error of the API
)

// Reason says in one line why an operation did not succeed, for people: the
// message of the peer's error if it sent one, else its status and how its body
// begins. It fits into failureReason.
func Reason(a Answer, err error) string {
	if err != nil {
		return oneLine(err.Error(), maxReason)
	}
	if text := errorIn(a.Body).text(); text != "" {
		return oneLine(text, maxReason)
	}
	status := strings.TrimSpace("HTTP " + strconv.Itoa(a.Status) + " " + http.StatusText(a.Status))
	detail := oneLine(string(a.Body[:min(len(a.Body), 8*maxQuoted)]), maxQuoted)
	switch {
	case a.Status == http.StatusRequestHeaderFieldsTooLarge && detail == "":
		// What Node answers, and nothing else, when a configuration is large.
		detail = "the configuration makes the request headers larger than the receiver accepts; Node takes more with --max-http-header-size=131072"
	case a.Status >= 300 && a.Status <= 399:
		detail = "redirects are not followed (Location: " + oneLine(a.Header.Get("Location"), maxQuoted) + ")"
	}
	if detail == "" {
		return status
	}
	return status + ": " + detail
}

// maxExcerpt is how many bytes of an answer are kept with the record of a try.
const maxExcerpt = 4 << 10

// Excerpt is how the body of an answer begins, for the record, and its content
// type. Both are empty where the answer says no more than its status.
func Excerpt(a Answer) (text, contentType string) {
	body := a.Body
	if len(body) > maxExcerpt {
		body = body[:maxExcerpt]
		for i := 1; i < utf8.UTFMax; i++ {
			if !utf8.FullRune(body[len(body)-i:]) { // cut in two
				body = body[:len(body)-i]
				break
			}
		}
	}
	text = strings.ReplaceAll(strings.ToValidUTF8(string(body), "\uFFFD"), "\x00", "\uFFFD") // PostgreSQL keeps no other text
	if s := strings.TrimSpace(text); s == "" || s == "{}" && Classify(a, nil) == OK {
		return "", ""
	}
	return text, oneLine(a.Header.Get("Content-Type"), maxQuoted)
}

// peerError is the two shapes in which SDKs report errors.
type peerError struct {
	Type    jsonText `json:"type"`
	Message jsonText `json:"message"`
	Error   jsonText `json:"error"`
}

func (e peerError) text() string {
	if e.Message != "" {
		return string(e.Message)
	}
	return string(e.Error)
}

// jsonText is a string where there is one; any other value counts as none.
type jsonText string

func (s *jsonText) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	v, err := dec.ReadValue()
	if err == nil && v.Kind() == '"' {
		var text []byte
		text, err = jsontext.AppendUnquote(nil, v)
		*s = jsonText(text)
	}
	return err
}

func errorIn(body []byte) peerError {
	var e peerError
	if err := json.Unmarshal(body, &e, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil {
		return peerError{} // the body is something else
	}
	return e
}

// oneLine makes a stranger's text fit to be stored and shown: without control
// characters and marks that turn the direction of writing, white space folded,
// at most limit UTF-16 units long.
func oneLine(text string, limit int) string {
	var out strings.Builder
	units, gap := 0, false
	for _, r := range text { // bytes that are not UTF-8 arrive as U+FFFD
		if unicode.IsSpace(r) {
			gap = out.Len() > 0
			continue
		}
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			continue
		}
		n := utf16.RuneLen(r)
		if gap {
			n++
		}
		if units+n > limit {
			break
		}
		if gap {
			out.WriteByte(' ')
			gap = false
		}
		out.WriteRune(r)
		units += n
	}
	return out.String()
}
