package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"parley/internal/app"
)

func (p *program) backup() *cobra.Command {
	c := &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy the database and the master key into one file",
		Long: `Copy the database and the master key into one tar file that only its owner may
read. It works beside a running server and does not hold its writers up. FILE
must not exist. Whoever has it has everything: keep it as you keep a key.

To restore, unpack it into an empty directory of mode 700 and start a server
with that as its data directory.

PostgreSQL is backed up with its own tools; then keep the master key beside
the dumps.`,
		Example: "  parley backup parley-$(date +%F).tar --data /var/lib/parley",
		Args:    oneArg("file"),
	}
	load := p.settings(c, "data", "database-url", "master-key-file")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		n, err := app.Backup(cmd.Context(), cfg, args[0])
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(p.out, "%s: %.1f MB, the database and the master key\n", args[0], float64(n)/1e6)
		return err
	}
	return c
}
