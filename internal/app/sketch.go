package app

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"parley/internal/endpoint"
	"parley/internal/outbound"
)

// sketch goes the way of a call up to the point where it would leave the
// server, and returns what would be sent. Its error says why nothing would be.
func (p *parts) sketch(ctx context.Context, endpointID string, op endpoint.Operation) (*http.Request, error) {
	s := &sketcher{Client: p.outbound}
	i := newInvoker(p, s)
	for name := range i.builtins {
		i.builtins[name] = endpoint.NewHTTP(builtinScheme+name, s)
	}
	answer, err := i.Invoke(ctx, endpointID, op)
	if s.made != nil {
		return s.made, nil
	}
	return nil, errors.New(endpoint.Reason(answer, err))
}

// builtinScheme begins what stands in place of a URL for a bot in this process.
const builtinScheme = "builtin:"

// sketcher is an endpoint.Client that keeps a request instead of sending it.
type sketcher struct {
	endpoint.Client
	made *http.Request
}

var errSketched = errors.New("the request was only to be shown")

func (s *sketcher) Check(rawURL string) (*url.URL, error) {
	if strings.HasPrefix(rawURL, builtinScheme) {
		return url.Parse(rawURL)
	}
	return s.Client.Check(rawURL)
}

func (s *sketcher) Do(_ context.Context, req *http.Request, _ outbound.Limits) (*outbound.Response, error) {
	s.made = req
	return nil, errSketched
}
