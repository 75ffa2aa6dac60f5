package parleytest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"parley/internal/bus/natstest"
)

// Binary is PARLEY_TEST_BIN, or cmd/parley built once for all tests of this run.
var Binary = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv("PARLEY_TEST_BIN"); bin != "" {
		return filepath.Abs(bin)
	}
	dir, err := os.MkdirTemp("", "parley-test-")
	if err != nil {
		return "", err
	}
	built = dir
	bin := filepath.Join(dir, "parley")
	build := exec.Command("go", "build", "-o", bin, "parley/cmd/parley")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v: %w\n%s", build.Args, err, out)
	}
	return bin, nil
})

var built string

// Main runs the tests of a package and what is to be checked after them, and
// removes the binary that was built for them.
func Main(m *testing.M, afterwards ...func() error) {
	natstest.Child()
	code := m.Run()
	for _, check := range afterwards {
		if err := check(); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	_ = os.RemoveAll(built) // a left-over in the temporary directory harms nobody
	os.Exit(code)
}
