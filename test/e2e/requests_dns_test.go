package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// names is a dnsmasq in a network of its own, where it is the resolver, with a
// web server that has a name.
func names(t *testing.T) *peer {
	t.Helper()
	p := newPeer(t)
	p.port = "53"
	dir := filepath.Dir(p.served)
	p.own["shop"] = fmt.Sprintf("shop-%d.test", os.Getpid())
	p.own["none"] = fmt.Sprintf("none-%d.test", os.Getpid())
	resolv, ready := filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "ready")
	write(t, resolv, "nameserver 127.0.0.1\n")
	p.pid = background(t, "unshare", "--net", "--mount", "sh", "-c", `ip link set lo up; mount --bind "$1" /etc/resolv.conf; : > "$2"
exec dnsmasq --no-daemon --no-resolv --no-hosts --user=root --pid-file= --listen-address=127.0.0.1 --bind-interfaces --local=/test/ --host-record="$3",127.0.0.8 --host-record="web-$3",127.0.0.9 --log-queries --log-facility="$4"`,
		"sh", resolv, ready, p.own["shop"], p.served).Process.Pid
	eventually(t, 15*time.Second, "a network of its own", func() error {
		_, err := os.Stat(ready)
		return err
	})
	p.own["web"] = freePort(t)
	background(t, "nsenter", "-t", strconv.Itoa(p.pid), "-n", "--", "/usr/bin/python3", "testdata/plain.py", p.own["web"], filepath.Join(dir, "web"), "HTTP/1.1", "127.0.0.9")
	eventually(t, 15*time.Second, "dnsmasq and the web server answer", func() error {
		for _, udp := range []string{"-uln", "-tln"} {
			out, err := p.inside("ss", udp).Output()
			if want := map[string]string{"-uln": "127.0.0.1:53", "-tln": "127.0.0.9:" + p.own["web"]}[udp]; err != nil || !strings.Contains(string(out), want) {
				return fmt.Errorf("%v: no %s in %s", err, want, out)
			}
		}
		return nil
	})
	return p
}

// inside is a command that runs in the server's network.
func (p *peer) inside(line ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"-t", strconv.Itoa(p.pid), "-n", "-m", "--"}, line...)...)
}

func askNames(t *testing.T, p *peer) []asked {
	t.Helper()
	const n = 20
	shop, none := p.own["shop"], p.own["none"]
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	do := func(line ...string) (pid int) {
		t.Helper()
		cmd := p.inside(line...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		return cmd.Process.Pid
	}
	python := do("/usr/bin/python3", here+"/testdata/names.py", strconv.Itoa(n), shop, none)
	question := func(name, kind, code string, client int) asked {
		return asked{what: fmt.Sprintf("dns_question_name = '%s' and dns_question_type = '%s'", name, kind),
			is: "protocol = 'dns' and network_transport = 'udp' and dns_response_code = '" + code + "'",
			n:  n, client: client, served: p.queries(t, n, kind, name)}
	}
	dig := []string{"dig", "+tries=1", "+nocookie", "@127.0.0.1"}
	for range n {
		dig = append(dig, shop, "MX")
	}
	all := []asked{
		question(shop, "A", "NOERROR", python), question(shop, "AAAA", "NOERROR", python),
		question(none, "A", "NXDOMAIN", python), question(none, "AAAA", "NXDOMAIN", python),
		question(shop, "MX", "NOERROR", do(dig...)),
	}
	tcp := do("dig", "+tcp", "+tries=1", "@127.0.0.1", shop, "TXT")
	all = append(all, asked{what: "dns_question_name = '" + shop + "' and dns_question_type = 'TXT'",
		is: "protocol = 'dns' and network_transport = 'tcp' and dns_response_code = 'NOERROR'", n: 1, client: tcp})
	web := "http://web-" + shop + ":" + p.own["web"] + "/thing/[1-20]"
	curl := do("curl", "-sS", "-H", "Host:", "-o", "/dev/null", web)
	return append(all, asked{port: p.own["web"], what: "url_path like '/thing/%'",
		is: `role = 'server' or json_extract(attributes, '$."server.address"') = 'web-` + shop + "'", n: n, client: curl})
}

// queries compares how often the server was asked, by its own log.
func (p *peer) queries(t *testing.T, n int, kind, name string) func() {
	return func() {
		t.Helper()
		text, err := os.ReadFile(p.served)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(string(text), fmt.Sprintf("query[%s] %s ", kind, name)); got != n {
			t.Errorf("%s of %s was asked %d times, the server was %d times", kind, name, n, got)
		}
	}
}
