package main

import (
	"slices"

	"github.com/spf13/cobra"

	"parley/internal/app"
)

// option is a setting of the server as a flag. The value stays text until all
// settings are known: a flag overrules its variable, and both are checked alike.
type option struct {
	app.Option
	given map[string]string
}

func (o option) String() string { return o.Default }
func (o option) Type() string   { return o.Arg }
func (o option) Set(v string) error {
	o.given[o.Name] = v
	return nil
}

// settings adds the server's settings to c as flags, all of them or those
// named, and returns what loads them.
func (p *program) settings(c *cobra.Command, names ...string) func() (app.Config, error) {
	given := map[string]string{}
	for _, o := range app.Options() {
		if len(names) == 0 || slices.Contains(names, o.Name) {
			c.Flags().Var(option{o, given}, o.Name, o.Doc+" ("+o.Env()+")")
		}
	}
	return func() (app.Config, error) {
		cfg, err := app.Load(p.getenv, given)
		if err != nil {
			return cfg, &exitError{exitUsage, err}
		}
		cfg.Version = build().Version
		return cfg, nil
	}
}
