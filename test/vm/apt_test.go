package main

import (
	"slices"
	"strings"
	"testing"
)

func TestParseMirror(t *testing.T) {
	for name, c := range map[string]struct {
		uris string
		want mirror
		bad  bool
	}{
		"usual": {uris: `'http://mirror.test/debian/dists/bookworm/InRelease' mirror.test_debian_dists_bookworm_InRelease 0
'http://mirror.test/debian/dists/bookworm-updates/InRelease' x 0
'https://other.test/debian-security/dists/bookworm-security/InRelease' x 0
`, want: mirror{"http://mirror.test/debian", "https://other.test/debian-security"}},
		"no security": {uris: `'http://mirror.test/a/debian/dists/stable/Release' x 0
`, want: mirror{"http://mirror.test/a/debian", "http://mirror.test/a/debian-security"}},
		"others first": {uris: `'https://vendor.test/node/dists/nodistro/InRelease' x 0
'http://mirror.test/debian/dists/trixie/main/binary-amd64/Packages.xz' x 0
'http://mirror.test/debian/dists/trixie/InRelease' x 0
`, want: mirror{"http://mirror.test/debian", "http://mirror.test/debian-security"}},
		"no Debian": {uris: `'http://mirror.test/ubuntu/dists/noble/InRelease' x 0
`, bad: true},
		"nothing": {bad: true},
	} {
		got, err := parseMirror(c.uris)
		if got != c.want && !c.bad || (err != nil) != c.bad {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestNewest(t *testing.T) {
	packages := strings.Join([]string{
		"linux-image-cloud-amd64",
		"linux-image-5.10.0-9-cloud-amd64",
		"linux-image-5.10.0-46-cloud-amd64",
		"linux-image-5.10.0-46-cloud-amd64-dbg",
		"linux-image-5.10.0-47-cloud-amd64-unsigned",
		"linux-image-5.10.0-48-amd64",
		"linux-image-6.1.0-0.deb11.52-cloud-amd64",
		"linux-image-6.12.9+deb13-cloud-amd64",
		"linux-image-6.12.117+deb13-cloud-amd64",
		"linux-image-6.12.117+deb12-cloud-amd64",
		"linux-image-6.12.115+deb13.1-cloud-amd64",
		"linux-image-6.12-cloud-amd64",
	}, "\n")
	for _, c := range []struct {
		series series
		want   string
	}{
		{series{name: "5.10"}, "5.10.0-46-cloud-amd64"},
		{series{name: "6.1"}, "6.1.0-0.deb11.52-cloud-amd64"},
		{series{name: "6.12"}, "6.12.117+deb13-cloud-amd64"},
		{series{name: "5.1"}, ""},
		{series{name: "7.2", rolling: true}, "6.12.117+deb13-cloud-amd64"},
	} {
		got, ok := newest(c.series, packages)
		if got != c.want || ok != (c.want != "") {
			t.Errorf("%+v: %q, want %q", c.series, got, c.want)
		}
	}
}

func TestCompareVersions(t *testing.T) {
	sorted := []string{"5.10", "6.1.0-9", "6.1.0-10", "6.1.0-010a", "6.2", "6.12-cloud", "6.12.9+deb13", "6.12.115+deb13", "6.12.115+deb13.1", "7.2"}
	for i, a := range sorted {
		for j, b := range sorted {
			if got := compareVersions(a, b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("compare %q, %q: %d", a, b, got)
			}
		}
	}
}

func TestSameRelease(t *testing.T) {
	got := sameRelease("linux-binary-7.2.13+deb14-cloud-amd64 (= 7.2.13-1) | linux-binary-unsigned-7.2.13+deb14-cloud-amd64 (= 7.2.13-1), "+
		"linux-modules-7.2.13+deb14-cloud-amd64 (= 7.2.13-1), linux-base (>= 4.12), kmod, initramfs-tools | linux-initramfs-tool", "7.2.13+deb14-cloud-amd64")
	if !slices.Equal(got, []string{"linux-binary-7.2.13+deb14-cloud-amd64", "linux-modules-7.2.13+deb14-cloud-amd64"}) {
		t.Error(got)
	}
	if got := sameRelease("", "x"); got != nil {
		t.Error(got)
	}
}
