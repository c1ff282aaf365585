//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Connections, from SYN to the end of the socket.
 *
 *	inet_sock_set_state  -> begin, established, first FIN, error at CLOSE
 *	tcp_rcv_space_adjust -> whose the server's end is: its first reader; and
 *	                        windows that were closed until now
 *	tcp_{send,receive}_reset
 *	tcp_destroy_sock     -> struct flow, the last one: a RST that we send comes
 *	                        after CLOSE and before this
 *	iter over the states -> struct flow, what changed since the last one
 *	iter/task_file, iter/tcp -> states of the sockets that were there before us
 *
 * A short connection makes one record per end. The kernel counts bytes and
 * packets itself; we read its counters and report what they grew by, so that
 * no packet costs anything here.
 */
#include "ghost.h"
#include <bpf/bpf_endian.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* ---- what the loader found out about this kernel ---- */

volatile const bool use_lock;         /* bpf_spin_lock may be used in tracing */
volatile const bool use_cookie;       /* bpf_get_socket_cookie may be used in tracing */
volatile const __u64 interval_ns = 5000000000ULL;

enum { AF_INET = 2, AF_INET6 = 10, IPPROTO_TCP = 6, IPPROTO_MPTCP = 262, E2BIG = 7 };

enum tcp_state {
	ESTABLISHED = 1,
	SYN_SENT,
	SYN_RECV,
	FIN_WAIT1,
	FIN_WAIT2,
	TIME_WAIT,
	CLOSE,
	CLOSE_WAIT,
	LAST_ACK,
	LISTEN,
	CLOSING,
	NEW_SYN_RECV,
};

enum flow_flag {
	OUTBOUND = 1 << 0,         /* this end is the client */
	COMPLETE = 1 << 1,         /* seen from the SYN on */
	FINAL = 1 << 2,            /* in a record: no other will follow */
	SENT_RESET = 1 << 3,       /* of the two resets the first counts */
	RECEIVED_RESET = 1 << 4,
	CLOSED_FIRST = 1 << 5,     /* of the two FINs the first counts */
	PEER_CLOSED_FIRST = 1 << 6,
	CONNECTED = 1 << 7,        /* it was established */
	CLOSED = 1 << 8,           /* state CLOSE: conn.last is set */
	LISTENER = 1 << 9,
};

/* How sure we are of a pid. */
enum pid_rank { UNKNOWN, INHERITED, CLOSER, OWNER };

/* ---- records ---- */

/* An address is 16 bytes; IPv4 is written as ::ffff:a.b.c.d. */
struct flow {
	struct ghost_hdr h;
	__u64 since; /* where the interval begins; it ends at h.ktime */
	__u64 id;
	__u64 cgroup;
	__u64 connect_ns;
	__u64 sent_bytes;
	__u64 received_bytes;
	__u32 sent_packets;
	__u32 received_packets;
	__u32 retransmits;
	__u32 limited_jiffies; /* the peer's window was closed */
	__u32 zero_windows;    /* times that our own closed */
	__u32 rtt_us;
	__u32 rtt_min_us;
	__u32 listen_drops;
	__u32 pid;
	__u32 peer_pid;
	__u32 netns;
	__u8 source[16]; /* the client */
	__u8 destination[16];
	__be16 source_port;
	__be16 destination_port;
	__u16 flags;
	__u16 error;  /* sk_err at CLOSE */
	__s16 reset;  /* enum sk_rst_reason, -1 if the kernel does not say */
	__u8 state;
	__u8 reserved;
};
_Static_assert(sizeof(struct flow) == 168, "struct flow is decoded in Go");

/* Keeps the types that user space needs in the object's BTF. */
const struct contract {
	struct flow flow;
	enum flow_flag flag;
} *const contract __attribute__((unused)) = 0;

/* ---- state ---- */

struct totals {
	__u64 sent, received; /* payload bytes, each byte once */
	__u32 segs_out, segs_in;
	__u32 retransmits;
	__u32 limited_jiffies;
	__u32 zero_windows;
	__u32 rtt_us, rtt_min_us;
	__u32 reserved;
};

struct tuple {
	__u8 source[16];
	__u8 destination[16];
	__be16 source_port;
	__be16 destination_port;
	__u32 netns;
};

/*
 * What we know of one socket. The hooks write it under the socket's own lock.
 * Only reported, until, drops and ended are shared with the sweep, which holds
 * no socket lock: lock guards these.
 */
struct conn {
	struct bpf_spin_lock lock;
	__u32 pid;
	__u64 id;
	__u64 cgroup;
	__u64 begun; /* SYN, accept or first sight; 0: not filled in yet */
	__u64 established;
	__u64 until;            /* end of the last record */
	__u64 zero_at;          /* bytes received when the window that was counted last closed */
	struct totals reported; /* sum of the records so far */
	struct totals last;     /* at CLOSE: tcp_disconnect() clears the socket's own */
	struct tuple tuple;     /* at CLOSE the socket forgets it */
	__u32 peer_pid;
	__u32 drops; /* listener: reported so far */
	__u32 zero_windows;
	__u16 flags;
	__u16 error;
	__s16 reset;
	__u8 rank;
	__u8 named; /* tuple is filled in */
	__u8 ended; /* the final record is out */
	__u8 seen;  /* some record is out */
	__u8 state; /* the change that was dealt with last */
	__u8 reserved;
};

/*
 * Socket, by its address -> state. Deleted at tcp_destroy_sock, which every
 * TCP socket passes; an insert that finds it full is counted as lost. User
 * space sets the size.
 *
 * Not socket storage: it costs a quarter more per connection (an allocation
 * charged to the process and freed by RCU), and walking it while sockets end
 * crashes Linux 7.2 (__bpf_sk_storage_map_seq_show() reads the owner of an
 * element that was unlinked meanwhile).
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct conn);
} conn_by_socket SEC(".maps");

/* What a new value starts as. */
static const struct conn no_conn;

struct listener_key {
	__u8 address[16];
	__u32 netns;
	__be16 port;
	__u16 reserved;
};

struct listener {
	__u64 id;
	__u64 cgroup;
	__u32 pid;
	__u32 reserved;
};

/* Address a process listens on -> who. Written at LISTEN, deleted when that
 * socket stops; gives an accepted connection an owner until it is read. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct listener_key);
	__type(value, struct listener);
} listener_by_address SEC(".maps");

struct ends {
	__u64 begun;  /* the client's end was established, or was first seen */
	__u64 closed; /* the client's end is gone */
	__u32 client_pid;
	__u32 server_pid;
};

/* Tuple -> the pids of both ends, where both are on this host: the client's
 * end inserts, each end writes its own and reads the other's. The LRU bounds
 * it; who is evicted has lost the other's pid, nothing else. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct tuple);
	__type(value, struct ends);
} ends_by_tuple SEC(".maps");

struct owner {
	__u64 cgroup;
	__u32 pid;
	__u32 reserved;
};

/* Socket by its address -> who has it open, where task_file sees the address
 * only. Written by task_file, read by iter/tcp; user space empties it when both
 * are through. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, __u64);
	__type(value, struct owner);
} owner_by_address SEC(".maps");

/* ---- reading a socket ---- */

/* Plain loads where the verifier knows the pointer's type, a helper call for
 * each where it is a number (probe, a constant). */
#define READ(tp, field) (probe ? BPF_CORE_READ(tp, field) : tp->field)

#define SK inet_conn.icsk_inet.sk

/* Keeps the order of loads around it. */
#define barrier() asm volatile("" ::: "memory")

static __always_inline __u32 busy(struct tcp_sock *tp)
{
	__u32 word = 0;

	bpf_probe_read_kernel(&word, sizeof(word), &tp->SK.sk_lock.slock);
	return word;
}

/*
 * Payload bytes, as in TCP_INFO: a FIN counts as one byte received. Who does
 * not hold the socket's lock (loose) may see the FIN counted before SOCK_DONE
 * is set; while someone holds the lock it keeps one byte back, which the next
 * record adds. bytes_sent is read before bytes_retrans, so that a race gives
 * too little, never too much.
 */
static __always_inline void read_bytes(struct totals *t, struct tcp_sock *tp, bool loose, const bool probe)
{
	__u64 sent, received;
	bool fin;

	sent = READ(tp, bytes_sent);
	received = READ(tp, bytes_received);
	barrier();
	fin = loose && (busy(tp) || READ(tp, SK.sk_lock.owned));
	barrier();
	fin |= (READ(tp, SK.__sk_common.skc_flags) >> bpf_core_enum_value(enum sock_flags, SOCK_DONE)) & 1;
	t->sent = sent - READ(tp, bytes_retrans);
	if ((__s64)t->sent < 0)
		t->sent = 0;
	t->received = received - (fin && received);
}

/*
 * A receive window that is closed (tcp_select_window() made rcv_wnd 0) lets no
 * data in, so that the bytes received until then name this closing. A FIN may
 * still come, and counts as one byte. A read makes room, and meets us before
 * the ACK that says so: there, and at CLOSE, each closing is counted, under the
 * socket's lock.
 * Who looks in between adds the one that lasts.
 */
static __always_inline bool is_new_zero(const struct conn *c, __u64 at)
{
	return at - c->zero_at > 1;
}

static __always_inline void count_zero_window(struct conn *c, struct tcp_sock *tp)
{
	__u64 at = tp->bytes_received;

	if (tp->rcv_wnd || !is_new_zero(c, at))
		return;
	c->zero_at = at;
	barrier(); /* a sweep may miss this one for now, but not have it twice */
	c->zero_windows++;
}

static __always_inline __u32 read_zero_windows(const struct conn *c, struct tcp_sock *tp, const bool probe)
{
	__u32 counted = c->zero_windows;
	__u64 at;

	barrier();
	at = READ(tp, bytes_received);
	barrier();
	if (READ(tp, rcv_wnd))
		return counted;
	barrier();
	if (READ(tp, bytes_received) != at) /* it was opened meanwhile */
		return counted;
	return counted + is_new_zero(c, at);
}

static __always_inline void read_totals(struct totals *t, const struct conn *c, struct tcp_sock *tp, bool loose, const bool probe)
{
	__u32 type;

	read_bytes(t, tp, loose, probe);
	t->segs_out = READ(tp, segs_out);
	t->segs_in = READ(tp, segs_in);
	t->retransmits = READ(tp, total_retrans);
	t->rtt_us = READ(tp, srtt_us) >> 3;
	t->rtt_min_us = READ(tp, rtt_min.s[0].v);
	if (t->rtt_min_us == ~0U) /* no sample */
		t->rtt_min_us = 0;
	t->limited_jiffies = READ(tp, chrono_stat[1]); /* TCP_CHRONO_RWND_LIMITED - 1 */
	type = probe ? BPF_CORE_READ_BITFIELD_PROBED(tp, chrono_type) : BPF_CORE_READ_BITFIELD(tp, chrono_type);
	if (type == 2)
		t->limited_jiffies += (__u32)bpf_jiffies64() - READ(tp, chrono_start);
	t->zero_windows = read_zero_windows(c, tp, probe);
	t->reserved = 0;
}

static __always_inline void put4(__u8 *to, __be32 a)
{
	__u32 *w = (__u32 *)to;

	w[0] = 0;
	w[1] = 0;
	w[2] = bpf_htonl(0xffff);
	w[3] = a;
}

static __always_inline void put6(__u8 *to, const __u32 *a)
{
	__u32 *w = (__u32 *)to;

	w[0] = a[0];
	w[1] = a[1];
	w[2] = a[2];
	w[3] = a[3];
}

static __always_inline bool is_mapped(const __u32 *a)
{
	return a[0] == 0 && a[1] == 0 && a[2] == bpf_htonl(0xffff);
}

struct addresses {
	__u8 local[16], remote[16];
};

static __always_inline void read_addresses(struct addresses *a, struct tcp_sock *tp, const bool probe)
{
	struct in6_addr local = {}, remote = {};

	if (READ(tp, SK.__sk_common.skc_family) == AF_INET6 && bpf_core_field_exists(tp->SK.__sk_common.skc_v6_daddr)) {
		if (probe) {
			local = BPF_CORE_READ(tp, SK.__sk_common.skc_v6_rcv_saddr);
			remote = BPF_CORE_READ(tp, SK.__sk_common.skc_v6_daddr);
		} else {
			put6(local.in6_u.u6_addr8, tp->SK.__sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32);
			put6(remote.in6_u.u6_addr8, tp->SK.__sk_common.skc_v6_daddr.in6_u.u6_addr32);
		}
		if (!is_mapped(remote.in6_u.u6_addr32)) {
			put6(a->local, local.in6_u.u6_addr32);
			put6(a->remote, remote.in6_u.u6_addr32);
			return;
		}
	}
	put4(a->local, READ(tp, inet_conn.icsk_inet.inet_saddr));
	put4(a->remote, READ(tp, SK.__sk_common.skc_daddr));
}

static __always_inline __u32 read_netns(struct tcp_sock *tp, const bool probe)
{
	return probe ? BPF_CORE_READ(tp, SK.__sk_common.skc_net.net, ns.inum) : tp->SK.__sk_common.skc_net.net->ns.inum;
}

/* name fills in the tuple. Before a client is established it has no port. */
static __always_inline void name(struct conn *c, struct tcp_sock *tp, const bool probe)
{
	struct addresses a;
	__be16 local = READ(tp, inet_conn.icsk_inet.inet_sport), remote = READ(tp, SK.__sk_common.skc_dport);

	read_addresses(&a, tp, probe);
	if (c->flags & OUTBOUND) {
		put6(c->tuple.source, (__u32 *)a.local);
		put6(c->tuple.destination, (__u32 *)a.remote);
		c->tuple.source_port = local;
		c->tuple.destination_port = remote;
	} else {
		put6(c->tuple.source, (__u32 *)a.remote);
		put6(c->tuple.destination, (__u32 *)a.local);
		c->tuple.source_port = remote;
		c->tuple.destination_port = local;
	}
	c->tuple.netns = read_netns(tp, probe);
}

/* ---- the state of a socket ---- */

static __always_inline struct conn *conn_of(void *sk)
{
	__u64 key = (__u64)sk;

	return bpf_map_lookup_elem(&conn_by_socket, &key);
}

static __always_inline struct conn *make_conn(struct tcp_sock *tp)
{
	__u64 key = (__u64)tp;
	struct conn *c;

	bpf_map_update_elem(&conn_by_socket, &key, &no_conn, BPF_NOEXIST);
	c = bpf_map_lookup_elem(&conn_by_socket, &key);
	if (!c)
		ghost_count_lost();
	return c;
}

static __always_inline __u64 id_of(struct tcp_sock *tp)
{
	__u64 cookie;

	if (use_cookie)
		return bpf_get_socket_cookie(tp);
	cookie = tp->SK.__sk_common.skc_cookie.counter;
	if (cookie)
		return cookie;
	/* Nobody gave the socket a cookie and we cannot: a number that no cookie
	 * has, of the moment and the CPU. */
	return 1ULL << 63 | bpf_ktime_get_ns() << 10 >> 1 | bpf_get_smp_processor_id();
}

/* ---- cookies, where tracing programs cannot give them ---- */

enum { LET = 1 }; /* the only thing these may say */

/* A socket that asks for a connection was made by its process. */
SEC("cgroup/sock_create")
int tcp_ask_create(struct bpf_sock *sk)
{
	if (sk->protocol == IPPROTO_TCP)
		bpf_get_socket_cookie(sk);
	return LET;
}

/* One that is accepted is a copy of its listener, without its cookie. This runs
 * before it is ESTABLISHED. */
SEC("sockops")
int tcp_ask_accept(struct bpf_sock_ops *ctx)
{
	if (ctx->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		bpf_get_socket_cookie(ctx);
	return LET;
}

static __always_inline void begin(struct conn *c, struct tcp_sock *tp, __u16 flags)
{
	c->id = id_of(tp);
	c->flags = flags;
	c->pid = 0;
	c->cgroup = 0;
	c->rank = UNKNOWN;
	c->established = 0;
	c->peer_pid = 0;
	c->error = 0;
	c->reset = -1;
	c->named = 0;
	c->seen = 0;
	c->ended = 0;
	c->zero_windows = 0;
	c->zero_at = 0;
	__builtin_memset(&c->reported, 0, sizeof(c->reported));
	c->begun = bpf_ktime_get_ns();
	c->until = c->begun;
}

/* claim notes that the current process is the socket's. */
static __always_inline void claim(struct conn *c, __u8 rank)
{
	c->pid = bpf_get_current_pid_tgid() >> 32;
	c->cgroup = bpf_get_current_cgroup_id();
	c->rank = rank;
}

/* ---- both ends of a local connection ---- */

static __always_inline bool is_loopback(const __u8 *address)
{
	const __u32 *a = (const __u32 *)address;

	if (is_mapped(a))
		return address[12] == 127;
	return !a[0] && !a[1] && !a[2] && a[3] == bpf_htonl(1);
}

/* key_of makes both ends give the same key: the network namespace is part of
 * it only where an address means something else in each. */
static __always_inline void key_of(struct tuple *k, const struct conn *c)
{
	*k = c->tuple;
	if (!is_loopback(c->tuple.destination))
		k->netns = 0;
}

/* meet writes this end's pid, reads the other's, and returns where they are. */
static __always_inline struct ends *meet(struct conn *c)
{
	struct tuple k;
	struct ends *e;

	key_of(&k, c);
	e = bpf_map_lookup_elem(&ends_by_tuple, &k);
	if (!e)
		return 0;
	if (c->flags & OUTBOUND) {
		if (c->flags & COMPLETE && e->begun != c->established)
			return 0; /* a later connection of the same name */
		e->client_pid = c->pid;
		if (e->server_pid)
			c->peer_pid = e->server_pid;
		return e;
	}
	if (c->flags & COMPLETE && (e->begun > c->established || (e->closed && e->closed < c->established)))
		return 0; /* left over from another one */
	e->server_pid = c->pid;
	if (e->client_pid)
		c->peer_pid = e->client_pid;
	return e;
}

/* introduce is how the client's end begins to be met. It is established before
 * its peer is: the peer waits for the ACK that is sent after this. */
static __always_inline void introduce(struct conn *c)
{
	struct ends e = {.begun = c->established, .client_pid = c->pid};
	struct tuple k;

	key_of(&k, c);
	bpf_map_update_elem(&ends_by_tuple, &k, &e, BPF_ANY);
}

static __always_inline void leave(struct conn *c)
{
	struct ends *e = meet(c);

	if (e && c->flags & OUTBOUND)
		e->closed = bpf_ktime_get_ns();
}

/* ---- records ---- */

/* grown is what a counter added, never less than nothing: a sweep may hold an
 * older value than the one that was reported meanwhile. */
#define grown(now, then) ((__s64)((now) - (then)) > 0 ? (now) - (then) : 0)
#define grown32(now, then) ((__s32)((now) - (then)) > 0 ? (now) - (then) : 0)

static __always_inline bool changed(const struct conn *c, const struct totals *t)
{
	return t->segs_in != c->reported.segs_in || t->segs_out != c->reported.segs_out ||
	       t->sent != c->reported.sent || t->received != c->reported.received;
}

/* tell moves what was not reported yet from c to f. Exactly one caller gets
 * each byte. */
static __always_inline void tell(struct flow *f, struct conn *c, const struct totals *t)
{
	struct totals *r = &c->reported;

	f->since = c->until;
	f->sent_bytes = grown(t->sent, r->sent);
	f->received_bytes = grown(t->received, r->received);
	f->sent_packets = grown32(t->segs_out, r->segs_out);
	f->received_packets = grown32(t->segs_in, r->segs_in);
	f->retransmits = grown32(t->retransmits, r->retransmits);
	f->limited_jiffies = grown32(t->limited_jiffies, r->limited_jiffies);
	f->zero_windows = grown32(t->zero_windows, r->zero_windows);
	r->sent += f->sent_bytes;
	r->received += f->received_bytes;
	r->segs_out += f->sent_packets;
	r->segs_in += f->received_packets;
	r->retransmits += f->retransmits;
	r->limited_jiffies += f->limited_jiffies;
	r->zero_windows += f->zero_windows;
	c->until = f->h.ktime;
	c->seen = 1;
}

static __always_inline void describe(struct flow *f, const struct conn *c, const struct totals *t, __u8 state)
{
	f->id = c->id;
	f->cgroup = c->cgroup;
	f->connect_ns = c->flags & OUTBOUND && c->flags & COMPLETE && c->established ? c->established - c->begun : 0;
	f->rtt_us = t->rtt_us;
	f->rtt_min_us = t->rtt_min_us;
	f->listen_drops = 0;
	f->pid = c->pid;
	f->peer_pid = c->peer_pid;
	f->netns = c->tuple.netns;
	put6(f->source, (__u32 *)c->tuple.source);
	put6(f->destination, (__u32 *)c->tuple.destination);
	f->source_port = c->tuple.source_port;
	f->destination_port = c->tuple.destination_port;
	f->flags = c->flags;
	f->error = c->error;
	f->reset = c->reset;
	f->state = state;
	f->reserved = 0;
}

static __always_inline void lock(struct conn *c)
{
	if (use_lock)
		bpf_spin_lock(&c->lock);
}

static __always_inline void unlock(struct conn *c)
{
	if (use_lock)
		bpf_spin_unlock(&c->lock);
}

/* too_late tells the sweep that the connection ended while it looked, and that
 * its memory may even hold another. */
static __always_inline bool too_late(const struct conn *c, __u64 id)
{
	return c->ended || c->id != id;
}

/* emit_final sends the last record of a connection. */
static __always_inline void emit_final(struct conn *c, __u64 id, const struct totals *t)
{
	struct flow *f = ghost_reserve(flow, 0);
	bool late;

	if (!f)
		return;
	describe(f, c, t, CLOSE);
	f->flags |= FINAL;
	lock(c);
	late = too_late(c, id);
	if (!late) {
		c->ended = 1;
		tell(f, c, t);
	}
	unlock(c);
	if (late)
		bpf_ringbuf_discard(f, BPF_RB_NO_WAKEUP);
	else
		ghost_submit(f);
}

/* emit_part sends what changed. What finds the ring full is not lost: the next
 * sweep tells it. */
static __always_inline void emit_part(struct conn *c, __u64 id, const struct totals *t, __u8 state)
{
	struct flow *f = bpf_ringbuf_reserve(&ghost_events, sizeof(*f), 0);
	bool late;

	if (!f)
		return;
	ghost_stamp(&f->h, 0);
	describe(f, c, t, state);
	lock(c);
	late = too_late(c, id);
	if (!late)
		tell(f, c, t);
	unlock(c);
	if (late)
		bpf_ringbuf_discard(f, BPF_RB_NO_WAKEUP);
	else
		ghost_submit(f);
}

static __always_inline void emit_drops(struct conn *c, __u32 drops)
{
	const struct totals none = {};
	struct flow *f;

	if (drops == c->drops)
		return;
	f = bpf_ringbuf_reserve(&ghost_events, sizeof(*f), 0);
	if (!f)
		return;
	ghost_stamp(&f->h, 0);
	describe(f, c, &none, LISTEN);
	lock(c);
	f->listen_drops = drops - c->drops;
	c->drops = drops;
	f->since = c->until;
	c->until = f->h.ktime;
	unlock(c);
	f->sent_bytes = 0;
	f->received_bytes = 0;
	f->sent_packets = 0;
	f->received_packets = 0;
	f->retransmits = 0;
	f->limited_jiffies = 0;
	f->zero_windows = 0;
	ghost_submit(f);
}

/* ---- listeners ---- */

static __always_inline void listener_key_of(struct listener_key *k, const struct conn *c)
{
	put6(k->address, (__u32 *)c->tuple.destination);
	k->netns = c->tuple.netns;
	k->port = c->tuple.destination_port;
	k->reserved = 0;
}

/* A dual-stack listener on every address is ::, an IPv4 one 0.0.0.0. */
static __always_inline struct listener *listener_for(const struct conn *c)
{
	struct listener_key k;
	struct listener *l;
	__u32 *a = (__u32 *)k.address;

	listener_key_of(&k, c);
	l = bpf_map_lookup_elem(&listener_by_address, &k);
	if (l)
		return l;
	if (is_mapped(a)) {
		a[3] = 0;
		l = bpf_map_lookup_elem(&listener_by_address, &k);
		if (l)
			return l;
	}
	a[0] = 0;
	a[1] = 0;
	a[2] = 0;
	a[3] = 0;
	return bpf_map_lookup_elem(&listener_by_address, &k);
}

static __always_inline void remember_listener(struct conn *c)
{
	struct listener l = {.id = c->id, .cgroup = c->cgroup, .pid = c->pid};
	struct listener_key k;

	listener_key_of(&k, c);
	if (bpf_map_update_elem(&listener_by_address, &k, &l, BPF_ANY))
		ghost_count_lost();
}

static __always_inline void forget_listener(struct conn *c)
{
	struct listener_key k;
	struct listener *l;

	listener_key_of(&k, c);
	l = bpf_map_lookup_elem(&listener_by_address, &k);
	if (l && l->id == c->id) /* SO_REUSEPORT: others may listen there too */
		bpf_map_delete_elem(&listener_by_address, &k);
}

static __always_inline void name_listener(struct conn *c, struct tcp_sock *tp)
{
	name(c, tp, false);
	c->tuple.destination_port = bpf_htons(tp->SK.__sk_common.skc_num);
	c->named = 1;
}

/* ---- TCP state changes ---- */

/* last_totals are the socket's, or those at CLOSE if it cleared its own, or is
 * about to. */
static __always_inline void last_totals(struct totals *t, const struct conn *c)
{
	const struct totals *l = &c->last;

	if ((__s32)(t->segs_out - l->segs_out) < 0 || t->sent < l->sent || t->received < l->received)
		*t = *l;
}

static __always_inline void finish(struct conn *c, struct tcp_sock *tp)
{
	struct totals t;

	if (!c->begun || c->ended)
		return;
	if (c->flags & LISTENER) {
		emit_drops(c, tp->SK.sk_drops.counter);
		c->ended = 1;
		return;
	}
	read_totals(&t, c, tp, false, false);
	if (c->flags & CLOSED)
		last_totals(&t, c);
	if (c->flags & CONNECTED)
		leave(c);
	emit_final(c, c->id, &t);
}

/* A socket that failed to connect may be connected again, or listen. */
static __always_inline struct conn *begin_anew(struct tcp_sock *tp, __u16 flags)
{
	struct conn *c = make_conn(tp);

	if (!c)
		return 0;
	finish(c, tp);
	begin(c, tp, flags);
	return c;
}

static __always_inline void on_syn_sent(struct tcp_sock *tp)
{
	struct conn *c = begin_anew(tp, OUTBOUND | COMPLETE);

	if (!c)
		return;
	claim(c, OWNER);
	c->state = SYN_SENT;
}

static __always_inline void on_listen(struct tcp_sock *tp)
{
	struct conn *c = begin_anew(tp, LISTENER | COMPLETE);

	if (!c)
		return;
	c->drops = tp->SK.sk_drops.counter;
	claim(c, OWNER);
	name_listener(c, tp);
	remember_listener(c);
	c->state = LISTEN;
}

/* inherit gives an accepted connection its listener's owner until a process
 * reads it. */
static __always_inline void inherit(struct conn *c)
{
	struct listener *l = listener_for(c);

	if (!l)
		return;
	c->pid = l->pid;
	c->cgroup = l->cgroup;
	c->rank = INHERITED;
}

static __always_inline void on_established(struct tcp_sock *tp, int old)
{
	struct conn *c = old == SYN_RECV ? make_conn(tp) : conn_of(tp);

	if (!c)
		return;
	if (c->begun && (c->state == SYN_SENT || c->state == SYN_RECV)) {
		c->established = bpf_ktime_get_ns();
	} else {
		begin(c, tp, COMPLETE);
		c->established = c->begun;
	}
	c->state = ESTABLISHED;
	c->flags |= CONNECTED;
	name(c, tp, false);
	c->named = 1;
	if (c->flags & OUTBOUND) {
		introduce(c);
		return;
	}
	inherit(c);
	meet(c);
}

static __always_inline void on_fin(struct conn *c, __u16 who)
{
	if (!(c->flags & (CLOSED_FIRST | PEER_CLOSED_FIRST)))
		c->flags |= who;
}

/* in_process tells whether the current task is the one that works on the
 * socket: softirq work runs on top of anyone, and kernel threads own nothing. */
static __always_inline bool in_process(struct tcp_sock *tp)
{
	struct task_struct *task;

	if (!tp->SK.sk_lock.owned)
		return false;
	task = (void *)bpf_get_current_task();
	return !(BPF_CORE_READ(task, flags) & 0x00200000); /* PF_KTHREAD */
}

static __always_inline void on_closer(struct conn *c, struct tcp_sock *tp)
{
	if (c->rank < CLOSER && in_process(tp))
		claim(c, CLOSER);
}

static __always_inline void on_close(struct conn *c, struct tcp_sock *tp)
{
	if (c->flags & LISTENER) {
		forget_listener(c);
		return;
	}
	count_zero_window(c, tp); /* the socket let go of what it held: a RST says so next */
	read_totals(&c->last, c, tp, false, false);
	c->error = tp->SK.sk_err;
	if (!c->named) {
		name(c, tp, false);
		c->named = 1;
	}
	c->flags |= CLOSED;
	on_closer(c, tp);
}

static __always_inline void on_change(struct conn *c, struct tcp_sock *tp, int state)
{
	c->state = state;
	switch (state) {
	case FIN_WAIT1:
		on_fin(c, CLOSED_FIRST);
		on_closer(c, tp);
		return;
	case CLOSE_WAIT:
		on_fin(c, PEER_CLOSED_FIRST);
		return;
	case LAST_ACK:
		on_closer(c, tp);
		return;
	case CLOSE:
		on_close(c, tp);
	}
}

static __always_inline void on_state(struct tcp_sock *tp, int old, int new)
{
	struct conn *c;

	switch (new) {
	case SYN_SENT:
		on_syn_sent(tp);
		return;
	case LISTEN:
		on_listen(tp);
		return;
	case ESTABLISHED:
		on_established(tp, old);
		return;
	case SYN_RECV:
		return;
	}
	c = conn_of(tp);
	if (c && c->begun)
		on_change(c, tp, new);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tcp_set_state, struct sock *sk, int old, int new)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);

	if (tp) /* else SCTP, DCCP, MPTCP */
		on_state(tp, old, new);
	return 0;
}

/*
 * The kernel skips a program that is active on the same CPU already, begun by a
 * process that softirq work has interrupted (since 6.2) or another process
 * preempted (after 6.18). So a twin stands behind it and behind tcp_destroy,
 * which looks whether what should be done is done. Two can miss the same event
 * only if one interrupts the other's twin, and then it is the twin's no more.
 */
static __always_inline bool missed(const struct conn *c, int old, int new)
{
	if (c && c->begun)
		return c->state != new && new != SYN_RECV;
	return new == SYN_SENT || new == LISTEN || (new == ESTABLISHED && old == SYN_RECV);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(twin_set_state, struct sock *sk, int old, int new)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);

	if (!tp || !missed(conn_of(tp), old, new))
		return 0;
	ghost_count_found();
	on_state(tp, old, new);
	return 0;
}

/* ---- resets ---- */

static __always_inline void on_reset(struct conn *c, __u16 who, __s16 reason)
{
	if (c->flags & (SENT_RESET | RECEIVED_RESET))
		return;
	c->flags |= who;
	c->reset = reason;
}

enum sk_rst_reason {
	SK_RST_REASON_NOT_SPECIFIED,
};

/* The reason is the third argument since Linux 6.10 (b533fb9cf4f7). */
SEC("tp_btf/tcp_send_reset")
int tcp_send_reset(__u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	struct tcp_sock *tp;
	struct conn *c;
	__s16 reason = -1;

	if (!sk) /* there is no socket for the packet */
		return 0;
	if (bpf_core_type_exists(enum sk_rst_reason))
		reason = ctx[2];
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return 0;
	c = conn_of(tp);
	if (!c || !c->begun || c->flags & LISTENER)
		return 0;
	on_reset(c, SENT_RESET, reason);
	if (c->flags & CLOSED) /* before tcp_disconnect() clears the counters */
		read_totals(&c->last, c, tp, false, false);
	return 0;
}

SEC("tp_btf/tcp_receive_reset")
int BPF_PROG(tcp_recv_reset, struct sock *sk)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct conn *c = tp ? conn_of(tp) : 0;

	if (c && c->begun)
		on_reset(c, RECEIVED_RESET, -1);
	return 0;
}

/* ---- reads ---- */

/* Runs whenever a process takes data out of a socket. The first one to read is
 * the server: a listener's owner may be the parent of a hundred workers. */
SEC("tp_btf/tcp_rcv_space_adjust")
int BPF_PROG(tcp_read, struct sock *sk)
{
	struct conn *c = conn_of(sk);
	struct tcp_sock *tp;

	if (!c || !c->begun)
		return 0;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return 0;
	count_zero_window(c, tp);
	if (c->rank == OWNER || !in_process(tp))
		return 0;
	claim(c, OWNER);
	meet(c);
	return 0;
}

/* ---- the end ---- */

static __always_inline void on_destroy(struct conn *c, struct tcp_sock *tp)
{
	__u64 key = (__u64)tp;

	finish(c, tp);
	bpf_map_delete_elem(&conn_by_socket, &key);
}

SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(tcp_destroy, struct sock *sk)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct conn *c = tp ? conn_of(tp) : 0;

	if (c)
		on_destroy(c, tp);
	return 0;
}

/* Where the program has been the state is gone. */
SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(twin_destroy, struct sock *sk)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct conn *c = tp ? conn_of(tp) : 0;

	if (!c)
		return 0;
	ghost_count_found();
	on_destroy(c, tp);
	return 0;
}

/* ---- sweep ---- */

/* due spaces the records of a flow by the interval. The first may come after a
 * quarter of it, so that sweeps every half show a connection within it;
 * connections that end before that have one record. */
static __always_inline bool due(const struct conn *c)
{
	__u64 age = bpf_ktime_get_ns() - c->until;

	if (!c->seen && !(c->flags & COMPLETE))
		return true; /* was there before us: nobody has heard of it */
	return (__s64)age >= (__s64)(c->seen ? interval_ns - interval_ns / 4 : interval_ns / 4);
}

/* stale tells whether c is of another socket: the end of its own was missed,
 * and counted so. A socket that ends at this moment is not stale. */
static __always_inline bool stale(const struct conn *c, struct tcp_sock *tp)
{
	__u64 cookie = BPF_CORE_READ(tp, SK.__sk_common.skc_cookie.counter);

	barrier();
	return !(c->id >> 63) && cookie != c->id && !c->ended;
}

/* The socket may end while we look: its memory stays that of a socket, and
 * what was read of it is told only if it had not ended by then. */
static __always_inline void sweep(struct conn *c, struct tcp_sock *tp)
{
	__u64 key = (__u64)tp, id = c->id;
	struct totals t;
	bool closed;

	if (!c->begun || c->ended)
		return;
	if (stale(c, tp)) {
		bpf_map_delete_elem(&conn_by_socket, &key);
		return;
	}
	if (c->flags & LISTENER) {
		emit_drops(c, BPF_CORE_READ(tp, SK.sk_drops.counter));
		return;
	}
	if (!due(c))
		return;
	/* Asked once and before the counters are read: a connection that closes
	 * after that has moved on, and what was read is not its last. */
	closed = c->flags & CLOSED;
	barrier();
	read_totals(&t, c, tp, true, true);
	if (closed)
		last_totals(&t, c);
	if (!c->named)
		name(c, tp, true);
	if (closed) { /* the application keeps a dead socket */
		emit_final(c, id, &t);
		return;
	}
	if (c->seen && !changed(c, &t))
		return;
	meet(c);
	emit_part(c, id, &t, BPF_CORE_READ(tp, SK.__sk_common.skc_state));
}

SEC("iter/bpf_map_elem")
int tcp_sweep(struct bpf_iter__bpf_map_elem *ctx)
{
	__u64 *at = ctx->key;
	struct conn *c;
	__u64 key;

	if (!at)
		return 0;
	key = *at;
	c = bpf_map_lookup_elem(&conn_by_socket, &key); /* ctx->value cannot be locked */
	if (c)
		sweep(c, (void *)key);
	return 0;
}

/* ---- sockets that were there before us ---- */

enum syn { NO_SYN, SYN, UNSURE };

/* sent_syn tells which end it is. bytes_acked counts the SYN of a client and
 * not the one of a server, so it is one more than the payload and the FIN that
 * were acknowledged. */
static __always_inline enum syn sent_syn(struct tcp_sock *tp, __u8 state)
{
	__u64 payload = tp->bytes_sent - tp->bytes_retrans;
	__u32 flying = tp->snd_nxt - tp->snd_una;
	bool fin = state != ESTABLISHED && state != CLOSE_WAIT && tp->snd_nxt == tp->write_seq;
	__u64 more = tp->bytes_acked - (payload + fin - flying);

	if (state == SYN_SENT || more == 1)
		return SYN;
	return more == 0 || state == SYN_RECV ? NO_SYN : UNSURE;
}

static __always_inline void adopt_listener(struct conn *c, struct tcp_sock *tp, __u32 pid, __u64 cgroup)
{
	begin(c, tp, LISTENER);
	c->state = LISTEN;
	c->drops = tp->SK.sk_drops.counter;
	c->pid = pid;
	c->cgroup = cgroup;
	c->rank = OWNER;
	name_listener(c, tp);
	remember_listener(c);
}

static __always_inline void adopt_flow(struct conn *c, struct tcp_sock *tp, __u32 pid, __u64 cgroup, __u8 state)
{
	enum syn syn = sent_syn(tp, state);

	begin(c, tp, CONNECTED | (syn == SYN ? OUTBOUND : 0));
	c->state = state;
	c->pid = pid;
	c->cgroup = cgroup;
	c->rank = pid ? INHERITED : UNKNOWN; /* forked servers share it: the reader counts */
	name(c, tp, false);
	if (syn == UNSURE && !listener_for(c)) {
		c->flags |= OUTBOUND;
		name(c, tp, false);
	}
	c->named = 1;
	c->established = c->begun;
	if (state == SYN_SENT) {
		c->flags &= ~CONNECTED;
		c->established = 0;
		return;
	}
	if (state == CLOSE_WAIT || state == LAST_ACK)
		c->flags |= PEER_CLOSED_FIRST;
	else if (state == FIN_WAIT1 || state == FIN_WAIT2)
		c->flags |= CLOSED_FIRST;
}

/* join lets the two ends of an old connection meet, whichever comes first. */
static __always_inline void join(struct conn *c)
{
	struct ends e = {.begun = c->established};
	struct tuple k;

	if (!(c->flags & CONNECTED))
		return;
	key_of(&k, c);
	bpf_map_update_elem(&ends_by_tuple, &k, &e, BPF_NOEXIST);
	meet(c);
}

static __always_inline void adopt(struct tcp_sock *tp, __u32 pid, __u64 cgroup)
{
	__u8 state = tp->SK.__sk_common.skc_state;
	struct conn *c;

	if (state == CLOSE || state == TIME_WAIT || state == NEW_SYN_RECV)
		return;
	c = make_conn(tp);
	if (!c || c->begun)
		return;
	if (state == LISTEN) {
		adopt_listener(c, tp, pid, cgroup);
		return;
	}
	adopt_flow(c, tp, pid, cgroup, state);
	join(c);
}

/* note leaves word for tcp_iter, which finds the socket itself. */
static __always_inline void note(__u64 address, struct task_struct *task)
{
	struct owner o = {.cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id), .pid = task->tgid};

	if (bpf_map_update_elem(&owner_by_address, &address, &o, BPF_NOEXIST) == -E2BIG)
		ghost_count_lost();
}

/* An MPTCP socket has TCP sockets that no file shows: of a listener just one.
 * Servers written in Go listen so unless told otherwise. No helper turns one
 * into the other here. */
static __always_inline void note_mptcp(struct sock *sk, struct task_struct *task)
{
	struct mptcp_sock *m = (void *)sk;

	if (bpf_core_type_exists(struct mptcp_sock))
		note((__u64)BPF_CORE_READ(m, first), task);
}

/* Every socket that a process holds, in every network namespace. */
SEC("iter/task_file")
int tcp_task_file(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct socket *s;
	struct tcp_sock *tp;
	struct sock *sk;

	if (!task || !file)
		return 0;
	s = bpf_sock_from_file(file);
	if (!s)
		return 0;
	sk = s->sk;
	if (!sk)
		return 0;
	if (sk->sk_protocol == IPPROTO_MPTCP) {
		note_mptcp(sk, task);
		return 0;
	}
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp)
		adopt(tp, task->tgid, BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id));
	return 0;
}

/* Before Linux 5.11 nothing turns a file into a typed socket: note whose it is
 * by its address, and let tcp_iter do the rest. */
SEC("iter/task_file")
int tcp_file_old(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct socket *s;
	struct sock *sk;

	if (!task || !file || (BPF_CORE_READ(file, f_inode, i_mode) & 0170000) != 0140000) /* S_IFSOCK */
		return 0;
	s = BPF_CORE_READ(file, private_data);
	sk = BPF_CORE_READ(s, sk);
	if (!sk)
		return 0;
	if (BPF_CORE_READ(sk, sk_protocol) == IPPROTO_MPTCP)
		note_mptcp(sk, task);
	else if (BPF_CORE_READ(sk, sk_protocol) == IPPROTO_TCP)
		note((__u64)sk, task);
	return 0;
}

/* Every socket of the caller's network namespace: those without a file too. */
SEC("iter/tcp")
int tcp_iter(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct tcp_sock *tp;
	struct owner *o;
	__u64 key;

	if (!skc)
		return 0;
	tp = bpf_skc_to_tcp_sock(skc);
	if (!tp)
		return 0;
	key = (__u64)tp;
	o = bpf_map_lookup_elem(&owner_by_address, &key);
	adopt(tp, o ? o->pid : 0, o ? o->cgroup : 0);
	return 0;
}
