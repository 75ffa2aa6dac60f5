package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	connectTimeout = 5 * time.Second
	tlsTimeout     = 10 * time.Second

	// Node closes idle connections after five seconds; be first.
	idleTimeout    = 4 * time.Second
	idlePerHost    = 128
	maxIdle        = 2048
	maxHeaderBytes = 64 << 10

	// Used where Limits say nothing.
	defaultTimeout = 30 * time.Second
	defaultMaxBody = 1 << 20
)

// Config says what a Client may reach. The zero value reaches the public internet only.
type Config struct {
	AllowLoopback bool           // 127.0.0.0/8 and ::1, for bots on the same machine
	Allow         []netip.Prefix // further ranges that the operator trusts
	UserAgent     string         // default "Parley"
	Resolver      *net.Resolver  // nil is the system's
	RootCAs       *x509.CertPool // nil is the system's
}

// Client calls URLs that strangers chose. It is safe for concurrent use.
type Client struct {
	allowLoopback bool
	allow         []netip.Prefix
	userAgent     []string
	dialer        net.Dialer
	kept          *http.Transport      // connections are kept and used again
	fresh         *http.Transport      // every request has its own connection
	dialing       func(netip.AddrPort) // set by tests to see what passes the guard
}

// Limits bound one call. Zero values mean the defaults.
type Limits struct {
	Timeout   time.Duration // the whole call; 0 leaves it to the context's deadline, or 30 s where there is none
	MaxBody   int64         // bytes of the answer's body; 0 is 1 MB
	Redirects int           // how many redirects a GET or HEAD follows; 0 makes a redirect the answer
}

// Response is a whole answer: its body has been read and its connection given back.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
	URL    *url.URL // where the answer came from, after redirects
}

// New makes a client.
func New(cfg Config) *Client {
	c := &Client{
		allowLoopback: cfg.AllowLoopback,
		allow:         cfg.Allow,
		userAgent:     []string{cfg.UserAgent},
		dialer:        net.Dialer{Timeout: connectTimeout, Resolver: cfg.Resolver},
	}
	if cfg.UserAgent == "" {
		c.userAgent = []string{"Parley"}
	}
	c.kept = c.transport(cfg.RootCAs)
	c.fresh = c.transport(cfg.RootCAs)
	c.fresh.DisableKeepAlives = true
	return c
}

func (c *Client) transport(roots *x509.CertPool) *http.Transport {
	// HTTP/1.1 alone: calls are small, and a stalled connection then holds up one call, not all.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Transport{
		Protocols:              &protocols,
		DialContext:            c.dial,
		TLSClientConfig:        &tls.Config{RootCAs: roots},
		TLSHandshakeTimeout:    tlsTimeout,
		DisableCompression:     true, // answers are small, and inflating a stranger's bytes needs limits of its own
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    idlePerHost,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		WriteBufferSize:        16 << 10, // head and body of a usual call in one write
	}
}

// Close drops idle connections. Calls in flight go on.
func (c *Client) Close() {
	c.kept.CloseIdleConnections()
	c.fresh.CloseIdleConnections()
}

// Do sends req and reads the whole answer. Any status is an answer; the errors
// are those of the package comment. It owns req and its header map from now on
// and ignores req.Host. A body is sent again on a new connection only if
// req.GetBody is set.
func (c *Client) Do(ctx context.Context, req *http.Request, l Limits) (*Response, error) {
	if l.MaxBody <= 0 {
		l.MaxBody = defaultMaxBody
	}
	if _, bounded := ctx.Deadline(); l.Timeout <= 0 && !bounded {
		l.Timeout = defaultTimeout
	}
	if l.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.Timeout)
		defer cancel()
	}
	for hops := 0; ; hops++ {
		resp, err := c.call(ctx, req, l)
		if err != nil {
			return nil, err
		}
		next := resp.redirect(req, l)
		if next == nil {
			return resp, nil
		}
		if hops == l.Redirects {
			return nil, refuse("the URL redirects more than %d times", l.Redirects)
		}
		req = next
	}
}

// call is one request and its answer.
func (c *Client) call(ctx context.Context, req *http.Request, l Limits) (*Response, error) {
	u, err := c.check(req.URL)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	req.URL, req.Host = u, ""
	if req.Header == nil {
		req.Header = http.Header{}
	}
	if _, set := req.Header["User-Agent"]; !set {
		req.Header["User-Agent"] = c.userAgent
	}
	resp, t, err := c.send(ctx, req)
	if err != nil {
		return nil, t.explain(ctx, u.Host, l.Timeout, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return nil, &BrokenError{u.Host, errors.New("it switched to another protocol")}
	}
	body, err := readBody(resp, l.MaxBody)
	if errors.Is(err, errTooLarge) {
		return nil, &TooLargeError{u.Host, l.MaxBody}
	}
	if err != nil {
		return nil, t.explain(ctx, u.Host, l.Timeout, err)
	}
	return &Response{resp.StatusCode, resp.Header, body, u}, nil
}

// send makes one attempt, and one more if the first met a kept connection that
// the peer closed before it gave the first byte of an answer. The transport's
// own repetition would go through every kept connection, one execution each.
func (c *Client) send(ctx context.Context, req *http.Request) (*http.Response, *trail, error) {
	first := new(trail)
	resp, err := c.kept.RoundTrip(req.WithContext(first.watch(ctx)))
	if err == nil || !first.stale() || ctx.Err() != nil {
		return resp, first, err
	}
	second := new(trail)
	again := req.WithContext(second.watch(ctx))
	if req.Body != nil {
		if req.GetBody == nil {
			return nil, first, err
		}
		body, bodyErr := req.GetBody()
		if bodyErr != nil {
			return nil, first, err
		}
		again.Body = body
	}
	resp, err2 := c.fresh.RoundTrip(again)
	if err2 != nil && !second.connected() {
		// The first attempt was sent and may have been what ended the peer: not merely unreachable.
		return nil, first, err
	}
	return resp, second, err2
}

// trail is how far an attempt got.
type trail struct {
	state atomic.Uint32
	http  httptrace.ClientTrace
}

const (
	asked    = 1 << iota // for a connection; unset means the request itself was not fit to send
	got                  // a connection
	reused               // which had been used before
	answered             // with at least one byte
)

func (t *trail) watch(ctx context.Context) context.Context {
	t.http.GetConn = func(string) { t.state.Store(asked) } // also called when the transport starts over
	t.http.GotConn = func(info httptrace.GotConnInfo) {
		if info.Reused {
			t.state.Or(got | reused)
			return
		}
		t.state.Or(got)
	}
	t.http.GotFirstResponseByte = func() { t.state.Or(answered) }
	return httptrace.WithClientTrace(ctx, &t.http)
}

func (t *trail) connected() bool { return t.state.Load()&got != 0 }

func (t *trail) stale() bool { return t.state.Load()&(reused|answered) == reused }

// explain turns what the transport reported into what it says about the peer.
func (t *trail) explain(ctx context.Context, host string, limit time.Duration, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	if t.state.Load()&asked == 0 && ctx.Err() == nil {
		return refuse("the request cannot be sent: %v", err)
	}
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		return refused
	}
	if !t.connected() {
		return &UnreachableError{host, err}
	}
	if ctx.Err() != nil {
		return &TimeoutError{host, limit}
	}
	return &BrokenError{host, err}
}

// dial connects to the first allowed address of addr.
func (c *Client) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var refused atomic.Pointer[RefusedError]
	var tried atomic.Bool
	d := c.dialer
	d.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if !c.allowed(ap.Addr()) {
			no := refuseAddr(ap.Addr())
			refused.Store(no)
			return no
		}
		tried.Store(true)
		if c.dialing != nil {
			c.dialing(ap)
		}
		return nil
	}
	conn, err := d.DialContext(ctx, network, addr)
	if err == nil {
		return conn, nil
	}
	if no := refused.Load(); no != nil {
		if !tried.Load() {
			return nil, no
		}
		// Some addresses are allowed and do not answer; that may pass, so it must not look like a refusal.
		return nil, errors.New(err.Error())
	}
	return nil, err
}

var errTooLarge = errors.New("body too large")

func readBody(resp *http.Response, limit int64) ([]byte, error) {
	if resp.Body == http.NoBody { // an answer to HEAD has a length and no body
		return nil, nil
	}
	size := resp.ContentLength
	if size > limit {
		return nil, errTooLarge
	}
	if size >= 0 && size <= 64<<10 {
		body := make([]byte, size)
		_, err := io.ReadFull(resp.Body, body)
		return body, err
	}
	// The size is unknown, or too large to be believed before it has come.
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(body)) > limit {
		return nil, errTooLarge
	}
	return body, err
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close() // nothing was read from it
	}
}

// redirect is the request that follows from r, nil if r is the answer.
func (r *Response) redirect(req *http.Request, l Limits) *http.Request {
	if l.Redirects == 0 || req.Method != "" && req.Method != http.MethodGet && req.Method != http.MethodHead {
		return nil
	}
	switch r.Status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil
	}
	u, err := r.URL.Parse(r.Header.Get("Location"))
	if err != nil || r.Header.Get("Location") == "" {
		return nil
	}
	header := req.Header
	if u.Scheme != r.URL.Scheme || u.Host != r.URL.Host {
		header = unsecret(header)
	}
	return &http.Request{Method: req.Method, URL: u, Header: header}
}

// unsecret keeps what another host may see. Whatever is not known to be harmless could be a credential.
func unsecret(h http.Header) http.Header {
	out := http.Header{}
	for _, name := range []string{"Accept", "Accept-Language", "User-Agent"} {
		if v, ok := h[name]; ok {
			out[name] = v
		}
	}
	return out
}
