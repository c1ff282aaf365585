package udp

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"ghostlight/internal/event"
)

// Tick sweeps the flows once a second, and less often where there are so many
// that sweeping would take more than a hundredth of a core. A sweep that finds
// much to tell goes on in the next tick: a batch is not to grow without bound.
func (i *instance) Tick(now int64, out *event.Batch) error {
	if i.object == nil || i.cursor == nil && now < i.next {
		return nil
	}
	began := time.Now()
	err := i.sweep(now, out)
	i.spent += time.Since(began)
	if i.cursor != nil && err == nil {
		return nil
	}
	period := min(i.Interval, max(firstReport, sweepShare*i.spent))
	i.next = now + int64(period)*9/10 // ticks are not on the dot
	i.cursor, i.spent = nil, 0
	return errors.Join(err, i.tellLost(now, out))
}

// sweep begins a sweep or goes on with one. The cursor is nil after its end.
func (i *instance) sweep(now int64, out *event.Batch) error {
	if i.cursor == nil {
		if err := i.readDrops(); err != nil {
			return fmt.Errorf("read udp_drops: %w", err)
		}
		i.cursor, i.live = new(ebpf.MapBatchCursor), 0
	}
	m := i.object.Maps["udp_flows"]
	for limit := len(out.Flows) + maxRecords; len(out.Flows) < limit; {
		n, err := m.BatchLookup(i.cursor, i.keys, i.flows, nil)
		last := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !last {
			return fmt.Errorf("read udp_flows: %w", err)
		}
		for at := range n {
			if err := i.visit(m, &i.keys[at], &i.flows[at], now, out); err != nil {
				return fmt.Errorf("end a flow: %w", err)
			}
		}
		if last {
			i.cursor = nil
			i.forget(now)
			return i.forgetDrops()
		}
	}
	return nil
}

// tellLost tells the packets that no map had room for.
func (i *instance) tellLost(now int64, out *event.Batch) error {
	if err := i.object.Maps["udp_lost"].Lookup(uint32(0), &i.perCPU); err != nil {
		return fmt.Errorf("read udp_lost: %w", err)
	}
	var n uint64
	for _, c := range i.perCPU {
		n += c
	}
	if n > i.lost {
		out.Lost = append(out.Lost, event.Lost{Time: now, Stage: "map", Sensor: "udp", Count: n - i.lost})
		i.lost = n
	}
	return nil
}

// visit reports a flow whose time has come and ends one that is silent.
func (i *instance) visit(m *ebpf.Map, k *udpUdpKey, f *udpUdpFlow, now int64, out *event.Batch) error {
	i.live++
	if now-int64(max(f.Last, f.First)) > int64(i.Idle) {
		gone, err := i.end(m, k, f)
		if gone || err != nil {
			return err
		}
		i.report(k, f, i.newDrops(k), now, out)
		delete(i.told, *k)
		return nil
	}
	before, again := i.told[*k]
	if due := i.due(f, before, again, now); due {
		i.report(k, f, i.newDrops(k), now, out)
		before, again = i.told[*k]
	} else if len(i.drops) > 0 {
		i.meet(k.Cookie)
	}
	if again {
		before.seen = now
		i.told[*k] = before
	}
	return nil
}

// due tells whether a flow is reported in this sweep: a new one after a second,
// one that goes on once per interval.
func (i *instance) due(f *udpUdpFlow, before told, again bool, now int64) bool {
	if !again || before.first != f.First {
		return now-int64(f.First) >= int64(min(firstReport, i.Interval))
	}
	return now-before.at >= int64(i.Interval)*9/10
}

// end takes a flow out of the map, with what was counted since it was read. It
// reports true if the socket's release was faster.
func (i *instance) end(m *ebpf.Map, k *udpUdpKey, f *udpUdpFlow) (gone bool, err error) {
	err = m.LookupAndDelete(k, f)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return true, nil
	}
	if err == nil {
		return false, nil
	}
	// Linux < 5.14 cannot do both at once: a packet between the two calls, after
	// a long silence, is not counted.
	if err = m.Lookup(k, f); err == nil {
		err = m.Delete(k)
	}
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return true, nil
	}
	return false, err
}

// forget drops what was told of flows that are no longer there. Their last
// record may still be in the ring: that takes a second at most.
func (i *instance) forget(now int64) {
	if len(i.told) <= i.live {
		return
	}
	for k, t := range i.told {
		if now-t.seen > int64(2*i.Interval+keepTold) {
			delete(i.told, k)
		}
	}
}

func (i *instance) readDrops() error {
	clear(i.drops)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := i.object.Maps["udp_drops"].BatchLookup(&cursor, i.cookies, i.counts, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		for at, cookie := range i.cookies[:n] {
			i.drops[cookie] = refused{packets: i.counts[at]}
		}
		if err != nil { // that was the last
			return nil
		}
	}
}

// newDrops takes the drops of k's socket that no record has told.
func (i *instance) newDrops(k *udpUdpKey) uint64 {
	if len(i.drops) == 0 {
		return 0
	}
	i.meet(k.Cookie)
	n := i.drops[k.Cookie].packets
	if n == 0 {
		return 0
	}
	before := i.toldDrops[k.Cookie]
	i.toldDrops[k.Cookie] = n
	return less(n, before)
}

// meet notes that a socket that refused packets still has a flow.
func (i *instance) meet(cookie uint64) {
	if d, ok := i.drops[cookie]; ok {
		d.flow = true
		i.drops[cookie] = d
	}
}

// forgetDrops frees the counters of sockets that have no flow any more.
func (i *instance) forgetDrops() error {
	m := i.object.Maps["udp_drops"]
	for cookie, d := range i.drops {
		if d.flow {
			continue
		}
		if err := m.Delete(cookie); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("free udp_drops: %w", err)
		}
		delete(i.toldDrops, cookie)
	}
	return nil
}
