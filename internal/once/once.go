// Package once makes a repeated write take effect once. A request that carries
// an idempotency key leaves its answer in the same transaction as its effect;
// the same request under the same key then gets that answer again.
//
// The effect and the key commit together, so a crash leaves both or neither.
// Keys belong to a principal and an operation, are kept for a day, and keep
// answers of up to 128 KB. A failed write leaves no key behind: it may be tried
// again under the same one.
package once

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/sqldb"
)

const (
	// MaxAnswer is the size up to which an answer is kept, in bytes.
	MaxAnswer = 128 << 10
	// Kept is how long a key protects its request.
	Kept = 24 * time.Hour
)

// Key is the idempotency key of one request. It is used by one request at a time.
type Key struct {
	Scope   string // whose key it is and for which operation
	Text    string // what the client sent
	Request string // hash of what was asked, so that another request under the key is noticed
	Now     time.Time
	// Box seals answers at rest: some hold tokens and secrets. nil keeps them in clear.
	Box *auth.Box

	written bool
}

// Written reports whether an effect and its answer were committed under the key.
func (k *Key) Written() bool { return k.written }

type contextKey struct{}

// With returns a context that carries k.
func With(ctx context.Context, k *Key) context.Context {
	return context.WithValue(ctx, contextKey{}, k)
}

// From returns the key of ctx, nil if the request carried none.
func From(ctx context.Context) *Key {
	k, _ := ctx.Value(contextKey{}).(*Key)
	return k
}

// Replay is the error that hands over the first answer instead of a second effect.
type Replay struct {
	Answer []byte // JSON, as it was sent the first time
}

func (*Replay) Error() string { return "once: the request was carried out before" }

// Write runs fn in one durable transaction and returns what fn made. With a key
// in ctx the answer is stored in the same transaction. If the key was used
// before, fn does not run: the error is a *Replay for the same request, and a
// fault for another one (InvalidPayload) or when the first answer was too large
// to keep (AlreadyExists).
//
// fn may run again, as in [sqldb.DB.Write]. A request writes once: a second
// Write under one key is refused.
func Write[T any](ctx context.Context, db *sqldb.DB, fn func(tx *sqldb.Tx) (T, error)) (T, error) {
	k := From(ctx)
	var zero T
	if k != nil && k.written {
		return zero, errors.New("once: a second Write under one idempotency key")
	}
	var out T
	err := db.Write(ctx, func(tx *sqldb.Tx) error {
		var err error
		if k == nil {
			out, err = fn(tx)
			return err
		}
		if err = k.claim(tx); err != nil {
			return err
		}
		if out, err = fn(tx); err != nil {
			return err
		}
		return k.answer(tx, out)
	})
	if err != nil {
		// The closure may still be running when ctx ended: out is not ours to read.
		return zero, err
	}
	if k != nil {
		k.written = true
	}
	return out, nil
}

// Look finds the first answer to the request of k. It returns a *Replay or a
// fault as Write does, nil if the key was not used yet.
func (k *Key) Look(ctx context.Context, db *sqldb.DB) error {
	row, err := k.read(db.Reader(ctx))
	if errors.Is(err, sqldb.ErrNoRow) || err == nil && row.expired(k.Now) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up idempotency key: %w", err)
	}
	return k.judge(row)
}

// Store keeps the answer of an operation that made no transaction of its own.
func (k *Key) Store(ctx context.Context, db *sqldb.DB, answer []byte) error {
	err := db.Write(ctx, func(tx *sqldb.Tx) error {
		if err := k.claim(tx); err != nil {
			return err
		}
		return k.keep(tx, answer)
	})
	if err == nil {
		k.written = true
	}
	return err
}

// Sweep removes keys that have expired, at most 500 of them, and reports how
// many: call it again until none is left.
func Sweep(ctx context.Context, db *sqldb.DB, now time.Time) (n int, err error) {
	const chunk = 500
	err = db.Write(ctx, func(tx *sqldb.Tx) error {
		gone, err := tx.Exec(`DELETE FROM idempotency WHERE (scope, key) IN
			(SELECT scope, key FROM idempotency WHERE created_at < $1 ORDER BY created_at LIMIT $2)`, now.Add(-Kept).UnixMilli(), chunk)
		n = int(gone)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("sweep idempotency keys: %w", err)
	}
	return n, nil
}

// stored is a row of the table idempotency.
type stored struct {
	Scope, Key, Request, Answer string
	CreatedAt                   int64
}

// Columns binds the columns of table idempotency.
func (s *stored) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "scope", Field: &s.Scope},
		{Name: "key", Field: &s.Key},
		{Name: "request", Field: &s.Request},
		{Name: "answer", Field: &s.Answer},
		{Name: "created_at", Field: &s.CreatedAt},
	}
}

func (s *stored) expired(now time.Time) bool {
	return s.CreatedAt < now.Add(-Kept).UnixMilli()
}

func (k *Key) read(q sqldb.Q) (*stored, error) {
	return sqldb.One[stored](q, "idempotency", "WHERE scope = $1 AND key = $2", k.Scope, k.Text)
}

// claim takes the key for this transaction before anything else is locked, so
// that twins wait for each other here and hold nothing else. The row has no
// answer yet; nobody sees it like that, for it commits with one.
func (k *Key) claim(tx *sqldb.Tx) error {
	row := &stored{k.Scope, k.Text, k.Request, "", k.Now.UnixMilli()}
	added, err := sqldb.Insert(tx, "idempotency", row)
	if err != nil || added {
		return err
	}
	before, err := k.read(tx)
	if err != nil {
		return err
	}
	if !before.expired(k.Now) {
		return k.judge(before)
	}
	n, err := tx.Exec("UPDATE idempotency SET request = $1, answer = '', created_at = $2 WHERE scope = $3 AND key = $4 AND created_at = $5",
		k.Request, k.Now.UnixMilli(), k.Scope, k.Text, before.CreatedAt)
	if err == nil && n == 0 {
		return k.Busy()
	}
	return err
}

// judge decides what a request gets whose key has been used.
func (k *Key) judge(before *stored) error {
	if before.Request != k.Request {
		return fault.InvalidPayload.New("Idempotency-Key %q was used for another request before; send a new key with a new request", k.Text)
	}
	if before.Answer == "" {
		return fault.AlreadyExists.New("The request with Idempotency-Key %q was carried out before; its answer has more than %d KB and was not kept, so read the resource instead", k.Text, MaxAnswer>>10)
	}
	answer, err := k.open(before.Answer)
	if err != nil {
		return fmt.Errorf("read the answer kept under an idempotency key: %w", err)
	}
	return &Replay{answer}
}

// sealed marks an answer that is sealed; JSON never begins so.
const sealed = "sealed:"

func (k *Key) seal(answer []byte) string {
	if k.Box == nil {
		return string(answer)
	}
	return sealed + base64.StdEncoding.EncodeToString(k.Box.Seal(answer, k.Scope+"\n"+k.Text))
}

func (k *Key) open(text string) ([]byte, error) {
	text, is := strings.CutPrefix(text, sealed)
	if !is {
		return []byte(text), nil
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	if k.Box == nil {
		return nil, errors.New("it is sealed, and there is no key")
	}
	return k.Box.Open(b, k.Scope+"\n"+k.Text)
}

// Busy is the fault for a request whose twin is being carried out.
func (k *Key) Busy() error {
	return fault.ResourceLocked.New("A request with Idempotency-Key %q is being carried out; send it again in a moment", k.Text)
}

func (k *Key) answer(tx *sqldb.Tx, out any) error {
	b, err := json.Marshal(out, json.Deterministic(true), jsontext.PreserveRawStrings(true))
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	return k.keep(tx, b)
}

// keep stores an answer; one that is too large stays empty, which marks it.
func (k *Key) keep(tx *sqldb.Tx, answer []byte) error {
	if len(answer) > MaxAnswer {
		return nil
	}
	return tx.Send("UPDATE idempotency SET answer = $1 WHERE scope = $2 AND key = $3", k.seal(answer), k.Scope, k.Text)
}
