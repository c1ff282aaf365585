//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What processes say to each other, from the sockets' own hooks.
 *
 *	sock_send_length, sock_recv_length -> whose connection? -> struct l7_chunk
 *	sk_data_ready                      -> when the first unread byte came
 *	recvmsg4, recvmsg6                 -> whom a datagram came from
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
enum { ESTABLISHED = 1, SYN_SENT = 2, CLOSE_WAIT = 8 };
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

struct sender {
	__u8 addr[16];
	__u64 conn; /* cookie of the socket it came through */
	__be16 port;
	__u16 reserved[3];
};

/* Thread (bpf_get_current_pid_tgid) -> whom the datagram came from that it takes
 * right now, on a socket that is not connected. Written just before the hook of
 * what was received, which deletes it; the oldest go. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct sender);
} l7_senders SEC(".maps");

/* name_sender tells whom a datagram came from, if its reader asked for that. */
static __noinline void name_sender(struct l7_ends *e)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct sender *from = bpf_map_lookup_elem(&l7_senders, &thread);

	if (!from)
		return;
	if (from->conn == e->conn) {
		__builtin_memcpy(e->remote, from->addr, sizeof(e->remote));
		e->remote_port = from->port;
	}
	bpf_map_delete_elem(&l7_senders, &thread);
}

/* name_peer tells whom a datagram goes to. */
static __noinline void name_peer(struct l7_ends *e, __u64 user)
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

static __always_inline __u64 cookie_of(struct sock *sk)
{
	__u64 cookie;

	if (l7_task)
		return bpf_get_socket_cookie(sk);
	cookie = sk->__sk_common.skc_cookie.counter;
	if (cookie)
		return cookie;
	/* Nobody gave the socket a cookie and we cannot: a number that no cookie has. */
	return 1ULL << 63 | bpf_ktime_get_ns() << 10 >> 1 | bpf_get_smp_processor_id();
}

static __always_inline __u32 inode_of(struct sock *sk)
{
	return BPF_CORE_READ(sk, sk_socket, file, f_inode, i_ino);
}

static __always_inline struct l7_conn *make(struct sock *sk, __u8 transport)
{
	struct l7_conn *c = l7_make(sk);

	if (!c) /* another program makes it at this moment */
		c = l7_find(sk);
	if (!c) {
		ghost_count_lost();
		return 0;
	}
	c->ends.conn = cookie_of(sk);
	c->transport = transport;
	name(&c->ends, sk);
	if (!l7_storage && transport != IPPROTO_TCP)
		c->inode = inode_of(sk);
	return c;
}

/* is_another says that c is about a socket that had this one's address. TCP tells
 * the end of its own. */
static __always_inline bool is_another(const struct l7_conn *c, struct sock *sk, int transport)
{
	if (l7_storage)
		return false;
	return c->transport != transport || (transport != IPPROTO_TCP && c->inode != inode_of(sk));
}

static __always_inline void forget(struct sock *sk)
{
	__u64 key = (__u64)sk;

	bpf_map_delete_elem(&ghost_shared_l7_socks, &key);
}

/* place returns the sequence number after the last byte of a way. A FIN that was
 * read together with the last bytes counts in the kernel as one more. */
static __always_inline __u32 place(struct tcp_sock *tp, struct sock *sk, bool sent)
{
	__u32 copied;

	if (!tp)
		return 0;
	if (sent)
		return tp->write_seq;
	copied = tp->copied_seq;
	if (copied == tp->rcv_nxt && sk->__sk_common.skc_flags >> bpf_core_enum_value(enum sock_flags, SOCK_DONE) & 1)
		copied--;
	return copied;
}

/* ---- the system call ---- */

enum call { NO_BYTES, FLAT, VECTOR, MESSAGE, MESSAGES, URING };

static __always_inline enum call call_amd64(__u64 nr)
{
	switch (nr) {
	case 0: case 1: case 44: case 45: return FLAT;         /* read, write, sendto, recvfrom */
	case 19: case 20: case 327: case 328: return VECTOR;   /* readv, writev, preadv2, pwritev2 */
	case 46: case 47: return MESSAGE;                      /* sendmsg, recvmsg */
	case 307: case 299: return MESSAGES;                   /* sendmmsg, recvmmsg */
	case 426: return URING;                                /* io_uring_enter */
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
	case 426: return URING;
	}
	return NO_BYTES;
}

struct arguments {
	enum call call;
	__u64 buffer;
	__u64 count;
	__u64 name; /* of sendto */
};

/* arguments reads the system call the current task is in. One that is in none,
 * but ends one, does io_uring's deferred work. Kernel threads and processes of
 * 32 bits have no bytes for us: they are counted. */
static __always_inline void arguments(struct arguments *a, struct task_struct *task)
{
	a->call = NO_BYTES;
	a->name = 0;
	if (l7_read(task, flags) & PF_KTHREAD)
		return;
	if (l7_read(task, flags) & PF_IO_WORKER) {
		a->call = URING;
		return;
	}
	if (l7_arm64) {
		struct pt_regs___arm64 *r = (void *)l7_regs(task);
		__u32 nr = l7_read(r, syscallno);

		a->call = l7_read(r, regs[0]) == l7_read(r, orig_x0) ? call_arm64(nr) : URING;
		a->buffer = l7_read(r, regs[1]);
		a->count = l7_read(r, regs[2]);
		if (nr == 206)
			a->name = l7_read(r, regs[4]);
	} else {
		struct pt_regs *r = l7_regs(task);
		__u64 nr = l7_read(r, orig_ax);

		if (l7_read(task, thread_info.status) & TS_COMPAT)
			return;
		a->call = l7_read(r, ax) == (unsigned long)-ENOSYS ? call_amd64(nr) : URING;
		a->buffer = l7_read(r, si);
		a->count = l7_read(r, dx);
		if (nr == 44)
			a->name = l7_read(r, r8);
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

static __noinline enum call source(struct l7_source *s, struct l7_conn *c, struct task_struct *task)
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
		break;
	case VECTOR:
		s->base = a.buffer;
		s->count = a.count > L7_IOVECS ? L7_IOVECS : a.count;
		s->known = s->count > 0;
		break;
	case MESSAGE:
		of_message(s, a.buffer);
		break;
	case MESSAGES:
		of_message(s, a.buffer + MMSGHDR * entry(c, l7_read(task, pid), a.count));
		break;
	case URING:
	case NO_BYTES:
		break;
	}
	return a.call;
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
	__u8 p[2 * L7_HEAD] __attribute__((aligned(8)));
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
	__u32 n;

	l7_forget(&s, source);
	if (had >= L7_HEAD)
		return;
	if (had && before)
		copy_head(w.p, before);
	n = l7_gather(w.p, had, &s, had + len > L7_HEAD ? L7_HEAD : had + len, L7_HEAD, L7_HEAD_IOVECS);
	l7_forget(&h->n, &n);
	bpf_probe_read_kernel(h->p, L7_HEAD, w.p); /* as l7_forget */
	if (h->n > L7_HEAD)
		h->n = L7_HEAD;
}

#define DATAGRAM (1 << 8)

/* l7cap_sniff is global, so that the kernel verifies it by itself and once, not
 * for each way to get there. Such a function takes numbers only. */
__noinline __u64 l7cap_sniff(__u64 a, __u64 b, __u64 c, __u64 d, __u32 n)
{
	__u64 w[4] = {a, b, c, d};
	struct l7_protocol as = {};
	__u32 len = n & 0xff;
	bool yes;

	/* A caller must give numbers for what no protocol looks at too. */
	l7_hide(a);
	l7_hide(b);
	l7_hide(c);
	l7_hide(d);
	if (len > L7_HEAD)
		return 0;
	if (n & DATAGRAM)
		yes = l7_sniff(&as, (__u8 *)w, len, true);
	else
		yes = l7_sniff(&as, (__u8 *)w, len, false);
	return yes ? as.index | as.side << 8 | (__u64)as.asks << 16 | (__u64)as.answers << 32 | (__u64)as.turn << 48 : 0;
}

static __always_inline bool sniff(struct l7_protocol *as, const struct head *h, bool datagram)
{
	const __u64 *w = (const __u64 *)h->p;
	__u64 is = l7cap_sniff(w[0], w[1], w[2], w[3], h->n | (datagram ? DATAGRAM : 0));

	as->index = is;
	as->side = is >> 8;
	as->asks = is >> 16;
	as->answers = is >> 32;
	as->turn = is >> 48;
	return is;
}

/* keep remembers what was too short to tell, and counts what was not. */
static __noinline void keep(struct l7_conn *c, const struct head *h, __u32 len, bool sent)
{
	__u32 had = c->head_len[sent];

	copy_head(c->head[sent], h->p);
	c->head_len[sent] = c->transport != IPPROTO_UDP && h->n < LONG && h->n == had + len ? h->n : 0;
	if (len >= SHORT || h->n >= LONG)
		c->tries++;
	if (c->tries >= TRIES)
		c->state = L7_NONE;
}

/* look asks the protocols about the bytes of a way that nobody knows yet, with
 * those that came before. */
static __noinline bool look(struct found *f, struct l7_conn *c, const struct l7_source *s, __u32 len, bool sent)
{
	bool datagram = c->transport == IPPROTO_UDP;
	__u32 had = c->head_len[sent];
	struct head h;

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
	keep(c, &h, len, sent);
	return false;
}

/* look_alone asks about the new bytes only. */
static __noinline bool look_alone(struct l7_protocol *as, const struct l7_conn *c, const struct l7_source *s, __u32 len)
{
	struct head h;

	h.n = 0;
	begin_of(&h, 0, 0, s, len);
	return sniff(as, &h, c->transport == IPPROTO_UDP);
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
	c->asks = asks == sent;
	c->state = L7_KNOWN;
}

/* again says that what follows a turn's share begins a message. */
static __always_inline bool again(const struct l7_conn *c, const struct l7_source *s, __u32 len)
{
	struct l7_protocol as;

	return look_alone(&as, c, s, len) && as.index == c->proto;
}

/* share returns how many bytes of a call are captured. */
static __always_inline __u32 share(struct l7_conn *c, const struct l7_source *s, __u32 len, bool sent)
{
	__u32 want = s->known ? c->capture[sent] : 0;

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

/* decide says whose bytes a connection's are, and takes back those that were
 * kept. */
static __noinline bool decide(struct l7_conn *c, struct l7_moved *m, const struct l7_source *s, __u32 len, bool sent)
{
	bool some = c->head_len[sent];
	__u64 ready = m->ready;
	struct found f;

	if (some && !sent)
		m->ready = c->head_ready;
	if (look(&f, c, s, len, sent)) {
		m->had = f.had;
		know(c, &f.as, sent);
		return true;
	}
	if (some && look_alone(&f.as, c, s, len)) {
		m->ready = ready;
		know(c, &f.as, sent);
		return true;
	}
	if (!sent)
		c->head_ready = m->ready;
	return false;
}

/* told makes a chunk of what was moved: len bytes that begin at m->offset, and
 * end at the sequence number next. */
static __always_inline void told(struct l7_conn *c, struct l7_moved *m, struct l7_source *s, struct task_struct *task, __u32 len, __u32 next, bool sent)
{
	m->had = 0;
	if (c->state == L7_UNDECIDED && !decide(c, m, s, len, sent))
		return;
	m->flags = sent ? L7_FLAG_SENT : 0;
	m->len = len + m->had;
	m->offset -= m->had;
	m->seq = next ? next - m->len : 0;
	m->want = share(c, s, m->len, sent);
	m->goroutine = l7_goroutine(c, task, bpf_ktime_get_ns());
	m->waker = l7_waker(c, m->goroutine, sent);
	l7_emit(c, m, s);
}

/* to_uring moves what is known of a socket to where the hook of io_uring finds
 * it. What that cannot tell is a gap in the offsets. */
static __noinline void to_uring(struct sock *sk, struct l7_conn *c, __u64 ready, bool sent)
{
	__u64 key = (__u64)sk;

	if (!sent)
		c->uring_ready = ready;
	if (!l7_storage || c->uring)
		return;
	c->uring = 1;
	if (bpf_map_update_elem(&ghost_shared_l7_socks, &key, c, BPF_ANY))
		c->uring = 0;
	else
		c->state = L7_URING;
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
	__u32 next;

	if (kind < 0 || ret <= 0)
		return 0;
	if (!sent && flags & (MSG_PEEK | MSG_ERRQUEUE))
		return 0;
	c = l7_find(sk);
	if (c && is_another(c, sk, kind)) {
		forget(sk);
		c = 0;
	}
	if (!c)
		c = make(sk, kind);
	if (!c || c->state == L7_NONE || c->state == L7_URING)
		return 0;
	tp = kind == IPPROTO_TCP ? bpf_skc_to_tcp_sock(sk) : 0; /* none of MPTCP */
	next = place(tp, sk, sent);
	if (twin && c->next[sent] == next)
		return 0;
	if (twin)
		ghost_count_found();

	m.ready = sent ? 0 : taken(c, tp);
	m.offset = c->offset[sent];
	if (next && c->next[sent]) /* what no hook saw: splice() from a socket */
		m.offset += (__s32)(next - ret - c->next[sent]);
	c->offset[sent] = m.offset + ret;
	c->next[sent] = next;
	task = l7_current();
	if (c->state == L7_TLS) {
		l7_tls_moved(c, task, ret, sent, m.ready);
		return 0;
	}
	if (source(&s, c, task) == URING) {
		to_uring(sk, c, m.ready, sent);
		return 0;
	}
	if (!sent && flags & MSG_TRUNC && kind == IPPROTO_TCP) /* thrown away unread */
		s.known = false;
	if (kind == IPPROTO_UDP) {
		name(&c->ends, sk);
		if (sent && s.name)
			name_peer(&c->ends, s.name);
		if (!sent && !c->ends.remote_port)
			name_sender(&c->ends);
	}
	told(c, &m, &s, task, ret, next, sent);
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

/*
 * The same on kernels before the two tracepoints. What a socket's family does
 * for the system calls is a function that was never inlined; these have no
 * twins, as they do not return before they are done.
 */
static __noinline int moved_in(struct socket *sock, int ret, int flags, bool sent)
{
	struct sock *sk = sock->sk;

	return sk ? moved(sk, ret, flags, sent, false) : 0;
}

SEC("fexit/inet_sendmsg")
int l7cap_x_send(__u64 *ctx)
{
	return moved_in((struct socket *)ctx[0], ctx[3], 0, true);
}

SEC("fexit/inet6_sendmsg")
int l7cap_x_send6(__u64 *ctx)
{
	return moved_in((struct socket *)ctx[0], ctx[3], 0, true);
}

SEC("fexit/unix_stream_sendmsg")
int l7cap_x_sendu(__u64 *ctx)
{
	return moved_in((struct socket *)ctx[0], ctx[3], 0, true);
}

SEC("fexit/inet_recvmsg")
int l7cap_x_recv(__u64 *ctx)
{
	return moved_in((struct socket *)ctx[0], ctx[4], ctx[3], false);
}

SEC("fexit/inet6_recvmsg")
int l7cap_x_recv6(__u64 *ctx)
{
	return moved_in((struct socket *)ctx[0], ctx[4], ctx[3], false);
}

SEC("fexit/unix_stream_recvmsg")
int l7cap_x_recvu(__u64 *ctx)
{
	return moved_in((struct socket *)ctx[0], ctx[4], ctx[3], false);
}

/* Until Linux 6.5 sendfile and splice had a way of their own. */
SEC("fexit/inet_sendpage")
int l7cap_x_page(__u64 *ctx)
{
	return moved_in((struct socket *)ctx[0], ctx[5], 0, true);
}

SEC("fexit/unix_stream_sendpage")
int l7cap_x_pageu(__u64 *ctx)
{
	return moved_in((struct socket *)ctx[0], ctx[5], 0, true);
}

/* ---- io_uring ---- */

enum opcode { READV = 1, WRITEV, SENDMSG = 9, RECVMSG, READ = 22, WRITE, SEND = 26, RECV };

static __always_inline bool sends(__u8 opcode)
{
	return opcode == WRITEV || opcode == SENDMSG || opcode == WRITE || opcode == SEND;
}

/* uring_source tells where a request's bytes are. The kernel moved the pointer
 * on by what it did in earlier goes. */
static __noinline bool uring_source(struct l7_source *s, void *req, __u8 opcode)
{
	struct io_sr_msg *m = req;
	struct io_rw *rw = req;

	s->count = 0;
	s->name = 0;
	s->known = true;
	switch (opcode) {
	case READ: case WRITE:
		s->base = BPF_CORE_READ(rw, addr);
		return true;
	case READV: case WRITEV:
		s->base = BPF_CORE_READ(rw, addr);
		s->count = BPF_CORE_READ(rw, len);
		if (s->count > L7_IOVECS)
			s->count = L7_IOVECS;
		return true;
	case SEND: case RECV:
		s->base = (__u64)BPF_CORE_READ(m, buf) - BPF_CORE_READ(m, done_io);
		return true;
	case SENDMSG: case RECVMSG:
		s->known = false;
		of_message(s, (__u64)BPF_CORE_READ(m, buf));
		return true;
	}
	return false;
}

/* completed is the end of a request of io_uring. The socket's own hook has
 * counted its bytes already, but did not know where they are. A multishot
 * request shows at its end only: its bytes are a gap. */
static __always_inline int completed(void *req, int res)
{
	__u8 opcode;
	struct l7_moved m;
	struct l7_source s;
	struct l7_conn *c;
	__u64 key;
	bool sent;

	if (res <= 0 || !req)
		return 0;
	opcode = BPF_CORE_READ((struct io_kiocb *)req, opcode);
	sent = sends(opcode);
	if (!uring_source(&s, req, opcode))
		return 0;
	key = (__u64)BPF_CORE_READ((struct io_kiocb *)req, file, private_data);
	key = (__u64)BPF_CORE_READ((struct socket *)key, sk);
	c = bpf_map_lookup_elem(&ghost_shared_l7_socks, &key);
	if (!c || c->state >= L7_NONE)
		return 0;
	m.ready = sent ? 0 : c->uring_ready;
	m.offset = c->offset[sent] - res;
	told(c, &m, &s, l7_current(), res, c->next[sent], sent);
	return 0;
}

/* The arguments changed; each kernel takes the one of these that fits. */
SEC("tp_btf/io_uring_complete")
int l7cap_uring(__u64 *ctx)
{
	struct io_uring_cqe *cqe = (struct io_uring_cqe *)ctx[2];

	return completed((void *)ctx[1], cqe->res);
}

SEC("tp_btf/io_uring_complete")
int l7cap_uring_7(__u64 *ctx)
{
	volatile __u64 last = ctx[6]; /* only with seven arguments is the second a request */

	(void)last;
	return completed((void *)ctx[1], ctx[3]);
}

/* ---- when bytes became readable ---- */

static __always_inline int readable(struct sock *sk)
{
	struct l7_conn *c;
	__u8 state;

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	c = l7_find(sk);
	if (c && is_another(c, sk, IPPROTO_TCP)) {
		forget(sk);
		c = 0;
	}
	if (!c) {
		state = sk->__sk_common.skc_state;
		if (state != ESTABLISHED && state != CLOSE_WAIT)
			return 0;
		c = make(sk, IPPROTO_TCP);
	}
	if (c && (c->state <= L7_KNOWN || c->state == L7_TLS) && !c->ready)
		c->ready = bpf_ktime_get_ns();
	return 0;
}

SEC("tp_btf/sk_data_ready")
int l7cap_ready(__u64 *ctx)
{
	return readable((struct sock *)ctx[0]);
}

SEC("fentry/sock_def_readable")
int l7cap_x_ready(__u64 *ctx)
{
	return readable((struct sock *)ctx[0]);
}

/* ---- whom datagrams come from ---- */

enum { LET = 1 }; /* the only thing such a program may say */

/* from tells the hook of what was received who sent it. Sockets of which
 * nobody wants to know cost a look-up. */
static __always_inline int from(struct bpf_sock_addr *ctx, bool v6)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct sender s = {.port = ctx->user_port};
	struct bpf_sock *sk = ctx->sk;
	struct l7_conn *c;
	__u32 *w = (__u32 *)s.addr;

	if (!sk || ctx->protocol != IPPROTO_UDP)
		return LET;
	c = l7_storage ? bpf_sk_storage_get(&ghost_shared_l7_conns, sk, 0, 0) : 0;
	if (c && c->state >= L7_NONE)
		return LET;
	if (v6) {
		w[0] = ctx->user_ip6[0];
		w[1] = ctx->user_ip6[1];
		w[2] = ctx->user_ip6[2];
		w[3] = ctx->user_ip6[3];
	} else {
		put4(s.addr, ctx->user_ip4);
	}
	s.conn = bpf_get_socket_cookie(ctx);
	bpf_map_update_elem(&l7_senders, &thread, &s, BPF_ANY);
	return LET;
}

SEC("cgroup/recvmsg4")
int l7cap_from4(struct bpf_sock_addr *ctx)
{
	return from(ctx, false);
}

SEC("cgroup/recvmsg6")
int l7cap_from6(struct bpf_sock_addr *ctx)
{
	return from(ctx, true);
}

/* ---- the beginning ---- */

/* Of a connection that is asked for, only who asks: the addresses are not there
 * yet, and nobody knows what it will speak. */
SEC("tp_btf/inet_sock_set_state")
int l7cap_open(__u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	struct l7_conn none = {};
	struct l7_moved m = {.flags = L7_FLAG_OPENED};

	if ((int)ctx[2] != SYN_SENT || sk->sk_protocol != IPPROTO_TCP)
		return 0;
	none.transport = IPPROTO_TCP;
	none.ends.conn = cookie_of(sk);
	l7_emit_none(&none, &m);
	return 0;
}

/* ---- the end ---- */

SEC("tp_btf/tcp_destroy_sock")
int l7cap_close(__u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	struct l7_conn *c = l7_find(sk);
	struct l7_moved m = {.flags = L7_FLAG_CLOSED};

	if (c && c->state == L7_KNOWN) {
		m.offset = c->offset[L7_RECEIVED];
		l7_emit_none(c, &m);
	}
	if (c && (!l7_storage || c->uring))
		forget(sk);
	return 0;
}
