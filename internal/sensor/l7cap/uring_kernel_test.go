package l7cap

import (
	"runtime"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"ghostlight/internal/kernel"
)

// The parts of linux/io_uring.h that the tests speak.
const (
	uringReadv, uringWritev     = 1, 2
	uringSendmsg, uringRecvmsg  = 9, 10
	uringRead, uringWrite       = 22, 23
	uringSend, uringRecv        = 26, 27
	uringGetEvents              = 1
	uringSubmissions, uringSQEs = 0, 0x10000000
)

type uringOffsets struct {
	head, tail, mask, entries, flags, dropped, array, reserved uint32
	user                                                       uint64
}

type uringParams struct {
	sqEntries, cqEntries, flags, cpu, idle, features, wq uint32
	reserved                                             [3]uint32
	sq, cq                                               uringOffsets
}

type uringEntry struct {
	opcode, flags  uint8
	priority       uint16
	fd             int32
	offset, addr   uint64
	len, callFlags uint32
	user           uint64
	rest           [3]uint64
}

// ring is an io_uring of a few entries, by nothing but system calls.
type ring struct {
	t       *testing.T
	fd      int
	params  uringParams
	rings   []byte
	entries []uringEntry
}

// haveUring is not in a kernel built without it, nor where it is switched off.
var haveUring = &kernel.Probe{Name: "io_uring_setup", Since: "5.1", Test: func() error {
	var params [120]byte
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}}

func newRing(t *testing.T) *ring {
	t.Helper()
	if err := haveUring.Have(); err != nil {
		t.Skip(err)
	}
	r := &ring{t: t}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&r.params)), 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	r.fd = int(fd)
	size := max(r.params.sq.array+4*r.params.sqEntries, r.params.cq.array+16*r.params.cqEntries, 8192)
	var err error
	if r.rings, err = unix.Mmap(r.fd, uringSubmissions, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		t.Fatal(err)
	}
	raw, err := unix.Mmap(r.fd, uringSQEs, int(r.params.sqEntries)*64, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		t.Fatal(err)
	}
	r.entries = unsafe.Slice((*uringEntry)(unsafe.Pointer(&raw[0])), r.params.sqEntries)
	t.Cleanup(func() {
		_ = unix.Munmap(raw)
		_ = unix.Munmap(r.rings)
		unix.Close(r.fd)
	})
	return r
}

func (r *ring) word(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[offset])) }

// submit hands one request over; wait is how many completions to wait for.
func (r *ring) submit(opcode uint8, fd int, addr unsafe.Pointer, n int, wait uintptr) {
	r.t.Helper()
	tail := atomic.LoadUint32(r.word(r.params.sq.tail))
	i := tail & *r.word(r.params.sq.mask)
	r.entries[i] = uringEntry{opcode: opcode, fd: int32(fd), addr: uint64(uintptr(addr)), len: uint32(n)}
	*r.word(r.params.sq.array + 4*i) = i
	atomic.StoreUint32(r.word(r.params.sq.tail), tail+1)
	for {
		_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 1, wait, uringGetEvents, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			r.t.Fatal(errno)
		}
		return
	}
}

// result waits for a completion and takes it.
func (r *ring) result() int {
	r.t.Helper()
	head := atomic.LoadUint32(r.word(r.params.cq.head))
	for head == atomic.LoadUint32(r.word(r.params.cq.tail)) {
		if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 0, 1, uringGetEvents, 0, 0); errno != 0 && errno != unix.EINTR {
			r.t.Fatal(errno)
		}
	}
	// struct io_uring_cqe is user_data, res, flags.
	res := int32(*r.word(r.params.cqes() + 16*(head&*r.word(r.params.cq.mask)) + 8))
	atomic.StoreUint32(r.word(r.params.cq.head), head+1)
	return int(res)
}

// cqes is where the completions begin: io_cqring_offsets has them where
// io_sqring_offsets has the count of dropped entries.
func (p *uringParams) cqes() uint32 { return p.cq.dropped }

// The bytes of a server by io_uring are seen like those of another.
func TestUring(t *testing.T) {
	if err := kernel.HaveUringRequests.Have(); err != nil {
		t.Skip(err)
	}
	for _, tier := range tiers {
		t.Run(tier.name, func(t *testing.T) {
			w := begin(t, mode{tier: tier, unix: true})
			for _, ops := range []struct {
				name       string
				recv, send uint8
			}{
				{"RECV and SEND", uringRecv, uringSend},
				{"READ and WRITE", uringRead, uringWrite},
				{"READV and WRITEV", uringReadv, uringWritev},
				{"RECVMSG and SENDMSG", uringRecvmsg, uringSendmsg},
			} {
				t.Run(ops.name, func(t *testing.T) {
					w.t = t
					r, p := newRing(t), tcp4.pair(t)
					runtime.LockOSThread()
					defer runtime.UnlockOSThread()
					var ready int64
					for i := range uint64(3) {
						in, out := make([]byte, 100), []byte("ANS answer")
						// The first is there already, the others are waited for.
						if i == 0 {
							p.write(p.client, "ASK me")
							p.arrived(p.server, 6)
							ready = monotonic()
						}
						r.buffers(ops.recv, p.server, in)
						if i > 0 {
							p.write(p.client, "ASK me")
						}
						if n := r.result(); n != 6 || string(in[:6]) != "ASK me" {
							t.Fatalf("received %d %q", n, in[:6])
						}
						r.buffers(ops.send, p.server, out)
						if n := r.result(); n != len(out) {
							t.Fatal("sent", n)
						}
						p.read(p.client, 100)
					}
					runtime.KeepAlive(r)
					var want []piece
					for i := range uint64(3) {
						want = append(want, received(6*i, 6, "ASK me"), sent(10*i, 10, "ANS answer"))
					}
					got := w.want(p.serverCookie, "server", want...)
					for i, c := range got {
						if c.PID != self || c.Transport != 6 || !c.Local.IsValid() || c.Seq == 0 {
							t.Errorf("%+v", c)
						}
						if i == 0 && (c.Ready == 0 || c.Ready > ready) {
							t.Errorf("readable at %d, want before %d", c.Ready, ready)
						}
					}
				})
			}
		})
	}
}

// buffers submits a request for b; of the vectored ones in two pieces.
func (r *ring) buffers(opcode uint8, fd int, b []byte) {
	r.t.Helper()
	pieces := []unix.Iovec{{Base: &b[0]}, {Base: &b[2]}}
	pieces[0].SetLen(2)
	pieces[1].SetLen(len(b) - 2)
	switch opcode {
	case uringReadv, uringWritev:
		r.keep(pieces)
		r.submit(opcode, fd, unsafe.Pointer(&pieces[0]), 2, 0)
	case uringSendmsg, uringRecvmsg:
		m := &unix.Msghdr{Iov: &pieces[0]}
		m.SetIovlen(2)
		r.keep(m)
		r.submit(opcode, fd, unsafe.Pointer(m), 1, 0)
	default:
		r.keep(b)
		r.submit(opcode, fd, unsafe.Pointer(&b[0]), len(b), 0)
	}
}

// keep holds what the kernel has the address of until the test ends: Go does not
// move what is on its heap.
func (r *ring) keep(v any) { r.t.Cleanup(func() { runtime.KeepAlive(v) }) }
