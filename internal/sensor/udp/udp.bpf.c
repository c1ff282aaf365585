//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * UDP and ICMP flows, counted where packets meet their socket.
 *
 *	cgroup_skb egress/ingress -> udp_flows (one entry per socket and peer)
 *	sock_create, egress, iter/task_file -> udp_sockets (who owns a socket)
 *	sock_release -> the final record of a socket that had one peer
 *	everything else is swept out of udp_flows by user space
 *
 * TCP passes the same two hooks and leaves after one byte is looked at.
 */
#include "ghost.h"
#include <bpf/bpf_endian.h>

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define PROTO_ICMP 1
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_ICMPV6 58
#define AF_INET 2
#define AF_INET6 10
#define PF_KTHREAD 0x00200000
#define ALLOW 1
#define EPHEMERAL 32768 /* net.ipv4.ip_local_port_range begins there */

#define MAX_FLOWS 65536
#define MAX_ENDS 16384
#define MAX_DROPPING 4096
#define MAX_EXTENSIONS 6 /* IPv6 extension headers that are looked through */

/* One end of a conversation, seen from its socket. IPv4 addresses are written
 * as v4-mapped ones. The cookie is unique on the host, over all namespaces. */
struct udp_key {
	__u64 cookie;
	__u32 local[4]; /* network byte order */
	__u32 remote[4];
	__u16 local_port; /* host byte order; 0 in ICMP and in late fragments */
	__u16 remote_port;
	__u16 icmp_id; /* of an echo */
	__u8 icmp_type; /* an echo's reply counts as its request */
	__u8 proto;
};
_Static_assert(sizeof(struct udp_key) == 48, "udp_key has no holes");

enum udp_direction { OUTBOUND = 1, INBOUND = 2 };
enum udp_flags { SEEN_BIRTH = 1 };

struct udp_flow {
	__u64 sent_packets;
	__u64 sent_bytes; /* payload */
	__u64 received_packets;
	__u64 received_bytes;
	__u64 first; /* CLOCK_MONOTONIC */
	__u64 last;
	__u64 cgroup;
	__u32 pid;
	__u32 peer_pid;
	__u32 netns;
	__u16 direction;
	__u16 flags;
};
_Static_assert(sizeof(struct udp_flow) == 72, "udp_flow has no holes");

/* The last word about a socket that had one flow. */
struct udp_end {
	struct ghost_hdr h;
	struct udp_key key;
	struct udp_flow flow;
	__u64 drops; /* packets its full receive queue refused, in its whole life */
};
_Static_assert(sizeof(struct udp_end) == 160, "udp_end has no holes");
const struct udp_end *udp_end_twin __attribute__((unused)); /* keeps the type for bpf2go */

enum udp_record { UDP_END = 1 };

/* What is known of a socket. */
struct udp_socket {
	struct udp_key only; /* its first flow: at its end the only one, if flows is 1 */
	__u32 pid;           /* who created it, or sent on it last to a new peer */
	__u32 flows;
	__u8 born;   /* we saw it being made */
	__u8 user;   /* a process holds it */
	__u8 closed; /* nobody will read what still comes */
	__u8 pad[5];
};

/* Socket -> udp_socket. Made by udp_create, udp_files and the first packet;
 * dies with the socket. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct udp_socket);
} udp_sockets SEC(".maps");

/* Flow -> counters, all of them since the flow's first packet. Made here,
 * ended by udp_release or by user space's sweep. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_FLOWS);
	__type(key, struct udp_key);
	__type(value, struct udp_flow);
} udp_flows SEC(".maps");

/* 5-tuple -> cookie of the socket that speaks by it, so that two ends on this
 * host find each other. The key is a udp_key whose cookie is the network
 * namespace if the address is a loopback one (each namespace has its own), else
 * 0. The oldest go first; an entry whose flow is gone counts as none. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_ENDS);
	__type(key, struct udp_key);
	__type(value, __u64);
} udp_ends SEC(".maps");

/* Socket cookie -> packets its full receive queue refused. Made by udp_full,
 * ended by udp_release or by the sweep once the socket has no flow. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_DROPPING);
	__type(key, __u64);
	__type(value, __u64);
} udp_drops SEC(".maps");

/* Packets that no map had room for, and those that may have missed the end of
 * their flow. One slot; written here, told by Tick. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} udp_lost SEC(".maps");

static __always_inline void udp_count_lost(void)
{
	__u32 zero = 0;
	__u64 *n = bpf_map_lookup_elem(&udp_lost, &zero);

	if (n)
		__sync_fetch_and_add(n, 1);
}

struct udp_packet {
	struct udp_key key; /* cookie not yet set */
	__u64 bytes;
	bool reply; /* an ICMP echo reply */
};

static __always_inline bool counted(__u8 proto)
{
	return proto == PROTO_UDP || proto == PROTO_ICMP || proto == PROTO_ICMPV6;
}

static __always_inline bool is_extension(__u8 next)
{
	/* hop-by-hop, routing, authentication, destination options, mobility */
	return next == 0 || next == 43 || next == 51 || next == 60 || next == 135;
}

/* Reads what is above IP. A fragment other than the first has no ports: it is
 * counted to its socket's flow with port 0. */
static __always_inline bool udp_above(struct __sk_buff *skb, struct udp_packet *p, __u32 off, bool late, bool egress)
{
	struct udphdr u;
	struct icmphdr i;

	p->bytes = skb->len > off ? skb->len - off : 0;
	if (late)
		return true;
	if (p->key.proto == PROTO_UDP) {
		if (bpf_skb_load_bytes(skb, off, &u, sizeof(u)))
			return false;
		p->key.local_port = bpf_ntohs(egress ? u.source : u.dest);
		p->key.remote_port = bpf_ntohs(egress ? u.dest : u.source);
		if (u.len) /* 0 in a jumbogram */
			p->bytes = bpf_ntohs(u.len);
		p->bytes = p->bytes > sizeof(u) ? p->bytes - sizeof(u) : 0;
		return true;
	}
	if (bpf_skb_load_bytes(skb, off, &i, sizeof(i)))
		return false;
	p->bytes = p->bytes > sizeof(i) ? p->bytes - sizeof(i) : 0;
	p->key.icmp_type = i.type;
	if (p->key.proto == PROTO_ICMP ? i.type == 0 : i.type == 129) {
		p->reply = true;
		p->key.icmp_type = p->key.proto == PROTO_ICMP ? 8 : 128;
	}
	if (p->key.proto == PROTO_ICMP ? p->key.icmp_type == 8 : p->key.icmp_type == 128)
		p->key.icmp_id = bpf_ntohs((__u16)i.un);
	return true;
}

static __always_inline bool udp_v4(struct __sk_buff *skb, struct udp_packet *p, bool egress)
{
	struct iphdr *ip = (void *)(long)skb->data;

	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return false;
	if (ip->protocol == PROTO_TCP || !counted(ip->protocol))
		return false;
	p->key.proto = ip->protocol;
	p->key.local[2] = p->key.remote[2] = bpf_htonl(0xffff);
	p->key.local[3] = egress ? ip->saddr : ip->daddr;
	p->key.remote[3] = egress ? ip->daddr : ip->saddr;
	return udp_above(skb, p, ip->ihl * 4, bpf_ntohs(ip->frag_off) & 0x1fff, egress);
}

static __always_inline bool udp_v6(struct __sk_buff *skb, struct udp_packet *p, bool egress)
{
	struct ipv6hdr *ip = (void *)(long)skb->data;
	__u32 off = sizeof(*ip);
	bool late = false;
	__u8 next;

	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return false;
	next = ip->nexthdr;
	if (next == PROTO_TCP)
		return false;
	if (egress) {
		__builtin_memcpy(p->key.local, &ip->saddr, 16);
		__builtin_memcpy(p->key.remote, &ip->daddr, 16);
	} else {
		__builtin_memcpy(p->key.local, &ip->daddr, 16);
		__builtin_memcpy(p->key.remote, &ip->saddr, 16);
	}
#pragma unroll
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		__u8 h[4]; /* next header, length, and a fragment's offset */

		if (counted(next) || (next != 44 && !is_extension(next)))
			break;
		if (bpf_skb_load_bytes(skb, off, h, sizeof(h)))
			return false;
		if (next == 44) {
			late = late || h[2] || h[3] & 0xf8;
			off += 8;
		} else {
			off += next == 51 ? (h[1] + 2) * 4 : (h[1] + 1) * 8;
		}
		next = h[0];
	}
	if (!counted(next))
		return false;
	p->key.proto = next;
	return udp_above(skb, p, off, late, egress);
}

static __always_inline bool is_loopback(const struct udp_key *k)
{
	if (k->local[0] | k->local[1])
		return false;
	if (k->local[2] == bpf_htonl(0xffff))
		return (k->local[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return !k->local[2] && k->local[3] == bpf_htonl(1);
}

/* Publishes this end and tells both ends whose the other one is. */
static __noinline int udp_join(struct udp_key *k, struct udp_flow *f)
{
	struct udp_key at = *k;
	struct udp_flow *peer;
	__u64 *cookie;

	if (!f || k->proto != PROTO_UDP)
		return 0;
	at.cookie = is_loopback(k) ? f->netns : 0;
	bpf_map_update_elem(&udp_ends, &at, &k->cookie, BPF_ANY);

	__builtin_memcpy(at.local, k->remote, 16);
	__builtin_memcpy(at.remote, k->local, 16);
	at.local_port = k->remote_port;
	at.remote_port = k->local_port;
	cookie = bpf_map_lookup_elem(&udp_ends, &at);
	if (!cookie)
		return 0;
	at.cookie = *cookie;
	peer = bpf_map_lookup_elem(&udp_flows, &at);
	if (!peer)
		return 0;
	f->peer_pid = peer->pid;
	peer->peer_pid = f->pid;
	return 0;
}

/* The process that sends on a user's socket does so itself: the current task is
 * the sender, unless it is a kernel thread. The kernel's own sockets (ICMP's,
 * tunnels) belong to nobody. */
static __always_inline __u32 udp_sender(const struct udp_socket *o, struct sock *sk)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	if (!o->user && !BPF_CORE_READ(sk, sk_socket, file))
		return 0;
	if (BPF_CORE_READ(task, flags) & PF_KTHREAD)
		return 0;
	return BPF_CORE_READ(task, tgid);
}

/* Who spoke first. Of a socket older than Ghostlight that is not known: one that
 * is connected is a client's; else its first packet that we see decides, unless
 * the ports say that it must be an answer. */
static __always_inline __u16 udp_direction(const struct udp_packet *p, const struct udp_socket *o, struct sock *sk, bool egress)
{
	bool served = p->key.local_port < EPHEMERAL && p->key.remote_port >= EPHEMERAL;
	bool asked = p->key.remote_port < EPHEMERAL && p->key.local_port >= EPHEMERAL;

	if (p->reply)
		egress = !egress;
	else if (p->key.proto == PROTO_UDP && !o->born && BPF_CORE_READ(sk, __sk_common.skc_dport))
		egress = true;
	else if (p->key.proto == PROTO_UDP && !o->born)
		egress = asked || (egress && !served);
	return egress ? OUTBOUND : INBOUND;
}

/* Makes the flow of a packet. This is the slow path: once per flow. */
static __noinline int udp_open(struct __sk_buff *skb, struct udp_packet *p, bool egress)
{
	struct udp_flow f = {};
	struct bpf_sock *full;
	struct udp_socket *o;
	struct sock *sk = 0;
	__u64 held;
	long err;

	full = skb->sk;
	if (!full)
		return 0;
	full = bpf_sk_fullsock(full);
	if (!full)
		return 0;
	o = bpf_sk_storage_get(&udp_sockets, full, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!o) {
		udp_count_lost();
		return 0;
	}
	if (o->closed)
		return 0;
	/* The verifier lets nobody read a struct sock through a bpf_sock: take the
	 * pointer out as a number. */
	held = (__u64)full;
	bpf_probe_read_kernel(&sk, sizeof(sk), &held);

	f.first = bpf_ktime_get_ns();
	f.cgroup = bpf_sk_cgroup_id(full);
	f.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	f.direction = udp_direction(p, o, sk, egress);
	f.flags = o->born ? SEEN_BIRTH : 0;
	if (egress) {
		__u32 pid = udp_sender(o, sk);

		if (pid)
			o->pid = pid;
	}
	f.pid = o->pid;
	err = bpf_map_update_elem(&udp_flows, &p->key, &f, BPF_NOEXIST);
	if (err) {
		if (err != -17) /* EEXIST: another CPU was faster */
			udp_count_lost();
		return 0;
	}
	if (!o->flows)
		o->only = p->key;
	__sync_fetch_and_add(&o->flows, 1);
	return 1;
}

/* Fills in the owner of a flow that had none when it began: its socket is older
 * than Ghostlight and has been found among the open files since. */
static __noinline int udp_adopt(struct __sk_buff *skb, struct udp_flow *f)
{
	struct bpf_sock *sk = skb->sk;
	struct udp_socket *o;

	if (!sk || !f)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 0;
	o = bpf_sk_storage_get(&udp_sockets, sk, 0, 0);
	if (!o || !o->pid)
		return 0;
	f->pid = o->pid;
	return 1;
}

/* After a silence this long the sweep may be ending the flow. */
volatile const __s64 udp_quiet_ns = 30000000000;

static __always_inline int udp_count(struct __sk_buff *skb, bool egress)
{
	struct udp_packet p = {};
	struct udp_flow *f;
	__u64 packets, now;
	bool quiet;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (!udp_v4(skb, &p, egress))
			return ALLOW;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (!udp_v6(skb, &p, egress))
			return ALLOW;
	} else {
		return ALLOW;
	}
	p.key.cookie = bpf_get_socket_cookie(skb);
	f = bpf_map_lookup_elem(&udp_flows, &p.key);
	if (!f) {
		int made = udp_open(skb, &p, egress);

		f = bpf_map_lookup_elem(&udp_flows, &p.key);
		if (!f)
			return ALLOW;
		if (made)
			udp_join(&p.key, f);
	} else if (!f->pid && udp_adopt(skb, f)) {
		udp_join(&p.key, f);
	}
	packets = skb->gso_segs > 1 ? skb->gso_segs : 1;
	if (egress) {
		__sync_fetch_and_add(&f->sent_packets, packets);
		__sync_fetch_and_add(&f->sent_bytes, p.bytes);
	} else {
		__sync_fetch_and_add(&f->received_packets, packets);
		__sync_fetch_and_add(&f->received_bytes, p.bytes);
	}
	now = bpf_ktime_get_ns();
	quiet = f->last && (__s64)(now - f->last) > udp_quiet_ns;
	f->last = now;
	/* What was added to a flow that the sweep has taken meanwhile may have come
	 * too late to be told. */
	if (quiet && bpf_map_lookup_elem(&udp_flows, &p.key) != f)
		udp_count_lost();
	return ALLOW;
}

SEC("cgroup_skb/egress")
int udp_egress(struct __sk_buff *skb)
{
	return udp_count(skb, true);
}

SEC("cgroup_skb/ingress")
int udp_ingress(struct __sk_buff *skb)
{
	return udp_count(skb, false);
}

SEC("cgroup/sock_create")
int udp_create(struct bpf_sock *sk)
{
	struct udp_socket *o;

	if (sk->protocol == PROTO_TCP || !counted(sk->protocol))
		return ALLOW;
	o = bpf_sk_storage_get(&udp_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!o)
		return ALLOW; /* the first packet tries again, and counts */
	o->pid = bpf_get_current_pid_tgid() >> 32;
	o->born = 1;
	o->user = 1;
	return ALLOW;
}

/* A socket that had one peer ends its flow here: a DNS client is told at once,
 * in one record. One that had several leaves them to the sweep. If the ring is
 * full the flow stays where it is, and the sweep tells it: nothing is lost. */
SEC("cgroup/sock_release")
int udp_release(struct bpf_sock *sk)
{
	struct udp_socket *o;
	struct udp_flow *f;
	struct udp_key k;
	struct udp_end *e;
	__u64 *drops;

	if (sk->protocol == PROTO_TCP || !counted(sk->protocol))
		return ALLOW;
	o = bpf_sk_storage_get(&udp_sockets, sk, 0, 0);
	if (!o)
		return ALLOW;
	o->closed = 1;
	if (o->flows != 1)
		return ALLOW;
	k = o->only;
	f = bpf_map_lookup_elem(&udp_flows, &k);
	if (!f)
		return ALLOW;
	e = bpf_ringbuf_reserve(&ghost_events, sizeof(*e), 0);
	if (!e)
		return ALLOW;
	ghost_stamp(&e->h, UDP_END);
	e->key = k;
	e->flow = *f;
	e->drops = 0;
	if (bpf_map_delete_elem(&udp_flows, &k)) { /* the sweep was faster */
		bpf_ringbuf_discard(e, BPF_RB_NO_WAKEUP);
		return ALLOW;
	}
	drops = bpf_map_lookup_elem(&udp_drops, &k.cookie);
	if (drops) {
		e->drops = *drops;
		bpf_map_delete_elem(&udp_drops, &k.cookie);
	}
	ghost_submit(e);
	return ALLOW;
}

/* Sockets that were there before us, by the files of every task. */
SEC("iter/task_file")
int udp_files(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct udp_socket *o;
	struct socket *s;
	struct sock *sk;

	if (!task || !file)
		return 0;
	s = bpf_sock_from_file(file);
	if (!s)
		return 0;
	sk = s->sk;
	if (!sk || !counted(sk->sk_protocol))
		return 0;
	if (sk->__sk_common.skc_family != AF_INET && sk->__sk_common.skc_family != AF_INET6)
		return 0;
	o = bpf_sk_storage_get(&udp_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!o)
		return 0;
	o->user = 1;
	if (!o->pid)
		o->pid = task->tgid;
	return 0;
}

/* The second argument is the socket in every kernel; a third, the packet, came
 * later. */
SEC("tp_btf/udp_fail_queue_rcv_skb")
int udp_full(__u64 *ctx)
{
	struct sock *sk = (void *)ctx[1];
	__u64 cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
	__u64 one = 1, *n;

	n = bpf_map_lookup_elem(&udp_drops, &cookie);
	if (n)
		__sync_fetch_and_add(n, 1);
	else if (bpf_map_update_elem(&udp_drops, &cookie, &one, BPF_NOEXIST))
		udp_count_lost();
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
