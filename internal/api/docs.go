package api

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"html"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// The page that shows an OpenAPI document. It asks nothing of the network.
var (
	//go:embed docs.html
	docsPage string
	//go:embed docs.css
	docsStyle string
	//go:embed docs.js
	docsScript string
)

// DocsHandler serves a page on which a person reads the document that Document made.
func DocsHandler(title string, document []byte) http.Handler {
	// Inside a script element the text must not end it.
	safe, err := jsontext.AppendFormat(nil, document, jsontext.EscapeForHTML(true))
	if err != nil {
		panic("api: the document is not JSON: " + err.Error())
	}
	page := strings.NewReplacer(
		"{{title}}", html.EscapeString(title), "{{style}}", docsStyle, "{{script}}", docsScript, "{{document}}", string(safe),
	).Replace(docsPage)
	s := newStatic([]byte(page), "text/html; charset=utf-8")
	s.policy = fmt.Sprintf("default-src 'none'; script-src %s; style-src %s; base-uri 'none'; form-action 'none'; frame-ancestors 'none'", hashSource(docsScript), hashSource(docsStyle))
	return s
}

// DocumentHandler serves the document itself. Any page may read it.
func DocumentHandler(document []byte) http.Handler {
	s := newStatic(document, "application/json")
	s.public = true
	return s
}

func hashSource(text string) string {
	h := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(h[:]) + "'"
}

// static is a text that stays the same while the server runs.
type static struct {
	media, tag, policy string
	public             bool
	plain, zipped      []byte
}

func newStatic(text []byte, media string) *static {
	h := sha256.Sum256(text)
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
	_, _ = z.Write(text) // a bytes.Buffer takes everything
	_ = z.Close()
	return &static{media: media, tag: `"` + hex.EncodeToString(h[:8]) + `"`, plain: text, zipped: b.Bytes()}
}

// ServeHTTP implements http.Handler.
func (s *static) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", s.media)
	h.Set("Cache-Control", "no-cache")
	h.Set("Etag", s.tag)
	h.Set("Vary", "Accept-Encoding")
	h.Set("X-Content-Type-Options", "nosniff")
	if s.policy != "" {
		h.Set("Content-Security-Policy", s.policy)
	}
	if s.public {
		h.Set("Access-Control-Allow-Origin", "*")
	}
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
	case r.Header.Get("If-None-Match") == s.tag:
		w.WriteHeader(http.StatusNotModified)
	case strings.Contains(r.Header.Get("Accept-Encoding"), "gzip"):
		h.Set("Content-Encoding", "gzip")
		_, _ = w.Write(s.zipped) // a client that left needs no answer
	default:
		_, _ = w.Write(s.plain) // likewise
	}
}
