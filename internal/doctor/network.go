package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"parley/internal/bus"
	"parley/internal/outbound"
)

// address looks whether the address is free, or who listens there.
func (e *exam) address(ctx context.Context) {
	const check = "address"
	host, port, err := net.SplitHostPort(e.Config.Addr)
	if err != nil {
		return // the configuration is refused for it
	}
	if e.running {
		e.health(ctx)
		if u, err := url.Parse(e.local()); err == nil && u.Port() != "" && u.Port() != port && port != "0" && u.Hostname() != hostOf(e.Config.PublicURL) {
			e.warn(check, "run doctor with the settings of that server", "the server that runs listens on %s, and these settings say %s", u.Host, e.Config.Addr)
		}
		return
	}
	err = free(ctx, host, port)
	switch {
	case err == nil:
		e.ok(check, "%s is free", e.Config.Addr)
	case errors.Is(err, syscall.EADDRINUSE):
		n, _ := strconv.Atoi(port) // a port that could not be read was not in use
		e.fail(check, "stop it, or choose another address with --addr", "%s is in use by %s", e.Config.Addr, e.occupant(ctx, n))
	case errors.Is(err, syscall.EACCES):
		e.fail(check, "take a port from 1024 on, or allow it: AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit", "this user may not listen on %s", e.Config.Addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		e.fail(check, "name an address of this machine with --addr (ip addr)", "%s is not an address of this machine", host)
	default:
		e.fail(check, "correct --addr", "%v", err)
	}
}

// free tries to listen, as the server does: on a loopback address in both families.
func free(ctx context.Context, host, port string) error {
	hosts := []string{host}
	if a, err := netip.ParseAddr(host); host == "localhost" || err == nil && a.IsLoopback() {
		hosts = []string{"127.0.0.1", "::1"}
	}
	var first error
	for i, h := range hosts {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(h, port))
		if err == nil {
			_ = l.Close() // nothing came in
		} else if i == 0 || errors.Is(err, syscall.EADDRINUSE) && first == nil {
			first = err // a machine may have one family only
		}
	}
	return first
}

// occupant says what listens on a port of this machine.
func (e *exam) occupant(ctx context.Context, port int) string {
	who := listener(port)
	if who == "" {
		who = "another program"
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // it may be anything
	defer cancel()
	if text, _, err := e.get(ctx, "http://127.0.0.1:"+strconv.Itoa(port)+"/"); err == nil && strings.HasPrefix(text, "Parley ") {
		who += ", a Parley server with another data directory"
	}
	return who
}

// local is how this machine reaches the server that runs.
func (e *exam) local() string {
	if e.server.Local != "" {
		return e.server.Local
	}
	return e.server.URL
}

// health asks the server that uses the data directory how it is.
func (e *exam) health(ctx context.Context) {
	const check = "server"
	at := e.local()
	if _, status, err := e.get(ctx, at+"/healthz"); err != nil || status != http.StatusOK {
		e.fail(check, "read its log; end the process if it hangs, which loses nothing", "process %d does not answer at %s/healthz: %s", e.server.PID, at, answered(status, err))
		return
	}
	text, status, err := e.get(ctx, at+"/readyz")
	if err != nil || status != http.StatusOK {
		e.warn(check, "wait, and read its log if that lasts", "process %d runs at %s and is not ready: %s %s", e.server.PID, at, answered(status, err), text)
		return
	}
	e.ok(check, "process %d is ready at %s", e.server.PID, at)
}

func answered(status int, err error) string {
	if err != nil {
		return err.Error()
	}
	return strconv.Itoa(status)
}

// get asks an address that the operator has named. Certificates are looked at
// elsewhere.
func (e *exam) get(ctx context.Context, at string) (text string, status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return "", 0, err
	}
	t := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer t.CloseIdleConnections()
	resp, err := t.RoundTrip(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return string(body), resp.StatusCode, err
}

// publicURL looks whether the world reaches this server where it says.
func (e *exam) publicURL(ctx context.Context) {
	const check = "public URL"
	public := e.Config.PublicURL
	if public == "" {
		return
	}
	if strings.HasPrefix(public, "https:") {
		e.remoteCertificate(ctx, public)
	}
	there, status, err := e.get(ctx, public+"/")
	switch {
	case err != nil && !e.running:
		e.info(check, "%s does not answer, and no server runs with this data directory: %v", public, err)
	case err != nil:
		e.fail(check, "correct the name, the proxy or --public-url", "%s does not answer: %v", public, err)
	case status != http.StatusOK || !strings.HasPrefix(there, "Parley "):
		do := "let the proxy pass every path to this server, or correct --public-url"
		if !e.running {
			e.info(check, "%s answers %d, which is no server of Parley; none runs with this data directory", public, status)
			return
		}
		e.fail(check, do, "%s answers %d, and that is no server of Parley", public, status)
	case !strings.Contains(there, public+"/docs"):
		e.fail(check, "let the proxy pass it to this server, or correct --public-url", "%s leads to a server of Parley that has another public URL", public)
	default:
		e.ok(check, "%s leads to a server of Parley that says it is %s", public, public)
	}
	e.fromInside(ctx, public)
}

// fromInside says whether calls out reach the public URL, as bots and
// integrations that live behind it need.
func (e *exam) fromInside(ctx context.Context, public string) {
	client := outbound.New(e.Config.Outbound())
	defer client.Close()
	if bad := refused(e.lookup(ctx, client, public)); bad != "" {
		e.info("public URL", "calls out do not reach it, which matters only if a bot or integration lives there: %s", bad)
	}
}

// remoteCertificate looks at the certificate that whoever ends TLS shows.
func (e *exam) remoteCertificate(ctx context.Context, public string) {
	const check = "public certificate"
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	host := hostOf(public)
	u, _ := url.Parse(public) // was parsed when it was set
	at := u.Host
	if u.Port() == "" {
		at = net.JoinHostPort(host, "443")
	}
	d := tls.Dialer{Config: &tls.Config{ServerName: host, InsecureSkipVerify: true}} // judged below, to say more
	conn, err := d.DialContext(ctx, "tcp", at)
	if err != nil {
		if !e.running {
			return // said of the URL itself
		}
		e.fail(check, "start what ends TLS there", "%s: %v", at, err)
		return
	}
	defer conn.Close()
	chain := conn.(*tls.Conn).ConnectionState().PeerCertificates
	if err := trusted(chain, host); err != nil && time.Until(chain[0].NotAfter) > 0 && chain[0].VerifyHostname(host) == nil {
		e.fail(check, "serve the whole chain of a certificate that clients trust", "the certificate at %s is not trusted: %v", at, err)
		return
	}
	e.judge(check, chain[0], host)
}

func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// nats looks whether the servers of the bus answer.
func (e *exam) nats(ctx context.Context) {
	const check = "NATS"
	if e.Config.NATSURL == "" {
		return
	}
	for one := range strings.SplitSeq(e.Config.NATSURL, ",") {
		one = strings.TrimSpace(one)
		u, err := url.Parse(one)
		if err != nil {
			continue // the configuration is refused for it
		}
		within, cancel := context.WithTimeout(ctx, lookTime)
		s, err := bus.ProbeNATS(within, one)
		cancel()
		if err != nil {
			e.warn(check, "start it, or correct --nats-url; without it servers hear of each other some seconds late", "%s is not reached: %v", u.Host, err)
			continue
		}
		e.ok(check, "%s answers in %s, version %s", u.Host, age(s.RoundTrip), s.Version)
	}
}

// looked is what outbound thinks of a URL.
type looked struct {
	refusal           error // of the URL itself
	noName            error // the name has no address
	allowed, refusing []netip.Addr
}

// lookup finds the addresses behind a URL and asks outbound about each.
func (e *exam) lookup(ctx context.Context, client *outbound.Client, raw string) (l looked) {
	u, err := client.Check(raw)
	if err != nil {
		l.refusal = err
		return l
	}
	var all []netip.Addr
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		all = []netip.Addr{a}
	} else {
		ctx, cancel := context.WithTimeout(ctx, lookTime)
		defer cancel()
		if all, l.noName = net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname()); l.noName != nil {
			return l
		}
	}
	for _, a := range all {
		if a = a.Unmap(); client.Allows(a) {
			l.allowed = append(l.allowed, a)
		} else {
			l.refusing = append(l.refusing, a)
		}
	}
	return l
}

// refused says why nothing can be called, "" where something can.
func refused(l looked) string {
	switch {
	case l.refusal != nil:
		return l.refusal.Error()
	case l.noName != nil:
		return l.noName.Error()
	case len(l.allowed) == 0:
		return "calls to " + addresses(l.refusing) + " are not allowed"
	}
	return ""
}

func addresses(list []netip.Addr) string {
	words := make([]string, len(list))
	for i, a := range list {
		words[i] = a.String()
	}
	slices.Sort(words)
	return strings.Join(slices.Compact(words), ", ")
}

// reach calls URLs as the server would call a bot there.
func (e *exam) reach(ctx context.Context) {
	client := outbound.New(e.Config.Outbound())
	defer client.Close()
	for _, raw := range e.Reach {
		e.reachOne(ctx, client, raw)
	}
}

func (e *exam) reachOne(ctx context.Context, client *outbound.Client, raw string) {
	const check = "reach"
	name := shown(raw)
	l := e.lookup(ctx, client, raw)
	if why := refused(l); why != "" {
		e.fail(check, allow(l), "%s cannot be called: %s", name, why)
		return
	}
	req := &http.Request{Method: http.MethodGet, Header: http.Header{"Accept": {"*/*"}}}
	req.URL, _ = client.Check(raw) // it was let through above
	start := time.Now()
	resp, err := client.Do(ctx, req, outbound.Limits{Timeout: lookTime, MaxBody: 16 << 20})
	took := age(time.Since(start))
	where := addresses(l.allowed)
	if len(l.refusing) > 0 {
		where += " (and " + addresses(l.refusing) + ", which are not allowed)"
	}
	switch {
	case err != nil:
		e.fail(check, why(err), "%s at %s: %v (after %s)", name, where, err, took)
	case resp.Status >= 500:
		e.warn(check, "read the log of what answers there", "%s at %s answers %d in %s", name, where, resp.Status, took)
	default:
		e.ok(check, "%s at %s answers %d in %s", name, where, resp.Status, took)
	}
}

// shown is a URL without what may be secret in it.
func shown(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return "the URL"
	}
	return fmt.Sprintf("%s://%s%s", u.Scheme, u.Host, u.EscapedPath())
}

// allow says how a refusal is lifted.
func allow(l looked) string {
	addr := l.refusing
	if r, ok := errors.AsType[*outbound.RefusedError](l.refusal); ok && r.Addr.IsValid() {
		addr = append(addr, r.Addr)
	}
	switch {
	case len(addr) > 0:
		return "if the server shall call it, name the network: --allow-outbound " + addr[0].String()
	case l.noName != nil:
		return "correct the name, or the name service of this machine"
	}
	return "correct the URL"
}

// why says what to look at when a call has failed.
func why(err error) string {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "let it serve the whole chain of a certificate that this machine trusts"
	}
	if _, ok := errors.AsType[*outbound.TimeoutError](err); ok {
		return "read the log of what listens there: it takes the request and does not answer"
	}
	if _, ok := errors.AsType[*outbound.TooLargeError](err); ok {
		return "nothing, if only answers to GET are that large"
	}
	if _, ok := errors.AsType[*outbound.BrokenError](err); ok {
		return "see that it speaks HTTP/1.1 on this port, and whether it is http or https"
	}
	return "start what should listen there, and see whether a firewall is in the way"
}
