// Package litetest takes the power away from SQLite: it notes what a process
// writes to a directory and when it syncs, and builds the files as a disk may
// hold them after a loss of power at any moment. For tests only.
package litetest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"modernc.org/libc"
	"modernc.org/libc/sys/types"
	sqlite3 "modernc.org/sqlite/lib"
)

// sector is what a disk writes whole or not at all.
const sector = 512

// Recorder notes what happens to the files of one directory.
type Recorder struct {
	// Lies makes the disk one that says it has synced and has not, which a
	// test of the test needs.
	Lies bool
	// NoIndex makes the disk one that has no room left for the index of the log.
	NoIndex atomic.Bool

	dir   string
	mu    sync.Mutex
	steps []step
}

// step is one thing that happened, in the order it was begun; a sync counts
// from when it returned.
type step struct {
	file  string
	data  []byte // of a write
	off   int64  // of a write, or the size of a truncation
	kind  kind
	upTo  int  // of a sync: steps before it are on the disk
	dir   bool // of a sync: the directory was synced with it
	label string
}

type kind uint8

const (
	write kind = iota
	truncate
	remove // of a file; it may come back until the directory is synced
	synced
	mark
)

// Record starts to note what connections opened from now on write to dir.
func Record(dir string) (*Recorder, error) {
	if err := install(); err != nil {
		return nil, err
	}
	r := &Recorder{dir: dir + string(filepath.Separator)}
	recorders.Lock()
	defer recorders.Unlock()
	recorders.all = append(recorders.all, r)
	return r, nil
}

// Mark notes that something was acknowledged.
func (r *Recorder) Mark(label string) { r.add(step{kind: mark, label: label}) }

// Len is the number of steps so far: the moments at which power may go.
func (r *Recorder) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.steps)
}

func (r *Recorder) add(s step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.steps = append(r.steps, s)
}

// Lose builds in dir what the disk may hold when the power goes before the
// given step, and returns the marks made before it. What was synced is there;
// of what was written since, each sector is there or not, as rnd says.
func (r *Recorder) Lose(before int, rnd *rand.Rand, dir string) (marks []string, err error) {
	r.mu.Lock()
	steps := r.steps[:before]
	r.mu.Unlock()
	gone := 0                // removals up to here are on the disk
	kept := map[string]int{} // steps of a file up to here are on the disk
	for _, s := range steps {
		if s.kind == synced && !r.Lies {
			kept[s.file] = max(kept[s.file], s.upTo)
			if s.dir {
				gone = s.upTo
			}
		}
	}
	files := map[string][]byte{}
	for i, s := range steps {
		safe := i < kept[s.file]
		switch s.kind {
		case mark:
			marks = append(marks, s.label)
		case write:
			files[s.file] = apply(files[s.file], s, safe, rnd)
		case remove:
			if i < gone || rnd.IntN(2) == 0 {
				delete(files, s.file)
			}
		case truncate:
			if safe || rnd.IntN(2) == 0 {
				files[s.file] = resize(files[s.file], s.off)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := os.WriteFile(filepath.Join(dir, name), files[name], 0o600); err != nil {
			return nil, err
		}
	}
	return marks, nil
}

func resize(b []byte, n int64) []byte {
	if int64(len(b)) >= n {
		return b[:n:n]
	}
	return append(b, make([]byte, n-int64(len(b)))...)
}

func apply(b []byte, s step, safe bool, rnd *rand.Rand) []byte {
	for at := 0; at < len(s.data); {
		n := min(sector-int(s.off+int64(at))%sector, len(s.data)-at)
		if safe || rnd.IntN(2) == 0 {
			from := s.off + int64(at)
			if end := from + int64(n); int64(len(b)) < end {
				b = resize(b, end)
			}
			copy(b[from:], s.data[at:at+n])
		}
		at += n
	}
	return b
}

// ── between SQLite and its files ────────────────────────────────────────────

var recorders struct {
	sync.RWMutex
	all []*Recorder
}

// file is one open file that is recorded.
type file struct {
	r    *Recorder
	name string
	orig sqlite3.Tsqlite3_io_methods
	made atomic.Bool // not synced yet: the first sync of a journal is one of the directory, too
}

var files = struct {
	sync.RWMutex
	of map[uintptr]*file
}{of: map[uintptr]*file{}}

func fileOf(addr uintptr) *file {
	files.RLock()
	defer files.RUnlock()
	return files.of[addr]
}

var original sqlite3.Tsqlite3_vfs

var install = sync.OnceValue(func() error {
	tls := libc.NewTLS()
	defer tls.Close()
	found := sqlite3.Xsqlite3_vfs_find(tls, 0)
	size := types.Size_t(unsafe.Sizeof(original))
	mine := libc.Xmalloc(tls, size)
	name, err := libc.CString("litetest")
	if found == 0 || mine == 0 || err != nil {
		return fmt.Errorf("litetest: SQLite has no file system to stand in front of: %w", err)
	}
	original = *at[sqlite3.Tsqlite3_vfs](found)
	v := at[sqlite3.Tsqlite3_vfs](mine)
	*v = original
	v.FzName, v.FxOpen, v.FxDelete, v.FpNext = name, pointer(open), pointer(unlink), 0
	if rc := sqlite3.Xsqlite3_vfs_register(tls, mine, 1); rc != sqlite3.SQLITE_OK {
		return fmt.Errorf("litetest: register: SQLite %d", rc)
	}
	return nil
})

func at[T any](addr uintptr) *T {
	return (*T)(unsafe.Pointer(unsafe.SliceData(libc.GoBytes(addr, int(unsafe.Sizeof(*new(T)))))))
}

func call[F any](f uintptr) F {
	p := &struct{ f uintptr }{f}
	return *(*F)(unsafe.Pointer(p))
}

func pointer[F any](f F) uintptr {
	p := &struct{ f F }{f}
	return *(*uintptr)(unsafe.Pointer(p))
}

type (
	deleteFunc  = func(tls *libc.TLS, vfs, name uintptr, syncDir int32) int32
	openFunc    = func(tls *libc.TLS, vfs, name, file uintptr, flags int32, out uintptr) int32
	fileFunc    = func(tls *libc.TLS, file uintptr) int32
	writeFunc   = func(tls *libc.TLS, file, buf uintptr, n int32, off int64) int32
	syncFunc    = func(tls *libc.TLS, file uintptr, flags int32) int32
	setSizeFunc = func(tls *libc.TLS, file uintptr, size int64) int32
	shmMapFunc  = func(tls *libc.TLS, file uintptr, region, size, extend int32, out uintptr) int32
)

func open(tls *libc.TLS, vfs, name, addr uintptr, flags int32, out uintptr) int32 {
	rc := call[openFunc](original.FxOpen)(tls, vfs, name, addr, flags, out)
	if rc != sqlite3.SQLITE_OK || name == 0 {
		return rc
	}
	path := libc.GoString(name)
	recorders.RLock()
	defer recorders.RUnlock()
	for _, r := range recorders.all {
		if !strings.HasPrefix(path, r.dir) {
			continue
		}
		f := &file{r: r, name: strings.TrimPrefix(path, r.dir), orig: *at[sqlite3.Tsqlite3_io_methods](at[sqlite3.Tsqlite3_file](addr).FpMethods)}
		f.made.Store(flags&sqlite3.SQLITE_OPEN_CREATE != 0 && flags&(sqlite3.SQLITE_OPEN_WAL|sqlite3.SQLITE_OPEN_MAIN_JOURNAL) != 0)
		table := libc.Xmalloc(tls, types.Size_t(unsafe.Sizeof(f.orig))) // never freed: tests end
		m := at[sqlite3.Tsqlite3_io_methods](table)
		*m = f.orig
		m.FxWrite, m.FxTruncate, m.FxSync, m.FxClose = pointer(fileWrite), pointer(fileTruncate), pointer(fileSync), pointer(fileClose)
		m.FxShmMap = pointer(fileShmMap)
		files.Lock()
		files.of[addr] = f
		files.Unlock()
		at[sqlite3.Tsqlite3_file](addr).FpMethods = table
	}
	return rc
}

func unlink(tls *libc.TLS, vfs, name uintptr, syncDir int32) int32 {
	rc := call[deleteFunc](original.FxDelete)(tls, vfs, name, syncDir)
	path := libc.GoString(name)
	recorders.RLock()
	defer recorders.RUnlock()
	for _, r := range recorders.all {
		if rest, ok := strings.CutPrefix(path, r.dir); ok && rc == sqlite3.SQLITE_OK {
			r.add(step{kind: remove, file: rest})
			if syncDir != 0 {
				r.add(step{kind: synced, upTo: r.Len(), dir: true})
			}
		}
	}
	return rc
}

func fileWrite(tls *libc.TLS, addr, buf uintptr, n int32, off int64) int32 {
	f := fileOf(addr)
	f.r.add(step{kind: write, file: f.name, data: append([]byte(nil), libc.GoBytes(buf, int(n))...), off: off})
	return call[writeFunc](f.orig.FxWrite)(tls, addr, buf, n, off)
}

func fileTruncate(tls *libc.TLS, addr uintptr, size int64) int32 {
	f := fileOf(addr)
	f.r.add(step{kind: truncate, file: f.name, off: size})
	return call[setSizeFunc](f.orig.FxTruncate)(tls, addr, size)
}

func fileSync(tls *libc.TLS, addr uintptr, flags int32) int32 {
	f := fileOf(addr)
	upTo := f.r.Len()
	rc := call[syncFunc](f.orig.FxSync)(tls, addr, flags)
	if rc == sqlite3.SQLITE_OK {
		f.r.add(step{kind: synced, file: f.name, upTo: upTo, dir: f.made.Swap(false)})
	}
	return rc
}

func fileShmMap(tls *libc.TLS, addr uintptr, region, size, extend int32, out uintptr) int32 {
	f := fileOf(addr)
	shmMap := call[shmMapFunc](f.orig.FxShmMap)
	if extend == 0 || !f.r.NoIndex.Load() {
		return shmMap(tls, addr, region, size, extend, out)
	}
	// What is there can be had.
	if rc := shmMap(tls, addr, region, size, 0, out); rc != sqlite3.SQLITE_OK || *at[uintptr](out) != 0 {
		return rc
	}
	return sqlite3.SQLITE_IOERR_SHMSIZE
}

func fileClose(tls *libc.TLS, addr uintptr) int32 {
	f := fileOf(addr)
	files.Lock()
	delete(files.of, addr)
	files.Unlock()
	return call[fileFunc](f.orig.FxClose)(tls, addr)
}
