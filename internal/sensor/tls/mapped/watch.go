package mapped

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ringPages is the size of what the kernel writes of each CPU: some 300
// mappings.
const ringPages = 16

// Watch hears of mappings as they are made, on all CPUs.
type Watch struct {
	epoll, wake int
	rings       []*ring
}

// ring is what the kernel writes of one CPU.
type ring struct {
	fd    int
	pages []byte
	meta  *unix.PerfEventMmapPage
	data  []byte
	piece []byte // a record that goes around the end
}

// NewWatch begins to listen. It needs CAP_PERFMON.
func NewWatch() (*Watch, error) {
	cpus, err := online()
	if err != nil {
		return nil, err
	}
	w := &Watch{epoll: -1, wake: -1}
	if w.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("watch mappings: %w", err)
	}
	if w.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, errors.Join(fmt.Errorf("watch mappings: %w", err), w.Close())
	}
	if err := w.poll(w.wake); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	for _, cpu := range cpus {
		if err := w.open(cpu); err != nil {
			return nil, errors.Join(fmt.Errorf("watch mappings on CPU %d: %w", cpu, err), w.Close())
		}
	}
	return w, nil
}

func (w *Watch) poll(fd int) error {
	return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// open asks for an event that never happens, and for the mappings beside it.
func (w *Watch) open(cpu int) error {
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_DUMMY,
		Size:   uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
		Bits:   unix.PerfBitMmap | unix.PerfBitMmap2 | unix.PerfBitWatermark,
		Wakeup: 1, // byte
	}
	fd, err := unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return nil // it went offline
	}
	if err != nil {
		return err
	}
	page := os.Getpagesize()
	pages, err := unix.Mmap(fd, 0, (1+ringPages)*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	w.rings = append(w.rings, &ring{fd: fd, pages: pages, meta: (*unix.PerfEventMmapPage)(unsafe.Pointer(&pages[0])), data: pages[page:]})
	return w.poll(fd)
}

// Wait returns when there is something to read, after d at the latest, and
// os.ErrClosed after Stop.
func (w *Watch) Wait(d time.Duration) error {
	var events [8]unix.EpollEvent
	n, err := unix.EpollWait(w.epoll, events[:], int(d.Milliseconds()))
	if err != nil && err != unix.EINTR {
		return fmt.Errorf("watch mappings: %w", err)
	}
	for _, e := range events[:max(n, 0)] {
		if int(e.Fd) == w.wake {
			return os.ErrClosed
		}
	}
	return nil
}

// Stop ends the current Wait and all later ones. Any goroutine may call it.
func (w *Watch) Stop() error {
	_, err := unix.Write(w.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	return err
}

// Drain calls fn for each mapping since the last call. It reports whether the
// kernel had to leave out some: who wants all must look at /proc again.
func (w *Watch) Drain(fn func(File)) (lost bool) {
	for _, r := range w.rings {
		lost = r.drain(fn) || lost
	}
	return lost
}

func (r *ring) drain(fn func(File)) (lost bool) {
	head, tail := atomic.LoadUint64(&r.meta.Data_head), r.meta.Data_tail
	for tail < head {
		b := r.at(tail, 8)
		size := uint64(binary.LittleEndian.Uint16(b[6:]))
		if size < 8 || size > head-tail {
			tail = head // cannot be
			break
		}
		switch b = r.at(tail, size); binary.LittleEndian.Uint32(b) {
		case recordLost:
			lost = true
		case recordMmap2:
			if f, ok := mmap2(b); ok {
				fn(f)
			}
		}
		tail += size
	}
	atomic.StoreUint64(&r.meta.Data_tail, tail)
	return lost
}

// at returns n bytes at a position, in one piece.
func (r *ring) at(pos, n uint64) []byte {
	from := pos % uint64(len(r.data))
	if from+n <= uint64(len(r.data)) {
		return r.data[from : from+n]
	}
	r.piece = append(append(r.piece[:0], r.data[from:]...), r.data[:n-(uint64(len(r.data))-from)]...)
	return r.piece
}

// Close ends it. No call may be running.
func (w *Watch) Close() error {
	var errs []error
	for _, r := range w.rings {
		errs = append(errs, unix.Munmap(r.pages), unix.Close(r.fd))
	}
	for _, fd := range []int{w.epoll, w.wake} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}

// online lists the CPUs, as "0-3,8".
func online() (cpus []int, err error) {
	b, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return nil, fmt.Errorf("list CPUs: %w", err)
	}
	for _, part := range strings.Split(strings.TrimSpace(string(b)), ",") {
		first, last, isRange := strings.Cut(part, "-")
		from, err := strconv.Atoi(first)
		to := from
		if err == nil && isRange {
			to, err = strconv.Atoi(last)
		}
		if err != nil || to > 1<<16 {
			return nil, fmt.Errorf("list CPUs: %q", b)
		}
		for ; from <= to; from++ {
			cpus = append(cpus, from)
		}
	}
	return cpus, nil
}
