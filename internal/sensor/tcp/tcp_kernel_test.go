package tcp

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"ghostlight/internal/event"
)

// agree compares a record with TCP_INFO of the same socket, taken when both
// directions were closed. A FIN counts as a byte received there.
func agree(t *testing.T, f *event.Flow, i *unix.TCPInfo, payload uint64) {
	t.Helper()
	if f.Sent.Bytes != payload || f.Sent.Bytes != i.Bytes_sent-i.Bytes_retrans {
		t.Errorf("%s: sent %d, TCP_INFO %d-%d, the application %d", f.Direction, f.Sent.Bytes, i.Bytes_sent, i.Bytes_retrans, payload)
	}
	if f.Received.Bytes != payload || f.Received.Bytes != i.Bytes_received-1 {
		t.Errorf("%s: received %d, TCP_INFO %d, the application %d", f.Direction, f.Received.Bytes, i.Bytes_received, payload)
	}
	if f.Sent.Packets != uint64(i.Segs_out) || f.Received.Packets != uint64(i.Segs_in) {
		t.Errorf("%s: packets %d/%d, TCP_INFO %d/%d", f.Direction, f.Sent.Packets, f.Received.Packets, i.Segs_out, i.Segs_in)
	}
	if f.TCP.Retransmits != uint64(i.Total_retrans) {
		t.Errorf("%s: retransmits %d, TCP_INFO %d", f.Direction, f.TCP.Retransmits, i.Total_retrans)
	}
	if f.TCP.RTTNS != int64(i.Rtt)*1000 || f.TCP.RTTMinNS != int64(i.Min_rtt)*1000 {
		t.Errorf("%s: rtt %d min %d, TCP_INFO %d min %d us", f.Direction, f.TCP.RTTNS, f.TCP.RTTMinNS, i.Rtt, i.Min_rtt)
	}
	if limited := f.TCP.WindowLimitedNS / 1000; limited != int64(i.Rwnd_limited) {
		t.Errorf("%s: window limited %d us, TCP_INFO %d us", f.Direction, limited, i.Rwnd_limited)
	}
}

func TestEchoAgreesWithTCPInfo(t *testing.T) {
	w := begin(t, defaults)
	for _, c := range []struct{ name, listen, dial, shown string }{
		{"v4", "127.0.0.1:0", "127.0.0.1", "127.0.0.1"},
		{"v6", "[::1]:0", "::1", "::1"},
		{"v4 to a dual-stack listener", ":0", "127.0.0.1", "127.0.0.1"},
		{"v4-mapped", ":0", "::ffff:127.0.0.1", "127.0.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			const payload = 1_000_000
			p := connect(t, c.listen, c.dial)
			client, server := p.echo(t, payload)
			cookies := map[event.Direction]uint64{event.Outbound: cookie(t, p.client), event.Inbound: cookie(t, p.server)}
			p.close()
			w.t = t
			for _, side := range []struct {
				at     event.Direction
				info   *unix.TCPInfo
				reason event.CloseReason
			}{{event.Outbound, client, event.FinSent}, {event.Inbound, server, event.FinReceived}} {
				f := w.want(1, end(side.at, p.source))[0]
				agree(t, &f, side.info, payload)
				if f.TCP.CloseReason != side.reason || f.Verdict != event.Forwarded || !f.Complete || f.TCP.State != 7 {
					t.Errorf("%s: %s", side.at, show([]event.Flow{f}))
				}
				if f.PID != self || f.PeerPID != self {
					t.Errorf("%s: pid %d, peer %d, want %d", side.at, f.PID, f.PeerPID, self)
				}
				if f.Source != p.source || f.Destination != p.destination || f.Source.Addr() != netip.MustParseAddr(c.shown) {
					t.Errorf("%s: %s -> %s, want %s -> %s", side.at, f.Source, f.Destination, p.source, p.destination)
				}
				if f.ID != cookies[side.at] {
					t.Errorf("%s: id %d, SO_COOKIE %d", side.at, f.ID, cookies[side.at])
				}
				if f.ID == 0 || f.NetNS == 0 || f.End <= f.Time || f.Transport != event.TCP {
					t.Errorf("%s: %+v", side.at, f)
				}
				if (f.TCP.ConnectNS > 0) != (side.at == event.Outbound) || f.TCP.ConnectNS > 1e9 {
					t.Errorf("%s: connect latency %d", side.at, f.TCP.ConnectNS)
				}
			}
		})
	}
	w.noLoss(t)
}

func cookie(t *testing.T, c *net.TCPConn) (n uint64) {
	t.Helper()
	control(t, c, func(fd int) (err error) {
		n, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
		return err
	})
	return n
}
