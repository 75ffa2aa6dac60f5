package api_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"

	"parley/internal/api"
	"parley/internal/auth"
	"parley/internal/fault"
)

// An operation is a typed function and one line in a table.
func ExampleHandle() {
	type greetInput struct {
		ID   string `path:"id"`
		Name string `json:"name" max:"20" doc:"Who is greeted."`
	}
	type greeting struct {
		Text string `json:"text"`
	}
	greet := func(_ context.Context, in greetInput) (greeting, error) {
		if in.ID != "en" {
			return greeting{}, fault.ResourceNotFound.New("Language %q doesn't exist", in.ID)
		}
		return greeting{"Hello, " + in.Name}, nil
	}
	a := api.New(api.Config{Ops: []api.Op{
		api.Handle("greet", "POST /v1/greetings/{id}", auth.Public, greet, api.Doc("Greets somebody.")),
	}})

	ask := func(path, body string) {
		r := httptest.NewRequest("POST", path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		_, message, failed := strings.Cut(w.Body.String(), `"message":`)
		if failed {
			message, _, _ = strings.Cut(message, `,"description"`)
			fmt.Println(w.Code, message)
			return
		}
		fmt.Println(w.Code, w.Body)
	}
	ask("/v1/greetings/en", `{"name":"Ada"}`)
	ask("/v1/greetings/xx", `{"name":"Ada"}`)
	ask("/v1/greetings/en", `{"nam":"Ada"}`)
	// Output:
	// 200 {"text":"Hello, Ada"}
	// 404 "Language \"xx\" doesn't exist"
	// 400 "\"nam\" is not a member of greet; it takes name; did you mean name?"
}
