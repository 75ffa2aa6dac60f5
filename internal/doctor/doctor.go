// Package doctor says whether a machine, a configuration and what they need are
// fit for a server, and what to do where they are not. It looks and changes
// nothing: the database is opened for reading alone and never migrated.
package doctor

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"parley/internal/app"
	"parley/internal/sqldb"
)

// Level says how a check went.
type Level string

// The levels. Only Fail means that something does not work or is not safe.
const (
	OK   Level = "ok"
	Info Level = "info"
	Warn Level = "warn"
	Fail Level = "fail"
)

// Finding is what a check has found.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	Says  string `json:"says"`
	Do    string `json:"do,omitempty"` // the way out
}

// Options say what is looked at.
type Options struct {
	Config  app.Config
	Refused error // why the settings make no Config; then only the machine is looked at

	Reach []string // URLs that the server is to reach
	Token string   // "" = none

	// PageTime bounds the look at all pages of an SQLite file; 0 = 10 s.
	PageTime time.Duration
}

// Examine makes the checks one after the other and tells each finding as it comes.
func Examine(ctx context.Context, o Options, tell func(Finding)) {
	if o.PageTime == 0 {
		o.PageTime = 10 * time.Second
	}
	e := &exam{Options: o, tell: tell, began: time.Now(), secrets: secrets(o)}
	e.configuration()
	if o.Refused == nil {
		e.data()
		e.database(ctx)
		e.masterKey(ctx)
	}
	e.clock(ctx)
	e.descriptors()
	if o.Refused == nil {
		e.address(ctx)
		e.publicURL(ctx)
		e.nats(ctx)
		e.reach(ctx)
		e.token(ctx)
	}
	e.isolation()
	if e.db != nil {
		_ = e.db.Close() // it was only read
	}
}

// exam is one run of Examine.
type exam struct {
	Options
	tell    func(Finding)
	began   time.Time
	secrets []string

	server  app.Server // that uses the data directory
	running bool
	db      *sqldb.DB // nil where there is none that can be read
	tables  bool      // it has been migrated
}

func (e *exam) ok(check, format string, args ...any) {
	e.found(check, OK, "", fmt.Sprintf(format, args...))
}

func (e *exam) info(check, format string, args ...any) {
	e.found(check, Info, "", fmt.Sprintf(format, args...))
}

func (e *exam) warn(check, do, format string, args ...any) {
	e.found(check, Warn, do, fmt.Sprintf(format, args...))
}

func (e *exam) fail(check, do, format string, args ...any) {
	e.found(check, Fail, do, fmt.Sprintf(format, args...))
}

// found tells a finding, on one line and without secrets, whoever made its text.
func (e *exam) found(check string, level Level, do, says string) {
	says = strings.Join(strings.Fields(says), " ")
	for _, s := range e.secrets {
		says = strings.ReplaceAll(says, s, "…")
		do = strings.ReplaceAll(do, s, "…")
	}
	e.tell(Finding{check, level, says, do})
}

// secrets are the texts among the options that nobody may read.
func secrets(o Options) []string {
	list := []string{o.Token}
	for _, raw := range append(strings.Split(o.Config.NATSURL, ","), append(o.Reach, o.Config.DatabaseURL)...) {
		u, err := url.Parse(strings.TrimSpace(raw))
		if err != nil {
			continue
		}
		if u.User != nil {
			password, ok := u.User.Password()
			if !ok {
				password = u.User.Username() // the token of a NATS server
			}
			list = append(list, password, url.QueryEscape(password), url.PathEscape(password))
		}
		list = append(list, u.Query().Get("password"), u.Query().Get("sslpassword"))
	}
	out := list[:0]
	for _, s := range list {
		if len(s) > 2 { // shorter ones are in every other word
			out = append(out, s)
		}
	}
	return out
}

// age is a duration as people say it.
func age(d time.Duration) string {
	switch d = d.Abs(); {
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < 48*time.Hour:
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

// size is a number of bytes as people say it.
func size(n int64) string {
	switch f := float64(n); {
	case f < 1<<20:
		return fmt.Sprintf("%.0f KiB", f/(1<<10))
	case f < 1<<30:
		return fmt.Sprintf("%.1f MiB", f/(1<<20))
	default:
		return fmt.Sprintf("%.1f GiB", f/(1<<30))
	}
}
