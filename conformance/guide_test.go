package conformance

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"parley/internal/parleytest"
)

// TestTheGuideRuns runs the lines of the guide's page on plain HTTP as they are
// written, one after the other, in a shell next to parley dev.
func TestTheGuideRuns(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatalf("%v: the page is run with curl; run .ci/need curl", err)
	}
	s := parleytest.Serve(t)
	text, err := os.ReadFile("../docs/guide/plain-http.md")
	if err != nil {
		t.Fatal(err)
	}
	// The binary under test is the parley of the page.
	bin := t.TempDir()
	if err := os.Symlink(s.Bin, filepath.Join(bin, "parley")); err != nil {
		t.Fatal(err)
	}
	script := "set -eu\n"
	for i, block := range strings.Split(string(text), "```sh\n") {
		if i > 0 {
			lines, _, _ := strings.Cut(block, "```")
			script += "echo '== '\n" + lines + "echo\n"
		}
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
	cmd.Env = append(s.Env, "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	blocks := strings.Split(string(out), "== \n")[1:]
	const said = `"payload":{"text":"Hey there!"}`
	for i, want := range [][]string{
		{}, {}, {`{"messages":[],"meta":{}}`},
		{`{"message":{`, said, `"replies":[{`, `"direction":"outgoing"`, `"finished":true}`},
		{`{"message":{`, `"replies":[{`, `"payload":{"type":"text","text":"Hey there!"}`, `"finished":true}`},
		{`"text":"Only once"`, `"finished":true}{"message":`, `"finished":true}`},
		{`{"messages":[{`, `"direction":"outgoing"`, `"text":"Only once"`},
	} {
		if i >= len(blocks) {
			t.Fatalf("the page has %d blocks of lines to run, want 7:\n%s", len(blocks), out)
		}
		for _, w := range want {
			if !strings.Contains(blocks[i], w) {
				t.Errorf("block %d: %s is missing in %s", i+1, w, blocks[i])
			}
		}
	}
	if strings.Contains(string(out), `"code":`) {
		t.Errorf("an error was answered:\n%s", out)
	}
	// The same answer twice.
	again := strings.TrimSpace(blocks[5])
	if again[:len(again)/2] != again[len(again)/2:] {
		t.Errorf("the repetition got another answer: %s", again)
	}
}
