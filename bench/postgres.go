//go:build unix

package main

import (
	"context"

	"parley/internal/sqldb/sqldbtest/pgserver"
)

// postgres starts a PostgreSQL server from the binaries of the machine: one that
// syncs what it confirms, with these settings, or one that does not.
func postgres(ctx context.Context, syncs bool, settings ...string) (url string, stop func() error, err error) {
	s, err := pgserver.New(ctx, pgserver.Options{FSync: syncs, Settings: settings})
	if err != nil {
		return "", nil, err
	}
	return s.URL, s.Stop, nil
}
