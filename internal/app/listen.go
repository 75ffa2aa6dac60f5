package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"syscall"
	"time"
)

const (
	headerTimeout  = 10 * time.Second
	idleTimeout    = 120 * time.Second
	maxHeaderBytes = 64 << 10
	// From a request to the end of its answer, for clients that stop reading.
	// Streams have deadlines of their own.
	answerTimeout = 15 * time.Minute
)

// listeners are the sockets of a server: one, or both loopback addresses.
type listeners []net.Listener

// listen opens addr. A loopback address is opened in both families, because
// clients that ask for localhost may try either first.
func listen(ctx context.Context, addr string) (listeners, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if !isLoopback(host) {
		l, err := listenOne(ctx, addr)
		return listeners{l}, err
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	for try := 0; ; try++ {
		first, err := listenOne(ctx, net.JoinHostPort(host, port))
		if err != nil {
			return nil, err
		}
		second, err := listenOne(ctx, other(first.Addr()))
		switch {
		case err == nil:
			return listeners{first, second}, nil
		case !errors.Is(err, syscall.EADDRINUSE):
			return listeners{first}, nil // this machine has one family only
		case port == "0" && try < 10:
			_ = first.Close() // the other family's port is taken: another pair may be free
		default:
			return nil, errors.Join(err, first.Close())
		}
	}
}

func listenOne(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("address %s is in use by another program; choose another with --addr: %w", addr, err)
	}
	return l, err
}

// other is the loopback address of the other family with the same port.
func other(a net.Addr) string {
	ap := a.(*net.TCPAddr).AddrPort()
	if ap.Addr().Unmap().Is4() {
		return netip.AddrPortFrom(netip.IPv6Loopback(), ap.Port()).String()
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), ap.Port()).String()
}

// addr is where the server really listens.
func (ls listeners) addr() string { return ls[0].Addr().String() }

// local is a URL under which this machine reaches the server.
func (ls listeners) local(scheme string) string {
	ap := ls[0].Addr().(*net.TCPAddr).AddrPort()
	if ap.Addr().IsUnspecified() {
		return scheme + "://127.0.0.1:" + strconv.Itoa(int(ap.Port()))
	}
	return scheme + "://" + ap.String()
}

func (ls listeners) close() error {
	var errs []error
	for _, l := range ls {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// newHTTPServer makes a server that speaks HTTP/1.1 and HTTP/2, the latter also
// without TLS for proxies.
func newHTTPServer(h http.Handler, cert *tls.Certificate) *http.Server {
	s := &http.Server{
		Handler:           boundBodies(h),
		ReadHeaderTimeout: headerTimeout,
		WriteTimeout:      answerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		Protocols:         new(http.Protocols),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 250},
	}
	s.Protocols.SetHTTP1(true)
	if cert != nil {
		s.Protocols.SetHTTP2(true)
		s.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*cert}}
	} else {
		s.Protocols.SetUnencryptedHTTP2(true)
	}
	return s
}
