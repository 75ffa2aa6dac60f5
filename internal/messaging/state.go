package messaging

import (
	"maps"
	"math"

	"github.com/go-json-experiment/json"

	"parley/internal/api"
	"parley/internal/fault"
	"parley/internal/sqldb"
)

// State is a small document that hangs on a conversation, a user, a bot, an
// installation, a workflow or a task under a name. The bot and each installation
// have a space of their own.
//
// A state may expire: when it has been idle, neither read nor written, for the
// length of time it was given, it is removed, and the bot gets one state_expired
// event with the state as it was. Of an installation's states nobody is told.
// A state is there until it has been removed, which on a busy server, or one
// that was down, is a little after its time; being used until then saves it.
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
	OwnerID        string `json:"-"` // the conversation, user, bot…
	Expiry         int64  `json:"-"` // idle time in milliseconds after which it expires, 0 = never
	ExpirySet      bool   `json:"-"` // by a request; otherwise it is the declared one
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
		{Name: "expiry", Field: &t.Expiry},
		{Name: "expiry_set", Field: &t.ExpirySet},
		{Name: "created_at", Field: (*int64)(&t.CreatedAt)},
		{Name: "updated_at", Field: (*int64)(&t.UpdatedAt)},
	}
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

// StateRule is what a definition says of a state.
type StateRule struct {
	Type   string
	Expiry float64 // milliseconds, unless a request says otherwise; 0 = none
	// Check holds a payload against the declared schema. nil accepts everything.
	Check func(payload api.Object) error
}

// state finds what the caller declares of a state, and refuses one that it does
// not declare if it declares any. States of workflows cannot be declared.
func (r *Rules) state(typ, name string) (StateRule, error) {
	rule, ok := r.States[name]
	switch {
	case ok && rule.Type == typ:
		return rule, nil
	case len(r.States) == 0 || typ == "workflow":
		return StateRule{}, nil
	case ok:
		return StateRule{}, fault.InvalidPayload.New("state %q is declared with type %q, not %q", name, rule.Type, typ)
	}
	return StateRule{}, fault.InvalidPayload.New("state %q is not declared in the definition", name)
}

// check refuses a payload that does not fit the declared schema.
func (r StateRule) check(payload api.Object) error {
	if r.Check == nil {
		return nil
	}
	return r.Check(payload)
}

// expires gives t the expiry that a request asks for. If it asks for none, t
// keeps the one of an earlier request, else gets the declared one.
func (r StateRule) expires(t *State, asked api.Nullable[float64]) {
	switch {
	case asked.Set:
		t.Expiry, t.ExpirySet = idleTime(asked.Value), true
	case !t.ExpirySet:
		t.Expiry = idleTime(r.Expiry)
	}
}

// idleTime is a length of time in whole milliseconds. Ten years are forever enough.
func idleTime(ms float64) int64 {
	return int64(math.Ceil(min(ms, float64(furthest.Milliseconds()))))
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
