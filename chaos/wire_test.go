package chaos

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// wire sends requests byte for byte, over a connection that it keeps while the
// server does.
type wire struct {
	addr string
	conn *net.TCPConn
	in   *bufio.Reader
}

// answer is what came back; what is not HTTP at all has no status.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// patience is how long an answer may take on a machine that is busy.
const patience = time.Minute

// more is how long a second answer may take that nobody should get.
const more = 100 * time.Millisecond

// maxAnswer is more than any answer to these requests has.
const maxAnswer = 8 << 20

var errTooMuch = errors.New("the answer has no end")

func (w *wire) dial() error {
	if w.conn != nil {
		return nil
	}
	c, err := net.DialTimeout("tcp", w.addr, patience)
	if err != nil {
		return err
	}
	w.conn = c.(*net.TCPConn)
	w.in = bufio.NewReader(w.conn)
	return nil
}

func (w *wire) close() {
	if w.conn != nil {
		_ = w.conn.SetLinger(0) // no ports are left waiting behind millions of connections
		_ = w.conn.Close()
		w.conn = nil
	}
}

// exchange sends a request and reads its answers: one, or all until the server
// hangs up. None at all, where the server hung up on what was not whole, is no error.
func (w *wire) exchange(r *request) (all []answer, err error) {
	if r.alone {
		w.close()
	}
	if err := w.dial(); err != nil {
		return nil, err
	}
	if err := w.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	_, sent := w.conn.Write(r.bytes()) // the server may hang up before it has read all
	if r.cut {
		_ = w.conn.CloseWrite() // as above
	}
	if r.alone {
		defer w.close()
	}
	for {
		a, end, err := w.read(r.method)
		if err != nil {
			w.close()
			var late net.Error
			gone := errors.Is(err, io.EOF) || len(all) > 0 && errors.As(err, &late) && late.Timeout() || strings.Contains(err.Error(), "reset") || strings.Contains(err.Error(), "broken pipe")
			if gone && (len(all) > 0 || r.cut || r.binary) {
				return all, nil
			}
			return all, errors.Join(err, sent)
		}
		all = append(all, a)
		if end {
			w.close()
		}
		if end || !r.alone || w.conn.SetReadDeadline(time.Now().Add(more)) != nil {
			return all, nil
		}
	}
}

// read reads one answer. It ends the connection if the answer says so, or is a
// stream that would not end.
func (w *wire) read(method string) (a answer, end bool, err error) {
	if first, err := w.in.Peek(5); err != nil || !bytes.Equal(first, []byte("HTTP/")) {
		if len(first) > 0 && !bytes.HasPrefix([]byte("HTTP/"), first) {
			_, _ = io.Copy(io.Discard, w.in) // frames of HTTP/2 and the like
			return a, true, nil
		}
		return a, false, err
	}
	res, err := http.ReadResponse(w.in, &http.Request{Method: method})
	if err != nil {
		return a, false, err
	}
	if res.StatusCode == http.StatusContinue {
		return w.read(method)
	}
	defer res.Body.Close()
	a.status, a.header = res.StatusCode, res.Header
	if res.StatusCode == http.StatusSwitchingProtocols || strings.HasPrefix(res.Header.Get("content-type"), "text/event-stream") {
		return a, true, nil
	}
	a.body, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if len(a.body) == maxAnswer {
		err = errTooMuch
	}
	return a, res.Close, err
}

// request is one request in parts that can be broken one by one.
type request struct {
	op      *operation
	method  string
	path    string // escaped
	query   []pair // escaped
	version string
	header  []pair
	body    []byte
	length  string // "" = as long as the body is, "-" = not told
	raw     []byte // instead of all that

	alone  bool // on a connection of its own, which is read to its end
	cut    bool // the client hangs up after it
	binary bool // it is not HTTP/1.1, and neither need the answer be

	breaks []string // what was done to it, in words
	wants  []string // types of errors of which it must get one; none = it may be taken
	why    string   // the rule by which it may be taken
	routed bool     // it reaches its own operation: the statuses are those that are documented
}

func (r *request) bytes() []byte {
	if r.raw != nil {
		return r.raw
	}
	var b bytes.Buffer
	b.Grow(512 + len(r.body))
	b.WriteString(r.method + " " + r.path)
	for i, q := range r.query {
		b.WriteString(string("?&"[min(i, 1)]) + q.name)
		if q.value != none {
			b.WriteString("=" + q.value)
		}
	}
	b.WriteString(" " + r.version + "\r\n")
	for _, h := range r.header {
		b.WriteString(h.name + ": " + h.value + "\r\n")
	}
	switch {
	case r.length == "" && r.body != nil:
		fmt.Fprintf(&b, "content-length: %d\r\n", len(r.body))
	case r.length != "" && r.length != none:
		b.WriteString("content-length: " + r.length + "\r\n")
	}
	b.WriteString("\r\n")
	b.Write(r.body)
	return b.Bytes()
}

// none stands where there is no value at all.
const none = "\x00"

// paste is the request as a command that sends it again.
func (r *request) paste(addr string) string {
	var b strings.Builder
	for _, c := range r.bytes() {
		switch {
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\\' || c == '\'' || c == '%' || c < ' ' || c > '~':
			fmt.Fprintf(&b, `\%03o`, c)
		default:
			b.WriteByte(c)
		}
		if b.Len() > 4000 {
			return b.String() + "… (its seed and number make it again)"
		}
	}
	host, port, _ := net.SplitHostPort(addr)
	return fmt.Sprintf("printf '%s' | nc -q 5 %s %s", b.String(), host, port)
}

// shrunk leaves out what is not needed for a request to be answered wrongly: header
// by header, parameter by parameter, the body in ever smaller pieces.
func (r *request) shrunk(wrong func(*request) bool) *request {
	tries := 0
	try := func(smaller request) bool {
		if tries++; tries > 300 || !wrong(&smaller) {
			return false
		}
		*r = smaller
		return true
	}
	for i := len(r.header) - 1; i > 0; i-- { // the first is the host
		s := *r
		s.header = append(append([]pair{}, r.header[:i]...), r.header[i+1:]...)
		try(s)
	}
	for i := len(r.query) - 1; i >= 0; i-- {
		s := *r
		s.query = append(append([]pair{}, r.query[:i]...), r.query[i+1:]...)
		try(s)
	}
	// A smaller body may be right for another reason, where it must be refused for one.
	for size := len(r.body) / 2; size > 0 && len(r.wants) == 0; size /= 2 {
		for at := 0; at+size <= len(r.body); {
			s := *r
			s.body = append(append([]byte{}, r.body[:at]...), r.body[at+size:]...)
			if !try(s) {
				at += size
			}
		}
	}
	return r
}
