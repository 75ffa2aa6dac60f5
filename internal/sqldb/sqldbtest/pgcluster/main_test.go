//go:build unix

package main

import (
	"os"
	"testing"

	"parley/internal/sqldb/sqldbtest"
)

func TestRun(t *testing.T) {
	sqldbtest.NeedsPostgres(t)
	file := t.TempDir() + "/url"
	code, err := run([]string{"--", "/bin/sh", "-c", `printf %s "$PARLEY_TEST_PG_URL" >"$0"; exit 7`, file})
	if code != 7 || err != nil {
		t.Errorf("exit status %d, %v; want that of the command, 7", code, err)
	}
	url, err := os.ReadFile(file)
	if err != nil || len(url) == 0 {
		t.Errorf("the command was given the URL %q, %v", url, err)
	}
	if code, err := run([]string{"--"}); code == 0 || err == nil {
		t.Errorf("no command: exit status %d, %v", code, err)
	}
	if code, err := run([]string{"/does/not/exist"}); code == 0 || err == nil {
		t.Errorf("a command that is not there: exit status %d, %v", code, err)
	}
}
