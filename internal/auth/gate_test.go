package auth

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/internal/fault"
)

// A small town: two workspaces with a bot each. Ann belongs to the first, Bob to the second.
const (
	wsA, wsB     = "wkspace_01AAAAAAAAAAAAAAAAAAAAAAAA", "wkspace_01BBBBBBBBBBBBBBBBBBBBBBBB"
	botA, botB   = "bot_01AAAAAAAAAAAAAAAAAAAAAAAA", "bot_01BBBBBBBBBBBBBBBBBBBBBBBB"
	ann, bob     = "accnt_01AAAAAAAAAAAAAAAAAAAAAAAA", "accnt_01BBBBBBBBBBBBBBBBBBBBBBBB"
	chat1, chat2 = "intver_01AAAAAAAAAAAAAAAAAAAAAAAA", "intver_01BBBBBBBBBBBBBBBBBBBBBBBB"
	chatDev      = "devint_01CCCCCCCCCCCCCCCCCCCCCCCC"
	hooky, twice = "intver_01DDDDDDDDDDDDDDDDDDDDDDDD", "intver_01EEEEEEEEEEEEEEEEEEEEEEEE"
	off, gone    = "intver_01FFFFFFFFFFFFFFFFFFFFFFFF", "intver_01GGGGGGGGGGGGGGGGGGGGGGGG"
	namesake     = "intver_01HHHHHHHHHHHHHHHHHHHHHHHH" // of another owner, also called acme/hooky
	unknownBot   = "bot_01ZZZZZZZZZZZZZZZZZZZZZZZZ"
)

type town struct {
	tokens map[string]*Token
	bots   map[string]*Bot
}

func (tn *town) Token(_ context.Context, hash string) (*Token, error) { return tn.tokens[hash], nil }
func (tn *town) Bot(_ context.Context, id string) (*Bot, error)       { return tn.bots[id], nil }
func (tn *town) Member(_ context.Context, a, w string) (bool, error) {
	return a == ann && w == wsA || a == bob && w == wsB, nil
}
func (tn *town) Family(_ context.Context, id string) (string, error) {
	return map[string]string{chat1: "chat", chat2: "chat", chatDev: "chat", hooky: "acme/hooky", twice: "twice", off: "off", gone: "gone", namesake: "other/acme/hooky"}[id], nil
}

var testNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// newTown returns a gate and the token texts by name.
func newTown() (*Gate, map[string]string) {
	tn := &town{tokens: map[string]*Token{}, bots: map[string]*Bot{
		botA: {ID: botA, WorkspaceID: wsA, Installations: []Installation{
			{ID: "inst_chat", Alias: "chat", IntegrationID: chat1, IntegrationName: "chat", Enabled: true},
			{ID: "inst_h", Alias: "acme/hooky", IntegrationID: hooky, IntegrationName: "acme/hooky", Enabled: true},
			{ID: "inst_t1", Alias: "one", IntegrationID: twice, IntegrationName: "twice", Enabled: true},
			{ID: "inst_t2", Alias: "two", IntegrationID: twice, IntegrationName: "twice", Enabled: true},
			{ID: "inst_t3", Alias: "three", IntegrationID: twice, IntegrationName: "twice", Enabled: true, Removed: true},
			{ID: "inst_off", Alias: "off", IntegrationID: off, IntegrationName: "off"},
			{ID: "inst_gone", Alias: "gone", IntegrationID: gone, IntegrationName: "gone", Enabled: true, Removed: true},
		}},
		botB: {ID: botB, WorkspaceID: wsB, Installations: []Installation{
			{ID: "inst_n", Alias: "acme/hooky", IntegrationID: namesake, IntegrationName: "acme/hooky", Enabled: true},
		}},
	}}
	texts := map[string]string{}
	for name, t := range map[string]Token{
		"ann":      {ID: "pat_a", Kind: PAT, AccountID: ann},
		"annOnlyB": {ID: "pat_ab", Kind: PAT, AccountID: ann, WorkspaceID: wsB},
		"bob":      {ID: "pat_b", Kind: PAT, AccountID: bob},
		"old":      {ID: "pat_o", Kind: PAT, AccountID: ann, ExpiresAt: testNow.UnixMilli()},
		"fresh":    {ID: "pat_f", Kind: PAT, AccountID: ann, ExpiresAt: testNow.UnixMilli() + 1},
		"botA":     {ID: "bak_a", Kind: BAK, BotID: botA},
		"botGone":  {ID: "bak_z", Kind: BAK, BotID: unknownBot},
		"chat":     {ID: "iak_c", Kind: IAK, IntegrationID: chat1},
		"twice":    {ID: "iak_t", Kind: IAK, IntegrationID: twice},
		"hooky":    {ID: "iak_h", Kind: IAK, IntegrationID: hooky},
	} {
		text, hash := NewToken(t.Kind)
		texts[name] = text
		tn.tokens[hash] = &t
	}
	return &Gate{Tokens: tn, Directory: tn, Now: func() time.Time { return testNow }}, texts
}

func TestAdmit(t *testing.T) {
	t.Parallel()
	g, texts := newTown()
	notBot := func(id string) string { return "Bot \"" + id + "\" doesn't exist or this token does not reach it" }
	for _, c := range []struct {
		name    string
		class   Class
		token   string // name of a token, or a whole header after "raw:"
		headers string // "x-bot-id=…; x-integration-id=…"
		want    Principal
		kind    *fault.Kind
		message string // part of it
	}{
		{name: "public needs nothing", class: Public},
		{name: "public ignores a bad token", class: Public, token: "raw:Bearer nope"},

		{name: "no token", class: Account, kind: fault.Unauthorized, message: "carries no token; send the header Authorization: Bearer"},
		{name: "other scheme", class: Account, token: "raw:Basic YTpi", kind: fault.Unauthorized, message: "does not hold a token"},
		{name: "scheme only", class: Account, token: "raw:Bearer", kind: fault.Unauthorized, message: "does not hold a token"},
		{name: "junk", class: Account, token: "raw:Bearer x", kind: fault.Unauthorized, message: "does not hold a token"},
		{name: "unknown token", class: Account, token: "raw:Bearer bp_pat_" + strings.Repeat("A", 43), kind: fault.Unauthorized, message: "unknown or was revoked"},
		{name: "expired", class: Account, token: "old", kind: fault.Unauthorized, message: "expired at 2026-03-01T12:00:00Z"},
		{name: "expires in a moment", class: Account, token: "fresh", want: Principal{Kind: Person, TokenID: "pat_f", AccountID: ann}},

		{name: "account", class: Account, token: "ann", want: Principal{Kind: Person, TokenID: "pat_a", AccountID: ann}},
		{name: "account with a bot key", class: Account, token: "botA", kind: fault.Forbidden, message: "needs a personal access token (bp_pat_…), the token sent is a bp_bak_…"},
		{name: "account with an integration key", class: Account, token: "chat", kind: fault.Forbidden, message: "the token sent is a bp_iak_…"},

		{name: "workspace", class: Workspace, token: "ann", headers: "x-workspace-id=" + wsA, want: Principal{Kind: Person, TokenID: "pat_a", AccountID: ann, WorkspaceID: wsA}},
		{name: "workspace header missing", class: Workspace, token: "ann", kind: fault.InvalidPayload, message: "The header x-workspace-id is missing"},
		{name: "workspace of others", class: Workspace, token: "ann", headers: "x-workspace-id=" + wsB, kind: fault.Forbidden, message: "doesn't exist or this token does not reach it"},
		{name: "workspace malformed", class: Workspace, token: "ann", headers: "x-workspace-id=zzz", kind: fault.Forbidden, message: `Workspace "zzz" doesn't exist or this token does not reach it`},
		{name: "workspace outside the token", class: Workspace, token: "annOnlyB", headers: "x-workspace-id=" + wsA, kind: fault.Forbidden, message: "does not reach it"},
		{name: "workspace with a bot key", class: Workspace, token: "botA", headers: "x-workspace-id=" + wsA, kind: fault.Forbidden, message: "the token sent is a bp_bak_…"},

		{name: "person as bot", class: Runtime, token: "ann", headers: "x-bot-id=" + botA, want: Principal{Kind: Person, TokenID: "pat_a", AccountID: ann, WorkspaceID: wsA, BotID: botA}},
		{name: "bot header missing", class: Runtime, token: "ann", kind: fault.InvalidPayload, message: "The header x-bot-id is missing"},
		{name: "bot malformed", class: Runtime, token: "ann", headers: "x-bot-id=zzz", kind: fault.Forbidden, message: notBot("zzz")},
		{name: "bot unknown", class: Runtime, token: "ann", headers: "x-bot-id=" + unknownBot, kind: fault.Forbidden, message: notBot(unknownBot)},
		{name: "bot of others", class: Runtime, token: "ann", headers: "x-bot-id=" + botB, kind: fault.Forbidden, message: notBot(botB)},
		{name: "bot outside the token's workspace", class: Runtime, token: "annOnlyB", headers: "x-bot-id=" + botA, kind: fault.Forbidden, message: notBot(botA)},
		{name: "operator", class: Operator, token: "ann", want: Principal{Kind: Person, TokenID: "pat_a", AccountID: ann}},
		{name: "operator of one workspace", class: Operator, token: "annOnlyB", want: Principal{Kind: Person, TokenID: "pat_ab", AccountID: ann, WorkspaceID: wsB}},
		{name: "operator of a bot", class: Operator, token: "ann", headers: "x-bot-id=" + botA, want: Principal{Kind: Person, TokenID: "pat_a", AccountID: ann, WorkspaceID: wsA, BotID: botA}},
		{name: "operator with a bot key", class: Operator, token: "botA", want: Principal{Kind: BotKey, TokenID: "bak_a", WorkspaceID: wsA, BotID: botA}},
		{name: "operator with the key of another bot", class: Operator, token: "botA", headers: "x-bot-id=" + botB, kind: fault.Forbidden, message: notBot(botB)},
		{name: "operator of a bot of others", class: Operator, token: "ann", headers: "x-bot-id=" + botB, kind: fault.Forbidden, message: notBot(botB)},
		{name: "operator as an integration", class: Operator, token: "ann", headers: "x-bot-id=" + botA + "; x-integration-id=" + hooky, kind: fault.Forbidden, message: "not for integrations; leave the header x-integration-id out"},
		{name: "operator with an integration key", class: Operator, token: "hooky", headers: "x-bot-id=" + botA, kind: fault.Forbidden, message: "not for integrations"},
		{name: "operator without a token", class: Operator, kind: fault.Unauthorized, message: "carries no token"},

		{name: "bot key", class: Runtime, token: "botA", want: Principal{Kind: BotKey, TokenID: "bak_a", WorkspaceID: wsA, BotID: botA}},
		{name: "bot key with its bot", class: Runtime, token: "botA", headers: "x-bot-id=" + botA, want: Principal{Kind: BotKey, TokenID: "bak_a", WorkspaceID: wsA, BotID: botA}},
		{name: "bot key with another bot", class: Runtime, token: "botA", headers: "x-bot-id=" + botB, kind: fault.Forbidden, message: notBot(botB)},
		{name: "bot key of a deleted bot", class: Runtime, token: "botGone", kind: fault.Forbidden, message: notBot(unknownBot)},

		{name: "as installation", class: Runtime, token: "botA", headers: "x-integration-id=" + chat1, want: Principal{Kind: BotKey, TokenID: "bak_a", WorkspaceID: wsA, BotID: botA, InstallationID: "inst_chat", Alias: "chat"}},
		{name: "by another version", class: Runtime, token: "ann", headers: "x-bot-id=" + botA + "; x-integration-id=" + chat2, want: Principal{Kind: Person, TokenID: "pat_a", AccountID: ann, WorkspaceID: wsA, BotID: botA, InstallationID: "inst_chat", Alias: "chat"}},
		{name: "by a dev id", class: Runtime, token: "botA", headers: "x-integration-id=" + chatDev, want: Principal{Kind: BotKey, TokenID: "bak_a", WorkspaceID: wsA, BotID: botA, InstallationID: "inst_chat", Alias: "chat"}},
		{name: "with its alias", class: Runtime, token: "botA", headers: "x-integration-id=" + hooky + "; x-integration-alias=acme/hooky", want: Principal{Kind: BotKey, TokenID: "bak_a", WorkspaceID: wsA, BotID: botA, InstallationID: "inst_h", Alias: "acme/hooky"}},
		{name: "with the alias of another integration", class: Runtime, token: "botA", headers: "x-integration-id=" + hooky + "; x-integration-alias=chat", kind: fault.Forbidden, message: `as "chat"`},
		{name: "several aliases", class: Runtime, token: "botA", headers: "x-integration-id=" + twice, kind: fault.InvalidPayload, message: "as one, two; send the header x-integration-alias"},
		{name: "several aliases, one chosen", class: Runtime, token: "botA", headers: "x-integration-id=" + twice + "; x-integration-alias=two", want: Principal{Kind: BotKey, TokenID: "bak_a", WorkspaceID: wsA, BotID: botA, InstallationID: "inst_t2", Alias: "two"}},
		{name: "several aliases, a removed one chosen", class: Runtime, token: "botA", headers: "x-integration-id=" + twice + "; x-integration-alias=three", kind: fault.Forbidden, message: "not installed and enabled"},
		{name: "alias without id", class: Runtime, token: "botA", headers: "x-integration-alias=chat", kind: fault.InvalidPayload, message: "x-integration-alias is of no use without x-integration-id"},
		{name: "disabled", class: Runtime, token: "botA", headers: "x-integration-id=" + off, kind: fault.Forbidden, message: "not installed and enabled"},
		{name: "removed", class: Runtime, token: "botA", headers: "x-integration-id=" + gone, kind: fault.Forbidden, message: "not installed and enabled"},
		{name: "not installed", class: Runtime, token: "botA", headers: "x-integration-id=intver_01ZZZZZZZZZZZZZZZZZZZZZZZZ", kind: fault.Forbidden, message: "not installed and enabled"},
		{name: "malformed integration", class: Runtime, token: "botA", headers: "x-integration-id=chat", kind: fault.Forbidden, message: "not installed and enabled"},

		{name: "integration key", class: Runtime, token: "chat", headers: "x-bot-id=" + botA, want: Principal{Kind: IntegrationKey, TokenID: "iak_c", WorkspaceID: wsA, BotID: botA, InstallationID: "inst_chat", Alias: "chat"}},
		{name: "integration key with another version", class: Runtime, token: "chat", headers: "x-bot-id=" + botA + "; x-integration-id=" + chat2, want: Principal{Kind: IntegrationKey, TokenID: "iak_c", WorkspaceID: wsA, BotID: botA, InstallationID: "inst_chat", Alias: "chat"}},
		{name: "integration key without a bot", class: Runtime, token: "chat", kind: fault.InvalidPayload, message: "x-bot-id is missing"},
		{name: "integration key as another integration", class: Runtime, token: "chat", headers: "x-bot-id=" + botA + "; x-integration-id=" + hooky, kind: fault.Forbidden, message: "not installed and enabled"},
		{name: "integration key where it is not installed", class: Runtime, token: "chat", headers: "x-bot-id=" + botB, kind: fault.Forbidden, message: notBot(botB)},
		{name: "integration key of a namesake", class: Runtime, token: "hooky", headers: "x-bot-id=" + botB, kind: fault.Forbidden, message: notBot(botB)},
		{name: "as a namesake", class: Runtime, token: "bob", headers: "x-bot-id=" + botB + "; x-integration-id=" + hooky, kind: fault.Forbidden, message: "not installed and enabled"},
		{name: "integration key of several aliases", class: Runtime, token: "twice", headers: "x-bot-id=" + botA, kind: fault.InvalidPayload, message: "as one, two"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest("GET", "/v1/chat/users", nil)
			if raw, ok := strings.CutPrefix(c.token, "raw:"); ok {
				r.Header.Set("Authorization", raw)
			} else if c.token != "" {
				r.Header.Set("Authorization", "Bearer "+texts[c.token])
			}
			setHeaders(r, c.headers)
			got, err := g.Admit(r, c.class)
			if c.kind == nil {
				if err != nil || got != c.want {
					t.Fatalf("got %+v, %v; want %+v", got, err, c.want)
				}
				return
			}
			if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.message) {
				t.Fatalf("got %v; want %s with %q", err, c.kind.Type, c.message)
			}
			if got != (Principal{}) {
				t.Fatalf("a refusal came with principal %+v", got)
			}
		})
	}
}

// What was installed through another server a moment ago is looked up before it
// is refused, and only then.
func TestAdmitLooksTwice(t *testing.T) {
	t.Parallel()
	g, texts := newTown()
	now, asked := *g.Directory.(*town).bots[botB], 0
	now.Installations = append(slices.Clone(now.Installations), Installation{ID: "inst_new", Alias: "new", IntegrationID: hooky, IntegrationName: "acme/hooky", Enabled: true})
	failed := errors.New("the database does not answer")
	g.BotNow = func(_ context.Context, botID string) (*Bot, error) {
		if asked++; asked > 3 {
			return nil, failed
		}
		return map[string]*Bot{botB: &now}[botID], nil
	}
	for i, c := range []struct {
		token, bot, integration string
		want                    string
		err                     func(error) bool
		asked                   int
	}{
		{"ann", botA, hooky, "inst_h", nil, 0},
		{"ann", botA, twice, "", func(err error) bool { return fault.Is(err, fault.InvalidPayload) }, 0},
		{"bob", botB, hooky, "inst_new", nil, 1},
		{"hooky", botB, "", "inst_new", nil, 2},
		{"bob", botB, off, "", func(err error) bool { return fault.Is(err, fault.Forbidden) }, 3},
		{"bob", botB, hooky, "", func(err error) bool { return errors.Is(err, failed) }, 4},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Authorization", "Bearer "+texts[c.token])
		r.Header.Set(headerBot, c.bot)
		if c.integration != "" {
			r.Header.Set(headerIntegration, c.integration)
		}
		p, err := g.Admit(r, Runtime)
		if p.InstallationID != c.want || c.err == nil && err != nil || c.err != nil && !c.err(err) || asked != c.asked {
			t.Errorf("%d: got %q, %v after %d looks; want %q after %d", i, p.InstallationID, err, asked, c.want, c.asked)
		}
	}
}

func setHeaders(r *http.Request, list string) {
	for pair := range strings.SplitSeq(list, "; ") {
		if name, value, ok := strings.Cut(pair, "="); ok {
			r.Header.Set(name, value)
		}
	}
}

func TestEnter(t *testing.T) {
	t.Parallel()
	g, texts := newTown()
	in := &Installation{ID: "inst_chat", Alias: "chat"}
	const away = "does not reach the bot behind this door"
	for _, c := range []struct {
		token, bot string // name of a token, or a whole header after "raw:"
		want       Principal
		kind       *fault.Kind
		message    string
	}{
		{token: "ann", bot: botA, want: Principal{Kind: Person, TokenID: "pat_a", AccountID: ann, WorkspaceID: wsA, BotID: botA, InstallationID: in.ID, Alias: in.Alias}},
		{token: "botA", bot: botA, want: Principal{Kind: BotKey, TokenID: "bak_a", WorkspaceID: wsA, BotID: botA, InstallationID: in.ID, Alias: in.Alias}},
		{token: "raw:bearer " + texts["botA"], bot: botA, want: Principal{Kind: BotKey, TokenID: "bak_a", WorkspaceID: wsA, BotID: botA, InstallationID: in.ID, Alias: in.Alias}},
		{token: "raw:BEARER   " + texts["botA"], bot: botA, want: Principal{Kind: BotKey, TokenID: "bak_a", WorkspaceID: wsA, BotID: botA, InstallationID: in.ID, Alias: in.Alias}},
		{token: "bob", bot: botA, kind: fault.Forbidden, message: away},
		{token: "annOnlyB", bot: botA, kind: fault.Forbidden, message: away},
		{token: "botA", bot: botB, kind: fault.Forbidden, message: away},
		{token: "botGone", bot: unknownBot, kind: fault.Forbidden, message: away},
		{token: "chat", bot: botA, kind: fault.Forbidden, message: "This door is not for integrations"},
		{token: "old", bot: botA, kind: fault.Unauthorized, message: "expired"},
		{bot: botA, kind: fault.Unauthorized, message: "carries no token"},
		{token: "raw:" + texts["ann"], bot: botA, kind: fault.Unauthorized, message: "does not hold a token"},
		{token: "raw:bearer nope", bot: botA, kind: fault.Unauthorized, message: "does not hold a token"},
	} {
		r := httptest.NewRequest("POST", "/", nil)
		if raw, ok := strings.CutPrefix(c.token, "raw:"); ok {
			r.Header.Set("Authorization", raw)
		} else if c.token != "" {
			r.Header.Set("Authorization", "bearer "+texts[c.token])
		}
		r.Header.Set("x-bot-id", botB) // the door says which bot is meant
		got, err := g.Enter(r, c.bot, in)
		if c.kind == nil && (err != nil || got != c.want) || c.kind != nil && (!fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.message) || strings.Contains(err.Error(), c.bot)) {
			t.Errorf("%s at %s: got %+v, %v", c.token, c.bot, got, err)
		}
	}
}

func TestScopeTellsPrincipalsApart(t *testing.T) {
	t.Parallel()
	seen := map[string]Principal{}
	for _, p := range []Principal{
		{},
		{Kind: Person, TokenID: "pat_a"},
		{Kind: Person, TokenID: "pat_a", WorkspaceID: wsA},
		{Kind: Person, TokenID: "pat_a", WorkspaceID: wsA, BotID: botA},
		{Kind: Person, TokenID: "pat_a", WorkspaceID: wsA, BotID: botA, InstallationID: "inst_1"},
		{Kind: BotKey, TokenID: "pat_a", WorkspaceID: wsA, BotID: botA},
		{Kind: ChatUser, UserID: "user_1", BotID: botA, InstallationID: "inst_1"},
		{Kind: ChatUser, UserID: "user_2", BotID: botA, InstallationID: "inst_1"},
	} {
		if q, ok := seen[p.Scope()]; ok {
			t.Errorf("%+v and %+v share the scope %q", p, q, p.Scope())
		}
		seen[p.Scope()] = p
	}
}

func TestPrincipalInContext(t *testing.T) {
	t.Parallel()
	if p := From(t.Context()); p != (Principal{}) {
		t.Errorf("got %+v from an empty context", p)
	}
	want := Principal{Kind: BotKey, BotID: botA}
	if p := From(With(t.Context(), want)); p != want {
		t.Errorf("got %+v, want %+v", p, want)
	}
}
