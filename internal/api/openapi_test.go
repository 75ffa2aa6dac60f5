package api_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
)

// node is a value of a decoded JSON document.
type node = map[string]any

func decoded(t testing.TB, text []byte) node {
	t.Helper()
	var d node
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// at follows a path of member names.
func at(n any, path ...string) any {
	for _, p := range path {
		m, _ := n.(node)
		n = m[p]
	}
	return n
}

func TestDocumentCoversEveryOperation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	doc := decoded(t, w.OpenAPI())
	if doc["openapi"] != "3.1.0" || at(doc, "info", "title") != "Parley" {
		t.Errorf("head: %v %v", doc["openapi"], doc["info"])
	}
	ids := map[string]bool{}
	for path, item := range doc["paths"].(node) {
		for method, o := range item.(node) {
			op := o.(node)
			id := op["operationId"].(string)
			if ids[id] {
				t.Errorf("%s occurs twice", id)
			}
			ids[id] = true
			checkOperation(t, doc, method+" "+path, op)
		}
	}
	for _, o := range w.Ops {
		if !ids[o.ID] {
			t.Errorf("%s is missing", o.ID)
		}
	}
	if len(ids) != len(w.Ops) {
		t.Errorf("%d operations, want %d", len(ids), len(w.Ops))
	}
	checkRefs(t, doc, doc)
	if !bytes.Equal(w.OpenAPI(), newWorld(t).OpenAPI()) {
		t.Error("two documents of the same operations differ")
	}
}

// checkOperation checks what the OpenAPI specification demands of an operation.
func checkOperation(t *testing.T, doc node, route string, op node) {
	t.Helper()
	_, path, _ := strings.Cut(route, " ")
	inPath := map[string]bool{}
	seen := map[string]bool{}
	params, _ := op["parameters"].([]any)
	for _, p := range params {
		name, in := at(p, "name").(string), at(p, "in").(string)
		if key := in + " " + name; seen[key] || at(p, "schema") == nil {
			t.Errorf("%s: parameter %s is twice there or has no schema", route, key)
		} else {
			seen[key] = true
		}
		if in == "path" {
			inPath[name] = true
			if at(p, "required") != true {
				t.Errorf("%s: path parameter %s is not required", route, name)
			}
		}
	}
	for seg := range strings.SplitSeq(path, "/") {
		if strings.HasPrefix(seg, "{") && !inPath[strings.Trim(seg, "{}")] {
			t.Errorf("%s: %s is not described", route, seg)
		}
	}
	responses := op["responses"].(node)
	ok, failed := 0, 0
	for status, r := range responses {
		if at(r, "description") == nil {
			t.Errorf("%s: response %s has no description", route, status)
		}
		switch {
		case status < "300":
			ok++
		case at(r, "content", "application/json", "schema", "$ref") == "#/components/schemas/Error":
			failed++
		}
	}
	if ok != 1 || failed != len(responses)-1 || responses["400"] == nil || responses["429"] == nil || responses["500"] == nil {
		t.Errorf("%s: responses are %v", route, responses)
	}
	tags := op["tags"].([]any)
	declared := doc["tags"].([]any)
	for _, tag := range tags {
		if !slices.ContainsFunc(declared, func(d any) bool { return at(d, "name") == tag }) {
			t.Errorf("%s: tag %v is not declared", route, tag)
		}
	}
	for _, s := range op["security"].([]any) {
		for name := range s.(node) {
			if at(doc, "components", "securitySchemes", name) == nil {
				t.Errorf("%s: security scheme %s is not declared", route, name)
			}
		}
	}
}

// checkRefs checks that every reference leads somewhere and that schemas are sane.
func checkRefs(t *testing.T, doc node, n any) {
	t.Helper()
	switch v := n.(type) {
	case node:
		if r, ok := v["$ref"].(string); ok {
			path := strings.Split(strings.TrimPrefix(r, "#/"), "/")
			if at(doc, path...) == nil {
				t.Errorf("%s leads nowhere", r)
			}
		}
		if required, ok := v["required"].([]any); ok {
			for _, name := range required {
				if at(v, "properties", name.(string)) == nil {
					t.Errorf("required member %v is no property of %v", name, v)
				}
			}
		}
		for _, child := range v {
			checkRefs(t, doc, child)
		}
	case []any:
		for _, child := range v {
			checkRefs(t, doc, child)
		}
	}
}

func TestDocumentOfAnOperation(t *testing.T) {
	t.Parallel()
	op, err := json.Marshal(at(decoded(t, newWorld(t).OpenAPI()), "paths", "/v1/chat/messages"), json.Deterministic(true))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "openapi_messages.json", append(op, '\n'))
	schemas, err := json.Marshal(at(decoded(t, newWorld(t).OpenAPI()), "components", "schemas"), json.Deterministic(true))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "openapi_schemas.json", append(schemas, '\n'))
}

func TestErrorSchemaNamesEveryType(t *testing.T) {
	t.Parallel()
	types := at(decoded(t, newWorld(t).OpenAPI()), "components", "schemas", "Error", "properties", "type", "enum").([]any)
	for _, k := range fault.Kinds() {
		if !slices.Contains(types, any(k.Type)) {
			t.Errorf("%s is missing", k.Type)
		}
	}
}

func TestDocumentMergesMounts(t *testing.T) {
	t.Parallel()
	type Message struct { // another Message than the tests' own
		Text string `json:"text"`
	}
	chat := api.New(api.Config{Name: "chat", Prefix: "/{webhookId}", Admit: admit, Ops: []api.Op{
		api.Handle("createMessage", "POST /messages", auth.Chat, func(context.Context, nothing) (Message, error) { return Message{}, nil }),
	}})
	doc := decoded(t, api.Document(api.Info{Title: "T", Version: "2", Description: "d", Server: "https://x"}, api.Mount{API: newWorld(t).API}, api.Mount{API: chat, Name: "chat"}))
	op := at(doc, "paths", "/{webhookId}/messages", "post")
	if at(op, "operationId") != "chat.createMessage" {
		t.Errorf("operationId is %v", at(op, "operationId"))
	}
	if p, _ := at(op, "parameters").([]any); len(p) != 2 || at(p[0], "name") != "webhookId" || at(p[1], "name") != "idempotency-key" {
		t.Errorf("parameters are %v", p)
	}
	if s, _ := at(op, "security").([]any); len(s) != 1 || at(s[0], "userKey") == nil {
		t.Errorf("security is %v", at(op, "security"))
	}
	checkRefs(t, doc, doc)
	defer func() {
		if recover() == nil {
			t.Error("two operations of one id are documented")
		}
	}()
	api.Document(api.Info{}, api.Mount{API: newWorld(t).API}, api.Mount{API: newWorld(t).API, Prefix: "/x"})
}

func TestDocsPage(t *testing.T) {
	t.Parallel()
	text := newWorld(t).OpenAPI()
	text = bytes.Replace(text, []byte("Creates a message."), []byte("</script><script>alert(1)//{{style}}"), 1)
	get := func(encoding string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", "/docs", nil)
		r.Header.Set("Accept-Encoding", encoding)
		rec := httptest.NewRecorder()
		api.DocsHandler("Parley <API>", text).ServeHTTP(rec, r)
		return rec
	}
	rec := get("")
	page := rec.Body.String()
	if strings.Contains(page, "</script><script>alert") || strings.Count(page, "<script") != 2 || strings.Contains(page, "http://") || !strings.Contains(page, "Parley &lt;API&gt;") {
		t.Error("the page is not what it should be")
	}
	if policy := rec.Header().Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'; script-src 'sha256-") {
		t.Errorf("policy is %q", policy)
	}
	zipped, err := gzip.NewReader(get("br, gzip").Body)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(zipped); err != nil || string(b) != page {
		t.Errorf("the compressed page differs: %v", err)
	}

	r := httptest.NewRequest("GET", "/openapi.json", nil)
	r.Header.Set("If-None-Match", rec.Header().Get("Etag"))
	second := httptest.NewRecorder()
	api.DocsHandler("Parley <API>", text).ServeHTTP(second, r)
	if second.Code != 304 {
		t.Errorf("an unchanged page: %d", second.Code)
	}
	third := httptest.NewRecorder()
	api.DocumentHandler(text).ServeHTTP(third, httptest.NewRequest("GET", "/openapi.json", nil))
	if third.Body.String() != string(text) || third.Header().Get("Content-Type") != "application/json" || third.Header().Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("the document: %v", third.Header())
	}
	fourth := httptest.NewRecorder()
	api.DocumentHandler(text).ServeHTTP(fourth, httptest.NewRequest("POST", "/openapi.json", nil))
	if fourth.Code != 405 {
		t.Errorf("POST: %d", fourth.Code)
	}
}

// The class of an operation documents the headers that admit; one that the
// operation reads, too, is there once.
func TestAHeaderIsDocumentedOnce(t *testing.T) {
	t.Parallel()
	type input struct {
		As string `header:"x-integration-id"`
	}
	op := api.Handle("who", "GET /who", auth.Runtime, func(context.Context, input) (seen, error) { return seen{}, nil })
	a := api.New(api.Config{Ops: []api.Op{op}, Admit: func(*http.Request, auth.Class) (auth.Principal, error) { return auth.Principal{}, nil }})
	n := 0
	for _, p := range at(decoded(t, a.OpenAPI()), "paths", "/who", "get", "parameters").([]any) {
		if at(p, "name") == "x-integration-id" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("x-integration-id is documented %d times", n)
	}
}
