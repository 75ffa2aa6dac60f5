package realtime

import (
	"context"
	"os"
	"sync"
	"syscall"
)

// hangups hears from the kernel when the client of a connection that nobody reads
// has left. Otherwise such a listener would stay until its next ping, and clients
// that come and go, or all come back at once, would be counted several times.
type hangups struct {
	fd   int      // of an epoll instance
	file *os.File // the same, for Go's own poller to wait for

	first chan struct{} // closed when there is one to watch

	mu     sync.Mutex
	closed bool
	last   uint64
	by     map[uint64]*listener // what the kernel tells is a number, which is never another's
}

func newHangups() (*hangups, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // makes NewFile use the poller
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &hangups{fd: fd, file: os.NewFile(uintptr(fd), "epoll"), first: make(chan struct{}), by: map[uint64]*listener{}}, nil
}

// watch has l leave when its client does, also if that was before. A listener that
// cannot be watched is found by its pings.
func (g *hangups) watch(l *listener, d *descriptor) {
	if d == nil {
		return
	}
	g.add(l, d)
	if l.hasLeft() { // before it could be forgotten
		g.forget(l)
	}
}

func (g *hangups) add(l *listener, d *descriptor) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	if g.last++; g.last == 1 {
		close(g.first)
	}
	l.watched = g.last
	g.by[l.watched] = l
	event := syscall.EpollEvent{Events: syscall.EPOLLRDHUP | syscall.EPOLLONESHOT, Fd: int32(l.watched), Pad: int32(l.watched >> 32)}
	// It fails for a connection that is closed already, which has been left, and
	// where the kernel has no room: then pings have to do.
	_ = d.conn.Control(func(fd uintptr) { _ = syscall.EpollCtl(g.fd, syscall.EPOLL_CTL_ADD, int(fd), &event) })
}

// forget is called for every listener that leaves; the kernel forgets a connection
// that is closed by itself.
func (g *hangups) forget(l *listener) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.by, l.watched)
}

// run cuts the listeners whose clients leave, until ctx ends.
func (g *hangups) run(ctx context.Context) {
	select {
	case <-g.first:
	case <-ctx.Done():
		return
	}
	stop := context.AfterFunc(ctx, g.close)
	defer stop()
	conn, err := g.file.SyscallConn()
	if err != nil {
		return // it is closed
	}
	events := make([]syscall.EpollEvent, 128)
	_ = conn.Read(func(fd uintptr) bool {
		for {
			n, err := syscall.EpollWait(int(fd), events, 0)
			if n == 0 || err != nil && err != syscall.EINTR {
				return false // there is nothing now
			}
			for _, e := range events[:max(n, 0)] {
				if l := g.of(uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32); l != nil {
					l.cut(left)
				}
			}
		}
	}) // ends when the file is closed
}

func (g *hangups) of(number uint64) *listener {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.by[number]
}

// close waits for run, which needs the lock.
func (g *hangups) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	_ = g.file.Close() // the second time it is closed already
}
