package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"parley/internal/app"
	"parley/internal/auth"
	"parley/internal/sqldb"
)

// data looks at the data directory and the disk it is on.
func (e *exam) data() {
	const check = "data directory"
	dir, err := filepath.Abs(e.Config.Data)
	if err != nil || e.Config.Data == "" {
		return // the configuration is refused for it
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.parent(dir)
		return
	case err != nil:
		e.fail(check, "run as the user that the server runs as", "%v", err)
		return
	case !info.IsDir():
		e.fail(check, "name a directory with --data", "%s is no directory", dir)
		return
	}
	e.server, e.running, err = app.FindServer(dir)
	if err != nil && !errors.Is(err, app.ErrNoServer) {
		e.warn(check, "run as the user that the server runs as", "whether a server uses it is not known: %v", err)
	}
	e.modes(dir, info)
	e.disk(dir)
}

// parent is for a directory that the server would make.
func (e *exam) parent(dir string) {
	const check = "data directory"
	up := filepath.Dir(dir)
	for {
		info, err := os.Stat(up)
		if err == nil && !info.IsDir() {
			e.fail(check, "name another directory with --data", "%s cannot be made: %s is no directory", dir, up)
			return
		}
		if err == nil || !errors.Is(err, fs.ErrNotExist) || filepath.Dir(up) == up {
			break
		}
		up = filepath.Dir(up)
	}
	if !writable(up) {
		e.fail(check, fmt.Sprintf("make it for the user that the server runs as: install -d -m 700 -o USER %s", dir), "%s does not exist, and this user cannot make it in %s", dir, up)
		return
	}
	e.ok(check, "%s does not exist yet; the server makes it", dir)
	e.disk(up)
}

// modes says who may do what with the directory.
func (e *exam) modes(dir string, info fs.FileInfo) {
	const check = "data directory"
	mode := info.Mode().Perm()
	uid, known := owner(info)
	switch {
	case runtime.GOOS != "windows" && mode&0o022 != 0:
		e.fail(check, "run chmod 700 "+dir, "%s may be changed by other users of this machine (mode %04o); serve refuses it", dir, mode)
	case known && uid != os.Geteuid():
		e.warn(check, "run parley as its owner, or give it away with chown", "%s belongs to user %d, and this is user %d", dir, uid, os.Geteuid())
	case !writable(dir):
		e.fail(check, "let its owner write: chmod 700 "+dir, "%s cannot be written by its owner (mode %04o)", dir, mode)
	case e.running:
		e.ok(check, "%s, mode %04o, is used by process %d", dir, mode, e.server.PID)
	default:
		e.ok(check, "%s, mode %04o, is used by no server", dir, mode)
	}
	for _, name := range []string{"parley.db", "parley.db-wal", "credentials.json", "lock"} {
		path := filepath.Join(dir, name)
		f, err := os.Stat(path)
		if err == nil && runtime.GOOS != "windows" && f.Mode().Perm()&0o077 != 0 && mode&0o077 != 0 {
			e.warn(check, "run chmod 600 "+path, "%s may be read by other users of this machine (mode %04o)", path, f.Mode().Perm())
		}
	}
}

// Space below which the disk is as good as full, and below which it soon is.
const (
	noSpace     = 100 << 20
	littleSpace = 2 << 30
	noInodes    = 1000
	fewInodes   = 20000
)

// disk looks at the file system of the data directory.
func (e *exam) disk(dir string) {
	const check = "disk"
	d, err := diskOf(dir)
	if errors.Is(err, errors.ErrUnsupported) {
		e.info(check, "is looked at on Linux only")
		return
	}
	if err != nil {
		e.fail(check, "", "%s: %v", dir, err)
		return
	}
	var data int64 // a migration copies the database first
	if f, err := os.Stat(e.Config.DatabasePath()); err == nil && e.Config.DatabaseURL == "" {
		data = f.Size()
	}
	const room = "make room, or move the data to a larger disk"
	switch {
	case d.free < noSpace:
		e.fail(check, room, "%s are free at %s: writes will fail", size(d.free), dir)
	case d.limited && d.inodes < noInodes:
		e.fail(check, "delete small files, or move the data to another file system", "%d files more may be made at %s", d.inodes, dir)
	case d.free < 2*data+noSpace:
		e.warn(check, room, "%s are free at %s; a migration first copies the database, which has %s", size(d.free), dir, size(data))
	case d.free < littleSpace:
		e.warn(check, room, "%s are free at %s", size(d.free), dir)
	case d.limited && d.inodes < fewInodes:
		e.warn(check, "delete small files, or move the data to another file system", "%d files more may be made at %s", d.inodes, dir)
	default:
		e.ok(check, "%s are free at %s (%s)", size(d.free), dir, d.kind)
	}
	e.fileSystem(dir, d)
}

// fileSystem says where SQLite and its locks are not safe.
func (e *exam) fileSystem(dir string, d disk) {
	const check = "file system"
	lite := e.Config.DatabaseURL == ""
	switch {
	case d.network && lite:
		e.fail(check, "put the data on a local disk, or in PostgreSQL with --database-url", "%s is on %s: SQLite's locks and its log are not safe over a network", dir, d.kind)
	case d.network:
		e.warn(check, "give each server a local data directory", "%s is on %s, where the lock that keeps a second server out may not work", dir, d.kind)
	case d.memory && lite:
		e.warn(check, "put the data on a disk", "%s is on %s: a restart of the machine takes all data with it", dir, d.kind)
	case d.kind == "overlayfs" && lite:
		e.warn(check, "mount a volume there", "%s is in the layer of a container: the data goes with the container", dir)
	case d.kind == "FUSE" && lite:
		e.warn(check, "see that it is on this machine and keeps what is synced", "%s is on a FUSE file system, which may lie on a network", dir)
	}
}

// sealed is a bot's configuration as it stands in the database.
type sealed struct {
	ID            string
	Configuration []byte
}

func (s *sealed) Columns() []sqldb.Column {
	return []sqldb.Column{{Name: "id", Field: &s.ID}, {Name: "configuration", Field: &s.Configuration}}
}

// masterKey looks whether the key is there, is kept, and is the right one.
func (e *exam) masterKey(ctx context.Context) {
	const check = "master key"
	const back = "put the right file back; it is in every backup"
	path := e.Config.MasterKeyPath()
	var bots []*sealed
	var err error
	if e.tables {
		if bots, err = sqldb.Select[sealed](e.db.Reader(ctx), "bots", "ORDER BY updated_at DESC, id LIMIT 100"); err != nil {
			e.fail(check, "", "what is sealed cannot be read: %v", err)
			return
		}
	}
	box, err := auth.LoadMasterKey(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(bots) > 0:
		e.fail(check, back, "%s does not exist, and the database holds what is sealed with it", path)
		return
	case errors.Is(err, fs.ErrNotExist) && e.Config.MasterKeyFile != "":
		e.fail(check, fmt.Sprintf("make one with: (umask 077; head -c 32 /dev/urandom | base64 > %s)", path), "%s does not exist", path)
		return
	case errors.Is(err, fs.ErrNotExist):
		e.ok(check, "%s does not exist yet; the server makes it", path)
		return
	case err != nil:
		e.fail(check, "", "%v", err) // says the way out
		return
	}
	for _, b := range bots {
		if _, err := box.Open(b.Configuration, b.ID+"/configuration"); err != nil {
			e.fail(check, back, "%s does not open what is sealed for bot %s", path, b.ID)
			return
		}
	}
	switch {
	case e.db == nil:
		e.ok(check, "%s is a key that only its owner may read; what it opens is not known without the database", path)
	case len(bots) == 0:
		e.ok(check, "%s is a key that only its owner may read; nothing is sealed yet", path)
	default:
		e.ok(check, "%s opens what is sealed for the %d newest bots", path, len(bots))
	}
}
