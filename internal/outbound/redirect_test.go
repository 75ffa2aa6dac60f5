package outbound

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

func TestDeliveriesDoNotFollowRedirects(t *testing.T) {
	t.Parallel()
	for _, status := range []int{301, 302, 303, 307, 308} {
		var calls atomic.Int32
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			calls.Add(1)
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
		})
		for _, l := range []Limits{{}, {Redirects: 3}} { // a POST is not followed either way
			resp, err := post(t, t.Context(), local(t), s.URL, "{}", l)
			if err != nil || resp.Status != status || resp.Header.Get("Location") != "/elsewhere" {
				t.Errorf("%d: got %+v, %v", status, resp, err)
			}
		}
		if calls.Load() != 2 {
			t.Errorf("%d: %d calls, want 2", status, calls.Load())
		}
	}
}

// chain redirects /n to /n-1, and /0 answers.
func chain(t *testing.T) *httptest.Server {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Path[1:])
		if n > 0 {
			http.Redirect(w, r, strconv.Itoa(n-1), http.StatusFound)
			return
		}
		io.WriteString(w, r.Method+" "+r.Header.Get("Authorization")+" "+r.UserAgent())
	})
}

func TestFetchesFollowUpToTheLimit(t *testing.T) {
	t.Parallel()
	s := chain(t)
	c := local(t)
	req, _ := http.NewRequest("GET", s.URL+"/3", nil)
	req.Header.Set("Authorization", "secret")
	resp, err := c.Do(t.Context(), req, Limits{Redirects: 3})
	if err != nil || string(resp.Body) != "GET secret Parley/1.2.3" || resp.URL.Path != "/0" {
		t.Errorf("got %+v, %v", resp, err)
	}
	if _, err := get(t, c, s.URL+"/4", Limits{Redirects: 3}); !isA[*RefusedError](err) {
		t.Errorf("four redirects: got %v, want *RefusedError", err)
	}
}

func TestEveryRedirectIsChecked(t *testing.T) {
	t.Parallel()
	var reached atomic.Int32
	port := listenEverywhere(t, &reached)
	for _, location := range []string{
		"http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/", "//192.168.0.1/", "http://[::ffff:127.0.0.1]:" + port + "/", "http://0x7f.1:" + port + "/",
		"http://0.0.0.0:" + port + "/", "http://evil.test:" + port + "/", "file:///etc/passwd", "gopher://127.0.0.1:" + port + "/_x", "http://user:pw@front.test/",
		"javascript:alert(1)", "http://front.test:22/",
	} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", location)
			w.WriteHeader(http.StatusFound)
		})
		_, front, _ := net.SplitHostPort(s.Listener.Addr().String())
		c := testClient(t, Config{AllowLoopback: true}, zone{"front.test.": {"127.0.0.1"}, "evil.test.": {"10.0.0.1", "fd00::1"}})
		if _, err := get(t, c, "http://front.test:"+front+"/", Limits{Redirects: 3}); !isA[*RefusedError](err) {
			t.Errorf("Location %q: got %T %v, want *RefusedError", location, err, err)
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d connections arrived where none was allowed", n)
	}
}

func TestSecretsStayWithTheHostTheyWereMeantFor(t *testing.T) {
	t.Parallel()
	other := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var seen []string
		for _, name := range []string{"Authorization", "Cookie", "X-Bp-Secret", "Accept"} {
			seen = append(seen, r.Header.Get(name))
		}
		io.WriteString(w, strings.Join(seen, ","))
	})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) })
	req, _ := http.NewRequest("GET", s.URL, nil)
	for _, name := range []string{"Authorization", "Cookie", "X-Bp-Secret", "Accept"} {
		req.Header.Set(name, name)
	}
	resp, err := local(t).Do(t.Context(), req, Limits{Redirects: 1})
	if err != nil || string(resp.Body) != ",,,Accept" {
		t.Errorf("got %v, %v", resp, err)
	}
}

func TestARedirectWithoutALocationIsTheAnswer(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusFound) })
	resp, err := get(t, local(t), s.URL, Limits{Redirects: 3})
	if err != nil || resp.Status != http.StatusFound {
		t.Errorf("got %+v, %v", resp, err)
	}
}
