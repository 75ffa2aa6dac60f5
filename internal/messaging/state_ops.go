package messaging

import (
	"bytes"
	"context"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/once"
	"parley/internal/sqldb"
)

func (s *Service) stateOps() []api.Op {
	return []api.Op{
		api.Handle("setStateExpiry", "POST /v1/chat/states/{type}/{id}/{name}/expiry", auth.Runtime, s.setStateExpiry, api.Doc("Sets the time after which a state expires if it is idle; null = never.")),
		api.Handle("getState", "GET /v1/chat/states/{type}/{id}/{name}", auth.Runtime, s.getState, api.Doc("Returns a state.")),
		api.Handle("setState", "POST /v1/chat/states/{type}/{id}/{name}", auth.Runtime, s.setState, api.Doc("Sets a state; a null payload deletes it."), api.Faults(fault.InvalidDataFormat)),
		api.Handle("getOrSetState", "POST /v1/chat/states/{type}/{id}/{name}/get-or-set", auth.Runtime, s.getOrSetState, api.Doc("Returns a state, setting it if there is none."), api.Faults(fault.InvalidDataFormat)),
		api.Handle("patchState", "PATCH /v1/chat/states/{type}/{id}/{name}", auth.Runtime, s.patchState, api.Doc("Merges members into a state; null removes one."), api.Faults(fault.InvalidDataFormat)),
	}
}

// stateRef names a state in a path.
type stateRef struct {
	Type string `path:"type"`
	ID   string `path:"id"`
	Name string `path:"name"`
	As   string `header:"x-integration-id"` // the version id the caller acts as
}

type cachedMeta struct {
	Cached bool `json:"cached"`
}

type stateResult struct {
	State *State `json:"state"`
}

type cachedStateResult struct {
	State *State     `json:"state"`
	Meta  cachedMeta `json:"meta"`
}

// stateWrite is a write of a state that has been checked outside the transaction.
type stateWrite struct {
	c    Caller
	at   stateRef
	key  stateKey
	rule StateRule
}

// writeState checks what every write of a state needs.
func (s *Service) writeState(ctx context.Context, at stateRef) (w stateWrite, err error) {
	w.at = at
	if w.c, err = s.Caller(ctx); err != nil {
		return w, err
	}
	if w.key, err = s.stateKey(s.DB.Reader(ctx), w.c, at); err != nil {
		return w, err
	}
	w.rule, err = w.c.Rules.state(at.Type, at.Name)
	return w, err
}

// admit checks a payload.
func (w stateWrite) admit(payload api.Object) error {
	if err := checkPayload("payload", payload); err != nil {
		return err
	}
	return w.rule.check(payload)
}

// again checks in the transaction that what the state hangs on is still there.
func (s *Service) again(tx *sqldb.Tx, w stateWrite) error {
	_, err := s.stateKey(tx, w.c, w.at)
	return err
}

// existing reads a state for a change of it.
func (s *Service) existing(tx *sqldb.Tx, w stateWrite) (*State, error) {
	if err := s.again(tx, w); err != nil {
		return nil, err
	}
	t, err := readState(tx, w.key, "{for_update}")
	if err == nil && t == nil {
		err = w.key.missing()
	}
	return t, err
}

func (s *Service) getState(ctx context.Context, in stateRef) (cachedStateResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return cachedStateResult{}, err
	}
	q := s.DB.Reader(ctx)
	k, err := s.stateKey(q, c, in)
	if err != nil {
		return cachedStateResult{}, err
	}
	t, err := readState(q, k, "")
	if err == nil && t == nil {
		err = k.missing()
	}
	if err == nil {
		s.used(t)
	}
	return cachedStateResult{State: t}, err
}

type setStateInput struct {
	Type    string                   `path:"type"`
	ID      string                   `path:"id"`
	Name    string                   `path:"name"`
	As      string                   `header:"x-integration-id"`
	Payload api.Nullable[api.Object] `json:"payload"`
	Expiry  api.Nullable[float64]    `json:"expiry,omitempty" min:"1" max:"2592000000" doc:"Milliseconds after which it expires if it is idle; null = never, absent = as before, else as declared."`
}

// Check refuses a request without a payload: null deletes the state, so its
// absence must not mean anything.
func (in setStateInput) Check() error {
	if !in.Payload.Set {
		return fault.InvalidPayload.New("payload is required; send null to delete the state")
	}
	return nil
}

func (s *Service) setState(ctx context.Context, in setStateInput) (stateResult, error) {
	w, err := s.writeState(ctx, stateRef{in.Type, in.ID, in.Name, in.As})
	if err != nil {
		return stateResult{}, err
	}
	if in.Payload.Null {
		return s.deleteState(ctx, w)
	}
	if err := w.admit(in.Payload.Value); err != nil {
		return stateResult{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (stateResult, error) {
		if err := s.again(tx, w); err != nil {
			return stateResult{}, err
		}
		t, added, err := s.addState(tx, w, in.Payload.Value, in.Expiry)
		if err == nil && !added {
			t.Payload = in.Payload.Value
			w.rule.expires(t, in.Expiry)
			err = s.putState(tx, t)
		}
		return stateResult{t}, err
	})
}

// deleteState deletes a state and answers it with nothing in it.
func (s *Service) deleteState(ctx context.Context, w stateWrite) (stateResult, error) {
	if t, err := readState(s.DB.Reader(ctx), w.key, ""); err != nil || t == nil {
		return stateResult{}, firstOf(err, w.key.missing())
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (stateResult, error) {
		t, err := readState(tx, w.key, "{for_update}")
		if err != nil || t == nil {
			return stateResult{}, firstOf(err, w.key.missing())
		}
		t.Payload = nil
		return stateResult{t}, s.dropState(tx, t)
	})
}

// firstOf is the first error that is one.
func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

type getOrSetStateInput struct {
	Type    string                `path:"type"`
	ID      string                `path:"id"`
	Name    string                `path:"name"`
	As      string                `header:"x-integration-id"`
	Payload api.Object            `json:"payload"`
	Expiry  api.Nullable[float64] `json:"expiry,omitempty" min:"1" max:"2592000000" doc:"Of a state that is made: milliseconds after which it expires if it is idle; null = never, absent = as declared."`
}

func (s *Service) getOrSetState(ctx context.Context, in getOrSetStateInput) (cachedStateResult, error) {
	w, err := s.writeState(ctx, stateRef{in.Type, in.ID, in.Name, in.As})
	if err != nil {
		return cachedStateResult{}, err
	}
	if err := w.admit(in.Payload); err != nil {
		return cachedStateResult{}, err
	}
	if t, err := readState(s.DB.Reader(ctx), w.key, ""); err != nil || t != nil {
		s.used(t) // the ordinary case needs no transaction
		return cachedStateResult{State: t}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (cachedStateResult, error) {
		if err := s.again(tx, w); err != nil {
			return cachedStateResult{}, err
		}
		t, added, err := s.addState(tx, w, in.Payload, in.Expiry)
		if err == nil && !added {
			err = s.keepState(tx, t)
		}
		return cachedStateResult{State: t}, err
	})
}

type patchStateInput struct {
	Type    string     `path:"type"`
	ID      string     `path:"id"`
	Name    string     `path:"name"`
	As      string     `header:"x-integration-id"`
	Payload api.Object `json:"payload"`
}

func (s *Service) patchState(ctx context.Context, in patchStateInput) (stateResult, error) {
	w, err := s.writeState(ctx, stateRef{in.Type, in.ID, in.Name, in.As})
	if err != nil {
		return stateResult{}, err
	}
	if err := checkPayload("payload", in.Payload); err != nil {
		return stateResult{}, err
	}
	before, err := readState(s.DB.Reader(ctx), w.key, "")
	if err != nil || before == nil {
		return stateResult{}, firstOf(err, w.key.missing())
	}
	merged, err := w.merge(before, in.Payload)
	if err != nil {
		return stateResult{}, err
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (stateResult, error) {
		t, err := s.existing(tx, w)
		if err != nil {
			return stateResult{}, err
		}
		now := merged
		if !bytes.Equal(t.Payload, before.Payload) { // changed meanwhile
			if now, err = w.merge(t, in.Payload); err != nil {
				return stateResult{}, err
			}
		}
		t.Payload = now
		w.rule.expires(t, api.Nullable[float64]{})
		return stateResult{t}, s.putState(tx, t)
	})
}

// merge is the payload of t with a change, checked.
func (w stateWrite) merge(t *State, change api.Object) (api.Object, error) {
	merged, err := mergeObjects(t.Payload, change)
	if err != nil {
		return nil, err
	}
	return merged, w.admit(merged)
}

type setStateExpiryInput struct {
	Type   string                `path:"type"`
	ID     string                `path:"id"`
	Name   string                `path:"name"`
	As     string                `header:"x-integration-id"`
	Expiry api.Nullable[float64] `json:"expiry" min:"1" max:"2592000000" doc:"Milliseconds after which it expires if it is idle; null = never."`
}

// Check refuses a request without an expiry: null means never, so its absence
// must not mean anything.
func (in setStateExpiryInput) Check() error {
	if !in.Expiry.Set {
		return fault.InvalidPayload.New("expiry is required; send null for a state that never expires")
	}
	return nil
}

func (s *Service) setStateExpiry(ctx context.Context, in setStateExpiryInput) (stateResult, error) {
	w, err := s.writeState(ctx, stateRef{in.Type, in.ID, in.Name, in.As})
	if err != nil {
		return stateResult{}, err
	}
	if t, err := readState(s.DB.Reader(ctx), w.key, ""); err != nil || t == nil {
		return stateResult{}, firstOf(err, w.key.missing())
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (stateResult, error) {
		t, err := s.existing(tx, w)
		if err != nil {
			return stateResult{}, err
		}
		w.rule.expires(t, in.Expiry)
		return stateResult{t}, s.saveExpiry(tx, t)
	})
}
