package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// client calls an API of a server.
type client struct {
	base   string // without a trailing slash
	header http.Header
	http   *http.Client
}

func newClient(base, token string) *client {
	c := &client{base: strings.TrimRight(base, "/"), header: http.Header{}, http: &http.Client{}}
	if token != "" {
		c.header.Set("Authorization", "Bearer "+token)
	}
	return c
}

// with is a copy of c that sends one more header.
func (c *client) with(name, value string) *client {
	d := *c
	d.header = c.header.Clone()
	d.header.Set(name, value)
	return &d
}

// apiError is an error that the server answered.
type apiError struct {
	Status  int    `json:"-"`
	ID      string `json:"id"`
	Type    string `json:"type"`
	Message string `json:"message"`
}

func (e *apiError) Error() string {
	if e.Type == "" {
		return fmt.Sprintf("the server answered %d %s", e.Status, http.StatusText(e.Status))
	}
	return fmt.Sprintf("%s (%s, %s)", e.Message, e.Type, e.ID)
}

func isType(err error, typ string) bool {
	e, ok := errors.AsType[*apiError](err)
	return ok && e.Type == typ
}

const (
	callTimeout = 30 * time.Second
	maxAnswer   = 64 << 20
)

// call sends in as JSON, unless it is nil, and reads the answer into out,
// unless that is nil.
func (c *client) call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("the answer of %s %s is not what was expected: %w", method, path, err)
	}
	return nil
}

// send sends a request and turns answers that are no success into errors. The
// caller closes the body.
func (c *client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	req.Header = c.header.Clone()
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 200 && resp.StatusCode <= 299 {
		return resp, nil
	}
	defer resp.Body.Close()
	e := &apiError{Status: resp.StatusCode}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	_ = json.Unmarshal(text, e) // an answer of a proxy is no JSON; the status says enough
	return nil, e
}
