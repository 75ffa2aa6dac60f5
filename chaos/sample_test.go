package chaos

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// sample is a valid request of an operation. What of it belongs to somebody is a
// name in braces, a key of a place.
type sample struct {
	op    *operation
	as    acts
	path  string
	query []pair
	body  string
}

// special is what the document does not tell of a valid request: as whom it is
// made, which of several filters go together, what a text must be. The rest is
// made from the document (sampleOf); an operation that is missing here is not
// left out.
type special struct {
	as    acts
	path  map[string]string // parameters
	query string
	body  string
}

var specials = map[string]special{
	"runtime/createConversation":        {as: asInstallation},
	"runtime/getOrCreateConversation":   {as: asInstallation, body: `{"channel":"channel","tags":{"fid":"f"}}`},
	"runtime/cancelScheduledEvent":      {as: asInstallation},
	"runtime/createMessage":             {as: asInstallation, body: `{"type":"text","payload":{"text":"x"},"tags":{},"conversationId":"{conversation}","userId":"{user}"}`},
	"runtime/getOrCreateMessage":        {as: asInstallation, body: `{"type":"text","payload":{"text":"x"},"tags":{"fid":"f"},"conversationId":"{conversation}","userId":"{user}"}`},
	"runtime/initializeIncomingMessage": {as: asInstallation, body: `{"conversation":{"channel":"channel","tags":{"fid":"f"}},"user":{"tags":{"fid":"f"}},"message":{"type":"text","payload":{"text":"x"},"tags":{"fid":"f"},"discriminateByTags":[]}}`},
	"runtime/importMessages":            {as: asInstallation, body: `{"messages":[{"type":"text","payload":{"text":"x"},"tags":{"fid":"i"},"conversationId":"{conversation}","userId":"{user}","createdAt":"2020-01-01T00:00:00.000Z","discriminateByTags":["fid"]}]}`},
	"runtime/getOrCreateUser":           {as: asInstallation, body: `{"tags":{"fid":"f"}}`},
	"runtime/getState":                  {path: map[string]string{"type": "conversation", "id": "{conversation}", "name": "kept"}},
	"runtime/setStateExpiry":            {path: map[string]string{"type": "user", "id": "{user}", "name": "kept"}, body: `{"expiry":3600000}`},
	"runtime/setState":                  {path: map[string]string{"type": "user", "id": "{user}", "name": "kept"}, body: `{"payload":{"a":1}}`},
	"runtime/getOrSetState":             {path: map[string]string{"type": "bot", "id": "{bot}", "name": "kept"}, body: `{"payload":{"a":1}}`},
	"runtime/patchState":                {path: map[string]string{"type": "conversation", "id": "{conversation}", "name": "kept"}, body: `{"payload":{"a":2}}`},
	"runtime/createWorkflow":            {body: `{"name":"w","status":"in_progress","eventId":"{event}","parentWorkflowId":"{workflow}","conversationId":"{conversation}","userId":"{user}"}`},
	"runtime/getOrCreateWorkflow":       {body: `{"name":"g","status":"in_progress","eventId":"{event}","parentWorkflowId":"{workflow}","conversationId":"{conversation}","userId":"{user}"}`},
	"runtime/updateWorkflow":            {body: `{"status":"in_progress","eventId":"{event}","userId":"{user}"}`},
	"runtime/listTagValues":             {path: map[string]string{"key": "fid"}, query: "type=user"},
	"runtime/callAction":                {body: `{"type":"chat:sendEvent","input":{"conversationId":"{conversation}","payload":{}}}`},
	"runtime/configureIntegration":      {as: asInstallation},

	"admin/deletePersonalAccessToken": {path: map[string]string{"id": "{token}"}},
	"admin/getPublicIntegrationById":  {path: map[string]string{"id": "{chat}"}},
	"admin/getPublicIntegration":      {path: map[string]string{"name": "chat", "version": "latest"}},
	"admin/getIntegrationByName":      {path: map[string]string{"name": "{hooky}", "version": "latest"}},
	"admin/createIntegration":         {body: `{"name":"another","version":"1.0.0","dev":true}`},

	"parley/getDelivery":         {path: map[string]string{"id": "{event}"}},
	"parley/replayDelivery":      {path: map[string]string{"id": "{event}"}},
	"parley/replayDeliveries":    {body: `{"botId":"{bot}","dead":true}`},
	"parley/getSigningSecrets":   {query: "botId={bot}"},
	"parley/rotateSigningSecret": {body: `{"integrationId":"{integration}"}`},

	"chat/listenConversation":      {query: "after=0"},
	"chat/getOrCreateConversation": {body: `{"id":"{conversation}"}`},
	"chat/addParticipant":          {body: `{"userId":"{friend}"}`},
	"chat/removeParticipant":       {path: map[string]string{"userId": "{friend}"}},
}

// sampleOf makes a valid request of an operation, that names all it can name.
func sampleOf(op *operation) sample {
	given := specials[op.Family+"/"+op.Name]
	x := sample{op: op, as: given.as, path: pathOf(op, given.path), body: given.body}
	if x.as == asBot && op.Family != "runtime" {
		x.as = asPerson
	}
	if op.Family == "chat" {
		x.as = asVisitor
	}
	if x.body == "" && op.body != nil {
		x.body = leastObject(op.body)
	}
	if given.query != "" {
		name, value, _ := strings.Cut(given.query, "=")
		x.query = []pair{{name, value}}
		return x
	}
	for _, p := range op.params {
		switch of := named(p.Name); {
		case p.In != "query":
		case of != "":
			x.query = append(x.query, pair{p.Name, "{" + of + "}"})
		case p.Required:
			x.query = append(x.query, pair{p.Name, strings.Trim(least(p.Schema, p.Name), `"`)})
		}
	}
	return x
}

// pathOf puts names of things into a path: {id} is of the kind that stands before it.
func pathOf(op *operation, given map[string]string) string {
	segments := strings.Split(op.Path, "/")
	for i, s := range segments {
		param, ok := strings.CutPrefix(s, "{")
		if !ok {
			continue
		}
		param = strings.TrimSuffix(param, "}")
		switch value, ok := given[param]; {
		case ok:
			segments[i] = value
		case param == "webhookId":
			segments[i] = "{door}"
		case param == "id":
			segments[i] = "{" + strings.TrimSuffix(segments[i-1], "s") + "}"
		default:
			segments[i] = "{" + strings.TrimSuffix(param, "Id") + "}"
		}
	}
	return strings.Join(segments, "/")
}

// things are the kinds of what an id may name, the longer word first.
var things = []string{"conversation", "integration", "participant", "workspace", "workflow", "message", "event", "user", "task", "bot"}

// named is the kind of thing that a member or parameter holds the id of, "" if
// it holds none that anybody has.
func named(name string) string {
	word, ok := strings.CutSuffix(strings.TrimSuffix(name, "s"), "Id")
	if !ok {
		return ""
	}
	for _, thing := range things {
		if strings.HasSuffix(strings.ToLower(word), thing) {
			if thing == "participant" {
				return "user"
			}
			return thing
		}
	}
	return ""
}

// leastObject is an object of the members that are required, and of those that name something.
func leastObject(s *schema) string {
	var members []string
	for _, name := range s.names {
		if slices.Contains(s.Required, name) || named(name) != "" {
			members = append(members, strconv.Quote(name)+":"+least(s.Properties[name], name))
		}
	}
	return "{" + strings.Join(members, ",") + "}"
}

// least is the JSON of a value that will do.
func least(s *schema, name string) string {
	switch of := named(name); {
	case s.anything():
		return "{}"
	case s.union():
		which := s.OneOf[0].Properties[s.Discriminator.PropertyName]
		for v, o := range s.variants {
			if o == s.OneOf[0] && (len(which.Enum) == 0 || which.Enum[0] == v) {
				text := leastObject(o)
				return strings.Replace(text, strconv.Quote(s.Discriminator.PropertyName)+`:"x"`, strconv.Quote(s.Discriminator.PropertyName)+":"+strconv.Quote(v), 1)
			}
		}
	case len(s.OneOf) > 0:
		return least(s.OneOf[0], name)
	case len(s.Enum) > 0:
		return strconv.Quote(s.Enum[0])
	case s.is("array") && of != "":
		return `["{` + of + `}"]`
	case s.is("array"):
		return "[]"
	case of != "":
		return `"{` + of + `}"`
	case s.is("object"):
		return leastObject(s)
	case s.is("integer"), s.is("number"):
		return fmt.Sprint(max(1, int(limit(s.Minimum, 1))))
	case s.is("boolean"):
		return "true"
	case s.Format == "date-time":
		return `"2030-01-01T00:00:00.000Z"`
	case s.Format == "uri":
		return strconv.Quote(nowhere)
	case name == "channel":
		return `"channel"`
	case name == "version":
		return `"1.0.0"`
	}
	return `"x"`
}

// nowhere is an address that nothing listens at: what is made up here must not
// have the server call anybody.
const nowhere = "http://127.0.0.1:9/x"

func limit[N int | float64](p *N, otherwise N) N {
	if p == nil {
		return otherwise
	}
	return *p
}

// names finds what a sample names.
var names = regexp.MustCompile(`\{[a-z]+\}`)

// put replaces the names in a text by what they stand for.
func put(text string, what func(name string) string) string {
	return names.ReplaceAllStringFunc(text, func(name string) string { return what(strings.Trim(name, "{}")) })
}

// names lists what the sample itself names.
func (x sample) names() (all []string) {
	text := x.path + x.body
	for _, q := range x.query {
		text += q.value
	}
	for _, name := range names.FindAllString(text, -1) {
		all = append(all, strings.Trim(name, "{}"))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// target is the path and query of a request, escaped, with what the names stand for.
func (x sample) target(what func(name string) string) string {
	path := put(x.path, func(name string) string { return url.PathEscape(what(name)) })
	for i, q := range x.query {
		path += string("?&"[min(i, 1)]) + url.QueryEscape(q.name) + "=" + url.QueryEscape(put(q.value, what))
	}
	return path
}
