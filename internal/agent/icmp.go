package agent

import (
	"os"
	"strconv"
	"strings"

	"ghostlight/internal/event"
	"ghostlight/internal/export"
)

// icmpMetrics tells how many ICMP messages of each type the host got and sent.
// The kernel answers most of them itself, with no socket and so with no flow;
// these are its own counters, read when they are asked for.
func icmpMetrics() []export.Metric {
	v4, _ := os.ReadFile("/proc/self/net/snmp") // a kernel without IPv4 has none
	v6, _ := os.ReadFile("/proc/self/net/snmp6")
	return append(icmp4(string(v4)), icmp6(string(v6))...)
}

// icmp4 reads the two lines "IcmpMsg: InType3 OutType3 ..." and "IcmpMsg: 5 7 ..."
// of /proc/net/snmp.
func icmp4(snmp string) (all []export.Metric) {
	var names []string
	for line := range strings.Lines(snmp) {
		rest, found := strings.CutPrefix(line, "IcmpMsg:")
		if !found {
			continue
		}
		fields := strings.Fields(rest)
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names[:min(len(names), len(fields))] {
			all = appendICMP(all, "ipv4", name, fields[i])
		}
	}
	return all
}

// icmp6 reads the lines "Icmp6InType128  5" of /proc/net/snmp6.
func icmp6(snmp string) (all []export.Metric) {
	for line := range strings.Lines(snmp) {
		rest, found := strings.CutPrefix(line, "Icmp6")
		if f := strings.Fields(rest); found && len(f) == 2 {
			all = appendICMP(all, "ipv6", f[0], f[1])
		}
	}
	return all
}

// appendICMP adds the counter called InType8 or OutType8; others are no types.
func appendICMP(all []export.Metric, network, name, value string) []export.Metric {
	way := "receive"
	typ, found := strings.CutPrefix(name, "InType")
	if !found {
		way = "transmit"
		if typ, found = strings.CutPrefix(name, "OutType"); !found {
			return all
		}
	}
	n, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return all
	}
	return append(all, export.Metric{
		Name: "ghostlight_icmp_messages_total", Help: "ICMP messages by type, as the kernel counts them.", Counter: true, Value: float64(n),
		Labels: []event.Attr{{Key: "network_type", Value: network}, {Key: "icmp_type", Value: typ}, {Key: "network_io_direction", Value: way}},
	})
}
