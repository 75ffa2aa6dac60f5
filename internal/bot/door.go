package bot

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sync/semaphore"

	"parley/internal/delivery"
	"parley/internal/endpoint"
	"parley/internal/fault"
)

const (
	// MaxDoorBody is how many bytes a request at a door may bring.
	MaxDoorBody = 100 << 20
	// doorMemory is how many bytes all of them may hold at a time.
	doorMemory = 256 << 20
)

// Doors hands what comes to the doors of integrations that run outside Parley
// to them, and their answers back. Every method goes through; the body is handed
// over as text, so it has to be UTF-8 (PROTOCOL §2.2, §2.5).
type Doors struct {
	*Service
	// Call invokes an operation at an endpoint and waits for the answer.
	Call   func(ctx context.Context, endpointID string, op endpoint.Operation) (endpoint.Answer, error)
	memory *semaphore.Weighted
}

// NewDoors returns the doors of s.
func NewDoors(s *Service, call func(context.Context, string, endpoint.Operation) (endpoint.Answer, error)) *Doors {
	return &Doors{s, call, semaphore.NewWeighted(doorMemory)}
}

// Serve hands a request to an installation. path is what follows the webhook id.
// A fault is the answer of Parley itself; nil means that the request is answered.
func (d *Doors) Serve(w http.ResponseWriter, r *http.Request, in *Installation, path string) error {
	if !in.Enabled {
		return fault.Forbidden.New("the integration %q is disabled in its bot", in.Alias)
	}
	body, release, err := d.read(w, r)
	if err != nil {
		return err
	}
	defer release()
	answer, err := d.Call(r.Context(), InstallationEndpoint(in.ID), endpoint.Operation{
		Name: "webhook_received",
		Body: endpoint.WebhookReceived(endpoint.WebhookRequest{Method: r.Method, Path: path, Query: r.URL.RawQuery, Header: handed(r), Body: body}),
	})
	if err != nil {
		return doorFault(in, err)
	}
	if id := answer.Header.Get("X-Bp-Integration-Identifier"); id != "" {
		if err := d.identify(r.Context(), in, id); err != nil {
			d.Log.Warn("an integration sets an identifier that cannot be kept", "installation", in.ID, "err", err)
		}
	}
	return relay(w, r, answer)
}

// read takes the body of a request into memory, of which all doors share a part.
func (d *Doors) read(w http.ResponseWriter, r *http.Request) (body []byte, release func(), err error) {
	held := int64(0)
	release = func() { d.memory.Release(held) }
	defer func() {
		if err != nil {
			release()
		}
	}()
	if r.ContentLength > MaxDoorBody {
		return nil, release, tooLarge
	}
	r.Body = http.MaxBytesReader(w, r.Body, MaxDoorBody)
	for {
		if cap(body)-len(body) < 512 {
			more := max(r.ContentLength-int64(cap(body))+512, int64(cap(body)), 4096)
			if !d.memory.TryAcquire(more) {
				return nil, release, fault.RateLimited.New("the bodies of other requests fill the memory for them; send it again in a moment")
			}
			held += more
			grown := make([]byte, len(body), int64(cap(body))+more)
			copy(grown, body)
			body = grown
		}
		n, err := r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case err == io.EOF:
			if !utf8.Valid(body) {
				return nil, release, fault.UnsupportedMediaType.New("the body is not UTF-8 text, and integrations get bodies as text; send binary data in base64, and do not compress it")
			}
			return body, release, nil
		case err != nil:
			if _, large := errors.AsType[*http.MaxBytesError](err); large {
				return nil, release, tooLarge
			}
			return nil, release, fault.InvalidPayload.Wrap(err, "the body could not be read to its end")
		}
	}
}

var tooLarge = fault.PayloadTooLarge.New("the body has more than %d bytes, the limit at this door", MaxDoorBody)

// handed are the headers that an integration is handed: all but those of the
// connection.
func handed(r *http.Request) http.Header {
	h := r.Header.Clone()
	dropHopByHop(h)
	if r.Host != "" {
		h["Host"] = []string{r.Host}
	}
	if r.ContentLength > 0 {
		h["Content-Length"] = []string{strconv.FormatInt(r.ContentLength, 10)}
	}
	return h
}

// hopByHop are the headers that speak of one connection alone (RFC 9110 §7.6.1).
var hopByHop = []string{"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

func dropHopByHop(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
}

// notRelayed are headers that the integration means for Parley or that Parley sets.
var notRelayed = []string{"Content-Length", "Date", "X-Bp-Integration-Identifier", "X-Bp-Disable-Interstitial"}

// relay answers as the integration did.
func relay(w http.ResponseWriter, r *http.Request, a endpoint.Answer) error {
	if a.Status < 200 || a.Status > 599 {
		return fault.Unknown.New("the integration answered with status %d", a.Status)
	}
	h := a.Header.Clone()
	dropHopByHop(h)
	for _, name := range notRelayed {
		delete(h, name)
	}
	for name, values := range h {
		w.Header()[name] = values
	}
	if h.Get("Content-Type") == "" {
		w.Header()["Content-Type"] = nil // what it is nobody said, and nobody is to guess
	}
	w.WriteHeader(a.Status)
	if r.Method != http.MethodHead && a.Status != http.StatusNoContent && a.Status != http.StatusNotModified {
		_, _ = w.Write(a.Body) // a caller that has gone hears nothing
	}
	return nil
}

// doorFault is what the outside caller hears when the integration did not
// answer: errors at which callers try again, where that may help.
func doorFault(in *Installation, err error) error {
	if errors.Is(err, delivery.ErrFull) {
		return fault.RateLimited.New("too many requests wait for the integration %q; send it again in a moment", in.Alias)
	}
	switch endpoint.Classify(endpoint.Answer{}, err) {
	case endpoint.TimedOut:
		return fault.OperationTimeout.Wrap(err, "the integration %q did not answer within its time limit", in.Alias)
	case endpoint.Unreachable:
		return fault.OperationTimeout.Wrap(err, "the integration %q cannot be reached: %s", in.Alias, endpoint.Reason(endpoint.Answer{}, err))
	case endpoint.Canceled:
		return err
	}
	return fault.Unknown.Wrap(err, "the integration %q gave no usable answer: %s", in.Alias, endpoint.Reason(endpoint.Answer{}, err))
}

// InstallationEndpoint is the endpoint of an installation that runs outside Parley.
func InstallationEndpoint(installationID string) string { return "inst:" + installationID }

// identify keeps the identifier that an integration gives one of its installations.
func (s *Service) identify(ctx context.Context, in *Installation, identifier string) error {
	if len(identifier) > maxIdentifier {
		return fault.InvalidPayload.New("identifier has more than %d characters", maxIdentifier)
	}
	return s.configure(ctx, in.BotID, in.ID, func(row *installation) error {
		row.Identifier = identifier
		return nil
	})
}
