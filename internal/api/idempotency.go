package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/once"
)

const (
	// maxKey is the length of an idempotency key.
	maxKey = 255
	// minStrangersKey is that of a key sent without a credential. Strangers share
	// a scope, and an answer must not be had by guessing its key.
	minStrangersKey = 20
)

// once prepares a write that carries an idempotency key: it looks for the first
// answer, refuses a twin of a request that is being carried out, and puts the
// key into the context for once.Write. A first answer comes back as an error.
func (c *call) once(ctx context.Context) (context.Context, error) {
	given := c.r.Header["Idempotency-Key"]
	if len(given) == 0 || !writes(c.op.Method) {
		return ctx, nil
	}
	if len(given) > 1 || !printable(given[0], maxKey) {
		return nil, fault.InvalidPayload.New("The header Idempotency-Key must be 1 to %d printable ASCII characters", maxKey)
	}
	if c.principal.Kind == auth.Anonymous && len(given[0]) < minStrangersKey {
		return nil, fault.InvalidPayload.New("The header Idempotency-Key must have at least %d characters in a request without a credential, so that nobody guesses it", minStrangersKey)
	}
	if c.api.DB == nil {
		return nil, fault.InvalidPayload.New("The header Idempotency-Key is of no use here: this server keeps no answers")
	}
	k := &once.Key{Scope: c.principal.Scope() + "|" + c.api.Name + "|" + c.op.ID, Text: given[0], Request: c.digest(), Now: c.start, Box: c.api.Box}
	flight := k.Scope + "\n" + k.Text
	if !c.api.flights.start(flight) {
		return nil, k.Busy()
	}
	c.flight, c.key = flight, k
	if err := k.Look(ctx, c.api.DB); err != nil {
		return nil, err
	}
	return once.With(ctx, k), nil
}

// digest is a hash of what is asked: path, query and the body's JSON, however
// it was spaced and ordered. How long the client waits for what comes of it is
// no part of that.
func (c *call) digest() string {
	h := sha256.New()
	io.WriteString(h, c.r.URL.EscapedPath())
	h.Write([]byte{'\n'})
	io.WriteString(h, c.op.in.asked(c.r.URL.RawQuery))
	h.Write([]byte{'\n'})
	if c.body.Len() > 0 {
		text, err := jsontext.AppendFormat(nil, c.body.Bytes(), jsontext.ReorderRawObjects(true), jsontext.AllowDuplicateNames(true))
		if err != nil {
			text = c.body.Bytes()
		}
		h.Write(text)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// keep stores the answer of an operation that wrote nothing under its key itself.
func (c *call) keep(ctx context.Context) error {
	if c.key == nil || c.key.Written() || !c.op.replays {
		return nil
	}
	err := c.key.Store(ctx, c.api.DB, c.out.Bytes())
	if _, replay := errors.AsType[*once.Replay](err); replay || err == nil {
		return err
	}
	// The operation has taken effect; its client gets the answer whether or not a twin will.
	c.api.Log.LogAttrs(ctx, slog.LevelWarn, "answer not kept under its idempotency key", c.about(slog.Any("err", err))...)
	return nil
}

// flights are the keyed requests being carried out in this process.
type flights struct {
	mu  sync.Mutex
	now map[string]struct{}
}

func (f *flights) start(key string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, busy := f.now[key]; busy {
		return false
	}
	if f.now == nil {
		f.now = map[string]struct{}{}
	}
	f.now[key] = struct{}{}
	return true
}

func (f *flights) land(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.now, key)
}

// noted remembers which unknown members were logged.
type noted struct {
	mu   sync.Mutex
	seen map[string]bool
}

// maxNoted bounds that memory; what comes later is not logged.
const maxNoted = 1000

// noteUnknown logs a member that an open operation does not know, once.
func (c *call) noteUnknown(name string) {
	n := &c.api.noted
	key := c.op.ID + " " + short(name)
	n.mu.Lock()
	first := !n.seen[key] && len(n.seen) < maxNoted
	if first {
		if n.seen == nil {
			n.seen = map[string]bool{}
		}
		n.seen[key] = true
	}
	n.mu.Unlock()
	if first {
		c.api.Log.LogAttrs(c.r.Context(), slog.LevelWarn, "accepted a body member that is not in the published schema",
			slog.String("operation", c.op.ID), slog.String("member", short(name)))
	}
}
