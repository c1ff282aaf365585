/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Protocols that the tests speak, and nobody else: one of turns, one of frames,
 * one of datagrams. */
#pragma once

#define L7_DATAGRAMS 1

struct l7_protocol {
	__u8 index;
	__u8 side;
	__u16 asks, answers;
	__u32 turn;
};

static __always_inline bool speech_is(const __u8 *p, __u32 n, __u8 a, __u8 b, __u8 c)
{
	return n >= 4 && p[0] == a && p[1] == b && p[2] == c && p[3] == ' ';
}

static __always_inline bool l7_sniff(struct l7_protocol *f, const __u8 *p, __u32 n, const bool datagram)
{
	if (!datagram && (speech_is(p, n, 'A', 'S', 'K') || speech_is(p, n, 'A', 'N', 'S'))) {
		*f = (struct l7_protocol){1, p[1] == 'S' ? 1 : 2, 512, 1024, 4096};
		return true;
	}
	if (!datagram && (speech_is(p, n, 'F', 'R', 'Q') || speech_is(p, n, 'F', 'R', 'A'))) {
		*f = (struct l7_protocol){2, p[2] == 'Q' ? 1 : 2, 16384, 128, 0};
		return true;
	}
	if (speech_is(p, n, 'D', 'G', 'Q') || speech_is(p, n, 'D', 'G', 'A')) {
		*f = (struct l7_protocol){3, p[2] == 'Q' ? 1 : 2, 128, 512, 4096};
		return true;
	}
	return false;
}
