//go:build ignore

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Packets the kernel threw away, and its own reason.
 *
 *	kfree_skb -> drop_seen[reason]++ on this CPU -> a token left? -> record
 *
 * A record carries the counter, not a difference: user space subtracts what it
 * has told already, and so nothing that was withheld or lost goes uncounted.
 */
#include "ghost.h"
#include <bpf/bpf_endian.h>

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define MAX_REASONS 1024
#define MAX_EXTENSIONS 6 /* IPv6 extension headers that are looked through */
#define TRIES 3

/* Records per second and reason; 0: only counts. */
volatile const __u32 drop_rate = 10;

/* Reasons nobody calls a drop, one byte each. */
volatile const __u8 drop_ignored[MAX_REASONS];

/* The tracepoint has a fourth argument, the receiving socket (since 6.11). */
volatile const bool drop_has_sock;

enum skb_drop_reason___ghost {
	SKB_NOT_DROPPED_YET___ghost,
	SKB_CONSUMED___ghost,
};

struct sk_buff___tail {
	unsigned int tail;
} __attribute__((preserve_access_index));

struct net_device___ns {
	possible_net_t nd_net;
} __attribute__((preserve_access_index));

struct drop_packet {
	struct ghost_hdr h;
	__u64 seen;   /* drops for this reason on this CPU so far, this one included */
	__u64 cookie; /* of the socket, if there is one and it has one */
	__u32 reason;
	__u32 netns;
	__u32 source[4]; /* network byte order; IPv4 as v4-mapped */
	__u32 destination[4];
	__u16 source_port; /* host byte order */
	__u16 destination_port;
	__u8 proto;
	__u8 ip; /* 4, 6, or 0: not IP */
	__u8 pad[2];
	char interface[16];
};
_Static_assert(sizeof(struct drop_packet) == 112, "drop_packet has no holes");
const struct drop_packet *drop_packet_twin __attribute__((unused)); /* keeps the type for bpf2go */

enum drop_record { DROP_PACKET = 1 };

/* Reason -> drops, per CPU. Made here, read by user space, never deleted: the
 * number of reasons bounds it. The add is atomic because a drop can interrupt
 * another one. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, MAX_REASONS);
	__type(key, __u32);
	__type(value, __u64);
} drop_seen SEC(".maps");

/* Reason -> the time at which its bucket will be full again (the generic cell
 * rate algorithm: one number instead of tokens and a timestamp). In a flood it
 * is only read. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_REASONS);
	__type(key, __u32);
	__type(value, __u64);
} drop_full_at SEC(".maps");

static __always_inline __u64 *drop_slot(void *map, __u32 reason)
{
	__u64 zero = 0, *v = bpf_map_lookup_elem(map, &reason);

	if (v)
		return v;
	bpf_map_update_elem(map, &reason, &zero, BPF_NOEXIST);
	return bpf_map_lookup_elem(map, &reason);
}

static __always_inline bool drop_is_ignored(__u64 reason)
{
	if (reason >= MAX_REASONS)
		return false;
	asm volatile("" : "+r"(reason)); /* or the compiler drops the mask that the verifier wants to see */
	return drop_ignored[reason & (MAX_REASONS - 1)];
}

/* Takes a token of the reason's bucket, which holds a second's worth. */
static __always_inline bool drop_allowed(__u32 reason)
{
	__u64 *full_at, now, cost;

	if (!drop_rate)
		return false;
	full_at = drop_slot(&drop_full_at, reason);
	if (!full_at)
		return false;
	cost = 1000000000ULL / drop_rate;
	now = bpf_ktime_get_ns();
	for (int i = 0; i < TRIES; i++) {
		__u64 old = *(volatile __u64 *)full_at;
		__u64 from = old > now ? old : now;

		if (from + cost > now + 1000000000ULL)
			return false;
		if (__sync_val_compare_and_swap(full_at, old, from + cost) == old)
			return true;
	}
	return false;
}

struct drop_span {
	unsigned char *head;
	__u32 tail; /* bytes from head that hold data */
};

static __always_inline bool drop_read(const struct drop_span *s, __u32 off, void *to, __u32 size)
{
	return off + size <= s->tail && !bpf_probe_read_kernel(to, size, s->head + off);
}

static __always_inline void drop_ports(struct drop_packet *e, const struct drop_span *s, __u32 off)
{
	__u16 ports[2];

	if (e->proto != 6 && e->proto != 17 && e->proto != 132)
		return;
	if (!drop_read(s, off, ports, sizeof(ports)))
		return;
	e->source_port = bpf_ntohs(ports[0]);
	e->destination_port = bpf_ntohs(ports[1]);
}

static __always_inline void drop_v4(struct drop_packet *e, const struct drop_span *s, __u32 off)
{
	struct iphdr ip;

	if (!drop_read(s, off, &ip, sizeof(ip)) || ip.version != 4)
		return;
	e->ip = 4;
	e->proto = ip.protocol;
	e->source[2] = e->destination[2] = bpf_htonl(0xffff);
	e->source[3] = ip.saddr;
	e->destination[3] = ip.daddr;
	if (!(bpf_ntohs(ip.frag_off) & 0x1fff))
		drop_ports(e, s, off + ip.ihl * 4);
}

static __always_inline void drop_v6(struct drop_packet *e, const struct drop_span *s, __u32 off)
{
	struct ipv6hdr ip;
	__u8 next;

	if (!drop_read(s, off, &ip, sizeof(ip)) || ip.version != 6)
		return;
	e->ip = 6;
	__builtin_memcpy(e->source, &ip.saddr, 16);
	__builtin_memcpy(e->destination, &ip.daddr, 16);
	next = ip.nexthdr;
	off += sizeof(ip);
#pragma unroll
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		__u8 h[4];

		/* hop-by-hop, routing, fragment, authentication, options, mobility */
		if (next != 0 && next != 43 && next != 44 && next != 51 && next != 60 && next != 135)
			break;
		if (!drop_read(s, off, h, sizeof(h)))
			return;
		if (next == 44 && (h[2] || h[3] & 0xf8)) { /* not the first: no ports */
			e->proto = h[0];
			return;
		}
		off += next == 44 ? 8 : next == 51 ? (h[1] + 2) * 4 : (h[1] + 1) * 8;
		next = h[0];
	}
	e->proto = next;
	drop_ports(e, s, off);
}

/* Headers by their offsets from head: those stay where they are while the
 * stack moves skb->data over them. */
static __always_inline void drop_headers(struct drop_packet *e, struct sk_buff *skb)
{
	__u16 proto = BPF_CORE_READ(skb, protocol);
	__u32 off = BPF_CORE_READ(skb, network_header);
	struct drop_span s = {
		.head = BPF_CORE_READ(skb, head),
		.tail = BPF_CORE_READ((struct sk_buff___tail *)skb, tail),
	};

	if (proto == bpf_htons(ETH_P_IP) || !proto)
		drop_v4(e, &s, off);
	if (proto == bpf_htons(ETH_P_IPV6) || !proto)
		drop_v6(e, &s, off);
}

/* skb->dev shares its place with what UDP and TCP keep in queued packets: it is
 * believed only if it points into the kernel, and user space looks at the name. */
static __always_inline struct net_device *drop_device(struct sk_buff *skb)
{
	struct net_device *dev = BPF_CORE_READ(skb, dev);

	return (__s64)dev < 0 ? dev : 0;
}

SEC("tp_btf/kfree_skb")
int drop_kfree_skb(__u64 *ctx)
{
	struct sk_buff *skb = (void *)ctx[0];
	__u32 reason = (__u32)ctx[2];
	struct net_device *dev;
	struct drop_packet *e;
	struct sock *sk = 0;
	__u64 *seen, n;

	if (bpf_core_enum_value_exists(enum skb_drop_reason___ghost, SKB_NOT_DROPPED_YET___ghost) &&
	    reason == bpf_core_enum_value(enum skb_drop_reason___ghost, SKB_NOT_DROPPED_YET___ghost))
		return 0;
	if (bpf_core_enum_value_exists(enum skb_drop_reason___ghost, SKB_CONSUMED___ghost) &&
	    reason == bpf_core_enum_value(enum skb_drop_reason___ghost, SKB_CONSUMED___ghost))
		return 0;
	if (drop_is_ignored(reason))
		return 0;
	seen = drop_slot(&drop_seen, reason);
	if (!seen) {
		ghost_count_lost();
		return 0;
	}
	n = __sync_fetch_and_add(seen, 1) + 1;
	if (!drop_allowed(reason))
		return 0;
	e = ghost_reserve(drop_packet, DROP_PACKET);
	if (!e)
		return 0;
	__builtin_memset((char *)e + sizeof(e->h), 0, sizeof(*e) - sizeof(e->h));
	e->seen = n;
	e->reason = reason;
	if (drop_has_sock)
		sk = (void *)ctx[3];
	if (!sk)
		sk = BPF_CORE_READ(skb, sk);
	dev = drop_device(skb);
	if (sk) {
		e->cookie = BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
		e->netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	} else if (dev) {
		e->netns = BPF_CORE_READ((struct net_device___ns *)dev, nd_net.net, ns.inum);
	}
	if (dev)
		bpf_probe_read_kernel_str(e->interface, sizeof(e->interface), &dev->name);
	drop_headers(e, skb);
	ghost_submit(e);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
