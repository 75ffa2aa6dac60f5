// Package lite is a thin layer over SQLite's C interface, as modernc.org/sqlite
// transpiles it: a connection with a cache of prepared statements, arguments,
// columns, errors. It does not use database/sql because a durable write here is
// a few short statements, and there a third of their time goes into copying
// arguments one by one and asking for names.
package lite

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"modernc.org/libc"
	"modernc.org/libc/sys/types"
	sqlite3 "modernc.org/sqlite/lib"
)

const (
	maxStmts  = 512     // prepared statements a connection keeps
	arenaSize = 1 << 16 // bytes of arguments that need no allocation
	ptrSize   = unsafe.Sizeof(uintptr(0))
)

// Conn is a connection to a database file. One goroutine uses it at a time;
// only Interrupt may be called from another.
type Conn struct {
	tls   *libc.TLS
	db    uintptr
	out   uintptr // room for two results that C functions return through pointers
	pages uintptr // where countPages leaves its result
	stmts map[string]*Stmt
	edit  func(string) string // the text to prepare for a text of the caller

	// The arguments of the statement that runs live in C memory, where the
	// garbage collector neither moves nor frees them.
	arena []byte
	base  uintptr // address of arena
	used  int
	extra []uintptr // arguments that found no room in the arena
}

// Open opens the file, creating it if it does not exist. Each text of a
// statement goes through edit before it is prepared for the first time.
func Open(file string, edit func(string) string) (*Conn, error) {
	return open(file, sqlite3.SQLITE_OPEN_READWRITE|sqlite3.SQLITE_OPEN_CREATE, edit)
}

// OpenReadOnly opens a file that exists, named by a URI (file:///…), and changes
// nothing in it.
func OpenReadOnly(uri string, edit func(string) string) (*Conn, error) {
	return open(uri, sqlite3.SQLITE_OPEN_READONLY|sqlite3.SQLITE_OPEN_URI, edit)
}

func open(file string, flags int32, edit func(string) string) (*Conn, error) {
	c := &Conn{tls: libc.NewTLS(), stmts: make(map[string]*Stmt), edit: edit}
	c.out = libc.Xcalloc(c.tls, 3, types.Size_t(ptrSize))
	c.pages = c.out + 2*ptrSize
	c.base = libc.Xmalloc(c.tls, arenaSize)
	name, err := libc.CString(file)
	if c.out == 0 || c.base == 0 || err != nil {
		return nil, errors.New("sqlite: out of memory")
	}
	defer libc.Xfree(c.tls, name)
	c.arena = libc.GoBytes(c.base, arenaSize)
	// Without mutexes of its own: the type says that one goroutine uses it.
	rc := sqlite3.Xsqlite3_open_v2(c.tls, name, c.out, flags|sqlite3.SQLITE_OPEN_NOMUTEX, 0)
	c.db = c.result(0)
	if rc == sqlite3.SQLITE_OK {
		sqlite3.Xsqlite3_extended_result_codes(c.tls, c.db, 1)
		// "x" is a name and never a text, as in PostgreSQL.
		c.config(sqlite3.SQLITE_DBCONFIG_DQS_DML, 0)
		c.config(sqlite3.SQLITE_DBCONFIG_DQS_DDL, 0)
		return c, nil
	}
	err = fmt.Errorf("open %s: %w", file, c.error(rc))
	return nil, errors.Join(err, c.Close())
}

// result reads a pointer that a C function left in out.
func (c *Conn) result(i uintptr) uintptr {
	return *at[uintptr](c.out + i*ptrSize)
}

func (c *Conn) config(op, value int32) {
	args := libc.Xmalloc(c.tls, 16)
	defer libc.Xfree(c.tls, args)
	sqlite3.Xsqlite3_db_config(c.tls, c.db, op, libc.VaList(args, value, uintptr(0)))
}

// Close finalizes the statements and closes the connection.
func (c *Conn) Close() error {
	for _, s := range c.stmts {
		s.finalize()
	}
	clear(c.stmts)
	c.release()
	err := c.error(sqlite3.Xsqlite3_close_v2(c.tls, c.db))
	libc.Xfree(c.tls, c.base)
	libc.Xfree(c.tls, c.out)
	c.tls.Close()
	return err
}

// Error is an error of SQLite.
type Error struct {
	Code   int // extended result code
	Msg    string
	system syscall.Errno // what the system said, where it was the system
}

func (e *Error) Error() string { return e.Msg + " (SQLite " + strconv.Itoa(e.Code) + ")" }

// Full reports that there was no room on the disk, or no more of it for this
// account. After a failed sync nothing is known any more, whatever the reason.
func (e *Error) Full() bool {
	switch e.Code {
	case sqlite3.SQLITE_FULL:
		return true
	case SyncFailed, SyncDirFailed:
		return false
	}
	// SQLite knows the first reason, and that only where it writes to a file.
	kind := e.Code & 0xff
	return (kind == sqlite3.SQLITE_IOERR || kind == sqlite3.SQLITE_CANTOPEN) && (e.system == syscall.ENOSPC || e.system == syscall.EDQUOT)
}

// The codes that callers tell apart.
const (
	Constraint        = sqlite3.SQLITE_CONSTRAINT
	Unique            = sqlite3.SQLITE_CONSTRAINT_UNIQUE
	PrimaryKey        = sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
	RowID             = sqlite3.SQLITE_CONSTRAINT_ROWID
	NoIndex           = sqlite3.SQLITE_IOERR_SHMSIZE // the index of the log could not grow
	Interrupted       = sqlite3.SQLITE_INTERRUPT
	Busy              = sqlite3.SQLITE_BUSY // the low byte: there are kinds of it
	SyncFailed        = sqlite3.SQLITE_IOERR_FSYNC
	SyncDirFailed     = sqlite3.SQLITE_IOERR_DIR_FSYNC
	FileSystemCorrupt = sqlite3.SQLITE_IOERR_CORRUPTFS
)

func (c *Conn) error(rc int32) error {
	if rc == sqlite3.SQLITE_OK {
		return nil
	}
	msg := libc.GoString(sqlite3.Xsqlite3_errstr(c.tls, rc))
	if c.db != 0 && sqlite3.Xsqlite3_extended_errcode(c.tls, c.db) == rc {
		msg = libc.GoString(sqlite3.Xsqlite3_errmsg(c.tls, c.db))
	}
	return &Error{int(rc), msg, syscall.Errno(sqlite3.Xsqlite3_system_errno(c.tls, c.db))}
}

// Interrupt ends the statement that runs on c with an error. It may be called
// from any goroutine until Close.
func (c *Conn) Interrupt() {
	tls := libc.NewTLS() // that of c belongs to the goroutine that runs the statement
	sqlite3.Xsqlite3_interrupt(tls, c.db)
	tls.Close()
}

// Script runs all statements of a text, without arguments.
func (c *Conn) Script(text string) error {
	p, err := libc.CString(text)
	if err != nil {
		return err
	}
	defer libc.Xfree(c.tls, p)
	return c.error(sqlite3.Xsqlite3_exec(c.tls, c.db, p, 0, 0, 0))
}

// InTransaction reports whether a transaction is open. Some errors end it.
func (c *Conn) InTransaction() bool { return sqlite3.Xsqlite3_get_autocommit(c.tls, c.db) == 0 }

// Changes is the number of rows that the last statement changed.
func (c *Conn) Changes() int64 { return int64(sqlite3.Xsqlite3_changes64(c.tls, c.db)) }

// TotalChanges is the number of rows changed since the connection was opened.
func (c *Conn) TotalChanges() int64 { return int64(sqlite3.Xsqlite3_total_changes64(c.tls, c.db)) }

// Checkpoint copies what it can of the write-ahead log into the database file
// without waiting for anybody. It reports the pages in the log and how many of
// them are in the file.
func (c *Conn) Checkpoint() (log, done int, err error) {
	rc := sqlite3.Xsqlite3_wal_checkpoint_v2(c.tls, c.db, 0, sqlite3.SQLITE_CHECKPOINT_PASSIVE, c.out, c.out+ptrSize)
	return int(*at[int32](c.out)), int(*at[int32](c.out + ptrSize)), c.error(rc)
}

// CountPages takes the place of SQLite's own checkpoints: from now on LogPages
// says how long the write-ahead log is and the caller decides.
func (c *Conn) CountPages() {
	sqlite3.Xsqlite3_wal_hook(c.tls, c.db, pointer(countPages), c.pages)
}

// countPages is called by SQLite after each commit.
func countPages(_ *libc.TLS, arg, _, _ uintptr, pages int32) int32 {
	*at[int32](arg) = pages
	return sqlite3.SQLITE_OK
}

// LogPages is the length of the write-ahead log after the last commit of c.
func (c *Conn) LogPages() int { return int(*at[int32](c.pages)) }

// Prepare gives the prepared statement of a text that holds one statement. It
// is kept with the connection and must not be in use already.
func (c *Conn) Prepare(text string) (*Stmt, error) {
	if s := c.stmts[text]; s != nil {
		if s.busy {
			return nil, errors.New("sqlite: the statement is already running on this connection")
		}
		return s, nil
	}
	s, err := c.prepare(c.edit(text))
	if err != nil {
		return nil, err
	}
	if len(c.stmts) >= maxStmts {
		c.evict()
	}
	c.stmts[text] = s
	return s, nil
}

// evict drops some statement that is not in use. Which one does not matter much:
// a text that comes once is as likely to go as any other.
func (c *Conn) evict() {
	for text, s := range c.stmts {
		if !s.busy {
			s.finalize()
			delete(c.stmts, text)
			return
		}
	}
}

func (c *Conn) prepare(text string) (*Stmt, error) {
	p, err := libc.CString(text)
	if err != nil {
		return nil, err
	}
	defer libc.Xfree(c.tls, p)
	if rc := sqlite3.Xsqlite3_prepare_v3(c.tls, c.db, p, int32(len(text)+1), sqlite3.SQLITE_PREPARE_PERSISTENT, c.out, c.out+ptrSize); rc != sqlite3.SQLITE_OK {
		return nil, c.error(rc)
	}
	s := &Stmt{c: c, p: c.result(0)}
	if s.p == 0 {
		return nil, errors.New("sqlite: no statement in the text")
	}
	if rest := int(c.result(1) - p); rest < len(text) && !blank(text[rest:]) {
		s.finalize()
		return nil, errors.New("sqlite: more than one statement in the text")
	}
	s.schema = sqlite3.Xsqlite3_stmt_readonly(c.tls, s.p) == 0 && !keepsSchema(text)
	s.columns = int(sqlite3.Xsqlite3_column_count(c.tls, s.p))
	if err := s.number(); err != nil {
		s.finalize()
		return nil, err
	}
	return s, nil
}

// keepsSchema reports that a statement which writes changes rows or begins a transaction.
func keepsSchema(text string) bool {
	word, _, _ := strings.Cut(strings.TrimLeft(text, " \t\r\n"), " ")
	return slices.Contains([]string{"INSERT", "UPDATE", "DELETE", "REPLACE", "WITH", "BEGIN"}, strings.ToUpper(word))
}

func blank(s string) bool {
	for _, c := range []byte(s) {
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' && c != ';' {
			return false
		}
	}
	return true
}

// release gives up the memory of the arguments.
func (c *Conn) release() {
	c.used = 0
	for _, p := range c.extra {
		libc.Xfree(c.tls, p)
	}
	c.extra = c.extra[:0]
}

// keep copies n bytes of arguments to C memory by way of fill.
func (c *Conn) keep(n int) (addr uintptr, room []byte, err error) {
	if n <= arenaSize-c.used {
		addr, room = c.base+uintptr(c.used), c.arena[c.used:c.used+n]
		c.used += n
		return addr, room, nil
	}
	p := libc.Xmalloc(c.tls, types.Size_t(n))
	if p == 0 {
		return 0, nil, errors.New("sqlite: out of memory")
	}
	c.extra = append(c.extra, p)
	return p, libc.GoBytes(p, n), nil
}
