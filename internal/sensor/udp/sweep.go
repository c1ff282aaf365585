package udp

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"

	"ghostlight/internal/event"
)

// Tick sweeps the flows once a second, and less often where there are so many
// that sweeping would take more than a hundredth of a core.
func (i *instance) Tick(now int64, out *event.Batch) error {
	if i.object == nil || now < i.next {
		return nil
	}
	began := time.Now()
	err := i.sweep(now, out)
	period := min(i.Interval, max(firstReport, sweepShare*time.Since(began)))
	i.next = now + int64(period)*9/10 // ticks are not on the dot
	return err
}

func (i *instance) sweep(now int64, out *event.Batch) error {
	if err := i.readDrops(); err != nil {
		return fmt.Errorf("read udp_drops: %w", err)
	}
	i.live = 0
	m := i.object.Maps["udp_flows"]
	err := batches(m, i.keys, i.flows, func(n int) error {
		for at := range n {
			if err := i.visit(m, &i.keys[at], &i.flows[at], now, out); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("sweep udp_flows: %w", err)
	}
	i.forget(now)
	return i.forgetDrops()
}

// batches reads all of m through the buffers keys and values and calls fn with
// the number that were filled.
func batches[K, V any](m *ebpf.Map, keys []K, values []V, fn func(n int) error) error {
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		if err := fn(n); err != nil {
			return err
		}
		if err != nil { // that was the last
			return nil
		}
	}
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
	return batches(i.object.Maps["udp_drops"], i.cookies, i.counts, func(n int) error {
		for at, cookie := range i.cookies[:n] {
			i.drops[cookie] = refused{packets: i.counts[at]}
		}
		return nil
	})
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
