package agent

import (
	"golang.org/x/sys/unix"
)

// monotonic is the clock of bpf_ktime_get_ns.
func monotonic() int64 { return clock(unix.CLOCK_MONOTONIC) }

// wallOffset turns monotonic nanoseconds into Unix nanoseconds. It is measured
// for each batch, so that a step of the wall clock or a suspended host shifts
// nothing that comes after.
func wallOffset() int64 {
	before := monotonic()
	wall := clock(unix.CLOCK_REALTIME)
	after := monotonic()
	return wall - (before+after)/2
}

func clock(id int32) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return 0 // cannot happen: both clocks always exist
	}
	return ts.Nano()
}
