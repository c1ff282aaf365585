// Package ui is Ghostlight's web page: the build of src, embedded, and the
// handler that serves it.
package ui

import (
	"bytes"
	"compress/gzip"
	"embed"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"sync"
)

//go:embed dist
var dist embed.FS

// Policy is the Content-Security-Policy the page lives under: everything is
// its own, nothing is inline.
const Policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".svg":  "image/svg+xml",
}

// Handler serves the page: an asset by its hashed name, which browsers may
// keep for ever, and index.html for every other path, because the page itself
// tells its routes apart. Paths below /assets/ that do not exist are 404.
func Handler() http.Handler {
	files := load()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		name := "index.html"
		if strings.HasPrefix(r.URL.Path, "/assets/") {
			name = strings.TrimPrefix(r.URL.Path, "/")
		}
		f, ok := files[name]
		if !ok {
			http.NotFound(w, r)
			return
		}
		f.serve(w, r)
	})
}

// file is one embedded file and, once a browser asked for it, its compressed
// twin.
type file struct {
	plain      []byte
	compressed func() []byte
	typ, cache string
}

func load() map[string]*file {
	files := map[string]*file{}
	err := fs.WalkDir(dist, "dist", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := dist.ReadFile(name)
		if err != nil {
			return err
		}
		files[strings.TrimPrefix(name, "dist/")] = newFile(name, body)
		return nil
	})
	if err != nil {
		panic(err) // an embedded file cannot fail to be read
	}
	return files
}

func newFile(name string, body []byte) *file {
	f := &file{plain: body, typ: contentTypes[path.Ext(name)], cache: "public, max-age=31536000, immutable"}
	if path.Ext(name) == ".html" {
		f.cache = "no-cache" // it names the assets, so it must be asked for again
	}
	f.compressed = sync.OnceValue(func() []byte { return compress(body) })
	return f
}

func compress(body []byte) []byte {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // the level is valid
	w.Write(body)                                         // a bytes.Buffer takes all
	w.Close()
	return b.Bytes()
}

func (f *file) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", f.typ)
	h.Set("Cache-Control", f.cache)
	h.Set("Content-Security-Policy", Policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Vary", "Accept-Encoding")
	body := f.plain
	if acceptsGzip(r) {
		h.Set("Content-Encoding", "gzip")
		body = f.compressed()
	}
	if r.Method == http.MethodGet {
		w.Write(body) // the browser went away: nobody to tell
	}
}

func acceptsGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, q, _ := strings.Cut(strings.TrimSpace(part), ";")
		if name == "gzip" {
			return strings.ReplaceAll(q, " ", "") != "q=0"
		}
	}
	return false
}
