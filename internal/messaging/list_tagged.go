package messaging

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"parley/internal/api"
	"parley/internal/page"
	"parley/internal/sqldb"
)

// A list that is filtered by tags reads positions first and entities after: an
// index says quickly which entities have all the tags, and only those are read
// that stand on the page.
//
// No index holds the meeting of two tags, so looking for it may take as many
// steps as the rarer tag has entities, and a filter beside the tags that fits
// nothing as many as all. A request therefore takes no more than about maxLooked
// steps: where they do not fill the page it answers what it has, if only
// nothing, with a nextToken that continues from there.
//
// Compat: the cloud says nothing of pages that are short before the end. Clients
// that follow nextToken until there is none see no difference.
const (
	maxLooked   = 20_000
	maxStep     = 1_000 // entries that are looked at with one statement
	maxGathered = 1_000 // entities that are sorted in memory
	maxRead     = 100   // of them with one statement
)

// wantedTag is a tag as the tags table holds it.
type wantedTag struct{ owner, key, value string }

// span is a range of time, both ends included; nil = without that end.
type span struct{ after, before *api.Time }

// walk goes through entities in the order of a list, some at a time, and finds
// those that have all of some tags.
//
// In the order of creation the entries of one tag lead, and each is looked up
// under the other tags. The tags lead by turns, each from where the one before
// has come to: one that has few entities crosses in a step what others take
// thousands for, wherever it is the rarer one. So a walk to the end costs about
// as many steps for each tag as the rarest has entities.
//
// In the order of updates, which the tags table does not know, the entities
// themselves lead.
type walk struct {
	bot, kind string
	tags      []wantedTag
	updates   string // the table that is walked in the order of updates; "" = the order of creation
	within    span
	order     page.Order
	at        page.Cursor // everything up to here has been looked at; zero = nothing
	turn      int         // of the tags
	looked    int
	ended     bool
}

// next looks at up to n entries and returns the places of those with all the tags.
func (w *walk) next(q sqldb.Q, n int) ([]page.Cursor, error) {
	text, args := w.statement(n)
	rows, err := q.Query(text, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []page.Cursor
	seen := 0
	for ; rows.Next(); seen++ {
		all := false
		if err := rows.Scan(&w.at.At, &w.at.ID, &all); err != nil {
			return nil, err
		}
		if all {
			found = append(found, w.at)
		}
	}
	w.looked += seen
	w.ended = seen < n
	w.turn++
	return found, rows.Err()
}

// statement reads the next n entries in order, and of each whether it has the
// other tags. It is written so that planners have no choice, as they have no
// statistics worth the name on a value of a tag: the limit keeps the inner part
// apart, and a subquery for one row cannot become a join.
func (w *walk) statement(n int) (string, []any) {
	from, key, id, others := "tags", "created_at", "entity", w.tags
	in := &sqldb.Where{}
	in.And("bot_id = ?", w.bot)
	if w.updates != "" {
		from, key, id = w.updates, "updated_at", "id"
	} else {
		lead := w.turn % len(w.tags)
		t := w.tags[lead]
		others = slices.Delete(slices.Clone(w.tags), lead, lead+1)
		in.And("kind = ? AND owner = ? AND key = ? AND value = ?", w.kind, t.owner, t.key, t.value)
	}
	if w.within.after != nil {
		in.And(key+" >= ?", int64(*w.within.after))
	}
	if w.within.before != nil {
		in.And(key+" <= ?", int64(*w.within.before))
	}
	than, way := "<", "DESC"
	if w.order == page.OldestFirst {
		than, way = ">", "ASC"
	}
	if w.at.ID != "" {
		in.And(fmt.Sprintf("(%s, %s) %s (?, ?)", key, id, than), w.at.At, w.at.ID)
	}
	inner := in.String()
	all := "TRUE"
	for _, t := range others {
		all += fmt.Sprintf(` AND (SELECT 1 FROM tags x WHERE x.bot_id = %s AND x.kind = %s AND x.owner = %s AND x.key = %s AND x.value = %s
			AND x.created_at = e.created_at AND x.entity = e.id LIMIT 1) IS NOT NULL`, in.Arg(w.bot), in.Arg(w.kind), in.Arg(t.owner), in.Arg(t.key), in.Arg(t.value))
	}
	return fmt.Sprintf(`SELECT e.at, e.id, %s FROM (SELECT created_at, %s AS at, %s AS id FROM %s %s ORDER BY %s %s, %s %s LIMIT %d) e ORDER BY e.at %s, e.id %s`,
		all, key, id, from, inner, key, way, id, way, n, way, way), in.Args
}

// steps are the numbers of entries to look at with one statement after the other.
func steps(yield func(int) bool) {
	for n := page.Size + 1; yield(n); n = min(2*n, maxStep) {
	}
}

// listTagged is list for a list that is filtered by tags.
func listTagged[T any, P sqldb.RowOf[T]](q sqldb.Q, l *listing, pages *page.List, at func(*T) (int64, string)) ([]*T, page.Meta, error) {
	w := &walk{bot: l.caller.Bot.ID, kind: l.kind, tags: l.tags, within: l.created, order: l.order}
	var few *gathering
	if l.updated {
		few = &gathering{walk: *w}
		w.updates, w.within = l.table, l.changed
	}
	w.at = pages.After()
	out, found := []*T{}, []page.Cursor{}
	for n := range steps {
		some, err := w.next(q, n)
		if err != nil {
			return nil, page.Meta{}, err
		}
		over := w.ended || w.looked >= maxLooked
		if found = append(found, some...); over || len(out)+len(found) > page.Size {
			if out, err = entities[T, P](q, l, pages, out, found); err != nil {
				return nil, page.Meta{}, err
			}
			found = found[:0]
		}
		if w.ended || len(out) > page.Size {
			break
		}
		if all, err := few.next(q, n); err != nil {
			return nil, page.Meta{}, err
		} else if all {
			return sorted[T, P](q, l, pages, few.found, at)
		}
		if over {
			return short(pages, out, w.at, at)
		}
	}
	return cut(pages, out, at)
}

// entities adds those at the places found to a page, until it is full.
func entities[T any, P sqldb.RowOf[T]](q sqldb.Q, l *listing, pages *page.List, out []*T, found []page.Cursor) ([]*T, error) {
	for some := range slices.Chunk(found, page.Size+1) {
		if len(out) > page.Size {
			break
		}
		more, err := among[T, P](q, l, pages, some)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}

// among reads the first page of what fits the list among the entities found.
func among[T any, P sqldb.RowOf[T]](q sqldb.Q, l *listing, pages *page.List, found []page.Cursor) ([]*T, error) {
	ids := make([]string, len(found))
	for i, c := range found {
		ids[i] = c.ID
	}
	w := l.Where.Clone()
	from := byID(w, l.table, l.caller.Bot.ID, ids)
	tail := pages.Keyset(w, cmp.Or(l.key, "e.created_at"), "e.id")
	return rowsOf[T, P](q, from+" "+w.String()+" "+tail, w.Args)
}

// byID is what to read entities e from by their ids. Beside more ids than a few
// SQLite, without statistics, takes any index on the bot for the better one, and
// reads all that the bot has: the limit keeps every other condition apart.
func byID(w *sqldb.Where, table, botID string, ids []string) string {
	cond := "id IN " + sqldb.In(w, ids)
	if table == "messages" { // whose primary key begins with the bot
		cond = "bot_id = " + w.Arg(botID) + " AND " + cond
	}
	return fmt.Sprintf("(SELECT * FROM %s WHERE %s LIMIT %d) e", table, cond, len(ids))
}

// short ends a page that took too many steps to fill.
func short[T any](pages *page.List, out []*T, looked page.Cursor, at func(*T) (int64, string)) ([]*T, page.Meta, error) {
	for _, v := range out {
		at(v)
	}
	meta, err := pages.Short(looked)
	return out, meta, err
}

// gathering finds all entities with some tags, if they are few. It goes along
// with a walk in the order of updates, which takes the longer the fewer they are.
type gathering struct {
	walk
	found []page.Cursor
}

// next looks at up to n entries more and reports whether these were the last.
func (g *gathering) next(q sqldb.Q, n int) (all bool, err error) {
	if g == nil || len(g.found) > maxGathered {
		return false, nil
	}
	found, err := g.walk.next(q, n)
	g.found = append(g.found, found...)
	return g.ended, err
}

// sorted reads a page of the entities found, which are in another order than the list.
func sorted[T any, P sqldb.RowOf[T]](q sqldb.Q, l *listing, pages *page.List, found []page.Cursor, at func(*T) (int64, string)) ([]*T, page.Meta, error) {
	out := []*T{}
	for some := range slices.Chunk(found, maxRead) {
		more, err := among[T, P](q, l, pages, some)
		if err != nil {
			return nil, page.Meta{}, err
		}
		out = append(out, more...)
	}
	slices.SortFunc(out, func(a, b *T) int {
		aAt, aID := at(a)
		bAt, bID := at(b)
		order := cmp.Or(cmp.Compare(aAt, bAt), strings.Compare(aID, bID))
		if l.order == page.NewestFirst {
			return -order
		}
		return order
	})
	return cut(pages, out, at)
}
