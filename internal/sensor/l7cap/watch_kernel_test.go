package l7cap

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"ghostlight/internal/event"
	"ghostlight/internal/kernel"
	"ghostlight/internal/sensor/l7cap/speech"
	"ghostlight/internal/wire"
)

// The protocols of the tests, speech/protocols.h.
const (
	turns     = 1 // ASK, ANS: 512 and 1024 bytes of a call, 4096 of a turn
	frames    = 2 // FRQ, FRA: 16384 and 128 bytes of a call
	datagrams = 3 // DGQ, DGA: 128 and 512 bytes
)

var self = uint32(os.Getpid())

// watch is a sensor at work.
type watch struct {
	t      testing.TB
	in     *instance
	kernel *kernel.Kernel
	object *kernel.Object
	reader *kernel.Reader
	batch  event.Batch
	chunks []event.Chunk

	lostBefore uint64
}

const uringHook = "bytes that io_uring moves"

// mode is how a sensor runs.
type mode struct {
	tier tier // none: tracepoints
	unix bool
	ring uint32                               // bytes, 0: plenty
	load func() (*ebpf.CollectionSpec, error) // nil: the object of the tests
}

// running are the sensors of earlier tests, by tier and option: loading takes its
// time in an emulated machine. They end with the process.
var running = map[string]*watch{}

// begin watches from now on.
func begin(t testing.TB, m mode) *watch {
	t.Helper()
	if m.tier.name == "" {
		m.tier = tracepoints
	}
	for _, p := range append([]*kernel.Probe{kernel.HaveBTF, kernel.HaveRing, kernel.HaveTpBTF}, m.tier.needs...) {
		if err := p.Have(); err != nil {
			t.Skip(err)
		}
	}
	name := fmt.Sprint(m.tier.name, m.unix)
	w := running[name]
	switch {
	case m.ring > 0 || m.load != nil:
		w = begun(t, m)
		t.Cleanup(func() {
			w.reader.Close()
			w.kernel.Close()
		})
	case w == nil:
		w = begun(t, m)
		running[name] = w
	}
	w.t = t
	w.drain()
	w.chunks, w.lostBefore = nil, 0
	w.lostBefore = w.lost()
	return w
}

func begun(t testing.TB, m mode) *watch {
	t.Helper()
	k, err := kernel.New(max(m.ring, 4096))
	if m.ring == 0 {
		k, err = kernel.New(4 << 20)
	}
	if err != nil {
		t.Fatal(err)
	}
	reader, err := k.NewReader()
	if err != nil {
		t.Fatal(err)
	}
	w := &watch{t: t, in: &instance{unix: m.unix}, kernel: k, reader: reader}
	if m.load == nil {
		m.load = speech.LoadSpeech
	}
	spec, err := m.load()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.in.configure(spec); err != nil {
		t.Fatal(err)
	}
	if m.tier.spec != nil {
		if err := m.tier.spec(spec); err != nil {
			t.Fatal(err)
		}
	}
	ways := hooks
	if m.tier.hooks != nil {
		ways = m.tier.hooks(slices.Clone(hooks))
	}
	object, reports, err := k.Load("l7cap", 1, spec, ways)
	if err != nil {
		t.Fatal(err, reports)
	}
	for _, r := range reports {
		if r.Tier == "" && !(r.What == uringHook && kernel.HaveUringRequests.Have() != nil) {
			t.Errorf("%s: %+v", r.What, r.Tiers)
		}
	}
	k.Settle()
	w.object = object
	return w
}

// drain reads what the ring holds.
func (w *watch) drain() {
	w.t.Helper()
	for w.reader.Drain(256, func(raw []byte) {
		h, err := wire.View[wire.Header](raw)
		if err != nil {
			w.t.Fatal(err)
		}
		if err := w.in.Decode(h, raw, &w.batch); err != nil {
			w.t.Fatal(err)
		}
	}) > 0 {
		for _, c := range w.batch.Chunks {
			c.Data = bytes.Clone(c.Data)
			w.chunks = append(w.chunks, c)
		}
		w.batch.Reset()
	}
}

// of returns the chunks so far of one end, but for who asked for it.
func (w *watch) of(cookie uint64) []event.Chunk {
	w.t.Helper()
	w.drain()
	return slices.DeleteFunc(slices.Clone(w.chunks), func(c event.Chunk) bool { return c.Conn != cookie || c.Opened })
}

// asked returns who asked for a connection.
func (w *watch) asked(cookie uint64) []event.Chunk {
	w.t.Helper()
	w.drain()
	return slices.DeleteFunc(slices.Clone(w.chunks), func(c event.Chunk) bool { return c.Conn != cookie || !c.Opened })
}

func (w *watch) lost() uint64 {
	w.t.Helper()
	n, err := w.object.Lost()
	if err != nil {
		w.t.Fatal(err)
	}
	return n - w.lostBefore
}

// piece is a chunk as a test expects it.
type piece struct {
	sent   bool
	offset uint64
	len    int
	data   string
}

func (p piece) String() string {
	way := "received"
	if p.sent {
		way = "sent"
	}
	data := p.data
	if len(data) > 40 {
		data = fmt.Sprintf("%s... (%d)", data[:40], len(data))
	}
	return fmt.Sprintf("%s %d+%d %q", way, p.offset, p.len, data)
}

func sent(offset uint64, n int, data string) piece     { return piece{true, offset, n, data} }
func received(offset uint64, n int, data string) piece { return piece{false, offset, n, data} }

func pieces(chunks []event.Chunk) (p []piece) {
	for _, c := range chunks {
		if !c.Closed {
			p = append(p, piece{c.Sent, c.Offset, c.Len, string(c.Data)})
		}
	}
	return p
}

func show(p []piece) string {
	var b strings.Builder
	for _, p := range p {
		fmt.Fprintf(&b, "\n\t%s", p)
	}
	return b.String()
}

// want fails if the end's chunks are others than these.
func (w *watch) want(cookie uint64, who string, want ...piece) []event.Chunk {
	w.t.Helper()
	got := w.of(cookie)
	if !slices.Equal(pieces(got), want) {
		w.t.Errorf("%s: chunks%s\nwant%s", who, show(pieces(got)), show(want))
	}
	return got
}

// pair is a connection between two sockets of this process.
type pair struct {
	t              testing.TB
	client, server int

	clientCookie, serverCookie uint64
}

func cookie(t testing.TB, fd int) uint64 {
	t.Helper()
	c, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// network is a way for two sockets to meet.
type network struct {
	name string
	pair func(testing.TB) *pair
}

var tcp4 = network{"tcp4", func(t testing.TB) *pair {
	return connect(t, unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
}}

var tcp6 = network{"tcp6", func(t testing.TB) *pair {
	return connect(t, unix.AF_INET6, &unix.SockaddrInet6{Addr: [16]byte{15: 1}})
}}

var unixStream = network{"unix", func(t testing.TB) *pair {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return closing(t, &pair{t: t, client: fds[0], server: fds[1]})
}}

func connect(t testing.TB, family int, address unix.Sockaddr) *pair {
	t.Helper()
	l, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(l)
	if err := unix.Bind(l, address); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(l, 1); err != nil {
		t.Fatal(err)
	}
	bound, err := unix.Getsockname(l)
	if err != nil {
		t.Fatal(err)
	}
	c, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(c, bound); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(c, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		t.Fatal(err)
	}
	s, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	return closing(t, &pair{t: t, client: c, server: s})
}

// closing also asks for the cookies: before Linux 5.12 they must be there before
// the first bytes.
func closing(t testing.TB, p *pair) *pair {
	p.clientCookie, p.serverCookie = cookie(t, p.client), cookie(t, p.server)
	t.Cleanup(func() {
		unix.Close(p.client)
		unix.Close(p.server)
	})
	return p
}

func (p *pair) write(fd int, data string) {
	p.t.Helper()
	if n, err := unix.Write(fd, []byte(data)); n != len(data) || err != nil {
		p.t.Fatal(n, err)
	}
}

// read makes one call.
func (p *pair) read(fd, size int) string {
	p.t.Helper()
	b := make([]byte, size)
	n, err := unix.Read(fd, b)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b[:n])
}

// arrived waits until n bytes lie in the socket.
func (p *pair) arrived(fd, n int) {
	p.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		got, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
		if err != nil {
			p.t.Fatal(err)
		}
		if got >= n {
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("%d of %d bytes arrived", got, n)
		}
	}
}

func text(head string, n int) string {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	return head + string(bytes.Repeat([]byte(letters), n/len(letters)+1))[:n-len(head)]
}
