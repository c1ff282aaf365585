package kernel

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Reader reads the shared ring in place.
//
//	for reader.Wait(d) == nil {
//		reader.Drain(func(raw []byte) { ... })
//	}
//
// The programs submit without a wake-up until the ring is a quarter full, so
// Wait's timeout is what usually drains it: a wake-up per record would cost
// more than all the rest. cilium/ebpf's reader copies each record; this one
// hands out the ring's own memory, which the kernel maps twice in a row so
// that no record is ever split.
type Reader struct {
	consumer *uint64 // our position, which the kernel reads
	producer *uint64 // the kernel's position
	data     []byte  // the ring, twice
	mask     uint64

	epoll, wake int
	pages       [2][]byte
}

// The first word of a record, from struct bpf_ringbuf_hdr.
const (
	recordBusy    = 1 << 31 // reserved, not yet submitted
	recordDiscard = 1 << 30
	recordHeader  = 8
)

// NewReader maps the ring. There must be one reader only.
func (k *Kernel) NewReader() (*Reader, error) {
	fd, page, size := k.ring.FD(), os.Getpagesize(), int(k.ring.MaxEntries())
	cons, err := unix.Mmap(fd, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the ring's consumer page: %w", err)
	}
	prod, err := unix.Mmap(fd, int64(page), page+2*size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map the ring: %w", err), unix.Munmap(cons))
	}
	r := &Reader{
		consumer: (*uint64)(unsafe.Pointer(&cons[0])),
		producer: (*uint64)(unsafe.Pointer(&prod[0])),
		data:     prod[page:],
		mask:     uint64(size - 1),
		pages:    [2][]byte{cons, prod},
	}
	if err := r.listen(fd); err != nil {
		return nil, errors.Join(err, unix.Munmap(cons), unix.Munmap(prod))
	}
	return r, nil
}

func (r *Reader) listen(ring int) (err error) {
	if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("watch the ring: %w", err)
	}
	if r.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return errors.Join(fmt.Errorf("watch the ring: %w", err), unix.Close(r.epoll))
	}
	// Edge-triggered: only a wake-up sent by a program ends the wait. Level-
	// triggered, the first record would end every wait at once.
	for fd, events := range map[int]uint32{ring: unix.EPOLLIN | unix.EPOLLET, r.wake: unix.EPOLLIN} {
		if err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}); err != nil {
			return errors.Join(fmt.Errorf("watch the ring: %w", err), unix.Close(r.epoll), unix.Close(r.wake))
		}
	}
	return nil
}

// Wait returns after d, or before if the ring fills up. It returns
// os.ErrClosed after Stop.
func (r *Reader) Wait(d time.Duration) error {
	var events [2]unix.EpollEvent
	n, err := r.poll(events[:], d)
	if err != nil {
		return fmt.Errorf("wait for the ring: %w", err)
	}
	for _, e := range events[:n] {
		if int(e.Fd) == r.wake {
			return os.ErrClosed
		}
	}
	return nil
}

// poll is epoll_wait(2), which any signal cuts short, for all of d: the Go
// runtime sends its threads signals of its own, to preempt them.
func (r *Reader) poll(events []unix.EpollEvent, d time.Duration) (n int, err error) {
	for end := time.Now().Add(d); ; d = time.Until(end) {
		n, err = unix.EpollWait(r.epoll, events, int(max(d, 0).Milliseconds()))
		if err != unix.EINTR {
			return n, err
		}
	}
}

// Stop ends the current Wait and all later ones. Any goroutine may call it.
func (r *Reader) Stop() error {
	_, err := unix.Write(r.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	return err
}

// releaseEvery bounds how long programs wait for room while a drain runs, and
// how often the position's cache line moves between CPUs.
const releaseEvery = 64

// Drain calls fn for the records that are in the ring, at most limit of them,
// and returns how many. raw belongs to the ring: it is valid during the call.
func (r *Reader) Drain(limit int, fn func(raw []byte)) int {
	pos, n := atomic.LoadUint64(r.consumer), 0
	end := atomic.LoadUint64(r.producer)
	for pos < end && n < limit {
		at := pos & r.mask
		head := atomic.LoadUint32((*uint32)(unsafe.Pointer(&r.data[at])))
		if head&recordBusy != 0 {
			break // its program is still filling it; records come in order
		}
		size := uint64(head &^ (recordBusy | recordDiscard))
		if head&recordDiscard == 0 {
			fn(r.data[at+recordHeader : at+recordHeader+size : at+recordHeader+size])
			n++
		}
		pos += (recordHeader + size + 7) &^ 7
		if n%releaseEvery == 0 {
			atomic.StoreUint64(r.consumer, pos)
		}
	}
	atomic.StoreUint64(r.consumer, pos)
	return n
}

// Backlog returns how many bytes wait in the ring.
func (r *Reader) Backlog() uint64 {
	return atomic.LoadUint64(r.producer) - atomic.LoadUint64(r.consumer)
}

// Close unmaps the ring. No call may be running.
func (r *Reader) Close() error {
	return errors.Join(unix.Close(r.epoll), unix.Close(r.wake), unix.Munmap(r.pages[0]), unix.Munmap(r.pages[1]))
}
