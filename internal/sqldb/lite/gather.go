package lite

import (
	"errors"
	"sync"
	"unsafe"

	"modernc.org/libc"
	"modernc.org/libc/sys/types"
	sqlite3 "modernc.org/sqlite/lib"
)

// SQLite writes a commit to its log in two system calls a page, and these are
// nearly half of what a commit costs the processor. A gatherer stands between
// SQLite and the log of one connection: it collects writes that continue one
// another and hands them on together, at the latest before a sync, a read, or
// anything else that looks at the file.
//
// This is safe with PRAGMA synchronous = FULL and only then: there the sync of
// a commit comes before SQLite shows the commit to anybody, and what is not
// committed only its own connection reads, by way of read below. An error of
// the late write is the error of the sync, and the commit fails.
type gatherer struct {
	orig  sqlite3.Tsqlite3_io_methods
	table uintptr // the methods in C memory that the file has now
	base  uintptr // address of buf
	buf   []byte
	n     int   // bytes gathered
	off   int64 // where in the file they belong
}

const gatherSize = 1 << 16 // SQLite's own write takes less than 1<<17 bytes at a time

var gatherers = struct {
	sync.RWMutex
	of map[uintptr]*gatherer // by address of the sqlite3_file
}{of: make(map[uintptr]*gatherer)}

func gathererOf(file uintptr) *gatherer {
	gatherers.RLock()
	defer gatherers.RUnlock()
	return gatherers.of[file]
}

// at gives the C value of type T at an address.
func at[T any](addr uintptr) *T {
	return (*T)(unsafe.Pointer(unsafe.SliceData(libc.GoBytes(addr, int(unsafe.Sizeof(*new(T)))))))
}

// call makes a Go function value of the C function pointer f.
func call[F any](f uintptr) F {
	p := &struct{ f uintptr }{f}
	return *(*F)(unsafe.Pointer(p))
}

// pointer makes a C function pointer of a Go function that is no closure.
func pointer[F any](f F) uintptr {
	p := &struct{ f F }{f}
	return *(*uintptr)(unsafe.Pointer(p))
}

type (
	fileFunc    = func(tls *libc.TLS, file uintptr) int32
	rangeFunc   = func(tls *libc.TLS, file, buf uintptr, n int32, off int64) int32
	syncFunc    = func(tls *libc.TLS, file uintptr, flags int32) int32
	sizeFunc    = func(tls *libc.TLS, file, size uintptr) int32
	setSizeFunc = func(tls *libc.TLS, file uintptr, size int64) int32
	controlFunc = func(tls *libc.TLS, file uintptr, op int32, arg uintptr) int32
)

// GatherLog makes commits of c write their log in few large pieces. The
// database must be in WAL mode with synchronous = FULL.
func (c *Conn) GatherLog() error {
	if err := c.Script("SELECT 1 FROM sqlite_master"); err != nil { // opens the log
		return err
	}
	rc := sqlite3.Xsqlite3_file_control(c.tls, c.db, 0, sqlite3.SQLITE_FCNTL_JOURNAL_POINTER, c.out)
	file := c.result(0)
	if rc != sqlite3.SQLITE_OK || file == 0 || at[sqlite3.Tsqlite3_file](file).FpMethods == 0 {
		return errors.New("sqlite: the log is not open")
	}
	g := &gatherer{orig: *at[sqlite3.Tsqlite3_io_methods](at[sqlite3.Tsqlite3_file](file).FpMethods)}
	if call[fileFunc](g.orig.FxDeviceCharacteristics)(c.tls, file)&sqlite3.SQLITE_IOCAP_POWERSAFE_OVERWRITE == 0 {
		return nil // here SQLite writes to the log after the sync, too
	}
	g.base = libc.Xmalloc(c.tls, gatherSize)
	g.table = libc.Xmalloc(c.tls, types.Size_t(unsafe.Sizeof(g.orig)))
	if g.base == 0 || g.table == 0 {
		return errors.New("sqlite: out of memory")
	}
	g.buf = libc.GoBytes(g.base, gatherSize)
	m := at[sqlite3.Tsqlite3_io_methods](g.table)
	*m = g.orig
	m.FxClose, m.FxRead, m.FxWrite = pointer(gatherClose), pointer(gatherRead), pointer(gatherWrite)
	m.FxTruncate, m.FxSync, m.FxFileSize = pointer(gatherTruncate), pointer(gatherSync), pointer(gatherFileSize)
	m.FxFileControl = pointer(gatherFileControl)
	gatherers.Lock()
	defer gatherers.Unlock()
	gatherers.of[file] = g
	at[sqlite3.Tsqlite3_file](file).FpMethods = g.table
	return nil
}

// flush writes what was gathered. When that fails it is lost, and the caller,
// who gets the error, rolls the transaction back.
func (g *gatherer) flush(tls *libc.TLS, file uintptr) int32 {
	if g.n == 0 {
		return sqlite3.SQLITE_OK
	}
	n := g.n
	g.n = 0
	return call[rangeFunc](g.orig.FxWrite)(tls, file, g.base, int32(n), g.off)
}

func gatherWrite(tls *libc.TLS, file, buf uintptr, n int32, off int64) int32 {
	g := gathererOf(file)
	if g.n > 0 && (off != g.off+int64(g.n) || g.n+int(n) > gatherSize) {
		if rc := g.flush(tls, file); rc != sqlite3.SQLITE_OK {
			return rc
		}
	}
	if int(n) > gatherSize {
		return call[rangeFunc](g.orig.FxWrite)(tls, file, buf, n, off)
	}
	if g.n == 0 {
		g.off = off
	}
	g.n += copy(g.buf[g.n:], libc.GoBytes(buf, int(n)))
	return sqlite3.SQLITE_OK
}

func gatherSync(tls *libc.TLS, file uintptr, flags int32) int32 {
	g := gathererOf(file)
	if rc := g.flush(tls, file); rc != sqlite3.SQLITE_OK {
		return rc
	}
	return call[syncFunc](g.orig.FxSync)(tls, file, flags)
}

func gatherRead(tls *libc.TLS, file, buf uintptr, n int32, off int64) int32 {
	g := gathererOf(file)
	if rc := g.flush(tls, file); rc != sqlite3.SQLITE_OK {
		return rc
	}
	return call[rangeFunc](g.orig.FxRead)(tls, file, buf, n, off)
}

func gatherTruncate(tls *libc.TLS, file uintptr, size int64) int32 {
	g := gathererOf(file)
	if rc := g.flush(tls, file); rc != sqlite3.SQLITE_OK {
		return rc
	}
	return call[setSizeFunc](g.orig.FxTruncate)(tls, file, size)
}

func gatherFileSize(tls *libc.TLS, file, size uintptr) int32 {
	g := gathererOf(file)
	if rc := g.flush(tls, file); rc != sqlite3.SQLITE_OK {
		return rc
	}
	return call[sizeFunc](g.orig.FxFileSize)(tls, file, size)
}

func gatherFileControl(tls *libc.TLS, file uintptr, op int32, arg uintptr) int32 {
	g := gathererOf(file)
	if rc := g.flush(tls, file); rc != sqlite3.SQLITE_OK {
		return rc
	}
	return call[controlFunc](g.orig.FxFileControl)(tls, file, op, arg)
}

// gatherClose drops what is left: it was never synced, so it is part of no commit.
func gatherClose(tls *libc.TLS, file uintptr) int32 {
	g := gathererOf(file)
	gatherers.Lock()
	delete(gatherers.of, file)
	gatherers.Unlock()
	libc.Xfree(tls, g.base)
	libc.Xfree(tls, g.table)
	return call[fileFunc](g.orig.FxClose)(tls, file)
}
