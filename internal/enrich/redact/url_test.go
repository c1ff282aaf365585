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
