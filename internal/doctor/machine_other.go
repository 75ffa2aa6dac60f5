//go:build !linux

package doctor

import (
	"errors"
	"runtime"
	"time"
)

func diskOf(string) (disk, error) { return disk{}, errors.ErrUnsupported }

func synchronised() (bool, time.Duration, error) { return false, 0, errors.ErrUnsupported }

func fileLimit(int) (int, error) { return ownLimit() }

func listener(int) string { return "" }

func isolation() []string {
	return []string{"there is none to build on but on Linux, and this is " + runtime.GOOS}
}
