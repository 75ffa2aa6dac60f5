package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/once"
	"parley/internal/sqldb"
)

// call is one request on its way through the API. It is reused.
type call struct {
	api   *API
	w     http.ResponseWriter
	r     *http.Request
	start time.Time

	op        *mounted // nil until routed
	ended     error    // why the operation's context was over when it failed, nil if it was not
	rctx      chi.Context
	params    []string // decoded values, in the order of rctx.URLParams.Keys
	requestID []string
	principal auth.Principal
	key       *once.Key     // nil without an idempotency key
	flight    string        // entry in api.flights to remove
	waited    time.Duration // because the client wanted to

	status  int // 0 = nothing written yet
	written int64
	gone    bool // the client left before the answer

	body bytes.Buffer
	out  bytes.Buffer
	log  []slog.Attr
}

var calls = sync.Pool{New: func() any { return new(call) }}

// keptBuffer is the size up to which a buffer is kept for the next request.
const keptBuffer = 256 << 10

func (a *API) begin(w http.ResponseWriter, r *http.Request) *call {
	c := calls.Get().(*call)
	c.api, c.w, c.r, c.start = a, w, r, a.Now()
	c.requestID = head(w.Header(), r, a.limits)
	return c
}

// Head gives an answer that belongs to no API the headers that every answer
// has: a request id, the rate limits, and leave for browsers to read it.
func Head(w http.ResponseWriter, r *http.Request) { head(w.Header(), r, noLimits) }

var noLimits = newLimits(0)

func head(h http.Header, r *http.Request, l *limits) (id []string) {
	id = requestID(r)
	h["X-Request-Id"] = id
	h["Vary"] = varyOrigin
	l.announce(h)
	allowOrigin(h, r)
	return id
}

// requestID echoes a sane id of the client's or makes one.
func requestID(r *http.Request) []string {
	if given := r.Header["X-Request-Id"]; len(given) == 1 && printable(given[0], 100) {
		return given[:1:1]
	}
	return []string{id.New("req")}
}

// printable reports whether s is 1 to most printable ASCII characters.
func printable(s string, most int) bool {
	if s == "" || len(s) > most {
		return false
	}
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// end finishes the call: it is deferred, so that a panic becomes an answer too.
func (c *call) end() {
	p := recover()
	if p != nil && p != http.ErrAbortHandler {
		if c.status == 0 {
			c.answerFault(fault.Internal.New("An internal error occurred"), fmt.Errorf("panic: %v", p), slog.String("stack", string(debug.Stack())))
			p = nil
		} else {
			c.api.Log.LogAttrs(c.r.Context(), slog.LevelError, "panic after the answer began", c.about(slog.Any("err", p), slog.String("stack", string(debug.Stack())))...)
			p = http.ErrAbortHandler // cuts the connection: the answer is not whole
		}
	}
	if c.flight != "" {
		c.api.flights.land(c.flight)
	}
	took := c.api.Now().Sub(c.start)
	c.count(took - c.waited)
	c.trace(took)
	c.release()
	if p != nil {
		panic(p)
	}
}

func (c *call) release() {
	body, out, log, params := c.body, c.out, c.log, c.params
	c.rctx.Reset()
	rctx := c.rctx
	*c = call{rctx: rctx, log: log[:0], params: params[:0]}
	clear(params[:cap(params)])
	if body.Cap() <= keptBuffer {
		body.Reset()
		c.body = body
	}
	if out.Cap() <= keptBuffer {
		out.Reset()
		c.out = out
	}
	calls.Put(c)
}

// serve takes a request from its path to its answer.
func (c *call) serve() error {
	if err := c.route(); err != nil {
		return err
	}
	if c.op.refusal != nil {
		return c.op.refusal
	}
	m := c.op.metrics()
	m.inFlight.Inc()
	defer m.inFlight.Dec()
	ctx, err := c.admit()
	if err != nil {
		return err
	}
	if c.op.raw != nil {
		return c.serveRaw(ctx)
	}
	if c.op.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.op.timeout)
		defer cancel()
	}
	out, err := c.op.call(ctx, c)
	if err != nil {
		c.ended = ctx.Err()
		return err
	}
	return c.succeed(ctx, out)
}

// admit asks who the request acts as, before its body is read.
func (c *call) admit() (context.Context, error) {
	ctx := c.r.Context()
	if c.api.Admit == nil {
		return ctx, nil
	}
	p, err := c.api.Admit(c.r, c.op.Class)
	if err != nil {
		return nil, err
	}
	c.principal = p
	if err := c.api.limits.take(c.w.Header(), p, c.start); err != nil {
		return nil, err
	}
	return auth.With(ctx, p), nil
}

// serveRaw hands the request to an operation that writes its own answer.
func (c *call) serveRaw(ctx context.Context) error {
	r := c.r.WithContext(ctx)
	for i, name := range c.rctx.URLParams.Keys {
		r.SetPathValue(name, c.params[i])
	}
	w := &recorder{ResponseWriter: c.w}
	defer func() { c.status, c.written = w.status, w.written }() // after a panic too
	err := c.op.raw(w, r)
	if err == nil && w.status == 0 {
		w.status = http.StatusOK // the server writes it when we return
	}
	return err
}

// decode fills in, a pointer to the operation's In.
func (c *call) decode(plan *input, in any) error {
	if err := plan.fill(c.r, reflect.ValueOf(in).Elem(), c.param); err != nil {
		return err
	}
	if plan.body == nil {
		return c.dropBody()
	}
	text, err := c.readBody()
	if err != nil {
		return err
	}
	var unknown func(string)
	if c.op.open {
		unknown = c.noteUnknown
	}
	if err := plan.body.validate(c.op.ID, text, judging{all: c.op.thorough, unknown: unknown}); err != nil {
		return err
	}
	// The validator has refused duplicate and unknown names already.
	if err := json.Unmarshal(text, in, decodeOpts); err != nil {
		return fault.InvalidPayload.Wrap(err, "The body does not fit %s", c.op.ID)
	}
	return nil
}

var (
	decodeOpts = json.JoinOptions(jsontext.AllowDuplicateNames(true))
	encodeOpts = json.JoinOptions(json.Deterministic(true), jsontext.PreserveRawStrings(true))
)

// param is the decoded path parameter of that name.
func (c *call) param(name string) string {
	for i, k := range c.rctx.URLParams.Keys {
		if k == name {
			return c.params[i]
		}
	}
	return ""
}

// succeed writes the answer of an operation, and keeps it if a key asks for that.
func (c *call) succeed(ctx context.Context, out any) error {
	if err := json.MarshalWrite(&c.out, out, encodeOpts); err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	if c.api.CheckAnswers {
		if err := c.op.out.validate(c.op.ID, c.out.Bytes(), judging{answer: true}); err != nil {
			return fmt.Errorf("the answer is not as documented: %w", errors.New(err.Error()))
		}
	}
	if err := c.keep(ctx); err != nil {
		return err
	}
	c.write(c.op.Status, c.out.Bytes())
	return nil
}

var (
	typeJSON   = []string{"application/json"}
	varyOrigin = []string{"Origin"}
)

// write sends a JSON answer.
func (c *call) write(status int, text []byte) {
	h := c.w.Header()
	h["Content-Type"] = typeJSON
	if len(text) > 2000 {
		// The server measures shorter ones itself; a longer one would be chunked.
		h["Content-Length"] = []string{strconv.Itoa(len(text))}
	}
	c.status = status
	c.w.WriteHeader(status)
	n, _ := c.w.Write(text) // a client that left needs no answer
	c.written = int64(n)
}

// fail answers an error.
func (c *call) fail(err error) {
	if r, ok := errors.AsType[*once.Replay](err); ok {
		c.w.Header()["Idempotency-Replayed"] = isTrue
		c.write(c.op.Status, r.Answer)
		return
	}
	if c.status != 0 {
		c.lateFailure(err)
		return
	}
	c.answerFault(c.clientFault(err), err)
}

var isTrue = []string{"true"}

// clientFault chooses what the client is told about err.
func (c *call) clientFault(err error) *fault.Error {
	_, meant := errors.AsType[*fault.Error](err)
	if !meant && c.ended != nil {
		// Drivers have names of their own for a statement that was interrupted.
		err = errors.Join(c.ended, err)
	}
	switch {
	case meant:
	case errors.Is(err, sqldb.ErrBusy):
		return fault.RateLimited.Wrap(err, "The server has too many writes waiting; nothing was changed, try again in a second")
	case errors.Is(err, sqldb.ErrClosed):
		return fault.RateLimited.Wrap(err, "The server is stopping; nothing was changed, try again in a second")
	case sqldb.IsFull(err):
		return fault.RateLimited.Wrap(err, "There is no room left on the disk of the database; nothing was changed. Who operates the server has to make room; until then what is stored can be read")
	case sqldb.IsUnavailable(err):
		return fault.RateLimited.Wrap(err, "The database does not answer, or not in time; nothing was changed, try again in a second")
	case sqldb.IsInDoubt(err):
		return fault.OperationTimeout.Wrap(err, "%s got no answer from the database when it was to be committed; it may or may not have taken effect. The same request with the same Idempotency-Key finds out", c.name())
	case errors.Is(err, sqldb.ErrText):
		return fault.InvalidPayload.Wrap(err, "The request holds text with the character U+0000 or invalid UTF-8, which is not stored")
	case errors.Is(err, context.DeadlineExceeded):
		return fault.OperationTimeout.Wrap(err, "%s did not finish within its time limit; it may still take effect", c.name())
	case errors.Is(err, context.Canceled):
		c.gone = true
		return fault.OperationTimeout.Wrap(err, "The request was cancelled before its answer; it may still take effect")
	}
	return fault.From(err)
}

// name is what errors call the request; it may fail before its operation is known.
func (c *call) name() string {
	if c.op == nil {
		return "The request"
	}
	return c.op.ID
}

// answerFault sends f; cause is what happened, for the log.
func (c *call) answerFault(f *fault.Error, cause error, more ...slog.Attr) {
	body := f.Body(c.api.Now())
	if f.Kind == fault.RateLimited {
		tellRetry(c.w.Header())
	}
	if level, ok := c.worthLogging(f); ok {
		attrs := append(c.about(slog.String("error_id", body.ID), slog.Any("err", cause)), more...)
		c.api.Log.LogAttrs(c.r.Context(), level, "request failed", attrs...)
	}
	c.out.Reset()
	if err := json.MarshalWrite(&c.out, body, encodeOpts); err != nil {
		// Metadata that cannot be written must not hide the error itself.
		body.Metadata = nil
		c.out.Reset()
		_ = json.MarshalWrite(&c.out, body, encodeOpts)
	}
	c.write(f.Kind.Status, c.out.Bytes())
}

func (c *call) worthLogging(f *fault.Error) (slog.Level, bool) {
	switch {
	case c.gone:
		return 0, false
	case f.Kind == fault.Internal || f.Kind == fault.Unknown:
		return slog.LevelError, true
	case f.Kind == fault.OperationTimeout, sqldb.IsFull(f), sqldb.IsUnavailable(f):
		return slog.LevelWarn, true
	}
	return 0, false
}

// lateFailure logs an error that came after the answer had begun.
func (c *call) lateFailure(err error) {
	if c.r.Context().Err() != nil || errors.Is(err, context.Canceled) {
		return
	}
	c.api.Log.LogAttrs(c.r.Context(), slog.LevelWarn, "answer broke off", c.about(slog.Any("err", err))...)
}

// about names the request in a log line. Queries and headers hold credentials
// and stay out of it.
func (c *call) about(more ...slog.Attr) []slog.Attr {
	attrs := append(c.log[:0], slog.String("method", c.r.Method), slog.String("path", c.r.URL.Path), slog.String("request_id", c.requestID[0]))
	if c.op != nil {
		attrs = append(attrs, slog.String("operation", c.op.ID))
	}
	c.log = append(attrs, more...)
	return c.log
}

// trace is the access log.
func (c *call) trace(took time.Duration) {
	ctx := c.r.Context()
	if !c.api.Log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	c.api.Log.LogAttrs(ctx, slog.LevelDebug, "request", c.about(slog.Int("status", c.status), slog.Int64("bytes", c.written), slog.Duration("took", took))...)
}

// recorder remembers what a raw operation wrote.
type recorder struct {
	http.ResponseWriter
	status  int
	written int64
}

// Unwrap gives http.ResponseController the connection's own writer.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.written += int64(n)
	return n, err
}

// Flush implements http.Flusher.
func (w *recorder) Flush() {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	_ = http.NewResponseController(w.ResponseWriter).Flush() // nothing to flush where it is not supported
}
