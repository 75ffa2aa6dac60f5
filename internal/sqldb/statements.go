package sqldb

import (
	"fmt"
	"strconv"
	"strings"
)

// Statement is one of the statements of a migration.
type Statement struct {
	SQL   string   // without its comments
	Marks []string // the comments before it, line by line
}

// Statements splits a migration at the semicolons that stand neither in a text
// nor in a comment.
func Statements(script string) []Statement {
	var all []Statement
	var s Statement
	var sql strings.Builder
	end := func() {
		if s.SQL = strings.TrimSpace(sql.String()); s.SQL != "" {
			all = append(all, s)
			s = Statement{}
		}
		sql.Reset()
	}
	for len(script) > 0 {
		n := 1
		switch {
		case strings.HasPrefix(script, "--"):
			if n = strings.IndexByte(script, '\n'); n < 0 {
				n = len(script)
			}
			if strings.TrimSpace(sql.String()) == "" {
				s.Marks = append(s.Marks, strings.TrimSpace(script[2:n]))
			}
			script = script[n:]
			continue
		case script[0] == '\'': // two in a row are two texts, which is as good
			if n = strings.IndexByte(script[1:], '\''); n < 0 {
				n = len(script)
			} else {
				n += 2
			}
		case script[0] == ';':
			end()
			script = script[1:]
			continue
		}
		sql.WriteString(script[:n])
		script = script[n:]
	}
	end()
	return all
}

const inChunks = "in chunks of "

// Chunk is how many rows the statement changes at most, of an online migration
// that is repeated; 0 = it runs once.
func (s Statement) Chunk() (int64, error) {
	for _, m := range s.Marks {
		if text, ok := strings.CutPrefix(m, inChunks); ok {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil || n < 1 {
				return 0, fmt.Errorf("the mark %q names no number of rows", m)
			}
			return n, nil
		}
	}
	return 0, nil
}
