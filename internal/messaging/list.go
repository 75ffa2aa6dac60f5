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
	from    string // what is read before the entity: the first tag of a filter
	ask     []any  // everything that chooses rows, for the token of the next page
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

// tagged keeps entities that have all the tags. The first tag leads: the tags
// table lists its entities in the order of their creation.
func (l *listing) tagged(kind string, tags map[string]string) {
	for i, name := range slices.Sorted(maps.Keys(tags)) {
		r := l.caller.tag(kind, name)
		if i == 0 {
			l.from = "tags t JOIN "
			l.And("t.bot_id = ? AND t.kind = ? AND t.owner = ? AND t.key = ? AND t.value = ?", l.caller.Bot.ID, kind, r.Owner, r.Key, indexed(tags[name]))
			continue
		}
		l.And(`EXISTS (SELECT 1 FROM tags x WHERE x.bot_id = t.bot_id AND x.kind = t.kind AND x.owner = ? AND x.key = ? AND x.value = ?
			AND x.created_at = t.created_at AND x.entity = t.entity)`, r.Owner, r.Key, indexed(tags[name]))
	}
}

// between keeps entities of a range of time, both ends included.
func (l *listing) between(field string, after, before *api.Time) {
	column := "e.created_at"
	if field == "updatedAt" {
		column = "e.updated_at"
	}
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
	from, key, id := l.table+" e", l.key, "e.id"
	if l.from != "" {
		from += " ON e.id = t.entity"
		if !l.updated {
			key, id = "t.created_at", "t.entity"
		}
	}
	from = l.from + from
	tail := pages.Keyset(&l.Where, key, id)
	var names []string
	for _, c := range P(new(T)).Columns() {
		names = append(names, "e."+c.Name)
	}
	rows, err := q.Query("SELECT "+strings.Join(names, ", ")+" FROM "+from+" "+l.Where.String()+" "+tail, l.Args...)
	if err != nil {
		return nil, page.Meta{}, err
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
			return nil, page.Meta{}, err
		}
		out = append(out, v)
	}
	if err := rows.Err(); err != nil {
		return nil, page.Meta{}, err
	}
	out, meta, err := page.Cut(pages, out, at)
	for _, v := range out {
		at(v)
	}
	return out, meta, err
}
