package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// shellBlocks are the parts of a guide that are for pasting.
var shellBlocks = regexp.MustCompile("(?s)```sh\n(.*?)```")

func TestTheGuideToTheMessagingAPICanBePasted(t *testing.T) {
	t.Parallel()
	c := cli{t: t}
	data := filepath.Join(t.TempDir(), "data")
	c.dev(data)
	got := make(chan string, 10)
	endpoint := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- string(body)
	}))
	t.Cleanup(endpoint.Close)
	guide, err := os.ReadFile("../../docs/guide/messaging-api.md")
	if err != nil {
		t.Fatal(err)
	}
	script := c.ok("env", "--data", data) + "set -e\n"
	for _, block := range shellBlocks.FindAllStringSubmatch(string(guide), -1) {
		script += block[1]
	}
	script = strings.Replace(script, `eval "$(parley env)"`, ":", 1)
	script = strings.Replace(script, "http://127.0.0.1:8080/replies", endpoint.URL, 1)
	out, err := exec.CommandContext(t.Context(), "sh", "-c", script).CombinedOutput()
	if err != nil || strings.Contains(string(out), `"err_`) || !strings.Contains(string(out), `"finished":true`) || !strings.Contains(string(out), `"responseEndpointUrl":"`+endpoint.URL) {
		t.Errorf("pasting\n%s\ngave (%v)\n%s", script, err, out)
	}
	for _, want := range []string{`{"type":"test","payload":"test"}`, `"payload":{"text":"An order of two lines","lines":2},"conversationId":"case-7"`} {
		select {
		case body := <-got:
			if !strings.Contains(body, want) {
				t.Errorf("the endpoint got %s, want %s", body, want)
			}
		case <-time.After(patience):
			t.Fatalf("the endpoint waits for %s in vain", want)
		}
	}
}
