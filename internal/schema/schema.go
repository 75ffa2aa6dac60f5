// Package schema holds the migrations of the database, in the order of their
// numbers. A migration that has been released is never edited, and a new one lets
// programs of the release before go on: docs/adr/0012-expand-then-contract.md.
package schema

import "embed"

// FS holds the migrations, named NNNN_word.sql. Their braces are replaced per
// database by sqldb.
//
//go:embed *.sql
var FS embed.FS
