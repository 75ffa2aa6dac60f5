package app

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

func TestOnlyTrustedProxiesNameTheCaller(t *testing.T) {
	t.Parallel()
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, c := range []struct {
		peer      string
		forwarded []string
		want      string
		kept      bool
	}{
		{"198.51.100.7:1", []string{"203.0.113.9"}, "198.51.100.7:1", false},
		{"10.0.0.1:1", nil, "10.0.0.1:1", true},
		{"10.0.0.1:1", []string{"203.0.113.9"}, "203.0.113.9:0", true},
		{"[::ffff:10.0.0.1]:1", []string{"203.0.113.9"}, "203.0.113.9:0", true},
		{"[fd00::1%eth0]:1", []string{"2001:db8::1"}, "[2001:db8::1]:0", true},
		{"10.0.0.1:1", []string{"6.6.6.6, 203.0.113.9, 10.0.0.2"}, "203.0.113.9:0", true},
		{"10.0.0.1:1", []string{"6.6.6.6", "203.0.113.9:4711"}, "203.0.113.9:0", true},
		{"10.0.0.1:1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3:0", true},
		{"10.0.0.1:1", []string{"nonsense"}, "10.0.0.1:1", true},
		{"10.0.0.1:1", []string{"6.6.6.6, nonsense, 10.0.0.2"}, "10.0.0.2:0", true},
	} {
		var got, proto string
		h := behind(proxies, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			got, proto = r.RemoteAddr, r.Header.Get("X-Forwarded-Proto")
		}))
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.peer
		r.Header["X-Forwarded-For"] = c.forwarded
		r.Header.Set("X-Forwarded-Proto", "https")
		h.ServeHTTP(httptest.NewRecorder(), r)
		if got != c.want || (proto != "") != c.kept {
			t.Errorf("peer %s, X-Forwarded-For %q: caller %s with proto %q, want %s and headers kept %v", c.peer, c.forwarded, got, proto, c.want, c.kept)
		}
	}
}

// What strangers write into X-Forwarded-For never makes somebody a trusted proxy
// of whom a trusted proxy did not say so.
func FuzzForwardedFor(f *testing.F) {
	for _, text := range []string{"1.2.3.4", "1.2.3.4, 10.0.0.1", "[::1]:80, x", "::ffff:10.0.0.1", "fe80::1%eth0", ",,,", "10.0.0.1,"} {
		f.Add(text)
	}
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	f.Fuzz(func(t *testing.T, text string) {
		caller, ok := forwardedFor(proxies, []string{text})
		if ok != caller.IsValid() {
			t.Errorf("%q: %v, %v", text, caller, ok)
		}
		behind, _ := forwardedFor(proxies, []string{text, "192.0.2.1"})
		if want := netip.MustParseAddr("192.0.2.1"); behind != want {
			t.Errorf("%q before a stranger's address: %v, want %v", text, behind, want)
		}
	})
}
