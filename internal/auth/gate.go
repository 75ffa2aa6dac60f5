package auth

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"parley/internal/fault"
	"parley/internal/id"
)

// Class is what an operation asks of its caller.
type Class uint8

// The access classes.
const (
	Public    Class = iota // nothing; the operation may check a credential of its own
	Account                // a personal access token
	Workspace              // a personal access token and x-workspace-id
	Runtime                // any token, acting for a bot: x-bot-id, x-integration-id
	Chat                   // a user key of the Chat API: x-user-key
	Operator               // a personal access token or a bot's key; x-bot-id where the request does not name the bot itself
)

var classNames = [...]string{"public", "account", "workspace", "runtime", "chat", "operator"}

func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return "unknown"
}

// Installation is what the gate and the engines know of one integration in one bot.
type Installation struct {
	ID              string
	Alias           string
	IntegrationID   string // the installed version's id
	IntegrationName string
	Version         string
	WebhookID       string
	Enabled         bool
	Removed         bool
	// Outside says that the integration runs outside Parley: its door, its actions
	// and all else it does are calls of its endpoint.
	Outside bool
	// Told says that deliveries tell it of the bot's messages and of its own
	// registration: one outside, and one that Parley brings along and that hands
	// them on to a place outside.
	Told bool
	// Signals says that deliveries tell it of every signal of its conversations.
	Signals bool
	// Gone says that the place it hands things on to wants no more of them, until
	// it is set up anew.
	Gone             bool
	DisabledChannels []string // channels of the integration that the bot does not use
}

// Bot is a bot as the gate sees it. Values are shared between requests and
// never changed: a Directory hands out a new one when something changes.
type Bot struct {
	ID            string
	WorkspaceID   string
	Installations []Installation // removed ones included: conversations still name them
}

// Installation finds an installation of b by its id, nil if there is none.
func (b *Bot) Installation(installationID string) *Installation {
	for i := range b.Installations {
		if b.Installations[i].ID == installationID {
			return &b.Installations[i]
		}
	}
	return nil
}

// Tokens finds a token by the hash of its text; nil, nil means unknown or revoked.
type Tokens interface {
	Token(ctx context.Context, hash string) (*Token, error)
}

// Directory answers who belongs where. It is asked on every request, so answers
// come from memory.
type Directory interface {
	// Bot finds a bot; nil, nil means unknown.
	Bot(ctx context.Context, botID string) (*Bot, error)
	// Member reports whether the account belongs to the workspace.
	Member(ctx context.Context, accountID, workspaceID string) (bool, error)
	// Family tells integrations apart by the id of any of their versions: all
	// versions of one share it, namesakes of another owner do not. "" means unknown.
	Family(ctx context.Context, integrationID string) (string, error)
}

// Gate admits requests. The zero value is not usable: all fields but BotNow are needed.
type Gate struct {
	Tokens    Tokens
	Directory Directory
	// BotNow is asked before a request is refused, where the Directory may not
	// have heard yet what another server did; nil = it always has.
	BotNow func(ctx context.Context, botID string) (*Bot, error)
	Now    func() time.Time
}

// Headers that say what a request acts for.
const (
	headerWorkspace   = "X-Workspace-Id"
	headerBot         = "X-Bot-Id"
	headerIntegration = "X-Integration-Id"
	headerAlias       = "X-Integration-Alias"
)

// Admit decides who r acts as. Its faults are Unauthorized (no good token),
// Forbidden (a good one that does not reach there) and InvalidPayload (a header
// is missing or ambiguous).
func (g *Gate) Admit(r *http.Request, c Class) (Principal, error) {
	switch c {
	case Public:
		return Principal{}, nil
	case Account, Workspace, Runtime, Operator:
	default:
		return Principal{}, fmt.Errorf("auth: the gate does not admit %s requests", c)
	}
	t, err := g.token(r)
	if err != nil {
		return Principal{}, err
	}
	switch c {
	case Account:
		return account(t)
	case Workspace:
		return g.workspace(r, t)
	case Operator:
		return g.operator(r, t)
	}
	return g.runtime(r, t)
}

const sendToken = "send the header Authorization: Bearer <token> with a token that `parley token list` shows"

func (g *Gate) token(r *http.Request) (*Token, error) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return nil, fault.Unauthorized.New("The request carries no token; %s", sendToken)
	}
	text, ok := bearer(values)
	if !ok {
		return nil, fault.Unauthorized.New("The Authorization header does not hold a token of the form bp_pat_…, bp_bak_… or bp_iak_…; %s", sendToken)
	}
	t, err := g.Tokens.Token(r.Context(), HashToken(text))
	if err != nil {
		return nil, err
	}
	if t == nil {
		return nil, fault.Unauthorized.New("The token is unknown or was revoked; %s", sendToken)
	}
	if t.ExpiresAt != 0 && g.Now().UnixMilli() >= t.ExpiresAt {
		return nil, fault.Unauthorized.New("The token expired at %s; %s", time.UnixMilli(t.ExpiresAt).UTC().Format(time.RFC3339), sendToken)
	}
	return t, nil
}

func account(t *Token) (Principal, error) {
	if t.Kind != PAT {
		return Principal{}, fault.Forbidden.New("This operation needs a personal access token (bp_pat_…), the token sent is a bp_%s_…", t.Kind)
	}
	return Principal{Kind: Person, TokenID: t.ID, AccountID: t.AccountID, WorkspaceID: t.WorkspaceID}, nil
}

func kindOf(t *Token) Kind {
	switch t.Kind {
	case PAT:
		return Person
	case BAK:
		return BotKey
	case IAK:
		return IntegrationKey
	}
	return Anonymous
}

func (g *Gate) workspace(r *http.Request, t *Token) (Principal, error) {
	p, err := account(t)
	if err != nil {
		return Principal{}, err
	}
	wanted := r.Header.Get(headerWorkspace)
	if wanted == "" {
		return Principal{}, fault.InvalidPayload.New("The header x-workspace-id is missing; send the id of the workspace to act in, as listWorkspaces shows it")
	}
	ok, err := g.reaches(r.Context(), t, wanted)
	if err != nil {
		return Principal{}, err
	}
	if !ok {
		return Principal{}, fault.Forbidden.New("Workspace %.40q doesn't exist or this token does not reach it", wanted)
	}
	p.WorkspaceID = wanted
	return p, nil
}

// reaches reports whether a personal access token may act in a workspace.
func (g *Gate) reaches(ctx context.Context, t *Token, workspaceID string) (bool, error) {
	if !id.Valid(workspaceID) || t.WorkspaceID != "" && t.WorkspaceID != workspaceID {
		return false, nil
	}
	return g.Directory.Member(ctx, t.AccountID, workspaceID)
}

// runtime looks twice before it refuses, the second time at the bot as it is now.
func (g *Gate) runtime(r *http.Request, t *Token) (Principal, error) {
	p, err := g.actor(r, t)
	if g.BotNow == nil || !fault.Is(err, fault.Forbidden) {
		return p, err
	}
	now := *g
	now.Directory = present{g.Directory, g.BotNow}
	return now.actor(r, t)
}

// present is a Directory that tells of bots as they are now.
type present struct {
	Directory
	bot func(ctx context.Context, botID string) (*Bot, error)
}

func (p present) Bot(ctx context.Context, botID string) (*Bot, error) { return p.bot(ctx, botID) }

// actor finds the bot or the installation that r acts as.
func (g *Gate) actor(r *http.Request, t *Token) (Principal, error) {
	bot, err := g.bot(r, t)
	if err != nil {
		return Principal{}, err
	}
	p := Principal{Kind: kindOf(t), TokenID: t.ID, AccountID: t.AccountID, WorkspaceID: bot.WorkspaceID, BotID: bot.ID}
	inst, err := g.installation(r, t, bot)
	if err != nil {
		return Principal{}, err
	}
	if inst != nil {
		p.InstallationID, p.Alias = inst.ID, inst.Alias
	}
	return p, nil
}

// operator admits who looks after bots: a person, or a bot for itself. Without
// x-bot-id a person acts for no bot yet; the operation finds out for which.
func (g *Gate) operator(r *http.Request, t *Token) (Principal, error) {
	switch {
	case t.Kind == IAK:
		return Principal{}, fault.Forbidden.New("This operation is not for integrations: it needs a personal access token (bp_pat_…) or a bot's key (bp_bak_…), the token sent is a bp_%s_…", t.Kind)
	case r.Header.Get(headerIntegration) != "":
		return Principal{}, fault.Forbidden.New("This operation is not for integrations; leave the header x-integration-id out")
	case t.Kind == PAT && r.Header.Get(headerBot) == "":
		return account(t)
	}
	bot, err := g.bot(r, t)
	if err != nil {
		return Principal{}, err
	}
	return Principal{Kind: kindOf(t), TokenID: t.ID, AccountID: t.AccountID, WorkspaceID: bot.WorkspaceID, BotID: bot.ID}, nil
}

// Enter admits r at the door of an installation: whoever holds a token that may
// act for its bot, a person's or the bot's own, acts as the installation.
func (g *Gate) Enter(r *http.Request, botID string, in *Installation) (Principal, error) {
	t, err := g.token(r)
	if err != nil {
		return Principal{}, err
	}
	if t.Kind == IAK {
		return Principal{}, fault.Forbidden.New("This door is not for integrations: it needs a personal access token (bp_pat_…) or the key of its bot (bp_bak_…), the token sent is a bp_%s_…", t.Kind)
	}
	bot, err := g.reachable(r.Context(), t, botID)
	if err != nil {
		return Principal{}, err
	}
	if bot == nil { // which bot it is, strangers are not told
		return Principal{}, fault.Forbidden.New("This token does not reach the bot behind this door; send one of a member of its workspace, or a key of the bot")
	}
	return Principal{Kind: kindOf(t), TokenID: t.ID, AccountID: t.AccountID, WorkspaceID: bot.WorkspaceID, BotID: bot.ID, InstallationID: in.ID, Alias: in.Alias}, nil
}

// bot finds the bot that r acts for. A bot that does not exist, one of another
// tenant and a malformed id are told apart by nobody.
func (g *Gate) bot(r *http.Request, t *Token) (*Bot, error) {
	wanted := r.Header.Get(headerBot)
	switch {
	case wanted == "" && t.Kind == BAK:
		wanted = t.BotID
	case wanted == "":
		return nil, fault.InvalidPayload.New("The header x-bot-id is missing; send the id of the bot to act for")
	}
	bot, err := g.reachable(r.Context(), t, wanted)
	if err == nil && bot == nil {
		err = fault.Forbidden.New("Bot %.40q doesn't exist or this token does not reach it", wanted)
	}
	return bot, err
}

func (g *Gate) reachable(ctx context.Context, t *Token, botID string) (*Bot, error) {
	if !id.Valid(botID) || t.Kind == BAK && t.BotID != botID {
		return nil, nil
	}
	bot, err := g.Directory.Bot(ctx, botID)
	if err != nil || bot == nil {
		return nil, err
	}
	switch t.Kind {
	case PAT:
		ok, err := g.reaches(ctx, t, bot.WorkspaceID)
		if err != nil || !ok {
			return nil, err
		}
		return bot, nil
	case BAK:
		return bot, nil
	case IAK:
		// An integration reaches the bots it is installed in, no others.
		found, err := g.installed(ctx, bot, t.IntegrationID)
		if err != nil || len(found) == 0 {
			return nil, err
		}
		return bot, nil
	}
	return nil, nil
}

// installation finds the installation that r acts as, nil when it acts as the bot.
func (g *Gate) installation(r *http.Request, t *Token, bot *Bot) (*Installation, error) {
	wanted, alias := r.Header.Get(headerIntegration), r.Header.Get(headerAlias)
	if wanted == "" && t.Kind == IAK {
		wanted = t.IntegrationID
	}
	if wanted == "" {
		if alias != "" {
			return nil, fault.InvalidPayload.New("The header x-integration-alias is of no use without x-integration-id; send both, or neither to act as the bot")
		}
		return nil, nil
	}
	found, err := g.installed(r.Context(), bot, wanted)
	if err != nil {
		return nil, err
	}
	if t.Kind == IAK {
		if found, err = g.ofKey(r.Context(), bot, t, found); err != nil {
			return nil, err
		}
	}
	return choose(bot, wanted, alias, found)
}

// ofKey keeps the installations that also belong to the key's own integration.
func (g *Gate) ofKey(ctx context.Context, bot *Bot, t *Token, found []*Installation) ([]*Installation, error) {
	own, err := g.installed(ctx, bot, t.IntegrationID)
	if err != nil {
		return nil, err
	}
	var both []*Installation
	for _, f := range found {
		for _, o := range own {
			if f == o {
				both = append(both, f)
			}
		}
	}
	return both, nil
}

// installed lists the installations, removed and disabled ones left out, of the
// integration that integrationID is a version or dev version of.
func (g *Gate) installed(ctx context.Context, bot *Bot, integrationID string) ([]*Installation, error) {
	family := ""
	if id.Valid(integrationID) {
		var err error
		if family, err = g.Directory.Family(ctx, integrationID); err != nil {
			return nil, err
		}
	}
	var found []*Installation
	for i := range bot.Installations {
		in := &bot.Installations[i]
		if !in.Enabled || in.Removed {
			continue
		}
		same, err := g.same(ctx, in, integrationID, family)
		if err != nil {
			return nil, err
		}
		if same {
			found = append(found, in)
		}
	}
	return found, nil
}

// same reports whether an installation is of the integration of a version. Names
// do not tell: another workspace may have an integration of the same name.
func (g *Gate) same(ctx context.Context, in *Installation, integrationID, family string) (bool, error) {
	if in.IntegrationID == integrationID || family == "" {
		return in.IntegrationID == integrationID, nil
	}
	other, err := g.Directory.Family(ctx, in.IntegrationID)
	return other == family, err
}

func choose(bot *Bot, wanted, alias string, found []*Installation) (*Installation, error) {
	aliases := make([]string, 0, len(found))
	for _, in := range found {
		if alias == in.Alias || alias == "" && len(found) == 1 {
			return in, nil
		}
		aliases = append(aliases, in.Alias)
	}
	switch {
	case len(found) > 1 && alias == "":
		return nil, fault.InvalidPayload.New("Integration %q is installed in bot %q as %s; send the header x-integration-alias to choose one", wanted, bot.ID, strings.Join(aliases, ", "))
	case alias != "":
		return nil, fault.Forbidden.New("Integration %.40q is not installed and enabled in bot %q as %.200q", wanted, bot.ID, alias)
	}
	return nil, fault.Forbidden.New("Integration %.40q is not installed and enabled in bot %q", wanted, bot.ID)
}
