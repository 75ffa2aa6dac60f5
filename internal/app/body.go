package app

import (
	"io"
	"net/http"
	"time"
)

const (
	bodyTimeout = 30 * time.Second // for the first megabyte of a body
	slowestBody = 256 << 10        // bytes a second that a longer one must keep up
	bodyStep    = 1 << 20
)

// boundBodies gives every body a time to arrive in, so that a stranger who
// sends a byte now and then does not hold a connection. The deadline goes with
// the last byte, because on HTTP/1.1 it would also end the answer that follows.
func boundBodies(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			b := &timedBody{ReadCloser: r.Body, rc: http.NewResponseController(w), began: time.Now()}
			b.extend()
			r.Body = b
		}
		next.ServeHTTP(w, r)
	})
}

type timedBody struct {
	io.ReadCloser
	rc    *http.ResponseController
	began time.Time
	read  int64
	next  int64 // bytes at which the deadline moves
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	switch {
	case err == io.EOF:
		_ = b.rc.SetReadDeadline(time.Time{}) // as in extend
	case b.read >= b.next:
		b.extend()
	}
	return n, err
}

func (b *timedBody) extend() {
	b.next = b.read + bodyStep
	limit := bodyTimeout + time.Duration(b.read/slowestBody)*time.Second
	_ = b.rc.SetReadDeadline(b.began.Add(limit)) // a transport without deadlines, as in tests, has no slow senders
}
