package app

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// behind takes the address of the caller from X-Forwarded-For where a trusted
// proxy wrote it, and drops these headers where anyone else did.
func behind(proxies []netip.Prefix, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !trusted(proxies, peer.Addr()) {
			for name := range r.Header {
				if name == "Forwarded" || strings.HasPrefix(name, "X-Forwarded-") || name == "X-Real-Ip" {
					delete(r.Header, name)
				}
			}
			next.ServeHTTP(w, r)
			return
		}
		if caller, ok := forwardedFor(proxies, r.Header.Values("X-Forwarded-For")); ok {
			r.RemoteAddr = netip.AddrPortFrom(caller, 0).String()
		}
		next.ServeHTTP(w, r)
	})
}

func trusted(proxies []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, p := range proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// forwardedFor reads the list from the right: each trusted proxy vouches for the
// entry before its own, and the first stranger is the caller. What stands left
// of it, the caller wrote.
func forwardedFor(proxies []netip.Prefix, values []string) (caller netip.Addr, ok bool) {
	entries := strings.Split(strings.Join(values, ","), ",")
	for i := len(entries) - 1; i >= 0; i-- {
		a, err := parseForwarded(strings.TrimSpace(entries[i]))
		if err != nil {
			return caller, ok
		}
		caller, ok = a, true
		if !trusted(proxies, a) {
			return caller, ok
		}
	}
	return caller, ok
}

func parseForwarded(entry string) (netip.Addr, error) {
	if host, _, err := net.SplitHostPort(entry); err == nil {
		entry = host
	}
	a, err := netip.ParseAddr(strings.Trim(entry, "[]"))
	return a.Unmap(), err
}
