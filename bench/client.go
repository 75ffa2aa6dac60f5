package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// conn is one HTTP/1.1 connection that sends requests formatted beforehand. It
// costs a third of net/http's client, so that the load takes less of the
// machine it shares with the server.
type conn struct {
	c    net.Conn
	r    *bufio.Reader
	body []byte
}

func dial(addr string) (*conn, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &conn{c: c, r: bufio.NewReaderSize(c, 8<<10)}, nil
}

func (c *conn) close() error { return c.c.Close() }

// format makes the bytes of a request.
func format(method, path, host string, header http.Header, body string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, host)
	for name, values := range header {
		for _, v := range values {
			fmt.Fprintf(&b, "%s: %s\r\n", name, v)
		}
	}
	if body != "" {
		fmt.Fprintf(&b, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n")
	b.WriteString(body)
	return b.Bytes()
}

// do sends a request and reads its answer; the body is good until the next call.
func (c *conn) do(request []byte) (status int, body []byte, err error) {
	if _, err := c.c.Write(request); err != nil {
		return 0, nil, err
	}
	status, length, err := c.head()
	if err != nil {
		return 0, nil, err
	}
	if length == chunked {
		return status, nil, c.chunks()
	}
	if cap(c.body) < length {
		c.body = make([]byte, length)
	}
	c.body = c.body[:length]
	_, err = io.ReadFull(c.r, c.body)
	return status, c.body, err
}

const (
	chunked   = -1
	unlimited = -2
)

// head reads the status line and headers and tells how long the body is.
func (c *conn) head() (status, length int, err error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return 0, 0, err
	}
	if len(line) < 12 {
		return 0, 0, fmt.Errorf("status line %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, 0, err
	}
	length = unlimited
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return 0, 0, err
		}
		if len(line) <= 2 {
			break
		}
		switch line[0] | 0x20 {
		case 'c':
			if v, ok := value(line, "content-length:"); ok {
				if length, err = strconv.Atoi(v); err != nil {
					return 0, 0, err
				}
			}
		case 't':
			if v, ok := value(line, "transfer-encoding:"); ok && v == "chunked" {
				length = chunked
			}
		}
	}
	return status, length, nil
}

func value(line []byte, name string) (string, bool) {
	if len(line) < len(name) || !strings.EqualFold(string(line[:len(name)]), name) {
		return "", false
	}
	return string(bytes.TrimSpace(line[len(name):])), true
}

// chunks reads a chunked body into c.body.
func (c *conn) chunks() error {
	c.body = c.body[:0]
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 32)
		if err != nil {
			return err
		}
		at := len(c.body)
		c.body = append(c.body, make([]byte, n+2)...)
		if _, err := io.ReadFull(c.r, c.body[at:]); err != nil {
			return err
		}
		c.body = c.body[:at+int(n)]
		if n == 0 {
			return nil
		}
	}
}

// expect is do for one wanted status.
func (c *conn) expect(status int, request []byte) ([]byte, error) {
	got, body, err := c.do(request)
	if err == nil && got != status {
		err = fmt.Errorf("status %d, want %d: %s", got, status, body)
	}
	return body, err
}

// open sends a request for a stream of events and leaves the connection at its first byte.
func (c *conn) open(request []byte) error {
	if _, err := c.c.Write(request); err != nil {
		return err
	}
	status, length, err := c.head()
	switch {
	case err != nil:
		return err
	case status != http.StatusOK:
		return fmt.Errorf("stream: status %d", status)
	case length == chunked:
		c.r = bufio.NewReaderSize(&dechunk{r: c.r}, 8<<10)
	case length != unlimited:
		return errors.New("stream: the answer has a length")
	}
	return nil
}

// dechunk takes the lengths out of a chunked stream.
type dechunk struct {
	r    *bufio.Reader
	left int
}

func (d *dechunk) Read(p []byte) (int, error) {
	for d.left == 0 {
		line, err := d.r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		text := bytes.TrimSpace(line)
		if len(text) == 0 {
			continue // the end of the chunk before
		}
		n, err := strconv.ParseInt(string(text), 16, 32)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			return 0, io.EOF
		}
		d.left = int(n)
	}
	n, err := d.r.Read(p[:min(len(p), d.left)])
	d.left -= n
	return n, err
}

// data reads lines until the next data: line and returns what it carries, good until the next call.
func (c *conn) data() ([]byte, error) {
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		if bytes.HasPrefix(line, []byte("data:")) {
			return bytes.TrimSpace(line[len("data:"):]), nil
		}
	}
}
