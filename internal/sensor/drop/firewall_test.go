package drop

import (
	"net/netip"
	"os/exec"
	"testing"
)

// A rule as an administrator writes it. TestNetfilter shows the same drop with
// nothing installed.
func TestIptables(t *testing.T) {
	iptables, err := exec.LookPath("iptables")
	if err != nil {
		t.Skip("needs iptables: run test/setup.sh")
	}
	r := start(t, 1000)
	to := netip.MustParseAddrPort("127.0.0.1:45142")
	var no string
	inNewNet(t, func() {
		if out, err := exec.Command(iptables, "-A", "INPUT", "-p", "tcp", "--dport", "45142", "-j", "DROP").CombinedOutput(); err != nil {
			no = string(out)
			return
		}
		knock(t, to)
	})
	if no != "" {
		t.Skip("this kernel takes no rule of iptables: ", no)
	}
	r.turn()
	refused(t, r.find(to))
}
