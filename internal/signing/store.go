package signing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"parley/internal/auth"
	"parley/internal/bus"
	"parley/internal/cache"
	"parley/internal/sqldb"
)

// Config are the parts a Store needs.
type Config struct {
	DB  *sqldb.DB
	Bus bus.Bus
	Box *auth.Box
	Now func() time.Time
	// MaxAge bounds how long what is kept in memory is believed without looking
	// again. 0 is right when no other process writes the database.
	MaxAge time.Duration
}

// Store keeps the secrets of owners, sealed.
type Store struct {
	Config
	signers *cache.Cache[Signer]
}

// cached is the number of signers that are kept in memory.
const cached = 10_000

// NewStore checks c and returns a ready Store. Close it when nothing is signed any more.
func NewStore(c Config) (*Store, error) {
	for name, missing := range map[string]bool{"DB": c.DB == nil, "Bus": c.Bus == nil, "Box": c.Box == nil, "Now": c.Now == nil} {
		if missing {
			return nil, errors.New("signing: Config." + name + " is missing")
		}
	}
	s := &Store{Config: c}
	s.signers = cache.New(cache.Config[Signer]{Load: s.load, Max: cached, MaxAge: c.MaxAge, Now: c.Now, Bus: c.Bus, Topic: "cache.signing"})
	return s, nil
}

// Close ends what the Store listens to.
func (s *Store) Close() { s.signers.Close() }

// row is a row of table signing_secrets.
type row struct {
	owner      string
	sealed     []byte
	createdAt  int64
	previous   []byte // the secret before, sealed; empty = none
	previousAt int64  // when that was made
	retiresAt  int64  // when that ceases to sign
}

// Columns binds the columns of table signing_secrets.
func (r *row) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "owner", Field: &r.owner},
		{Name: "secret", Field: &r.sealed},
		{Name: "created_at", Field: &r.createdAt},
		{Name: "previous", Field: &r.previous},
		{Name: "previous_at", Field: &r.previousAt},
		{Name: "retires_at", Field: &r.retiresAt},
	}
}

// Secret is a secret in use.
type Secret struct {
	Text      auth.Secret
	CreatedAt time.Time
	RetiresAt time.Time // zero = not yet known
}

// Signer finds what signs for an owner; nil, nil means that it has no secret.
// The answer comes from memory and takes no lock.
func (s *Store) Signer(ctx context.Context, owner string) (*Signer, error) {
	return s.signers.Get(ctx, owner)
}

// load reads a signer for the cache. A secret that retires is in it: the signer
// itself looks at the time.
func (s *Store) load(ctx context.Context, owner string) (*Signer, error) {
	list, err := s.List(s.DB.Reader(ctx), owner)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	out := &Signer{now: s.Now}
	for _, one := range list {
		out.keys = append(out.keys, newKey(one.Text, one.RetiresAt))
	}
	return out, nil
}

// List reads the secrets of an owner that are in use, the newest first.
func (s *Store) List(q sqldb.Q, owner string) ([]Secret, error) {
	r, err := sqldb.One[row](q, "signing_secrets", "WHERE owner = $1", owner)
	if errors.Is(err, sqldb.ErrNoRow) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return s.open(r)
}

// Current reads the newest secret of an owner, "" if it has none.
func (s *Store) Current(q sqldb.Q, owner string) (auth.Secret, error) {
	list, err := s.List(q, owner)
	if err != nil || len(list) == 0 {
		return "", err
	}
	return list[0].Text, nil
}

func (s *Store) open(r *row) ([]Secret, error) {
	text, err := s.Box.Open(r.sealed, sealedFor(r.owner))
	if err != nil {
		return nil, fmt.Errorf("signing secret of %s: %w", r.owner, err)
	}
	list := []Secret{{Text: auth.Secret(text), CreatedAt: time.UnixMilli(r.createdAt)}}
	if retires := time.UnixMilli(r.retiresAt); len(r.previous) > 0 && s.Now().Before(retires) {
		if text, err = s.Box.Open(r.previous, sealedFor(r.owner)); err != nil {
			return nil, fmt.Errorf("signing secret of %s: %w", r.owner, err)
		}
		list = append(list, Secret{auth.Secret(text), time.UnixMilli(r.previousAt), retires})
	}
	return list, nil
}

func sealedFor(owner string) string { return owner + "/signing-secret" }

func (s *Store) fresh(owner string) *row {
	return &row{
		owner: owner, sealed: s.Box.Seal([]byte(NewSecret()), sealedFor(owner)), createdAt: s.Now().UnixMilli(),
		previous: []byte{},
	}
}

// Create gives an owner a secret, unless it has one.
func (s *Store) Create(tx *sqldb.Tx, owner string) error {
	added, err := sqldb.Insert(tx, "signing_secrets", s.fresh(owner))
	if added {
		s.announce(tx, owner)
	}
	return err
}

// Rotate gives an owner a new secret. The one it had signs along for a while
// more; one that did so until now ceases to.
func (s *Store) Rotate(tx *sqldb.Tx, owner string, keep time.Duration) ([]Secret, error) {
	r := s.fresh(owner)
	old, err := sqldb.One[row](tx, "signing_secrets", "WHERE owner = $1 {for_update}", owner)
	switch {
	case errors.Is(err, sqldb.ErrNoRow):
		_, err = sqldb.Insert(tx, "signing_secrets", r)
	case err == nil:
		if keep > 0 {
			r.previous, r.previousAt, r.retiresAt = old.sealed, old.createdAt, s.Now().Add(keep).UnixMilli()
		}
		err = sqldb.Update(tx, "signing_secrets", r, sqldb.Column{Name: "owner", Field: &r.owner})
	}
	if err != nil {
		return nil, err
	}
	s.announce(tx, owner)
	return s.open(r)
}

// Delete removes the secrets of an owner.
func (s *Store) Delete(tx *sqldb.Tx, owner string) error {
	_, err := tx.Exec("DELETE FROM signing_secrets WHERE owner = $1", owner)
	s.announce(tx, owner)
	return err
}

// announce tells whoever remembers the owner's secrets that they have changed.
func (s *Store) announce(tx *sqldb.Tx, owner string) {
	tx.AfterCommit(func() { s.signers.Drop(owner) })
}
