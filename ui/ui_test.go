package ui

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func ask(t *testing.T, method, path, encoding string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	if encoding != "" {
		r.Header.Set("Accept-Encoding", encoding)
	}
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestEveryRouteIsThePage(t *testing.T) {
	want := body(t, ask(t, "GET", "/", "").Body)
	for _, path := range []string{"/map", "/services", "/requests", "/traces", "/flows", "/processes", "/health", "/no/such/page"} {
		res := ask(t, "GET", path, "")
		if res.StatusCode != 200 || body(t, res.Body) != want {
			t.Errorf("GET %s is not the page (status %d)", path, res.StatusCode)
		}
		if got := res.Header.Get("Cache-Control"); got != "no-cache" {
			t.Errorf("GET %s: Cache-Control %q, want no-cache", path, got)
		}
	}
}

func TestAssetsOfThePage(t *testing.T) {
	types := map[string]string{"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}
	page := body(t, ask(t, "GET", "/", "").Body)
	names := regexp.MustCompile(`/assets/[\w-]+\.(\w+)`).FindAllStringSubmatch(page, -1)
	if len(names) != 3 {
		t.Fatalf("the page names %d assets, want script, style and icon", len(names))
	}
	for _, m := range names {
		res := ask(t, "GET", m[0], "")
		if res.StatusCode != 200 || res.Header.Get("Content-Type") != types[m[1]] {
			t.Errorf("%s: status %d, type %q", m[0], res.StatusCode, res.Header.Get("Content-Type"))
		}
		if got := res.Header.Get("Cache-Control"); !strings.Contains(got, "immutable") {
			t.Errorf("%s: Cache-Control %q, want immutable", m[0], got)
		}
		plain := body(t, res.Body)
		zipped := ask(t, "GET", m[0], "br, gzip;q=0.8")
		if zipped.Header.Get("Content-Encoding") != "gzip" {
			t.Fatalf("%s: not compressed", m[0])
		}
		z, err := gzip.NewReader(zipped.Body)
		if err != nil {
			t.Fatal(err)
		}
		if body(t, z) != plain {
			t.Errorf("%s: compressed and plain differ", m[0])
		}
	}
}

func TestPageIsFitForItsPolicy(t *testing.T) {
	res := ask(t, "GET", "/", "")
	if got := res.Header.Get("Content-Security-Policy"); !strings.Contains(got, "default-src 'none'") || strings.Contains(got, "unsafe") {
		t.Errorf("policy %q", got)
	}
	page := body(t, res.Body)
	inline := regexp.MustCompile(`(?i)<style|\sstyle=|\son\w+=|<script(?:[^>]*)>[^<]`)
	if m := inline.FindString(page); m != "" {
		t.Errorf("the page has something inline: %q", m)
	}
}

func TestRefusals(t *testing.T) {
	tests := []struct {
		method, path, encoding string
		status                 int
	}{
		{"GET", "/assets/none.js", "", 404},
		{"GET", "/assets/", "", 404},
		{"GET", "/assets/../index.html", "", 404},
		{"POST", "/", "", 405},
		{"HEAD", "/", "", 200},
	}
	for _, tt := range tests {
		if got := ask(t, tt.method, tt.path, tt.encoding).StatusCode; got != tt.status {
			t.Errorf("%s %s: %d, want %d", tt.method, tt.path, got, tt.status)
		}
	}
	if got := ask(t, "GET", "/", "gzip;q=0").Header.Get("Content-Encoding"); got != "" {
		t.Errorf("gzip was refused, got %q", got)
	}
}
