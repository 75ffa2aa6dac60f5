package bus_test

import (
	"net"
	"testing"

	"parley/internal/bus"
	"parley/internal/bus/natstest"
)

func TestProbe(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	if s, err := bus.ProbeNATS(t.Context(), server.URL); err != nil || s.Version == "" || s.RoundTrip <= 0 {
		t.Errorf("a server: %+v, %v", s, err)
	}
	server.Stop()
	if _, err := bus.ProbeNATS(t.Context(), server.URL); err == nil {
		t.Error("a stopped server is reached")
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := silent.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := bus.ProbeNATS(t.Context(), "nats://someone:secret@"+silent.Addr().String()); err == nil {
		t.Error("a closed port is reached")
	}
}
