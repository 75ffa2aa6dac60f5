package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"parley/internal/fault"
)

// ignoredBody is how much of a body that means nothing is read: official
// clients send one with GET and DELETE.
const ignoredBody = 1 << 20

// dropBody reads and ignores a body, whatever its content type, so that the
// connection can be used again.
func (c *call) dropBody() error {
	if c.r.Body == nil || c.r.Body == http.NoBody || c.r.ContentLength == 0 {
		return nil
	}
	_, err := io.CopyN(io.Discard, c.r.Body, ignoredBody) // what cannot be read is not missed
	if err != nil && err != io.EOF && c.r.Context().Err() != nil {
		return c.torn(err) // but nobody waits for the answer any more: nothing is begun
	}
	return nil
}

var emptyObject = []byte("{}")

// readBody reads the JSON text of the request. No body at all is an empty object.
func (c *call) readBody() ([]byte, error) {
	r := c.r
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return emptyObject, nil
	}
	if r.ContentLength > c.op.maxBody {
		c.drain()
		return nil, c.tooLarge()
	}
	if e := r.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		c.drain()
		return nil, fault.UnsupportedMediaType.New("The header content-encoding is %s; send the body as it is, without compression", quote(e))
	}
	if err := c.readAll(); err != nil {
		return nil, err
	}
	text := bytes.TrimRight(c.body.Bytes(), " \t\r\n")
	if len(text) == 0 && r.ContentLength < 0 {
		return emptyObject, nil
	}
	if c.op.untyped {
		return text, nil
	}
	return text, checkType(r.Header)
}

// readAll reads the body up to its limit.
func (c *call) readAll() error {
	c.body.Reset()
	if n := c.r.ContentLength; n > 0 {
		c.body.Grow(int(min(n, 64<<10)) + bytes.MinRead) // the rest grows as it comes: lengths can lie
	}
	n, err := c.body.ReadFrom(io.LimitReader(c.r.Body, c.op.maxBody+1))
	if n > c.op.maxBody {
		c.drain()
		return c.tooLarge()
	}
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return c.tooLarge()
	}
	return c.torn(err)
}

// torn says of a body that its end has not come.
func (c *call) torn(err error) error {
	c.gone = c.r.Context().Err() != nil
	return fault.InvalidPayload.Wrap(err, "The body ended before its announced length")
}

// drained is how much of a refused body is read away, so that its sender gets
// to read the answer instead of a reset connection.
const drained = 8 << 20

func (c *call) drain() {
	if c.r.Header.Get("Expect") != "" || c.r.ContentLength > drained {
		return // the sender waits for our word, or the server closes the connection
	}
	_, _ = io.CopyN(io.Discard, c.r.Body, drained) // what cannot be read is not missed
}

func (c *call) tooLarge() error {
	return fault.PayloadTooLarge.New("The body of %s is over its limit of %s", c.op.ID, bytesText(c.op.maxBody))
}

func bytesText(n int64) string {
	switch {
	case n%(1<<20) == 0:
		return fmt.Sprintf("%d MB", n>>20)
	case n%(1<<10) == 0:
		return fmt.Sprintf("%d KB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

// checkType refuses bodies that do not say they are JSON.
func checkType(h http.Header) error {
	given := h.Get("Content-Type")
	if given == "application/json" {
		return nil
	}
	if given == "" {
		return fault.UnsupportedMediaType.New("The header content-type is missing; send content-type: application/json")
	}
	media, params, err := mime.ParseMediaType(given)
	if charset := params["charset"]; err == nil && charset != "" && !strings.EqualFold(charset, "utf-8") {
		return fault.UnsupportedMediaType.New("The header content-type asks for the character set %s; JSON is UTF-8", quote(charset))
	}
	if err != nil || media != "application/json" {
		return fault.UnsupportedMediaType.New("The header content-type is %s; send content-type: application/json", quote(given))
	}
	return nil
}
