//go:build unix

package app

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A process that is started while a server stops may have its files for a moment.
func TestTheLockEndsWithTheServerThoughAnotherProcessHasTheFile(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	d, err := openData(dir)
	must(t, err)
	other := exec.CommandContext(t.Context(), "cat")
	other.ExtraFiles = []*os.File{d.lock}
	in, err := other.StdinPipe()
	must(t, err)
	must(t, other.Start())
	must(t, d.close())
	if _, running, err := FindServer(dir); err != nil || running {
		t.Errorf("after the end: running %v, %v", running, err)
	}
	must(t, in.Close())
	must(t, other.Wait())
}
