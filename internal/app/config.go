package app

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Config is everything an operator can decide. Its options are set by flags and
// by environment variables of the same names; Options lists them.
type Config struct {
	Addr           string
	Data           string // data directory
	DatabaseURL    string // "" = DATA/parley.db
	NATSURL        string // "" = this is the only server
	Roles          Roles
	PublicURL      string // without a trailing slash; "" = the address listened on
	TLSCert        string
	TLSKey         string
	TrustedProxies []netip.Prefix
	AllowOutbound  []netip.Prefix
	MasterKeyFile  string // "" = DATA/master.key
	DrainTimeout   time.Duration
	DeliveryLog    time.Duration // how long is known what was delivered
	RateLimit      int           // requests a second for one credential, 0 = no limit
	LogLevel       slog.Level
	LogFormat      string // text, json or auto

	Dev     bool      // seeds, keeps its token in DATA/credentials.json, lets calls out reach loopback
	Version string    // of the binary
	LogTo   io.Writer // nil discards the log

	// Of webhooks; tests have less time than the world.
	webhookPauses []time.Duration // nil = those of the delivery engine
	webhookLimit  time.Duration   // 0 = webhookLimit
}

// Option is one setting: a flag, an environment variable and a line of the guide.
type Option struct {
	Name    string // of the flag, without dashes
	Arg     string // what stands for the value in help texts
	Default string
	Doc     string
	set     func(*Config, string) error
}

// Env is the environment variable that sets o.
func (o Option) Env() string {
	return "PARLEY_" + strings.ToUpper(strings.ReplaceAll(o.Name, "-", "_"))
}

// DefaultData is the data directory where none is named.
const DefaultData = "./parley-data"

// Options lists every setting of the server.
func Options() []Option {
	return []Option{
		{"addr", "HOST:PORT", "127.0.0.1:7400", "address to listen on; a loopback address listens on 127.0.0.1 and [::1], port 0 takes a free one", text(func(c *Config) *string { return &c.Addr })},
		{"data", "DIR", DefaultData, "data directory; it is made if it is missing, and one server at a time may use it", text(func(c *Config) *string { return &c.Data })},
		{"database-url", "URL", "", "postgres://… to keep the data in PostgreSQL; empty keeps it in DATA/parley.db", text(func(c *Config) *string { return &c.DatabaseURL })},
		{"nats-url", "URL", "", "nats://… over which several servers on one PostgreSQL database wake each other; empty where there is one server", text(func(c *Config) *string { return &c.NATSURL })},
		{"roles", "ROLE,ROLE", everything, "what this server does of all there is to do: api, realtime, delivery, timers; servers that share the database must have the rest between them", setRoles},
		{"public-url", "URL", "", "how the world reaches this server, such as https://bots.example.com; webhook addresses are made from it", setPublicURL},
		{"tls-cert", "FILE", "", "certificate chain in PEM form; serves HTTPS", text(func(c *Config) *string { return &c.TLSCert })},
		{"tls-key", "FILE", "", "private key of the certificate in PEM form", text(func(c *Config) *string { return &c.TLSKey })},
		{"trusted-proxy", "CIDR,CIDR", "", "proxies in front of this server: only their X-Forwarded-* headers are believed", networks(func(c *Config) *[]netip.Prefix { return &c.TrustedProxies })},
		{"allow-outbound", "CIDR,CIDR", "", "private networks that calls to bots and integrations may reach; public addresses need no entry", networks(func(c *Config) *[]netip.Prefix { return &c.AllowOutbound })},
		{"master-key-file", "FILE", "", "master key that seals secrets in the database; empty means DATA/master.key, made on the first start", text(func(c *Config) *string { return &c.MasterKeyFile })},
		{"drain-timeout", "DURATION", "25s", "how long a stopping server waits for what is in flight", setDrainTimeout},
		{"delivery-log", "DURATION", "168h", "how long the log of deliveries reaches back, at least 1h; a delivery that failed for good stays", setDeliveryLog},
		{"rate-limit", "N", "0", "requests a second that one credential may make; 0 sets no limit", setRateLimit},
		{"log-level", "LEVEL", "info", "least level that is logged: debug, info, warn or error", setLogLevel},
		{"log-format", "FORMAT", "auto", "text, json, or auto: text on a terminal, json elsewhere", setLogFormat},
	}
}

// Load makes a Config of the defaults, the environment and the flags that were
// given, each overruling the one before.
func Load(getenv func(string) string, flags map[string]string) (Config, error) {
	var c Config
	for _, o := range Options() {
		if err := o.set(&c, o.Default); err != nil {
			return Config{}, fmt.Errorf("default of --%s: %w", o.Name, err)
		}
		// An empty variable counts as unset: compose files cannot leave one out.
		if v := getenv(o.Env()); v != "" {
			if err := o.set(&c, v); err != nil {
				return Config{}, fmt.Errorf("%s: %w", o.Env(), err)
			}
		}
		if v, ok := flags[o.Name]; ok {
			if err := o.set(&c, v); err != nil {
				return Config{}, fmt.Errorf("--%s: %w", o.Name, err)
			}
		}
	}
	return c, nil
}

func text(field func(*Config) *string) func(*Config, string) error {
	return func(c *Config, v string) error {
		*field(c) = v
		return nil
	}
}

func networks(field func(*Config) *[]netip.Prefix) func(*Config, string) error {
	return func(c *Config, v string) error {
		var out []netip.Prefix
		for _, word := range strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' }) {
			p, err := parseNetwork(word)
			if err != nil {
				return err
			}
			out = append(out, p)
		}
		*field(c) = out
		return nil
	}
}

func parseNetwork(word string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(word); err == nil {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(word)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a network such as 10.0.0.0/8", word)
	}
	return p.Masked(), nil
}

func setPublicURL(c *Config, v string) error {
	c.PublicURL = strings.TrimRight(v, "/")
	if v == "" {
		return nil
	}
	u, err := url.Parse(c.PublicURL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%q is not a URL such as https://bots.example.com", v)
	case u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		// Clients find the tunnel and the doors at the root of the host.
		return fmt.Errorf("%q must be a bare scheme and host: clients reach Parley at the root of its host", v)
	}
	return nil
}

func setDrainTimeout(c *Config, v string) (err error) {
	c.DrainTimeout, err = time.ParseDuration(v)
	if err != nil || c.DrainTimeout < 0 {
		return fmt.Errorf("%q is not a duration such as 25s", v)
	}
	return nil
}

func setDeliveryLog(c *Config, v string) (err error) {
	c.DeliveryLog, err = time.ParseDuration(v)
	if err != nil || c.DeliveryLog < time.Hour {
		return fmt.Errorf("%q is not a duration of at least 1h, such as 168h", v)
	}
	return nil
}

func setRateLimit(c *Config, v string) (err error) {
	c.RateLimit, err = strconv.Atoi(v)
	if err != nil || c.RateLimit < 0 {
		return fmt.Errorf("%q is not a number of requests a second", v)
	}
	return nil
}

func setLogLevel(c *Config, v string) error {
	switch strings.ToLower(v) {
	case "debug", "info", "warn", "error":
		return c.LogLevel.UnmarshalText([]byte(v))
	}
	return fmt.Errorf("%q is none of debug, info, warn and error", v)
}

func setLogFormat(c *Config, v string) error {
	switch v {
	case "auto", "text", "json":
		c.LogFormat = v
		return nil
	}
	return fmt.Errorf("%q is none of auto, text and json", v)
}

// Check refuses a configuration that contradicts itself, or that would put
// tokens and messages on a network in clear. Development may listen anywhere:
// containers need it.
func (c Config) Check() error {
	if c.Data == "" {
		return errors.New("--data is empty; name the directory that holds the data")
	}
	host, _, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return fmt.Errorf("--addr %q is not of the form HOST:PORT, such as 127.0.0.1:7400", c.Addr)
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return errors.New("--tls-cert and --tls-key belong together; only one of them is given")
	}
	if err := c.checkNetworks(); err != nil {
		return err
	}
	if err := checkDatabaseURL(c.DatabaseURL); err != nil {
		return err
	}
	if err := c.checkCluster(); err != nil {
		return err
	}
	if c.TLSCert != "" && strings.HasPrefix(c.PublicURL, "http:") {
		return fmt.Errorf("--public-url %s says plain HTTP, but --tls-cert serves HTTPS", c.PublicURL)
	}
	if c.Dev || isLoopback(host) && c.PublicURL == "" {
		return nil
	}
	return c.checkExposed(host)
}

// checkExposed is for a server that others reach over a network.
func (c Config) checkExposed(host string) error {
	proxied := len(c.TrustedProxies) > 0
	switch {
	case !isLoopback(host) && c.TLSCert == "" && !proxied:
		return fmt.Errorf("--addr %s is reachable from other machines and would carry tokens in clear; give --tls-cert and --tls-key, or --trusted-proxy with the address of the proxy that ends TLS in front of it, or listen on 127.0.0.1", c.Addr)
	case c.PublicURL == "":
		return fmt.Errorf("--addr %s is reachable from other machines, but --public-url is missing: webhook addresses are made from it", c.Addr)
	case strings.HasPrefix(c.PublicURL, "http:") && !isLoopback(hostname(c.PublicURL)):
		return fmt.Errorf("--public-url %s would carry tokens in clear; use https", c.PublicURL)
	case isLoopback(host) && c.TLSCert == "" && !proxied && !isLoopback(hostname(c.PublicURL)):
		return fmt.Errorf("--public-url %s names another host, so a proxy stands in front of %s: name its address with --trusted-proxy", c.PublicURL, c.Addr)
	}
	return nil
}

// checkCluster is for one server of several.
func (c Config) checkCluster() error {
	if err := checkNATSURL(c.NATSURL); err != nil {
		return err
	}
	several := "--nats-url is for several servers"
	switch {
	case !c.Roles.all():
		several = fmt.Sprintf("--roles %s leaves work to other servers", c.Roles)
	case c.NATSURL == "":
		return nil
	}
	switch {
	case c.DatabaseURL == "":
		return errors.New(several + ", and they need a database that they can share: give --database-url postgres://…")
	case c.MasterKeyFile == "":
		return errors.New(several + ", and they share one master key: name its file with --master-key-file")
	case c.PublicURL == "":
		return errors.New(several + ", and the world reaches them by one address: give --public-url")
	}
	return nil
}

func checkNATSURL(text string) error {
	if text == "" {
		return nil
	}
	for one := range strings.SplitSeq(text, ",") {
		if u, err := url.Parse(strings.TrimSpace(one)); err != nil || u.Host == "" || u.Scheme != "nats" && u.Scheme != "tls" {
			return errors.New("--nats-url is not of the form nats://HOST:PORT or tls://HOST:PORT, with commas between several")
		}
	}
	return nil
}

func (c Config) checkNetworks() error {
	for _, p := range c.TrustedProxies {
		if p.Bits() == 0 {
			return fmt.Errorf("--trusted-proxy %s trusts everybody: anyone could forge the address a request comes from", p)
		}
	}
	for _, p := range c.AllowOutbound {
		if p.Bits() == 0 {
			return fmt.Errorf("--allow-outbound %s opens every private network to whoever may set a bot's URL; name the networks", p)
		}
	}
	return nil
}

func checkDatabaseURL(text string) error {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	if err != nil {
		// The parser's own message repeats the URL, with the password in it.
		return errors.New("--database-url is not a URL such as postgres://user:password@host:5432/parley")
	}
	switch u.Scheme {
	case "postgres", "postgresql":
		return nil
	case "sqlite", "file":
		return errors.New("--database-url is for PostgreSQL; SQLite keeps its file in the data directory, which --data names")
	}
	return fmt.Errorf("--database-url has the scheme %q; Parley speaks postgres://", u.Scheme)
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

func hostname(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return ""
	}
	return u.Hostname()
}
