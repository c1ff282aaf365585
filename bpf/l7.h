/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the capturing sensors share: what is known of a connection, the record
 * of bytes that were moved, and how such a record is made.
 *
 *	l7_find/l7_make(socket) -> struct l7_conn -> l7_emit(...) -> struct l7_chunk
 *
 * event.Chunk is what the record becomes in user space.
 */
#pragma once

#include "ghost.h"
#include <bpf/bpf_endian.h>

/* How many bytes of a way's beginning protocols are told by. */
#define L7_HEAD 32
/* iovecs of one call that are looked at, and for its first bytes. */
#define L7_IOVECS 8
#define L7_HEAD_IOVECS 4
/* The most that is captured of one call. */
#define L7_MOST 16384

enum l7_way { L7_RECEIVED, L7_SENT };

enum l7_state {
	L7_UNDECIDED, /* nobody knows yet whose bytes these are */
	L7_KNOWN,     /* conn.proto says it */
	L7_NONE,      /* no protocol of ours: nothing is done any more */
	L7_TLS,       /* encrypted: another sensor may see the plain bytes */
	L7_URING,     /* io_uring moves its bytes: ghost_shared_l7_socks has the rest */
};

enum l7_flag {
	L7_FLAG_SENT = 1 << 0,
	L7_FLAG_PLAIN = 1 << 1,  /* plaintext of an encrypted connection */
	L7_FLAG_CLOSED = 1 << 2, /* nothing was moved: the connection is gone */
	L7_FLAG_OPENED = 1 << 3, /* nothing was moved: this thread asks for the connection */
};

enum l7_type { L7_CHUNK = 1 };

/* Who speaks with whom. An address is 16 bytes; IPv4 is ::ffff:a.b.c.d. */
struct l7_ends {
	__u64 conn; /* socket cookie */
	__u8 local[16];
	__u8 remote[16];
	__u32 netns;
	__be16 local_port;
	__be16 remote_port;
};

/* Bytes that one call moved: those that were captured follow. */
struct l7_chunk {
	struct ghost_hdr h;
	struct l7_ends ends;
	__u64 ready;
	__u64 offset;
	__u64 goroutine;
	__u64 waker;
	__u32 seq;
	__u32 len;      /* bytes that were moved */
	__u16 captured; /* of them, behind this */
	__u8 flags;     /* enum l7_flag */
	__u8 proto;     /* index in the catalogue plus one */
	__u8 transport; /* IP protocol; 0 is a Unix socket */
	__u8 reserved[3];
};
_Static_assert(sizeof(struct l7_chunk) == 128, "struct l7_chunk is decoded in Go");

/* What is known of a socket. The hooks of one way follow each other; those of
 * both may run at once, and what they share is only ever wrong by a moment. */
struct l7_conn {
	struct l7_ends ends;
	__u64 offset[2]; /* bytes moved so far, by way */
	__u64 ready;     /* when the first unread byte came; 0: none, or unknown */
	__u64 head_ready;  /* of the bytes in head */
	__u64 uring_ready; /* of those that io_uring received last */
	__u64 go_checked; /* when go_tgid was looked up */
	__u32 go_tgid;
	__s16 goid_offset; /* in runtime.g; 0: not Go */
	__s16 g_offset;    /* of g from the thread pointer */
	__u32 next[2];     /* TCP sequence number after the last call, by way: what its twin finds done */
	__u32 turn;        /* bytes captured until the direction changes; 0 is no limit */
	__u32 left;        /* of them */
	__u32 entry_tid;   /* sendmmsg, recvmmsg: who is at which entry */
	__u32 entry;
	__u16 capture[2]; /* of a call, by way */
	__u8 state;       /* enum l7_state */
	__u8 proto;
	__u8 tries;
	__u8 way; /* of the last bytes */
	__u8 transport;
	__u8 uring; /* this is the value in ghost_shared_l7_socks, or its state says so */
	__u8 asks; /* this end is the client */
	__u8 head_len[2];
	__u8 reserved[7];
	__u32 inode; /* without socket storage: of the socket that this is about, if it is not TCP */
	__u8 head[2][L7_HEAD]; /* undecided: what came last, by way */
};

_Static_assert(__builtin_offsetof(struct l7_conn, head) % 8 == 0, "heads are copied by words");

/* Keeps the types that user space needs in the object's BTF. */
const struct l7_chunk *const l7_chunk_twin __attribute__((unused));
const enum l7_flag *const l7_flag_twin __attribute__((unused));
const enum l7_type *const l7_type_twin __attribute__((unused));

/* Socket -> what is known of it. Made at the first bytes, gone with the socket.
 * Shared by all capturing sensors. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct l7_conn);
} ghost_shared_l7_conns SEC(".maps");

/* The same by the socket's address: of the sockets that io_uring serves, as its
 * hook has no more of them; and of all, where a tracing program cannot have
 * socket storage (before Linux 5.11). TCP sockets are deleted at their end, of
 * others the oldest go. User space makes it smaller for io_uring only. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct l7_conn);
} ghost_shared_l7_socks SEC(".maps");

/* What a value begins as. */
static const struct l7_conn l7_new;

/* What this kernel has; written by user space. */
volatile const bool l7_storage = true; /* socket storage in tracing programs */
volatile const bool l7_task = true;    /* bpf_get_current_task_btf, bpf_task_pt_regs, bpf_get_socket_cookie */

static __always_inline struct l7_conn *l7_find(struct sock *sk)
{
	__u64 key = (__u64)sk;

	struct l7_conn *c;

	if (!l7_storage)
		return bpf_map_lookup_elem(&ghost_shared_l7_socks, &key);
	c = bpf_sk_storage_get(&ghost_shared_l7_conns, sk, 0, 0);
	if (c && c->state == L7_URING)
		return bpf_map_lookup_elem(&ghost_shared_l7_socks, &key);
	return c;
}

/* l7_make returns the value of a socket, all zero if there was none. */
static __always_inline struct l7_conn *l7_make(struct sock *sk)
{
	__u64 key = (__u64)sk;

	if (l7_storage)
		return bpf_sk_storage_get(&ghost_shared_l7_conns, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	bpf_map_update_elem(&ghost_shared_l7_socks, &key, &l7_new, BPF_NOEXIST);
	return bpf_map_lookup_elem(&ghost_shared_l7_socks, &key);
}

/* ---- the running task ---- */

static __always_inline struct task_struct *l7_current(void)
{
	return l7_task ? bpf_get_current_task_btf() : (struct task_struct *)bpf_get_current_task();
}

/* Plain loads where the verifier knows the type, a helper call for each where it
 * does not. */
#define l7_read(from, field) (l7_task ? (from)->field : BPF_CORE_READ(from, field))

#define L7_STACK 16384 /* THREAD_SIZE; amd64, and arm64 with small pages */

/* l7_regs are the registers with which a task entered the kernel. */
static __always_inline struct pt_regs *l7_regs(struct task_struct *task)
{
	if (l7_task)
		return (struct pt_regs *)bpf_task_pt_regs(task);
	return (struct pt_regs *)((__u64)BPF_CORE_READ(task, stack) + L7_STACK - bpf_core_type_size(struct pt_regs));
}

struct go_proc {
	__s16 goid_offset; /* in runtime.g */
	__s16 g_offset;    /* of the slot that holds g, from the thread pointer: -8 */
	__u32 asks;        /* it was seen to be a client; written by the programs */
};

/* Process (tgid) -> where its goroutine ids are. User space writes and deletes;
 * what does not fit has no goroutine ids. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct go_proc);
} ghost_shared_go_procs SEC(".maps");

struct go_woken {
	__u64 goroutine;
	__u64 tgid;
};

/* Goroutine -> the one that made it runnable last. Written by the sensor of
 * plaintext, for processes that are clients; the oldest goes. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct go_woken);
	__type(value, __u64);
} ghost_shared_go_wakers SEC(".maps");

volatile const bool l7_arm64; /* written by user space */

/* Hides a bound from the compiler, so that it keeps the check the verifier wants. */
#define l7_hide(x) asm volatile("" : "+r"(x))

/* ---- whose bytes: goroutines ---- */

#define L7_GO_RECHECK 1000000000ULL

/* l7_goroutine returns the id of the running goroutine, 0 outside of Go. The
 * process is looked up once a second, not with each call. */
static __always_inline __u64 l7_goroutine(struct l7_conn *c, struct task_struct *task, __u64 now)
{
	__u32 tgid = l7_read(task, tgid);
	__u64 g = 0, id = 0;
	unsigned long base;

	if (c->go_tgid != tgid || now - c->go_checked > L7_GO_RECHECK) {
		struct go_proc *p = bpf_map_lookup_elem(&ghost_shared_go_procs, &tgid);

		c->go_tgid = tgid;
		c->go_checked = now;
		c->goid_offset = p ? p->goid_offset : 0;
		c->g_offset = p ? p->g_offset : 0;
		if (p && c->asks && !p->asks)
			p->asks = 1;
	}
	if (!c->goid_offset)
		return 0;
	if (l7_arm64) {
		g = l7_read((struct pt_regs___arm64 *)l7_regs(task), regs[28]);
	} else {
		base = l7_read(task, thread.fsbase);
		bpf_probe_read_user(&g, sizeof(g), (void *)(base + c->g_offset));
	}
	if (g)
		bpf_probe_read_user(&id, sizeof(id), (void *)(g + c->goid_offset));
	return id;
}

/* l7_waker returns the goroutine that made the one runnable that sends a
 * request: in a client with a pool of connections that is the request's own. */
static __always_inline __u64 l7_waker(const struct l7_conn *c, __u64 goroutine, bool sent)
{
	struct go_woken key = {.goroutine = goroutine, .tgid = c->go_tgid};
	__u64 *waker;

	if (!goroutine || !sent || !c->asks)
		return 0;
	waker = bpf_map_lookup_elem(&ghost_shared_go_wakers, &key);
	return waker ? *waker : 0;
}

/* ---- where the bytes are ---- */

struct l7_iovec {
	__u64 base;
	__u64 len;
};

/* User memory, flat or of several pieces. */
struct l7_source {
	__u64 base;  /* flat: the bytes. Else the first struct l7_iovec */
	__u64 name;  /* of a datagram sent: whom to, 0 if not told */
	__u32 count; /* 0: flat */
	bool known;
};

/* l7_forget copies a struct so that the verifier knows nothing of its values any
 * more: it then looks at what follows once, not for each way to get there. */
#define l7_forget(to, from) bpf_probe_read_kernel(to, sizeof(*(to)), from)

/* l7_gather copies what fits between off and want to dst. dst must have room
 * for twice cap, as the verifier adds up the greatest of both. */
static __always_inline __u32 l7_gather(__u8 *dst, __u32 off, const struct l7_source *s, __u32 want, const __u32 cap, const int most)
{
	struct l7_iovec v;
	__u32 len;

	if (!s->known)
		return off;
	for (int i = 0; i < most; i++) {
		if (off >= want)
			break;
		if (s->count) {
			if (i >= s->count || bpf_probe_read_user(&v, sizeof(v), (void *)(s->base + i * sizeof(v))))
				break;
		} else {
			if (i)
				break;
			v.base = s->base;
			v.len = want;
		}
		len = want - off;
		if (v.len < len)
			len = v.len;
		l7_hide(len);
		l7_hide(off);
		if (len > cap || off > cap)
			break;
		if (bpf_probe_read_user(dst + off, len, (void *)v.base))
			break;
		off += len;
		/* Never changes it, but for the verifier: the least it can be becomes 0
		 * again, and what comes next has been looked at already. */
		l7_hide(off);
		off &= 2 * cap - 1;
	}
	return off;
}

/* ---- encrypted connections ---- */

/* What a thread does with encrypted connections: the sensor of sockets notes what
 * it moved last, the one of plaintext makes the value and keeps its own beside. */
struct l7_tls_thread {
	struct l7_ends ends[2]; /* of the last encrypted socket, by way */
	__u64 ready;            /* when what was received last came */
	__u32 len[2];           /* what was moved, by way */
	__u8 moved;             /* way of the last call plus one; 0: none since it was cleared */
	__u8 fresh;             /* received, and not yet looked for in a library */
	__u8 reserved[2];
	/* the call into a library that the thread is in */
	__u32 how;
	__u64 session; /* 0: none */
	__u64 buffer;
	__u64 count; /* where the library tells it */
	__u64 handshake; /* session of one; 0: none */
};

volatile const bool l7_threads = true; /* task storage; written by user space */

/* Threads that called a TLS library. Gone with the thread. Where the kernel has
 * no task storage (before Linux 5.11) it is a hash that nobody uses. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct l7_tls_thread);
} ghost_shared_tls_threads SEC(".maps");

/* l7_tls_moved notes for a thread that calls TLS libraries what it moved through
 * an encrypted socket. Task storage wants a task that the verifier knows (l7_task). */
static __always_inline void l7_tls_moved(const struct l7_conn *c, struct task_struct *task, __u32 len, bool sent, __u64 ready)
{
	struct l7_tls_thread *t = l7_threads && l7_task ? bpf_task_storage_get(&ghost_shared_tls_threads, task, 0, 0) : 0;

	if (!t)
		return;
	t->ends[sent] = c->ends;
	t->len[sent] = len;
	t->moved = 1 + sent;
	if (sent)
		return;
	t->ready = ready;
	t->fresh = 1;
}

/* ---- the record ---- */

static __always_inline __u8 *l7_data(struct l7_chunk *e)
{
	return (__u8 *)(e + 1);
}

/* What is the same whatever the size of a record. */
struct l7_moved {
	__u64 ready;
	__u64 offset;
	__u64 goroutine;
	__u64 waker;
	__u32 seq;
	__u32 len;
	__u32 want; /* bytes to capture */
	__u32 had;  /* of them, in the connection's head already */
	__u8 flags;
};

static __always_inline void l7_fill(struct l7_chunk *e, const struct l7_conn *c, const struct l7_moved *m)
{
	ghost_stamp(&e->h, L7_CHUNK);
	e->ends = c->ends;
	e->ready = m->ready;
	e->offset = m->offset;
	e->goroutine = m->goroutine;
	e->waker = m->waker;
	e->seq = m->seq;
	e->len = m->len;
	e->captured = 0;
	e->flags = m->flags;
	e->proto = c->proto;
	e->transport = c->transport;
	e->reserved[0] = 0;
	e->reserved[1] = 0;
	e->reserved[2] = 0;
}

static __always_inline struct l7_chunk *l7_reserve(const __u32 room)
{
	struct l7_chunk *e = bpf_ringbuf_reserve(&ghost_events, sizeof(*e) + room, 0);

	if (!e)
		ghost_count_lost();
	return e;
}

static __noinline void l7_emit_none(const struct l7_conn *c, const struct l7_moved *m)
{
	struct l7_chunk *e = l7_reserve(0);

	if (!e)
		return;
	l7_fill(e, c, m);
	ghost_submit(e);
}

/* l7_is_hello says that these bytes begin TLS: a client's hello or a server's. */
static __always_inline bool l7_is_hello(const __u8 *p)
{
	return p[0] == 0x16 && p[1] == 3 && (p[2] == 1 || p[2] == 3) && p[3] <= 0x41 && (p[5] == 1 || p[5] == 2);
}

/* The common case: one piece, nothing before it. A connection may be encrypted
 * after some words in plain (STARTTLS, PostgreSQL, MySQL): it ends to be copied. */
static __always_inline void l7_emit_flat(struct l7_conn *c, const struct l7_moved *m, const struct l7_source *s, const __u32 cap)
{
	struct l7_chunk *e = l7_reserve(cap);
	__u32 n = m->want;

	if (!e)
		return;
	l7_fill(e, c, m);
	l7_hide(n);
	if (n <= cap && !bpf_probe_read_user(l7_data(e), n, (void *)s->base)) {
		e->captured = n;
		if (n > 5 && l7_is_hello(l7_data(e)) && !(m->flags & L7_FLAG_PLAIN))
			c->state = L7_TLS;
	}
	ghost_submit(e);
}

/* Several pieces, or bytes that came before. */
static __always_inline void l7_emit_pieces(const struct l7_conn *c, const struct l7_moved *m, const struct l7_source *s, const __u32 cap)
{
	struct l7_chunk *e = l7_reserve(2 * cap);
	__u32 had = m->had;

	if (!e)
		return;
	l7_fill(e, c, m);
	l7_hide(had);
	if (had) {
		const __u64 *from = (const __u64 *)c->head[m->flags & L7_FLAG_SENT];
		__u64 *to = (__u64 *)l7_data(e);

		to[0] = from[0];
		to[1] = from[1];
		to[2] = from[2];
		to[3] = from[3];
	}
	e->captured = l7_gather(l7_data(e), had, s, m->want, cap, L7_IOVECS);
	ghost_submit(e);
}

static __noinline void l7_emit_several(const struct l7_conn *c, const struct l7_moved *moved, const struct l7_source *source)
{
	struct l7_source s;
	struct l7_moved m;

	l7_forget(&s, source);
	l7_forget(&m, moved);
	if (m.had > L7_HEAD)
		return;
	if (m.want <= 512)
		l7_emit_pieces(c, &m, &s, 512);
	else if (m.want <= 4096)
		l7_emit_pieces(c, &m, &s, 4096);
	else
		l7_emit_pieces(c, &m, &s, 16384);
}

/* l7_flatten makes one piece of the first, if that is all that is wanted. */
static __always_inline void l7_flatten(struct l7_source *s, __u32 want)
{
	struct l7_iovec v;

	if (!s->count || bpf_probe_read_user(&v, sizeof(v), (void *)s->base) || v.len < want)
		return;
	s->base = v.base;
	s->count = 0;
}

/* l7_emit makes a record of the smallest size that takes what is wanted: the
 * kernel wants to know the size of a record when it verifies the program. */
static __noinline void l7_emit(struct l7_conn *c, const struct l7_moved *m, struct l7_source *s)
{
	__u32 n = m->want;

	if (!m->had)
		l7_flatten(s, n);
	if (!n || !(s->known || m->had))
		l7_emit_none(c, m);
	else if (s->count || m->had)
		l7_emit_several(c, m, s);
	else if (n <= 128)
		l7_emit_flat(c, m, s, 128);
	else if (n <= 512)
		l7_emit_flat(c, m, s, 512);
	else if (n <= 1024)
		l7_emit_flat(c, m, s, 1024);
	else if (n <= 4096)
		l7_emit_flat(c, m, s, 4096);
	else
		l7_emit_flat(c, m, s, 16384);
}
