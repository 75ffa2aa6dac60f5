package endpoint

import (
	"encoding/base64"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// BotCall is everything about a call to a bot but its body.
type BotCall struct {
	BotID     string
	BotUserID string
	WebhookID string // optional
	Operation string // event_received, action_triggered, register, unregister, ping
	// Type is the event's or action's type. It decides in the bot what
	// message_created, workflow_update and state_expired are; the body does not.
	Type                 string
	ConfigurationID      string // BotID if empty
	ConfigurationType    string // optional
	Configuration        []byte // JSON object; empty counts as {}
	CreatedAt, UpdatedAt int64  // of the configuration, in milliseconds
	Tags                 map[string]string
	TraceParent          string
	TraceState           string
	EventID              string // sent as webhook-id, the same on every attempt
	Attempt              int    // from 1, sent as x-parley-attempt
}

// IntegrationCall is everything about a call to an integration but its body.
type IntegrationCall struct {
	BotID             string
	BotUserID         string
	IntegrationID     string
	Alias             string
	WebhookID         string
	Operation         string // message_created, action_triggered, webhook_received, …
	Type              string
	ConfigurationType string // empty for the default configuration
	Configuration     []byte // JSON object; empty counts as {}
	TraceParent       string
	TraceState        string
	EventID           string // sent as webhook-id, the same on every attempt
	Attempt           int    // from 1, sent as x-parley-attempt
}

// With is the operation that carries body, a JSON text.
func (c BotCall) With(body []byte) Operation {
	return Operation{Name: c.Operation, Type: c.Type, Header: c.Header(), Body: body, Subject: c.EventID}
}

// With is the operation that carries body, a JSON text.
func (c IntegrationCall) With(body []byte) Operation {
	return Operation{Name: c.Operation, Type: c.Type, Header: c.Header(), Body: body, Subject: c.EventID}
}

// Header is what the official bot SDK reads. It requires x-bp-type and
// x-bp-configuration on every call, a ping included.
func (c BotCall) Header() http.Header {
	h := newHeader()
	h.set("X-Bot-Id", c.BotID)
	h.set("X-Bot-User-Id", c.BotUserID)
	h.option("X-Webhook-Id", c.WebhookID)
	h.set("X-Bp-Operation", c.Operation)
	h.set("X-Bp-Type", Operation{Name: c.Operation, Type: c.Type}.kind())
	h.set("X-Bp-Configuration", inBase64(c.configuration()))
	h.option("X-Bp-Configuration-Type", c.ConfigurationType)
	if len(c.Tags) > 0 {
		h.set("X-Bp-Tags", inBase64(object(c.Tags)))
	}
	h.delivery(c.TraceParent, c.TraceState, c.EventID, c.Attempt)
	return h.Header
}

// configuration wraps the bot's configuration as a state, whose payload is a
// string that holds JSON. (An integration's stands by itself.)
func (c BotCall) configuration() []byte {
	id := c.ConfigurationID
	if id == "" {
		id = c.BotID
	}
	out := make([]byte, 0, 128+len(c.Configuration)*5/4)
	out = appendQuoted(append(out, `{"id":`...), id)
	out = appendTime(append(out, `,"type":"bot","createdAt":`...), c.CreatedAt)
	out = appendTime(append(out, `,"updatedAt":`...), c.UpdatedAt)
	out = appendQuoted(append(out, `,"payload":`...), orEmpty(c.Configuration))
	return append(out, '}')
}

// Header is what the official integration SDK reads: all of the ids, the alias
// and the configuration are required.
func (c IntegrationCall) Header() http.Header {
	h := newHeader()
	h.set("X-Bot-Id", c.BotID)
	h.set("X-Bot-User-Id", c.BotUserID)
	h.set("X-Integration-Id", c.IntegrationID)
	h.set("X-Integration-Alias", c.Alias)
	h.set("X-Webhook-Id", c.WebhookID)
	h.set("X-Bp-Operation", c.Operation)
	h.set("X-Bp-Type", Operation{Name: c.Operation, Type: c.Type}.kind())
	h.set("X-Bp-Configuration", inBase64(ASCII(orEmpty(c.Configuration))))
	h.option("X-Bp-Configuration-Type", c.ConfigurationType)
	h.delivery(c.TraceParent, c.TraceState, c.EventID, c.Attempt)
	return h.Header
}

// NodeHeaderLimit is how many bytes of headers a Node server accepts unless it
// was started with --max-http-header-size; above it answers 431. About 11 KB of
// configuration reach it.
const NodeHeaderLimit = 16 << 10

// HeaderSize is about how many bytes h takes on the wire, with those that are
// added to every call.
func HeaderSize(h http.Header) int {
	size := 400 // request line, Host, User-Agent, Content-Type, Content-Length; the time and two signatures
	for name, values := range h {
		for _, v := range values {
			size += len(name) + len(": ") + len(v) + len("\r\n")
		}
	}
	return size
}

// header builds an http.Header whose values share one array.
type header struct {
	http.Header
	values []string
}

func newHeader() *header { return &header{make(http.Header, 20), make([]string, 0, 16)} }

func (h *header) set(name, value string) {
	h.values = append(h.values, headerSafe(value))
	n := len(h.values)
	h.Header[name] = h.values[n-1 : n : n]
}

func (h *header) option(name, value string) {
	if value != "" {
		h.set(name, value)
	}
}

// delivery sets what lets a receiver trace a call and recognise a repeated one.
func (h *header) delivery(parent, state, eventID string, attempt int) {
	h.option("Traceparent", parent)
	if parent != "" { // means nothing by itself
		h.option("Tracestate", state)
	}
	h.option("Webhook-Id", eventID)
	if attempt > 0 {
		h.set("X-Parley-Attempt", strconv.Itoa(attempt))
	}
}

// headerSafe percent-encodes what cannot stand in a header: control characters
// and everything that is not ASCII, which receivers decode as Latin-1.
func headerSafe(value string) string {
	if strings.IndexFunc(value, notInHeaders) < 0 {
		return strings.TrimSpace(value)
	}
	const hex = "0123456789ABCDEF"
	out := make([]byte, 0, len(value)+16)
	for i := range len(value) {
		if b := value[i]; notInHeaders(rune(b)) {
			out = append(out, '%', hex[b>>4], hex[b&15])
		} else {
			out = append(out, b)
		}
	}
	return strings.TrimSpace(string(out))
}

func notInHeaders(r rune) bool { return r < ' ' || r > '~' }

func inBase64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func orEmpty(object []byte) []byte {
	if len(object) == 0 {
		return []byte("{}")
	}
	return object
}

func object(m map[string]string) []byte {
	out := []byte{'{'}
	for i, k := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendQuoted(append(appendQuoted(out, k), ':'), m[k])
	}
	return append(out, '}')
}

func appendTime(out []byte, ms int64) []byte {
	return time.UnixMilli(ms).UTC().AppendFormat(out, `"2006-01-02T15:04:05.000Z"`)
}
