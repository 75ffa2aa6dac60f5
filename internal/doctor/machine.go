package doctor

import (
	"errors"
	"strings"
)

// disk is a file system.
type disk struct {
	kind    string
	free    int64 // bytes
	inodes  int64 // that are free
	limited bool  // it has a fixed number of inodes
	network bool
	memory  bool
}

// Files that a server has open besides listeners and requests: the database,
// calls out, the sockets it listens on.
const ownFiles = 1024

// manyFiles is a limit that nobody reaches by accident.
const manyFiles = 65536

// descriptors says for how many listeners there are descriptors.
func (e *exam) descriptors() {
	const check = "descriptors"
	const raise = "raise it: LimitNOFILE=1048576 in the systemd unit, ulimit -n in a shell, --ulimit nofile=1048576 for a container"
	limit, err := fileLimit(e.pid())
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return // there is no such limit on this system
	case err != nil:
		e.info(check, "their limit cannot be read: %v", err)
		return
	}
	of := "a server started like this may"
	if e.running {
		of = "the server that runs may"
	}
	listeners := max(0, limit-ownFiles)
	switch {
	case limit < 2*ownFiles:
		e.fail(check, raise, "%s open %d files, which leaves %d for listeners and requests", of, limit, listeners)
	case limit < manyFiles:
		e.warn(check, raise, "%s open %d files: about %d listeners, each of which is one", of, limit, listeners)
	default:
		e.ok(check, "%s open %d files: about %d listeners, each of which is one", of, limit, listeners)
	}
}

// pid is the process of the server, 0 where none runs.
func (e *exam) pid() int {
	if e.running {
		return e.server.PID
	}
	return 0
}

// isolation says what could keep the code of others apart on this machine.
func (e *exam) isolation() {
	e.info("isolation", "%s", strings.Join(isolation(), "; "))
}
