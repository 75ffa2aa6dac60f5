package outbound

import (
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// front serves at an address of its own, which a test may allow as if it were
// public while all others stay forbidden. Only Linux has 127.0.0.0/8 throughout.
func front(t *testing.T, h http.HandlerFunc) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.77:0")
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(l.Addr().String())
}

var frontAlone = Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.77/32")}}

// A server that may be reached redirects to each hostile URL in turn.
func TestNoRedirectLeadsToAnythingHostile(t *testing.T) {
	t.Parallel()
	var connects atomic.Int32
	port := listenEverywhere(t, &connects)
	var location atomic.Pointer[string]
	at := front(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Location"] = []string{*location.Load()}
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	names := maps.Clone(hostileZone)
	names["front.test."] = []string{"127.0.0.77"}
	c := testClient(t, frontAlone, names)
	c.dialing = func(ap netip.AddrPort) {
		if ap != at {
			t.Errorf("the guard let a connection to %s pass", ap)
		}
	}
	n := 0
	for _, raw := range hostile(t, port) {
		if strings.ContainsFunc(raw, func(r rune) bool { return r < ' ' }) || !strings.Contains(raw, ":") && !strings.HasPrefix(raw, "//") {
			continue // cannot stand in a header, or leads nowhere but to the front itself
		}
		n++
		location.Store(&raw)
		resp, err := get(t, c, "http://front.test:"+strconv.Itoa(int(at.Port()))+"/", Limits{Redirects: 3})
		// Where it is no URL at all, the redirect is the answer.
		if !isA[*RefusedError](err) && (err != nil || resp.Status != http.StatusTemporaryRedirect || !nowhere(raw)) {
			t.Errorf("Location %q: got %+v, %T %v, want *RefusedError", raw, resp, err, err)
		}
	}
	if n < 200 || connects.Load() != 0 {
		t.Errorf("%d redirects led to %d connections", n, connects.Load())
	}
}

func nowhere(raw string) bool {
	_, err := url.Parse(raw)
	return err != nil
}

// A name that leads to an allowed address first and to a forbidden one after,
// in every way in which it is asked for again.
func TestRebindingBetweenAllowedAndForbidden(t *testing.T) {
	t.Parallel()
	var connects, asked, served atomic.Int32
	listener := listenEverywhere(t, &connects)
	at := front(t, func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		w.Header().Set("Connection", "close") // so that whatever follows resolves again
		if r.URL.Path == "/self" {
			w.Header().Set("Location", "http://"+r.Host+"/")
			w.WriteHeader(http.StatusFound)
		}
	})
	_, port, _ := net.SplitHostPort(at.String())
	c := resolving(t, frontAlone, func(string) []string {
		if asked.Add(1) <= 2 { // one A and one AAAA query
			return []string{"127.0.0.77"}
		}
		return []string{"127.0.0.1", "169.254.169.254", "::1", "64:ff9b::7f00:1"}
	})
	for name, call := range map[string]func(baseURL string) error{
		"the next call": func(baseURL string) error {
			if _, err := post(t, t.Context(), c, baseURL, "{}", Limits{}); err != nil {
				t.Errorf("the first call: %v", err)
			}
			_, err := post(t, t.Context(), c, baseURL, "{}", Limits{})
			return err
		},
		"a redirect to the same name": func(baseURL string) error {
			_, err := get(t, c, baseURL+"self", Limits{Redirects: 3})
			return err
		},
		"a call after its check": func(baseURL string) error {
			if _, err := c.Check(baseURL); err != nil {
				t.Errorf("Check: %v", err)
			}
			asked.Store(2)
			_, err := get(t, c, baseURL, Limits{})
			return err
		},
	} {
		asked.Store(0)
		served.Store(0)
		if err := call("http://rebind.test:" + port + "/"); !isA[*RefusedError](err) || served.Load() > 1 {
			t.Errorf("%s: got %T %v after %d requests, want *RefusedError", name, err, err, served.Load())
		}
	}
	asked.Store(2)
	if _, err := get(t, c, "http://rebind.test:"+listener+"/", Limits{}); !isA[*RefusedError](err) || connects.Load() != 0 {
		t.Errorf("got %T %v and %d connections", err, err, connects.Load())
	}
}

// The ranges of --allow-outbound are judged at the dial too, name or no name,
// and open nothing beside them.
func TestAllowedRangesAreReached(t *testing.T) {
	t.Parallel()
	at := front(t, func(http.ResponseWriter, *http.Request) {})
	_, port, _ := net.SplitHostPort(at.String())
	names := zone{"inside.test.": {"127.0.0.77"}, "beside.test.": {"127.0.0.78"}, "both.test.": {"127.0.0.78", "127.0.0.77", "10.0.0.1"}}
	for name, c := range map[string]struct {
		cfg  Config
		host string
		want bool
	}{
		"nothing allowed":            {Config{}, "inside.test", false},
		"the address":                {frontAlone, "127.0.0.77", true},
		"its name":                   {frontAlone, "inside.test", true},
		"one of several":             {frontAlone, "both.test", true},
		"the address beside it":      {frontAlone, "127.0.0.78", false},
		"a name of that":             {frontAlone, "beside.test", false},
		"the address in disguise":    {frontAlone, "[::ffff:127.0.0.77]", false},
		"the address as a number":    {frontAlone, "2130706509", false},
		"a range with it":            {Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.64/26")}}, "inside.test", true},
		"another range":              {Config{Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, "inside.test", false},
		"a mapped form of its range": {Config{Allow: []netip.Prefix{netip.MustParsePrefix("::ffff:127.0.0.0/104")}}, "inside.test", false},
		"loopback, as in parley dev": {Config{AllowLoopback: true}, "inside.test", true},
	} {
		_, err := get(t, testClient(t, c.cfg, names), "http://"+c.host+":"+port+"/", Limits{})
		if c.want && err != nil || !c.want && !isA[*RefusedError](err) {
			t.Errorf("%s: got %T %v, want allowed: %v", name, err, err, c.want)
		}
	}
}
