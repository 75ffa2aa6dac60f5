package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestServeSpeaksTLS(t *testing.T) {
	t.Parallel()
	cert, key, roots := selfSigned(t)
	s := start(t, func(c *Config) { c.Dev, c.TLSCert, c.TLSKey = false, cert, key })
	if !strings.HasPrefix(s.URL(), "https://127.0.0.1:") {
		t.Errorf("the URL is %s, want https", s.URL())
	}
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, Protocols: new(http.Protocols)}
		tr.Protocols.SetHTTP1(proto == "HTTP/1.1")
		tr.Protocols.SetHTTP2(proto == "HTTP/2.0")
		resp, err := (&http.Client{Transport: tr}).Get(s.URL() + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		if resp.Proto != proto || resp.StatusCode != 200 {
			t.Errorf("/readyz answers %d over %s, want 200 over %s", resp.StatusCode, resp.Proto, proto)
		}
		must(t, resp.Body.Close())
		tr.CloseIdleConnections()
	}
	if err := os.WriteFile(key, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := tryStart(t, func(c *Config) { c.TLSCert, c.TLSKey = cert, key }); err == nil || !strings.Contains(err.Error(), "--tls-cert") {
		t.Errorf("a broken key: got %v, want an error that names the setting", err)
	}
}

// selfSigned writes a certificate for 127.0.0.1.
func selfSigned(t *testing.T) (cert, key string, roots *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, private.Public(), private)
	must(t, err)
	parsed, err := x509.ParseCertificate(der)
	must(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	must(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	roots = x509.NewCertPool()
	roots.AddCert(parsed)
	return cert, key, roots
}

// A stream must outlive every deadline that ordinary requests have, and end
// when the server does.
func TestAStreamEndsWithTheServer(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	c, err := ReadCredentials(s.cfg.Data)
	must(t, err)
	streams := map[bool]*http.Response{}
	for _, h2 := range []bool{false, true} {
		v := s.visit(s.door(c.BotID))
		tr := &http.Transport{Protocols: new(http.Protocols)}
		tr.Protocols.SetHTTP1(!h2)
		tr.Protocols.SetUnencryptedHTTP2(h2)
		t.Cleanup(tr.CloseIdleConnections)
		req, err := http.NewRequestWithContext(t.Context(), "GET", s.URL()+v.path+"/conversations/"+v.conversation+"/listen", nil)
		must(t, err)
		req.Header.Set("x-user-key", v.header["x-user-key"])
		resp, err := (&http.Client{Transport: tr}).Do(req)
		must(t, err)
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
			t.Fatalf("listen answers %d %s", resp.StatusCode, resp.Header.Get("Content-Type"))
		}
		v.say("hello")
		streams[h2] = resp
	}
	s.idle()
	must(t, s.stop())
	for h2, resp := range streams {
		text, err := io.ReadAll(resp.Body)
		must(t, errors.Join(err, resp.Body.Close()))
		if strings.Count(string(text), "message_created") != 2 {
			t.Errorf("HTTP/2 %v: the stream ended after\n%s\nwant the message and its echo", h2, text)
		}
	}
}
