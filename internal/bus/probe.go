package bus

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// NATSServer is a NATS server that was reached.
type NATSServer struct {
	Version   string
	RoundTrip time.Duration
	Others    int // further servers of its cluster that it told of
}

// ProbeNATS connects to a NATS server as NewNATS would, once, and sends itself
// a message, so that permissions are tried too.
func ProbeNATS(ctx context.Context, url string) (s NATSServer, err error) {
	wait := 5 * time.Second
	if end, ok := ctx.Deadline(); ok {
		wait = min(wait, max(time.Until(end), time.Millisecond))
	}
	conn, err := nats.Connect(url, nats.Name("parley doctor"), nats.Timeout(wait), nats.NoReconnect(),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // the errors that matter are returned
	if err != nil {
		return s, err
	}
	defer conn.Close()
	subject := "parley." + token("doctor") + "." + token(nats.NewInbox())
	sub, err := conn.SubscribeSync(subject)
	if err != nil {
		return s, err
	}
	if err := conn.Publish(subject, nil); err != nil {
		return s, err
	}
	if _, err := sub.NextMsg(wait); err != nil {
		if last := conn.LastError(); last != nil {
			err = last // a refusal comes beside
		}
		return s, fmt.Errorf("a message to itself does not arrive: %w", err)
	}
	s = NATSServer{Version: conn.ConnectedServerVersion(), Others: len(conn.DiscoveredServers())}
	s.RoundTrip, err = conn.RTT()
	return s, err
}
