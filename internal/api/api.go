// Package api turns typed functions into HTTP operations. An operation is one
// line of a table; this package routes to it, lets the request in, decodes and
// validates, calls, encodes, and writes errors, all in the dialect that the
// published API speaks. The same types make the OpenAPI document.
//
// It knows no resource. Operations write and read through package once and page
// lists with package page; everything else about HTTP and JSON is decided here.
package api

import (
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"

	"parley/internal/auth"
	"parley/internal/sqldb"
)

// Config says what an API consists of.
type Config struct {
	// Name tells several APIs of one server apart in metrics, logs and idempotency scopes.
	Name string
	// Ops are the operations.
	Ops []Op
	// Prefix is put before every path. It may hold parameters; Admit and raw
	// operations read them with r.PathValue.
	Prefix string
	// Admit decides who a request acts as, before its body is read.
	Admit func(*http.Request, auth.Class) (auth.Principal, error)
	// DB keeps answers under idempotency keys.
	DB *sqldb.DB
	// Box seals those answers at rest; nil keeps them in clear.
	Box *auth.Box
	// Log receives failures, and each request at debug level; nil discards both.
	Log *slog.Logger
	// Metrics collects counts and latencies by operation; nil collects nothing.
	Metrics prometheus.Registerer
	// MaxBody limits request bodies that have no limit of their own; 0 = 1 MB.
	MaxBody int64
	// Timeout bounds operations that have no limit of their own; 0 = none.
	Timeout time.Duration
	// RateLimit is the number of requests a second that one principal may make; 0 = any.
	RateLimit float64
	// CheckAnswers makes every answer be validated before it is sent, for tests.
	CheckAnswers bool
	// Now is the clock; nil = the system's.
	Now func() time.Time
}

// API serves operations. It is an http.Handler.
type API struct {
	Config
	router  *chi.Mux
	ops     map[route]*mounted
	order   []*mounted
	flights flights
	limits  *limits
	metrics *metrics
	noted   noted
}

// mounted is an operation with what this API knows of it.
type mounted struct {
	Op
	path    string // with the prefix
	maxBody int64
	timeout time.Duration
	metrics func() *opMetrics
}

// route is what the router answers with.
type route struct{ method, pattern string }

const defaultMaxBody = 1 << 20

// New mounts the operations of c. It panics when two of them have the same id
// or the same method and path: that is a programmer's error.
func New(c Config) *API {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.MaxBody == 0 {
		c.MaxBody = defaultMaxBody
	}
	a := &API{Config: c, router: chi.NewRouter(), ops: map[route]*mounted{}}
	a.limits = newLimits(c.RateLimit)
	a.metrics = newMetrics(c.Metrics)
	seen := map[string]bool{}
	for _, o := range c.Ops {
		if seen[o.ID] {
			panic("api: two operations are called " + o.ID)
		}
		seen[o.ID] = true
		a.mount(o)
	}
	return a
}

func (a *API) mount(o Op) {
	m := &mounted{Op: o, path: a.Prefix + o.Path, maxBody: o.maxBody, timeout: o.timeout}
	if m.maxBody == 0 {
		m.maxBody = a.MaxBody
	}
	if m.timeout == 0 {
		m.timeout = a.Timeout
	}
	if a.Admit == nil && o.Class != auth.Public {
		panic("api: " + o.ID + " is not public and Config.Admit is missing")
	}
	if o.in != nil {
		for _, p := range o.in.path {
			if !slices.Contains(pathParams(m.path), p.name) {
				panic(fmt.Sprintf("api: %s reads the path parameter %q, which %s does not have", o.ID, p.name, m.path))
			}
		}
	}
	m.metrics = sync.OnceValue(func() *opMetrics { return a.metrics.of(a.Name, o.ID) })
	pattern := strings.TrimSuffix(m.path, "/")
	if pattern == "" {
		pattern = "/"
	}
	at := route{o.Method, pattern}
	if other := a.ops[at]; other != nil {
		panic("api: " + other.ID + " and " + o.ID + " have the same method and path")
	}
	a.ops[at] = m
	a.order = append(a.order, m)
	a.router.Method(o.Method, pattern, http.NotFoundHandler())
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := a.begin(w, r)
	defer c.end()
	if r.Method == http.MethodOptions {
		c.options()
		return
	}
	if err := c.serve(); err != nil {
		c.fail(err)
	}
}

// Fail answers a request that belongs to no operation with err, in the form and
// with the headers of every other answer.
func (a *API) Fail(w http.ResponseWriter, r *http.Request, err error) {
	c := a.begin(w, r)
	defer c.end()
	c.fail(err)
}
