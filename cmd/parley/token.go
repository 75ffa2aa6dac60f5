package main

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"parley/internal/app"
)

// pat is a personal access token; Value comes once, with a new one.
type pat struct {
	ID        string `json:"id"`
	CreatedAt string `json:"createdAt"`
	Note      string `json:"note"`
	Value     string `json:"value,omitempty"`
}

const patsPath = "/v1/admin/account/pats"

func (p *program) token() *cobra.Command {
	c := &cobra.Command{
		Use:   "token",
		Short: "Create, list and revoke personal access tokens",
		Long: `Create, list and revoke personal access tokens.

While a server uses the data directory this goes through its API, with the
token of parley dev or $PARLEY_TOKEN. Otherwise the data is opened directly and
no token is needed; the first one ever is made this way, together with an
account and a workspace for it.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(p.tokenCreate(), p.tokenList(), p.tokenRevoke())
	return c
}

// tokenCommand adds what the three have in common.
func (p *program) tokenCommand(c *cobra.Command, create bool, run func(ctx context.Context, conn *connection, args []string) error) *cobra.Command {
	load := p.settings(c, "data", "database-url", "master-key-file")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := load()
		if err != nil {
			return err
		}
		return p.connect(cmd.Context(), cfg, create, func(ctx context.Context, conn *connection) error { return run(ctx, conn, args) })
	}
	return c
}

func (p *program) tokenCreate() *cobra.Command {
	var note string
	var asJSON bool
	c := p.tokenCommand(&cobra.Command{
		Use:     "create",
		Short:   "Create a token and print it, this one time",
		Example: `  TOKEN=$(parley token create --note ci)`,
		Args:    noArgs,
	}, true, func(ctx context.Context, conn *connection, _ []string) error {
		var made struct {
			PAT pat `json:"pat"`
		}
		if err := conn.call(ctx, "POST", patsPath, map[string]string{"note": note}, &made); err != nil {
			return err
		}
		if asJSON {
			return p.writeJSON(made.PAT)
		}
		fmt.Fprintf(p.err, "%s created; it is not shown again:\n", made.PAT.ID)
		_, err := fmt.Fprintln(p.out, made.PAT.Value)
		return err
	})
	c.Flags().StringVar(&note, "note", "", "`TEXT` that says what the token is for")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (p *program) tokenList() *cobra.Command {
	var asJSON bool
	c := p.tokenCommand(&cobra.Command{
		Use:   "list",
		Short: "List the tokens of the account, without their text",
		Args:  noArgs,
	}, false, func(ctx context.Context, conn *connection, _ []string) error {
		var list struct {
			PATs []pat `json:"pats"`
		}
		if err := conn.call(ctx, "GET", patsPath, nil, &list); err != nil {
			return err
		}
		// What an offline command uses for itself is gone when this is read.
		list.PATs = slices.DeleteFunc(list.PATs, func(t pat) bool { return !conn.running && t.Note == app.PassingNote })
		if asJSON {
			return p.writeJSON(list.PATs)
		}
		w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "ID\tCREATED\tNOTE")
		for _, t := range list.PATs {
			fmt.Fprintf(w, "%s\t%s\t%s\n", t.ID, t.CreatedAt, t.Note)
		}
		return w.Flush()
	})
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func (p *program) tokenRevoke() *cobra.Command {
	return p.tokenCommand(&cobra.Command{
		Use:     "revoke ID",
		Short:   "Revoke a token at once",
		Example: "  parley token revoke pat_01…",
		Args:    oneArg("token id"),
	}, false, func(ctx context.Context, conn *connection, args []string) error {
		if err := conn.call(ctx, "DELETE", patsPath+"/"+url.PathEscape(args[0]), nil, nil); err != nil {
			return err
		}
		_, err := fmt.Fprintf(p.out, "%s revoked\n", args[0])
		return err
	})
}
