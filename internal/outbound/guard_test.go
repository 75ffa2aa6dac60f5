package outbound

import (
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

func TestPublic(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"8.8.8.8": true, "1.1.1.1": true, "9.255.255.255": true, "11.0.0.0": true, "100.63.255.255": true, "100.128.0.0": true,
		"172.15.255.255": true, "172.32.0.0": true, "192.0.1.0": true, "223.255.255.255": true, "168.63.129.15": true,
		"2606:4700:4700::1111": true, "2a00:1450:4001::200e": true, "2001:200::1": true, "2001:4860:4860::8888": true,

		"0.0.0.0": false, "0.1.2.3": false, "10.0.0.1": false, "10.255.255.255": false, "100.64.0.1": false, "100.100.100.200": false,
		"127.0.0.1": false, "127.255.255.254": false, "169.254.169.254": false, "169.254.170.2": false, "168.63.129.16": false,
		"172.16.0.1": false, "172.31.255.255": false, "192.0.0.192": false, "192.0.2.1": false, "192.88.99.1": false,
		"192.168.1.1": false, "198.18.0.1": false, "198.19.255.255": false, "198.51.100.7": false, "203.0.113.7": false,
		"224.0.0.1": false, "239.255.255.250": false, "240.0.0.1": false, "255.255.255.255": false,
		"::": false, "::1": false, "::ffff:127.0.0.1": false, "::ffff:8.8.8.8": false, "::8.8.8.8": false, "::7f00:1": false,
		"64:ff9b::7f00:1": false, "64:ff9b::808:808": false, "64:ff9b:1::1": false, "100::1": false, "2001::1": false,
		"2001:2::1": false, "2001:10::1": false, "2001:20::1": false, "2001:db8::1": false, "2002:7f00:1::": false,
		"2620:4f:8000::1": false, "3fff::1": false, "4000::1": false, "5f00::1": false, "fc00::1": false, "fd00:ec2::254": false, "fe80::1": false,
		"fe80::1%eth0": false, "2002:7f00:1::%eth0": false, "2001:db8::1%1": false, "fec0::1": false, "ff02::1": false,
	} {
		if got := Public(netip.MustParseAddr(text)); got != want {
			t.Errorf("Public(%s) = %v, want %v", text, got, want)
		}
	}
	if Public(netip.Addr{}) {
		t.Error("the zero address is public")
	}
}

// hostile reads the URLs that must be refused without a single connection.
func hostile(t testing.TB, port string) []string {
	t.Helper()
	text, err := os.ReadFile("testdata/hostile.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for line := range strings.SplitSeq(strings.TrimRight(string(text), "\n"), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		if line[0] == '"' {
			if line, err = strconv.Unquote(line); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
		all = append(all, strings.ReplaceAll(line, "PORT", port))
	}
	if len(all) < 200 {
		t.Fatalf("the corpus has %d URLs only", len(all))
	}
	return all
}

// hostileZone is where the names in them lead.
var hostileZone = zone{
	"localhost.": {"127.0.0.1", "::1"}, "loopback.test.": {"127.0.0.1"}, "a.b.loopback.test.": {"127.0.0.1"}, "loopback6.test.": {"::1"}, "mapped.test.": {"::ffff:127.0.0.1"},
	"127.0.0.1.loopback.test.": {"127.0.0.1"}, "0x7f.1.loopback.test.": {"127.0.0.1"}, "www.127.0.0.1.loopback.test.": {"127.0.0.1"},
	"private.test.": {"10.1.2.3"}, "shared.test.": {"100.64.0.1"}, "metadata.test.": {"169.254.169.254"}, "metadata.google.internal.": {"169.254.169.254"},
	"nat64.test.": {"64:ff9b::7f00:1"}, "6to4.test.": {"2002:7f00:1::"}, "zero.test.": {"0.0.0.0"},
	"all-forbidden.test.": {"127.0.0.1", "::1", "10.0.0.1", "fe80::1"}, "example.com.": {"127.0.0.1"},
}

func TestNothingHostileIsConnectedTo(t *testing.T) {
	t.Parallel()
	var connects atomic.Int32
	port := listenEverywhere(t, &connects)
	c := testClient(t, Config{}, hostileZone)
	c.dialing = func(ap netip.AddrPort) { t.Errorf("the guard let a connection to %s pass", ap) }
	for _, raw := range hostile(t, port) {
		u, err := c.Check(raw)
		if err == nil {
			_, err = c.Do(t.Context(), &http.Request{Method: "GET", URL: u}, Limits{})
		}
		if !isA[*RefusedError](err) {
			t.Errorf("%q: got %T %v, want *RefusedError", raw, err, err)
		}
	}
	if n := connects.Load(); n != 0 {
		t.Errorf("%d connections arrived at the loopback listeners", n)
	}
}

// A URL that needs no look-up is refused when it is configured, not only when it is called.
func TestCheckJudgesWhatCanBeSeen(t *testing.T) {
	t.Parallel()
	c := New(Config{})
	for _, raw := range []string{"https://bot.example.com", "http://bot.example.com:8080/path?q=1", "https://bücher.example/", "http://8.8.8.8/", "http://[2606:4700::1]:443/", "http://under_score.example/"} {
		if _, err := c.Check(raw); err != nil {
			t.Errorf("Check(%q) = %v, want no error", raw, err)
		}
	}
	u, err := c.Check("https://bücher.example:8443/a")
	if err != nil || u.Host != "xn--bcher-kva.example:8443" {
		t.Errorf("an international name became %v, %v", u, err)
	}
	for _, raw := range []string{"http://127.0.0.1:8075", "http://[::1]/", "http://0x7f.1/", "ftp://example.com/", "http://u:p@example.com/"} {
		if _, err := c.Check(raw); !isA[*RefusedError](err) {
			t.Errorf("Check(%q) = %v, want *RefusedError", raw, err)
		}
	}
}

func TestAllowLists(t *testing.T) {
	t.Parallel()
	loopback := New(Config{AllowLoopback: true})
	ranges := New(Config{Allow: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/32")}})
	for _, c := range []struct {
		client *Client
		url    string
		want   bool
	}{
		{loopback, "http://127.0.0.1:8075/", true},
		{loopback, "http://127.9.9.9/", true},
		{loopback, "http://[::1]:8075/", true},
		{loopback, "http://[::ffff:127.0.0.1]/", false},
		{loopback, "http://0.0.0.0:8075/", false},
		{loopback, "http://10.0.0.1/", false},
		{loopback, "http://169.254.169.254/", false},
		{loopback, "http://2130706433/", false},
		{ranges, "http://10.1.2.3/", true},
		{ranges, "http://10.2.0.1/", false},
		{ranges, "http://[::ffff:10.1.2.3]/", false},
		{ranges, "http://[fd00:1::7]/", true},
		{ranges, "http://[fd00:1::7%25eth0]/", true},
		{ranges, "http://[fd00:2::7]/", false},
		{ranges, "http://127.0.0.1/", false},
	} {
		if _, err := c.client.Check(c.url); (err == nil) != c.want {
			t.Errorf("Check(%q) = %v, want allowed: %v", c.url, err, c.want)
		}
	}
}

func FuzzCheck(f *testing.F) {
	for _, raw := range hostile(f, "7400") {
		f.Add(raw)
	}
	f.Add("https://bücher.example:8443/a?b#c")
	c := New(Config{})
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := c.Check(raw)
		if err != nil {
			return
		}
		if u.User != nil || u.Scheme != "http" && u.Scheme != "https" {
			t.Errorf("Check(%q) let %v pass", raw, u)
		}
		if ip := net.ParseIP(strings.TrimSuffix(u.Hostname(), ".")); ip != nil {
			if a, _ := netip.AddrFromSlice(ip); !Public(a.Unmap()) {
				t.Errorf("Check(%q) let the address %v pass", raw, ip)
			}
		}
		if again, err := c.check(u); err != nil || again.Host != u.Host {
			t.Errorf("Check(%q) is not stable: %v, %v", raw, again, err)
		}
	})
}
