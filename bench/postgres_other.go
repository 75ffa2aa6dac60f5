//go:build !unix

package main

import (
	"context"
	"errors"
)

func postgres(context.Context, bool, ...string) (url string, stop func() error, err error) {
	return "", nil, errors.New("it is not started on this system")
}
