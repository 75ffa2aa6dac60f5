package api

import (
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"parley/internal/id"
)

// badID marks an identifier that cannot be one: its sentence is the API's own.
const badID = "\x00id"

// complaint is the sentence about a value: its name and what is wrong.
func complaint(name, why, text string) string {
	if why == badID {
		return fmt.Sprintf("The provided UUID is invalid: %s %s", name, quote(text))
	}
	if name == "" {
		return "The body " + why
	}
	return name + " " + why
}

// text judges a scalar given as text and says what is wrong with it, "" if nothing.
func (s *Schema) text(text string) string {
	switch s.kind {
	case kindString:
		return s.stringText(text)
	case kindInteger:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || text[0] == '+' {
			return "must be " + s.noun()
		}
		return s.within(float64(n))
	case kindNumber:
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) || strings.ContainsAny(text, "+_xXpP") && !isJSONNumber(text) {
			return "must be " + s.noun()
		}
		return s.within(n)
	case kindBool:
		if text != "true" && text != "false" {
			return "must be true or false"
		}
	}
	return ""
}

func isJSONNumber(text string) bool {
	v := jsontext.Value(text)
	return v.Kind() == '0' && v.IsValid()
}

func (s *Schema) noun() string {
	if s.kind == kindInteger {
		return "an integer"
	}
	return "a number"
}

func (s *Schema) within(n float64) string {
	switch {
	case s.min != nil && n < float64(*s.min):
		return fmt.Sprintf("must be at least %d", *s.min)
	case s.max != nil && n > float64(*s.max):
		return fmt.Sprintf("must be at most %d", *s.max)
	}
	return ""
}

func (s *Schema) stringText(text string) string {
	if why := validText(text); why != "" {
		return why
	}
	if s.min != nil || s.max != nil {
		if why := s.length(utf8.RuneCountInString(text), "character"); why != "" {
			return why
		}
	}
	if s.enum != nil && !contains(s.enum, text) {
		if len(s.enum) == 1 {
			return "must be " + s.enum[0]
		}
		return "must be one of " + strings.Join(s.enum, ", ")
	}
	switch s.format {
	case "id":
		if !id.Valid(text) {
			return badID
		}
	case "uri":
		if u, err := url.Parse(text); err != nil || !u.IsAbs() || u.Host == "" && u.Opaque == "" {
			return "must be a complete URL such as https://example.com/picture.png"
		}
	case "date-time":
		if _, err := ParseTime(text); err != nil {
			return "must be an ISO 8601 date and time with an offset such as 2026-11-20T12:05:00.000Z"
		}
	}
	if s.pattern != nil && !s.pattern.MatchString(text) {
		return "must match " + s.pattern.String()
	}
	return ""
}

// validText refuses what no database column holds.
func validText(text string) string {
	switch {
	case strings.IndexByte(text, 0) >= 0:
		return "must not contain the character U+0000"
	case !utf8.ValidString(text):
		return "must be valid UTF-8"
	}
	return ""
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}

// size judges the number of elements of an array or object.
func (s *Schema) size(n int) string {
	if s.min == nil && s.max == nil {
		return ""
	}
	if s.kind == kindArray {
		return s.length(n, "item")
	}
	return s.length(n, "member")
}

func (s *Schema) length(n int, unit string) string {
	switch {
	case s.min != nil && int64(n) < *s.min:
		if *s.min == 1 {
			return "must not be empty"
		}
		return fmt.Sprintf("must have at least %d %ss", *s.min, unit)
	case s.max != nil && int64(n) > *s.max:
		if *s.max == 1 {
			return "must have at most 1 " + unit
		}
		return fmt.Sprintf("must have at most %d %ss", *s.max, unit)
	}
	return ""
}

// quote shows a client's text back, shortened and without control characters.
func quote(text string) string { return strconv.Quote(short(text)) }

func short(text string) string {
	const most = 60
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return string([]rune(text)[:most]) + "…"
}
