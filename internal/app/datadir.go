package app

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"parley/internal/durable"
	"parley/internal/id"
)

// dataDir is the data directory of a running server, locked against others.
type dataDir struct {
	path string
	lock *os.File
	last Server // who used it before
	node string // is written into the lock file, once
}

// Server says who uses a data directory and where it answers.
type Server struct {
	PID   int    `json:"pid"`
	URL   string `json:"url"`             // as clients reach it
	Local string `json:"local,omitempty"` // as commands on this machine reach it, where that differs
	Node  string `json:"node,omitempty"`  // of the data directory
}

// LockedError reports that another server uses the data directory.
type LockedError struct {
	Path   string
	Server Server
}

func (e *LockedError) Error() string {
	if e.Server.PID == 0 {
		return fmt.Sprintf("another server uses the data directory %s", e.Path)
	}
	return fmt.Sprintf("another server uses the data directory %s: process %d", e.Path, e.Server.PID)
}

// openData makes or checks the directory and takes its lock.
func openData(path string) (*dataDir, error) {
	if err := durable.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("the data directory %s may be changed by other users of this machine (mode %04o); run chmod 700 %s", path, info.Mode().Perm(), path)
	}
	f, err := os.OpenFile(lockPath(path), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	d := &dataDir{path: path, lock: f}
	if err := d.acquire(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return d, nil
}

// Commands look at the lock by taking it for a moment; a server that starts in
// that moment tries again before it gives up.
const (
	lockTries = 25
	lockPause = 20 * time.Millisecond
)

func (d *dataDir) acquire() error {
	for try := 0; ; try++ {
		err := lockFile(d.lock, true)
		if err == nil {
			// The address stays known: commands that need no server want it.
			d.last, _ = readServer(d.path) // nothing is known of the first
			d.node = cmp.Or(d.last.Node, id.New("node"))
			return d.announce(Server{PID: os.Getpid(), URL: d.last.URL, Local: d.last.Local})
		}
		if !errors.Is(err, errLocked) {
			return fmt.Errorf("lock %s: %w", d.lock.Name(), err)
		}
		if try == lockTries {
			s, _ := readServer(d.path) // without it the message lacks the process, no more
			return &LockedError{d.path, s}
		}
		time.Sleep(lockPause)
	}
}

// sector is what a disk writes whole or not at all.
const sector = 512

// announce writes into the lock file who holds it. Whole sectors are written over,
// so that a loss of power leaves what was announced before, or this.
func (d *dataDir) announce(s Server) error {
	s.Node = d.node
	text, err := json.Marshal(s)
	if err == nil {
		full := append(bytes.Repeat([]byte{' '}, (len(text)/sector+1)*sector-1), '\n')
		copy(full, text)
		_, err = d.lock.WriteAt(full, 0)
		err = errors.Join(err, d.lock.Truncate(int64(len(full))), d.lock.Sync(), durable.SyncDir(d.path))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", d.lock.Name(), err)
	}
	return nil
}

// home is a name that no other data directory has. A copy has the same lock
// file and is elsewhere.
func (d *dataDir) home() string {
	host, _ := os.Hostname()        // without it the path has to do
	path, _ := filepath.Abs(d.path) // the same
	sum := sha256.Sum256([]byte(d.node + "\x00" + host + "\x00" + path))
	return "home_" + hex.EncodeToString(sum[:10])
}

// close gives the lock up. What was announced stays.
func (d *dataDir) close() error { return errors.Join(unlockFile(d.lock), d.lock.Close()) }

func (d *dataDir) file(name string) string { return filepath.Join(d.path, name) }

func lockPath(data string) string { return filepath.Join(data, "lock") }

func readServer(data string) (s Server, err error) {
	text, err := os.ReadFile(lockPath(data))
	if err != nil {
		return Server{}, err
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return Server{}, fmt.Errorf("%s: %w", lockPath(data), err)
	}
	return s, nil
}

// ErrNoServer reports that no server was ever started with a data directory.
var ErrNoServer = errors.New("no server was started with this data directory")

// FindServer reads who uses a data directory, or used it last, and whether that
// server runs.
func FindServer(data string) (s Server, running bool, err error) {
	f, err := os.Open(lockPath(data))
	if errors.Is(err, fs.ErrNotExist) {
		return Server{}, false, fmt.Errorf("%w: %s; run parley dev --data %s", ErrNoServer, data, data)
	}
	if err != nil {
		return Server{}, false, err
	}
	defer f.Close()
	switch err := lockFile(f, false); {
	case errors.Is(err, errLocked):
		running = true
	case err != nil:
		return Server{}, false, fmt.Errorf("lock %s: %w", f.Name(), err)
	default:
		if err := unlockFile(f); err != nil {
			return Server{}, false, fmt.Errorf("unlock %s: %w", f.Name(), err)
		}
	}
	s, err = readServer(data)
	return s, running, err
}

// Credentials are what parley dev made on its first start, so that the next one
// prints the same. serve has none.
type Credentials struct {
	Token       string `json:"token"`
	WorkspaceID string `json:"workspaceId"`
	BotID       string `json:"botId"`
}

func credentialsPath(data string) string { return filepath.Join(data, "credentials.json") }

// ReadCredentials reads the credentials of a development server; fs.ErrNotExist
// where there are none.
func ReadCredentials(data string) (Credentials, error) {
	var c Credentials
	text, err := os.ReadFile(credentialsPath(data))
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return c, fmt.Errorf("%s: %w", credentialsPath(data), err)
	}
	return c, nil
}

func writeCredentials(data string, c Credentials) error {
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return durable.Replace(credentialsPath(data), append(text, '\n'))
}
