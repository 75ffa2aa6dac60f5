package jsonschema

import (
	"regexp"
	"time"

	"github.com/dlclark/regexp2"
	js "github.com/santhosh-tekuri/jsonschema/v6"
)

// patternTime is how long one match of a pattern with lookarounds may take.
const patternTime = 50 * time.Millisecond

// compilePattern reads a pattern of ECMAScript. What Go's engine understands it
// matches in linear time; lookarounds and back references need one that may take
// for ever, so it has a time limit. A match that runs into it is none.
func compilePattern(text string) (js.Regexp, error) {
	if re, err := regexp.Compile(text); err == nil {
		return re, nil
	}
	re, err := regexp2.Compile(text, regexp2.ECMAScript)
	if err != nil {
		return nil, err
	}
	re.MatchTimeout = patternTime
	return backtracking{re}, nil
}

type backtracking struct{ *regexp2.Regexp }

// MatchString implements js.Regexp.
func (b backtracking) MatchString(s string) bool {
	ok, err := b.Regexp.MatchString(s)
	return ok && err == nil
}
