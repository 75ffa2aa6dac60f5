package bot

import (
	"maps"
	"slices"
	"strings"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/id"
	"parley/internal/sqldb"
)

// Installation is one integration in one bot, with its configuration opened.
// Values are shared and never changed.
type Installation struct {
	auth.Installation
	BotID             string
	WebhookURL        string
	Configuration     api.Object // may hold secrets: never log it
	ConfigurationType string     // "" = the ordinary one
	CreatedAt         api.Time
	UpdatedAt         api.Time
}

// installation is a row of table installations.
type installation struct {
	ID                string
	BotID             string
	Alias             string
	IntegrationID     string
	Name              string
	Version           string
	WebhookID         string
	Enabled           bool
	Removed           bool
	Sealed            []byte // configuration
	ConfigurationType string
	DisabledChannels  []string
	Identifier        string
	Status            string
	StatusReason      string
	Gone              bool // what it tells wants to be told no more
	CreatedAt         api.Time
	UpdatedAt         api.Time

	RegistrationSeq      int64
	RegistrationAttempts int64
	RegisterEvery        string

	configuration api.Object // what Sealed holds
	call          bool       // it is to be registered or unregistered
}

// Columns binds the columns of table installations.
func (in *installation) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "id", Field: &in.ID},
		{Name: "bot_id", Field: &in.BotID},
		{Name: "alias", Field: &in.Alias},
		{Name: "integration_id", Field: &in.IntegrationID},
		{Name: "name", Field: &in.Name},
		{Name: "version", Field: &in.Version},
		{Name: "webhook_id", Field: &in.WebhookID},
		{Name: "enabled", Field: &in.Enabled},
		{Name: "removed", Field: &in.Removed},
		{Name: "configuration", Field: &in.Sealed},
		{Name: "configuration_type", Field: &in.ConfigurationType},
		{Name: "disabled_channels", Field: sqldb.JSON(&in.DisabledChannels)},
		{Name: "identifier", Field: &in.Identifier},
		{Name: "status", Field: &in.Status},
		{Name: "status_reason", Field: &in.StatusReason},
		{Name: "gone", Field: &in.Gone},
		{Name: "registration_seq", Field: &in.RegistrationSeq},
		{Name: "registration_attempts", Field: &in.RegistrationAttempts},
		{Name: "register_every", Field: &in.RegisterEvery},
		{Name: "created_at", Field: (*int64)(&in.CreatedAt)},
		{Name: "updated_at", Field: (*int64)(&in.UpdatedAt)},
	}
}

// live reports whether requests and messages go through the installation.
func (in *installation) live() bool { return in.Enabled && !in.Removed }

// maxInstallations is the number of integrations a bot may have.
const maxInstallations = 30

// installationIn is what updateBot says about one installation.
type installationIn struct {
	Enabled           *bool                `json:"enabled,omitzero"`
	IntegrationID     string               `json:"integrationId,omitempty" format:"id" doc:"Version to install. With it the key is the alias, without it the key is an integration id."`
	ConfigurationType api.Nullable[string] `json:"configurationType,omitzero" max:"200"`
	Configuration     *api.Object          `json:"configuration,omitzero"`
	DisabledChannels  *[]string            `json:"disabledChannels,omitzero" max:"50" each.max:"200"`
	Extra             api.Extra            `json:",embed"`
}

// plan works out what an update makes of a bot's installations. It works on
// copies and writes no table.
type plan struct {
	s       *Service
	tx      *sqldb.Tx
	bot     *row
	now     api.Time
	rows    []*installation          // as they will be, removed ones included
	before  map[string]*installation // by id, as they are
	touched map[string]string        // installation id → key that spoke of it
}

func (s *Service) planFrom(tx *sqldb.Tx, bot *row, rows []*installation) *plan {
	p := &plan{s: s, tx: tx, bot: bot, now: s.now(), before: map[string]*installation{}, touched: map[string]string{}}
	for _, r := range rows {
		p.before[r.ID] = r
		c := *r
		p.rows = append(p.rows, &c)
	}
	return p
}

// apply carries out what was sent, by key. Removals come first, so that a client
// that knows installations by version id may name the old and the new version in
// one request and keep the installation.
func (p *plan) apply(in map[string]*installationIn) error {
	keys := slices.Sorted(maps.Keys(in))
	for _, key := range keys {
		if in[key] == nil {
			if err := p.remove(key); err != nil {
				return err
			}
		}
	}
	for _, key := range keys {
		if in[key] != nil {
			if err := p.put(key, in[key]); err != nil {
				return err
			}
		}
	}
	n := 0
	for _, r := range p.rows {
		if !r.Removed {
			n++
		}
	}
	if n > maxInstallations {
		return fault.LimitExceeded.New("integrations: the bot would have %d integrations, the limit is %d", n, maxInstallations)
	}
	return nil
}

// remove takes out what the key names; nothing, if it names nothing.
func (p *plan) remove(key string) error {
	r := p.installed(key)
	if r == nil {
		var err error
		if r, err = p.only(key, p.by(func(r *installation) bool { return !r.Removed && r.IntegrationID == key })); err != nil {
			return err
		}
	}
	if r != nil {
		r.Removed, r.Enabled = true, false
		version, err := p.s.version(p.tx, r.IntegrationID)
		if err != nil {
			return err
		}
		r.settle(p.before[r.ID], version.Told)
	}
	return nil
}

// put installs, upgrades or changes what the key names.
func (p *plan) put(key string, in *installationIn) error {
	r, version, err := p.target(key, in)
	if err != nil {
		return err
	}
	if other, twice := p.touched[r.ID]; twice {
		return fault.InvalidPayload.New("integrations: %.200q and %.200q speak of the same installation; send it once", other, key)
	}
	p.touched[r.ID] = key
	return p.set(r, version, key, in)
}

// target finds the installation that the key means, or makes it, and the version
// it shall have.
func (p *plan) target(key string, in *installationIn) (*installation, *Integration, error) {
	if in.IntegrationID != "" {
		version, err := p.s.Catalog.Installable(p.tx, p.bot.WorkspaceID, in.IntegrationID)
		if err != nil {
			return nil, nil, err
		}
		if version == nil {
			return nil, nil, fault.ReferenceNotFound.New("integrations.%.200s.integrationId: integration %q doesn't exist", key, in.IntegrationID)
		}
		r, err := p.under(key, version)
		return r, version, err
	}
	if r := p.installed(key); r != nil {
		version, err := p.current(r)
		return r, version, err
	}
	if !id.Valid(key) {
		return nil, nil, fault.InvalidPayload.New("integrations.%.200s: nothing is installed under this alias; send integrationId to install an integration, or use an integration id as the key", key)
	}
	return p.byVersion(key)
}

// current is the version that an installation has.
func (p *plan) current(r *installation) (*Integration, error) {
	version, err := p.s.Catalog.Installable(p.tx, p.bot.WorkspaceID, r.IntegrationID)
	if err != nil {
		return nil, err
	}
	if version == nil {
		return nil, fault.ReferenceNotFound.New("integrations.%s: its version %s of %q is no longer offered; send the integrationId of another one", r.Alias, r.Version, r.Name)
	}
	return version, nil
}

// byVersion finds the installation that a client means who knows them by version
// id: the one that has it, else the only one of the same integration, else a new
// one whose alias is the integration's name.
func (p *plan) byVersion(key string) (*installation, *Integration, error) {
	r, err := p.only(key, p.by(func(r *installation) bool { return !r.Removed && r.IntegrationID == key }))
	if err != nil {
		return nil, nil, err
	}
	if r != nil {
		version, err := p.current(r)
		return r, version, err
	}
	version, err := p.s.Catalog.Installable(p.tx, p.bot.WorkspaceID, key)
	if err != nil {
		return nil, nil, err
	}
	if version == nil {
		return nil, nil, fault.ReferenceNotFound.New("integrations: integration %q doesn't exist", key)
	}
	r, err = p.only(key, p.by(func(r *installation) bool {
		before := p.before[r.ID]
		return r.Name == version.Name && before != nil && !before.Removed // it may have been removed in this very request
	}))
	if err != nil {
		return nil, nil, err
	}
	if r == nil {
		r, err = p.under(version.Name, version)
	}
	return r, version, err
}

// only is the installation of a list with at most one.
func (p *plan) only(key string, found []*installation) (*installation, error) {
	if len(found) > 1 {
		aliases := make([]string, len(found))
		for i, r := range found {
			aliases[i] = r.Alias
		}
		return nil, fault.InvalidPayload.New("integrations.%.200s is installed as %s; use an alias as the key and send integrationId with it", key, strings.Join(aliases, ", "))
	}
	if len(found) == 0 {
		return nil, nil
	}
	return found[0], nil
}

func (p *plan) by(match func(*installation) bool) []*installation {
	var found []*installation
	for _, r := range p.rows {
		if match(r) {
			found = append(found, r)
		}
	}
	return found
}

// installed finds what is installed under an alias, nil if nothing is.
func (p *plan) installed(alias string) *installation {
	if r := p.alias(alias); r != nil && !r.Removed {
		return r
	}
	return nil
}

func (p *plan) alias(alias string) *installation {
	for _, r := range p.rows {
		if r.Alias == alias {
			return r
		}
	}
	return nil
}

// under finds the row of an alias, which may be one that was removed, or makes it.
func (p *plan) under(alias string, version *Integration) (*installation, error) {
	if !goodAlias(alias) {
		return nil, fault.InvalidIdentifier.New("integrations: %.200q is not a valid alias; it starts with a letter and has up to 100 letters, digits and the characters _ - /", alias)
	}
	r := p.alias(alias)
	if r == nil {
		r = &installation{ID: id.New("inst"), BotID: p.bot.ID, Alias: alias, WebhookID: id.UUID(), Removed: true, Name: version.Name, DisabledChannels: []string{}, CreatedAt: p.now, configuration: api.Object("{}")}
		p.rows = append(p.rows, r)
	}
	if r.Name != version.Name {
		return nil, fault.RelationConflict.New("integrations.%s: the alias belongs to integration %q, which conversations of this bot may still name; choose another alias for %q", alias, r.Name, version.Name)
	}
	return r, nil
}

// goodAlias tells aliases that can stand before a colon in tags, events and queries.
func goodAlias(s string) bool {
	if s == "" || len(s) > 100 {
		return false
	}
	for i, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case i > 0 && (c >= '0' && c <= '9' || c == '_' || c == '-' || c == '/'):
		default:
			return false
		}
	}
	return true
}

// set gives an installation its version and settings.
func (p *plan) set(r *installation, version *Integration, key string, in *installationIn) error {
	r.IntegrationID, r.Version = version.ID, version.Version
	switch {
	case in.Enabled != nil:
		r.Enabled = *in.Enabled
	case r.Removed:
		r.Enabled = true
	}
	r.Removed = false
	if in.ConfigurationType.Set {
		r.ConfigurationType = in.ConfigurationType.Value
	}
	if in.Configuration != nil {
		r.configuration = *in.Configuration
	}
	if in.DisabledChannels != nil {
		r.DisabledChannels = *in.DisabledChannels
	}
	r.settle(p.before[r.ID], version.Told)
	return p.check(r, version, key)
}

func (p *plan) check(r *installation, version *Integration, key string) error {
	for _, c := range r.DisabledChannels {
		if !version.Channels[c] {
			return fault.InvalidPayload.New("integrations.%.200s.disabledChannels: integration %q has no channel %.200q", key, version.Name, c)
		}
	}
	if len(r.configuration) > maxConfiguration {
		return fault.LimitExceeded.New("integrations.%.200s.configuration has %d bytes, the limit is %d", key, len(r.configuration), maxConfiguration)
	}
	if err := version.Check(r.ConfigurationType, r.configuration); err != nil {
		f := fault.From(err)
		return f.Kind.Wrap(err, "integrations.%.200s.%s", key, f.Message)
	}
	return nil
}

// write stores what changed and lists the installations whose listeners have to
// ask for admission again.
func (p *plan) write(tx *sqldb.Tx) (ended []string, err error) {
	for _, r := range p.rows {
		before := p.before[r.ID]
		if before != nil && r.same(before) {
			continue
		}
		r.UpdatedAt = p.now
		r.Sealed = p.s.seal(r.configuration, r.ID+"/configuration")
		if err := p.s.enqueue(tx, r); err != nil {
			return nil, err
		}
		if before == nil {
			_, err = sqldb.Insert(tx, "installations", r)
		} else {
			err = sqldb.Update(tx, "installations", r, sqldb.Column{Name: "id", Field: &r.ID})
			if before.live() && (!r.live() || !slices.Equal(before.configuration, r.configuration)) {
				ended = append(ended, r.ID)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return ended, nil
}

func (in *installation) same(o *installation) bool {
	return in.IntegrationID == o.IntegrationID && in.Version == o.Version && in.Enabled == o.Enabled && in.Removed == o.Removed &&
		in.ConfigurationType == o.ConfigurationType && slices.Equal(in.DisabledChannels, o.DisabledChannels) &&
		in.Status == o.Status && in.Gone == o.Gone && !in.call && slices.Equal(in.configuration, o.configuration)
}

// show is the installation as the owner of the bot sees it.
func (s *Service) show(q sqldb.Q, in *installation) (installed, error) {
	v := installed{
		Enabled: in.Enabled, Name: in.Name, Version: in.Version, WebhookURL: s.webhookURL(in.WebhookID), WebhookID: in.WebhookID,
		Identifier: in.Identifier, Configuration: in.configuration, Status: in.Status, DisabledChannels: in.DisabledChannels,
		ID: in.IntegrationID, CreatedAt: in.CreatedAt, UpdatedAt: in.UpdatedAt,
		// A version that is no longer offered has nothing else to tell.
		Title: in.Name, Visibility: "private", VerificationStatus: "unapproved", LifecycleStatus: "deprecated",
	}
	if in.ConfigurationType != "" {
		v.ConfigurationType = api.Some(in.ConfigurationType)
	}
	if in.StatusReason != "" {
		v.StatusReason = api.Some(in.StatusReason)
	}
	d, err := s.Catalog.Lookup(q, in.IntegrationID)
	if d != nil {
		v.Title, v.Description, v.IconURL, v.Public = d.Title, d.Description, d.IconURL, d.Public
		v.Visibility, v.VerificationStatus, v.LifecycleStatus = d.Visibility, d.VerificationStatus, d.LifecycleStatus
	}
	return v, err
}

func (s *Service) webhookURL(webhookID string) string { return s.PublicURL + "/" + webhookID }
