package bot

import (
	"context"
	"maps"
	"slices"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/endpoint"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/once"
	"parley/internal/page"
	"parley/internal/patch"
	"parley/internal/sqldb"
	"parley/internal/tag"
)

// maxBody is the size limit of a definition with everything in it.
const maxBody = 50 << 20

// Ops are the operations on bots.
func (s *Service) Ops() []api.Op {
	return []api.Op{
		api.Handle("createBot", "POST /v1/admin/bots", auth.Workspace, s.createBot, api.Open, api.MaxBody(maxBody),
			api.Doc("Creates a bot."), api.Faults(fault.InvalidIdentifier, fault.InvalidJSONSchema, fault.LimitExceeded)),
		api.Handle("getBot", "GET /v1/admin/bots/{id}", auth.Workspace, s.getBot,
			api.Doc("Shows a bot."), api.Faults(fault.ResourceNotFound)),
		api.Handle("updateBot", "PUT /v1/admin/bots/{id}", auth.Workspace, s.updateBot, api.Open, api.MaxBody(maxBody),
			api.Doc("Changes a bot: what is absent stays, null deletes an entry."),
			api.Faults(fault.ResourceNotFound, fault.ReferenceNotFound, fault.InvalidIdentifier, fault.InvalidJSONSchema, fault.InvalidDataFormat, fault.RelationConflict, fault.LimitExceeded)),
		api.Handle("deleteBot", "DELETE /v1/admin/bots/{id}", auth.Workspace, s.deleteBot,
			api.Doc("Deletes a bot with everything it has."), api.Faults(fault.ResourceNotFound)),
		api.Handle("listBots", "GET /v1/admin/bots", auth.Workspace, s.listBots,
			api.Doc("Lists the bots of the workspace."), api.Faults(fault.InvalidQuery)),
	}
}

// keyed is the header that chooses how installations are keyed.
type keyed struct {
	Multiple string `header:"x-multiple-integrations" doc:"true keys integrations by alias, otherwise they are keyed by integration id."`
}

type botRef struct {
	keyed
	ID string `path:"id" doc:"Id of a bot."`
}

type getQuery struct {
	botRef
	ShouldMergePlugins *bool `query:"shouldMergePlugins" doc:"Without effect: there are no plugins to merge."`
}

type botResult struct {
	Bot *Bot `json:"bot"`
}

// common is what creating and updating a bot both take.
type common struct {
	definition
	Name        *string            `json:"name,omitzero" min:"1" max:"200"`
	Description *string            `json:"description,omitzero" max:"2000"`
	Tags        map[string]*string `json:"tags,omitzero" each.max:"500" doc:"An empty value removes a tag."`
	Code        *string            `json:"code,omitzero" doc:"Refused: Parley does not run uploaded code yet."`
}

type createInput struct {
	keyed
	common
	URL *string `json:"url,omitzero" max:"2000" doc:"Where the bot runs."`
	Dev bool    `json:"dev,omitzero"`
}

type updateInput struct {
	botRef
	common
	URL                api.Nullable[string]       `json:"url,omitzero" max:"2000" doc:"Where the bot runs; null = nowhere."`
	Authentication     string                     `json:"authentication,omitzero" enum:"iam" doc:"Without effect."`
	Blocked            *bool                      `json:"blocked,omitzero" doc:"true is refused: Parley cannot block bots yet."`
	Integrations       map[string]*installationIn `json:"integrations,omitzero" doc:"What to install, change (by alias or integration id) or remove (null)."`
	Plugins            map[string]*api.Object     `json:"plugins,omitzero" doc:"Must be empty: Parley has no plugins yet."`
	Layers             []string                   `json:"layers,omitzero" doc:"Without effect."`
	ShouldMergePlugins *bool                      `json:"shouldMergePlugins,omitzero" doc:"Without effect."`
}

// Check implements what the types cannot say.
func (in *createInput) Check() error {
	if err := in.common.check(in.URL); err != nil {
		return err
	}
	for _, name := range []string{"integrations", "plugins", "secrets"} {
		if err := in.refuse(name); err != nil {
			return err
		}
	}
	return nil
}

// Check implements what the types cannot say.
func (in *updateInput) Check() error {
	if err := in.common.check(in.URL.Pointer()); err != nil {
		return err
	}
	if in.Blocked != nil && *in.Blocked {
		return fault.InvalidPayload.New("blocked: this version of Parley cannot block a bot yet; delete it, or set its url to null")
	}
	for name, p := range in.Plugins {
		if p != nil {
			return fault.InvalidPayload.New("plugins.%.200s: this version of Parley has no plugins yet; leave plugins out", name)
		}
	}
	return in.refuse("secrets")
}

func (in *common) check(at *string) error {
	switch {
	case in.Code != nil && at != nil:
		return fault.InvalidPayload.New("url and code exclude each other: a bot runs either at its url or as uploaded code")
	case in.Code != nil:
		return fault.InvalidPayload.New("code: this version of Parley does not run uploaded code yet; run the bot yourself and send its url")
	}
	if at != nil {
		if err := endpoint.CheckURL(*at); err != nil {
			return err
		}
	}
	for key := range in.Tags {
		if err := tag.CheckKey(key); err != nil {
			return err
		}
	}
	return in.definition.check()
}

// refuse takes a member that is not part of the operation out of the ones to be
// kept. If there is something in it, keeping it would promise too much, and
// keeping secrets would lay them open.
func (in *common) refuse(name string) error {
	v := api.Object(in.Extra).Member(name)
	if v == nil {
		return nil
	}
	for range api.Object(v).Members() {
		if name == "integrations" {
			return fault.InvalidPayload.New("integrations: createBot installs nothing; send integrations to updateBot")
		}
		return fault.InvalidPayload.New("%s: this version of Parley has no %s of bots yet; leave %s out", name, name, name)
	}
	in.Extra = patch.Extra(in.Extra, api.Extra(`{"`+name+`":null}`))
	return nil
}

func (s *Service) createBot(ctx context.Context, in createInput) (botResult, error) {
	p := auth.From(ctx)
	in.unknown(s.noted.Note)
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (botResult, error) {
		r, err := s.create(tx, creation{workspace: p.WorkspaceID, account: p.AccountID, dev: in.Dev, url: in.URL, common: in.common})
		if err != nil {
			return botResult{}, err
		}
		b, err := s.view(tx, r, nil, in.Multiple)
		return botResult{b}, err
	})
}

// creation is a bot to be made.
type creation struct {
	common
	workspace, account string
	dev                bool
	url                *string
	builtin            string
}

// defaultName is what a bot is called until its owner names it.
const defaultName = "Untitled bot"

func (s *Service) create(tx *sqldb.Tx, c creation) (*row, error) {
	at := s.now()
	prefix := "bot"
	if c.dev {
		prefix = "devbot"
	}
	r := &row{
		ID: id.At(prefix, int64(at)), WorkspaceID: c.workspace, Name: defaultName, Dev: c.dev, Builtin: c.builtin, Tags: map[string]string{},
		CreatedBy: c.account, CreatedAt: at, configuration: api.Object("{}"),
	}
	if err := s.change(r, &c.common, at); err != nil {
		return nil, err
	}
	if c.url != nil {
		r.URL = *c.url
	}
	if r.URL != "" || r.Builtin != "" {
		r.DeployedAt = at
	}
	if _, err := sqldb.Insert(tx, "bots", r); err != nil {
		return nil, err
	}
	if err := s.Secrets.Create(tx, r.ID); err != nil {
		return nil, err
	}
	if err := s.recur(tx, r, &c.common); err != nil {
		return nil, err
	}
	return r, s.Users.CreateBotUser(tx, r.ID, r.Name, int64(at))
}

// change applies what creating and updating have in common.
func (s *Service) change(r *row, in *common, at api.Time) error {
	r.Definition.merge(&in.definition)
	if err := r.Definition.checkSize(); err != nil {
		return err
	}
	if in.Name != nil {
		r.Name = *in.Name
	}
	if in.Description != nil {
		r.Description = *in.Description
	}
	if in.Configuration.Data != nil {
		r.configuration = *in.Configuration.Data
	}
	r.SealedConfig = s.seal(r.configuration, r.ID+"/configuration")
	r.Tags = maps.Clone(r.Tags)
	for key, v := range in.Tags {
		if v == nil || *v == "" {
			delete(r.Tags, key)
			continue
		}
		r.Tags[key] = *v
	}
	if len(r.Tags) > maxTagDefinitions {
		return fault.LimitExceeded.New("tags: the bot would have %d tags, the limit is %d", len(r.Tags), maxTagDefinitions)
	}
	r.UpdatedAt = max(at, r.CreatedAt, r.UpdatedAt)
	return nil
}

func (s *Service) getBot(ctx context.Context, in getQuery) (botResult, error) {
	q := s.DB.Reader(ctx)
	r, err := s.bot(q, auth.From(ctx).WorkspaceID, in.ID, "")
	if err != nil {
		return botResult{}, err
	}
	rows, err := s.installations(q, r.ID, "")
	if err != nil {
		return botResult{}, err
	}
	b, err := s.view(q, r, rows, in.Multiple)
	return botResult{b}, err
}

func (s *Service) updateBot(ctx context.Context, in updateInput) (botResult, error) {
	p := auth.From(ctx)
	in.unknown(s.noted.Note)
	for _, v := range in.Integrations {
		if v != nil {
			patch.Unknown("integrations.*", v.Extra, s.noted.Note)
		}
	}
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (botResult, error) {
		r, rows, err := s.update(tx, p.WorkspaceID, &in)
		if err != nil {
			return botResult{}, err
		}
		b, err := s.view(tx, r, rows, in.Multiple)
		return botResult{b}, err
	})
}

func (s *Service) update(tx *sqldb.Tx, workspaceID string, in *updateInput) (*row, []*installation, error) {
	r, err := s.bot(tx, workspaceID, in.ID, "{for_update}")
	if err != nil {
		return nil, nil, err
	}
	rows, err := s.installations(tx, r.ID, "{for_update}")
	if err != nil {
		return nil, nil, err
	}
	at := s.now()
	if err := s.change(r, &in.common, at); err != nil {
		return nil, nil, err
	}
	if err := r.place(in.URL, at); err != nil {
		return nil, nil, err
	}
	plan := s.planFrom(tx, r, rows)
	if err := plan.apply(in.Integrations); err != nil {
		return nil, nil, err
	}
	ended, err := plan.write(tx)
	if err != nil {
		return nil, nil, err
	}
	if err := sqldb.Update(tx, "bots", r, sqldb.Column{Name: "id", Field: &r.ID}); err != nil {
		return nil, nil, err
	}
	if err := s.recur(tx, r, &in.common); err != nil {
		return nil, nil, err
	}
	s.announce(tx, r.ID, ended)
	return r, plan.rows, nil
}

// place says where the bot runs from now on.
func (r *row) place(at api.Nullable[string], now api.Time) error {
	switch {
	case !at.Set:
	case r.Builtin != "" && !at.Null:
		return fault.InvalidPayload.New("url: this bot runs inside Parley; create another bot for a url")
	default:
		r.URL = at.Value
		if r.URL != "" {
			r.DeployedAt = now
		}
	}
	return nil
}

// announce tells whoever remembers the bot that it has changed.
func (s *Service) announce(tx *sqldb.Tx, botID string, ended []string) {
	tx.AfterCommit(func() {
		s.bots.Drop(botID)
		s.Changed(botID)
		for _, installationID := range ended {
			s.Ended(installationID)
		}
	})
}

func (s *Service) deleteBot(ctx context.Context, in botRef) (struct{}, error) {
	p := auth.From(ctx)
	return once.Write(ctx, s.DB, func(tx *sqldb.Tx) (struct{}, error) {
		r, err := s.bot(tx, p.WorkspaceID, in.ID, "{for_update}")
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, s.delete(tx, r.ID)
	})
}

// delete removes a bot and leaves a tombstone: messages and the like may be too
// many for one transaction, and go in chunks afterwards.
func (s *Service) delete(tx *sqldb.Tx, botID string) error {
	rows, err := sqldb.Select[installation](tx, "installations", "WHERE bot_id = $1", botID)
	if err != nil {
		return err
	}
	if err := s.Deleting(tx, botID); err != nil {
		return err
	}
	if err := s.Secrets.Delete(tx, botID); err != nil {
		return err
	}
	if _, err := tx.Exec("DELETE FROM installations WHERE bot_id = $1", botID); err != nil {
		return err
	}
	if err := sqldb.Delete(tx, "bots", "WHERE id = $1", botID); err != nil {
		return err
	}
	if _, err := tx.Exec("INSERT INTO tombstones (kind, id, bot_id, created_at) VALUES ('bot', $1, $1, $2) ON CONFLICT DO NOTHING", botID, int64(s.now())); err != nil {
		return err
	}
	ended := make([]string, len(rows))
	for i, r := range rows {
		ended[i] = r.ID
	}
	s.announce(tx, botID, ended)
	return nil
}

type listQuery struct {
	page.Query
	keyed
	Dev           *bool             `query:"dev" doc:"true: only bots in development, false: only others."`
	Tags          map[string]string `query:"tags" doc:"Only bots with these tags."`
	SortField     string            `query:"sortField" enum:"createdAt,updatedAt"`
	SortDirection string            `query:"sortDirection" enum:"asc,desc"`
}

type botList struct {
	Bots []*listed `json:"bots"`
	Meta page.Meta `json:"meta"`
}

func (s *Service) listBots(ctx context.Context, in listQuery) (botList, error) {
	f := filter{workspace: auth.From(ctx).WorkspaceID, dev: in.Dev, tags: in.Tags, sortedBy: "created_at"}
	at := func(l *listed) (int64, string) { return int64(l.CreatedAt), l.ID }
	if in.SortField == "updatedAt" {
		f.sortedBy = "updated_at"
		at = func(l *listed) (int64, string) { return int64(l.UpdatedAt), l.ID }
	}
	list, err := in.Open("bots", page.Order(in.SortDirection == "asc"), f.workspace, f.dev, f.tags, f.sortedBy)
	if err != nil {
		return botList{}, err
	}
	rows, err := selectBots(s.DB.Reader(ctx), list, f)
	if err != nil {
		return botList{}, err
	}
	var out botList
	out.Bots, out.Meta, err = page.Cut(list, rows, at)
	return out, err
}

// view is the bot as its owner sees it. Installations are keyed by alias if
// multiple is "true", else by integration id, as clients expect that know no
// aliases; of two with one id these see the older.
func (s *Service) view(q sqldb.Q, r *row, rows []*installation, multiple string) (*Bot, error) {
	secret, err := s.Secrets.Current(q, r.ID)
	if err != nil {
		return nil, err
	}
	b := &Bot{
		ID: r.ID, CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt, SigningSecret: string(secret), Integrations: map[string]installed{},
		Configuration: configuration{Data: r.configuration}, Tags: r.Tags, Name: r.Name, Description: r.Description,
		DeployedAt: r.DeployedAt, Dev: r.Dev, CreatedBy: r.CreatedBy, Status: "active",
	}
	r.Definition.show(b)
	if err := s.showRecurring(q, r, b); err != nil {
		return nil, err
	}
	for _, in := range slices.Backward(rows) {
		if in.Removed {
			continue
		}
		key := in.IntegrationID
		if multiple == "true" {
			key = in.Alias
		}
		shown, err := s.show(q, in)
		if err != nil {
			return nil, err
		}
		b.Integrations[key] = shown
	}
	return b, nil
}
