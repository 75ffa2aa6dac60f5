package catalog

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
	"github.com/go-json-experiment/json"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/internal/page"
	"parley/internal/sqldb"
)

// entry is a version in a list. Versions are compared as versions, not as text,
// so lists are filtered and sorted here and not by the database: it gives all
// rows of a workspace or of the hub, without their definitions.
type entry struct {
	ownListed
	workspaceID string // "" for what Parley brings along
	semver      *semver.Version
	icon        string
}

// Columns binds some columns of table integrations.
func (e *entry) Columns() []sqldb.Column {
	return []sqldb.Column{
		{Name: "id", Field: &e.ID},
		{Name: "workspace_id", Field: &e.workspaceID},
		{Name: "name", Field: &e.Name},
		{Name: "version", Field: &e.Version},
		{Name: "visibility", Field: &e.Visibility},
		{Name: "title", Field: &e.Title},
		{Name: "description", Field: &e.Description},
		{Name: "icon", Field: &e.icon},
		{Name: "created_at", Field: (*int64)(&e.CreatedAt)},
		{Name: "updated_at", Field: (*int64)(&e.UpdatedAt)},
	}
}

// selectEntries reads the versions that the tail finds.
func selectEntries(q sqldb.Q, tail string, args ...any) ([]*entry, error) {
	rows, err := sqldb.Select[entry](q, "integrations", tail, args...)
	for _, e := range rows {
		e.semver, _ = semver.StrictNewVersion(e.Version) // checked when it was created
		e.IconURL = dataURL(e.icon, "")
		e.Public = e.Visibility == public
		e.VerificationStatus, e.LifecycleStatus = "unapproved", "published"
	}
	return rows, err
}

func (d *Integration) entry() *entry {
	return &entry{workspaceID: d.WorkspaceID, semver: d.semver, ownListed: ownListed{
		ID: d.ID, Name: d.Name, Version: d.Version, CreatedAt: d.CreatedAt, UpdatedAt: d.UpdatedAt,
		Title: d.Title, Description: d.Description, IconURL: d.IconURL, Public: d.Public, Visibility: d.Visibility,
		VerificationStatus: d.VerificationStatus, LifecycleStatus: d.LifecycleStatus,
	}}
}

// find loads the newest version that fits among those the tail finds.
func (s *Service) find(ctx context.Context, tail string, in versionRef, args ...any) (*Integration, error) {
	rows, err := selectEntries(s.DB.Reader(ctx), tail, args...)
	if err != nil {
		return nil, err
	}
	rows = choose(rows, in.Version)
	if len(rows) == 0 {
		return nil, missingVersion(in.Name, in.Version)
	}
	slices.SortFunc(rows, newestFirst)
	d, err := s.Lookup(ctx, rows[0].ID)
	if err == nil && d == nil { // deleted a moment ago
		err = missingVersion(in.Name, in.Version)
	}
	return d, err
}

// newestFirst orders by version; of one version, which only strangers to each
// other can have, by age.
func newestFirst(a, b *entry) int {
	return cmp.Or(b.semver.Compare(a.semver), strings.Compare(a.ID, b.ID))
}

// choose keeps the versions that a text means: all for an empty one, the newest
// of each integration for latest. A version that is only announced, such as
// 2.0.0-beta, is the latest one where there is no other.
func choose(rows []*entry, version string) []*entry {
	switch version {
	case "":
		return rows
	case "latest":
		newest := map[string]*entry{}
		for _, e := range rows {
			key := e.workspaceID + "/" + e.Name
			was := newest[key]
			if was == nil || cmp.Or(released(e)-released(was), e.semver.Compare(was.semver)) > 0 {
				newest[key] = e
			}
		}
		return slices.Collect(maps.Values(newest))
	}
	fits := matcher(version)
	return slices.DeleteFunc(rows, func(e *entry) bool { return !fits(e.semver) })
}

func released(e *entry) int {
	if e.semver.Prerelease() == "" {
		return 1
	}
	return 0
}

// list filters and sorts rows and takes the page that in asks for.
func (s *Service) list(ctx context.Context, rows []*entry, in integrationQuery) ([]*entry, page.Meta, error) {
	if in.InterfaceID != "" {
		return nil, page.Meta{}, fault.ReferenceNotFound.New("interfaceId: interface %q doesn't exist", in.InterfaceID)
	}
	installed, err := s.installed(ctx, in.InstalledByBotID)
	if err != nil {
		return nil, page.Meta{}, err
	}
	rows = slices.DeleteFunc(rows, func(e *entry) bool {
		return in.Name != "" && e.Name != in.Name || in.VerificationStatus != "" && e.VerificationStatus != in.VerificationStatus ||
			installed != nil && !installed[e.family()]
	})
	if rows, err = s.matching(ctx, choose(rows, in.Version), in); err != nil {
		return nil, page.Meta{}, err
	}
	return in.cut(rows)
}

func (e *entry) family() string {
	return (&Integration{Builtin: e.workspaceID == "", WorkspaceID: e.workspaceID, Name: e.Name}).Family()
}

// matching keeps what is found by search and by the name of an interface, which
// stand in the definition.
func (s *Service) matching(ctx context.Context, rows []*entry, in integrationQuery) ([]*entry, error) {
	if in.Search == "" && in.InterfaceName == "" {
		return rows, nil
	}
	var out []*entry
	for _, e := range rows {
		d, err := s.Lookup(ctx, e.ID)
		if err != nil {
			return nil, err
		}
		if d == nil || in.InterfaceName != "" && !d.implements(in.InterfaceName) {
			continue
		}
		if in.Search != "" {
			if e.MatchedOn = search(d, in.Search); !e.MatchedOn.any() {
				continue
			}
		}
		out = append(out, e)
	}
	return out, nil
}

func (d *Integration) implements(name string) bool {
	for _, i := range d.Interfaces {
		if i.Name == name {
			return true
		}
	}
	return false
}

// installed names the families of the integrations of a bot that the caller can
// reach, nil if no bot was asked for.
func (s *Service) installed(ctx context.Context, botID string) (map[string]bool, error) {
	if botID == "" {
		return nil, nil
	}
	missing := fault.ReferenceNotFound.New("installedByBotId: bot %q doesn't exist", botID)
	bot, err := s.Directory.Bot(ctx, botID)
	if err != nil {
		return nil, err
	}
	p := auth.From(ctx)
	if bot == nil || p.WorkspaceID != "" && p.WorkspaceID != bot.WorkspaceID {
		return nil, missing
	}
	ok, err := s.Directory.Member(ctx, p.AccountID, bot.WorkspaceID)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, missing
	}
	families := map[string]bool{}
	for _, in := range bot.Installations {
		if in.Removed {
			continue
		}
		family, err := s.Family(ctx, in.IntegrationID)
		if err != nil {
			return nil, err
		}
		families[family] = true
	}
	return families, nil
}

// matchedOn tells where a search was found.
type matchedOn struct {
	Name        bool     `json:"name,omitzero"`
	Title       bool     `json:"title,omitzero"`
	Description bool     `json:"description,omitzero"`
	Actions     []string `json:"actions,omitempty"`
}

func (m *matchedOn) any() bool { return m.Name || m.Title || m.Description || len(m.Actions) > 0 }

func search(d *Integration, text string) *matchedOn {
	has := func(s string) bool { return strings.Contains(strings.ToLower(s), strings.ToLower(text)) }
	m := &matchedOn{Name: has(d.Name), Title: has(d.Title), Description: has(d.Description)}
	for _, name := range slices.Sorted(maps.Keys(d.Actions)) {
		if has(name) {
			m.Actions = append(m.Actions, name)
		}
	}
	return m
}

// place is where a row stands in a list: a page token holds that of the last
// row, so that it stays true when rows come and go.
type place struct {
	List    uint32 `json:"l"` // which list, with which filters
	Name    string `json:"n"`
	Version string `json:"v"`
	At      int64  `json:"t"`
	ID      string `json:"i"`

	semver *semver.Version
}

func (e *entry) place(by string) place {
	p := place{Name: e.Name, Version: e.Version, ID: e.ID, semver: e.semver}
	switch by {
	case "createdAt":
		p.At = int64(e.CreatedAt)
	case "updatedAt":
		p.At = int64(e.UpdatedAt)
	}
	return p
}

// compare orders places as they are listed upwards: by time where that is what
// was asked for, else by name, the newest version first.
func (p place) compare(o place) int {
	return cmp.Or(cmp.Compare(p.At, o.At), strings.Compare(p.Name, o.Name), o.semver.Compare(p.semver), strings.Compare(p.ID, o.ID))
}

// mark is a short hash of everything that chooses or sorts the rows.
func (in *integrationQuery) mark() uint32 {
	h := fnv.New32a()
	fmt.Fprintf(h, "%q", []string{in.Name, in.Version, in.InterfaceName, in.InstalledByBotID, in.VerificationStatus, in.Search, in.SortBy, in.Direction})
	return h.Sum32()
}

// cut sorts rows and takes a page of them.
func (in *integrationQuery) cut(rows []*entry) ([]*entry, page.Meta, error) {
	up := func(a, b place) int {
		if in.Direction == "desc" {
			a, b = b, a
		}
		return a.compare(b)
	}
	slices.SortFunc(rows, func(a, b *entry) int { return up(a.place(in.SortBy), b.place(in.SortBy)) })
	if in.NextToken != "" {
		after, err := in.after()
		if err != nil {
			return nil, page.Meta{}, err
		}
		start := slices.IndexFunc(rows, func(e *entry) bool { return up(e.place(in.SortBy), after) > 0 })
		if start < 0 {
			start = len(rows)
		}
		rows = rows[start:]
	}
	limit := page.Size
	if in.Limit != nil {
		limit = int(*in.Limit)
	}
	if len(rows) <= limit {
		return rows, page.Meta{}, nil
	}
	last := rows[limit-1].place(in.SortBy)
	last.List = in.mark()
	text, err := json.Marshal(last)
	return rows[:limit], page.Meta{NextToken: base64.RawURLEncoding.EncodeToString(text)}, err
}

// after is the place that the token of the query names.
func (in *integrationQuery) after() (place, error) {
	var p place
	text, err := base64.RawURLEncoding.Strict().DecodeString(in.NextToken)
	if err == nil {
		err = json.Unmarshal(text, &p, json.RejectUnknownMembers(true))
	}
	if err == nil {
		p.semver, err = semver.StrictNewVersion(p.Version)
	}
	if err != nil || p.List != in.mark() {
		return p, fault.InvalidQuery.New("nextToken is not one that this list gave; send meta.nextToken of the page before with the same filters")
	}
	return p, nil
}

// ownListed is an integration in the list of its workspace.
type ownListed struct {
	ID                 string     `json:"id"`
	Name               string     `json:"name"`
	Version            string     `json:"version"`
	CreatedAt          api.Time   `json:"createdAt"`
	UpdatedAt          api.Time   `json:"updatedAt"`
	Title              string     `json:"title"`
	Description        string     `json:"description"`
	IconURL            string     `json:"iconUrl"`
	Public             bool       `json:"public"`
	Visibility         string     `json:"visibility"`
	VerificationStatus string     `json:"verificationStatus"`
	LifecycleStatus    string     `json:"lifecycleStatus"`
	MatchedOn          *matchedOn `json:"matchedOn,omitempty"`
}
