package endpoint_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"parley/internal/endpoint"
	"parley/internal/endpoint/endpointtest"
	"parley/internal/outbound"
	"parley/internal/sqldb"
)

func local(t testing.TB) *outbound.Client {
	t.Helper()
	c := outbound.New(outbound.Config{AllowLoopback: true, UserAgent: "Parley/1.2.3"})
	t.Cleanup(c.Close)
	return c
}

// server runs peer on a port of its own, without a word about what peer aborts.
func server(t testing.TB, peer http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(peer)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	endpointtest.Run(t, func(t *testing.T, peer http.Handler) endpoint.Endpoint {
		s := server(t, peer)
		return endpoint.NewHTTP(s.URL, local(t))
	})
}

func TestBuiltin(t *testing.T) {
	t.Parallel()
	endpointtest.Run(t, func(t *testing.T, peer http.Handler) endpoint.Endpoint {
		return endpoint.NewBuiltin(func(ctx context.Context, op endpoint.Operation) (endpoint.Answer, error) {
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, "/", bytes.NewReader(op.Body))
			if err != nil {
				return endpoint.Answer{}, err
			}
			r.Header = op.Header.Clone()
			r.Header.Set("X-Bp-Operation", op.Name)
			r.Header.Set("X-Bp-Type", op.Type)
			w := httptest.NewRecorder()
			func() {
				// A built-in that waits returns the error of its context.
				defer func() {
					if v := recover(); v != nil {
						if err = ctx.Err(); err == nil {
							panic(v)
						}
					}
				}()
				peer.ServeHTTP(w, r)
			}()
			return endpoint.Answer{Status: w.Code, Header: w.Header(), Body: w.Body.Bytes()}, err
		})
	})
}

func TestHTTPSendsWhatOfficialServersNeed(t *testing.T) {
	t.Parallel()
	var got *http.Request
	var body []byte
	s := server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
	}))
	e := endpoint.NewHTTP(s.URL+"/some/path?a=b", local(t))
	op := endpoint.Operation{Name: "ping", Body: []byte(`{"text":"é 漢 𝄞"}`)}
	if _, err := e.Invoke(t.Context(), op); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "X-Bp-Operation": "ping", "X-Bp-Type": "ping", "User-Agent": "Parley/1.2.3", "Accept-Encoding": "", "Content-Length": "37",
	} {
		if h := got.Header.Get(name); h != want {
			t.Errorf("%s = %q, want %q", name, h, want)
		}
	}
	if got.Method != "POST" || got.URL.String() != "/some/path?a=b" || got.ContentLength != int64(len(body)) || len(got.TransferEncoding) != 0 {
		t.Errorf("got %s %s with length %d, encoding %v", got.Method, got.URL, got.ContentLength, got.TransferEncoding)
	}
	if want := `{"text":"\u00e9 \u6f22 \ud834\udd1e"}`; string(body) != want {
		t.Errorf("body = %s, want %s", body, want)
	}
}

func TestHTTPAtAnAddressThatIsNotAllowed(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	s := server(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) }))
	guarded := outbound.New(outbound.Config{})
	t.Cleanup(guarded.Close)
	for _, raw := range []string{s.URL, strings.Replace(s.URL, "127.0.0.1", "localhost", 1), "http://169.254.169.254/", "file:///etc/passwd", "http://u:p@example.com", ":", ""} {
		a, err := endpoint.NewHTTP(raw, guarded).Invoke(t.Context(), endpoint.Operation{Name: "ping"})
		if got := endpoint.Classify(a, err); got != endpoint.Final {
			t.Errorf("%q: got %v (%v), want final", raw, got, err)
		}
		if endpoint.Reason(a, err) == "" {
			t.Errorf("%q: there is no reason", raw)
		}
	}
	if calls.Load() != 0 {
		t.Errorf("%d calls arrived", calls.Load())
	}
}

func TestHTTPThatIsDown(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for _, raw := range []string{"http://" + l.Addr().String(), "https://" + l.Addr().String(), "http://nobody.invalid"} {
		a, err := endpoint.NewHTTP(raw, local(t)).Invoke(t.Context(), endpoint.Operation{Name: "ping"})
		if got := endpoint.Classify(a, err); got != endpoint.Unreachable {
			t.Errorf("%q: got %v (%v), want unreachable", raw, got, err)
		}
		if u, _ := url.Parse(raw); !strings.Contains(endpoint.Reason(a, err), u.Hostname()) {
			t.Errorf("the reason %q does not name the host", endpoint.Reason(a, err))
		}
	}
}

// A redirect is an answer, and nobody goes where it points.
func TestHTTPDoesNotFollowRedirects(t *testing.T) {
	t.Parallel()
	var followed atomic.Int32
	other := server(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Add(1) }))
	s := server(t, http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	a, err := endpoint.NewHTTP(s.URL, local(t)).Invoke(t.Context(), endpoint.Operation{Name: "ping"})
	if endpoint.Classify(a, err) != endpoint.Failed || followed.Load() != 0 {
		t.Errorf("got %+v, %v; followed %d times", a, err, followed.Load())
	}
	if got := endpoint.Reason(a, err); !strings.Contains(got, "307") || !strings.Contains(got, other.URL) {
		t.Errorf("Reason = %q", got)
	}
}

func TestBuiltinErrors(t *testing.T) {
	t.Parallel()
	plain := errors.New("no such thing")
	for name, c := range map[string]struct {
		fn   func(context.Context, endpoint.Operation) (endpoint.Answer, error)
		want endpoint.Class
	}{
		"an error": {func(context.Context, endpoint.Operation) (endpoint.Answer, error) { return endpoint.Answer{}, plain }, endpoint.Failed},
		"a classified error": {func(context.Context, endpoint.Operation) (endpoint.Answer, error) {
			return endpoint.Answer{}, &endpoint.Error{Class: endpoint.Final, Err: plain}
		}, endpoint.Final},
		"a database that takes no writes": {func(context.Context, endpoint.Operation) (endpoint.Answer, error) {
			return endpoint.Answer{}, fmt.Errorf("say it: %w", sqldb.ErrBusy)
		}, endpoint.Unreachable},
		"an answer without status": {func(context.Context, endpoint.Operation) (endpoint.Answer, error) { return endpoint.Answer{}, nil }, endpoint.Failed},
		"somebody else's deadline": {func(context.Context, endpoint.Operation) (endpoint.Answer, error) {
			return endpoint.Answer{}, context.DeadlineExceeded
		}, endpoint.Failed},
		"somebody else's cancelling": {func(context.Context, endpoint.Operation) (endpoint.Answer, error) {
			return endpoint.Answer{}, context.Canceled
		}, endpoint.Failed},
	} {
		a, err := endpoint.NewBuiltin(c.fn).Invoke(t.Context(), endpoint.Operation{Name: "ping"})
		if got := endpoint.Classify(a, err); got != c.want {
			t.Errorf("%s: got %v (%v), want %v", name, got, err, c.want)
		}
	}
}

func TestABuiltinsPanicKeepsItsStack(t *testing.T) {
	t.Parallel()
	e := endpoint.NewBuiltin(func(context.Context, endpoint.Operation) (endpoint.Answer, error) { panic("oh") })
	_, err := e.Invoke(t.Context(), endpoint.Operation{Name: "ping"})
	p, ok := errors.AsType[*endpoint.PanicError](err)
	if !ok || p.Value != "oh" || !bytes.Contains(p.Stack, []byte("TestABuiltinsPanicKeepsItsStack")) {
		t.Errorf("got %v", err)
	}
}

// A built-in that had finished when its time ran out has done its work.
func TestABuiltinThatAnswersLateHasAnswered(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	e := endpoint.NewBuiltin(func(context.Context, endpoint.Operation) (endpoint.Answer, error) {
		cancel()
		return endpoint.Answer{Status: http.StatusOK}, nil
	})
	if a, err := e.Invoke(ctx, endpoint.Operation{Name: "ping"}); endpoint.Classify(a, err) != endpoint.OK {
		t.Errorf("got %v, %v", a, err)
	}
}
