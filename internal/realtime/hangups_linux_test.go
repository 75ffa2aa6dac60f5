package realtime

import (
	"net"
	"testing"
)

func TestAClientThatLeavesIsFreedAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t) // no ping comes
	ways := map[string]func(c *net.TCPConn) error{
		"closed":      (*net.TCPConn).Close,
		"half closed": (*net.TCPConn).CloseWrite,
		"reset": func(c *net.TCPConn) error {
			_ = c.SetLinger(0) // Close tells
			return c.Close()
		},
	}
	r.publish(3)
	for range 20 { // some while they are still let in
		for way, leave := range ways {
			if err := leave(r.open(t, "group=g", 0).conn.(*net.TCPConn)); err != nil {
				t.Fatalf("%s: %v", way, err)
			}
		}
	}
	r.deserted(t)
	if n := r.metric(t, "parley_realtime_listeners", ""); n != 0 {
		t.Errorf("the gauge shows %v listeners", n)
	}
	r.eventually(t, "nothing is kept of them", func() bool {
		r.hub.hangups.mu.Lock()
		defer r.hub.hangups.mu.Unlock()
		return len(r.hub.hangups.by) == 0
	})
}

// Who only sends something has not left.
func TestAClientThatSpeaksIsNotTakenForOneThatLeaves(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s := r.open(t, "group=g", 0)
	for range 3 {
		if _, err := s.conn.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		r.publish(1)
	}
	s.wants(1, 3)
	r.open(t, "group=g", 3).conn.Close()
	r.eventually(t, "the other is gone", func() bool { return r.metric(t, "parley_realtime_listeners", "") == 1 })
	r.publish(1)
	s.wants(4, 4)
}
