/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The kernel-side library of every sensor: the record header, the one ring
 * all sensors share, reserve/submit, and the count of what was lost.
 *
 *	filter -> ghost_reserve(T, TYPE) -> fill -> ghost_submit(e)
 */
#pragma once

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

/* Every record starts with this header. Its Go twin is wire.Header. */
struct ghost_hdr {
	__u64 ktime;  /* CLOCK_MONOTONIC when the record was made */
	__u64 cgroup; /* cgroup v2 id of the current task */
	__u32 pid;    /* thread-group id of the current task */
	__u32 tid;
	__u16 sensor; /* index in the catalogue, written by the loader */
	__u16 type;   /* private to the sensor's folder */
	__u32 cpu;
};
_Static_assert(sizeof(struct ghost_hdr) == 32, "ghost_hdr is part of the contract");

/* Written by the loader: no central list of message numbers exists. */
volatile const __u16 ghost_sensor;

/* A submit wakes the reader only above this many unread bytes; below it the
 * reader's timer drains. A wake-up costs more than everything else here. */
volatile const __u64 ghost_watermark = 256 << 10;

/* Replaced at load by the ring that all sensors share. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} ghost_events SEC(".maps");

/* Slot 0: records that found the ring full. Slot 1: runs of a program that the
 * kernel skipped and its twin saw. Written here, read by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} ghost_lost SEC(".maps");

static __always_inline void ghost_count(__u32 slot)
{
	__u64 *n = bpf_map_lookup_elem(&ghost_lost, &slot);

	/* Atomic: a program can be preempted on its CPU by another one. */
	if (n)
		__sync_fetch_and_add(n, 1);
}

static __always_inline void ghost_count_lost(void) { ghost_count(0); }

static __always_inline void ghost_stamp(struct ghost_hdr *h, __u16 type)
{
	__u64 id = bpf_get_current_pid_tgid();

	h->ktime = bpf_ktime_get_ns();
	h->cgroup = bpf_get_current_cgroup_id();
	h->pid = id >> 32;
	h->tid = (__u32)id;
	h->sensor = ghost_sensor;
	h->type = type;
	h->cpu = bpf_get_smp_processor_id();
}

/* Reserves a stamped record `struct T` of the given type, or counts a loss
 * and returns NULL. The bytes after the header are NOT zeroed: fill them all. */
#define ghost_reserve(T, type_)                                                 \
	({                                                                      \
		struct T *e_ = bpf_ringbuf_reserve(&ghost_events, sizeof(struct T), 0); \
		if (e_)                                                         \
			ghost_stamp(&e_->h, type_);                             \
		else                                                            \
			ghost_count_lost();                                     \
		e_;                                                             \
	})

static __always_inline void ghost_submit(void *e)
{
	__u64 unread = bpf_ringbuf_query(&ghost_events, BPF_RB_AVAIL_DATA);

	bpf_ringbuf_submit(e, unread >= ghost_watermark ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
}

/* Of a twin (kernel.Tier.Twin): it made up for a run that the kernel skipped, so
 * that Object.Lost does not count it. */
static __always_inline void ghost_count_found(void) { ghost_count(1); }
