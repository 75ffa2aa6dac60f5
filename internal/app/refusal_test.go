package app

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"parley/internal/fault"
)

// What the HTTP server refuses by itself is an error of the API, too.
func TestWhatIsNoHTTPGetsATypedError(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, c := range []struct {
		name, raw string
		kind      *fault.Kind
		message   string
	}{
		{"no request line", "hello\r\n\r\n", fault.InvalidPayload, "The request is not well formed HTTP"},
		{"no host", "GET / HTTP/1.1\r\n\r\n", fault.InvalidPayload, "The request is not well formed HTTP: missing required Host header"},
		{"a header without a name", "GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n", fault.InvalidPayload, "The request is not well formed HTTP"},
		{"a path with a broken escape", "GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", fault.InvalidPayload, "The request is not well formed HTTP"},
		{"two lengths", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", fault.InvalidPayload, "The request is not well formed HTTP"},
		{"an unknown coding", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", fault.InvalidPayload, "The request is not well formed HTTP"},
		{"another version", "GET / HTTP/3.0\r\nHost: x\r\n\r\n", fault.InvalidPayload, "The request is not well formed HTTP: unsupported protocol version"},
		{"an unknown expectation", "POST / HTTP/1.1\r\nHost: x\r\nExpect: wonders\r\nContent-Length: 1\r\n\r\n", fault.InvalidPayload, "The header expect asks for what is not known here; leave it out"},
		{"a huge header", "GET / HTTP/1.1\r\nHost: x\r\nX-Much: " + strings.Repeat("x", 80<<10) + "\r\n\r\n", fault.PayloadTooLarge, "The header of the request is over its limit of 64 KB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", s.Addr())
			must(t, err)
			defer conn.Close()
			_, err = io.WriteString(conn, c.raw)
			must(t, err)
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
			must(t, err)
			var body fault.Body
			must(t, json.NewDecoder(answer.Body).Decode(&body))
			if answer.StatusCode != c.kind.Status || body.Status != c.kind.Status || body.Type != c.kind.Type || body.Message != c.message ||
				answer.Header.Get("Content-Type") != "application/json" || !answer.Close {
				t.Errorf("got %s %v %+v, want %s %q", answer.Status, answer.Header, body, c.kind.Type, c.message)
			}
		})
	}
}

// Only what the HTTP server says by itself is taken for it.
func TestAnswersAreLeftAsTheyAre(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nDate: x\r\nConnection: close\r\n\r\n400 Bad Request",
		"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\nok",
		"HTTP/1.1 400 Bad Request\r\nX: y\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request",
		"HTTP/1.1 417 Expectation Failed\r\nConnection: close\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 ", "", "data: HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request",
	} {
		if kind, why := refused([]byte(text)); kind != nil {
			t.Errorf("%q is taken for a refusal: %s", text, why)
		}
	}
}
