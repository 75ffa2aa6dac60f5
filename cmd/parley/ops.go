package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"parley/spec"
)

func (p *program) ops() *cobra.Command {
	var asJSON bool
	var state string
	c := &cobra.Command{
		Use:   "ops [FAMILY…]",
		Short: "List every operation, and how far Parley is with it",
		Long: `List every operation of the published APIs and of Parley's own, and how far
Parley is with it: done, planned, or refused with the reason. FAMILY is one of ` + strings.Join(spec.Families(), ", ") + `.`,
		Example: "  parley ops --state planned tables",
		RunE: func(_ *cobra.Command, families []string) error {
			for _, f := range families {
				if !slices.Contains(spec.Families(), f) {
					return usage("there is no API family %q; they are %s", f, strings.Join(spec.Families(), ", "))
				}
			}
			if s := spec.State(state); s != "" && s != spec.Done && s != spec.Planned && s != spec.Refused {
				return usage("--state %q is none of done, planned and refused", state)
			}
			var list []spec.Operation
			for _, o := range spec.Operations() {
				if (len(families) == 0 || slices.Contains(families, o.Family)) && (state == "" || string(o.State) == state) {
					list = append(list, o)
				}
			}
			if asJSON {
				return p.writeJSON(list)
			}
			return p.printOperations(list)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().StringVar(&state, "state", "", "only those in this `STATE`: done, planned or refused")
	return c
}

func (p *program) printOperations(list []spec.Operation) error {
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	n := map[spec.State]int{}
	for _, o := range list {
		n[o.State]++
		state := string(o.State)
		if o.Reason != "" {
			state += ": " + o.Reason
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", o.Family, o.Name, o.Method, o.Path, state)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(p.out, "%d operations: %d done, %d planned, %d refused\n", len(list), n[spec.Done], n[spec.Planned], n[spec.Refused])
	return err
}
