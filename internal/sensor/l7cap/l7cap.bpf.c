//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What processes say to each other, from the sockets' own hooks.
 *
 *	sock_send_length, sock_recv_length -> whose connection? -> struct l7_chunk
 *	sk_data_ready                      -> when the first unread byte came
 *	tcp_destroy_sock                   -> the end of a connection that was told of
 *
 * The first bytes decide what a connection speaks. What speaks nothing we know
 * costs one storage look-up per call from then on, and what is no socket costs
 * nothing. The bytes are read where the system call's arguments say they are.
 */
#include "l7.h"

#ifdef L7CAP_PROTOCOLS /* those of the tests */
#include L7CAP_PROTOCOLS
#else
#include "protocols.h"
#endif

char LICENSE[] SEC("license") = "Dual BSD/GPL";

volatile const bool watch_unix; /* an option */

enum { AF_UNIX = 1, AF_INET = 2, AF_INET6 = 10 };
enum { SOCK_DGRAM = 2 };
enum { IPPROTO_TCP = 6, IPPROTO_UDP = 17, IPPROTO_MPTCP = 262 };
enum { ESTABLISHED = 1, CLOSE_WAIT = 8 };
enum { MSG_PEEK = 0x2, MSG_TRUNC = 0x20, MSG_ERRQUEUE = 0x2000 };
enum { PF_IO_WORKER = 0x10, PF_KTHREAD = 0x200000, TS_COMPAT = 2, ENOSYS = 38 };

/* Chunks of a way that nobody knew, after which nobody asks any more. */
#define TRIES 4
/* A shorter chunk is no try, until as many bytes have come in several. */
#define SHORT 8
#define LONG 16

/* ---- the socket ---- */

static __always_inline bool is_mapped(const __u32 *a)
{
	return a[0] == 0 && a[1] == 0 && a[2] == bpf_htonl(0xffff);
}

static __always_inline void put4(__u8 *to, __be32 a)
{
	__u32 *w = (__u32 *)to;

	w[0] = 0;
	w[1] = 0;
	w[2] = bpf_htonl(0xffff);
	w[3] = a;
}

static __always_inline void put6(__u8 *to, const struct in6_addr *a)
{
	__u32 *w = (__u32 *)to;

	w[0] = a->in6_u.u6_addr32[0];
	w[1] = a->in6_u.u6_addr32[1];
	w[2] = a->in6_u.u6_addr32[2];
	w[3] = a->in6_u.u6_addr32[3];
}

static __always_inline void name(struct l7_ends *e, struct sock *sk)
{
	struct sock_common *c = &sk->__sk_common;

	e->netns = c->skc_net.net->ns.inum;
	if (c->skc_family == AF_UNIX)
		return;
	e->local_port = bpf_htons(c->skc_num);
	e->remote_port = c->skc_dport;
	if (c->skc_family == AF_INET6 && bpf_core_field_exists(c->skc_v6_daddr)) {
		put6(e->local, &c->skc_v6_rcv_saddr);
		put6(e->remote, &c->skc_v6_daddr);
		if (!is_mapped((__u32 *)e->remote))
			return;
	}
	put4(e->local, c->skc_rcv_saddr);
	put4(e->remote, c->skc_daddr);
}

struct sockaddr {
	__u16 family;
	__be16 port;
	__be32 v4;
	struct in6_addr v6;
};

/* name_peer tells whom a datagram goes to. Whom one came from is not known when
 * its socket is not connected: the kernel writes that to the process later. */
static __always_inline void name_peer(struct l7_ends *e, __u64 user)
{
	struct sockaddr a = {};

	if (bpf_probe_read_user(&a, 8, (void *)user))
		return;
	if (a.family == AF_INET)
		put4(e->remote, a.v4);
	else if (a.family == AF_INET6 && !bpf_probe_read_user(&a.v6, sizeof(a.v6), (void *)(user + 8)))
		put6(e->remote, &a.v6);
	else
		return;
	e->remote_port = a.port;
}

/* transport returns the protocol of a socket we look at, -1 of others. */
static __always_inline int transport(struct sock *sk)
{
	__u16 family = sk->__sk_common.skc_family;

	if (family == AF_INET || family == AF_INET6) {
		__u16 protocol = sk->sk_protocol;

		if (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP)
			return IPPROTO_TCP;
		return L7_DATAGRAMS && protocol == IPPROTO_UDP ? IPPROTO_UDP : -1;
	}
	return watch_unix && family == AF_UNIX && sk->sk_type != SOCK_DGRAM ? 0 : -1;
}

static __always_inline struct l7_conn *find(struct sock *sk)
{
	return bpf_sk_storage_get(&ghost_shared_l7_conns, sk, 0, 0);
}

static __always_inline struct l7_conn *make(struct sock *sk, __u8 transport)
{
	struct l7_conn *c = bpf_sk_storage_get(&ghost_shared_l7_conns, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (!c) {
		ghost_count_lost();
		return 0;
	}
	c->ends.conn = bpf_get_socket_cookie(sk);
	c->transport = transport;
	name(&c->ends, sk);
	return c;
}

/* place returns the sequence number after the last byte of a way. */
static __always_inline __u32 place(struct tcp_sock *tp, bool sent)
{
	if (!tp)
		return 0;
	return sent ? tp->write_seq : tp->copied_seq;
}

/* ---- the system call ---- */

enum call { NO_BYTES, FLAT, VECTOR, MESSAGE, MESSAGES };

static __always_inline enum call call_amd64(__u64 nr)
{
	switch (nr) {
	case 0: case 1: case 44: case 45: return FLAT;         /* read, write, sendto, recvfrom */
	case 19: case 20: case 327: case 328: return VECTOR;   /* readv, writev, preadv2, pwritev2 */
	case 46: case 47: return MESSAGE;                      /* sendmsg, recvmsg */
	case 307: case 299: return MESSAGES;                   /* sendmmsg, recvmmsg */
	}
	return NO_BYTES;
}

static __always_inline enum call call_arm64(__u64 nr)
{
	switch (nr) {
	case 63: case 64: case 206: case 207: return FLAT;
	case 65: case 66: case 286: case 287: return VECTOR;
	case 211: case 212: return MESSAGE;
	case 269: case 243: return MESSAGES;
	}
	return NO_BYTES;
}

struct arguments {
	enum call call;
	__u64 buffer;
	__u64 count;
	__u64 name; /* of sendto */
};

/* arguments reads the system call the current task is in. A task that is in
 * none, but ends one (io_uring's deferred work), and one of 32 bits have no
 * bytes for us: they are counted. */
static __always_inline void arguments(struct arguments *a, struct task_struct *task)
{
	a->call = NO_BYTES;
	a->name = 0;
	if (task->flags & (PF_KTHREAD | PF_IO_WORKER))
		return;
	if (l7_arm64) {
		struct pt_regs___arm64 *r = (void *)bpf_task_pt_regs(task);

		if (r->regs[0] != r->orig_x0)
			return;
		a->call = call_arm64(r->syscallno);
		a->buffer = r->regs[1];
		a->count = r->regs[2];
		if (r->syscallno == 206)
			a->name = r->regs[4];
	} else {
		struct pt_regs *r = (void *)bpf_task_pt_regs(task);

		if (task->thread_info.status & TS_COMPAT || r->ax != (unsigned long)-ENOSYS)
			return;
		a->call = call_amd64(r->orig_ax);
		a->buffer = r->si;
		a->count = r->dx;
		if (r->orig_ax == 44)
			a->name = r->r8;
	}
}

struct message {
	__u64 name;
	__u32 name_len;
	__u32 pad;
	__u64 iov;
	__u64 iovs;
};

#define MMSGHDR 64 /* sizeof(struct mmsghdr) */

static __always_inline void of_message(struct l7_source *s, __u64 at)
{
	struct message m;

	if (bpf_probe_read_user(&m, sizeof(m), (void *)at) || !m.iovs)
		return;
	s->base = m.iov;
	s->name = m.name;
	s->count = m.iovs > L7_IOVECS ? L7_IOVECS : m.iovs;
	s->known = true;
}

/* The hook runs once for each entry of sendmmsg and recvmmsg: the connection
 * remembers which one is next. A call that ends early leaves that too high,
 * unless it ended by an error, which the hook sees. */
static __always_inline __u32 entry(struct l7_conn *c, __u32 tid, __u64 count)
{
	if (c->entry_tid != tid || c->entry >= count) {
		c->entry_tid = tid;
		c->entry = 0;
	}
	return c->entry++;
}

static __always_inline void source(struct l7_source *s, struct l7_conn *c, struct task_struct *task)
{
	struct arguments a;

	s->known = false;
	s->count = 0;
	s->base = 0;
	s->name = 0;
	arguments(&a, task);
	switch (a.call) {
	case FLAT:
		s->base = a.buffer;
		s->name = a.name;
		s->known = true;
		return;
	case VECTOR:
		s->base = a.buffer;
		s->count = a.count > L7_IOVECS ? L7_IOVECS : a.count;
		s->known = s->count > 0;
		return;
	case MESSAGE:
		of_message(s, a.buffer);
		return;
	case MESSAGES:
		of_message(s, a.buffer + MMSGHDR * entry(c, task->pid, a.count));
		return;
	case NO_BYTES:
		return;
	}
}

/* flatten makes one piece of the first, if that is all that is wanted. */
static __always_inline void flatten(struct l7_source *s, __u32 want)
{
	struct l7_iovec v;

	if (!s->count || bpf_probe_read_user(&v, sizeof(v), (void *)s->base) || v.len < want)
		return;
	s->base = v.base;
	s->count = 0;
}

/* ---- whose bytes these are ---- */

struct found {
	struct l7_protocol as;
	__u32 had; /* bytes of the connection's head that belong to it */
};

/* The beginning of something, zeroes behind it. */
struct head {
	__u8 p[L7_HEAD] __attribute__((aligned(8)));
	__u32 n;
	__u32 reserved;
};

/* The same with the room that the verifier wants. */
struct wide_head {
	__u8 p[3 * L7_HEAD] __attribute__((aligned(8)));
};

static __always_inline bool is_tls(const __u8 *p, __u32 n)
{
	return n >= 5 && p[0] >= 0x14 && p[0] <= 0x17 && p[1] == 3 && p[2] <= 4 && p[3] <= 0x41;
}

static __always_inline void copy_head(__u8 *to, const __u8 *from)
{
	__u64 *t = (__u64 *)to;
	const __u64 *f = (const __u64 *)from;

	t[0] = f[0];
	t[1] = f[1];
	t[2] = f[2];
	t[3] = f[3];
}

/* begin_of reads the first of len bytes, behind those that came before. */
static __noinline void begin_of(struct head *h, const __u8 *before, __u32 had, const struct l7_source *source, __u32 len)
{
	struct wide_head w = {};
	struct l7_source s;
	struct head seen;

	l7_forget(&s, source);
	if (had >= L7_HEAD)
		return;
	if (had)
		copy_head(w.p, before);
	seen.n = l7_gather(w.p, had, &s, had + len > L7_HEAD ? L7_HEAD : had + len, L7_HEAD);
	seen.reserved = 0;
	copy_head(seen.p, w.p);
	l7_forget(h, &seen);
	if (h->n > L7_HEAD)
		h->n = L7_HEAD;
}

static __noinline bool sniff(struct l7_protocol *as, const struct head *h, bool datagram)
{
	return datagram ? l7_sniff(as, h->p, h->n, true) : l7_sniff(as, h->p, h->n, false);
}

/* look asks the protocols about the bytes of a way that nobody knows yet: those
 * that came before with the new ones, or the new ones alone. What was too short
 * to tell is kept. */
static __noinline bool look(struct found *f, struct l7_conn *c, const struct l7_source *s, __u32 len, bool sent)
{
	__u32 had = c->head_len[sent];
	bool datagram = c->transport == IPPROTO_UDP;
	struct head h, alone;

	if (had >= L7_HEAD)
		had = 0;
	h.n = 0;
	begin_of(&h, c->head[sent], had, s, len);
	if (!datagram && is_tls(h.p, h.n)) {
		c->state = L7_TLS;
		return false;
	}
	f->had = had;
	if (sniff(&f->as, &h, datagram))
		return true;
	if (had) {
		f->had = 0;
		alone.n = 0;
		begin_of(&alone, c->head[sent], 0, s, len);
		if (sniff(&f->as, &alone, datagram))
			return true;
	}
	if (len >= SHORT || h.n >= LONG)
		c->tries++;
	if (c->tries >= TRIES)
		c->state = L7_NONE;
	copy_head(c->head[sent], h.p);
	c->head_len[sent] = !datagram && h.n < LONG && h.n == had + len ? h.n : 0;
	return false;
}

static __always_inline void know(struct l7_conn *c, const struct l7_protocol *as, bool sent)
{
	bool asks = as->side == 1;

	c->capture[sent] = asks ? as->asks : as->answers;
	c->capture[!sent] = asks ? as->answers : as->asks;
	c->turn = as->turn;
	c->left = as->turn;
	c->way = sent;
	c->proto = as->index;
	c->state = L7_KNOWN;
}

/* again says that what follows a turn's share begins a message. */
static __noinline bool again(const struct l7_conn *c, const struct l7_source *s, __u32 len)
{
	struct l7_protocol as;
	struct head h;

	h.n = 0;
	begin_of(&h, c->head[0], 0, s, len);
	return sniff(&as, &h, c->transport == IPPROTO_UDP) && as.index == c->proto;
}

/* share returns how many bytes of a call are captured. */
static __always_inline __u32 share(struct l7_conn *c, const struct l7_source *s, __u32 len, bool sent)
{
	__u32 want = c->capture[sent];

	if (len < want)
		want = len;
	if (!c->turn)
		return want;
	if (c->way != sent) {
		c->way = sent;
		c->left = c->turn;
	}
	if (!c->left && s->known && again(c, s, len))
		c->left = c->turn;
	if (c->left < want)
		want = c->left;
	c->left -= want;
	return want;
}

/* taken gives the time at which the oldest unread byte came, and notes whether
 * any is left. */
static __always_inline __u64 taken(struct l7_conn *c, struct tcp_sock *tp)
{
	__u64 ready = c->ready;

	if (!tp || tp->rcv_nxt != tp->copied_seq)
		return ready;
	c->ready = 0;
	barrier_var(ready);
	if (tp->rcv_nxt != tp->copied_seq) /* they came meanwhile, and found the old time */
		c->ready = bpf_ktime_get_ns();
	return ready;
}

static __always_inline void tell(struct l7_conn *c, const struct l7_moved *m, struct l7_source *s)
{
	if (!m->had)
		flatten(s, m->want);
	l7_emit(c, m, s);
}

/* moved is the way of every call that moved bytes. */
static __always_inline int moved(struct sock *sk, int ret, int flags, const bool sent, const bool twin)
{
	int kind = transport(sk);
	struct task_struct *task;
	struct tcp_sock *tp;
	struct l7_source s;
	struct l7_moved m;
	struct l7_conn *c;
	struct found f;
	__u32 next;

	if (kind < 0 || ret <= 0)
		return 0;
	if (!sent && flags & (MSG_PEEK | MSG_ERRQUEUE))
		return 0;
	c = find(sk);
	if (!c)
		c = make(sk, kind);
	if (!c || c->state == L7_NONE)
		return 0;
	tp = kind == IPPROTO_TCP ? bpf_skc_to_tcp_sock(sk) : 0; /* none of MPTCP */
	next = place(tp, sent);
	if (twin && c->next[sent] == next)
		return 0;
	if (twin)
		ghost_count_found();

	task = bpf_get_current_task_btf();
	if (c->state == L7_TLS) {
		c->next[sent] = next;
		l7_tls_moved(c, task, ret, sent, sent ? 0 : taken(c, tp));
		return 0;
	}
	source(&s, c, task);
	if (!sent && flags & MSG_TRUNC && kind == IPPROTO_TCP) /* thrown away unread */
		s.known = false;
	m.ready = sent ? 0 : taken(c, tp);
	m.offset = c->offset[sent];
	if (next && c->next[sent]) /* what no hook saw: splice() from a socket */
		m.offset += (__s32)(next - ret - c->next[sent]);
	c->offset[sent] = m.offset + ret;
	c->next[sent] = next;
	m.had = 0;
	if (c->state == L7_UNDECIDED) {
		__u64 ready = m.ready;

		if (c->head_len[sent])
			m.ready = sent ? 0 : c->head_ready;
		if (!look(&f, c, &s, ret, sent)) {
			if (!sent && c->head_len[sent])
				c->head_ready = m.ready;
			return 0;
		}
		know(c, &f.as, sent);
		m.had = f.had;
		if (!m.had)
			m.ready = ready;
	}
	if (kind == IPPROTO_UDP) {
		name(&c->ends, sk);
		if (sent && s.name)
			name_peer(&c->ends, s.name);
	}
	m.flags = sent ? L7_FLAG_SENT : 0;
	m.len = ret + m.had;
	m.offset -= m.had;
	m.seq = next ? next - m.len : 0;
	m.want = share(c, &s, m.len, sent);
	m.goroutine = l7_goroutine(c, task, bpf_ktime_get_ns());
	tell(c, &m, &s);
	return 0;
}

SEC("tp_btf/sock_send_length")
int l7cap_send(__u64 *ctx)
{
	return moved((struct sock *)ctx[0], ctx[1], ctx[2], true, false);
}

SEC("tp_btf/sock_recv_length")
int l7cap_recv(__u64 *ctx)
{
	return moved((struct sock *)ctx[0], ctx[1], ctx[2], false, false);
}

SEC("tp_btf/sock_send_length")
int l7cap_send_twin(__u64 *ctx)
{
	return moved((struct sock *)ctx[0], ctx[1], ctx[2], true, true);
}

SEC("tp_btf/sock_recv_length")
int l7cap_recv_twin(__u64 *ctx)
{
	return moved((struct sock *)ctx[0], ctx[1], ctx[2], false, true);
}

/* ---- when bytes became readable ---- */

SEC("tp_btf/sk_data_ready")
int l7cap_ready(__u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	struct l7_conn *c;
	__u8 state;

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	c = find(sk);
	if (!c) {
		state = sk->__sk_common.skc_state;
		if (state != ESTABLISHED && state != CLOSE_WAIT)
			return 0;
		c = make(sk, IPPROTO_TCP);
	}
	if (c && c->state != L7_NONE && !c->ready)
		c->ready = bpf_ktime_get_ns();
	return 0;
}

/* ---- the end ---- */

SEC("tp_btf/tcp_destroy_sock")
int l7cap_close(__u64 *ctx)
{
	struct l7_conn *c = find((struct sock *)ctx[0]);
	struct l7_moved m = {.flags = L7_FLAG_CLOSED};

	if (!c || c->state != L7_KNOWN)
		return 0;
	m.offset = c->offset[L7_RECEIVED];
	l7_emit_none(c, &m);
	return 0;
}
