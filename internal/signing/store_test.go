package signing_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/internal/auth"
	"parley/internal/bus"
	"parley/internal/signing"
	"parley/internal/sqldb"
	"parley/internal/sqldb/sqldbtest"
)

const (
	start = int64(1772366400000) // 2026-03-01T12:00:00Z
	owner = "bot_01AAAAAAAAAAAAAAAAAAAAAAAA"
)

type rig struct {
	*signing.Store
	clock *atomic.Int64
}

func newRig(t *testing.T, db *sqldb.DB, b bus.Bus, clock *atomic.Int64) rig {
	t.Helper()
	box, err := auth.NewBox(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	s, err := signing.NewStore(signing.Config{DB: db, Bus: b, Box: box, Now: func() time.Time { return time.UnixMilli(clock.Load()) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return rig{s, clock}
}

func each(t *testing.T, fn func(t *testing.T, r rig)) {
	t.Helper()
	sqldbtest.Each(t, func(t *testing.T, db *sqldb.DB) {
		var clock atomic.Int64
		clock.Store(start)
		fn(t, newRig(t, db, bus.NewLocal(), &clock))
	})
}

func (r rig) write(t *testing.T, fn func(tx *sqldb.Tx) error) {
	t.Helper()
	if err := r.DB.Write(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

func (r rig) create(t *testing.T, owner string) {
	t.Helper()
	r.write(t, func(tx *sqldb.Tx) error { return r.Create(tx, owner) })
}

func (r rig) rotate(t *testing.T, owner string, keep time.Duration) []signing.Secret {
	t.Helper()
	var list []signing.Secret
	r.write(t, func(tx *sqldb.Tx) (err error) {
		list, err = r.Rotate(tx, owner, keep)
		return err
	})
	return list
}

func (r rig) list(t *testing.T, owner string) []signing.Secret {
	t.Helper()
	list, err := r.List(r.DB.Reader(t.Context()), owner)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// signs reports which of the secrets sign what goes out for owner now.
func (r rig) signs(t *testing.T, owner string, secrets ...auth.Secret) []bool {
	t.Helper()
	s, err := r.Signer(t.Context(), owner)
	if err != nil {
		t.Fatal(err)
	}
	h := http.Header{signing.HeaderID: {"m"}}
	s.Sign(h, []byte("{}"))
	out := make([]bool, len(secrets))
	for i, secret := range secrets {
		out[i] = signing.Verify(h, []byte("{}"), r.Now(), secret) == nil
	}
	return out
}

func TestCreateGivesOneSecret(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r rig) {
		if s, err := r.Signer(t.Context(), owner); s != nil || err != nil {
			t.Errorf("before there is a secret: %v, %v", s, err)
		}
		if one, err := r.Current(r.DB.Reader(t.Context()), owner); one != "" || err != nil {
			t.Errorf("before there is a secret: %q, %v", string(one), err)
		}
		r.create(t, owner)
		first := r.list(t, owner)
		r.clock.Add(1000)
		r.create(t, owner) // again changes nothing
		r.create(t, "workspace/name")
		if d := cmp.Diff(first, r.list(t, owner)); d != "" || len(first) != 1 || !first[0].CreatedAt.Equal(time.UnixMilli(start)) || !first[0].RetiresAt.IsZero() {
			t.Errorf("secrets are %v; %s", first, d)
		}
		current, err := r.Current(r.DB.Reader(t.Context()), owner)
		if err != nil || current != first[0].Text {
			t.Errorf("the current one differs (%v)", err)
		}
		other := r.list(t, "workspace/name")[0].Text
		if got := r.signs(t, owner, current, other); !got[0] || got[1] {
			t.Errorf("own, other's: %v", got)
		}
	})
}

func TestRotateLetsTheOldSecretSignAlong(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r rig) {
		r.create(t, owner)
		first := r.list(t, owner)[0]
		if got := r.signs(t, owner, first.Text); !got[0] { // and is remembered
			t.Fatal("the first secret does not sign")
		}
		r.clock.Add(5000)
		list := r.rotate(t, owner, time.Hour)
		second := list[0]
		want := []signing.Secret{
			{Text: second.Text, CreatedAt: time.UnixMilli(start + 5000)},
			{Text: first.Text, CreatedAt: time.UnixMilli(start), RetiresAt: time.UnixMilli(start + 5000).Add(time.Hour)},
		}
		if d := cmp.Diff(want, list) + cmp.Diff(want, r.list(t, owner)); d != "" || second.Text == first.Text {
			t.Error(d)
		}
		if got := r.signs(t, owner, second.Text, first.Text); !got[0] || !got[1] {
			t.Errorf("new, old: %v", got)
		}
		r.clock.Add(time.Hour.Milliseconds() - 1)
		if got := r.signs(t, owner, second.Text, first.Text); !got[1] {
			t.Error("the old secret ceased to sign too early")
		}
		r.clock.Add(1)
		if got := r.signs(t, owner, second.Text, first.Text); !got[0] || got[1] {
			t.Errorf("when the old one has retired, new, old: %v", got)
		}
		if list := r.list(t, owner); len(list) != 1 || list[0].Text != second.Text {
			t.Errorf("%d secrets are listed", len(list))
		}
	})
}

func TestRotateKeepsTwoAtMost(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r rig) {
		first := r.rotate(t, owner, time.Hour)
		if len(first) != 1 {
			t.Fatalf("an owner without a secret got %d", len(first))
		}
		second := r.rotate(t, owner, time.Hour)
		third := r.rotate(t, owner, time.Minute)
		if got := r.signs(t, owner, third[0].Text, second[0].Text, first[0].Text); !got[0] || !got[1] || got[2] {
			t.Errorf("third, second, first: %v", got)
		}
		at := r.rotate(t, owner, 0)
		if got := r.signs(t, owner, at[0].Text, third[0].Text); len(at) != 1 || !got[0] || got[1] {
			t.Errorf("replaced at once, %d secrets: %v", len(at), got)
		}
	})
}

func TestDelete(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r rig) {
		r.create(t, owner)
		secret := r.list(t, owner)[0].Text
		_ = r.signs(t, owner, secret) // so that it is remembered
		for range 2 {
			r.write(t, func(tx *sqldb.Tx) error { return r.Delete(tx, owner) })
		}
		if s, err := r.Signer(t.Context(), owner); s != nil || err != nil || len(r.list(t, owner)) != 0 {
			t.Errorf("after it was deleted: %v, %v", s, err)
		}
	})
}

// A node that did not rotate signs with the new secret as soon as the bus told it.
func TestRotateReachesOtherNodes(t *testing.T) {
	t.Parallel()
	sqldbtest.Pair(t, func(t *testing.T, a, b *sqldb.DB) {
		var clock atomic.Int64
		clock.Store(start)
		wire := bus.NewLocal()
		here, there := newRig(t, a, wire, &clock), newRig(t, b, wire, &clock)
		here.create(t, owner)
		first := here.list(t, owner)[0].Text
		if got := there.signs(t, owner, first); !got[0] {
			t.Fatal("the other node does not sign")
		}
		dropped := make(chan struct{}, 1)
		defer wire.Subscribe("cache.signing", func([]byte) { dropped <- struct{}{} })()
		second := here.rotate(t, owner, 0)[0].Text
		<-dropped
		if got := there.signs(t, owner, second, first); !got[0] || got[1] {
			t.Errorf("on the other node new, old: %v", got)
		}
	})
}

func TestSecretsAreSealed(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, r rig) {
		r.create(t, owner)
		r.create(t, "another")
		list := r.rotate(t, owner, time.Hour)
		q := r.DB.Reader(t.Context())
		var kept []string
		for _, column := range []string{"secret", "previous"} {
			sealed, err := sqldb.Scalar[[]byte](q, "SELECT "+column+" FROM signing_secrets WHERE owner = $1", owner)
			if err != nil {
				t.Fatal(err)
			}
			kept = append(kept, string(sealed))
		}
		for _, one := range list {
			if strings.Contains(strings.Join(kept, ""), string(one.Text)[6:20]) {
				t.Error("a secret stands in clear")
			}
		}
		// What was copied to another owner's row stays closed.
		r.write(t, func(tx *sqldb.Tx) error {
			_, err := tx.Exec("UPDATE signing_secrets SET secret = $1 WHERE owner = 'another'", []byte(kept[0]))
			return err
		})
		if _, err := r.List(q, "another"); err == nil || !strings.Contains(err.Error(), "another") {
			t.Errorf("a secret opens for another owner: %v", err)
		}
		if _, err := r.Signer(context.Background(), "another"); err == nil {
			t.Error("a secret that does not open signs")
		}
	})
}

func TestNewStoreNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	if _, err := signing.NewStore(signing.Config{Bus: bus.NewLocal(), Box: &auth.Box{}, Now: time.Now}); err == nil || !strings.Contains(err.Error(), "Config.DB") {
		t.Errorf("got %v", err)
	}
}
