package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDoctor(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	c := cli{t, map[string]string{"PARLEY_ADDR": "127.0.0.1:0"}}
	if out := c.ok("doctor", "--data", data); !strings.Contains(out, "ok    configuration") || !strings.Contains(out, "does not exist yet") {
		t.Errorf("before the first start it prints\n%s", out)
	}
	_, _ = c.dev(data)
	var e environment
	if err := json.Unmarshal([]byte(c.ok("env", "--data", data, "--json")), &e); err != nil {
		t.Fatal(err)
	}
	c.env["BP_TOKEN"] = e.Token
	out := c.ok("doctor", "--data", data, "--allow-outbound", "127.0.0.1", "--reach", e.APIURL, e.APIURL+"/docs")
	for _, want := range []string{"ok    server", "ok    token", e.WorkspaceID, "ok    reach                " + e.APIURL + "/docs"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing beside a server:\n%s", want, out)
		}
	}
	if strings.Contains(out, e.Token) {
		t.Errorf("the token is printed:\n%s", out)
	}
	if err := os.Chmod(data, 0o777); err != nil {
		t.Fatal(err)
	}
	r := c.run("doctor", "--data", data, "--json")
	var said examined
	if err := json.Unmarshal([]byte(r.out), &said); err != nil || r.status != 1 || said.Status != "fail" || len(said.Checks) < 10 || !strings.Contains(r.err, "1 failed") {
		t.Errorf("with a directory for everybody: status %d, %s, %+v (%v)", r.status, r.err, said, err)
	}
	for _, f := range said.Checks {
		if f.Check == "" || f.Says == "" || f.Level == "fail" && f.Do != "run chmod 700 "+data {
			t.Errorf("%+v", f)
		}
	}
	for _, one := range []struct{ args, says string }{{"doctor now", `takes no argument "now"`}, {"doctor --reach", "needs an argument"}} {
		if r := c.run(strings.Fields(one.args)...); r.status != exitUsage || !strings.Contains(r.err, one.says) {
			t.Errorf("parley %s: %+v", one.args, r)
		}
	}
	if r := c.run("doctor", "--data", data, "--drain-timeout", "soon"); r.status != 1 || !strings.Contains(r.out, "fail  configuration        serve refuses it: --drain-timeout") {
		t.Errorf("with a setting that cannot be read: %+v", r)
	}
}
