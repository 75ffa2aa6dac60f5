package bus

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// NATSConfig says how nodes reach each other.
type NATSConfig struct {
	URL string // nats://user:password@host:port, several with commas between; tls:// encrypts
	// Name is of this node, for the operator of the NATS servers.
	Name string
	// Prefix keeps the topics of one installation apart from others that share the servers.
	Prefix string
	Log    *slog.Logger // nil = slog.Default()
}

// Bounds of what is on its way. What is beyond them is dropped, as a bus may.
const (
	natsOut       = 16 << 10 // messages of this node that wait for the connection
	natsIn        = 16 << 10 // messages of others that wait for their listeners
	natsReconnect = 500 * time.Millisecond
	natsGoodbye   = time.Second
)

// NATS is the Bus of several nodes, over core NATS: what it carries is kept
// nowhere, since the log is in the database. Listeners of this node are called
// as those of a local bus are, on the goroutine of the publisher; those of other
// nodes hear of it through the servers.
//
// A start does not wait for the servers, and their absence makes things late.
type NATS struct {
	local  Bus
	conn   *nats.Conn
	prefix string
	in     chan *nats.Msg
	out    chan func()
	done   chan struct{}
	work   sync.WaitGroup
	stop   sync.Once

	mu     sync.Mutex
	topics map[string]*natsTopic
	closed bool

	dropped, sent, received atomic.Int64
}

// natsTopic is a topic with listeners on this node.
type natsTopic struct {
	listeners int
	sub       *nats.Subscription // touched by the sender alone
}

// NewNATS makes a bus that connects in the background.
func NewNATS(c NATSConfig) (*NATS, error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	b := &NATS{
		local: NewLocal(), prefix: "parley." + token(c.Prefix) + ".",
		in: make(chan *nats.Msg, natsIn), out: make(chan func(), natsOut), done: make(chan struct{}), topics: map[string]*natsTopic{},
	}
	var err error
	b.conn, err = nats.Connect(c.URL,
		nats.Name("parley "+c.Name), nats.NoEcho(), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(natsReconnect),
		nats.ReconnectBufSize(-1), // what could not be sent is old news after a reconnect
		nats.PingInterval(10*time.Second), nats.MaxPingsOutstanding(2), nats.DrainTimeout(natsGoodbye),
		nats.ConnectHandler(func(*nats.Conn) { c.Log.Info("the NATS server is reached") }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				c.Log.Warn("the connection to the NATS server is lost; what happens on other nodes is noticed late until it is back", "err", err)
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { c.Log.Info("the NATS server is reached again") }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrSlowConsumer) {
				b.dropped.Add(1)
				return
			}
			c.Log.Warn("the NATS server reports an error", "err", err)
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("NATS: %w", err)
	}
	if !b.conn.IsConnected() {
		c.Log.Warn("no NATS server is reached yet; what happens on other nodes is noticed late until one is")
	}
	b.work.Go(b.send)
	b.work.Go(b.receive)
	return b, nil
}

// send does what goes out, in order: a connection that is slow holds up nobody else.
func (b *NATS) send() {
	for {
		select {
		case do := <-b.out:
			do()
		case <-b.done:
			return
		}
	}
}

// receive hands out what other nodes have said.
func (b *NATS) receive() {
	for {
		select {
		case m := <-b.in:
			b.received.Add(1)
			if topic, ok := strings.CutPrefix(m.Subject, b.prefix); ok {
				b.local.Publish(untoken(topic), m.Data)
			}
		case <-b.done:
			return
		}
	}
}

// Publish implements Bus.
func (b *NATS) Publish(topic string, data []byte) {
	b.local.Publish(topic, data)
	subject := b.prefix + token(topic)
	select {
	case b.out <- func() {
		if err := b.conn.Publish(subject, data); err != nil {
			b.dropped.Add(1)
			return
		}
		b.sent.Add(1)
	}:
	default:
		b.dropped.Add(1)
	}
}

// Subscribe implements Bus.
func (b *NATS) Subscribe(topic string, fn func(data []byte)) (cancel func()) {
	leave := b.local.Subscribe(topic, fn)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return leave
	}
	t := b.topics[topic]
	if t == nil {
		t = &natsTopic{}
		b.topics[topic] = t
		b.inOrder(func() { t.sub, _ = b.conn.ChanSubscribe(b.prefix+token(topic), b.in) }) // fails only if the connection is closed
	}
	t.listeners++
	var once sync.Once
	return func() {
		leave()
		once.Do(func() { b.leave(topic, t) })
	}
}

func (b *NATS) leave(topic string, t *natsTopic) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if t.listeners--; t.listeners > 0 || b.closed {
		return
	}
	delete(b.topics, topic)
	b.inOrder(func() {
		if t.sub != nil {
			_ = t.sub.Unsubscribe() // fails only if the connection is closed
		}
	})
}

// inOrder hands the sender what must not be dropped.
func (b *NATS) inOrder(do func()) {
	select {
	case b.out <- do:
	case <-b.done:
	}
}

// Listening implements Bus. Who listens elsewhere is not known.
func (b *NATS) Listening(topic string) bool { return true }

// Connected reports whether a server is reached.
func (b *NATS) Connected() bool { return b.conn.IsConnected() }

// NATSStats are counted since the start.
type NATSStats struct {
	Sent, Received int64
	Dropped        int64 // for want of a connection or of room
}

// Stats returns the counts.
func (b *NATS) Stats() NATSStats {
	return NATSStats{b.sent.Load(), b.received.Load(), b.dropped.Load()}
}

// Close implements Bus.
func (b *NATS) Close() error {
	b.stop.Do(func() {
		b.mu.Lock()
		b.closed = true
		b.mu.Unlock()
		_ = b.local.Close() // never fails
		close(b.done)
		b.conn.Close() // what the sender waits for ends by it
		b.work.Wait()
	})
	return nil
}

// token writes a text as one token of a subject: dots, stars and spaces mean
// something there.
func token(text string) string {
	if text == "" {
		return "="
	}
	const hex = "0123456789ABCDEF"
	plain := func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == ':'
	}
	var out strings.Builder
	for i := range len(text) {
		if c := text[i]; plain(c) {
			out.WriteByte(c)
		} else {
			out.Write([]byte{'=', hex[c>>4], hex[c&15]})
		}
	}
	return out.String()
}

// untoken reads what token wrote.
func untoken(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '=' && i+2 < len(text) {
			out.WriteByte(unhex(text[i+1])<<4 | unhex(text[i+2]))
			i += 2
		} else if text[i] != '=' {
			out.WriteByte(text[i])
		}
	}
	return out.String()
}

func unhex(c byte) byte {
	if c >= 'A' {
		return c - 'A' + 10
	}
	return c - '0'
}
