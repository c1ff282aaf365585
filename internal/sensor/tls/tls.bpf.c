//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What processes say inside of encrypted connections, at the functions of the
 * libraries that take and give plaintext.
 *
 *	enter -> the thread's call -> leave: how many bytes -> whose socket? -> struct l7_chunk
 *
 * A library does not say which socket its session is of, and many programs move
 * the encrypted bytes themselves. What is right under stress is to bind session
 * to socket where that is certain, and to use the binding:
 *
 *	certain      the thread used an encrypted socket while it was in the call
 *	certain      the length received just before the call fits the plaintext
 *	likely       the thread received from it just before; only if nothing is bound
 *
 * A session's address is used again: a binding ends with the session, and with
 * the socket.
 */
#include "l7.h"
#include "../l7cap/protocols.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum tls_call { TLS_READ = 1, TLS_WRITE, TLS_HANDSHAKE, TLS_FREE, TLS_GO_READ, TLS_GO_WRITE, TLS_GO_READY };
enum tls_count { TLS_BY_VALUE, TLS_BY_ARG4, TLS_BY_ARG5 };

/* A probe's cookie. */
#define how_call(how) ((how) & 0xff)
#define how_count(how) ((how) >> 8 & 0xff)

/* Keeps the types that user space needs in the object's BTF. */
const enum tls_call *const tls_call_twin __attribute__((unused));
const enum tls_count *const tls_count_twin __attribute__((unused));

/* Chunks of plaintext that nobody knew, after which nobody asks any more. */
#define TRIES 4

/* Socket cookie -> what is known of the plaintext. Made when a session is bound,
 * deleted when the socket is gone; if it is full the oldest goes. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct l7_conn);
} tls_conns SEC(".maps");

struct session {
	__u64 address;
	__u64 tgid;
};

/* Session -> cookie of its socket. Deleted with the session; one whose socket is
 * gone is worth nothing, and the oldest goes if it is full. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct session);
	__type(value, __u64);
} tls_sockets SEC(".maps");

/* Calls that moved plaintext and whose socket is not known. Written here, read by
 * user space. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} tls_homeless SEC(".maps");

/* A user's registers, as ptrace(2) has them: their places never change. */
struct amd64_regs {
	__u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};

struct arm64_regs {
	__u64 r[31], sp, pc, pstate;
};

/* user_register loads one. The verifier wants the offset in the instruction, and the compiler
 * would rather add it before. */
#define user_register(regs, type, field)                                          \
	({                                                                       \
		__u64 v_;                                                        \
		asm volatile("%0 = *(u64 *)(%1 + %2)"                            \
			     : "=r"(v_)                                          \
			     : "r"(regs), "i"(__builtin_offsetof(struct type, field))); \
		v_;                                                              \
	})

static __always_inline __u64 argument(void *regs, const int n)
{
	if (l7_arm64)
		switch (n) {
		case 0: return user_register(regs, arm64_regs, r[0]);
		case 1: return user_register(regs, arm64_regs, r[1]);
		case 2: return user_register(regs, arm64_regs, r[2]);
		case 3: return user_register(regs, arm64_regs, r[3]);
		default: return user_register(regs, arm64_regs, r[4]);
		}
	switch (n) {
	case 0: return user_register(regs, amd64_regs, di);
	case 1: return user_register(regs, amd64_regs, si);
	case 2: return user_register(regs, amd64_regs, dx);
	case 3: return user_register(regs, amd64_regs, cx);
	default: return user_register(regs, amd64_regs, r8);
	}
}

static __always_inline __s64 value(void *regs)
{
	return l7_arm64 ? user_register(regs, arm64_regs, r[0]) : user_register(regs, amd64_regs, ax);
}

static __always_inline struct l7_tls_thread *thread(bool make)
{
	return bpf_task_storage_get(&ghost_shared_tls_threads, bpf_get_current_task_btf(), 0, make ? BPF_LOCAL_STORAGE_GET_F_CREATE : 0);
}

/* ---- whose bytes ---- */

/* know notes what is captured of a connection, by what its bytes are. */
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

struct head {
	__u8 p[L7_HEAD] __attribute__((aligned(8)));
};

static __noinline bool sniff(struct l7_protocol *as, __u64 buffer, __u32 len)
{
	struct head h = {};

	if (len > L7_HEAD)
		len = L7_HEAD;
	l7_hide(len);
	if (len > L7_HEAD || bpf_probe_read_user(h.p, len, (void *)buffer))
		return false;
	return l7_sniff(as, h.p, len, false);
}

static __noinline bool known(struct l7_conn *c, __u64 buffer, __u32 len, bool sent)
{
	struct l7_protocol as = {};

	if (c->state == L7_KNOWN)
		return true;
	if (c->state != L7_UNDECIDED)
		return false;
	if (sniff(&as, buffer, len)) {
		know(c, &as, sent);
		return true;
	}
	if (++c->tries >= TRIES)
		c->state = L7_NONE;
	return false;
}

/* share returns how many bytes of a call are captured. */
static __noinline __u32 share(struct l7_conn *c, __u64 buffer, __u32 len, bool sent)
{
	__u32 want = c->capture[sent];
	struct l7_protocol as = {};

	if (len < want)
		want = len;
	if (!c->turn)
		return want;
	if (c->way != sent) {
		c->way = sent;
		c->left = c->turn;
	}
	if (!c->left && sniff(&as, buffer, len) && as.index == c->proto)
		c->left = c->turn;
	if (c->left < want)
		want = c->left;
	c->left -= want;
	return want;
}

/* tell makes the record of plaintext that a call moved. */
static __always_inline void tell(struct l7_conn *c, __u64 buffer, __u32 len, bool sent, __u64 ready)
{
	struct l7_source s = {.base = buffer, .known = true};
	struct l7_moved m = {.len = len};

	m.offset = __sync_fetch_and_add(&c->offset[sent], len);
	if (!known(c, buffer, len, sent))
		return;
	m.flags = L7_FLAG_PLAIN | (sent ? L7_FLAG_SENT : 0);
	m.ready = sent ? 0 : ready;
	m.want = share(c, buffer, len, sent);
	m.goroutine = l7_goroutine(c, bpf_get_current_task_btf(), bpf_ktime_get_ns());
	m.waker = l7_waker(c, m.goroutine, sent);
	l7_emit(c, &m, &s);
}

/* ---- whose socket ---- */

static __always_inline struct l7_conn *conn_of(const struct l7_ends *e)
{
	struct l7_conn *c = bpf_map_lookup_elem(&tls_conns, &e->conn);

	if (c)
		return c;
	bpf_map_update_elem(&tls_conns, &e->conn, &l7_new, BPF_NOEXIST);
	c = bpf_map_lookup_elem(&tls_conns, &e->conn);
	if (!c)
		return 0;
	c->ends = *e;
	c->transport = 6;
	return c;
}

/* fits tells whether a record of so much plaintext is of that length: TLS 1.3
 * adds 22 bytes, 1.2 21 or 29, and the 5 of its header may come by a call of
 * their own. */
static __always_inline bool fits(__u32 record, __u32 plain)
{
	switch (record - plain) {
	case 16: case 17: case 21: case 22: case 24: case 29:
		return true;
	}
	return false;
}

/* bind returns what is known of the socket of a session, of which a call just
 * moved so many bytes of plaintext. */
static __noinline struct l7_conn *bind(struct l7_tls_thread *t, __u64 address, enum tls_call call, __s64 moved)
{
	struct session key = {.address = address, .tgid = bpf_get_current_pid_tgid() >> 32};
	__u64 *bound = bpf_map_lookup_elem(&tls_sockets, &key);
	struct l7_conn *c = bound ? bpf_map_lookup_elem(&tls_conns, bound) : 0;
	const struct l7_ends *by = 0;
	bool fresh = t->fresh;

	if (call != TLS_WRITE)
		t->fresh = 0;
	if (t->moved)
		by = t->moved == 2 ? &t->ends[1] : &t->ends[0];
	else if (call == TLS_READ && moved > 0 && fresh && fits(t->len[0], moved))
		by = &t->ends[0];
	else if (fresh && (call == TLS_HANDSHAKE ? moved == 1 : !c)) /* Node shakes hands inside of a write */
		by = &t->ends[0];
	if (!by || (c && by->conn == c->ends.conn))
		return c;
	c = conn_of(by);
	bpf_map_update_elem(&tls_sockets, &key, &by->conn, BPF_ANY);
	return c;
}

/* ---- calls ---- */

static __always_inline int enter(void *r, __u64 how)
{
	struct session key = {.address = argument(r, 0)};
	struct l7_tls_thread *t;

	if (how_call(how) == TLS_FREE) {
		key.tgid = bpf_get_current_pid_tgid() >> 32;
		bpf_map_delete_elem(&tls_sockets, &key);
		return 0;
	}
	t = thread(true);
	if (!t) {
		ghost_count_lost();
		return 0;
	}
	if (how_call(how) == TLS_HANDSHAKE) { /* some libraries do one inside of a read */
		t->handshake = key.address;
		if (!t->session)
			t->moved = 0;
		return 0;
	}
	t->session = key.address;
	t->buffer = argument(r, 1);
	t->how = how;
	t->moved = 0;
	if (how_count(how) == TLS_BY_ARG4)
		t->count = argument(r, 3);
	else if (how_count(how) == TLS_BY_ARG5)
		t->count = argument(r, 4);
	return 0;
}

/* moved_by returns how many bytes a call moved, less than one if it failed. */
static __always_inline __s64 moved_by(void *r, const struct l7_tls_thread *t)
{
	__s64 n = (__s32)value(r);
	__u64 count = 0;

	if (how_count(t->how) == TLS_BY_VALUE || n <= 0)
		return n;
	bpf_probe_read_user(&count, sizeof(count), (void *)t->count);
	return count;
}

#define MOST (1U << 30)

static __always_inline void homeless(void)
{
	__u32 slot = 0;
	__u64 *calls = bpf_map_lookup_elem(&tls_homeless, &slot);

	if (calls)
		__sync_fetch_and_add(calls, 1);
}

static __always_inline void leave_call(struct l7_tls_thread *t, __s64 n)
{
	bool sent = how_call(t->how) == TLS_WRITE;
	struct l7_conn *c = bind(t, t->session, sent ? TLS_WRITE : TLS_READ, n);

	if (n <= 0 || n > MOST)
		return;
	if (!c)
		homeless();
	else
		tell(c, t->buffer, n, sent, t->ends[0].conn == c->ends.conn ? t->ready : 0);
}

static __always_inline int leave(void *r, __u64 how)
{
	struct l7_tls_thread *t = thread(false);

	if (!t)
		return 0;
	if (how_call(how) == TLS_HANDSHAKE) {
		if (t->handshake && !t->session)
			bind(t, t->handshake, TLS_HANDSHAKE, (__s32)value(r));
		t->handshake = 0;
		return 0;
	}
	if (!t->session) /* a call inside of this one told it */
		return 0;
	leave_call(t, moved_by(r, t));
	t->session = 0;
	return 0;
}

/*
 * Since Linux 6.13 a tracing program has a stack of its own on each CPU, and
 * nothing keeps a uprobe's from being preempted there by its like, which then
 * writes over its variables. A program with a tail call stays on the stack of
 * the task. This one is never made. The kernel ties such a map to one kind of
 * program, so each has its own.
 */
struct nowhere {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
};
struct nowhere tls_nowhere SEC(".maps");
struct nowhere tls_nowhere_one SEC(".maps");

volatile const bool tls_never;

#define ON_TASK_STACK(ctx, map)              \
	do {                                 \
		if (tls_never)               \
			bpf_tail_call(ctx, map, 0); \
	} while (0)

SEC("uprobe.multi")
int tls_enter(void *ctx)
{
	ON_TASK_STACK(ctx, &tls_nowhere);
	return enter(ctx, bpf_get_attach_cookie(ctx));
}

SEC("uretprobe.multi")
int tls_leave(void *ctx)
{
	ON_TASK_STACK(ctx, &tls_nowhere);
	return leave(ctx, bpf_get_attach_cookie(ctx));
}

/* Before uprobe_multi, one probe at a time. */
SEC("uprobe")
int tls_enter_one(void *ctx)
{
	ON_TASK_STACK(ctx, &tls_nowhere_one);
	return enter(ctx, bpf_get_attach_cookie(ctx));
}

SEC("uretprobe")
int tls_leave_one(void *ctx)
{
	ON_TASK_STACK(ctx, &tls_nowhere_one);
	return leave(ctx, bpf_get_attach_cookie(ctx));
}

/* ---- Go ---- */

/*
 * crypto/tls knows its connection: (*Conn).conn is an interface, behind it is a
 * *net.TCPConn, and in that the file descriptor. No thread comes into it.
 */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct task_struct___files {
	struct files_struct *files;
};
#pragma clang attribute pop

enum { S_IFMT = 0170000, S_IFSOCK = 0140000, AF_INET = 2, AF_INET6 = 10 };

#define GO_SYSFD 16 /* of net.netFD: behind the mutex of its poll.FD */

static __always_inline int go_fd(__u64 conn)
{
	__u64 at = 0;
	int fd = -1;

	if (bpf_probe_read_user(&at, sizeof(at), (void *)(conn + 8)) ||
	    bpf_probe_read_user(&at, sizeof(at), (void *)at) ||
	    bpf_probe_read_user(&fd, sizeof(fd), (void *)(at + GO_SYSFD)))
		return -1;
	return fd;
}

/* socket_of returns the TCP socket behind a file descriptor of the running
 * process. */
static __always_inline struct sock *socket_of(int fd)
{
	struct task_struct___files *task = (void *)bpf_get_current_task();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **slot = BPF_CORE_READ(table, fd);
	struct file *file = 0;
	struct socket *socket;

	if (fd < 0 || fd >= BPF_CORE_READ(table, max_fds))
		return 0;
	if (bpf_probe_read_kernel(&file, sizeof(file), slot + fd) || !file)
		return 0;
	if ((BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return 0;
	socket = BPF_CORE_READ(file, private_data);
	return BPF_CORE_READ(socket, sk);
}

static __always_inline void put4(__u8 *to, __be32 a)
{
	__u32 *w = (__u32 *)to;

	w[0] = 0;
	w[1] = 0;
	w[2] = bpf_htonl(0xffff);
	w[3] = a;
}

/* name notes the ends of a socket as the sensor of sockets does. */
static __always_inline bool name(struct l7_ends *e, struct sock *sk)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	e->conn = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	if (!e->conn || (family != AF_INET && family != AF_INET6))
		return false;
	e->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	e->local_port = bpf_htons(BPF_CORE_READ(sk, __sk_common.skc_num));
	e->remote_port = BPF_CORE_READ(sk, __sk_common.skc_dport);
	if (family == AF_INET6) {
		BPF_CORE_READ_INTO((struct in6_addr *)e->local, sk, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO((struct in6_addr *)e->remote, sk, __sk_common.skc_v6_daddr);
		if (((__u32 *)e->remote)[2] != bpf_htonl(0xffff) || ((__u64 *)e->remote)[0])
			return true;
	}
	put4(e->local, BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr));
	put4(e->remote, BPF_CORE_READ(sk, __sk_common.skc_daddr));
	return true;
}

static __noinline void go_moved(__u64 conn, __u64 buffer, __u64 n, bool sent)
{
	struct l7_tls_thread *t;
	struct l7_ends ends = {};
	struct l7_conn *c;
	struct sock *sk;
	__u64 ready = 0;

	if (!n || n > MOST)
		return;
	sk = socket_of(go_fd(conn));
	if (!sk || !name(&ends, sk)) {
		homeless();
		return;
	}
	c = conn_of(&ends);
	if (!c) {
		ghost_count_lost();
		return;
	}
	if (!sent) {
		t = thread(true);
		if (t && t->ends[0].conn == ends.conn)
			ready = t->ready;
	}
	tell(c, buffer, n, sent, ready);
}

/* user_number loads a register by its number in x86's instructions. */
static __always_inline __u64 user_number(void *regs, __u32 n)
{
	switch (n) {
	case 0: return user_register(regs, amd64_regs, ax);
	case 1: return user_register(regs, amd64_regs, cx);
	case 2: return user_register(regs, amd64_regs, dx);
	case 3: return user_register(regs, amd64_regs, bx);
	case 6: return user_register(regs, amd64_regs, si);
	case 7: return user_register(regs, amd64_regs, di);
	case 8: return user_register(regs, amd64_regs, r8);
	case 9: return user_register(regs, amd64_regs, r9);
	case 10: return user_register(regs, amd64_regs, r10);
	case 11: return user_register(regs, amd64_regs, r11);
	case 12: return user_register(regs, amd64_regs, r12);
	case 13: return user_register(regs, amd64_regs, r13);
	default: return 0;
	}
}

static __always_inline __u64 on_stack(__u64 sp, __u32 slot)
{
	__u64 v = 0;

	bpf_probe_read_user(&v, sizeof(v), (void *)(sp + slot));
	return v;
}

/* go_ready notes which goroutine makes another one runnable. The runtime does it
 * on a stack of its own: g is that one's, and the goroutine is its thread's. */
static __always_inline void go_ready(__u64 g, __u64 ready, __u64 how)
{
	struct go_woken key = {.tgid = bpf_get_current_pid_tgid() >> 32};
	__u64 at = 0, waker = 0;

	if (bpf_probe_read_user(&at, sizeof(at), (void *)(g + (how >> 48))) ||
	    bpf_probe_read_user(&at, sizeof(at), (void *)(at + (how >> 32 & 0xffff))) || !at)
		return;
	if (bpf_probe_read_user(&waker, sizeof(waker), (void *)(at + (how >> 16 & 0xffff))) ||
	    bpf_probe_read_user(&key.goroutine, sizeof(key.goroutine), (void *)(ready + (how >> 16 & 0xffff))))
		return;
	bpf_map_update_elem(&ghost_shared_go_wakers, &key, &waker, BPF_ANY);
}

enum { FLAG_CARRY = 1, FLAG_ZERO = 0x40 };

static __always_inline int go(void *regs, __u64 how)
{
	__u64 sp, n, flags;

	if (l7_arm64)
		return 0;
	if (how_call(how) != TLS_GO_READ) {
		flags = user_register(regs, amd64_regs, flags);
		if (flags & (FLAG_CARRY | FLAG_ZERO)) /* it gets a bigger stack, and begins again */
			return 0;
	}
	if (how_call(how) == TLS_GO_READY) {
		go_ready(user_register(regs, amd64_regs, r14), user_register(regs, amd64_regs, ax), how);
		return 0;
	}
	if (how_call(how) == TLS_GO_WRITE) {
		go_moved(user_register(regs, amd64_regs, ax), user_register(regs, amd64_regs, bx), user_register(regs, amd64_regs, cx), true);
		return 0;
	}
	sp = user_register(regs, amd64_regs, sp);
	n = user_number(regs, how >> 8 & 0xff);
	if (n > on_stack(sp, how >> 48)) /* no more than there was room for: else this is not what we take it for */
		homeless();
	else
		go_moved(on_stack(sp, how >> 16 & 0xffff), on_stack(sp, how >> 32 & 0xffff), n, false);
	return 0;
}

SEC("uprobe.multi")
int tls_go(void *ctx)
{
	ON_TASK_STACK(ctx, &tls_nowhere);
	return go(ctx, bpf_get_attach_cookie(ctx));
}

SEC("uprobe")
int tls_go_one(void *ctx)
{
	ON_TASK_STACK(ctx, &tls_nowhere_one);
	return go(ctx, bpf_get_attach_cookie(ctx));
}

/* ---- the end ---- */

SEC("tp_btf/tcp_destroy_sock")
int tls_close(__u64 *ctx)
{
	struct l7_conn *s = bpf_sk_storage_get(&ghost_shared_l7_conns, (struct sock *)ctx[0], 0, 0);
	struct l7_moved m = {.flags = L7_FLAG_PLAIN | L7_FLAG_CLOSED};
	struct l7_conn *c;
	__u64 cookie;

	if (!s || s->state != L7_TLS)
		return 0;
	cookie = s->ends.conn;
	c = bpf_map_lookup_elem(&tls_conns, &cookie);
	if (!c)
		return 0;
	if (c->state == L7_KNOWN) {
		m.offset = c->offset[L7_RECEIVED];
		l7_emit_none(c, &m);
	}
	bpf_map_delete_elem(&tls_conns, &cookie);
	return 0;
}
