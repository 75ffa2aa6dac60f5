// Package conformance runs the official JavaScript clients, an SDK bot and
// programs from published guides against a real parley process, on SQLite and
// on PostgreSQL, and kills that process under load. All of it is tests:
//
//	go test -v ./conformance
//
// passing.txt lists the cases that must pass; it only grows (-update adds).
// With PARLEY_TEST_DB=sqlite PostgreSQL is left out; PARLEY_TEST_BIN names a
// binary to test instead of building one.
package conformance
