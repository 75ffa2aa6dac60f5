package sqldb

import (
	"context"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A connection that the network has forgotten says nothing for ever. Nobody is
// told, so the kernel asks, and gives up where for silence not even that comes
// back. A server that is at a long statement is not silent: its kernel answers.
const (
	silence        = 5 * time.Second
	connectTimeout = 5 * time.Second // unless the URL has a connect_timeout
	pingTimeout    = 2 * time.Second // for a connection that was idle
	idleBefore     = time.Second     // that it is asked before its next use
)

// notice has a pool find out that a connection is lost.
func notice(c *pgxpool.Config) {
	if c.ConnConfig.ConnectTimeout == 0 {
		c.ConnConfig.ConnectTimeout = connectTimeout
	}
	d := &net.Dialer{
		Timeout:         c.ConnConfig.ConnectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: silence - 2*time.Second, Interval: time.Second, Count: 2},
		Control: func(network, _ string, conn syscall.RawConn) error {
			if strings.HasPrefix(network, "tcp") {
				dropUnanswered(conn, silence)
			}
			return nil
		},
	}
	c.ConnConfig.DialFunc = d.DialContext
	c.PingTimeout = pingTimeout
	// Called whenever a connection is taken. The deadline is one of the socket:
	// watching a context costs a goroutine for each statement. It is for what answers
	// the kernel and nobody else, such as a proxy that hangs.
	c.ShouldPing = func(_ context.Context, p pgxpool.ShouldPingParams) bool {
		_ = p.Conn.PgConn().Conn().SetDeadline(time.Now().Add(txTimeout)) // a socket that cannot fails at once anyway
		return p.IdleDuration > idleBefore
	}
	c.BeforeClose = func(conn *pgx.Conn) {
		_ = conn.PgConn().Conn().SetDeadline(time.Now().Add(pingTimeout)) // to say goodbye
	}
}
