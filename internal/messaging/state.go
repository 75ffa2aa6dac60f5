package messaging

import (
	"context"
	"errors"
	"maps"

	"github.com/go-json-experiment/json"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/once"
	"parley/internal/sqldb"
)

// State is a small document that hangs on a conversation, a user, a bot or an
// installation under a name. The bot and each installation have a space of
// their own.
type State struct {
	ID             string     `json:"id"`
	CreatedAt      api.Time   `json:"createdAt"`
	UpdatedAt      api.Time   `json:"updatedAt"`
	BotID          string     `json:"botId"`
	ConversationID string     `json:"conversationId,omitempty"`
	UserID         string     `json:"userId,omitempty"`
	Name           string     `json:"name"`
	Type           string     `json:"type"`
	Payload        api.Object `json:"payload"`

	InstallationID string `json:"-"`
	OwnerID        string `json:"-"` // the conversation, user, bot or installation
}

// Columns binds the columns of table states.
func (t *State) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "id", Field: &t.ID},
		{Name: "bot_id", Field: &t.BotID},
		{Name: "installation_id", Field: &t.InstallationID},
		{Name: "type", Field: &t.Type},
		{Name: "owner_id", Field: &t.OwnerID},
		{Name: "name", Field: &t.Name},
		{Name: "payload", Field: sqldb.JSON(&t.Payload)},
		{Name: "created_at", Field: (*int64)(&t.CreatedAt)},
		{Name: "updated_at", Field: (*int64)(&t.UpdatedAt)},
	}
}

func (s *Service) stateOps() []api.Op {
	return []api.Op{
		api.Handle("getState", "GET /v1/chat/states/{type}/{id}/{name}", auth.Runtime, s.getState, api.Doc("Returns a state.")),
		api.Handle("setState", "POST /v1/chat/states/{type}/{id}/{name}", auth.Runtime, s.setState, api.Doc("Sets a state; a null payload deletes it.")),
		api.Handle("getOrSetState", "POST /v1/chat/states/{type}/{id}/{name}/get-or-set", auth.Runtime, s.getOrSetState, api.Doc("Returns a state, setting it if there is none.")),
		api.Handle("patchState", "PATCH /v1/chat/states/{type}/{id}/{name}", auth.Runtime, s.patchState, api.Doc("Merges members into a state; null removes one.")),
	}
}

// stateRef names a state in a path.
type stateRef struct {
	Type string `path:"type"`
	ID   string `path:"id"`
	Name string `path:"name"`
	As   string `header:"x-integration-id"` // the version id the caller acts as
}

// stateKey is a stateRef that has been checked: whose space, hanging on what.
type stateKey struct{ botID, installationID, typ, ownerID, name string }

func (k stateKey) missing() error {
	return fault.ResourceNotFound.New("State %q of %s %q doesn't exist for bot %q", k.name, k.typ, k.ownerID, k.botID)
}

// stateKey checks what the state hangs on. For writing it also checks that the
// caller declares the state.
func (s *Service) stateKey(q sqldb.Q, c Caller, in stateRef, write bool) (stateKey, error) {
	k := stateKey{botID: c.Bot.ID, installationID: c.Owner(), typ: in.Type, ownerID: in.ID, name: in.Name}
	if len(in.Name) > 200 {
		return k, fault.InvalidPayload.New("name must have at most 200 characters")
	}
	var err error
	switch in.Type {
	case "conversation":
		_, err = s.Conversation(q, c, in.ID)
	case "user":
		_, err = s.User(q, c, in.ID)
	case "bot":
		if c.Installation != nil {
			return k, fault.Forbidden.New("states of type bot belong to the bot; an integration has conversation, user and integration states")
		}
		if in.ID != c.Bot.ID {
			return k, c.missing("Bot", in.ID)
		}
	case "integration":
		if c.Installation == nil {
			return k, fault.Forbidden.New("states of type integration belong to an integration; send x-integration-id")
		}
		// The id sent is a version id, which an upgrade changes: the state hangs on the installation.
		if in.ID != c.Installation.ID && in.ID != c.Installation.IntegrationID && in.ID != in.As {
			return k, c.missing("Integration", in.ID)
		}
		k.ownerID = c.Installation.ID
	case "task", "workflow":
		if c.Installation != nil {
			return k, fault.Forbidden.New("states of type %s belong to the bot; an integration has conversation, user and integration states", in.Type)
		}
		if in.Type == "task" {
			_, err = s.Task(q, c, in.ID)
		} else {
			_, err = s.Workflow(q, c, in.ID)
		}
	default:
		err = fault.InvalidPayload.New("type must be one of conversation, user, bot, integration, task, workflow")
	}
	if err != nil {
		return k, err
	}
	if typ, ok := c.Rules.States[in.Name]; write && len(c.Rules.States) > 0 && (!ok || typ != in.Type) {
		if ok {
			return k, fault.InvalidPayload.New("state %q is declared with type %q, not %q", in.Name, typ, in.Type)
		}
		return k, fault.InvalidPayload.New("state %q is not declared in the definition", in.Name)
	}
	return k, nil
}

// readState returns the state under a key, nil if there is none.
func readState(q sqldb.Q, k stateKey, lock string) (*State, error) {
	t, err := sqldb.One[State](q, "states", "WHERE bot_id = $1 AND installation_id = $2 AND type = $3 AND owner_id = $4 AND name = $5 "+lock,
		k.botID, k.installationID, k.typ, k.ownerID, k.name)
	if errors.Is(err, sqldb.ErrNoRow) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return t.named(), nil
}

// named fills the members that say what the state hangs on.
func (t *State) named() *State {
	switch t.Type {
	case "conversation":
		t.ConversationID = t.OwnerID
	case "user":
		t.UserID = t.OwnerID
	}
	return t
}

// addState makes the state under a key, or returns the one that is there.
func (s *Service) addState(tx *sqldb.Tx, k stateKey, payload api.Object) (t *State, added bool, err error) {
	now := s.now()
	t = &State{
		ID: id.At("state", now), CreatedAt: api.Time(now), UpdatedAt: api.Time(now), BotID: k.botID, Name: k.name, Type: k.typ, Payload: payload,
		InstallationID: k.installationID, OwnerID: k.ownerID,
	}
	if added, err = sqldb.Insert(tx, "states", t); err != nil || added {
		return t.named(), added, err
	}
	if t, err = readState(tx, k, "{for_update}"); err == nil && t == nil {
		err = k.missing() // deleted between the two statements
	}
	return t, false, err
}

// putState writes a new payload into a state.
func (s *Service) putState(tx *sqldb.Tx, t *State, payload api.Object) error {
	t.Payload, t.UpdatedAt = payload, api.Time(max(s.now(), int64(t.CreatedAt)))
	return sqldb.Update(tx, "states", t, sqldb.Column{Name: "id", Field: &t.ID})
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

func (s *Service) getState(ctx context.Context, in stateRef) (cachedStateResult, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return cachedStateResult{}, err
	}
	q := s.DB.Reader(ctx)
	k, err := s.stateKey(q, c, in, false)
	if err != nil {
		return cachedStateResult{}, err
	}
	t, err := readState(q, k, "")
	if err == nil && t == nil {
		err = k.missing()
	}
	return cachedStateResult{State: t}, err
}

type setStateInput struct {
	Type    string                   `path:"type"`
	ID      string                   `path:"id"`
	Name    string                   `path:"name"`
	As      string                   `header:"x-integration-id"`
	Payload api.Nullable[api.Object] `json:"payload"`
	Expiry  api.Nullable[float64]    `json:"expiry,omitempty" min:"1" max:"2592000000"`
}

// checkExpiry refuses an expiry: states that end by themselves are not built yet.
func checkExpiry(expiry api.Nullable[float64]) error {
	if expiry.Set && !expiry.Null {
		return fault.InvalidPayload.New("expiry is planned and not built yet in this version of Parley; leave it out")
	}
	return nil
}

// prepareState is what every write of a state does first, outside the transaction.
func (s *Service) prepareState(ctx context.Context, in stateRef, payload api.Object, expiry api.Nullable[float64]) (Caller, stateKey, error) {
	c, err := s.Caller(ctx)
	if err != nil {
		return c, stateKey{}, err
	}
	if err := checkExpiry(expiry); err != nil {
		return c, stateKey{}, err
	}
	if err := checkPayload("payload", payload); err != nil {
		return c, stateKey{}, err
	}
	k, err := s.stateKey(s.DB.Reader(ctx), c, in, true)
	return c, k, err
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
	at := stateRef{in.Type, in.ID, in.Name, in.As}
	c, k, err := s.prepareState(ctx, at, in.Payload.Value, in.Expiry)
	if err != nil {
		return stateResult{}, err
	}
	if in.Payload.Null {
		return s.deleteState(ctx, k)
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (stateResult, error) {
		if _, err := s.stateKey(tx, c, at, true); err != nil {
			return stateResult{}, err
		}
		t, added, err := s.addState(tx, k, in.Payload.Value)
		if err == nil && !added {
			err = s.putState(tx, t, in.Payload.Value)
		}
		return stateResult{t}, err
	})
}

// deleteState deletes a state and answers it with nothing in it.
func (s *Service) deleteState(ctx context.Context, k stateKey) (stateResult, error) {
	if t, err := readState(s.DB.Reader(ctx), k, ""); err != nil || t == nil {
		return stateResult{}, firstOf(err, k.missing())
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (stateResult, error) {
		t, err := readState(tx, k, "{for_update}")
		if err != nil || t == nil {
			return stateResult{}, firstOf(err, k.missing())
		}
		t.Payload = nil
		return stateResult{t}, sqldb.Delete(tx, "states", "WHERE id = $1", t.ID)
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
	Expiry  api.Nullable[float64] `json:"expiry,omitempty" min:"1" max:"2592000000"`
}

func (s *Service) getOrSetState(ctx context.Context, in getOrSetStateInput) (cachedStateResult, error) {
	at := stateRef{in.Type, in.ID, in.Name, in.As}
	c, k, err := s.prepareState(ctx, at, in.Payload, in.Expiry)
	if err != nil {
		return cachedStateResult{}, err
	}
	if t, err := readState(s.DB.Reader(ctx), k, ""); err != nil || t != nil {
		return cachedStateResult{State: t}, err // the ordinary case needs no transaction
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (cachedStateResult, error) {
		if _, err := s.stateKey(tx, c, at, true); err != nil {
			return cachedStateResult{}, err
		}
		t, _, err := s.addState(tx, k, in.Payload)
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
	at := stateRef{in.Type, in.ID, in.Name, in.As}
	c, k, err := s.prepareState(ctx, at, in.Payload, api.Nullable[float64]{})
	if err != nil {
		return stateResult{}, err
	}
	if t, err := readState(s.DB.Reader(ctx), k, ""); err != nil || t == nil {
		return stateResult{}, firstOf(err, k.missing())
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (stateResult, error) {
		if _, err := s.stateKey(tx, c, at, true); err != nil {
			return stateResult{}, err
		}
		t, err := readState(tx, k, "{for_update}")
		if err != nil || t == nil {
			return stateResult{}, firstOf(err, k.missing())
		}
		merged, err := mergeObjects(t.Payload, in.Payload)
		if err != nil {
			return stateResult{}, err
		}
		if err := checkPayload("payload", merged); err != nil {
			return stateResult{}, err
		}
		return stateResult{t}, s.putState(tx, t, merged)
	})
}

// mergeObjects merges the members of change into base; null removes a member.
func mergeObjects(base, change api.Object) (api.Object, error) {
	var members, changes map[string]api.Raw
	if err := json.Unmarshal(base, &members); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(change, &changes); err != nil {
		return nil, err
	}
	maps.Copy(members, changes)
	maps.DeleteFunc(members, func(_ string, v api.Raw) bool { return string(v) == "null" })
	return json.Marshal(members, json.Deterministic(true))
}
