package archtest

import (
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"parley/internal/app"
	"parley/spec"
)

// What the server serves is what spec/operations.txt calls done: the same
// names, methods, paths and statuses, and nothing else.
func TestTheServerServesWhatIsCalledDone(t *testing.T) {
	t.Parallel()
	got := served(t)
	want := map[string]string{}
	for _, o := range spec.Operations() {
		if o.State != spec.Done {
			continue
		}
		name, path := o.Name, o.Path
		if o.Family == "chat" {
			name, path = "chat."+o.Name, "/{webhookId}"+o.Path
		}
		want[name] = o.Method + " " + path + " " + strconv.Itoa(o.Status)
	}
	for name, route := range want {
		switch {
		case got[name] == "":
			t.Errorf("%s is called done and is not served; it should be %s", name, route)
		case got[name] != route:
			t.Errorf("%s is served as %s, want %s", name, got[name], route)
		}
	}
	for name, route := range got {
		if want[name] == "" {
			t.Errorf("%s is served as %s and not called done", name, route)
		}
	}
}

// served reads the document of a running server: operationId → method, path,
// status of success.
func served(t *testing.T) map[string]string {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string              `json:"operationId"`
			Responses   map[string]struct{} `json:"responses"`
		} `json:"paths"`
	}
	resp, err := http.Get(boot(t) + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for path, methods := range doc.Paths {
		for method, o := range methods {
			var success []string
			for status := range o.Responses {
				if strings.HasPrefix(status, "2") {
					success = append(success, status)
				}
			}
			slices.Sort(success)
			out[o.OperationID] = strings.ToUpper(method) + " " + path + " " + strings.Join(success, ",")
		}
	}
	return out
}

// boot runs a server until the end of the test and returns its address.
func boot(t *testing.T) string {
	t.Helper()
	cfg, err := app.Load(func(string) string { return "" }, map[string]string{"addr": "127.0.0.1:0", "data": filepath.Join(t.TempDir(), "data")})
	if err != nil {
		t.Fatal(err)
	}
	a, err := app.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server stopped with: %v", err)
		}
	})
	select {
	case <-a.Ready():
	case err := <-done:
		done <- nil
		t.Fatal(err)
	}
	return a.URL()
}
