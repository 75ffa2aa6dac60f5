// Package spec holds the list of every operation of the published APIs, and how
// far Parley is with each, and of those that Parley adds. The list is data:
// nothing here routes or answers.
package spec

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
)

// State says how far an operation is.
type State string

// The states an operation can be in.
const (
	Done    State = "done"
	Planned State = "planned"
	Refused State = "refused"
)

// Own is the family of what Parley adds to the published APIs, for those who
// operate it.
const Own = "parley"

// Operation is one operation of a published API, or one of Parley's own.
type Operation struct {
	Family string `json:"family"` // runtime, admin, files, tables, billing, chat or Own
	Method string `json:"method"`
	Path   string `json:"path"`   // with {parameters}; below /{webhookId} in the chat family
	Name   string `json:"name"`   // operationId, unique in its family
	Status int    `json:"status"` // HTTP status of success
	State  State  `json:"state"`
	Reason string `json:"reason,omitempty"` // why it is refused
}

// Published reports whether o belongs to a published API.
func (o Operation) Published() bool { return o.Family != Own }

//go:embed operations.txt
var text string

// Operations lists every operation in the order of the published documents,
// Parley's own at the end. A malformed list is a programmer's error and panics.
func Operations() []Operation {
	ops, err := parse(text)
	if err != nil {
		panic(err)
	}
	return ops
}

// Families lists the API families in the same order.
func Families() []string {
	var out []string
	for _, op := range Operations() {
		if len(out) == 0 || out[len(out)-1] != op.Family {
			out = append(out, op.Family)
		}
	}
	return out
}

func parse(text string) ([]Operation, error) {
	var ops []Operation
	seen := map[string]bool{}
	for i, line := range strings.Split(text, "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		op, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("operations.txt:%d: %w", i+1, err)
		}
		for _, key := range []string{op.Family + " " + op.Name, op.Family + " " + op.Method + " " + op.Path} {
			if seen[key] {
				return nil, fmt.Errorf("operations.txt:%d: %s is listed twice", i+1, key)
			}
			seen[key] = true
		}
		ops = append(ops, op)
	}
	return ops, nil
}

func parseLine(line string) (Operation, error) {
	f := strings.Fields(line)
	if len(f) < 6 {
		return Operation{}, fmt.Errorf("want family method path name status state, got %q", line)
	}
	status, err := strconv.Atoi(f[4])
	if err != nil {
		return Operation{}, fmt.Errorf("status %q is not a number", f[4])
	}
	op := Operation{Family: f[0], Method: f[1], Path: f[2], Name: f[3], Status: status, State: State(f[5])}
	switch {
	case (op.State == Done || op.State == Planned) && len(f) == 6:
		return op, nil
	case f[5] == "refused:" && len(f) > 6:
		op.State, op.Reason = Refused, strings.Join(f[6:], " ")
		return op, nil
	}
	return Operation{}, fmt.Errorf("state %q is none of done, planned and refused: reason", strings.Join(f[5:], " "))
}
