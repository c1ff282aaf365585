package agent

import (
	"fmt"
	"testing"

	"ghostlight/internal/export"
)

func TestICMP(t *testing.T) {
	snmp := "Icmp: InMsgs InErrors\nIcmp: 9 0\nIcmpMsg: InType3 InType8 OutType0\nIcmpMsg: 5 7 7\nTcp: x\nTcp: 1\n"
	snmp6 := "Ip6InReceives 12\nIcmp6InMsgs 3\nIcmp6InType128                  \t2\nIcmp6OutType129 2\nIcmp6OutType1 x\n"
	got := ""
	for _, m := range append(icmp4(snmp), icmp6(snmp6)...) {
		got += fmt.Sprintf("%s %s %s %v\n", m.Labels[0].Value, m.Labels[1].Value, m.Labels[2].Value, m.Value)
	}
	want := "ipv4 3 receive 5\nipv4 8 receive 7\nipv4 0 transmit 7\nipv6 128 receive 2\nipv6 129 transmit 2\n"
	if got != want {
		t.Errorf("have\n%swant\n%s", got, want)
	}
	for _, torn := range []string{"", "IcmpMsg:", "IcmpMsg: InType3\nIcmpMsg:", "IcmpMsg: InType3 InType8\nIcmpMsg: 1"} {
		if n := len(append([]export.Metric{}, icmp4(torn)...)); n > 1 {
			t.Errorf("%q gives %d metrics", torn, n)
		}
	}
}
