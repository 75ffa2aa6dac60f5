package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"parley/internal/fault"
)

// What is no HTTP, or too much of it, the HTTP server refuses before there is a
// request, in plain text written straight to the connection. Clients get an
// error of the API instead: whatever they send, they can read the answer. In TLS
// of our own and in HTTP/2 these refusals do not pass here and stay as they are.

// typedListener hands out connections that refuse in the words of the API.
type typedListener struct{ net.Listener }

func (l typedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok {
		return &typedConn{tcp}, err
	}
	return c, err
}

type typedConn struct{ *net.TCPConn }

func (c *typedConn) Write(b []byte) (int, error) {
	kind, why := refused(b)
	if kind == nil {
		return c.TCPConn.Write(b)
	}
	if _, err := c.TCPConn.Write(lastAnswer(kind.New("%s", why), time.Now(), "")); err != nil {
		return 0, err
	}
	return len(b), nil
}

// The whole header of what the HTTP server refuses by itself. No other answer
// looks like that: they have a date.
var (
	refusalHead = []byte("\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n")
	expectation = []byte("HTTP/1.1 417 Expectation Failed\r\nConnection: close\r\n")
)

// refused finds out whether b is a refusal by the HTTP server, and its reason.
func refused(b []byte) (*fault.Kind, string) {
	if len(b) > 300 || !bytes.HasPrefix(b, []byte("HTTP/1.1 ")) || len(b) < 12 || b[9] < '4' {
		return nil, ""
	}
	if bytes.HasPrefix(b, expectation) && bytes.HasSuffix(b, []byte("Content-Length: 0\r\n\r\n")) {
		return fault.InvalidPayload, "The header expect asks for what is not known here; leave it out"
	}
	head, why, ok := bytes.Cut(b, refusalHead)
	if !ok || bytes.Contains(head, []byte("\r\n")) {
		return nil, ""
	}
	if bytes.HasPrefix(b, []byte("HTTP/1.1 431 ")) {
		return fault.PayloadTooLarge, fmt.Sprintf("The header of the request is over its limit of %d KB", maxHeaderBytes>>10)
	}
	if _, detail, ok := bytes.Cut(why, []byte(": ")); ok {
		return fault.InvalidPayload, "The request is not well formed HTTP: " + string(detail)
	}
	return fault.InvalidPayload, "The request is not well formed HTTP"
}

// lastAnswer is an error as a whole answer, after which the connection is closed.
// More lines of its header end in a line break each.
func lastAnswer(f *fault.Error, now time.Time, more string) []byte {
	body, err := json.Marshal(f.Body(now))
	if err != nil {
		panic(err) // it consists of texts and numbers
	}
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%sConnection: close\r\n\r\n%s",
		f.Kind.Status, http.StatusText(f.Kind.Status), len(body), more, body)
}
