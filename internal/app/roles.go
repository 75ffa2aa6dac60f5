package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"parley/internal/api"
	"parley/internal/fault"
)

// Role is one kind of work. A server takes on all of them, or some where others
// share its database and have the rest.
type Role string

// The roles. What a server does for itself (health, metrics, its caches) belongs to none.
const (
	// RoleAPI answers requests: of the APIs, at the doors, and of those who wait.
	// What they wait for (?wait, actions, integrations behind a door) is called from here.
	RoleAPI Role = "api"
	// RoleRealtime serves listeners, over SSE and WebSocket.
	RoleRealtime Role = "realtime"
	// RoleDelivery takes events, messages and signals to bots, integrations and webhooks.
	RoleDelivery Role = "delivery"
	// RoleTimers does what happens at a time, and removes what has had its time.
	RoleTimers Role = "timers"
)

// Roles are those that a server has.
type Roles []Role

var allRoles = Roles{RoleAPI, RoleRealtime, RoleDelivery, RoleTimers}

// everything is all roles, as a setting.
const everything = "all"

func setRoles(c *Config, v string) error {
	if v == everything {
		c.Roles = allRoles
		return nil
	}
	c.Roles = nil
	for word := range strings.SplitSeq(v, ",") {
		r := Role(strings.TrimSpace(word))
		if !allRoles.has(r) {
			return fmt.Errorf("%q is none of api, realtime, delivery and timers, with commas between several, or all", r)
		}
		if !c.Roles.has(r) {
			c.Roles = append(c.Roles, r)
		}
	}
	return nil
}

func (rs Roles) has(r Role) bool { return slices.Contains(rs, r) }

func (rs Roles) all() bool { return len(rs) == len(allRoles) }

func (rs Roles) String() string {
	words := make([]string, len(rs))
	for i, r := range rs {
		words[i] = string(r)
	}
	return strings.Join(words, ",")
}

// work is something that runs for as long as a server does, and whose it is.
type work struct {
	role Role
	run  func(context.Context) error
}

// works are all there is to run.
func (p *parts) works() []work {
	return []work{
		{RoleDelivery, p.delivery.Run},
		{RoleTimers, p.timers.Run},
		{RoleRealtime, p.hub.Run},
		{RoleTimers, func(ctx context.Context) error { return p.lease.Hold(ctx, "sweep", p.messaging.Run) }},
		{RoleTimers, func(ctx context.Context) error { return p.lease.Hold(ctx, "keys", p.sweepKeys) }},
	}
}

// need is the refusal of a request that belongs to another role than this
// server has, nil if it has it. It says 502 because that is what both kinds of
// callers go elsewhere at: official clients ask again, whatever the method, and
// proxies try the next server. Nothing has been done.
func (rs Roles) need(r Role) error {
	if rs.has(r) {
		return nil
	}
	return fault.Elsewhere.New("this server does not have the role %s (it has %s), so it does not answer this request: let the proxy send it to one that has, or add the role to its --roles", r, rs)
}

// here are operations as a server with these roles answers them: those of
// another role are documented and refused.
func (rs Roles) here(ops []api.Op) []api.Op {
	for i, o := range ops {
		if err := rs.need(roleOf(o)); err != nil {
			ops[i] = o.Refusing(err)
		}
	}
	return ops
}

// roleOf is the role that answers an operation.
func roleOf(o api.Op) Role {
	if o.ID == "listenConversation" {
		return RoleRealtime
	}
	return RoleAPI
}

// asked says whether a server is one for a proxy that wants a role.
func (rs Roles) asked(r *http.Request) error {
	for _, v := range r.URL.Query()["role"] {
		if !rs.has(Role(v)) {
			return errors.New("this server does not have the role " + v)
		}
	}
	return nil
}
