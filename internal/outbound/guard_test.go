package outbound

import (
	"net"
	"net/http"
	"net/netip"
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

// Everything here must be refused without a single connection, whichever way the
// guard notices. PORT stands for a port where somebody listens on loopback.
var hostile = []string{
	// loopback in every spelling
	"http://127.0.0.1:PORT/", "http://127.1:PORT/", "http://127.0.1:PORT/", "http://127.255.255.254:PORT/", "http://2130706433:PORT/",
	"http://0x7f000001:PORT/", "http://0x7f.0.0.1:PORT/", "http://0X7F.1:PORT/", "http://0177.0.0.1:PORT/", "http://017700000001:PORT/",
	"http://127.0.0.01:PORT/", "http://127.0.0.0x1:PORT/", "http://127.0.0.1.:PORT/", "http://[::1]:PORT/", "http://[0:0:0:0:0:0:0:1]:PORT/",
	"http://[::ffff:127.0.0.1]:PORT/", "http://[::ffff:7f00:1]:PORT/", "http://[::127.0.0.1]:PORT/", "http://[0:0:0:0:0:ffff:127.0.0.1]:PORT/",
	"http://0.0.0.0:PORT/", "http://0:PORT/", "http://[::]:PORT/", "http://256:PORT/", "http://4294967297:PORT/", "http://0x:PORT/",
	"http://localhost:PORT/", "http://LOCALHOST:PORT/", "http://localhost.:PORT/", "https://127.0.0.1:PORT/", "http://[::1%25lo]:PORT/",

	// names that resolve to forbidden addresses
	"http://loopback.test:PORT/", "http://loopback.test.:PORT/", "http://loopback6.test:PORT/", "http://mapped.test:PORT/", "http://private.test:PORT/",
	"http://metadata.test/", "http://nat64.test:PORT/", "http://zero.test:PORT/", "http://all-forbidden.test:PORT/", "http://a.b.loopback.test:PORT/",

	// digits and dots of other scripts
	"http://127。0。0。1:PORT/", "http://127．0．0．1:PORT/", "http://127｡0｡0｡1:PORT/", "http://１２７.０.０.１:PORT/", "http://①②⑦.⓪.⓪.①:PORT/",
	"http://①27.0.0.1:PORT/", "http://127.0.0.1\u00ad:PORT/", "http://ｌｏｏｐｂａｃｋ.test:PORT/", "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:PORT/", "http://%EF%BC%91%EF%BC%92%EF%BC%97.0.0.1:PORT/",

	// metadata and private ranges
	"http://169.254.169.254/latest/meta-data/", "http://2852039166/", "http://0xa9fea9fe/", "http://0251.0376.0251.0376/", "http://[::ffff:a9fe:a9fe]/",
	"http://[fd00:ec2::254]/", "http://100.100.100.200/", "http://192.0.0.192/", "http://168.63.129.16/", "http://10.0.0.1/", "http://172.16.0.1/",
	"http://192.168.0.1/", "http://192.168.257/", "http://100.64.0.1/", "http://198.18.0.1/", "http://192.0.2.1/", "http://203.0.113.1/",
	"http://224.0.0.1/", "http://255.255.255.255/", "http://240.0.0.1/", "http://[fe80::1]/", "http://[fe80::1%25eth0]/", "http://[fc00::1]/", "http://[ff02::1]/",
	"http://[64:ff9b::7f00:1]:PORT/", "http://[64:ff9b::a9fe:a9fe]/", "http://[64:ff9b:1::7f00:1]:PORT/", "http://[2002:7f00:1::]:PORT/", "http://[2002:a9fe:a9fe::1]/",
	"http://[2001:0:4136:e378:8000:63bf:80ff:fffe]/", "http://[2001:db8::1]/", "http://[::ffff:0:7f00:1]:PORT/",

	// who is the host?
	"http://user@127.0.0.1:PORT/", "http://example.com@127.0.0.1:PORT/", "http://127.0.0.1:PORT@example.com/", "http://user:pass@example.com/",
	"http://@127.0.0.1:PORT/", "http://example.com:80@127.0.0.1:PORT/", "http://127.0.0.1:PORT#@example.com/", "http://127.0.0.1:PORT?@example.com/",
	"http://127.0.0.1:PORT\\@example.com/", "http://example.com\\@127.0.0.1:PORT/", "http://127.0.0.1%2f@example.com/", "http://127.0.0.1%00.example.com/",
	"http://%31%32%37.0.0.1:PORT/", "http://127.0.0.1:PORT,example.com/", "http://127.0.0.1 .example.com/", "http:127.0.0.1:PORT/", "http:///127.0.0.1:PORT/",
	"//127.0.0.1:PORT/", "127.0.0.1:PORT", "http://", "http://:PORT/", "http://[127.0.0.1]:PORT/", "http://[::1:PORT/", "http://exa\tmple.com/",
	"http://example.com;127.0.0.1:PORT/", "http://(127.0.0.1):PORT/", "http://example.com/\r\nHost: 127.0.0.1", "",

	// schemes
	"gopher://127.0.0.1:PORT/_GET", "file:///etc/passwd", "file://127.0.0.1/etc/passwd", "ftp://127.0.0.1:PORT/", "dict://127.0.0.1:PORT/", "ldap://127.0.0.1:PORT/",
	"javascript:alert(1)", "data:text/plain,x", "unix:///run/docker.sock", "ws://127.0.0.1:PORT/", "jar:http://127.0.0.1:PORT!/", "http+unix://%2Frun%2Fdocker.sock/",

	// ports
	"http://example.com:0/", "http://example.com:22/", "http://example.com:25/", "http://example.com:65536/", "http://example.com:99999999999/", "http://example.com:6667/",
	"http://example.com:-1/", "http://example.com:http/",
}

func TestNothingHostileIsConnectedTo(t *testing.T) {
	t.Parallel()
	var connects atomic.Int32
	port := listenEverywhere(t, &connects)
	c := testClient(t, Config{}, zone{
		"localhost.": {"127.0.0.1", "::1"}, "loopback.test.": {"127.0.0.1"}, "a.b.loopback.test.": {"127.0.0.1"}, "loopback6.test.": {"::1"}, "mapped.test.": {"::ffff:127.0.0.1"},
		"private.test.": {"10.1.2.3"}, "metadata.test.": {"169.254.169.254"}, "nat64.test.": {"64:ff9b::7f00:1"}, "zero.test.": {"0.0.0.0"},
		"all-forbidden.test.": {"127.0.0.1", "::1", "10.0.0.1", "fe80::1"}, "example.com.": {"127.0.0.1"},
	})
	c.dialing = func(ap netip.AddrPort) { t.Errorf("the guard let a connection to %s pass", ap) }
	for _, raw := range hostile {
		raw = strings.ReplaceAll(raw, "PORT", port)
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
	if len(hostile) < 60 {
		t.Errorf("the corpus has %d URLs, want at least 60", len(hostile))
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
	for _, raw := range hostile {
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
