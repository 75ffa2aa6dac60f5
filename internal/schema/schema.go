// Package schema holds the migrations of the database, in the order of their
// numbers. A migration that has been released is never edited.
package schema

import "embed"

// FS holds the migrations, named NNNN_word.sql. Their braces are replaced per
// database by sqldb.
//
//go:embed *.sql
var FS embed.FS
