package route

import (
	"fmt"
	"strings"
	"testing"
	"unsafe"
)

func table(t testing.TB, patterns ...string) *Table {
	t.Helper()
	r, err := New(patterns)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestShapes(t *testing.T) {
	r := table(t)
	for path, want := range map[string]string{
		"/":                       "/",
		"/health":                 "/health",
		"/health/":                "/health",
		"/api/v1/users/42":        "/api/v1/users/{id}",
		"/api/v1/users/42/orders": "/api/v1/users/{id}/orders",
		"/api/v2/users":           "/api/v2/users",
		"/items/0190163d-8694-739b-aea5-966c26f8ad91": "/items/{uuid}",
		"/blob/9f86d081884c7d659a2feaa0c55ad015":      "/blob/{hash}",
		"/report/2026-11-20":                          "/report/{date}",
		"/obj/01ARZ3NDEKTSV4RRFFQ69G5FAV":             "/obj/{hash}",
		"/mail/a@b.example":                           "/mail/{email}",
		"/order/ord_104233":                           "/order/{id}",
		"/reset/***":                                  "/reset/{secret}",
		"/deadbeef":                                   "/deadbeef",
		"/static/app.js":                              "/static/app.js",
		"//double":                                    "//double",
		"*":                                           "",
		"example.com:443":                             "",
	} {
		if got := r.Of("shop", path, true); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
}

// Names that are words by their shape become {name} once there are many, while
// the words of the API stay.
func TestNames(t *testing.T) {
	r := table(t)
	for i := range 300 {
		r.Of("shop", fmt.Sprintf("/u/%c%c/profile", 'a'+i%26, 'a'+i/26), true)
		r.Of("shop", "/u/search", true)
	}
	if got := r.Of("shop", "/u/somebody/profile", true); got != "/u/{name}/profile" {
		t.Errorf("a name is %q", got)
	}
	if got := r.Of("shop", "/u/search", true); got != "/u/search" {
		t.Errorf("a word is %q", got)
	}
}

func TestBounds(t *testing.T) {
	r := table(t)
	routes := map[string]bool{}
	for i := range 100_000 {
		routes[r.Of("shop", fmt.Sprintf("/%s/%s/%s", word(i%60), word(i/60%60), word(i/3600)), true)] = true
	}
	if len(routes) > maxRoutes+1 || !routes[Other] {
		t.Errorf("%d routes", len(routes))
	}
	if got := r.Of("shop", strings.Repeat("/a", 100), true); got != Other {
		t.Errorf("a long path is %q", got)
	}
	for i := range 2 * maxServices {
		r.Of(word(i), "/x", true)
	}
	if len(r.services) > maxServices {
		t.Errorf("%d services", len(r.services))
	}
}

func word(i int) string {
	return string([]byte{'g' + byte(i%20), 'g' + byte(i/20%20), 'g' + byte(i/400%20)})
}

// What is not found is not learnt.
func TestNotFound(t *testing.T) {
	r := table(t)
	r.Of("shop", "/a", true)
	for _, path := range []string{"/wp-login.php", "/.env", "/a/b"} {
		if got := r.Of("shop", path, false); got != Other {
			t.Errorf("%s is %q", path, got)
		}
	}
	if got := r.Of("shop", "/a", false); got != "/a" {
		t.Errorf("a known route is %q", got)
	}
}

func TestPatterns(t *testing.T) {
	r := table(t, "/api/v1/{controller}/{id}", "/static/**", "/f/:file", "/")
	for path, want := range map[string]string{
		"/api/v1/users/alice": "/api/v1/{controller}/{id}",
		"/api/v1/users/":      "/api/v1/users",
		"/api/v1/users/a/b":   "/api/v1/users/a/b",
		"/static/a/b/c.js":    "/static/**",
		"/static":             "/static/**",
		"/f/x":                "/f/:file",
		"/":                   "/",
	} {
		if got := r.Of("shop", path, true); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	for _, bad := range []string{"", "api", "/a/**/b", "/a{b}"} {
		if _, err := New([]string{bad}); err == nil {
			t.Errorf("pattern %q is taken", bad)
		}
	}
}

func FuzzOf(f *testing.F) {
	f.Add("/a/1/b", true)
	r := table(f, "/p/{x}/**")
	f.Fuzz(func(t *testing.T, path string, found bool) { r.Of("s", path, found) })
}

// Paths are borrowed: a route that was learnt must not change with them.
func TestBorrowed(t *testing.T) {
	r := table(t)
	for _, path := range []string{"/", "/a", "/a/1"} {
		text := []byte(path)
		want := strings.Clone(r.Of("shop", unsafe.String(&text[0], len(text)), true))
		for i := range text {
			text[i] = 'x'
		}
		if got := r.Of("shop", path, true); got != want {
			t.Errorf("%s was %q and is %q", path, want, got)
		}
	}
}

func TestDoesNotAllocate(t *testing.T) {
	r := table(t, "/p/{x}")
	r.Of("shop", "/api/users/1", true)
	if n := testing.AllocsPerRun(100, func() { r.Of("shop", "/api/users/42", true) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
