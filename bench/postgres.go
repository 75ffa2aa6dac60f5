//go:build unix

package main

import (
	"context"

	"parley/internal/sqldb/sqldbtest/pgserver"
)

// postgres starts a PostgreSQL server from the binaries of the machine.
func postgres(ctx context.Context) (url string, stop func() error, err error) {
	s, err := pgserver.Start(ctx)
	if err != nil {
		return "", nil, err
	}
	return s.URL, s.Stop, nil
}
