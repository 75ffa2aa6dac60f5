package app

import (
	"net/http"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
	"parley/spec"
)

// unbuilt are the operations that are planned or refused. They answer a typed
// error, whoever asks: a client then knows that the path is right and why it
// gets nothing. MethodNotFound is what official clients understand as "this
// server does not do that"; ResourceNotFound would say that a thing is missing.
//
// One that is served all the same is left to who serves it: that the list is
// out of date is for a test to find, not for a start to fail on.
func unbuilt(served []api.Op) []api.Op {
	built := map[string]bool{}
	for _, o := range served {
		built[o.ID] = true
	}
	var ops []api.Op
	for _, o := range spec.Operations() {
		if o.State == spec.Done || o.Family == "chat" || built[o.Name] {
			continue
		}
		answer := fault.MethodNotFound.New("%s is planned and not built yet in this version of Parley", o.Name)
		if o.State == spec.Refused {
			answer = fault.Forbidden.New("%s is refused: %s", o.Name, o.Reason)
		}
		ops = append(ops, api.HandleRaw(o.Name, o.Method+" "+o.Path, auth.Public, func(http.ResponseWriter, *http.Request) error {
			return answer
		}))
	}
	return ops
}
