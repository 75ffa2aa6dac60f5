package endpoint

import (
	"context"
	"maps"
	"net/http"
	"net/url"

	"parley/internal/id"
	"parley/internal/outbound"
	"parley/internal/signing"
)

// Client sends what an endpoint over HTTP is called with. *outbound.Client is
// the one that does; another shows a call without making it.
type Client interface {
	// Check refuses a URL that can never be called.
	Check(rawURL string) (*url.URL, error)
	Do(ctx context.Context, req *http.Request, l outbound.Limits) (*outbound.Response, error)
}

type httpEndpoint struct {
	client Client
	url    *url.URL
	refuse error // why url can never be called
	// plain leaves the body and the header as they are, but for what every
	// webhook has.
	plain bool
}

var jsonType = []string{"application/json"}

// NewHTTP is the endpoint at a URL: each operation is one POST to it, with an
// ASCII-only body. A URL that can never be called makes every Invoke fail
// finally, with the reason.
func NewHTTP(rawURL string, client Client) Endpoint {
	u, err := client.Check(rawURL)
	return &httpEndpoint{client: client, url: u, refuse: err}
}

// NewWebhook is like NewHTTP for a place that knows nothing of operations: it
// gets the body in UTF-8 and none of the headers that say what is asked.
func NewWebhook(rawURL string, client Client) Endpoint {
	u, err := client.Check(rawURL)
	return &httpEndpoint{client: client, url: u, refuse: err, plain: true}
}

func (e *httpEndpoint) Invoke(ctx context.Context, op Operation) (Answer, error) {
	if e.refuse != nil {
		return Answer{}, &Error{Final, e.refuse}
	}
	resp, err := e.client.Do(ctx, e.request(op), outbound.Limits{MaxBody: MaxAnswer})
	if err == nil {
		return Answer{resp.Status, resp.Header, resp.Body}, nil
	}
	class := classifyError(err)
	if class == Canceled {
		return Answer{}, err
	}
	return Answer{}, &Error{class, err}
}

func (e *httpEndpoint) request(op Operation) *http.Request {
	body := op.Body
	if !e.plain {
		body = ASCII(body)
	}
	if len(body) == 0 {
		body = []byte("{}") // SDKs refuse a request without JSON
	}
	return &http.Request{Method: http.MethodPost, URL: e.url, Header: op.header(body, e.plain), Body: outbound.Body(body)}
}

// header is a copy of op's header with what no call may lack, signed for body.
func (op Operation) header(body []byte, plain bool) http.Header {
	h := make(http.Header, len(op.Header)+6)
	maps.Copy(h, op.Header)
	h["Content-Type"] = jsonType
	if !plain {
		require(h, "X-Bp-Operation", op.Name)
		require(h, "X-Bp-Type", op.kind())
	}
	op.sign(h, body)
	return h
}

// sign gives h the id of the message and, where there is a signer, the time and
// the signatures. Each attempt is signed anew: receivers refuse old ones.
func (op Operation) sign(h http.Header, body []byte) {
	if op.Subject == "" {
		op.Subject = id.New("msg")
	}
	require(h, signing.HeaderID, op.Subject)
	op.Signer.Sign(h, body)
}

func (op Operation) kind() string {
	if op.Type == "" {
		return op.Name
	}
	return op.Type
}

func require(h http.Header, name, value string) {
	if v := h[name]; len(v) == 0 || v[0] == "" {
		h[name] = []string{headerSafe(value)}
	}
}
