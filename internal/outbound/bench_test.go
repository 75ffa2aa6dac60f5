package outbound

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"syscall"
	"testing"
)

// BenchmarkPost is one call of the usual size and its answer, with the server in the same process.
func BenchmarkPost(b *testing.B) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}")
	}))
	defer s.Close()
	c := New(Config{AllowLoopback: true})
	defer c.Close()
	u, err := url.Parse(s.URL)
	if err != nil {
		b.Fatal(err)
	}
	content := bytes.Repeat([]byte("x"), 700)
	b.ReportAllocs()
	var r0, r1 syscall.Rusage
	syscall.Getrusage(0, &r0)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			h := http.Header{"Content-Type": {"application/json"}}
			for _, name := range []string{"X-Bot-Id", "X-Bot-User-Id", "X-Integration-Id", "X-Integration-Alias", "X-Webhook-Id", "X-Bp-Operation", "X-Bp-Type", "X-Bp-Configuration"} {
				h[name] = []string{"01ARZ3NDEKTSV4RRFFQ69G5FAV"}
			}
			req := &http.Request{Method: "POST", URL: u, Header: h, ContentLength: int64(len(content)), Body: io.NopCloser(bytes.NewReader(content))}
			resp, err := c.Do(b.Context(), req, Limits{})
			if err != nil || resp.Status != 200 {
				b.Error(resp, err)
				return
			}
		}
	})
	syscall.Getrusage(0, &r1)
	cpu := func(r syscall.Rusage) float64 { return float64(r.Utime.Nano() + r.Stime.Nano()) }
	b.ReportMetric((cpu(r1)-cpu(r0))/float64(b.N), "cpu-ns/op")
}
