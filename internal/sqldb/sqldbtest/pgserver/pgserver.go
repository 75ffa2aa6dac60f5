//go:build unix

// Package pgserver starts a PostgreSQL server of its own for tests, from the
// binaries installed on the machine, in a temporary directory and on a free
// port. The server ends and the directory goes when the process that started
// it is gone, however it went.
package pgserver

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Server is a running PostgreSQL server.
type Server struct {
	URL   string // of a superuser
	cmd   *exec.Cmd
	alive io.Closer // the server ends when this closes
	ended chan struct{}
}

// watch runs the server until file descriptor 3 ends, which is when Stop is
// called or the starter is dead; then it removes the directory. Where the server
// ends by itself, as when its port is taken, the directory stays for the next try.
const watch = `dir=$1; shift
"$@" 3<&- & server=$!
{ read -r line <&3; : >"$dir/stop"; kill -QUIT $server; } & watcher=$!
wait $server
if [ -e "$dir/stop" ]; then rm -rf "$dir"; else kill $watcher; fi`

// Start makes a cluster with encoding UTF8 and locale C and starts it. It is
// ready, and proven to be its own, when Start returns.
//
// The server runs without fsync: no test cuts the power, and a killed process
// loses nothing that reached the kernel. PARLEY_TEST_PG_FSYNC=on turns it on
// where the disk is to be measured.
func Start(ctx context.Context) (*Server, error) {
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
	s, err := start(ctx, bin, dir, cred)
	if err != nil {
		_ = os.RemoveAll(dir) // the error at hand says more
	}
	return s, err
}

func start(ctx context.Context, bin, dir string, cred *syscall.Credential) (*Server, error) {
	if cred != nil {
		if err := os.Chown(dir, int(cred.Uid), int(cred.Gid)); err != nil {
			return nil, err
		}
	}
	data := filepath.Join(dir, "data")
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	initdb.Dir, initdb.Env = dir, environment()
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	// Another process may take the free port first; then the server does not
	// start, or a foreign one answers.
	var failed error
	for range 5 {
		s, err := launch(ctx, bin, dir, cred)
		if err == nil {
			return s, nil
		}
		failed = err
	}
	return nil, failed
}

func launch(ctx context.Context, bin, dir string, cred *syscall.Credential) (*Server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	name := "parley-" + rand.Text()
	logFile, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	cmd := exec.Command("/bin/sh", append([]string{"-c", watch, "sh", dir}, serverArgs(bin, dir, port, name)...)...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, environment(), logFile, logFile
	cmd.ExtraFiles = []*os.File{read}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred, Setpgid: true} // a Ctrl-C at the terminal is for the tests
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, write.Close())
	}
	s := &Server{
		URL: fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", port),
		cmd: cmd, alive: write, ended: make(chan struct{}),
	}
	go func() {
		_ = cmd.Wait() // by a signal, and of no interest
		close(s.ended)
	}()
	if err := s.ready(ctx, name); err != nil {
		text, _ := os.ReadFile(logFile.Name()) // the more it says the better
		return nil, errors.Join(fmt.Errorf("start PostgreSQL: %w\n%s", err, text), s.Stop())
	}
	return s, nil
}

func serverArgs(bin, dir string, port int, name string) []string {
	fsync := "off"
	if os.Getenv("PARLEY_TEST_PG_FSYNC") == "on" {
		fsync = "on"
	}
	args := []string{filepath.Join(bin, "postgres"), "-D", filepath.Join(dir, "data")}
	for _, c := range []string{
		"listen_addresses=127.0.0.1", "port=" + strconv.Itoa(port), "unix_socket_directories=", "cluster_name=" + name,
		"fsync=" + fsync, "full_page_writes=" + fsync, "wal_level=minimal", "max_wal_senders=0",
		"max_connections=400", "max_locks_per_transaction=256", "log_min_messages=fatal",
	} {
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

// Stop ends the server and removes its directory.
func (s *Server) Stop() error {
	err := s.alive.Close()
	<-s.ended
	return err
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
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
