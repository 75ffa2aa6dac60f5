package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"sync"
	"time"

	"parley/internal/app"
)

// connection is a server that a command talks to.
type connection struct {
	*client
	server  app.Server // as it announced itself, now or before
	running bool
	token   string // that lasts; "" while no server runs and none is known
}

// tokenEnv names the credential of commands that talk to a running server.
const tokenEnv = "PARLEY_TOKEN"

// connect calls fn with the API of the server that uses the data directory.
// Where none runs, the data is opened for the moment, and no token is needed:
// whoever may open it may do everything. create lets it make what is missing.
func (p *program) connect(ctx context.Context, cfg app.Config, create bool, fn func(context.Context, *connection) error) error {
	server, running, err := awaitServer(ctx, cfg.Data)
	if err != nil && !errors.Is(err, app.ErrNoServer) {
		return err
	}
	token, err := p.knownToken(cfg.Data)
	if err != nil {
		return err
	}
	if running {
		if token == "" {
			return fmt.Errorf("a server uses %s (process %d), so this goes through its API and needs a token: set %s, or stop the server first", cfg.Data, server.PID, tokenEnv)
		}
		return fn(ctx, &connection{newClient(address(server), token), server, true, token})
	}
	return app.Offline(ctx, cfg, create, func(ctx context.Context, h http.Handler, passing string) error {
		c := newClient("http://parley", passing)
		c.http = &http.Client{Transport: inProcess{h}}
		return fn(ctx, &connection{c, server, false, token})
	})
}

// awaitPause is how long to wait before a server that does not answer is looked
// for again.
const awaitPause = 50 * time.Millisecond

// awaitServer is app.FindServer that waits for who has the data and takes no
// connections: a server that is stopping, or another command.
func awaitServer(ctx context.Context, data string) (app.Server, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for {
		server, running, err := app.FindServer(data)
		if err != nil || !running {
			return server, running, err
		}
		refused := answers(ctx, server)
		if refused == nil {
			return server, true, nil
		}
		select {
		case <-ctx.Done():
			return server, true, fmt.Errorf("process %d uses %s and does not answer: %w", server.PID, data, refused)
		case <-time.After(awaitPause):
		}
	}
}

// address is where commands reach a server.
func address(s app.Server) string { return cmp.Or(s.Local, s.URL) }

// answers gives the error with which a server does not answer. One that answers
// in another way than it should is there: what is wrong, requests tell.
func answers(ctx context.Context, s app.Server) error {
	if address(s) == "" {
		return errors.New("it has no address") // it has just begun, or is a command
	}
	resp, err := newClient(address(s), "").send(ctx, "GET", "/healthz", nil)
	if err == nil {
		return resp.Body.Close()
	}
	_, certificate := errors.AsType[*tls.CertificateVerificationError](err)
	_, protocol := errors.AsType[tls.RecordHeaderError](err)
	if certificate || protocol {
		return nil
	}
	return err
}

// knownToken is the token of the environment, or that of parley dev.
func (p *program) knownToken(data string) (string, error) {
	if token := p.getenv(tokenEnv); token != "" {
		return token, nil
	}
	c, err := app.ReadCredentials(data)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return c.Token, err
}

// inProcess carries requests to a handler of this process.
type inProcess struct{ h http.Handler }

// RoundTrip implements http.RoundTripper.
func (t inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	in := r.Clone(r.Context())
	in.RequestURI, in.RemoteAddr = r.URL.RequestURI(), "127.0.0.1:0"
	if in.Body == nil {
		in.Body = http.NoBody
	}
	read, write := io.Pipe()
	w := &answer{header: http.Header{}, body: write, begun: make(chan struct{})}
	body := &answerBody{PipeReader: read}
	body.handler.Go(func() {
		t.h.ServeHTTP(w, in)
		w.WriteHeader(http.StatusOK)
		_ = write.Close() // never fails
	})
	<-w.begun
	return &http.Response{
		StatusCode: w.status, Status: http.StatusText(w.status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header, Body: body, ContentLength: -1, Request: r,
	}, nil
}

type answer struct {
	header http.Header
	status int
	body   *io.PipeWriter
	begun  chan struct{}
}

func (w *answer) Header() http.Header { return w.header }

func (w *answer) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
		close(w.begun)
	}
}

func (w *answer) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

// answerBody waits for the handler when it is closed.
type answerBody struct {
	*io.PipeReader
	handler sync.WaitGroup
}

// Close implements io.Closer.
func (b *answerBody) Close() error {
	err := b.PipeReader.Close()
	b.handler.Wait()
	return err
}
