package redact

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func seeds(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txt")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for line := range strings.SplitSeq(string(text), "\n") {
			f.Add(decode(line), false)
			f.Add(decode(line), true)
		}
	}
}

// Any input: no panic, no growth but for the stars, as many arguments as
// before, and a second pass changes nothing.
func FuzzArgs(f *testing.F) {
	seeds(f)
	rules := New([]string{"license"})
	f.Fuzz(func(t *testing.T, src []byte, cut bool) {
		once := rules.Args(nil, src, cut)
		if len(once) > len(src)+len(mask)*bytes.Count(once, []byte(mask)) {
			t.Errorf("grew\n%q\n%q", src, once)
		}
		if bytes.Count(once, []byte{0}) != bytes.Count(src, []byte{0}) {
			t.Errorf("arguments\n%q\n%q", src, once)
		}
		if twice := rules.Args(nil, once, cut); !bytes.Equal(once, twice) {
			t.Errorf("not idempotent\n%q\n%q\n%q", src, once, twice)
		}
	})
}

// A secret behind a denied key is never in the output, whatever stands before
// and behind it.
func FuzzPlanted(f *testing.F) {
	keys := []string{"password", "token", "secret", "api_key", "access-key", "signature", "session", "sessionid", "credential",
		"auth", "bearer", "cookie", "passwd", "pwd", "sig", "clientSecret", "DB_PASSWORD", "AWS_SECRET_ACCESS_KEY", "license"}
	forms := []string{
		"\x00--KEY\x00VALUE\x00", "\x00--KEY=VALUE\x00", "\x00-KEY\x00VALUE\x00", "\x00KEY=VALUE\x00",
		"?KEY=VALUE&", "&KEY=VALUE&", " --KEY VALUE ", " --KEY=VALUE ", " --KEY='VALUE' ", " KEY=VALUE ",
		`"KEY":"VALUE"`, `"KEY": "VALUE"`, `\"KEY\":\"VALUE\"`, `'KEY': 'VALUE'`, "\x00KEY: VALUE\x00", "\x00-H\x00KEY: VALUE\x00",
		"\x00postgres://user:VALUE@host/db\x00", "\x00https://user:VALUE@host/\x00", "\x00Authorization: Bearer VALUE\x00",
		"\x00-----BEGIN KEY-----\nVALUE\n-----END KEY-----\x00", "?x=%3FKEY%3DVALUE%26",
	}
	for i := range forms {
		f.Add([]byte("app"), []byte("x"), i, i, uint64(i)*0x9e3779b97f4a7c15)
	}
	f.Add([]byte("don't \"stop"), []byte("'\""), 10, 1, uint64(1))
	rules := New([]string{"license"})
	f.Fuzz(func(t *testing.T, before, behind []byte, form, key int, seed uint64) {
		secret := plant(seed)
		k := keys[uint(key)%uint(len(keys))]
		planted := strings.NewReplacer("KEY", k, "VALUE", secret).Replace(forms[uint(form)%uint(len(forms))])
		src := append(append(bytes.Clone(before), planted...), behind...)
		if bytes.Contains(before, []byte(secret)) || bytes.Contains(behind, []byte(secret)) {
			return // nothing is planted
		}
		if got := rules.Args(nil, src, false); bytes.Contains(got, []byte(secret)) {
			t.Errorf("%q\n%q", src, got)
		}
	})
}

// plant makes a secret that is no word and no number.
func plant(seed uint64) string {
	const letters = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789_.~/+"
	b := []byte("Zq9")
	for range 12 {
		b = append(b, letters[seed%uint64(len(letters))])
		seed = seed/7 + seed<<9 + 13
	}
	return string(b) + "7"
}

func BenchmarkExec(b *testing.B) {
	rules := New(nil)
	lines := map[string]string{
		"plain":  "/usr/sbin/nginx¦-g¦daemon off;¦-c¦/etc/nginx/nginx.conf",
		"secret": "curl¦-s¦-H¦Authorization: Bearer abcdef¦-d¦{\"user\":\"bob\",\"password\":\"hunter2\"}¦https://example.com/a?token=abc&q=1",
		"java":   "java¦" + strings.Repeat("-Dcom.example.some.property.name=some.value.of.it¦", 40) + "-jar¦app.jar",
	}
	for name, line := range lines {
		src, dst := decode(line), make([]byte, 0, 8192)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(src)))
			b.ReportAllocs()
			for b.Loop() {
				dst = rules.Args(dst[:0], src, false)
			}
		})
	}
}
