package main

import (
	"cmp"
	"fmt"

	"github.com/spf13/cobra"

	"parley/internal/doctor"
)

func (p *program) doctor() *cobra.Command {
	var o doctor.Options
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say whether a server can run here, and what to do if not",
		Long: `Say whether a server can run here, and what to do if not: configuration, data
directory, disk, database, master key, clock, descriptors, address, public URL,
certificates, NATS, and what the machine has to keep code apart.

Give it the flags and variables of parley serve, and run it as the same user. It
works beside a running server, changes nothing and prints no secrets. Each check
is a line: ok, info, warn, or fail; with a fail the exit status is 1.

With --reach it calls URLs as the server would call a bot there. With --token, or
$PARLEY_TOKEN or $BP_TOKEN, it says whose that token is.`,
		Example: `  parley doctor --data /var/lib/parley --public-url https://bots.example.com --trusted-proxy 127.0.0.1
  parley doctor --reach http://10.0.0.7:8075 --allow-outbound 10.0.0.0/24
  parley doctor --json`,
		Args: func(c *cobra.Command, args []string) error {
			if len(o.Reach) == 0 {
				return noArgs(c, args)
			}
			return nil
		},
	}
	load := p.settings(c)
	c.Flags().StringArrayVar(&o.Reach, "reach", nil, "`URL` that the server is to reach; more may follow")
	c.Flags().StringVar(&o.Token, "token", "", "`TOKEN` to look up ("+tokenEnv+")")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		o.Config, o.Refused = load()
		o.Reach = append(o.Reach, args...)
		o.Token = cmp.Or(o.Token, p.getenv(tokenEnv), p.getenv("BP_TOKEN"))
		found := examined{Status: doctor.OK, Checks: []doctor.Finding{}}
		doctor.Examine(cmd.Context(), o, func(f doctor.Finding) {
			found.add(f)
			if !asJSON {
				fmt.Fprintln(p.out, checkLine(f))
			}
		})
		if asJSON {
			if err := p.writeJSON(found); err != nil {
				return err
			}
		}
		if found.failed > 0 {
			return fmt.Errorf("doctor: %d failed", found.failed)
		}
		return nil
	}
	return c
}

// examined is what parley doctor tells programs.
type examined struct {
	Status doctor.Level     `json:"status"` // ok, warn or fail: the worst
	Checks []doctor.Finding `json:"checks"`
	failed int
}

func (e *examined) add(f doctor.Finding) {
	e.Checks = append(e.Checks, f)
	switch {
	case f.Level == doctor.Fail:
		e.failed++
		e.Status = doctor.Fail
	case f.Level == doctor.Warn && e.Status == doctor.OK:
		e.Status = doctor.Warn
	}
}

// checkLine is a finding for people.
func checkLine(f doctor.Finding) string {
	line := fmt.Sprintf("%-5s %-20s %s", f.Level, f.Check, f.Says)
	if f.Do != "" {
		line += "; " + f.Do
	}
	return line
}
