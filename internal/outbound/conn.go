package outbound

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"syscall"
	"time"
)

const (
	maxInterim = 5        // answers with a status below 200 before the one that counts
	inOneWrite = 16 << 10 // a head and a body up to this size leave together
	// inline is how large a body is written before the answer is looked at: what
	// the buffers of both ends take even if the peer reads nothing of it.
	inline = 64 << 10
)

// conn is a connection to a peer. It carries one exchange at a time, in the
// goroutine of the caller.
type conn struct {
	net.Conn // TLS over raw, or raw itself
	raw      net.Conn
	control  syscall.RawConn // of raw, nil if it has none
	reader   *bufio.Reader   // nil while the connection is idle
	head     int             // bytes that the head of the answer may still have
	inHead   bool
	answered bool // with at least one byte
	idle     time.Time
}

var readers = sync.Pool{New: func() any { return bufio.NewReader(nil) }}

// connect dials the host of a URL, which has been checked.
func (c *Client) connect(ctx context.Context, u *url.URL) (*conn, error) {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	raw, err := c.dial(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, err
	}
	k := &conn{Conn: raw, raw: raw}
	if s, ok := raw.(syscall.Conn); ok {
		k.control, _ = s.SyscallConn() // nil if it has none
	}
	if u.Scheme == "http" {
		return k, nil
	}
	config := c.tls.Clone()
	config.ServerName = u.Hostname()
	secured := tls.Client(raw, config)
	ctx, cancel := context.WithTimeout(ctx, tlsTimeout)
	defer cancel()
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // it is useless
		return nil, err
	}
	k.Conn = secured
	return k, nil
}

// Read implements io.Reader for the reader of answers.
func (k *conn) Read(p []byte) (int, error) {
	if k.inHead {
		if k.head == 0 {
			return 0, errLongHead
		}
		p = p[:min(len(p), k.head)]
	}
	n, err := k.Conn.Read(p)
	k.head -= min(n, k.head)
	k.answered = k.answered || n > 0
	return n, err
}

// cut ends whatever the connection waits for.
func (k *conn) cut() { _ = k.raw.SetDeadline(time.Unix(1, 0)) } // fails only if it is closed

// exchange sends a request and reads the whole answer. keep tells whether the
// connection can carry another one.
func (k *conn) exchange(req *http.Request, head, body []byte, limit int64) (resp *http.Response, answer []byte, keep bool, err error) {
	k.reader = readers.Get().(*bufio.Reader)
	k.reader.Reset(k)
	defer func() {
		k.reader.Reset(nil)
		readers.Put(k.reader)
		k.reader = nil
	}()
	k.answered, k.inHead, k.head = false, true, maxHeaderBytes
	if len(body) <= inline {
		sent := k.send(head, body)
		// A peer that has had enough answers before it closes: what it says counts for more.
		if resp, answer, keep, err = k.receive(req, limit); err != nil && sent != nil {
			err = sent
		}
		return resp, answer, keep && sent == nil, err
	}
	var sending sync.WaitGroup
	var sent error
	sending.Go(func() { sent = k.send(head, body) })
	resp, answer, keep, err = k.receive(req, limit)
	k.cutWriting() // an answer before the end of the request: the rest need not be sent
	sending.Wait()
	return resp, answer, keep && sent == nil && k.raw.SetWriteDeadline(time.Time{}) == nil, err
}

func (k *conn) cutWriting() { _ = k.raw.SetWriteDeadline(time.Unix(1, 0)) }

func (k *conn) send(head, body []byte) error {
	if len(head)+len(body) <= inOneWrite {
		_, err := k.Conn.Write(append(head, body...))
		return err
	}
	parts := net.Buffers{head, body}
	_, err := parts.WriteTo(k.Conn)
	return err
}

var (
	errTooLarge = errors.New("body too large")
	errLongHead = fmt.Errorf("the head of the answer has more than %d bytes", maxHeaderBytes)
	errSwitched = errors.New("it switched to another protocol")
	errInterim  = fmt.Errorf("it gave more than %d interim answers", maxInterim)
)

// receive reads an answer. The body is read here and never closed, which would
// mean to read a stranger's body to its end.
func (k *conn) receive(req *http.Request, limit int64) (resp *http.Response, body []byte, keep bool, err error) {
	for interim := 0; ; interim++ {
		if resp, err = http.ReadResponse(k.reader, req); err != nil {
			return nil, nil, false, err
		}
		if resp.StatusCode == http.StatusSwitchingProtocols {
			return nil, nil, false, errSwitched
		}
		if resp.StatusCode >= 200 {
			break
		}
		if interim == maxInterim {
			return nil, nil, false, errInterim
		}
	}
	k.inHead = false
	if body, err = readBody(resp, limit); err != nil {
		return nil, nil, false, err
	}
	return resp, body, !resp.Close && k.reader.Buffered() == 0, nil
}

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
