// Package auth turns a credential into a Principal: it parses bearer tokens and
// user keys, decides what a request may act for, and keeps secrets sealed. It
// knows no table: tokens and bots come through the interfaces Tokens and Directory.
package auth

import (
	"context"
	"strings"
)

// Kind says whose credential a request carried.
type Kind uint8

// The kinds of principal.
const (
	Anonymous      Kind = iota
	Person              // a personal access token
	BotKey              // a bot's key
	IntegrationKey      // an integration's key
	ChatUser            // a user key of the Chat API
	System              // the server itself
)

var kindNames = [...]string{"anonymous", "person", "bot key", "integration key", "chat user", "system"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// Principal is who a request acts as and what it acts for. It is a value: pass
// it, never share a pointer to it.
type Principal struct {
	Kind           Kind
	TokenID        string // the credential's row, "" without one
	AccountID      string // the person behind a personal access token
	WorkspaceID    string // workspace the request acts in
	BotID          string // bot the request acts for, "" on admin operations
	InstallationID string // set when it acts as that installation, "" = as the bot itself
	Alias          string // alias of that installation
	UserID         string // real id of a chat user
}

// Scope is a stable text for what an idempotency key belongs to: the same
// credential acting for the same bot as the same installation.
func (p Principal) Scope() string {
	subject := p.TokenID
	if subject == "" {
		subject = p.UserID
	}
	return strings.Join([]string{p.Kind.String(), subject, p.WorkspaceID, p.BotID, p.InstallationID}, "|")
}

type principalKey struct{}

// With returns a context that carries p.
func With(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// From returns the principal of ctx, an anonymous one if there is none.
func From(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}
