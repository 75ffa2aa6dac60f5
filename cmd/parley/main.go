// Command parley is the server and the tools around it: dev and serve start it,
// the others talk to one or look after its data.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func main() {
	restrictFiles()
	p := &program{args: os.Args[1:], in: os.Stdin, out: os.Stdout, err: os.Stderr, getenv: os.Getenv}
	os.Exit(p.run(context.Background()))
}

// program is one run of the command line.
type program struct {
	args     []string
	in       io.Reader
	out, err io.Writer
	getenv   func(string) string
}

// Exit statuses. Usage errors are 2, as with most tools.
const (
	exitFailed = 1
	exitUsage  = 2
)

// exitError ends the program with a status of its own.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func (p *program) run(ctx context.Context) int {
	root := p.root()
	root.SetArgs(p.args)
	root.SetIn(p.in)
	root.SetOut(p.out)
	root.SetErr(p.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(p.err, "parley: %v\n", err)
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.status
	}
	return exitFailed
}

func usage(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "parley",
		Short: "A self-hosted home for conversational bots",
		Long: `Parley is a self-hosted home for conversational bots. It speaks the Botpress
Cloud HTTP APIs, so that bots and clients written for the cloud run here.

Start with "parley dev": it prints everything you need to paste.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("there is no command %q; parley --help lists them", args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage("%v; see %s --help", err, c.CommandPath())
	})
	root.AddGroup(
		&cobra.Group{ID: "server", Title: "The server:"},
		&cobra.Group{ID: "use", Title: "Using it:"},
		&cobra.Group{ID: "keep", Title: "Looking after it:"},
	)
	for _, g := range []struct {
		id   string
		cmds []*cobra.Command
	}{
		{"server", []*cobra.Command{p.dev(), p.serve()}},
		{"use", []*cobra.Command{p.env(), p.chat(), p.listen()}},
		{"keep", []*cobra.Command{p.deliveries(), p.token(), p.secret(), p.backup(), p.doctor(), p.ops(), p.version()}},
	} {
		for _, c := range g.cmds {
			c.GroupID = g.id
			root.AddCommand(c)
		}
	}
	root.SetHelpCommandGroupID("keep")
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages", ".FlagUsagesWrapped 96"))
	return root
}

// noArgs is cobra.NoArgs with a usage error that says what to do.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage("%s takes no argument %q; see %s --help", c.CommandPath(), args[0], c.CommandPath())
	}
	return nil
}

// oneArg asks for exactly one argument.
func oneArg(name string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage("%s takes one %s, got %d arguments; see %s --help", c.CommandPath(), name, len(args), c.CommandPath())
		}
		return nil
	}
}
