//go:build unix

// Package pgserver starts a PostgreSQL server of its own for tests, from the
// binaries installed on the machine, in a temporary directory and on a free
// port. It may be killed and started again on the same data. The server ends and
// the directory goes when the process that started it is gone, however it went.
package pgserver

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Options say what sort of server is started; the zero value is that of Start.
type Options struct {
	// Dir is where the data are, which stay: a directory that Init has made, which
	// the account of the server must be able to reach. "" makes one that goes with the server.
	Dir string
	// FSync has the server sync what it acknowledges.
	FSync bool
	// Settings, each NAME=VALUE, overrule those that it is given here.
	Settings []string
}

// Server is a PostgreSQL server that runs, unless it was killed.
type Server struct {
	URL string // of a superuser; the same after every start

	opt   Options
	bin   string // where the binaries are
	dir   string // of the log, and of the data if they go with the server
	cred  *syscall.Credential
	port  int
	pid   int
	alive io.Closer     // the server ends when this closes
	ended chan struct{} // closed when all its processes have
}

// watch runs the server until file descriptor 3 ends, which is when Stop is
// called or the starter is dead; then it removes the directory. Where the server
// ends by itself, as when its port is taken, the directory stays for the next try.
// File descriptor 4 says which process it is, and ends with the last one of the server.
const watch = `dir=$1; shift
"$@" 3<&- & server=$!
echo $server >&4
{ read -r line <&3; : >"$dir/stop"; kill -QUIT $server; } & watcher=$!
wait $server
if [ -e "$dir/stop" ]; then rm -rf "$dir"; else kill $watcher; fi`

// Start makes a cluster with encoding UTF8 and locale C and starts it. It is
// ready, and proven to be its own, when Start returns.
//
// The server runs without fsync: a killed process loses nothing that reached the
// kernel. PARLEY_TEST_PG_FSYNC=on turns it on where the disk is to be measured.
func Start(ctx context.Context) (*Server, error) {
	return New(ctx, Options{FSync: os.Getenv("PARLEY_TEST_PG_FSYNC") == "on"})
}

// New does as Start does, with options.
func New(ctx context.Context, o Options) (*Server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	cred, err := credential()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "parley-pg-")
	if err != nil {
		return nil, err
	}
	s := &Server{opt: o, bin: bin, dir: dir, cred: cred}
	if err := s.start(ctx); err != nil {
		_ = os.RemoveAll(dir) // the error at hand says more
		return nil, err
	}
	return s, nil
}

// Init makes the data of a cluster with encoding UTF8 and locale C in a directory
// that is not there yet, and does not sync them. More arguments of initdb may follow.
func Init(ctx context.Context, dir string, more ...string) error {
	bin, err := binaries()
	if err != nil {
		return err
	}
	cred, err := credential()
	if err != nil {
		return err
	}
	if err := errors.Join(os.Mkdir(dir, 0o700), own(dir, cred)); err != nil {
		return err
	}
	args := append([]string{"-D", dir, "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"}, more...)
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), args...)
	initdb.Dir, initdb.Env = filepath.Dir(dir), environment()
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

func (s *Server) start(ctx context.Context) error {
	if err := own(s.dir, s.cred); err != nil {
		return err
	}
	if s.opt.Dir == "" {
		s.opt.Dir = filepath.Join(s.dir, "data")
		if err := Init(ctx, s.opt.Dir); err != nil {
			return err
		}
	}
	// Another process may take the free port first; then the server does not
	// start, or a foreign one answers.
	var failed error
	for range 5 {
		port, err := freePort()
		if err != nil {
			return err
		}
		s.port, s.URL = port, fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", port)
		if failed = s.Run(ctx); failed == nil {
			return nil
		}
	}
	return failed
}

// Own gives a directory to the account of the server.
func (s *Server) Own(dir string) error { return own(dir, s.cred) }

// own gives a directory to the account of the server.
func own(dir string, cred *syscall.Credential) error {
	if cred == nil {
		return nil
	}
	return os.Chown(dir, int(cred.Uid), int(cred.Gid))
}

// Run starts a server that was killed again, on the same data and the same port,
// and returns when it is ready. One that does not become ready is killed.
func (s *Server) Run(ctx context.Context) error {
	name := "parley-" + rand.Text()
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	if err := s.launch(log, name); err != nil {
		return err
	}
	if err := s.ready(ctx, name); err != nil {
		said, _ := os.ReadFile(log.Name()) // the more it says the better
		return errors.Join(fmt.Errorf("start PostgreSQL: %w\n%s", err, said), s.Kill())
	}
	return nil
}

func (s *Server) launch(log *os.File, name string) error {
	hold, alive, err := os.Pipe()
	if err != nil {
		return err
	}
	defer hold.Close()
	says, tell, err := os.Pipe()
	if err != nil {
		return errors.Join(err, alive.Close())
	}
	defer tell.Close()
	cmd := exec.Command("/bin/sh", append([]string{"-c", watch, "sh", s.dir}, s.args(name)...)...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, environment(), log, log
	cmd.ExtraFiles = []*os.File{hold, tell}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred, Setpgid: true} // a Ctrl-C at the terminal is for the tests
	if err := cmd.Start(); err != nil {
		return errors.Join(err, alive.Close(), says.Close())
	}
	_ = tell.Close() // the copy of this process: the others have theirs
	lines := bufio.NewReader(says)
	line, _ := lines.ReadString('\n') // without it there is no server, which ready sees
	s.pid, _ = strconv.Atoi(strings.TrimSpace(line))
	ended := make(chan struct{})
	s.alive, s.ended = alive, ended
	go func() {
		_, _ = io.Copy(io.Discard, lines) // until nobody is left who could write
		_ = says.Close()
		_ = cmd.Wait() // by a signal, and of no interest
		close(ended)
	}()
	return nil
}

func (s *Server) args(name string) []string {
	fsync := "off"
	if s.opt.FSync {
		fsync = "on"
	}
	args := []string{filepath.Join(s.bin, "postgres"), "-D", s.opt.Dir}
	for _, c := range append([]string{
		"listen_addresses=127.0.0.1", "port=" + strconv.Itoa(s.port), "unix_socket_directories=", "cluster_name=" + name,
		"fsync=" + fsync, "full_page_writes=" + fsync, "wal_level=minimal", "max_wal_senders=0",
		"max_connections=400", "max_locks_per_transaction=256", "log_min_messages=fatal",
	}, s.opt.Settings...) { // of a setting that is given twice the last counts
		args = append(args, "-c", c)
	}
	return args
}

// ready waits until the server answers under the name it was given.
func (s *Server) ready(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		got, err := clusterName(ctx, s.URL)
		if err == nil && got == name {
			return nil
		}
		if err == nil {
			return fmt.Errorf("another server (cluster_name %q) answers at %s", got, s.URL)
		}
		select {
		case <-s.ended:
			return errors.New("it ended at once")
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

func clusterName(ctx context.Context, url string) (name string, err error) {
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return "", err
	}
	defer c.Close(ctx)
	return name, c.QueryRow(ctx, "SHOW cluster_name").Scan(&name)
}

// Kill ends all processes of the server, as kill -9 does, and returns when they
// are gone. Run starts it again.
func (s *Server) Kill() error {
	select {
	case <-s.ended:
	default:
		// Stopped, it starts no more of them while they are looked for. Those
		// that are not found end when they see that it has gone.
		_ = syscall.Kill(s.pid, syscall.SIGSTOP) // it may be ending by itself
		for _, pid := range append(children(s.pid), s.pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL) // the same
		}
		<-s.ended
	}
	return s.release()
}

// End stops the server in order, with what its sessions are at broken off, and
// returns when it has. Run starts it again.
func (s *Server) End() error {
	_ = syscall.Kill(s.pid, syscall.SIGINT) // it may have ended by itself
	<-s.ended
	return s.release()
}

// children finds the processes that pid has started, where there is a /proc.
func children(pid int) (found []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well formed
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// 17 (a name) S 12 …: number, name, state, parent
		_, rest, _ := bytes.Cut(text, []byte(") "))
		fields := bytes.Fields(rest)
		if len(fields) > 1 && string(fields[1]) == strconv.Itoa(pid) {
			child, _ := strconv.Atoi(filepath.Base(filepath.Dir(file))) // as the pattern says
			found = append(found, child)
		}
	}
	return found
}

// Stop ends the server, without writing anything more, and removes its directory.
func (s *Server) Stop() error {
	err := s.release()
	<-s.ended
	return errors.Join(err, os.RemoveAll(s.dir)) // watch has, unless the server was killed
}

// release closes what the server waits on.
func (s *Server) release() error {
	if err := s.alive.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// freePort finds a port that is free now. It stays the same over restarts, so it
// lies below those that others are given meanwhile.
func freePort() (int, error) {
	var failed error
	for range 100 {
		port := 15_000 + mathrand.IntN(15_000)
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			return port, l.Close()
		}
		failed = err
	}
	return 0, failed
}

// binaries finds the directory of initdb and postgres: PG_BIN, PATH, Debian's and others' usual places.
func binaries() (string, error) {
	var dirs []string
	if d := os.Getenv("PG_BIN"); d != "" {
		dirs = append(dirs, d)
	}
	if p, err := exec.LookPath("initdb"); err == nil {
		dirs = append(dirs, filepath.Dir(p))
	}
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/opt/postgresql*/bin", "/opt/homebrew/opt/postgresql*/bin"} {
		found, _ := filepath.Glob(pattern) // the pattern is well formed
		slices.SortFunc(found, func(a, b string) int { return compareVersions(b, a) })
		dirs = append(dirs, found...)
	}
	for _, d := range dirs {
		if executable(filepath.Join(d, "initdb")) && executable(filepath.Join(d, "postgres")) {
			return d, nil
		}
	}
	return "", errors.New("PostgreSQL is not installed: run `apt-get install postgresql` (or set PG_BIN to the directory of initdb and postgres, or PARLEY_TEST_PG_URL to a superuser URL, or PARLEY_TEST_DB=sqlite to leave it out)")
}

// compareVersions orders names by length first, so that 9 comes before 15.
func compareVersions(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return bytes.Compare([]byte(a), []byte(b))
}

func executable(file string) bool {
	i, err := os.Stat(file)
	return err == nil && i.Mode()&0o111 != 0
}

// credential is the account to run as: PostgreSQL refuses root.
func credential() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, _ := strconv.Atoi(u.Uid) // numeric wherever a root with euid 0 exists
		gid, _ := strconv.Atoi(u.Gid)
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is no account postgres or nobody")
}

// environment keeps PG* variables of the caller away from the server.
func environment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
}
