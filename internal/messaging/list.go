package messaging

import (
	"maps"
	"slices"
	"strings"

	"parley/internal/api"
	"parley/internal/page"
	"parley/internal/sqldb"
)

// listing is the reading of one list: what it is filtered and sorted by. The
// entity goes by e in its conditions.
type listing struct {
	sqldb.Where
	table   string
	caller  Caller
	updated bool   // sorted by updatedAt, else by createdAt
	key     string // the column for that; "" = the order of ids, which is that of createdAt
	order   page.Order
	kind    string // of entity, as the tags table knows it
	tags    []wantedTag
	created span
	changed span
	ask     []any // everything that chooses rows, for the token of the next page
}

// newListing starts the list of what the caller may see in a table.
func newListing(table string, c Caller, sortField, sortDirection string) *listing {
	l := &listing{table: table, caller: c, key: "e.created_at", order: page.Order(sortDirection == "asc")}
	if sortField == "updatedAt" {
		l.updated, l.key = true, "e.updated_at"
	}
	l.Where.And("e.bot_id = ?", c.Bot.ID)
	if c.Installation != nil {
		l.And("e.installation_id = ?", c.Installation.ID)
	}
	return l
}

// And adds a condition and remembers it for the token.
func (l *listing) And(cond string, args ...any) {
	l.Where.And(cond, args...)
	l.ask = append(append(l.ask, cond), args...)
}

// tagged keeps entities that have all the tags.
func (l *listing) tagged(kind string, tags map[string]string) {
	l.kind = kind
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		r := l.caller.tag(kind, name)
		t := wantedTag{r.Owner, r.Key, indexed(tags[name])}
		l.tags = append(l.tags, t)
		l.ask = append(l.ask, t.owner, t.key, t.value)
	}
}

// between keeps entities of a range of time, both ends included.
func (l *listing) between(field string, after, before *api.Time) {
	column, in := "e.created_at", &l.created
	if field == "updatedAt" {
		column, in = "e.updated_at", &l.changed
	}
	*in = span{after, before}
	if after != nil {
		l.And(column+" >= ?", int64(*after))
	}
	if before != nil {
		l.And(column+" <= ?", int64(*before))
	}
}

// at is the sort key of a row.
func (l *listing) at(created, updated int64) int64 {
	if l.updated {
		return updated
	}
	return created
}

// list reads one page. at prepares a row for the caller and tells its sort key and id.
func list[T any, P sqldb.RowOf[T]](q sqldb.Q, l *listing, pq page.Query, at func(*T) (int64, string)) ([]*T, page.Meta, error) {
	pages, err := pq.Open(l.table, l.order, l.ask...)
	if err != nil {
		return nil, page.Meta{}, err
	}
	if len(l.tags) > 0 {
		return listTagged[T, P](q, l, pages, at)
	}
	tail := pages.Keyset(&l.Where, l.key, "e.id")
	out, err := rowsOf[T, P](q, l.table+" e "+l.Where.String()+" "+tail, l.Args)
	if err != nil {
		return nil, page.Meta{}, err
	}
	return cut(pages, out, at)
}

// cut ends a page and prepares its rows for the caller.
func cut[T any](pages *page.List, out []*T, at func(*T) (int64, string)) ([]*T, page.Meta, error) {
	out, meta, err := page.Cut(pages, out, at)
	for _, v := range out {
		at(v)
	}
	return out, meta, err
}

// rowsOf reads entities e of what is between FROM and the end of a statement.
func rowsOf[T any, P sqldb.RowOf[T]](q sqldb.Q, from string, args []any) ([]*T, error) {
	var names []string
	for _, c := range P(new(T)).Columns() {
		names = append(names, "e."+c.Name)
	}
	rows, err := q.Query("SELECT "+strings.Join(names, ", ")+" FROM "+from, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := []*T{}
	for rows.Next() {
		v := new(T)
		columns := P(v).Columns()
		dest := make([]any, len(columns))
		for i, c := range columns {
			dest[i] = c.Field
		}
		if err := rows.Scan(dest...); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}
