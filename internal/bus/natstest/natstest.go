// Package natstest runs a NATS server inside a test, or inside a program that measures.
package natstest

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Server is a NATS server on a port of its own. It can be stopped and started again.
type Server struct {
	URL  string
	port int
	s    *server.Server
}

// Start runs a server until the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	s, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// New runs a server until it is stopped.
func New() (*Server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &Server{port: port}
	return s, s.Run()
}

// freePort finds a port that is free now, below those that others are given
// while the server does not run.
func freePort() (int, error) {
	for {
		port := 15_000 + rand.IntN(15_000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		return port, l.Close()
	}
}

// Run starts the server, on the port it had before if it ran.
func (s *Server) Run() error {
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: s.port, NoLog: true, NoSigs: true})
	if err != nil {
		return err
	}
	srv.Start()
	if !srv.ReadyForConnections(time.Minute) {
		srv.Shutdown()
		return errors.New("the NATS server does not start")
	}
	s.s, s.port = srv, srv.Addr().(*net.TCPAddr).Port
	s.URL = "nats://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))
	return nil
}

// Stop ends the server as a crash would for its clients: without a word.
func (s *Server) Stop() {
	if s.s != nil {
		s.s.Shutdown()
		s.s.WaitForShutdown()
		s.s = nil
	}
}
