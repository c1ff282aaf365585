package drop

import (
	"bytes"
	"fmt"
	"net/netip"
	"os/exec"
	"testing"

	"ghostlight/internal/kernel"
)

// haveIptables asks the kernel for the tables that this iptables speaks to, in
// a network namespace of its own.
var haveIptables = &kernel.Probe{Name: "rules of iptables", Since: "2.4", Test: func() error {
	out, err := exec.Command("unshare", "-n", "iptables", "-A", "INPUT", "-p", "tcp", "-j", "DROP").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}}

// A rule as an administrator writes it. TestNetfilter shows the same drop with
// nothing installed.
func TestIptables(t *testing.T) {
	iptables, err := exec.LookPath("iptables")
	if err != nil {
		t.Fatal("iptables is missing: run test/setup.sh")
	}
	if err := haveIptables.Have(); err != nil {
		t.Skip(err)
	}
	r := start(t, 1000)
	to := netip.MustParseAddrPort("127.0.0.1:45142")
	inNewNet(t, func() {
		if out, err := exec.Command(iptables, "-A", "INPUT", "-p", "tcp", "--dport", "45142", "-j", "DROP").CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
			return
		}
		knock(t, to)
	})
	r.turn()
	refused(t, r.find(to))
}
