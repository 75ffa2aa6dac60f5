package doctor

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net/url"
	"time"

	"parley/internal/app"
)

// configuration is what parley serve would look at before anything else.
func (e *exam) configuration() {
	const check = "configuration"
	if e.Refused != nil {
		e.fail(check, "correct it: what depends on the settings is not looked at before", "serve refuses it: %v", e.Refused)
		return
	}
	c := e.Config
	if err := c.Check(); err != nil {
		e.fail(check, "", "serve refuses it: %v", err) // the refusal names the way out
	} else {
		where := "data in SQLite"
		if c.DatabaseURL != "" {
			where = "data in PostgreSQL"
		}
		e.ok(check, "serve accepts it: it listens on %s, reached at %s, %s", c.Addr, cmp.Or(c.PublicURL, "that address"), where)
	}
	if _, err := app.ReadCredentials(c.Data); !errors.Is(err, fs.ErrNotExist) {
		e.warn(check, "for parley serve revoke that token (parley token list, parley token revoke ID) and delete credentials.json, or take another directory",
			"%s is a directory of parley dev: it holds a token in clear, and serve refuses it", c.Data)
	}
	e.certificate()
}

// certificate looks at the files that the server itself would serve with.
func (e *exam) certificate() {
	c := e.Config
	if c.TLSCert == "" || c.TLSKey == "" {
		return
	}
	const check = "certificate"
	pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
	if err != nil {
		e.fail(check, "name a certificate chain and its key, both in PEM form", "%s and %s do not load: %v", c.TLSCert, c.TLSKey, err)
		return
	}
	u, _ := url.Parse(c.PublicURL) // was parsed when it was set
	e.judge(check, pair.Leaf, u.Hostname())
}

// soonOver is how long before its end a certificate is worth a warning.
const soonOver = 14 * 24 * time.Hour

// judge says whether a certificate is for a host and for how long.
func (e *exam) judge(check string, leaf *x509.Certificate, host string) {
	const renew = "renew it"
	left := time.Until(leaf.NotAfter)
	switch {
	case left < 0:
		e.fail(check, renew, "the certificate has ended %s ago, on %s", age(left), leaf.NotAfter.UTC().Format(time.DateOnly))
	case time.Now().Before(leaf.NotBefore):
		e.fail(check, "wait, or set the clock right", "the certificate begins on %s", leaf.NotBefore.UTC().Format(time.DateOnly))
	case host != "" && leaf.VerifyHostname(host) != nil:
		e.fail(check, "get one for that name, or correct --public-url", "the certificate is not for %s: %v", host, leaf.VerifyHostname(host))
	case left < soonOver:
		e.warn(check, renew, "the certificate ends in %s, on %s", age(left), leaf.NotAfter.UTC().Format(time.DateOnly))
	default:
		e.ok(check, "the certificate is for %s and lasts %s", cmp.Or(host, "this server"), age(left))
	}
}
