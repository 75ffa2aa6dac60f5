package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// version is set by the linker in releases.
var version = ""

// buildInfo is what parley version tells.
type buildInfo struct {
	Version  string            `json:"version"`
	Revision string            `json:"revision,omitempty"`
	Modified bool              `json:"modified,omitempty"` // built from changed sources
	Time     string            `json:"time,omitempty"`
	Go       string            `json:"go"`
	Platform string            `json:"platform"`
	APIs     map[string]string `json:"apis"` // published versions whose form is spoken
}

func build() buildInfo {
	b := buildInfo{
		Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		APIs: map[string]string{"runtime": "1.70.2", "admin": "1.70.2", "chat": "0.7.6"},
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		case "vcs.time":
			b.Time = s.Value
		}
	}
	if b.Version == "" {
		b.Version = info.Main.Version
	}
	if b.Version == "" || b.Version == "(devel)" {
		b.Version = "unreleased"
	}
	return b
}

func (p *program) version() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Say what this binary is and which APIs it speaks",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			b := build()
			if asJSON {
				return p.writeJSON(b)
			}
			line := "parley " + b.Version
			if len(b.Revision) >= 12 && !strings.Contains(b.Version, b.Revision[:12]) {
				line += " (" + b.Revision[:12] + ")"
			}
			_, err := fmt.Fprintf(p.out, "%s\n%s, %s\nRuntime and Admin API %s, Chat API %s\n", line, b.Go, b.Platform, b.APIs["runtime"], b.APIs["chat"])
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// writeJSON prints v for programs.
func (p *program) writeJSON(v any) error {
	e := json.NewEncoder(p.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
