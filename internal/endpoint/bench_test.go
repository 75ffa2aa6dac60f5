package endpoint_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/internal/endpoint"
	"parley/internal/signing"
)

// BenchmarkRoundTrip compares an operation of 1 KB over HTTP, signed and
// unsigned, with the same bytes through a plain http.Client, to the same server
// on loopback.
func BenchmarkRoundTrip(b *testing.B) {
	s := server(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "{}")
	}))
	event := []byte(`{"id":"evt_1","payload":{"text":"` + strings.Repeat("hello ", 160) + `"}}`)
	call := endpoint.BotCall{BotID: "bot_1", BotUserID: "bot_1", Operation: "event_received", Type: "message_created", EventID: "evt_1", Attempt: 1}
	op := call.With(endpoint.EventReceived(event))
	parley := endpoint.NewHTTP(s.URL, local(b))
	plain := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	b.Cleanup(plain.CloseIdleConnections)
	invoke := func(op endpoint.Operation) func(context.Context) error {
		return func(ctx context.Context) error {
			a, err := parley.Invoke(ctx, op)
			if err == nil && string(a.Body) != "{}" {
				err = fmt.Errorf("got %q", a.Body)
			}
			return err
		}
	}
	signed := op
	signed.Signer = signing.New(time.Now, signing.NewSecret())
	calls := map[string]func(context.Context) error{
		"endpoint": invoke(op),
		"signed":   invoke(signed),
		"plain": func(ctx context.Context) error {
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL, bytes.NewReader(op.Body))
			if err != nil {
				return err
			}
			r.Header = op.Header.Clone()
			r.Header.Set("Content-Type", "application/json")
			resp, err := plain.Do(r)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			_, err = io.ReadAll(resp.Body)
			return err
		},
	}
	for _, inFlight := range []int{1, 32} {
		for _, name := range []string{"plain", "endpoint", "signed"} {
			b.Run(fmt.Sprintf("%d/%s", inFlight, name), func(b *testing.B) { measure(b, inFlight, calls[name]) })
		}
	}
}

// measure runs call b.N times from n goroutines, each with a time limit as a delivery has it.
func measure(b *testing.B, n int, call func(context.Context) error) {
	took := make([]time.Duration, b.N)
	b.ReportAllocs()
	b.ResetTimer()
	var callers sync.WaitGroup
	for g := range n {
		callers.Go(func() {
			for i := g; i < b.N; i += n {
				ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
				began := time.Now()
				if err := call(ctx); err != nil {
					b.Error(err)
				}
				took[i] = time.Since(began)
				cancel()
			}
		})
	}
	callers.Wait()
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(took[b.N/2].Nanoseconds())/1e3, "p50-µs")
	b.ReportMetric(float64(took[b.N*99/100].Nanoseconds())/1e3, "p99-µs")
}
