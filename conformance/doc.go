// Package conformance runs the official JavaScript clients, an SDK bot and
// programs from published guides against a real parley process, on SQLite and
// on PostgreSQL, and against three of them behind a proxy that moves clients
// around. All of it is tests:
//
//	go test -v ./conformance
//
// passing.txt lists the cases that must pass; it only grows (-update adds).
package conformance
