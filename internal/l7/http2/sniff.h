/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Whose HTTP/2 frames a chunk begins with; the twin of sniff.go. */
#ifndef HTTP2_SNIFF_H
#define HTTP2_SNIFF_H

/* A frame is stepped over by the length in its head, captured or not. But the
 * head of each must be captured, and header blocks whole, and one call moves the
 * small frames of many streams: README.md has the figures. Streams are
 * interleaved, so no turn ends. */
#define HTTP2_CAPTURE_ASKS 16384
#define HTTP2_CAPTURE_ANSWERS 16384
#define HTTP2_CAPTURE_TURN 0

/* Who begins a header block with the representation b: :method, :scheme, :path
 * and :authority are 1..7 of the static table, :status is 8..14. */
static __always_inline int http2_field(__u8 b)
{
	__u8 i = b & 0x80 ? b & 0x7f : b & 0x40 ? b & 0x3f : b & 0x0f;

	if ((b & 0xe0) == 0x20 || i == 0 || i > 14 || b == 0x81)
		return 0;
	return i <= 7 ? 1 : 2;
}

/* The HEADERS frame at off, a constant up to 17. */
static __always_inline int http2_headers(const __u8 *p, __u32 n, const __u32 off)
{
	const __u8 *h = p + off;
	__u8 b, next;

	if (n < off + 10 || h[0] || h[1] > 0x40 || h[3] != 1 || h[4] & 0xd2 || h[5] & 0x80 || !(h[8] & 1))
		return 0;
	switch (h[4] & 0x28) {
	case 0:
		b = h[9], next = h[10];
		break;
	case 0x08: /* padded */
		b = h[10], next = h[11];
		break;
	case 0x20: /* with a priority */
		b = h[14], next = off < 17 ? h[15] : 0;
		break;
	default:
		if (off == 17)
			return 0;
		b = h[15], next = h[16];
	}
	/* Go asks for :authority first, which is in the dynamic table from the second
	 * request on. Before the first block stands the size of a table. */
	if ((b >= 0xbe && b != 0xff) || (b >= 0x20 && b < 0x3f))
		b = http2_field(next) == 1 || b < 0x40 ? next : 0;
	return http2_field(b);
}

/* 0: no, 1: asks, 2: answers. */
static __always_inline int http2_sniff(const __u8 *p, __u32 n)
{
	__u8 len = p[2], typ = p[3];

	if (n >= 6 && p[0] == 'P' && p[1] == 'R' && p[2] == 'I' && p[3] == ' ' && p[4] == '*' && p[5] == ' ')
		return 1;
	if (n < 10 || p[0])
		return 0;
	if (typ == 1)
		return http2_headers(p, n, 0);
	if (p[1])
		return 0;
	if (typ == 4 && len == 0 && !(p[4] & 0xfe)) /* SETTINGS, empty or ACK */
		return http2_headers(p, n, 9);
	if (typ == 4 && len <= 96 && len % 6 == 0 && !p[4] && !p[5] && !p[6] && !p[7] && !p[8])
		return n >= 15 && !p[9] && (p[10] == 1 || (p[10] >= 3 && p[10] <= 9 && p[10] != 7)) ? 2 : 0;
	if ((typ == 8 || typ == 3) && len == 4 && !p[4]) /* WINDOW_UPDATE, RST_STREAM */
		return http2_headers(p, n, 13);
	if (typ == 6 && len == 8 && !(p[4] & 0xfe)) /* PING */
		return http2_headers(p, n, 17);
	return 0;
}

#endif
