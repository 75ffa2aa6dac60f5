package endpoint

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"parley/internal/fault"
)

// MaxOutput is how many bytes the output of an action may have.
const MaxOutput = 1 << 20

// EventReceived is the body that brings a bot an event, given as a JSON object.
func EventReceived(event []byte) []byte {
	out := make([]byte, 0, len(event)+10)
	return append(append(append(out, `{"event":`...), event...), '}')
}

// ActionTriggered is the body that runs an action. Input is a JSON object; empty counts as {}.
func ActionTriggered(action string, input []byte) []byte {
	out := make([]byte, 0, len(action)+len(input)+24)
	out = appendQuoted(append(out, `{"type":`...), action)
	return append(append(append(out, `,"input":`...), orEmpty(input)...), '}')
}

// Ping is the body that asks whether anybody is there.
func Ping() []byte { return []byte("{}") }

// Register is the body of register and unregister. Integrations are told the
// URL of their door; bots have none.
func Register(webhookURL string) []byte {
	if webhookURL == "" {
		return []byte("{}")
	}
	return append(appendQuoted([]byte(`{"webhookUrl":`), webhookURL), '}')
}

// ActionOutput takes the results of an action_triggered call and returns the
// output, a JSON object. Otherwise its error is meant for the one who called the
// action, unless the call was cancelled.
func ActionOutput(a Answer, err error) (jsontext.Value, error) {
	switch Classify(a, err) {
	case OK:
		return output(a.Body)
	case Canceled:
		return nil, context.Canceled
	case TimedOut:
		return nil, fault.OperationTimeout.Wrap(err, "The action did not finish within its time limit")
	}
	kind := fault.Runtime
	if err == nil && string(errorIn(a.Body).Type) == fault.InvalidPayload.Type {
		kind = fault.InvalidPayload
	}
	return nil, kind.Wrap(err, "%s", Reason(a, err))
}

func output(body []byte) (jsontext.Value, error) {
	if len(body) > MaxOutput {
		return nil, fault.LimitExceeded.New("The action's output is larger than %d bytes", MaxOutput)
	}
	var answer struct {
		Output jsontext.Value `json:"output"`
	}
	if err := json.Unmarshal(body, &answer, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil {
		return nil, fault.Runtime.Wrap(errors.New("the answer to an action is not a JSON object"), "The action's answer is not valid JSON")
	}
	switch answer.Output.Kind() {
	case 0, 'n': // an action without a result answers nothing
		return jsontext.Value("{}"), nil
	case '{':
		return answer.Output, nil
	}
	return nil, fault.Runtime.New("The action's output is not an object")
}

// WebhookRequest is a request at the door of an integration.
type WebhookRequest struct {
	Method string
	Path   string      // behind the webhook id: "", "/" or "/sub/path"
	Query  string      // without the question mark
	Header http.Header // handed on in lower case, several values as one
	Body   []byte      // UTF-8
}

// WebhookReceived is the body that hands an integration what came to its door.
func WebhookReceived(r WebhookRequest) []byte {
	out := make([]byte, 0, len(r.Body)+len(r.Body)/8+len(r.Path)+len(r.Query)+1024)
	out = appendQuoted(append(out, `{"req":{"method":`...), r.Method)
	out = appendQuoted(append(out, `,"path":`...), r.Path)
	out = appendQuoted(append(out, `,"query":`...), r.Query)
	out = append(out, `,"headers":{`...)
	for i, name := range slices.Sorted(maps.Keys(r.Header)) {
		if i > 0 {
			out = append(out, ',')
		}
		between := ", "
		if name == "Cookie" {
			between = "; "
		}
		out = appendQuoted(append(appendQuoted(out, strings.ToLower(name)), ':'), strings.Join(r.Header[name], between))
	}
	out = append(out, '}')
	if len(r.Body) > 0 {
		out = appendQuoted(append(out, `,"body":`...), r.Body)
	}
	return append(out, "}}"...)
}
