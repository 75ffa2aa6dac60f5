package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
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
	tls           *tls.Config
	idle          idle
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
	c.tls = &tls.Config{RootCAs: cfg.RootCAs, NextProtos: []string{"http/1.1"}, ClientSessionCache: tls.NewLRUClientSessionCache(0)}
	return c
}

// Close drops idle connections. Calls in flight go on.
func (c *Client) Close() { c.idle.closeAll() }

// Do sends req and reads the whole answer. Any status is an answer; the errors
// are those of the package comment. It owns req and its header map from now on
// and ignores req.Host. The body is taken into memory; see Body.
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
	body, err := takeBody(req)
	if err != nil {
		return nil, refuse("the request cannot be sent: %v", err)
	}
	buf := heads.Get().(*[]byte)
	defer heads.Put(buf)
	head, err := appendHead((*buf)[:0], req, len(body))
	if err != nil {
		return nil, err
	}
	*buf = head
	resp, answer, t, err := c.send(ctx, req, head, body, l.MaxBody)
	if err != nil {
		return nil, t.explain(ctx, u.Host, l, err)
	}
	return &Response{resp.StatusCode, resp.Header, answer, u}, nil
}

// heads are buffers for what goes out in one write.
var heads = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// send makes one attempt, and one more on a new connection if the first met a
// kept one that the peer closed before it gave the first byte of an answer.
func (c *Client) send(ctx context.Context, req *http.Request, head, body []byte, limit int64) (*http.Response, []byte, trail, error) {
	p := peerOf(req.URL)
	if k := c.idle.take(p); k != nil {
		resp, answer, t, err := c.use(ctx, k, p, req, head, body, limit)
		if err == nil || t.answered || ctx.Err() != nil {
			return resp, answer, t, err
		}
		if k, newErr := c.connect(ctx, req.URL); newErr == nil {
			return c.use(ctx, k, p, req, head, body, limit)
		}
		// The first attempt was sent and may have been what ended the peer: not merely unreachable.
		return nil, nil, t, err
	}
	k, err := c.connect(ctx, req.URL)
	if err != nil {
		return nil, nil, trail{}, err
	}
	return c.use(ctx, k, p, req, head, body, limit)
}

// use makes an exchange on a connection and keeps it if it can be used again.
func (c *Client) use(ctx context.Context, k *conn, p peer, req *http.Request, head, body []byte, limit int64) (*http.Response, []byte, trail, error) {
	stop := context.AfterFunc(ctx, k.cut)
	resp, answer, keep, err := k.exchange(req, head, body, limit)
	t := trail{connected: true, answered: k.answered}
	if stop() && keep {
		c.idle.put(p, k)
	} else {
		_ = k.Close() // what is left on it is of no use
	}
	return resp, answer, t, err
}

// trail is how far an attempt got.
type trail struct {
	connected bool
	answered  bool // with at least one byte
}

// explain turns what went wrong into what it says about the peer.
func (t trail) explain(ctx context.Context, host string, l Limits, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		return refused
	}
	switch {
	case !t.connected:
		return &UnreachableError{host, err}
	case errors.Is(err, errTooLarge):
		return &TooLargeError{host, l.MaxBody}
	case ctx.Err() != nil:
		return &TimeoutError{host, l.Timeout}
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
		if !c.Allows(ap.Addr()) {
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
