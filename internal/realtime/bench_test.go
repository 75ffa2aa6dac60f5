package realtime

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// bare is the floor: a hub that takes connections over and writes to one after
// the other. It has no positions, no order, no bounds and no slow clients.
type bare struct {
	mu    sync.Mutex
	conns []net.Conn
}

func (b *bare) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conns = append(b.conns, conn)
}

func (b *bare) publish(frame []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		c.Write(frame)
	}
}

// audience is n clients that read and count bytes.
type audience struct {
	got   atomic.Int64
	want  atomic.Int64
	ready chan struct{}
	wg    sync.WaitGroup
	conns []net.Conn
}

func audienceOf(b *testing.B, addr string, n int) *audience {
	a := &audience{ready: make(chan struct{}, 1)}
	for range n {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		fmt.Fprintf(conn, "GET /?after=0 HTTP/1.1\r\nHost: x\r\n\r\n")
		r := bufio.NewReader(conn)
		for line := ""; line != "\r\n"; {
			if line, err = r.ReadString('\n'); err != nil {
				b.Fatal(err)
			}
		}
		a.conns = append(a.conns, conn)
		a.wg.Go(func() { a.read(conn) })
	}
	b.Cleanup(func() {
		for _, c := range a.conns {
			c.Close()
		}
		a.wg.Wait()
	})
	return a
}

func (a *audience) read(conn net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		if a.got.Add(int64(n)) == a.want.Load() {
			a.ready <- struct{}{}
		}
	}
}

// round runs publish and waits until everybody has everything.
func (a *audience) round(bytes int, publish func()) time.Duration {
	a.want.Add(int64(bytes) * int64(len(a.conns)))
	start := time.Now()
	publish()
	<-a.ready
	return time.Since(start)
}

// BenchmarkFanout compares the hub with the bare one in the same run, round by
// round: one signal at a time, and a burst of fifty.
func BenchmarkFanout(b *testing.B) {
	data := `{"type":"message_created","data":{"id":"msg_01JD3ZK8B9Q2W5T7Y4X6V8N1M0","payload":{"type":"text","text":"` + strings.Repeat("hello ", 30) + `"}}}`
	for _, listeners := range []int{1, 100, 1000} {
		for _, burst := range []int{1, 50} {
			b.Run(fmt.Sprintf("listeners=%d/burst=%d", listeners, burst), func(b *testing.B) {
				floor := &bare{}
				srv := &http.Server{Handler: floor}
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					b.Fatal(err)
				}
				go srv.Serve(ln)
				b.Cleanup(func() { srv.Close() })
				r := newRig(b)
				pos := int64(1 << 32) // so that all frames have one length
				r.heads["t"] = pos
				low, high := audienceOf(b, ln.Addr().String(), listeners), audienceOf(b, r.addr, listeners)
				size := len(appendEvent(nil, Signal{pos, []byte(data)}))
				runtime.GC()
				var lows, highs []time.Duration
				for b.Loop() {
					lows = append(lows, low.round(burst*size, func() {
						for range burst {
							floor.publish(appendEvent(nil, Signal{pos, []byte(data)}))
						}
					}))
					highs = append(highs, high.round(burst*size, func() {
						for range burst {
							pos++
							r.notify(pos, data)
						}
					}))
				}
				rate := func(ds []time.Duration) float64 {
					slices.Sort(ds)
					return float64(listeners*burst) / ds[len(ds)/2].Seconds()
				}
				b.ReportMetric(rate(lows), "bare/s")
				b.ReportMetric(rate(highs), "hub/s")
				b.ReportMetric(rate(highs)/rate(lows), "ratio")
			})
		}
	}
}

// BenchmarkNotify is what a publisher pays with many listeners.
func BenchmarkNotify(b *testing.B) {
	for _, listeners := range []int{0, 1, 1000} {
		b.Run(fmt.Sprintf("listeners=%d", listeners), func(b *testing.B) {
			r := newRig(b)
			audienceOf(b, r.addr, listeners)
			data := []byte(body(1))
			pos := int64(0)
			for b.Loop() {
				pos++
				r.hub.Notify("t", pos, func() []byte { return data })
			}
		})
	}
}

// BenchmarkIdle shows what an open stream costs: heap and stacks of the server
// (and of the idle client in this process), and goroutines.
func BenchmarkIdle(b *testing.B) {
	const n = 2000
	for b.Loop() {
		r := newRig(b)
		r.listen = topicFromRequest
		before, goroutines := memory(), runtime.NumGoroutine()
		conns := make([]net.Conn, n)
		for i := range conns {
			conn, err := net.Dial("tcp", r.addr)
			if err != nil {
				b.Fatal(err)
			}
			fmt.Fprintf(conn, "GET /?topic=t%d&group=c%d&group=u%d&group=inst HTTP/1.1\r\nHost: x\r\n\r\n", i, i, i)
			conns[i] = conn
		}
		for range n {
			<-r.errs
		}
		b.ReportMetric((memory()-before)/n, "B/listener")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/n, "goroutines/listener")
		for _, c := range conns {
			c.Close()
		}
		r.stop()
	}
}

func memory() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse)
}
