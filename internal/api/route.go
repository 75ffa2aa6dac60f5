package api

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"parley/internal/fault"
)

// maxPath bounds the path that is looked at.
const maxPath = 8 << 10

// route finds the operation of the request and decodes its path parameters,
// segment by segment: an escaped slash is part of an id.
func (c *call) route() error {
	path := trimSlash(c.r.URL.EscapedPath())
	method := c.r.Method
	if len(path) > maxPath || strings.Contains(path, "//") {
		return c.unknownPath(path)
	}
	c.op = c.find(method, path)
	if c.op == nil && method == http.MethodHead {
		c.op = c.find(http.MethodGet, path)
	}
	if c.op == nil {
		if allowed := c.api.allowed(path); len(allowed) > 0 {
			return c.methodNotFound(allowed)
		}
		return c.unknownPath(path)
	}
	for _, raw := range c.rctx.URLParams.Values {
		value, err := url.PathUnescape(raw)
		if err != nil || value == "" || strings.IndexByte(value, 0) >= 0 || !utf8.ValidString(value) {
			c.op = nil
			return c.unknownPath(path)
		}
		c.params = append(c.params, value)
	}
	if c.api.Prefix != "" {
		c.showPrefix()
	}
	return nil
}

// showPrefix makes the prefix's parameters readable for Admit.
func (c *call) showPrefix() {
	for _, name := range pathParams(c.api.Prefix) {
		c.r.SetPathValue(name, c.param(name))
	}
}

// trimSlash drops one trailing slash: /hello/ is /hello.
func trimSlash(path string) string {
	if n := len(path); n > 1 && path[n-1] == '/' {
		return path[:n-1]
	}
	return path
}

func (c *call) find(method, path string) *mounted {
	c.rctx.Reset()
	pattern := c.api.router.Find(&c.rctx, method, path)
	if pattern == "" {
		return nil
	}
	return c.api.ops[route{method, pattern}]
}

var methods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// allowed lists the methods a path knows, for the header Allow.
func (a *API) allowed(path string) []string {
	var found []string
	for _, m := range methods {
		if a.knows(m, path) {
			found = append(found, m)
			if m == http.MethodGet {
				found = append(found, http.MethodHead)
			}
		}
	}
	if found != nil {
		found = append(found, http.MethodOptions)
	}
	return found
}

func (a *API) knows(method, path string) bool {
	c := call{api: a}
	return c.find(method, path) != nil && !slices.Contains(c.rctx.URLParams.Values, "")
}

func (c *call) methodNotFound(allowed []string) error {
	c.w.Header()["Allow"] = []string{strings.Join(allowed, ", ")}
	return fault.MethodNotFound.New("%s is not a method of %s; it takes %s", short(c.r.Method), longer(c.r.URL.Path), strings.Join(allowed, ", "))
}

func (c *call) unknownPath(path string) error {
	hint := ""
	if near := c.api.near(path); near != "" {
		hint = "; did you mean " + near + "?"
	}
	return fault.ResourceNotFound.New("%s %s is not an operation of this server%s", short(c.r.Method), longer(c.r.URL.Path), hint)
}

// longer shows a path back, shortened and without control characters.
func longer(path string) string {
	const most = 200
	if len(path) > most {
		path = strings.ToValidUTF8(path[:most], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == utf8.RuneError {
			return '?'
		}
		return r
	}, path)
}

// near finds the route that a path most likely means: one that begins with
// segments the path lacks, such as /v1, or that is a slip of the pen away.
func (a *API) near(path string) string {
	if len(path) > 300 {
		return ""
	}
	given := strings.Split(strings.Trim(path, "/"), "/")
	best, least := "", 4
	for _, o := range a.order {
		want := strings.Split(strings.Trim(o.path, "/"), "/")
		if d := distance(given, want); d < least {
			best, least = o.path, d
		}
	}
	return best
}

// distance counts how far a path is from a route: slips inside literals, and
// one for each leading segment that only one of them has. 4 is too far.
func distance(given, want []string) int {
	const far = 4
	d := 0
	for len(given) < len(want) && !isParamSegment(want[0]) {
		want, d = want[1:], d+1
	}
	for len(given) > len(want) {
		given, d = given[1:], d+1
	}
	if len(given) != len(want) || len(want) == 0 {
		return far
	}
	literals := 0
	for i, w := range want {
		switch {
		case isParamSegment(w):
		case given[i] == w:
			literals++
		default:
			slip := slips(given[i], w)
			if slip > 2 || slip*2 >= len(w) {
				return far
			}
			literals++
			d += slip
		}
	}
	if literals == 0 {
		return far
	}
	return d
}

func isParamSegment(s string) bool { return strings.HasPrefix(s, "{") }

// slips is the edit distance of two words, 3 if it is more than that.
func slips(a, b string) int {
	const most = 3
	if len(a)-len(b) >= most || len(b)-len(a) >= most || len(a) > 64 {
		return most
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		left := row[0]
		row[0] = i + 1
		for j := range len(b) {
			diagonal := left
			left = row[j+1]
			if a[i] == b[j] {
				row[j+1] = diagonal
			} else {
				row[j+1] = 1 + min(diagonal, left, row[j])
			}
		}
	}
	return min(row[len(b)], most)
}

// meant is a hint at the name that an unknown one most likely means, "" if none is near.
func meant(name string, names []string) string {
	best, least := "", 3
	for _, n := range names {
		if strings.EqualFold(n, name) {
			return "; did you mean " + n + "?"
		}
		if d := slips(name, n); d < least && d*2 < len(n) {
			best, least = n, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}
