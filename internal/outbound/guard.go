package outbound

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// Addresses that are not the public internet. IPv6 has one public block,
// 2000::/3; everything outside it is refused without being listed (loopback,
// link-local, unique local, multicast, NAT64, IPv4-compatible, …).
var special = prefixes(
	"0.0.0.0/8",         // this network
	"10.0.0.0/8",        // private
	"100.64.0.0/10",     // carrier-grade NAT, and the metadata service of one cloud
	"127.0.0.0/8",       // loopback
	"168.63.129.16/32",  // virtual host service of one cloud, public by number only
	"169.254.0.0/16",    // link-local, metadata services
	"172.16.0.0/12",     // private
	"192.0.0.0/24",      // protocol assignments, metadata service of one cloud
	"192.0.2.0/24",      // documentation
	"192.88.99.0/24",    // 6to4 relays
	"192.168.0.0/16",    // private
	"198.18.0.0/15",     // benchmarks
	"198.51.100.0/24",   // documentation
	"203.0.113.0/24",    // documentation
	"224.0.0.0/4",       // multicast
	"240.0.0.0/4",       // reserved, broadcast
	"2001::/23",         // Teredo, ORCHID, benchmarks and other protocol assignments
	"2001:db8::/32",     // documentation
	"2002::/16",         // 6to4: carries an IPv4 address inside
	"2620:4f:8000::/48", // sink of reverse look-ups for private addresses
	"3fff::/20",         // documentation
)

var publicIPv6 = netip.MustParsePrefix("2000::/3")

// Ports of services that could take the lines of an HTTP request for commands of their own.
var deniedPorts = []uint16{
	7, 9, 13, 19, 21, 22, 23, 25, 37, 42, 53, 69, 79, 109, 110, 111, 113, 119, 123, 135, 137, 139, 143, 161, 179,
	389, 445, 465, 512, 513, 514, 515, 563, 587, 601, 636, 990, 993, 995, 2049, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6697,
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

// Public reports whether a is a unicast address of the public internet. An
// IPv4 address written as IPv6 is not one: nobody publishes it that way.
func Public(a netip.Addr) bool {
	a = a.WithZone("") // a prefix contains no address that has a zone
	if !a.IsValid() || a.Is6() && !publicIPv6.Contains(a) {
		return false
	}
	return !within(special, a)
}

func within(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Allows reports whether the client would connect to a.
func (c *Client) Allows(a netip.Addr) bool {
	if Public(a) {
		return true
	}
	// IsLoopback also accepts the IPv4-mapped form, which has no use but disguise.
	if c.allowLoopback && a.IsLoopback() && !a.Is4In6() {
		return true
	}
	return within(c.allow, a.WithZone(""))
}

// Check parses a URL that is to be called later and refuses what can never be
// called. It asks no name server, so the addresses behind a name are judged
// only when they are dialled. The error is a *RefusedError.
func (c *Client) Check(rawURL string) (*url.URL, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, refuse("the URL cannot be parsed")
	}
	return c.check(u)
}

// check returns the URL to call: u, or a copy of it whose international host name is spelled in ASCII.
func (c *Client) check(u *url.URL) (*url.URL, error) {
	if u == nil || u.Scheme != "http" && u.Scheme != "https" {
		return nil, refuse("only http and https URLs can be called")
	}
	if u.User != nil {
		return nil, refuse("the URL must not contain a user name or password")
	}
	if u.Opaque != "" || u.Host == "" {
		return nil, refuse("the URL has no host")
	}
	if err := checkPort(u); err != nil {
		return nil, err
	}
	u, err := inASCII(u)
	if err != nil {
		return nil, err
	}
	return u, c.checkHost(u.Hostname())
}

func checkPort(u *url.URL) error {
	text := u.Port()
	if text == "" {
		return nil
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 || slices.Contains(deniedPorts, uint16(port)) {
		return refuse("port %s cannot be called", text)
	}
	return nil
}

// inASCII maps the host as the transport would do later, so that what is
// checked is what is dialled: the mapping turns other scripts' digits and dots into plain ones.
func inASCII(u *url.URL) (*url.URL, error) {
	if strings.IndexFunc(u.Host, func(r rune) bool { return r >= 0x80 }) < 0 {
		return u, nil
	}
	host, err := idna.Lookup.ToASCII(u.Hostname())
	if err != nil {
		return nil, refuse("the host name is not valid")
	}
	mapped := *u
	mapped.Host = host
	if port := u.Port(); port != "" {
		mapped.Host += ":" + port
	}
	return &mapped, nil
}

func (c *Client) checkHost(host string) error {
	if strings.Contains(host, ":") || endsInNumber(host) {
		// Only the plain spelling: resolvers also read 2130706433, 0x7f.1 and 0177.0.0.1 as addresses.
		a, err := netip.ParseAddr(host)
		if err != nil {
			return refuse("the host is not a valid address")
		}
		if !c.Allows(a) {
			return refuseAddr(a)
		}
		return nil
	}
	if host == "" || len(host) > 253 || strings.Contains(host, "..") || strings.IndexFunc(host, notInNames) >= 0 {
		return refuse("the host name is not valid")
	}
	return nil
}

// endsInNumber reports whether the last label of host is a number, which no
// top-level domain is.
func endsInNumber(host string) bool {
	host = strings.TrimSuffix(host, ".")
	last := host[strings.LastIndexByte(host, '.')+1:]
	if hex, ok := strings.CutPrefix(strings.ToLower(last), "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return last != "" && strings.Trim(last, "0123456789") == ""
}

func notInNames(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_')
}
