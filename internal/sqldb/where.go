package sqldb

import (
	"slices"
	"strconv"
	"strings"
)

// Where builds a WHERE clause and numbers its arguments.
type Where struct {
	cond []string
	Args []any
}

// And adds a condition; each ? in it becomes the next $n.
func (w *Where) And(cond string, args ...any) {
	var b strings.Builder
	for _, a := range args {
		before, after, found := strings.Cut(cond, "?")
		if !found {
			panic("sqldb: condition " + strconv.Quote(cond) + " has fewer ? than arguments")
		}
		b.WriteString(before)
		b.WriteString(w.Arg(a))
		cond = after
	}
	b.WriteString(cond)
	w.cond = append(w.cond, b.String())
}

// Clone copies w, so that the copy can go on by itself.
func (w *Where) Clone() *Where {
	return &Where{slices.Clone(w.cond), slices.Clone(w.Args)}
}

// Arg appends an argument and returns its placeholder, for LIMIT and the like.
func (w *Where) Arg(v any) string {
	w.Args = append(w.Args, v)
	return "$" + strconv.Itoa(len(w.Args))
}

// String is the clause, with WHERE if there is any condition.
func (w *Where) String() string {
	if len(w.cond) == 0 {
		return ""
	}
	return "WHERE " + strings.Join(w.cond, " AND ")
}

// In appends the values as arguments and returns "($1, $2, …)" for IN. An
// empty list gives "(NULL)", which nothing is in.
func In(w *Where, values []string) string {
	if len(values) == 0 {
		return "(NULL)"
	}
	var b strings.Builder
	for i, v := range values {
		b.WriteString(map[bool]string{true: "(", false: ", "}[i == 0])
		b.WriteString(w.Arg(v))
	}
	b.WriteByte(')')
	return b.String()
}
