package api

import (
	"net/http"
	"strings"
)

// What a browser is told. Official browser clients send credentials, so the
// origin is echoed: a star would not do.
var (
	corsTrue    = []string{"true"}
	corsMethods = []string{"GET, HEAD, POST, PUT, PATCH, DELETE"}
	corsHeaders = []string{"authorization, content-type, x-bot-id, x-integration-id, x-integration-alias, x-workspace-id, x-multiple-integrations, x-user-key, idempotency-key, last-event-id, timeout"}
	corsExposed = []string{"ratelimit-limit, ratelimit-remaining, ratelimit-reset, retry-after, x-request-id"}
	corsMaxAge  = []string{"7200"}
	corsVary    = []string{"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"}
	noLength    = []string{"0"}
)

// allowOrigin lets the page that asks read the answer.
func allowOrigin(h http.Header, r *http.Request) {
	origin := r.Header["Origin"]
	if len(origin) != 1 || origin[0] == "" {
		return
	}
	h["Access-Control-Allow-Origin"] = origin[:1:1]
	h["Access-Control-Allow-Credentials"] = corsTrue
	h["Access-Control-Expose-Headers"] = corsExposed
}

// options answers OPTIONS: a browser's question before a request, or anybody's
// question what a path knows.
func (c *call) options() {
	h := c.w.Header()
	if c.r.Header.Get("Origin") != "" && c.r.Header.Get("Access-Control-Request-Method") != "" {
		h["Access-Control-Allow-Methods"] = corsMethods
		h["Access-Control-Allow-Headers"] = corsHeaders
		h["Access-Control-Max-Age"] = corsMaxAge
		h["Vary"] = corsVary
		delete(h, "Access-Control-Expose-Headers")
		c.bare(http.StatusNoContent)
		return
	}
	path := trimSlash(c.r.URL.EscapedPath())
	allowed := c.api.allowed(path)
	switch {
	case path == "*":
		allowed = append([]string{http.MethodOptions, http.MethodHead}, methods...)
	case len(allowed) == 0:
		c.fail(c.unknownPath(path))
		return
	}
	h["Allow"] = []string{strings.Join(allowed, ", ")}
	h["Content-Length"] = noLength
	c.bare(http.StatusOK)
}

// bare sends a status without a body.
func (c *call) bare(status int) {
	c.status = status
	c.w.WriteHeader(status)
}
