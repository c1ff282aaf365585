package config

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write what was got into testdata and docs")

// TestParse shows each input with what is said about it: what is wrong, or the
// effective configuration.
func TestParse(t *testing.T) {
	alone(t)
	golden(t, "testdata/parse.txt", func(input string) string {
		c, err := Parse("x.yaml", []byte(input))
		if err != nil {
			return err.Error() + "\n"
		}
		var b strings.Builder
		c.Print(&b)
		return b.String()
	})
}

// alone takes away what the environment says about paths.
func alone(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", "/run/test")
	t.Setenv("STATE_DIRECTORY", "/var/lib/test")
}

// golden runs f over the blocks of a file: input, ----, output, ====.
func golden(t *testing.T, path string, f func(input string) string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for block := range strings.SplitSeq(string(text), "====\n") {
		input, want, found := strings.Cut(block, "----\n")
		if !found {
			t.Fatalf("%s: a block without ----:\n%s", path, block)
		}
		out := f(input)
		if out != want && !*update {
			t.Errorf("%s\ngot:\n%s\nwant:\n%s", input, out, want)
		}
		got = append(got, input+"----\n"+out)
	}
	if *update {
		if err := os.WriteFile(path, []byte(strings.Join(got, "====\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// What is printed is read again as the same configuration.
func TestPrintRoundTrip(t *testing.T) {
	alone(t)
	c, err := Parse("a", []byte("data: 'with: colon'\nredact: {deny: ['a b', \"c\\\"d\"]}\nsensors:\n  tcp:\n    report_interval: 30s\n    nested: {a: [1, 2]}\n    block:\n      x: 1\n      y: [z]\n"))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	c.Print(&text)
	again, err := Parse("b", []byte(text.String()))
	if err != nil {
		t.Fatalf("%v\n%s", err, text.String())
	}
	if d := Diff(c, again); len(d) > 0 {
		t.Errorf("differs in %v:\n%s", d, text.String())
	}
}

func TestSecretIsHidden(t *testing.T) {
	c, err := Parse("a", []byte("token: hunter2"))
	if err != nil || c.Token != "hunter2" {
		t.Fatal(string(c.Token), err)
	}
	var b strings.Builder
	c.Print(&b)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "config", c, "token", c.Token)
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "config", c, "token", c.Token)
	fmt.Fprintf(&b, "%v %+v %#v %s", c, c, c, c.Token)
	if strings.Contains(b.String(), "hunter2") {
		t.Errorf("the token shows:\n%s", b.String())
	}
}

func TestRead(t *testing.T) {
	alone(t)
	path := filepath.Join(t.TempDir(), "c.yaml")
	os.WriteFile(path, []byte("sync: 5s\n\nlog:\n  levle: warn\n"), 0o600)
	_, err := Read(path)
	want := path + `:4:3: unknown key "log.levle"; did you mean "level"?`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	var errs Errors
	if !errors.As(err, &errs) || errs[0].Line != 4 || errs[0].Col != 3 {
		t.Errorf("%#v is not Errors with a position", err)
	}
	if _, err := Read(path + ".none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	os.WriteFile(path, slices.Repeat([]byte("#"), maxFile+10), 0o600)
	if _, err := Read(path); err == nil || !strings.Contains(err.Error(), "larger than 1MiB") {
		t.Errorf("got %v", err)
	}
}

type tcpOptions struct {
	ReportInterval time.Duration
	MaxFlows       uint32
	Idle           time.Duration `yaml:"idle_timeout"`
	Mode           string        `oneof:"fast,exact"`
	Deep           struct{ Names []string }
}

func TestSensorOptions(t *testing.T) {
	c, err := Parse("x.yaml", []byte("sensors:\n  tcp:\n    enabled: false\n    report_interval: 30s\n    deep: {names: [a]}\n  none:\n"))
	if err != nil {
		t.Fatal(err)
	}
	opts := tcpOptions{ReportInterval: time.Second, MaxFlows: 7, Mode: "fast"}
	if err := c.Sensor("tcp").Options(&opts); err != nil {
		t.Fatal(err)
	}
	want := tcpOptions{ReportInterval: 30 * time.Second, MaxFlows: 7, Mode: "fast"}
	want.Deep.Names = []string{"a"}
	if !reflect.DeepEqual(opts, want) {
		t.Errorf("got %+v, want %+v", opts, want)
	}
	if s := c.Sensor("tcp"); s.Enabled {
		t.Error("tcp is enabled")
	}
	for _, name := range []string{"none", "udp"} {
		if s := c.Sensor(name); !s.Enabled || s.Options(&opts) != nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestSensorOptionsAreStrict(t *testing.T) {
	c, err := Parse("x.yaml", []byte("sensors:\n  tcp:\n    report_intervall: 30s\n    max_flows: -1\n    mode: slow\n  tpc: {enabled: true}\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := `x.yaml:3:5: unknown key "sensors.tcp.report_intervall"; did you mean "report_interval"?
x.yaml:4:16: sensors.tcp.max_flows: "-1" is not a whole number of 0 or more that fits
x.yaml:5:11: sensors.tcp.mode: "slow" is not one of fast, exact`
	if err := c.Sensor("tcp").Options(&tcpOptions{}); err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	want = `x.yaml:6:3: there is no sensor "tpc"; did you mean "tcp"?`
	if err := c.CheckNames([]string{"process", "tcp", "udp"}, nil); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestCheckAfterFlags(t *testing.T) {
	c := Default()
	c.Listen = "nonsense"
	want := `listen: "nonsense" is not an address: write it like 127.0.0.1:4100, or off`
	if err := c.Check(); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestDiff(t *testing.T) {
	parse := func(s string) Config {
		c, err := Parse("a", []byte(s))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	old := parse("listen: 127.0.0.1:1\ntoken: a\nsensors: {tcp: {x: 1}, udp: {enabled: false}}")
	new := parse("listen: 127.0.0.1:2\ntoken: b\nlog: {level: debug}\nretention: {age: 2d}\nsensors: {tcp: {x: 2}, drop: {enabled: true}}")
	want := []Change{{"listen", true}, {"retention.age", false}, {"sensors.tcp.x", false}, {"token", true}, {"log.level", false}, {"sensors.udp.enabled", false}}
	if got := Diff(old, new); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if got := Diff(old, old); got != nil {
		t.Errorf("no change gives %v", got)
	}
}

// A part that says the same in other words has not changed.
func TestPartEqual(t *testing.T) {
	part := func(s string) Part {
		c, err := Parse("a", []byte("sensors: {tcp: "+s+"}"))
		if err != nil {
			t.Fatal(err)
		}
		return c.Sensor("tcp")
	}
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"{x: 1, y: [a]}", "{y: ['a'], x: \"1\", enabled: true}", true},
		{"{}", "{enabled: true}", true},
		{"{x: 1}", "{x: 2}", false},
		{"{x: 1}", "{x: 1, y: 2}", false},
		{"{x: 1}", "{x: 1, enabled: false}", false},
	} {
		if got := part(c.a).Equal(part(c.b)); got != c.want {
			t.Errorf("%s and %s: %v", c.a, c.b, got)
		}
	}
	if !part("{}").Equal(Default().Sensor("tcp")) {
		t.Error("an empty part is not that of an empty file")
	}
}

// What only a sensor knows to be wrong has its line too.
func TestBlame(t *testing.T) {
	c, err := Parse("a.yaml", []byte("sensors:\n  tcp:\n    x: 1\n    rate: 9\n"))
	if err != nil {
		t.Fatal(err)
	}
	part := c.Sensor("tcp")
	for in, want := range map[string]string{
		"rate: 9 is too much":   "a.yaml:4:11: sensors.tcp.rate: 9 is too much",
		"no clock on this host": "a.yaml:2:3: sensors.tcp: no clock on this host",
	} {
		if got := part.Blame(errors.New(in)); got.Error() != want {
			t.Errorf("got %v, want %s", got, want)
		}
	}
	if err := part.Blame(nil); err != nil {
		t.Error(err)
	}
	var o struct{ Y int }
	if err := part.Options(&o); err == nil || part.Blame(err).Error() != err.Error() {
		t.Errorf("%v becomes %v", err, part.Blame(err))
	}
}

func TestValues(t *testing.T) {
	for in, want := range map[string]string{
		"64MiB": "64MiB", "1.5 GiB": "1536MiB", "1000": "", "5kB": "5000B", "0": "0", "-1B": "", "9e30TiB": "", "NaNB": "", "xB": "",
	} {
		var b Bytes
		if err := b.UnmarshalText([]byte(in)); (err != nil) != (want == "") || err == nil && b.String() != want {
			t.Errorf("bytes %q: %s, %v; want %s", in, b, err, want)
		}
	}
	for in, want := range map[string]string{
		"3%": "3%", "0.5 %": "0.5%", "150%": "150%", "3": "", "-3%": "", "%": "", "0": "0%", "Inf%": "",
	} {
		var p Percent
		if err := p.UnmarshalText([]byte(in)); (err != nil) != (want == "") || err == nil && p.String() != want {
			t.Errorf("percent %q: %s, %v; want %s", in, p, err, want)
		}
	}
	for in, want := range map[string]string{
		"24h": "1d", "7d": "7d", "1d12h": "36h", "90s": "1m30s", "10m": "10m", "0": "0s", "3": "", "-1s": "", "1d-1h": "", "d": "", "65536d": "",
		"300000h300001h": "600001h", "2562047h48m": "", "60000d2000000h": "",
	} {
		var d Duration
		if err := d.UnmarshalText([]byte(in)); (err != nil) != (want == "") || err == nil && d.String() != want {
			t.Errorf("duration %q: %s, %v; want %s", in, d, err, want)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"flows", "processes", "query", "status"}
	for in, want := range map[string]string{"flow": "flows", "proceses": "processes", "statsu": "status", "xyz": "", "qury": "query"} {
		if got := Nearest(in, known); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	text, err := os.ReadFile("testdata/parse.txt")
	if err != nil {
		f.Fatal(err)
	}
	for block := range strings.SplitSeq(string(text), "====\n") {
		input, _, _ := strings.Cut(block, "----\n")
		f.Add([]byte(input))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("x", text)
		if err != nil {
			if _, ok := err.(Errors); !ok {
				t.Errorf("%T is not Errors: %v", err, err)
			}
			return
		}
		if err := c.Check(); err != nil {
			t.Errorf("parsed, but: %v", err)
		}
	})
}
