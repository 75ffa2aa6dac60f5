package app

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"parley/internal/api"
	"parley/internal/fault"
	"parley/internal/sqldb"
)

// serve is the outermost handler: health and metrics answer at all times,
// everything else once the server is ready.
func (a *App) serve(w http.ResponseWriter, r *http.Request) {
	p := a.phase.Load()
	switch strings.TrimSuffix(r.URL.Path, "/") {
	case "/healthz":
		api.Head(w, r)
		plain(w, http.StatusOK, "ok")
	case "/readyz":
		api.Head(w, r)
		a.readyz(w, r, p)
	case "/metrics":
		api.Head(w, r)
		a.metrics.ServeHTTP(w, r)
	default:
		if p.handler == nil {
			api.Head(w, r)
			notYet(w, p)
			return
		}
		p.handler.ServeHTTP(w, r)
	}
}

// readyTimeout bounds the look at the database.
const readyTimeout = 2 * time.Second

func (a *App) readyz(w http.ResponseWriter, r *http.Request, p *phase) {
	if p.name != "ready" {
		plain(w, http.StatusServiceUnavailable, p.name+": "+p.doing)
		return
	}
	if err := a.cfg.Roles.asked(r); err != nil {
		plain(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	if _, err := sqldb.Scalar[int64](a.parts.db.Reader(ctx), "SELECT 1"); err != nil {
		a.log.Warn("the database does not answer", "err", err)
		plain(w, http.StatusServiceUnavailable, "the database does not answer")
		return
	}
	plain(w, http.StatusOK, "ready")
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // a client that left needs no answer
}

// notYet refuses a request to a server that is starting, in the way that makes
// official clients ask again in a second.
func notYet(w http.ResponseWriter, p *phase) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Retry-After", "1")
	f := fault.RateLimited.New("Parley is %s (%s); try again in a second", p.name, p.doing)
	w.WriteHeader(f.Kind.Status)
	_ = json.NewEncoder(w).Encode(f.Body(time.Now())) // likewise
}

// firstSegment is the first segment of an escaped path, without slashes.
func firstSegment(path string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return first
}
