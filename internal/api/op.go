package api

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"parley/internal/auth"
	"parley/internal/fault"
)

// Op is one operation: a line in a module's table. It is a value; New mounts it.
type Op struct {
	ID     string // operationId of the specification
	Method string
	Path   string // with {parameters}
	Class  auth.Class
	Status int // of a successful answer

	Doc    string        // one sentence
	Tags   []string      // groups in the documentation
	Faults []*fault.Kind // documented beside those that every operation may answer

	maxBody  int64         // 0 = Config.MaxBody
	timeout  time.Duration // 0 = Config.Timeout
	replays  bool          // answers are kept under an idempotency key
	open     bool          // unknown body members are accepted
	untyped  bool          // the body is JSON whatever its content type
	thorough bool          // an error names all members at fault
	media    string        // content type of a raw answer

	refusal error // of every request, whoever asks

	in   *input  // nil for a raw operation without Takes
	out  *Schema // nil for a raw operation
	call func(ctx context.Context, c *call) (out any, err error)
	raw  func(http.ResponseWriter, *http.Request) error
}

// Option changes an Op.
type Option func(*Op)

// Created makes the operation answer 201.
func Created(o *Op) { o.Status = http.StatusCreated }

// Open makes the operation accept body members it does not know. They are kept
// if its input has a field of type Extra tagged `json:",embed"`. Each is logged once.
func Open(o *Op) { o.open = true }

// Untyped makes the operation read its body as JSON whatever the header
// content-type says: for callers who were told to send JSON and nothing of headers.
func Untyped(o *Op) { o.untyped = true }

// Thorough makes the operation name all members of the body that are missing or
// wrong in one error, not the first alone.
func Thorough(o *Op) { o.thorough = true }

// NoReplay keeps the operation's answers from being stored under an
// idempotency key by the api; once.Write inside it stores its own all the same.
func NoReplay(o *Op) { o.replays = false }

// Doc says in one sentence what the operation does.
func Doc(sentence string) Option { return func(o *Op) { o.Doc = sentence } }

// Tag puts the operation into a group of the documentation; without one its
// group is the first word of its path that is no version, family or parameter.
func Tag(names ...string) Option { return func(o *Op) { o.Tags = names } }

// MaxBody limits the request body, in bytes.
func MaxBody(n int64) Option { return func(o *Op) { o.maxBody = n } }

// Timeout bounds the operation; when it is over the answer is OperationTimeout.
func Timeout(d time.Duration) Option { return func(o *Op) { o.timeout = d } }

// Faults documents kinds of fault that are particular to the operation.
func Faults(kinds ...*fault.Kind) Option { return func(o *Op) { o.Faults = kinds } }

// Produces documents the content type that a raw operation answers.
func Produces(media string) Option { return func(o *Op) { o.media = media } }

// Takes documents the parameters of a raw operation: the path, query and header
// fields of In. The operation reads them with Params.
func Takes[In any](o *Op) { o.in = inputOf(reflect.TypeFor[In](), o.ID, o.Method) }

// Handle makes the operation that fn carries out. The route is a method and a
// path with {parameters}. In is a struct filled from the request: fields tagged
// `path:"id"`, `query:"nextToken"` and `header:"x-workspace-id"`, and fields
// tagged `json:"name"`, which are the members of the body. Tags constrain them:
//
//	min, max   characters of a string, items of an array, members of a map, value of a number
//	enum       the allowed values, separated by commas
//	format     id, uri or date-time
//	pattern    a regular expression the whole string must match
//	each.…     any of these, for the items of an array or the values of a map
//	doc        one sentence for the documentation
//
// A body member is required unless its field is a pointer, a Nullable or tagged
// omitempty or omitzero. If In or *In has a method Check() error, it runs last.
// Out is the answer's JSON.
//
// Handle panics on a route or type that cannot work: that is a programmer's
// error and shows at start-up.
func Handle[In, Out any](operationID, route string, access auth.Class, fn func(context.Context, In) (Out, error), opts ...Option) Op {
	o := newOp(operationID, route, access)
	o.replays = writes(o.Method)
	for _, opt := range opts {
		opt(&o)
	}
	o.in = inputOf(reflect.TypeFor[In](), o.ID, o.Method)
	o.in.agree(&o)
	o.out = schemaOf(reflect.TypeFor[Out]())
	plan := o.in
	o.call = func(ctx context.Context, c *call) (any, error) {
		in := new(In)
		if err := c.decode(plan, in); err != nil {
			return nil, err
		}
		if k, ok := any(in).(interface{ Check() error }); ok {
			if err := k.Check(); err != nil {
				return nil, err
			}
		}
		ctx, err := c.once(ctx)
		if err != nil {
			return nil, err
		}
		out, err := fn(ctx, *in)
		return &out, err
	}
	return o
}

// HandleRaw makes an operation that writes its own answer, such as a stream.
// Path parameters are in r.PathValue, decoded; the principal is in the context.
// An error that fn returns before it has written anything becomes the answer;
// later it is only logged. Raw operations do not take part in idempotency.
func HandleRaw(operationID, route string, access auth.Class, fn func(http.ResponseWriter, *http.Request) error, opts ...Option) Op {
	o := newOp(operationID, route, access)
	o.raw = fn
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// Refusing is o as it is documented, which answers err to everybody.
func (o Op) Refusing(err error) Op {
	o.refusal = err
	return o
}

func newOp(operationID, route string, access auth.Class) Op {
	method, path, ok := strings.Cut(route, " ")
	if !ok || operationID == "" || !strings.HasPrefix(path, "/") {
		panic(fmt.Sprintf("api: operation %q has the route %q, which is no method and path", operationID, route))
	}
	switch method {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
	default:
		panic(fmt.Sprintf("api: operation %q has the method %q", operationID, method))
	}
	return Op{ID: operationID, Method: method, Path: path, Class: access, Status: http.StatusOK}
}

// writes reports whether requests of a method may change something.
func writes(method string) bool { return method != http.MethodGet && method != http.MethodHead }
