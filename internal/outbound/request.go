package outbound

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Body is a body that is in memory. It is sent without being copied.
func Body(b []byte) io.ReadCloser { return &body{*bytes.NewReader(b), b} }

type body struct {
	bytes.Reader
	all []byte
}

func (*body) Close() error { return nil }

// takeBody returns the whole body of a request.
func takeBody(req *http.Request) ([]byte, error) {
	if req.Body == nil || req.Body == http.NoBody {
		return nil, nil
	}
	if b, ok := req.Body.(*body); ok {
		return b.all, nil
	}
	b, err := io.ReadAll(req.Body)
	closeBody(req)
	return b, err
}

// set by appendHead, or of no use here.
var ownHeaders = map[string]bool{"Host": true, "Content-Length": true, "Transfer-Encoding": true, "Trailer": true, "Connection": true, "Upgrade": true, "Te": true}

// appendHead writes what stands before the body of a request, or refuses what
// cannot stand there.
func appendHead(out []byte, req *http.Request, size int) ([]byte, error) {
	if req.Method == "" {
		req.Method = http.MethodGet
	}
	if !httpguts.ValidHeaderFieldName(req.Method) { // a method is a token too
		return nil, refuse("the request cannot be sent: %q is no method", req.Method)
	}
	target := strings.ReplaceAll(req.URL.RequestURI(), " ", "%20")
	if strings.IndexFunc(target, isControl) >= 0 {
		return nil, refuse("the request cannot be sent: its URL has control characters")
	}
	out = append(out, req.Method...)
	out = append(out, ' ')
	out = append(out, target...)
	out = append(out, " HTTP/1.1\r\nHost: "...)
	out = append(out, hostHeader(req.URL)...)
	for name, values := range req.Header {
		if ownHeaders[name] {
			continue
		}
		if !httpguts.ValidHeaderFieldName(name) {
			return nil, refuse("the request cannot be sent: %q is no name of a header", name)
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return nil, refuse("the request cannot be sent: the value of the header %s has control characters", name)
			}
			out = append(out, "\r\n"...)
			out = append(out, name...)
			out = append(out, ": "...)
			out = append(out, v...)
		}
	}
	if size > 0 || req.Method == http.MethodPost || req.Method == http.MethodPut || req.Method == http.MethodPatch {
		out = append(out, "\r\nContent-Length: "...)
		out = strconv.AppendInt(out, int64(size), 10)
	}
	return append(out, "\r\n\r\n"...), nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// hostHeader is the host of a URL without what only this machine understands.
func hostHeader(u *url.URL) string {
	host := strings.TrimSuffix(u.Host, ":")
	if zone := strings.IndexByte(host, '%'); zone >= 0 {
		if end := strings.IndexByte(host[zone:], ']'); end >= 0 {
			host = host[:zone] + host[zone+end:]
		}
	}
	return host
}
