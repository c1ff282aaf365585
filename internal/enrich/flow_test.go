package enrich

import (
	"net/netip"
	"testing"

	"ghostlight/internal/event"
)

func half(d event.Direction, pid uint32, from, to int64) event.Flow {
	return event.Flow{Time: from, End: to, Transport: event.TCP, Direction: d, PID: pid,
		Source: address("127.0.0.1:40000"), Destination: address("127.0.0.1:80"), NetNS: 1}
}

func twoProcesses(t *testing.T) *Enricher {
	e := newEnricher(t, Options{})
	apply(e, running(1, 20, 0, 6, 1, "/bin/client"), running(1, 30, 0, 6, 1, "/bin/server"))
	return e
}

func TestBothEnds(t *testing.T) {
	mapped := half(event.Inbound, 30, 10, 20)
	mapped.Source, mapped.Destination = address("[::ffff:127.0.0.1]:40000"), address("[::ffff:127.0.0.1]:80")
	for name, inbound := range map[string]event.Flow{"IPv4": half(event.Inbound, 30, 10, 20), "v4-mapped": mapped} {
		for _, order := range [][]event.Flow{{half(event.Outbound, 20, 10, 20), inbound}, {inbound, half(event.Outbound, 20, 10, 20)}} {
			e := twoProcesses(t)
			b := &event.Batch{Flows: order}
			e.Apply(b)
			for _, f := range b.Flows {
				who, peer, peerPID := "client", "server", uint32(30)
				if f.Direction == event.Inbound {
					who, peer, peerPID = "server", "client", 20
				}
				if f.Who == nil || f.Peer == nil || f.Who.Name != who || f.Peer.Name != peer || f.PeerPID != peerPID {
					t.Errorf("%s: %+v", name, f)
				}
			}
			if e.Stats().Joined != 2 {
				t.Errorf("%+v", e.Stats())
			}
		}
	}
}

func TestEndsInTwoBatches(t *testing.T) {
	e := twoProcesses(t)
	e.Apply(&event.Batch{Flows: []event.Flow{half(event.Outbound, 20, 10, 20)}})
	b := &event.Batch{Flows: []event.Flow{half(event.Inbound, 30, 11, 21)}}
	e.Apply(b)
	if f := b.Flows[0]; f.Peer == nil || f.Peer.Name != "client" {
		t.Errorf("%+v", f)
	}
}

// A record whose own process is unknown gets it from the other end's.
func TestOwnEndFromTheOther(t *testing.T) {
	e := twoProcesses(t)
	known := half(event.Outbound, 20, 10, 20)
	known.PeerPID = 30
	b := &event.Batch{Flows: []event.Flow{half(event.Inbound, 0, 10, 20), known}}
	e.Apply(b)
	if f := b.Flows[0]; f.Who == nil || f.Who.Name != "server" || f.PID != 30 || f.Peer.Name != "client" {
		t.Errorf("%+v", f)
	}
}

func TestEndsThatAreNotOne(t *testing.T) {
	late := half(event.Inbound, 30, 90*second, 91*second)
	otherNS := half(event.Inbound, 30, 10, 20)
	otherNS.NetNS = 2
	otherPort := half(event.Inbound, 30, 10, 20)
	otherPort.Source = address("127.0.0.1:40001")
	udp := half(event.Inbound, 30, 10, 20)
	udp.Transport = event.UDP
	for name, f := range map[string]event.Flow{"port used again": late, "another namespace's loopback": otherNS, "port": otherPort, "transport": udp} {
		e := twoProcesses(t)
		b := &event.Batch{Flows: []event.Flow{half(event.Outbound, 20, 10, 20), f}}
		e.Apply(b)
		if b.Flows[1].Peer != nil {
			t.Errorf("%s: %+v", name, b.Flows[1].Peer)
		}
	}
}

func TestPairsAreBounded(t *testing.T) {
	e := twoProcesses(t)
	b := &event.Batch{Flows: make([]event.Flow, 1)}
	for i := range 10 * pairSlots {
		b.Flows[0] = half(event.Outbound, 20, int64(i), int64(i))
		b.Flows[0].Source = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 14), byte(i >> 6)}), uint16(i))
		e.Apply(b)
	}
	if len(e.pairs.slots) != pairSlots {
		t.Errorf("%d slots", len(e.pairs.slots))
	}
	f := b.Flows[0]
	f.Direction, f.PID = event.Inbound, 30
	b.Flows[0] = f
	e.Apply(b)
	if b.Flows[0].Peer == nil {
		t.Error("the newest connection was forgotten")
	}
}

func BenchmarkApply(b *testing.B) {
	e := newEnricher(b, Options{})
	apply(e, running(1, 20, 0, 6, 1, "/bin/client"), running(1, 30, 0, 6, 1, "/bin/server"))
	batch := &event.Batch{}
	for i := range 256 {
		f := half(event.Direction(1+i%2), uint32(20+i%2*10), 10, 20)
		f.Source = netip.AddrPortFrom(f.Source.Addr(), uint16(i/2))
		batch.Flows = append(batch.Flows, f)
	}
	b.ReportAllocs()
	for b.Loop() {
		for i := range batch.Flows {
			batch.Flows[i].PeerPID = 0
		}
		e.Apply(batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/256, "ns/flow")
}

func BenchmarkExec(b *testing.B) {
	e := newEnricher(b, Options{})
	args := []string{"/usr/bin/curl", "-s", "-H", "Authorization: Bearer abcdef", "https://example.com/a?token=abc&q=1"}
	batch := &event.Batch{Processes: make([]event.Process, 3)}
	own := make([]string, len(args))
	b.ReportAllocs()
	for i := int64(1); b.Loop(); i++ {
		pid := uint32(1000 + i%1000)
		copy(own, args)
		batch.Processes = append(batch.Processes[:0],
			fork(i, pid, 1, i, 1), exec(i, pid, 1, i, 2, own...), exit(i, pid, i, 2))
		e.Apply(batch)
	}
}
