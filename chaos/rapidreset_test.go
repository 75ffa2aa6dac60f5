package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"parley/internal/parleytest"
)

// TestRapidReset has strangers speak HTTP/2 as one should not: requests that are
// taken back as soon as they are made, and a header that never ends. The server
// bounds what they cost, hangs up on the second, and answers ordinary clients.
func TestRapidReset(t *testing.T) {
	parleytest.Each(t, func(t *testing.T, s *parleytest.Setup) {
		_, env := s.Settings()
		v := newVisitors(t, env.ChatURL)
		before := gauge(t, s, "go_goroutines")
		var most, streams, hungUp float64
		ratio, calm, beside := v.pairs(t, func(during func()) {
			f := newFlood(t, s)
			during()
			most = max(most, gauge(t, s, "go_goroutines"))
			f.end()
			streams, hungUp = streams+float64(f.streams.Load()), hungUp+float64(f.cut.Load())
		})
		bearable(t, ratio)
		if streams == 0 {
			t.Error("no stream was opened")
		}
		// A connection has at most 250 requests at work, however many it opens.
		if bound := before + flooders*300 + 200; most > bound {
			t.Errorf("%.0f goroutines under the flood, want %.0f at most", most, bound)
		}
		header := endlessHeader(t, s)
		record(t, "h2c rapid reset, "+s.Name, fmt.Sprintf("%.0f requests made and taken back on %d connections, %.0f of them cut; goroutines %.0f before, %.0f at most; an endless header was cut after %d KiB; p99 of ordinary clients %v without and %v beside them, median of the ratios %.2f",
			streams, flooders, hungUp, before, most, header>>10, calm, beside, ratio))
	})
}

const (
	flooders   = 8    // connections
	floodPace  = 2000 // requests a second, over all of them
	floodBurst = 50   // that a connection makes in one go
)

// flood is strangers who make requests and take them back.
type flood struct {
	streams, cut atomic.Int64
	stop         context.CancelFunc
	going        sync.WaitGroup
}

// newFlood returns when all connections are there.
func newFlood(t *testing.T, s *parleytest.Setup) *flood {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	f := &flood{stop: stop}
	for n := range flooders {
		addr := s.Nodes[n%len(s.Nodes)].Addr
		c, err := dialH2(ctx, addr)
		if err != nil {
			t.Fatal(err)
		}
		f.going.Go(func() {
			for err := error(nil); ctx.Err() == nil; {
				if c == nil {
					if c, err = dialH2(ctx, addr); err != nil {
						continue
					}
				}
				f.run(ctx, c)
				c = nil
				if ctx.Err() == nil {
					f.cut.Add(1)
				}
			}
		})
	}
	return f
}

func (f *flood) end() {
	f.stop()
	f.going.Wait()
}

// run opens and resets streams until the server hangs up or ctx ends.
func (f *flood) run(ctx context.Context, c *h2) {
	defer c.Close()
	stopped := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stopped()
	var reading sync.WaitGroup
	defer reading.Wait()
	reading.Go(func() { _ = c.read(); _ = c.Close() })
	pace := time.NewTicker(time.Second * floodBurst * flooders / floodPace)
	defer pace.Stop()
	for id := uint32(1); ; {
		select {
		case <-pace.C:
		case <-ctx.Done():
			return
		}
		for range floodBurst {
			if c.request(id, true) != nil || c.fr.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
				return
			}
			id += 2
			f.streams.Add(1)
		}
		if c.flush() != nil {
			return
		}
	}
}

// h2 is a connection that speaks HTTP/2 frame by frame.
type h2 struct {
	net.Conn
	out bytes.Buffer
	fr  *http2.Framer // writes into out, reads from the connection
}

func dialH2(ctx context.Context, addr string) (*h2, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &h2{Conn: conn}
	c.fr = http2.NewFramer(&c.out, conn)
	c.out.WriteString(http2.ClientPreface)
	if err := errors.Join(c.fr.WriteSettings(), c.flush()); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// request writes the header of a request on a stream, whole or its beginning.
func (c *h2) request(stream uint32, whole bool) error {
	return c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: requestHeader, EndStream: true, EndHeaders: whole})
}

var requestHeader = func() []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, f := range [][2]string{
		{":method", "GET"}, {":scheme", "http"}, {":authority", "parley"}, {":path", "/v1/chat/conversations"},
		{"authorization", "Bearer bp_pat_nobody"}, {"x-bot-id", "bot_nobody"},
	} {
		if err := e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}()

func (c *h2) flush() error {
	_, err := c.Write(c.out.Bytes())
	c.out.Reset()
	return err
}

// read drops what the server says until it hangs up or says goodbye.
func (c *h2) read() error {
	for {
		f, err := c.fr.ReadFrame()
		if err != nil {
			return err
		}
		if _, ok := f.(*http2.GoAwayFrame); ok {
			return nil
		}
	}
}

// endlessHeader sends a header that has no end, and returns how much of it was
// taken before the server hung up.
func endlessHeader(t *testing.T, s *parleytest.Setup) (taken int) {
	t.Helper()
	c, err := dialH2(t.Context(), s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = c.read() // how it says goodbye does not matter
	}()
	// A literal field that is not indexed, x: 1000 times a.
	field := append([]byte{0x00, 0x01, 'x', 0x7f, 0xe9, 0x06}, bytes.Repeat([]byte("a"), 1000)...)
	late := time.After(time.Minute)
	for err = c.request(1, false); err == nil; err = c.flush() {
		select {
		case <-over:
			return taken
		case <-late:
			t.Fatalf("the server still takes the header after %d bytes", taken)
		default:
		}
		if err = c.fr.WriteContinuation(1, false, field); err != nil {
			t.Fatal(err)
		}
		if taken += len(field); taken > 16<<20 {
			t.Fatalf("the server takes a header of %d bytes", taken)
		}
	}
	return taken
}
