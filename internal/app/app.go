// Package app puts the server together: it reads the configuration, opens the
// data directory and the database, builds kernel, engines, modules and built-ins,
// starts them in order and stops them in reverse.
//
//	New    configuration ─► data directory, lock ─► certificate ─► sockets
//	Run    health answers ─► database, key, migrations ─► parts ─► seed (dev) ─► ready
//	stop   not ready ─► deliveries finish ─► streams end ─► requests finish ─► parts ─► database ─► lock
//
// Deliveries finish first, because the bots at work still call the API back.
package app

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"parley/internal/schema"
)

// App is a server: made by New, run once by Run.
type App struct {
	cfg       Config
	log       *slog.Logger
	data      *dataDir
	listeners listeners
	scheme    string
	http      *http.Server
	metrics   *metrics
	schema    fs.FS // migrations

	phase    atomic.Pointer[phase]
	ready    chan struct{}
	draining chan struct{} // closed when stopping has begun
	parts    *parts        // set before ready is closed
}

// phase is how far a server is, and what it answers meanwhile.
type phase struct {
	name    string       // starting, ready or draining
	doing   string       // what it is busy with, for /readyz
	handler http.Handler // of everything but health and metrics; nil while starting
}

// New checks cfg, takes the data directory and opens the sockets. It fails
// where a second server would do harm; nothing is served until Run.
func New(ctx context.Context, cfg Config) (*App, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	cert, err := loadCertificate(cfg)
	if err != nil {
		return nil, err
	}
	data, err := openData(cfg.Data)
	if err != nil {
		return nil, err
	}
	a := &App{
		cfg: cfg, log: newLogger(cfg.LogTo, cfg.LogLevel, cfg.LogFormat), data: data,
		scheme: "http", metrics: newMetrics(cfg), schema: schema.FS, ready: make(chan struct{}), draining: make(chan struct{}),
	}
	if cert != nil {
		a.scheme = "https"
	}
	a.phase.Store(&phase{name: "starting", doing: "the process has just begun"})
	if err := a.bind(ctx); err != nil {
		return nil, errors.Join(err, data.close())
	}
	a.http = newHTTPServer(behind(cfg.TrustedProxies, http.HandlerFunc(a.serve)), cert)
	a.http.ErrorLog = slog.NewLogLogger(a.log.Handler(), slog.LevelDebug) // broken handshakes of strangers
	return a, nil
}

// bind checks what else is in the data directory, and opens the sockets.
func (a *App) bind(ctx context.Context) error {
	if err := a.refuseDevelopmentData(); err != nil {
		return err
	}
	ls, err := listen(ctx, a.cfg.Addr)
	if err != nil {
		return err
	}
	a.listeners = ls
	s := Server{PID: os.Getpid(), URL: a.URL(), Local: a.local()}
	if s.Local == s.URL {
		s.Local = ""
	}
	if err := a.data.announce(s); err != nil {
		return errors.Join(err, ls.close())
	}
	return nil
}

// refuseDevelopmentData keeps serve away from a directory with a readable token
// in it.
func (a *App) refuseDevelopmentData() error {
	path := credentialsPath(a.cfg.Data)
	_, err := os.Stat(path)
	switch {
	case a.cfg.Dev || errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("%s holds a token of parley dev in clear; revoke it (parley token list, parley token revoke ID) and delete the file, or name another directory with --data", path)
}

func loadCertificate(cfg Config) (*tls.Certificate, error) {
	if cfg.TLSCert == "" {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(cfg.TLSCert, cfg.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert %s, --tls-key %s: %w", cfg.TLSCert, cfg.TLSKey, err)
	}
	return &cert, nil
}

// Addr is the address the server really listens on.
func (a *App) Addr() string { return a.listeners.addr() }

// URL is how clients reach the server.
func (a *App) URL() string {
	switch {
	case a.cfg.PublicURL != "":
		return a.cfg.PublicURL
	case a.listeners == nil: // no server, but its data
		return cmp.Or(a.data.last.URL, "http://"+Options()[0].Default)
	}
	return a.local()
}

// local is how this machine reaches the server. A certificate names the public
// host, so over TLS it is the public URL.
func (a *App) local() string {
	if a.scheme == "https" && a.cfg.PublicURL != "" {
		return a.cfg.PublicURL
	}
	return a.listeners.local(a.scheme)
}

// Ready is closed once requests are served.
func (a *App) Ready() <-chan struct{} { return a.ready }

// Run serves until ctx ends, then stops within the drain timeout. It returns
// nil after an orderly stop.
func (a *App) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, a.data.close()) }()
	var web errgroup.Group
	broken, failed := context.WithCancelCause(ctx)
	defer failed(nil)
	crowd := newCrowd(descriptors(), a.scheme == "https", a.log)
	a.metrics.registry.MustRegister(crowd)
	for _, l := range a.listeners {
		l = crowd.bound(l)
		web.Go(func() error {
			var err error
			if a.scheme == "https" {
				err = a.http.ServeTLS(l, "", "")
			} else {
				err = a.http.Serve(typedListener{l})
			}
			if !errors.Is(err, http.ErrServerClosed) {
				failed(fmt.Errorf("listen on %s: %w", l.Addr(), err))
			}
			return nil
		})
	}
	stopWeb := func(ctx context.Context) error {
		err := a.http.Shutdown(ctx)
		if err != nil {
			err = errors.Join(err, a.http.Close())
		}
		_ = web.Wait() // what failed was told to broken
		return err
	}
	// why prefers the reason for stopping to an error that it led to.
	why := func(err error) error {
		if broken.Err() != nil && ctx.Err() == nil {
			return context.Cause(broken)
		}
		return err
	}
	if err := a.start(broken); err != nil {
		// Only health was answered so far, and that takes no time.
		soon, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		return errors.Join(why(err), stopWeb(soon))
	}
	runs, stopRuns := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRuns()
	running := a.parts.run(runs, failed)
	if err = a.open(broken); err == nil {
		<-broken.Done()
	}
	return errors.Join(why(err), a.stop(context.WithoutCancel(ctx), stopWeb, stopRuns, running.Wait))
}

// start opens the database and builds the parts.
func (a *App) start(ctx context.Context) error {
	began := time.Now()
	core, err := openCore(ctx, a)
	if err != nil {
		return err
	}
	a.parts, err = build(core)
	if err != nil {
		return errors.Join(err, core.close())
	}
	a.log.Debug("built", "took", time.Since(began).String())
	return nil
}

// open lets requests in.
func (a *App) open(ctx context.Context) error {
	if a.cfg.Dev {
		if err := seed(ctx, a); err != nil {
			return fmt.Errorf("prepare the development server: %w", err)
		}
	}
	a.phase.Store(&phase{name: "ready", handler: a.parts.handler()})
	close(a.ready)
	a.log.Info("ready", "addr", a.Addr(), "url", a.URL(), "data", a.cfg.Data, "roles", a.cfg.Roles.String(), "version", a.cfg.Version)
	return nil
}

func (a *App) doing(what string) {
	a.phase.Store(&phase{name: "starting", doing: what})
}

// Of the drain timeout, deliveries may take four fifths: streams and requests
// are quick once nothing new comes.
const deliveryShare = 0.8

// stop ends what runs, in the reverse order of its start. What does not end in
// time is cut off; its work is pending in the database.
func (a *App) stop(ctx context.Context, web func(context.Context) error, stopRuns func(), wait func() error) error {
	began := time.Now()
	a.phase.Store(&phase{name: "draining", doing: "finishing what is in flight", handler: a.phase.Load().handler})
	close(a.draining)
	a.log.Info("draining", "timeout", a.cfg.DrainTimeout.String())
	all, cancel := context.WithTimeout(ctx, a.cfg.DrainTimeout)
	defer cancel()
	deliveries, cancel := context.WithTimeout(all, time.Duration(float64(a.cfg.DrainTimeout)*deliveryShare))
	defer cancel()
	// What was cut off is said here and is no failure: it goes on after the next start.
	if err := a.parts.delivery.Stop(deliveries); err != nil {
		a.log.Warn("deliveries were cut off; they are repeated after the next start", "err", err)
	}
	a.parts.messaging.EndWaits() // nothing more comes of what they wait for
	if err := a.parts.hub.Shutdown(all); err != nil {
		a.log.Warn("streams were cut off", "err", err)
	}
	if err := web(all); err != nil {
		a.log.Warn("requests were cut off", "err", err)
	}
	stopRuns()
	err := errors.Join(wait(), a.parts.close())
	a.log.Info("stopped", "took", time.Since(began).String())
	return err
}
