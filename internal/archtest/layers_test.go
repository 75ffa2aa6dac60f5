package archtest

import (
	"path"
	"slices"
	"strings"
	"testing"
)

// The layers, from the bottom to the top. A package may import what its line
// names and nothing else of this repository; a group stands for its packages.
// Sibling modules never see each other: app hands them what they need.
var layers = []struct{ dir, may string }{
	// kernel: knows no resource
	{"internal/fault", ""},
	{"internal/id", ""},
	{"internal/durable", ""},
	{"internal/schema", ""},
	{"internal/sqldb/lite", ""},
	{"internal/sqldb", "durable sqldb/lite"},
	{"internal/bus", ""},
	{"internal/cache", "bus"},
	{"internal/page", "fault id sqldb"},
	{"internal/tag", "fault sqldb"},
	{"internal/lease", "id sqldb"},
	{"internal/outbound", "fault"},
	{"internal/auth", "durable fault id"},
	{"internal/once", "auth fault id sqldb"},
	{"internal/signing", "auth bus cache sqldb"},
	{"internal/jsonschema", "fault"},
	{"internal/cron", ""},
	{"internal/api", "auth fault id once page sqldb tag"},
	{"internal/patch", "api fault"},

	// engines: the deep parts
	{"internal/endpoint", "kernel"},
	{"internal/delivery", "kernel endpoint"},
	{"internal/realtime", "kernel"},
	{"internal/timer", "kernel"},

	// modules: one word of the product each
	{"internal/workspace", "kernel engines"},
	{"internal/bot", "kernel engines"},
	{"internal/catalog", "kernel engines"},
	{"internal/messaging", "kernel engines"},

	// integrations and bots written in Go
	{"internal/builtin/chatapi", "kernel engines modules"},
	{"internal/builtin/messagingapi", "kernel engines modules"},
	{"internal/builtin/echobot", "kernel engines modules"},

	// composition
	{"spec", ""},
	{"internal/app", "kernel engines modules builtin spec"},
	{"internal/doctor", "kernel app"},
	{"cmd/parley", "kernel app doctor spec"},

	// programs and suites beside the product
	{"internal/archtest", ""},
	{"internal/bus/bustest", "bus"},
	{"internal/bus/natstest", ""},
	{"internal/lease/leasetest", "lease"},
	{"internal/endpoint/endpointtest", "endpoint outbound"},
	{"internal/sqldb/litetest", ""},
	{"internal/sqldb/sqldbtest", "schema sqldb sqldb/sqldbtest/pgserver"},
	{"internal/sqldb/sqldbtest/pgserver", ""},
	{"internal/sqldb/sqldbtest/pgcluster", "sqldb/sqldbtest/pgserver"},
	{"bench", "kernel bus/natstest costs sqldb/sqldbtest/pgserver"},
	{"bench/costs", ""},
	{"bench/sizing", "costs"},
	{"internal/powertest", ""},
	{"internal/parleytest", "bus/natstest sqldb/sqldbtest"},
	{"conformance", "kernel"},
	{"chaos", "kernel"},
}

var groups = map[string]string{
	"kernel":  "internal/fault internal/id internal/durable internal/schema internal/sqldb internal/bus internal/cache internal/page internal/tag internal/lease internal/outbound internal/auth internal/once internal/signing internal/jsonschema internal/cron internal/api internal/patch",
	"engines": "internal/endpoint internal/delivery internal/realtime internal/timer",
	"modules": "internal/workspace internal/bot internal/catalog internal/messaging",
	"builtin": "internal/builtin/chatapi internal/builtin/messagingapi internal/builtin/echobot",
	"spec":    "spec",
	"costs":   "bench/costs",
}

// confined third-party packages, and the only places that may import them.
var confined = []struct{ imports, dirs, why string }{
	{"github.com/jackc/pgx", "internal/sqldb bench", "SQL text and driver errors stay in one package"},
	{"modernc.org/sqlite", "internal/sqldb bench", "SQL text and driver errors stay in one package"},
	{"github.com/nats-io", "internal/bus internal/bus/natstest", "the bus is the only thing that differs between one node and many"},
	{"github.com/golang-jwt", "internal/auth", "credentials are checked in one place"},
	{"github.com/santhosh-tekuri/jsonschema", "internal/jsonschema", "its defaults read files and hang on patterns"},
	{"github.com/hashicorp/cronexpr", "internal/cron", "which lines are taken is decided in one place"},
	{"github.com/dlclark/regexp2", "internal/jsonschema", "a pattern needs its time limit"},
	{"github.com/go-chi/chi", "internal/api", "operations are mounted from their tables, not by hand"},
	{"github.com/hanwen/go-fuse", "internal/powertest", "a server needs no file system of its own"},
	{"github.com/spf13/cobra", "cmd/parley", "the server does not know that there is a command line"},
}

func TestPackagesImportOnlyWhatTheirLayerMay(t *testing.T) {
	t.Parallel()
	may := map[string][]string{}
	for _, l := range layers {
		may[l.dir] = expand(l.may)
	}
	for _, dir := range packages(t) {
		if _, ok := may[dir]; !ok {
			t.Errorf("%s has no line in the table of layers; say what it may import", dir)
		}
	}
	for _, f := range sources(t) {
		for _, im := range f.ast.Imports {
			to, ok := strings.CutPrefix(strings.Trim(im.Path.Value, `"`), module)
			if !ok || slices.Contains(may[f.dir], to) || f.test && (to == f.dir || testsMay(f.dir, to)) {
				continue
			}
			t.Errorf("%s: %s may not import %s (see the table of layers)", where(im), f.dir, to)
		}
	}
}

// testsMay widens the rule for tests: they may use the suites and the kernel,
// and the tests of whole programs may boot app.
func testsMay(dir, to string) bool {
	boots := dir == "internal/archtest" || dir == "bench" || dir == "conformance" || dir == "chaos"
	return isSuite(to) || slices.Contains(expand("kernel"), to) || boots && (to == "internal/app" || to == "spec")
}

func TestLayersNameOnlyPackagesThatExist(t *testing.T) {
	t.Parallel()
	dirs := packages(t)
	for _, l := range layers {
		if !slices.Contains(dirs, l.dir) {
			t.Errorf("the table of layers names %s, which does not exist", l.dir)
		}
	}
}

func TestThirdPartyPackagesStayWhereTheyBelong(t *testing.T) {
	t.Parallel()
	for _, f := range sources(t) {
		for _, im := range f.ast.Imports {
			to := strings.Trim(im.Path.Value, `"`)
			for _, c := range confined {
				if strings.HasPrefix(to, c.imports) && !within(f.dir, c.dirs) && !f.test {
					t.Errorf("%s: only %s may import %s: %s", where(im), c.dirs, c.imports, c.why)
				}
			}
		}
	}
}

// The kinds of database differ in sqldb and nowhere else.
func TestNobodyAsksWhichDatabaseItIs(t *testing.T) {
	t.Parallel()
	for _, f := range sources(t) {
		if within(f.dir, "internal/sqldb") || f.path == "internal/app/engine.go" {
			continue
		}
		for _, name := range []string{"Dialect", "SQLite", "Postgres"} {
			f.selections(name, func(at string) {
				t.Errorf("%s: %s is asked outside internal/sqldb and internal/app/engine.go; put the difference into sqldb", at, name)
			})
		}
	}
}

func expand(may string) []string {
	var out []string
	for _, word := range strings.Fields(may) {
		switch members, ok := groups[word]; {
		case ok:
			out = append(out, strings.Fields(members)...)
		default:
			out = append(out, path.Join("internal", word))
		}
	}
	return out
}

func within(dir, parents string) bool {
	for _, p := range strings.Fields(parents) {
		if dir == p || strings.HasPrefix(dir, p+"/") {
			return true
		}
	}
	return false
}
