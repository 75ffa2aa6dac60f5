package app

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func load(t *testing.T, env, flags map[string]string) (Config, error) {
	t.Helper()
	return Load(func(name string) string { return env[name] }, flags)
}

func TestFlagsOverruleTheEnvironmentWhichOverrulesTheDefaults(t *testing.T) {
	t.Parallel()
	c, err := load(t,
		map[string]string{"PARLEY_ADDR": "127.0.0.1:1", "PARLEY_DRAIN_TIMEOUT": "3s", "PARLEY_DATA": ""},
		map[string]string{"addr": "127.0.0.1:2"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Addr != "127.0.0.1:2" || c.DrainTimeout != 3*time.Second || c.Data != DefaultData {
		t.Errorf("got addr %s, drain timeout %s, data %s", c.Addr, c.DrainTimeout, c.Data)
	}
}

func TestNetworksAreAddressesOrPrefixes(t *testing.T) {
	t.Parallel()
	c, err := load(t, nil, map[string]string{"trusted-proxy": "10.1.2.3/8, 192.0.2.1,fd00::/8"})
	if err != nil {
		t.Fatal(err)
	}
	want := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("fd00::/8")}
	if len(c.TrustedProxies) != len(want) {
		t.Fatalf("got %v, want %v", c.TrustedProxies, want)
	}
	for i, p := range c.TrustedProxies {
		if p != want[i] {
			t.Errorf("network %d is %s, want %s", i, p, want[i])
		}
	}
}

func TestBadValuesNameWhereTheyStand(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		env, flags map[string]string
		want       string
	}{
		{map[string]string{"PARLEY_DRAIN_TIMEOUT": "soon"}, nil, `PARLEY_DRAIN_TIMEOUT: "soon" is not a duration`},
		{nil, map[string]string{"drain-timeout": "-1s"}, `--drain-timeout: "-1s" is not a duration`},
		{nil, map[string]string{"delivery-log": "7d"}, `--delivery-log: "7d" is not a duration`},
		{nil, map[string]string{"delivery-log": "59m"}, `--delivery-log: "59m" is not a duration of at least 1h`},
		{nil, map[string]string{"rate-limit": "many"}, `--rate-limit: "many" is not a number`},
		{nil, map[string]string{"log-level": "loud"}, `--log-level: "loud" is none of debug, info, warn and error`},
		{nil, map[string]string{"log-level": "info+1"}, `--log-level: "info+1" is none of`},
		{nil, map[string]string{"log-format": "xml"}, `--log-format: "xml" is none of auto, text and json`},
		{map[string]string{"PARLEY_ROLES": "api,worker"}, nil, `PARLEY_ROLES: "worker" is none of api, realtime, delivery and timers`},
		{nil, map[string]string{"roles": "API"}, `--roles: "API" is none of`},
		{nil, map[string]string{"roles": "api,"}, `--roles: "" is none of`},
		{nil, map[string]string{"roles": ""}, `--roles: "" is none of`},
		{nil, map[string]string{"roles": "all,api"}, `--roles: "all" is none of`},
		{nil, map[string]string{"trusted-proxy": "my-proxy"}, `--trusted-proxy: "my-proxy" is neither an address nor a network`},
		{nil, map[string]string{"public-url": "bots.example.com"}, `--public-url: "bots.example.com" is not a URL`},
		{nil, map[string]string{"public-url": "ftp://bots.example.com"}, "is not a URL"},
		{nil, map[string]string{"public-url": "https://example.com/bots"}, "must be a bare scheme and host"},
		{nil, map[string]string{"public-url": "https://me:pw@example.com"}, "must be a bare scheme and host"},
	} {
		if _, err := load(t, c.env, c.flags); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("env %v, flags %v: got %v, want an error with %q", c.env, c.flags, err, c.want)
		}
	}
}

func TestServeRefusesWhatIsInsecureOrContradictory(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		flags map[string]string
		want  string // "" = accepted
	}{
		{nil, ""},
		{map[string]string{"addr": "[::1]:7400"}, ""},
		{map[string]string{"addr": "localhost:7400"}, ""},
		{map[string]string{"addr": "7400"}, "not of the form HOST:PORT"},
		{map[string]string{"data": ""}, "--data is empty"},
		{map[string]string{"addr": ":7400"}, "--addr :7400 is reachable from other machines and would carry tokens in clear"},
		{map[string]string{"addr": "0.0.0.0:7400", "public-url": "https://bots.example.com"}, "would carry tokens in clear"},
		{map[string]string{"addr": "0.0.0.0:7400", "trusted-proxy": "10.0.0.0/8"}, "--public-url is missing"},
		{map[string]string{"addr": "0.0.0.0:7400", "trusted-proxy": "10.0.0.0/8", "public-url": "https://bots.example.com"}, ""},
		{map[string]string{"addr": ":443", "tls-cert": "c.pem", "tls-key": "k.pem", "public-url": "https://bots.example.com"}, ""},
		{map[string]string{"addr": ":443", "tls-cert": "c.pem", "tls-key": "k.pem", "public-url": "http://bots.example.com"}, "says plain HTTP, but --tls-cert serves HTTPS"},
		{map[string]string{"tls-cert": "c.pem"}, "--tls-cert and --tls-key belong together"},
		{map[string]string{"tls-key": "k.pem"}, "--tls-cert and --tls-key belong together"},
		{map[string]string{"public-url": "https://bots.example.com"}, "name its address with --trusted-proxy"},
		{map[string]string{"public-url": "https://bots.example.com", "trusted-proxy": "127.0.0.1"}, ""},
		{map[string]string{"public-url": "http://bots.example.com", "trusted-proxy": "127.0.0.1"}, "would carry tokens in clear; use https"},
		{map[string]string{"public-url": "http://127.0.0.1:8080"}, ""},
		{map[string]string{"trusted-proxy": "0.0.0.0/0"}, "trusts everybody"},
		{map[string]string{"trusted-proxy": "::/0"}, "trusts everybody"},
		{map[string]string{"allow-outbound": "0.0.0.0/0"}, "opens every private network"},
		{map[string]string{"allow-outbound": "10.0.0.0/8"}, ""},
		{map[string]string{"database-url": "postgres://u:p@db/parley"}, ""},
		{map[string]string{"database-url": "sqlite:///x.db"}, "SQLite keeps its file in the data directory"},
		{map[string]string{"database-url": "mysql://db/parley"}, `has the scheme "mysql"`},
		{cluster("nats-url", "nats://a:4222,tls://user:secret@b:4222"), ""},
		{cluster("nats-url", "a:4222"), "--nats-url is not of the form nats://HOST:PORT"},
		{cluster("nats-url", "nats://a:4222,http://b"), "--nats-url is not of the form nats://HOST:PORT"},
		{cluster("database-url", ""), "they need a database that they can share"},
		{cluster("master-key-file", ""), "name its file with --master-key-file"},
		{cluster("public-url", ""), "give --public-url"},
		{cluster("roles", "api,timers"), ""},
		{map[string]string{"roles": "timers,delivery,realtime,api"}, ""}, // these are all
		{map[string]string{"roles": "all"}, ""},
		{map[string]string{"roles": "delivery"}, "--roles delivery leaves work to other servers, and they need a database that they can share"},
		{map[string]string{"roles": "api,api", "database-url": "postgres://u:p@db/parley"}, "--roles api leaves work to other servers, and they share one master key"},
		{map[string]string{"roles": "api", "database-url": "postgres://u:p@db/parley", "master-key-file": "key"}, "give --public-url"},
		{map[string]string{"roles": "api", "database-url": "postgres://u:p@db/parley", "master-key-file": "key", "public-url": "http://127.0.0.1:8080"}, ""},
	} {
		cfg, err := load(t, nil, c.flags)
		if err != nil {
			t.Fatal(err)
		}
		switch err := cfg.Check(); {
		case c.want == "" && err != nil:
			t.Errorf("%v: refused: %v", c.flags, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%v: got %v, want an error with %q", c.flags, err, c.want)
		}
	}
}

// cluster are the settings of one server of several, one of them changed.
func cluster(name, value string) map[string]string {
	flags := map[string]string{
		"nats-url": "nats://127.0.0.1:4222", "database-url": "postgres://u:p@db/parley", "master-key-file": "key", "public-url": "http://127.0.0.1:8080",
	}
	flags[name] = value
	return flags
}

func TestABadDatabaseURLIsNotRepeated(t *testing.T) {
	t.Parallel()
	cfg, err := load(t, nil, map[string]string{"database-url": "postgres://u:hunter2@db:port/parley"})
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.Check(); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v, want an error without the password", err)
	}
}

func TestDevelopmentMayListenAnywhere(t *testing.T) {
	t.Parallel()
	cfg, err := load(t, nil, map[string]string{"addr": "0.0.0.0:7400"})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Dev = true
	if err := cfg.Check(); err != nil {
		t.Error(err)
	}
}

func TestEveryOptionHasItsOwnVariable(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, o := range Options() {
		if seen[o.Env()] || o.Doc == "" || o.Arg == "" {
			t.Errorf("option %s: variable %s, argument %q, text %q", o.Name, o.Env(), o.Arg, o.Doc)
		}
		seen[o.Env()] = true
	}
}
