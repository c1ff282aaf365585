package redact

import (
	"strings"
	"testing"
)

func TestQuery(t *testing.T) {
	r := New([]string{"license"})
	for in, want := range map[string]string{
		"":                                  "",
		"page=2&sort=name":                  "page=2&sort=name",
		"token=abc":                         "token=***",
		"a=1&access_token=abc&b=2":          "a=1&access_token=***&b=2",
		"api%5Fkey=abc;x=1":                 "api%5Fkey=***;x=1",
		"password=&x":                       "password=&x",
		"X-Amz-Signature=00ff&X-Amz-Date=1": "X-Amz-Signature=***&X-Amz-Date=1",
		"sessionid=9":                       "sessionid=***",
		"License=42":                        "License=***",
		"next=https://u:pw@host/":           "next=https://u:***@host/",
		"user[password]=hunter2":            "user[password]=***",
	} {
		if got := string(r.Query(nil, []byte(in), false)); got != want {
			t.Errorf("%q gives %q, want %q", in, got, want)
		}
	}
}

func TestPath(t *testing.T) {
	r := New(nil)
	jwt := "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"
	for in, want := range map[string]string{
		"/": "/", "/api/v1/users/42": "/api/v1/users/42", "//x/": "//x/", "*": "*",
		"/reset/" + jwt: "/reset/***",
		"/items/0190163d-8694-739b-aea5-966c26f8ad91": "/items/0190163d-8694-739b-aea5-966c26f8ad91",
	} {
		if got := string(r.Path(nil, []byte(in))); got != want {
			t.Errorf("%q gives %q, want %q", in, got, want)
		}
	}
}

// No value of a denied key survives, however the query is written.
func FuzzQuery(f *testing.F) {
	f.Add("a=1&", "&b=2")
	f.Add("%", ";;")
	r := New(nil)
	f.Fuzz(func(t *testing.T, before, after string) {
		const secret = "s3cr3tv4lue"
		if strings.Contains(before+after, secret) {
			return
		}
		in := before + "&password=" + secret + "&" + after
		if got := string(r.Query(nil, []byte(in), false)); strings.Contains(got, secret) {
			t.Errorf("%q gives %q", in, got)
		}
		r.Path(nil, []byte(before))
	})
}

func TestIsPlain(t *testing.T) {
	for path, want := range map[string]bool{
		"": true, "/": true, "/api/v1/users/42": true, "*": true, "/fifteen-letters/": true,
		"/sixteen-letters-": false, "sixteen-letters-/": true, "seventeen-letters": false, "/a=b": false, "/u@h/x": false, "/x/a:b": false,
	} {
		if IsPlain(path) != want {
			t.Errorf("%q: want %v", path, want)
		}
	}
}

// What is plain is what Path leaves alone.
func FuzzIsPlain(f *testing.F) {
	for _, path := range []string{"/api/v1/users/42", "/reset/password=hunter2", "/a:b@c/", "//x/eyJhbGciOiJIUzI1NiJ9"} {
		f.Add(path)
	}
	r := New(nil)
	f.Fuzz(func(t *testing.T, path string) {
		if got := string(r.Path(nil, []byte(path))); IsPlain(path) && got != path {
			t.Errorf("%q is plain and becomes %q", path, got)
		}
	})
}
