package sqldb

import (
	"strings"
	"sync"
)

var braces = [2]*strings.Replacer{
	SQLite: strings.NewReplacer(" {for_update}", "", "{for_update}", "", " {skip_locked}", "", "{skip_locked}", "", " {concurrently}", "",
		"{json}", "TEXT", "{bytes}", "BLOB", "{without_rowid}", "WITHOUT ROWID", "{c}", ""),
	Postgres: strings.NewReplacer("{for_update}", "FOR UPDATE", "{skip_locked}", "FOR UPDATE SKIP LOCKED", "{concurrently}", "CONCURRENTLY",
		"{json}", "jsonb", "{bytes}", "bytea", "{without_rowid}", "", "{c}", `COLLATE "C"`),
}

// text puts the dialect's words in place of the braces of a statement.
func (d Dialect) text(query string) string {
	if strings.IndexByte(query, '{') < 0 {
		return query
	}
	return braces[d].Replace(query)
}

// texts remembers replaced statements. It is bounded: lists of different
// lengths make different texts.
type texts struct {
	mu sync.RWMutex
	m  map[string]string
}

const maxTexts = 1024

func (t *texts) text(d Dialect, query string) string {
	if strings.IndexByte(query, '{') < 0 {
		return query
	}
	t.mu.RLock()
	s, ok := t.m[query]
	t.mu.RUnlock()
	if ok {
		return s
	}
	s = d.text(query)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.m == nil || len(t.m) >= maxTexts {
		t.m = make(map[string]string)
	}
	t.m[query] = s
	return s
}
