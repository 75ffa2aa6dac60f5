package chaos

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// The grammar of malformed requests: ways to break a valid one. Each says what
// must come of it, as types of errors; where it says none, the request may be
// taken, by one of these rules:
//
//   - a path may be escaped differently and end in a slash; HEAD and OPTIONS are methods of every path
//   - headers that an operation does not read mean nothing, and of those that are there twice one counts
//   - operations that read no body read none, whatever is said of it
//   - the definitions of bots and integrations keep members that are not known
//   - where a schema says "any text", "any object" or "anything", it is any
//   - what is well formed at last, such as chunks with an extension, is well formed

// maker breaks one request.
type maker struct {
	seeds
	op    *operation
	r     *request
	tree  *tree                 // the body, as long as it is a tree
	text  func(b []byte) []byte // breaks the body as text
	frame func(b []byte) []byte // breaks the request as a whole
	place place
}

// broke notes what was done, and what must come of it.
func (m *maker) broke(how string, wants ...string) bool {
	m.r.breaks = append(m.r.breaks, how)
	m.r.wants = wants
	return true
}

// group is ways to break one part of a request; each does so, or finds that it cannot.
type group struct {
	weight int
	ways   []func(m *maker) bool
}

var groups = []group{
	{8, []func(*maker) bool{(*maker).breakPath}},
	{3, []func(*maker) bool{(*maker).breakMethod}},
	{14, []func(*maker) bool{(*maker).unknownQuery, (*maker).queryTwice, (*maker).queryValue, (*maker).queryValue, (*maker).queryShape, (*maker).queryText, (*maker).nextToken}},
	{14, []func(*maker) bool{(*maker).authorization, (*maker).actsFor, (*maker).userKey, (*maker).idempotencyKey, (*maker).lastEventID, (*maker).contentType, (*maker).contentEncoding, (*maker).oddHeader, (*maker).oddHeader, (*maker).hugeHeader}},
	{40, []func(*maker) bool{(*maker).wrongType, (*maker).wrongType, (*maker).noNull, (*maker).missing, (*maker).unknownMember, (*maker).memberTwice, (*maker).beyondLimits, (*maker).beyondLimits, (*maker).wrongVariant, (*maker).zeroByte, (*maker).oddValue, (*maker).oddValue, (*maker).oddValue}},
	{16, []func(*maker) bool{(*maker).brokenText, (*maker).brokenText, (*maker).brokenString, (*maker).deep, (*maker).hugeNumber, (*maker).notAnObject, (*maker).long}},
	{5, []func(*maker) bool{(*maker).breakLength, (*maker).breakChunks, (*maker).breakFrame, (*maker).breakHead, (*maker).noHTTP}},
}

var weights = func() (sum int) {
	for _, g := range groups {
		sum += g.weight
	}
	return sum
}()

// breakOnce breaks something; which, is chance.
func (m *maker) breakOnce() {
	for {
		n := m.IntN(weights)
		for _, g := range groups {
			if n -= g.weight; n < 0 {
				if g.ways[m.IntN(len(g.ways))](m) {
					return
				}
				break
			}
		}
	}
}

func pick[T any](m *maker, list []T) T { return list[m.IntN(len(list))] }

// ── path and method ───────────────────────────────────────────────────────────

func (m *maker) breakPath() bool {
	r, segments := m.r, strings.Split(m.r.path, "/")
	r.routed = false
	i := 1 + m.IntN(len(segments)-1)
	literal := m.op.segment(i) != "" && m.op.segment(i)[0] != '{'
	whole := func(how string, wants ...string) bool {
		r.path = strings.Join(segments, "/")
		return m.broke(how, wants...)
	}
	switch m.IntN(12) {
	case 0:
		segments = slices.Insert(segments, i, "")
		return whole("an empty segment", "ResourceNotFound")
	case 1:
		segments[i] = strings.Repeat("x", 9000)
		return whole("an overlong segment", "ResourceNotFound")
	case 2:
		segments[i] += pick(m, []string{"%", "%z", "%zz", "%2"})
		r.alone = true
		return whole("a broken escape in the path", "InvalidPayload")
	case 3:
		segments[i] += "%00"
		return whole("a zero byte in the path", "ResourceNotFound", "MethodNotFound")
	case 4:
		segments = slices.Insert(segments, i, pick(m, []string{".", "..", "%2e%2e", "..%2f..%2fetc"}))
		return whole("dots in the path")
	case 5:
		segments[i] = pick(m, []string{"%F0%9F%98%80", "%C3%28", "%ff%fe", "%e2%80%ae", "ä", "%ef%bf%bd", "%25%30%30"})
		return whole("odd letters in the path")
	case 6:
		if literal {
			segments[i] = strings.ToUpper(segments[i])
			return whole("capitals in the path", "ResourceNotFound", "MethodNotFound", "InvalidQuery")
		}
		if m.op.Method == http.MethodDelete {
			return false // it might be what must stay
		}
		segments[i] = pick(m, []string{m.place[ids[m.IntN(9)]], "x", "0", "null", "undefined", "[object Object]", strings.Repeat("9", 300), "%20", "a%2Fb", "me"})
		segments[i] = strings.ReplaceAll(strings.ReplaceAll(segments[i], " ", "%20"), "\x00", "")
		return whole("something else for an id")
	case 7:
		segments = append(segments, pick(m, []string{"x", "x/y", "..;", "%2f", ";a=b"}))
		return whole("more at the end of the path")
	case 8:
		segments = segments[:len(segments)-1]
		if len(segments) < 2 {
			return false
		}
		if m.op.Method == http.MethodDelete {
			return false // what holds it must stay
		}
		return whole("less at the end of the path")
	case 9:
		if i = slices.Index(segments, "v1"); i < 0 {
			return false
		}
		segments[i] = pick(m, []string{"v2", "V1", "v1.0", "v", "1"})
		return whole("another version", "ResourceNotFound")
	case 10:
		segments[i] = escapeAll(segments[i])
		return whole("an escaped path")
	}
	segments = append(segments, "")
	return whole("a slash at the end")
}

// segment is what the operation's own path has there.
func (op *operation) segment(i int) string {
	if s := strings.Split(op.Path, "/"); i < len(s) {
		return s[i]
	}
	return ""
}

func escapeAll(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		fmt.Fprintf(&b, "%%%02x", c)
	}
	return b.String()
}

func (m *maker) breakMethod() bool {
	m.r.routed = false
	if m.IntN(4) == 0 {
		m.r.method = pick(m, []string{"OPTIONS", "HEAD"})
		return m.broke("the method " + m.r.method)
	}
	m.r.method = pick(m, []string{"PURGE", "TRACE", "get", "Post", "PROPFIND", "X", "M-SEARCH", strings.Repeat("A", 3000)})
	return m.broke("the method "+m.r.method[:min(9, len(m.r.method))], "MethodNotFound")
}

// ── query ─────────────────────────────────────────────────────────────────────

func (op *operation) queries() (list []*param) {
	for i := range op.params {
		if op.params[i].In == "query" {
			list = append(list, &op.params[i])
		}
	}
	return list
}

// query adds a parameter.
func (m *maker) query(name, value string) { m.r.query = append(m.r.query, pair{name, value}) }

// instead puts a value in the place of all that a parameter had.
func (m *maker) instead(name, value string) {
	m.r.query = slices.DeleteFunc(slices.Clone(m.r.query), func(q pair) bool {
		base, _, _ := strings.Cut(q.name, "[")
		return base == name
	})
	m.query(name, value)
}

func (m *maker) unknownQuery() bool {
	m.query(pick(m, []string{"zzz", "%00", "__proto__", "id%5B%5D", "limitt", "constructor.prototype", strings.Repeat("q", 20_000)}), pick(m, []string{"1", "", none}))
	return m.broke("an unknown query parameter", "InvalidQuery")
}

func (m *maker) queryTwice() bool {
	for _, p := range m.op.queries() {
		if p.Schema.is("string") && p.Schema.Format == "" && p.Name != "wait" && m.IntN(2) == 0 {
			value := "a"
			if len(p.Schema.Enum) > 0 {
				value = p.Schema.Enum[0]
			}
			m.instead(p.Name, value)
			m.query(p.Name, value)
			return m.broke("a query parameter twice", "InvalidQuery")
		}
	}
	return false
}

// queryValue gives a parameter a value that it cannot have.
func (m *maker) queryValue() bool {
	list := m.op.queries()
	if len(list) == 0 {
		return false
	}
	p := pick(m, list)
	wants := []string{"InvalidQuery"}
	var bad []string
	switch s := p.Schema; {
	case s.is("array") && s.Items.Format == "id", s.Format == "id":
		bad, wants = []string{"x", "", "conv_", "conv_01", "%F0%9F%98%80", strings.Repeat("a", 300)}, []string{"InvalidPayload"}
	case s.is("integer"):
		bad = []string{"", "x", "1.5", "1e3", "%2B1", "0x10", "99999999999999999999", "NaN", "-9999999999"}
	case s.is("boolean"):
		bad = []string{"", "1", "TRUE", "yes", "null"}
	case s.Format == "date-time":
		bad = []string{"", "now", "2026-02-30T00:00:00Z", "2026", "1e9", "2026-01-01T00:00:00"}
	case len(s.Enum) > 0:
		bad = []string{"", "zzz", strings.ToUpper(s.Enum[0]) + "x", s.Enum[0] + "%20"}
	case p.Name == "wait":
		bad, wants = []string{"x", "-1", "0", "61", "NaN", "Infinity", "1e999", "0x1p-2", "%00", "1_0"}, []string{"InvalidPayload"}
	case s.MaxLength != nil:
		bad = []string{strings.Repeat("x", *s.MaxLength+1)}
	default:
		return false
	}
	m.instead(p.Name, pick(m, bad))
	return m.broke("a bad value of "+p.Name, wants...)
}

// queryShape spells a parameter as it cannot be.
func (m *maker) queryShape() bool {
	list := m.op.queries()
	if len(list) == 0 {
		return false
	}
	p := pick(m, list)
	shapes := []string{p.Name + "[a][b]", p.Name + "[", p.Name + "[a", p.Name + "]", p.Name + "[[a]]", p.Name + "[a]b"}
	if !p.Schema.is("array") && !p.Schema.is("object") {
		shapes = append(shapes, p.Name+"[]", p.Name+"[0]", p.Name+".a")
	}
	m.instead(pick(m, shapes), "1")
	return m.broke("a bad shape of "+p.Name, "InvalidQuery")
}

func (m *maker) queryText() bool {
	list := m.op.queries()
	name := "x"
	if len(list) > 0 {
		name = pick(m, list).Name
	}
	switch m.IntN(5) {
	case 0:
		m.query(name, pick(m, []string{"%", "%z", "%ff%", "%%"}))
		return m.broke("a broken escape in the query", "InvalidQuery")
	case 1:
		m.query("%zz", "1")
		return m.broke("a broken escape in a name of the query", "InvalidQuery")
	case 2:
		for i := range 201 {
			m.query("k"+strconv.Itoa(i), "v")
		}
		return m.broke("very many parameters", "InvalidQuery")
	case 3:
		m.query(name, "%ff")
		return m.broke("invalid UTF-8 in the query", "InvalidQuery", "InvalidPayload")
	}
	m.query(name, "a%00b")
	return m.broke("a zero byte in the query", "InvalidQuery", "InvalidPayload")
}

func (m *maker) nextToken() bool {
	if m.op.param("query", "nextToken") == nil {
		return false
	}
	m.instead("nextToken", pick(m, []string{"x", "AAAA", "%2F%2F%2F%2F", strings.Repeat("A", 5000), "eyJhIjoxfQ", "eyJhIjoxfQ==", "-1", "%F0%9F%98%80"}))
	return m.broke("a nextToken that nobody gave", "InvalidQuery")
}

// ── headers ───────────────────────────────────────────────────────────────────

// header puts values in the place of what a header had; none of them takes it away.
func (m *maker) header(name string, values ...string) {
	m.r.header = slices.DeleteFunc(slices.Clone(m.r.header), func(h pair) bool { return strings.EqualFold(h.name, name) })
	for _, v := range values {
		m.r.header = append(m.r.header, pair{name, v})
	}
}

func (m *maker) authorization() bool {
	if !m.op.token {
		return false
	}
	m.header("authorization", pick(m, [][]string{nil, {"Bearer"}, {"Bearer "}, {"Basic eDp4"}, {"Bearer bp_pat_x"}, {"Bearer " + strings.Repeat("x", 5000)},
		{"Bearer bp_pat_" + strings.Repeat("a", 43)}, {"Bearer " + m.place["pat"] + "x"}, {"Bearer " + m.place["pat"], "Bearer " + m.place["pat"]}, {m.place["pat"]}, {"Bearer ä€😀"}, {"Bearer null"}})...)
	return m.broke("a bad authorization", "Unauthorized")
}

// actsFor breaks the headers that say for what a request acts.
func (m *maker) actsFor() bool {
	name := pick(m, []string{"x-bot-id", "x-workspace-id", "x-integration-id", "x-integration-alias"})
	p := m.op.param("header", name)
	if p == nil {
		return false
	}
	if p.Required && m.IntN(3) == 0 {
		m.header(name, pick(m, [][]string{nil, {""}})...)
		return m.broke("no "+name, "InvalidPayload")
	}
	if name == "x-integration-alias" && !slices.ContainsFunc(m.r.header, func(h pair) bool { return h.name == "x-integration-id" }) {
		m.header(name, "x")
		return m.broke("an alias of nothing", "InvalidPayload")
	}
	m.header(name, pick(m, []string{"x", "null", strings.Repeat("9", 5000), m.place["conversation"], "bot_01", "ä€", "../x", m.place["bot"] + "x"}))
	return m.broke("a bad "+name, "Forbidden")
}

func (m *maker) userKey() bool {
	if !m.op.userKey {
		return false
	}
	key := m.place["key"]
	m.header("x-user-key", pick(m, [][]string{nil, {""}, {"x"}, {"a.b.c"}, {key + "x"}, {key[:len(key)-4]}, {strings.Repeat("A", 5000)}, {"eyJhbGciOiJub25lIn0.eyJpZCI6IngifQ."}, {strings.ReplaceAll(key, ".", "..")}, {"ä€"}})...)
	return m.broke("a bad user key", "Unauthorized")
}

func (m *maker) idempotencyKey() bool {
	m.header("idempotency-key", pick(m, [][]string{{""}, {strings.Repeat("k", 256)}, {"ä€😀"}, {"a", "b"}, {"a\tb"}})...)
	if m.op.param("header", "idempotency-key") == nil {
		return m.broke("an idempotency key that means nothing")
	}
	return m.broke("a bad idempotency key", "InvalidPayload")
}

func (m *maker) lastEventID() bool {
	m.header("last-event-id", pick(m, []string{"x", "-1", "1.5", "99999999999999999999", "ä", "1 2", "0x1"}))
	if m.op.param("header", "last-event-id") == nil {
		return m.broke("a last event id that means nothing")
	}
	return m.broke("a bad last event id", "InvalidQuery")
}

func (m *maker) contentType() bool {
	if !m.op.writes() {
		return false
	}
	if m.IntN(5) == 0 {
		m.header("content-type", "application/json", "text/plain")
		return m.broke("two content types")
	}
	m.header("content-type", pick(m, [][]string{nil, {""}, {"text/plain"}, {"application/x-www-form-urlencoded"}, {"multipart/form-data; boundary=x"}, {"multipart/form-data"}, {"application/json; charset=latin1"}, {";;"}, {"application/jsonx"}, {"ä"}, {"json"}, {strings.Repeat("a/", 2000)}})...)
	return m.broke("a bad content type", "UnsupportedMediaType")
}

func (m *maker) contentEncoding() bool {
	if !m.op.writes() {
		return false
	}
	m.header("content-encoding", pick(m, []string{"gzip", "br", "x", "deflate, gzip", "identity, gzip"}))
	return m.broke("a content encoding", "UnsupportedMediaType")
}

func (m *maker) oddHeader() bool {
	h := pick(m, []pair{
		{"x-request-id", strings.Repeat("r", 200)}, {"x-request-id", "ä"}, {"origin", "null"}, {"origin", "ä"}, {"accept", "\xff\xfe"}, {"cookie", strings.Repeat("a=b; ", 500)},
		{"range", "bytes=0-1,5-2"}, {"if-none-match", "*"}, {"accept-encoding", "x;q=9"}, {"upgrade", "websocket"}, {"upgrade", "h2c"}, {"connection", "upgrade, x"}, {"te", "trailers, x"},
		{"forwarded", "for=;;"}, {"x-forwarded-for", "999.1.1.1, ::::"}, {"x-forwarded-proto", "gopher"}, {"x-http-method-override", "DELETE"}, {"sec-websocket-key", "x"}, {"date", "yesterday"},
		{"x-multiple-integrations", "maybe"}, {"x-user-key", "x"}, {"host", "a.b"}, {"access-control-request-method", "X"}, {"traceparent", "00-x"},
	})
	if h.name == "x-user-key" && m.op.userKey || h.name == "x-multiple-integrations" && m.op.Family == "admin" {
		return false
	}
	if h.name == "host" {
		m.r.alone = true
		m.r.header = append(m.r.header, h)
		return m.broke("two hosts", "InvalidPayload")
	}
	m.r.header = append(m.r.header, h)
	return m.broke("an odd header " + h.name)
}

func (m *maker) hugeHeader() bool {
	if m.IntN(20) > 0 {
		for i := range 150 {
			m.r.header = append(m.r.header, pair{fmt.Sprint("x-many-", i), "v"})
		}
		return m.broke("very many headers")
	}
	m.r.alone, m.r.routed = true, false
	m.r.header = append(m.r.header, pair{"x-much", strings.Repeat("x", 80<<10)})
	return m.broke("a huge header", "PayloadTooLarge")
}

// ── body, as a value ──────────────────────────────────────────────────────────

// node is some value of the body for which fits says yes, nil if there is none.
func (m *maker) node(fits func(*tree) bool) *tree {
	if m.tree == nil {
		return nil
	}
	var list []*tree
	for _, t := range m.tree.all() {
		if fits(t) {
			list = append(list, t)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return pick(m, list)
}

// values of each type of JSON.
var values = map[string][]string{
	"string": {`"x"`, `"1"`, `"null"`}, "integer": {"1", "0", "-7"}, "number": {"1.5", "-0.25"}, "boolean": {"true", "false"}, "array": {"[]", "[1]", "[[]]"}, "object": {"{}", `{"a":1}`},
}

func (m *maker) wrongType() bool {
	t := m.node(func(t *tree) bool { return !t.schema.anything() })
	if t == nil {
		return false
	}
	var wrong []string
	for typ, list := range values {
		if !t.schema.takes(typ) {
			wrong = append(wrong, list...)
		}
	}
	slices.Sort(wrong) // the same seed makes the same request
	t.set(pick(m, wrong))
	return m.broke("a value of the wrong type", "InvalidPayload")
}

// takes reports whether values of a type of JSON may fit.
func (s *schema) takes(typ string) bool {
	return s.is(typ) || typ == "integer" && s.is("number") || s.union() && typ == "object"
}

func (m *maker) noNull() bool {
	t := m.node(func(t *tree) bool { return !t.null && !t.schema.nullable() })
	if t == nil {
		return false
	}
	t.set("null")
	return m.broke("null", "InvalidPayload")
}

func (m *maker) missing() bool {
	t := m.node(func(t *tree) bool { return t.kind == '{' && t.schema != nil && len(t.schema.Required) > 0 })
	if t == nil {
		return false
	}
	name := strconv.Quote(pick(m, t.schema.Required))
	t.members = slices.DeleteFunc(t.members, func(o member) bool { return o.name == name })
	return m.broke("no "+name, "InvalidPayload")
}

func (m *maker) unknownMember() bool {
	t := m.node(func(t *tree) bool { return t.kind == '{' })
	if t == nil {
		return false
	}
	name := pick(m, []string{`"zzz"`, `"__proto__"`, `"constructor"`, `"ID"`, `"ä€😀"`, `"$ref"`, `"a.b"`, quoted(strings.Repeat("n", 3000)), `"\u200b"`})
	t.members = slices.Insert(t.members, m.IntN(len(t.members)+1), member{name, &tree{kind: 'v', text: pick(m, []string{"1", `"x"`, "null", "{}", "[]"})}})
	switch {
	case t.schema.closed():
		return m.broke("an unknown member", "InvalidPayload")
	case t.schema != nil && t.schema.Rest != nil && t.schema.Rest.schema != nil:
		return false // it has a schema: another try
	}
	return m.broke("an unknown member where any may be")
}

func (m *maker) memberTwice() bool {
	t := m.node(func(t *tree) bool { return t.kind == '{' && len(t.members) > 0 })
	if t == nil {
		return false
	}
	again := pick(m, t.members)
	if m.IntN(3) == 0 && len(again.name) > 2 && again.name[1] < 0x80 && again.name[1] != '\\' {
		again.name = fmt.Sprintf(`"\u%04x%s`, again.name[1], again.name[2:])
	}
	t.members = append(t.members, again)
	return m.broke("a member twice", "InvalidPayload")
}

// beyondLimits has a value miss what its schema demands beside its type.
func (m *maker) beyondLimits() bool {
	t := m.node(func(t *tree) bool { return t.schema.demands() })
	if t == nil {
		return false
	}
	var wrong []string
	s := t.schema
	if s.MaxLength != nil {
		wrong = append(wrong, quoted(strings.Repeat("x", *s.MaxLength+1)), quoted(strings.Repeat("😀", *s.MaxLength+1)))
	}
	if s.MinLength != nil && *s.MinLength > 0 {
		wrong = append(wrong, quoted(strings.Repeat("x", *s.MinLength-1)))
	}
	if s.Minimum != nil {
		wrong = append(wrong, fmt.Sprintf("%d", int64(*s.Minimum)-1), "-1e15")
	}
	if s.Maximum != nil {
		wrong = append(wrong, fmt.Sprintf("%d", int64(*s.Maximum)+1))
	}
	if len(s.Enum) > 0 {
		wrong = append(wrong, `"zzz"`, `""`, strconv.Quote(s.Enum[0]+" "), strconv.Quote(s.Enum[0]+"\u200b"))
	}
	switch s.Format {
	case "id":
		wrong = append(wrong, `"x"`, `""`, `"conv_"`, `"conv_0123456789012345678901234I"`, `"00000000-0000-0000-0000-00000000000g"`, `"user_01HZZZZZZZZZZZZZZZZZZZZZZZ "`)
	case "date-time":
		wrong = append(wrong, `"yesterday"`, `""`, `"2026-02-30T00:00:00.000Z"`, `"2026-01-01T25:00:00.000Z"`, `"2026-01-01"`, `"0"`)
	case "uri":
		wrong = append(wrong, `"x"`, `""`, `"//a"`, `"http://"`, `"http://[::1"`, `"%"`)
	}
	if s.MaxItems != nil && len(t.items) > 0 {
		var b bytes.Buffer
		t.items[0].write(&b)
		wrong = []string{"[" + strings.Repeat(b.String()+",", *s.MaxItems) + b.String() + "]"}
	}
	if len(wrong) == 0 {
		return false
	}
	t.set(pick(m, wrong))
	return m.broke("a value beyond its limits", "InvalidPayload")
}

func (s *schema) demands() bool {
	return s != nil && (s.MaxLength != nil || s.MinLength != nil || s.Minimum != nil || s.Maximum != nil || len(s.Enum) > 0 || s.Format != "" || s.MaxItems != nil)
}

func (m *maker) wrongVariant() bool {
	t := m.node(func(t *tree) bool { return t.union != nil })
	if t == nil {
		return false
	}
	by := strconv.Quote(t.union.Discriminator.PropertyName)
	if m.IntN(3) == 0 {
		t.members = slices.DeleteFunc(t.members, func(o member) bool { return o.name == by })
		return m.broke("no discriminator", "InvalidPayload")
	}
	for _, o := range t.members {
		if o.name == by {
			o.set(pick(m, []string{`"zzz"`, `""`, "1", "null", "[]", `{"type":"text"}`, `"TEXT"`}))
		}
	}
	return m.broke("a wrong discriminator", "InvalidPayload")
}

func (m *maker) zeroByte() bool {
	t := m.node(func(t *tree) bool {
		return t.kind == 'v' && t.schema != nil && t.schema.is("string") && t.text != "null"
	})
	if t == nil {
		return false
	}
	t.set(`"a\u0000b"`)
	return m.broke("a zero byte in a text", "InvalidPayload")
}

// oddValue is a value that fits and that nobody expects.
func (m *maker) oddValue() bool {
	if m.tree != nil && m.tree.kind == '{' && m.tree.schema != nil {
		m.members(m.tree, 0)
	}
	t := m.node(func(t *tree) bool { return t.kind == 'v' })
	if t == nil {
		return false
	}
	if t.schema.anything() {
		t.set(pick(m, []string{"1e400", "-0", "[[[[[[]]]]]]", `"\u0000"`, `{"":{"":{}}}`, "null", "123456789012345678901234567890", `"` + strings.Repeat("x", 5000) + `"`}))
	} else {
		*t = *m.value(t.schema, "url", 0) // no address that might be called
	}
	return m.broke("an odd value")
}

// ── body, as text ─────────────────────────────────────────────────────────────

// broken has the body's text be broken once it is written.
func (m *maker) broken(how string, text func(b []byte) []byte, wants ...string) bool {
	if m.tree == nil || m.text != nil {
		return false
	}
	m.text = text
	return m.broke(how, wants...)
}

func (m *maker) brokenText() bool {
	at := m.Float64()
	in := func(b []byte) int { return 1 + int(at*float64(len(b)-1)) }
	ways := []struct {
		how  string
		text func(b []byte) []byte
	}{
		{"a body that ends too early", func(b []byte) []byte { return b[:min(in(b), len(b)-1)] }},
		{"a byte order mark", func(b []byte) []byte { return append([]byte("\ufeff"), b...) }},
		{"UTF-16", func(b []byte) []byte {
			return append([]byte{0xff, 0xfe}, bytes.Join(bytes.Split(b, nil), []byte{0})...)
		}},
		{"a second value", func(b []byte) []byte { return append(append([]byte{}, b...), b...) }},
		{"something behind the value", func(b []byte) []byte { return append(append([]byte{}, b...), " ]"...) }},
		{"a comma too many", func(b []byte) []byte { return append(append([]byte{}, b[:len(b)-1]...), ",}"...) }},
		{"single quotes", func(b []byte) []byte { return []byte("{'a':1}") }},
		{"a comment", func(b []byte) []byte { return append([]byte("/* */"), b...) }},
		{"NaN", func(b []byte) []byte { return append(append([]byte{}, b[:len(b)-1]...), `,"n":NaN}`...) }},
		{"a number that begins with 0", func(b []byte) []byte { return []byte(`{"a":01}`) }},
		{"blanks alone", func(b []byte) []byte { return []byte(" \r\n\t ") }},
		{"a form", func(b []byte) []byte { return []byte("a=b&c=d") }},
		{"a control character", func(b []byte) []byte { return append([]byte("{\"a\x01\":1,"), b[1:]...) }},
		{"zero bytes", func(b []byte) []byte { return make([]byte, 1+len(b)) }},
		{"something of everything", func(b []byte) []byte { return []byte("\x1f\x8b\x08\x00<?xml version='1.0'?>") }},
	}
	w := pick(m, ways)
	return m.broken(w.how, w.text, "InvalidPayload")
}

func (m *maker) brokenString() bool {
	t := m.node(func(t *tree) bool { return t.kind == 'v' && strings.HasPrefix(t.text, `"`) })
	if t == nil {
		return false
	}
	t.set(pick(m, []string{"\"a\xffb\"", `"\ud800"`, `"\udc00x"`, `"\ud800\ud800"`, "\"a\nb\"", `"\x"`, `"\u12"`, "\"\xed\xa0\x80\"", "\"\xc0\x80\"", `"a`, "\"\xf8\x88\x80\x80\x80\""}))
	return m.broke("a string that is none", "InvalidPayload")
}

func (m *maker) deep() bool {
	depth := 65 + m.IntN(3)*m.IntN(20_000)
	t := m.node(func(*tree) bool { return true })
	if t == nil {
		return false
	}
	if t.set(strings.Repeat("[", depth) + strings.Repeat("]", depth)); m.IntN(2) == 0 {
		t.set(strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth))
	}
	return m.broke("very deep", "InvalidPayload", "PayloadTooLarge")
}

func (m *maker) hugeNumber() bool {
	t := m.node(func(t *tree) bool { return t.schema != nil && (t.schema.is("integer") || t.schema.is("number")) })
	if t == nil {
		return false
	}
	huge := []string{"1e400", "-1e999", "1" + strings.Repeat("0", 400)}
	if t.schema.is("integer") {
		huge = append(huge, "9223372036854775808", "1e3", "1.0")
	}
	t.set(pick(m, huge))
	return m.broke("a huge number", "InvalidPayload")
}

func (m *maker) notAnObject() bool {
	if m.tree == nil {
		return false
	}
	return m.broken("a body that is no object", func(b []byte) []byte {
		return pick(m, [][]byte{append(append([]byte("["), b...), ']'), []byte("null"), []byte("1"), []byte(`"x"`), []byte("true"), []byte("[]")})
	}, "InvalidPayload")
}

// long is rare: such bodies take their time.
func (m *maker) long() bool {
	if m.IntN(50) > 0 {
		return false
	}
	return m.broken("a body of megabytes", func(b []byte) []byte {
		return append(append(append([]byte{}, b[:len(b)-1]...), bytes.Repeat([]byte(" "), 1<<20+m.IntN(2<<20))...), '}')
	})
}

// ── below ─────────────────────────────────────────────────────────────────────

// Below HTTP one thing is broken at a time: a request must end somehow.

func (m *maker) breakLength() bool {
	if m.r.alone {
		return false
	}
	m.r.alone, m.r.routed = true, false
	switch m.IntN(3) {
	case 0:
		m.r.length = pick(m, []string{"-1", "x", "+5", "1.5", "5, 6", "9223372036854775808", "0x10", "1e3", "\x01"})
		return m.broke("a length that is none", "InvalidPayload")
	case 1:
		m.r.header = append(m.r.header, pair{"content-length", "1"})
		m.r.length = "2"
		return m.broke("two lengths", "InvalidPayload")
	}
	m.r.length, m.r.cut = "100000", true
	if !m.op.writes() {
		return m.broke("a body that does not come")
	}
	return m.broke("a body shorter than its length", "InvalidPayload")
}

func (m *maker) breakChunks() bool {
	if !m.op.writes() || m.text != nil || m.r.alone {
		return false
	}
	m.r.alone, m.r.routed, m.r.length = true, false, none
	m.r.header = append(m.r.header, pair{"transfer-encoding", "chunked"})
	bad := []string{"zz\r\n", "-1\r\n", "FFFFFFFFFFFFFFFFF\r\n", "5\r\nab\r\n0\r\n\r\n", "2\nab\n0\n\n!", "\r\n", "2;" + strings.Repeat("e", 9000) + "\r\nab", "1 \r\na\r\n"}
	if m.IntN(4) == 0 {
		m.text = func(b []byte) []byte {
			return []byte(fmt.Sprintf("%x;a=\"b\"\r\n%s\r\n0\r\nx-trailer: y\r\n\r\n", len(b), b))
		}
		return m.broke("chunks with an extension and a trailer")
	}
	m.r.cut = true
	chunk := pick(m, bad)
	m.text = func([]byte) []byte { return []byte(chunk) }
	return m.broke("broken chunks", "InvalidPayload")
}

// whole has the request be broken once it is written.
func (m *maker) whole(how string, frame func(b []byte) []byte, wants ...string) bool {
	if m.r.alone {
		return false
	}
	m.r.alone, m.r.routed = true, false
	m.frame = frame
	return m.broke(how, wants...)
}

func (m *maker) breakFrame() bool {
	version := func(v string) func(b []byte) []byte {
		return func(b []byte) []byte { return bytes.Replace(b, []byte(" HTTP/1.1\r\n"), []byte(v), 1) }
	}
	switch m.IntN(8) {
	case 0:
		return m.whole("another version", version(pick(m, []string{" HTTP/9.9\r\n", " HTTP/3.0\r\n", " HTP/1.1\r\n", " HTTP/1.1.1\r\n", " HTTP/x\r\n", "\r\n", " http/1.1\r\n", " HTTP/1.1 x\r\n"})), "InvalidPayload")
	case 1:
		return m.whole("no host", func(b []byte) []byte { return bytes.Replace(b, []byte("host: "), []byte("hots: "), 1) }, "InvalidPayload")
	case 2:
		coding := pick(m, []string{"gzip", "chunked, identity", "chunked\r\ntransfer-encoding: chunked", "x", "chunked, chunked"})
		return m.whole("an unknown transfer coding", version(" HTTP/1.1\r\ntransfer-encoding: "+coding+"\r\n"), "InvalidPayload")
	case 3:
		broken := m.whole("two ways to tell the length", version(" HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n"))
		m.r.cut = m.r.cut || broken // where there is no body, none comes
		return broken
	case 4:
		return m.whole("an overlong line", func(b []byte) []byte {
			return bytes.Replace(b, []byte(" /"), []byte(" /"+strings.Repeat("x", 80<<10)), 1)
		}, "PayloadTooLarge")
	case 5:
		return m.whole("line feeds alone", func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")) })
	case 6:
		return m.whole("blanks in the line", func(b []byte) []byte { return bytes.Replace(b, []byte(" /"), []byte("  /"), 1) }, "InvalidPayload")
	}
	return m.whole("an unknown expectation", version(" HTTP/1.1\r\nexpect: "+pick(m, []string{"x", "200-ok", "continue"})+"\r\n"), "InvalidPayload")
}

// breakHead puts a line into the header that is none.
func (m *maker) breakHead() bool {
	lines := []string{": x", "x", "x y: 1", "x\x00: 1", "\xff: 1", "x: a\x00b", "x : 1", "x: a\x7fb", "(x): 1"}
	line := pick(m, lines)
	if m.IntN(6) == 0 {
		return m.whole("a folded header", func(b []byte) []byte {
			return bytes.Replace(b, []byte("\r\n"), []byte("\r\nx-folded: a\r\n\tb\r\n"), 1)
		})
	}
	return m.whole(fmt.Sprintf("the header %q", line), func(b []byte) []byte { return bytes.Replace(b, []byte("\r\n"), []byte("\r\n"+line+"\r\n"), 1) }, "InvalidPayload")
}

// noHTTP is bytes of another kind, after which the client hangs up.
func (m *maker) noHTTP() bool {
	if m.r.alone {
		return false
	}
	bytes := pick(m, []string{
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x04\x01\x05\x00\x00\x00\x01\x82\x86\x84\x41", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "SSH-2.0-x\r\n", "GET /", "GET / HTTP/1.1\r\nHost", "\x00\x00\x00\x00", "\r\n\r\n\r\n\r\n", "{\"a\":1}\n",
	})
	m.r.raw, m.r.cut, m.r.binary, m.r.alone, m.r.routed = []byte(bytes), true, true, true, false
	return m.broke(fmt.Sprintf("no HTTP: %q", bytes[:min(len(bytes), 40)]))
}
