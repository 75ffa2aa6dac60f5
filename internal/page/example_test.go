package page_test

import (
	"fmt"

	"parley/internal/page"
	"parley/internal/sqldb"
)

// A list operation opens the list that its query asks for, adds the list's
// condition and order to its own filters, and cuts what it read into a page.
func Example() {
	type user struct {
		ID        string
		CreatedAt int64
	}
	list := func(q page.Query, botID string) (string, page.Meta, error) {
		l, err := q.Open("listUsers", page.NewestFirst, botID)
		if err != nil {
			return "", page.Meta{}, err
		}
		var w sqldb.Where
		w.And("bot_id = ?", botID)
		order := l.Keyset(&w, "created_at", "id")
		tail := w.String() + " " + order
		rows := make([]user, page.Size+1) // as read with SELECT … FROM users, the tail and w.Args
		rows[page.Size-1] = user{"user_7", 42}
		_, meta, err := page.Cut(l, rows, func(u user) (int64, string) { return u.CreatedAt, u.ID })
		return tail, meta, err
	}

	tail, meta, err := list(page.Query{}, "bot_1")
	fmt.Println(tail, meta.NextToken != "", err)

	tail, _, err = list(page.Query{NextToken: meta.NextToken}, "bot_1")
	fmt.Println(tail, err)

	_, _, err = list(page.Query{NextToken: meta.NextToken}, "bot_2")
	fmt.Println(err)
	// Output:
	// WHERE bot_id = $1 ORDER BY created_at DESC, id DESC LIMIT 21 true <nil>
	// WHERE bot_id = $1 AND (created_at, id) < ($2, $3) ORDER BY created_at DESC, id DESC LIMIT 21 <nil>
	// nextToken belongs to another list or to other filters; send it with the query it was given for, or leave it out to start again
}
