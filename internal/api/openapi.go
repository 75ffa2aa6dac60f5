package api

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"parley/internal/auth"
	"parley/internal/fault"
)

// Info heads the OpenAPI document.
type Info struct {
	Title, Version, Description string
	Server                      string // URL, "" = where the document came from
}

// Mount is an API in the document. Name goes before each operationId, with a
// dot, where several APIs use the same ones; Prefix before each path.
type Mount struct {
	API          *API
	Name, Prefix string
}

// OpenAPI is the OpenAPI 3.1 document of this API alone.
func (a *API) OpenAPI() []byte {
	return Document(Info{Title: "Parley", Version: "1"}, Mount{API: a})
}

// Document is the OpenAPI 3.1 document of several APIs, as JSON. Two documents
// of the same APIs are equal byte for byte. It panics if two operations share an id.
func Document(info Info, mounts ...Mount) []byte {
	d := &document{names: map[string]*Schema{}, paths: map[string]int{}, ids: map[string]bool{}}
	for _, m := range mounts {
		for _, o := range m.API.order {
			d.operation(m, o)
		}
	}
	b, err := json.Marshal(d.whole(info), jsontext.WithIndent(" "))
	if err != nil {
		panic(err) // the document is built of our own values only
	}
	return b
}

// obj is a JSON object whose members keep their order.
type obj []field

type field struct {
	name  string
	value any
}

func (o obj) with(name string, value any) obj { return append(o, field{name, value}) }

// MarshalJSONTo implements json.MarshalerTo.
func (o obj) MarshalJSONTo(e *jsontext.Encoder) error {
	if err := e.WriteToken(jsontext.BeginObject); err != nil {
		return err
	}
	for _, f := range o {
		if err := e.WriteToken(jsontext.String(f.name)); err != nil {
			return err
		}
		if err := json.MarshalEncode(e, f.value); err != nil {
			return err
		}
	}
	return e.WriteToken(jsontext.EndObject)
}

type document struct {
	ids   map[string]bool
	paths map[string]int // index into items
	items []pathItem
	tags  []string

	names   map[string]*Schema // components, by name
	schemas obj
}

type pathItem struct {
	path string
	ops  obj
}

func (d *document) whole(info Info) obj {
	var paths obj
	for _, p := range d.items {
		paths = paths.with(p.path, p.ops)
	}
	var tags []obj
	for _, t := range d.tags {
		tags = append(tags, obj{{"name", t}})
	}
	about := obj{{"title", info.Title}, {"version", info.Version}}
	if info.Description != "" {
		about = about.with("description", info.Description)
	}
	doc := obj{{"openapi", "3.1.0"}, {"info", about}}
	if info.Server != "" {
		doc = doc.with("servers", []obj{{{"url", info.Server}}})
	}
	slices.SortFunc(d.schemas, func(a, b field) int { return strings.Compare(a.name, b.name) })
	return doc.with("tags", tags).with("paths", paths).with("components", obj{
		{"schemas", d.schemas.with("Error", errorBody())},
		{"securitySchemes", securitySchemes},
	})
}

var securitySchemes = obj{
	{"bearer", obj{{"type", "http"}, {"scheme", "bearer"}, {"description", "A personal access token (bp_pat_…), a bot key (bp_bak_…) or an integration key (bp_iak_…)."}}},
	{"userKey", obj{{"type", "apiKey"}, {"in", "header"}, {"name", "x-user-key"}, {"description", "The key of a chat user: an HS256 JWT {id} signed with the installation's key."}}},
}

// errorBody describes the body of every error.
func errorBody() obj {
	types := make([]string, 0, 26)
	var about strings.Builder
	about.WriteString("The type says what went wrong; the message names the member or id at fault.\n")
	for _, k := range fault.Kinds() {
		types = append(types, k.Type)
		fmt.Fprintf(&about, "\n- `%s` (%d): %s", k.Type, k.Status, k.Description)
	}
	str := func(doc string) obj { return obj{{"type", "string"}, {"description", doc}} }
	return obj{
		{"type", "object"},
		{"description", about.String()},
		{"properties", obj{
			{"id", str("Names this one failure; the server's log has it too.")},
			{"code", obj{{"type", "integer"}, {"description", "The HTTP status."}}},
			{"type", obj{{"type", "string"}, {"enum", types}}},
			{"message", str("What is wrong with this request.")},
			{"description", str("What the type means in general.")},
			{"status", obj{{"type", "integer"}, {"description", "The HTTP status."}}},
			{"metadata", obj{{"type", "object"}, {"additionalProperties", true}}},
		}},
		{"required", []string{"id", "code", "type", "message", "description", "status"}},
	}
}

func (d *document) operation(m Mount, o *mounted) {
	id := o.ID
	if m.Name != "" {
		id = m.Name + "." + id
	}
	if d.ids[id] {
		panic("api: two operations of the document are called " + id + "; give one Mount a Name")
	}
	d.ids[id] = true
	item := d.item(m.Prefix + o.path)
	item.ops = item.ops.with(strings.ToLower(o.Method), d.describe(m, o, id))
}

func (d *document) item(path string) *pathItem {
	i, ok := d.paths[path]
	if !ok {
		i = len(d.items)
		d.paths[path] = i
		d.items = append(d.items, pathItem{path: path})
	}
	return &d.items[i]
}

func (d *document) describe(m Mount, o *mounted, id string) obj {
	op := obj{{"operationId", id}}
	if o.Doc != "" {
		op = op.with("summary", o.Doc)
	}
	tags := o.Tags
	if len(tags) == 0 {
		tags = []string{group(m.Prefix + o.path)}
	}
	if m.Name != "" {
		tags = []string{m.Name + ": " + tags[0]}
	}
	for _, t := range tags {
		if !slices.Contains(d.tags, t) {
			d.tags = append(d.tags, t)
		}
	}
	op = op.with("tags", tags).with("security", d.security(o))
	if params := d.parameters(m, o); len(params) > 0 {
		op = op.with("parameters", params)
	}
	if body, ok := d.requestBody(o); ok {
		op = op.with("requestBody", body)
	}
	return op.with("responses", d.responses(m, o))
}

// group names the part of the API that a path belongs to: its first word after
// the version, the family and parameters. Parley's own parts say so.
func group(path string) string {
	last := "server"
	for seg := range strings.SplitSeq(path, "/") {
		if seg == "" || isParamSegment(seg) || seg == "v1" {
			continue
		}
		if last = seg; seg != "chat" && seg != "admin" && seg != "parley" {
			break
		}
	}
	if strings.HasPrefix(path, "/v1/parley/") {
		return "parley: " + last
	}
	return last
}

func (d *document) security(o *mounted) []obj {
	switch {
	case o.Class == auth.Public:
		return []obj{}
	case o.Class == auth.Chat:
		return []obj{{{"userKey", []string{}}}}
	}
	return []obj{{{"bearer", []string{}}}}
}

// classHeaders are the headers that a class of operations reads.
var classHeaders = map[auth.Class][]obj{
	auth.Workspace: {headerParam("x-workspace-id", true, "The workspace to act in.")},
	auth.Runtime: {
		headerParam("x-bot-id", true, "The bot to act for."),
		headerParam("x-integration-id", false, "Makes the request act as this integration's installation in the bot instead of as the bot."),
		headerParam("x-integration-alias", false, "Chooses among several installations of the integration."),
	},
	auth.Operator: {headerParam("x-bot-id", false, "The bot that the request is about, where it does not name it itself and the token is not the bot's own.")},
}

// admits reports whether a header is among those that a class reads.
func admits(c auth.Class, header string) bool {
	return slices.ContainsFunc(classHeaders[c], func(h obj) bool { return h[0].value == header })
}

func headerParam(name string, required bool, doc string) obj {
	return obj{{"name", name}, {"in", "header"}, {"required", required}, {"description", doc}, {"schema", obj{{"type", "string"}}}}
}

func (d *document) parameters(m Mount, o *mounted) []obj {
	var list []obj
	named := map[string]bool{}
	if o.in != nil {
		for _, p := range o.in.path {
			named[p.name] = true
			list = append(list, d.parameter("path", p))
		}
	}
	for _, name := range pathParams(m.Prefix + o.path) {
		if !named[name] {
			list = append(list, obj{{"name", name}, {"in", "path"}, {"required", true}, {"schema", obj{{"type", "string"}}}})
		}
	}
	if o.in != nil {
		for _, p := range o.in.query {
			list = append(list, d.parameter("query", p))
		}
		for _, p := range o.in.header {
			if !admits(o.Class, p.name) { // else it is below
				list = append(list, d.parameter("header", p))
			}
		}
	}
	list = append(list, classHeaders[o.Class]...)
	if o.raw == nil && writes(o.Method) {
		list = append(list, headerParam("idempotency-key", false, "Makes a repeated request take effect once: within a day the same key gets the first answer again."))
	}
	return list
}

func (d *document) parameter(in string, p param) obj {
	o := obj{{"name", p.name}, {"in", in}, {"required", in == "path" || p.required}}
	if p.doc != "" {
		o = o.with("description", p.doc)
	}
	o = o.with("schema", d.schema(p.schema, false))
	switch p.schema.kind {
	case kindMap:
		o = o.with("style", "deepObject").with("explode", true)
	case kindArray:
		o = o.with("style", "form").with("explode", true)
	}
	return o
}

func (d *document) requestBody(o *mounted) (obj, bool) {
	if o.raw != nil || o.in.body == nil || len(o.in.body.members) == 0 && !o.open {
		return nil, false
	}
	s := d.object(o.in.body, false, o.open)
	return obj{{"required", o.in.body.requires()}, {"content", jsonContent(s)}}, true
}

func jsonContent(schema any) obj {
	return obj{{"application/json", obj{{"schema", schema}}}}
}

func (d *document) responses(m Mount, o *mounted) obj {
	ok := obj{{"description", http.StatusText(o.Status)}}
	switch {
	case o.raw == nil:
		ok = ok.with("content", jsonContent(d.schema(o.out, true)))
	case o.media != "":
		ok = ok.with("content", obj{{o.media, obj{{"schema", obj{{"type", "string"}}}}}})
	}
	list := obj{{strconv.Itoa(o.Status), ok}}
	byStatus := map[int][]string{}
	for _, k := range expected(m, o) {
		if !slices.Contains(byStatus[k.Status], k.Type) {
			byStatus[k.Status] = append(byStatus[k.Status], k.Type)
		}
	}
	statuses := make([]int, 0, len(byStatus))
	for status := range byStatus {
		statuses = append(statuses, status)
	}
	slices.Sort(statuses)
	for _, status := range statuses {
		list = list.with(strconv.Itoa(status), obj{
			{"description", strings.Join(byStatus[status], ", ")},
			{"content", jsonContent(ref("Error"))},
		})
	}
	return list
}

// expected lists the faults an operation may answer.
func expected(m Mount, o *mounted) []*fault.Kind {
	list := []*fault.Kind{fault.InvalidPayload, fault.RateLimited, fault.Internal, fault.OperationTimeout}
	if o.raw != nil || len(o.in.query) > 0 {
		list = append(list, fault.InvalidQuery)
	}
	if o.Class != auth.Public {
		list = append(list, fault.Unauthorized, fault.Forbidden)
	}
	if len(pathParams(m.Prefix+o.path)) > 0 {
		list = append(list, fault.ResourceNotFound)
	}
	if o.raw == nil && writes(o.Method) {
		list = append(list, fault.ResourceLocked)
	}
	if o.raw == nil && o.in.body != nil {
		list = append(list, fault.ReferenceNotFound, fault.PayloadTooLarge, fault.UnsupportedMediaType)
	}
	return append(list, o.Faults...)
}
