package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/btf"

	"ghostlight/internal/aggregate"
	"ghostlight/internal/catalog"
	"ghostlight/internal/correlate"
	"ghostlight/internal/enrich"
	"ghostlight/internal/event"
	"ghostlight/internal/sensor"
	"ghostlight/internal/sensor/l7cap"
	"ghostlight/internal/store"
	"ghostlight/internal/wire"
)

// BenchmarkRequests sends requests and answers, as both ends of 16 connections
// see them, from the ring's records to the store. Each sub-benchmark goes one
// stage further than the one before.
//
//	go test ./test/bench -run '^$' -bench '^BenchmarkRequests$' -benchmem
func BenchmarkRequests(b *testing.B) {
	for n := range wayStages {
		b.Run(fmt.Sprintf("%d-%s", n+1, wayStages[n].name), func(b *testing.B) {
			w := newWay(b, n+1)
			for range 64 { // its memory is its own by then
				w.batch(b)
			}
			b.ReportAllocs()
			ends := 0
			before := cpu()
			for b.Loop() {
				ends += w.batch(b)
			}
			b.ReportMetric(float64((cpu()-before).Nanoseconds())/float64(ends), "cpu-ns/end")
			b.ReportMetric(float64(ends)/float64(b.N), "ends/op")
		})
	}
}

// TestRequestsDoNotAllocate holds the way up to the store to no memory of its
// own, and sees that every request arrives.
func TestRequestsDoNotAllocate(t *testing.T) {
	w := newWay(t, len(wayStages)-1)
	for range 64 {
		w.batch(t)
	}
	if n := testing.AllocsPerRun(200, func() { w.batch(t) }); n > 0 {
		t.Errorf("%v allocations in a batch", n)
	}
	n := w.batch(t)
	if len(w.kept.Requests) != n {
		t.Fatalf("%d of %d requests", len(w.kept.Requests), n)
	}
	for i := range w.kept.Requests {
		r := &w.kept.Requests[i]
		if r.Status != 200 || r.Route != "/api/v1/orders/{id}" || r.Who == nil || r.Peer == nil || !r.Complete || r.Trace.ID == [16]byte{} {
			t.Fatalf("request %d is %+v", i, r)
		}
	}
}

// wayStages are what the agent's loop does with a batch, in order.
var wayStages = []struct {
	name string
	do   func(*way, *event.Batch)
}{
	{"decode", func(*way, *event.Batch) {}},
	{"correlate", func(w *way, b *event.Batch) { w.correlate.Apply(b) }},
	{"enrich", func(w *way, b *event.Batch) { w.enrich.Apply(b) }},
	{"aggregate", func(w *way, b *event.Batch) { w.requests.Add(b) }},
	{"store", func(w *way, b *event.Batch) { w.append(b) }},
}

const (
	wayConns = 16
	wayBatch = 64 // exchanges, of four records each
)

type way struct {
	stages    int
	in        sensor.Instance
	correlate *correlate.Correlator
	enrich    *enrich.Enricher
	requests  *aggregate.Table
	store     *store.Store
	kept      event.Batch

	records [wayConns][4][]byte // client sends, server receives, server sends, client receives
	at      map[string]int      // offset of each field
	moved   [wayConns][2]uint64 // bytes, by way
	turn    int
	now     int64
}

const (
	wayAsk    = "GET /api/v1/orders/48151623 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: wrk/4.1\r\nAccept: application/json\r\nAccept-Encoding: gzip\r\n\r\n"
	wayAnswer = "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Fri, 20 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json\r\nContent-Length: 16\r\nConnection: keep-alive\r\n\r\n{\"order\":481516}"
)

func newWay(t testing.TB, stages int) *way {
	in, err := l7cap.Sensor.New(func(any) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	w := &way{stages: stages, in: in, requests: aggregate.New(2000), now: time.Now().UnixNano() & (1<<40 - 1)}
	w.at = w.layout(t)
	if w.enrich, err = enrich.New(enrich.Options{Processes: 100}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.enrich.Close() })
	w.correlate = correlate.New(correlate.Options{Protos: catalog.Protos, Learn: w.enrich.Learn})
	if stages == len(wayStages) {
		if w.store, err = store.Open(t.TempDir(), event.Tables, options); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.store.Close() })
	}
	for i := range w.records {
		w.record(i)
	}
	return w
}

// layout reads where the fields of struct l7_chunk are from the object's own
// types, so that what is fed cannot differ from what the kernel sends.
func (w *way) layout(t testing.TB) map[string]int {
	spec, err := w.in.Spec()
	if err != nil {
		t.Fatal(err)
	}
	var chunk *btf.Struct
	if err := spec.Types.TypeByName("l7_chunk", &chunk); err != nil {
		t.Fatal(err)
	}
	at := map[string]int{"": int(chunk.Size)}
	var walk func(prefix string, from int, s *btf.Struct)
	walk = func(prefix string, from int, s *btf.Struct) {
		for _, m := range s.Members {
			offset := from + int(m.Offset.Bytes())
			if inner, ok := btf.UnderlyingType(m.Type).(*btf.Struct); ok {
				walk(prefix+m.Name+".", offset, inner)
				continue
			}
			at[prefix+m.Name] = offset
		}
	}
	walk("", 0, chunk)
	return at
}

// record makes the four records of one connection; what differs from exchange
// to exchange is set by step.
func (w *way) record(conn int) {
	http := 0
	for i, p := range catalog.Protos {
		if p.Name == "http" {
			http = i + 1
		}
	}
	for i := range 4 {
		server, sent := i == 1 || i == 2, i == 0 || i == 2
		text := wayAsk
		if i >= 2 {
			text = wayAnswer
		}
		raw := make([]byte, w.at[""]+len(text))
		copy(raw[w.at[""]:], text)
		put := func(field string, size int, v uint64) {
			var b [8]byte
			binary.LittleEndian.PutUint64(b[:], v)
			copy(raw[w.at[field]:], b[:size])
		}
		client, at := []byte{10: 0xff, 11: 0xff, 12: 10, 15: 1}, []byte{10: 0xff, 11: 0xff, 12: 10, 15: 2}
		clientPort, serverPort := uint64(0x9000+conn), uint64(0x901f) // network order
		pid, cookie := os.Getppid(), 2*conn+1
		local, remote, localPort, remotePort := client, at, clientPort, serverPort
		if server {
			pid, cookie = os.Getpid(), 2*conn+2
			local, remote, localPort, remotePort = at, client, serverPort, clientPort
		}
		copy(raw[w.at["ends.local"]:], local)
		copy(raw[w.at["ends.remote"]:], remote)
		put("ends.local_port", 2, localPort)
		put("ends.remote_port", 2, remotePort)
		put("ends.conn", 8, uint64(cookie))
		put("ends.netns", 4, 4026531840)
		put("h.type", 2, 1)
		put("h.pid", 4, uint64(pid))
		put("h.tid", 4, uint64(pid))
		put("h.cgroup", 8, 1)
		put("len", 4, uint64(len(text)))
		put("captured", 2, uint64(len(text)))
		put("proto", 1, uint64(http))
		put("transport", 1, uint64(event.TCP))
		if sent {
			put("flags", 1, 1)
		}
		w.records[conn][i] = raw
	}
}

// step moves the four records of a connection on to its next exchange.
func (w *way) step(conn int) {
	for i, raw := range w.records[conn] {
		w.now += 7000
		direction := i / 2
		offset := w.moved[conn][direction]
		binary.LittleEndian.PutUint64(raw[w.at["h.ktime"]:], uint64(w.now))
		if i%2 == 1 {
			binary.LittleEndian.PutUint64(raw[w.at["ready"]:], uint64(w.now-3000))
		}
		binary.LittleEndian.PutUint64(raw[w.at["offset"]:], offset)
		binary.LittleEndian.PutUint32(raw[w.at["seq"]:], uint32(offset)+1000)
	}
	w.moved[conn][0] += uint64(len(wayAsk))
	w.moved[conn][1] += uint64(len(wayAnswer))
}

// batch sends some exchanges down the way and returns how many requests, two of
// each, must arrive.
func (w *way) batch(t testing.TB) int {
	b := &w.kept
	b.Reset()
	b.Wall = time.Now().UnixNano() - w.now
	for range wayBatch {
		conn := w.turn % wayConns
		w.turn++
		w.step(conn)
		for _, raw := range w.records[conn] {
			h := (*wire.Header)(unsafe.Pointer(&raw[0]))
			if err := w.in.Decode(h, raw, b); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, s := range wayStages[:w.stages] {
		s.do(w, b)
	}
	return 2 * wayBatch
}

func (w *way) append(b *event.Batch) {
	w.store.Append(b)
	for w.store.Status().MemoryBytes > 8<<20 { // as fast as it is stored: nothing may be lost
		time.Sleep(time.Millisecond)
	}
}
