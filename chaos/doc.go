// Package chaos does to running servers what the world does to them, and looks
// at what is left. Each test has a short form, which is part of make test, and a
// long one, which has the machine to itself and holds times and memory too:
//
//	make chaos-kill-sqlite        TestKill/sqlite, long; its figures go to RELIABILITY.md
//	make chaos-kill-cluster       three servers on PostgreSQL and NATS
//	go test -v -run TestKill ./chaos
//
// Two walk over every operation that is done, as the list of operations and the
// server's own document name it, so that a new one joins by itself: one with
// malformed requests, one with what belongs to strangers.
//
// A crowd of people (crowd_test.go) writes and listens meanwhile. Afterwards every
// message that was acknowledged must be there once, in order, answered once and heard once.
//
// testdata/previous names the commit that TestUpgrade upgrades from. It moves with
// each release, see CONTRIBUTING.md. testdata/next are the migrations of a release to
// come, of every form that the rule for migrations allows.
package chaos
