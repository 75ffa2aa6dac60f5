package natstest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Process is a NATS server in a process of its own, which can be killed and
// started again at the same address. It needs a test binary whose TestMain calls
// Child first, and ends when that binary does.
type Process struct {
	URL   string
	port  int
	cmd   *exec.Cmd
	alive io.Closer // the process ends when this closes
}

// childEnv tells a test binary that it is to be a NATS server, at which port.
const childEnv = "PARLEY_NATSTEST_PORT"

// Child runs a NATS server instead of tests where Spawn has started this process.
func Child() {
	port, err := strconv.Atoi(os.Getenv(childEnv))
	if err != nil {
		return
	}
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, NoLog: true, NoSigs: true})
	if err == nil {
		srv.Start()
		if !srv.ReadyForConnections(time.Minute) {
			err = errors.New("the NATS server does not start")
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the starter closes it, or is gone
	os.Exit(0)
}

// Spawn runs a server until the test ends.
func Spawn(t testing.TB) *Process {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{port: port, URL: "nats://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	if err := p.Run(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

// Run starts the server and returns when it takes connections.
func (p *Process) Run() error {
	cmd := exec.Command(os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), childEnv+"="+strconv.Itoa(p.port)), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd, p.alive = cmd, in
	said := make([]byte, 16)
	n, _ := out.Read(said) // one that ends says nothing
	if !strings.HasPrefix(string(said[:n]), "ready") {
		p.Kill()
		return fmt.Errorf("the NATS server at port %d does not start", p.port)
	}
	return nil
}

// Kill ends the process with SIGKILL.
func (p *Process) Kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill() // it may have ended by itself
	_ = p.cmd.Wait()         // by a signal
	_ = p.alive.Close()
	p.cmd = nil
}
