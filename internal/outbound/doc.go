// Package outbound is the one HTTP client for every call that leaves the
// server: to bots, integrations, webhooks and fetched pages. URLs come from
// strangers, so the address is checked at the moment it is dialled, and time,
// size and redirects are bounded.
//
//	Do ─► URL: scheme, user info, host, port ─► idle connection, or
//	      DNS ─► each address: allowed? ─► connect ─► TLS
//	      ─► request ─► head ≤ 64 KB ─► body ≤ MaxBody ─► *Response
//
// The check runs in the dialler's control hook, after resolution and on the
// very address of the connect call. There is no second resolution that could
// answer differently, so a name that changes its address gains nothing. Proxies
// named in the environment are not used: they would dial in our place.
//
// What a failure says about the peer:
//
//	*RefusedError      the URL or address is not allowed; nothing was sent, trying again is useless
//	*UnreachableError  no connection (DNS, refused, TLS, connect time); the peer saw nothing
//	*BrokenError       connected and sent, but no whole HTTP answer came; the peer may have acted
//	*TimeoutError      connected and sent, no whole answer in time; the peer may still be acting
//	*TooLargeError     the body is larger than MaxBody
//	context.Canceled   the caller gave up
//
// An exchange runs in the goroutine of its caller, without the two that
// net/http keeps for each connection: calls are small and many, and half of
// what one costs would be the handing over.
//
// Idle connections are kept for four seconds, because Node servers close theirs
// after five. When one closes in the instant it is used, the request goes out
// once more on a new connection: it may arrive twice, which receivers of
// at-least-once deliveries expect. A new connection is never tried again.
package outbound
