/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* HTTP/1.x as seen in the first bytes of a chunk; the strict twin is sniff.go. */

/* Bytes of a call: heads. Longer ones are understood as far as they go. */
#define HTTP1_CAPTURE_ASKS 1024
#define HTTP1_CAPTURE_ANSWERS 1024
/* Bytes of a turn. Server-sent events, the end of a chunked answer and WebSocket
 * frames sniff as HTTP/1 again and are seen beyond it; other bodies are not. */
#define HTTP1_CAPTURE_TURN 4096

static __always_inline int http1_is_upper(__u8 c)
{
	return c >= 'A' && c <= 'Z';
}

/* A line of an event stream begins. */
static __always_inline int http1_is_event(const __u8 *p)
{
	if (p[0] == 'd')
		return p[1] == 'a' && p[2] == 't' && p[3] == 'a';
	if (p[0] == 'e')
		return p[1] == 'v' && p[2] == 'e' && p[3] == 'n';
	if (p[0] == 'i')
		return p[1] == 'd' && p[2] == ':';
	return p[0] == ':' && p[1] == ' ';
}

/* A chunk of a chunked body begins: the last one, or one of an event stream. */
static __always_inline int http1_is_chunk(const __u8 *p)
{
	if (p[1] == '\r')
		return p[2] == '\n' && (p[0] == '0' ? p[3] == '\r' : http1_is_event(p + 3));
	if (p[2] == '\r')
		return p[3] == '\n' && http1_is_event(p + 4);
	if (p[3] == '\r')
		return p[4] == '\n' && http1_is_event(p + 5);
	if (p[4] == '\r')
		return p[5] == '\n' && http1_is_event(p + 6);
	return 0;
}

static __always_inline int http1_is_print(__u8 c)
{
	return c >= ' ' && c < 0x7f;
}

/* A WebSocket frame: a short one by itself, or text that was not compressed.
 * Others are too much like any other bytes, also those of strangers. */
static __always_inline int http1_is_frame(const __u8 *p, __u32 n)
{
	__u8 op = p[0] & 0xbf; /* but for the bit of compression */

	if (op != 0x81 && op != 0x82 && (op < 0x88 || op > 0x8a))
		return 0;
	if (n < 32)
		return n >= 2 && n == (p[1] & 0x80 ? 6U : 2U) + (p[1] & 0x7f);
	if (p[0] != 0x81 || p[1] > 126)
		return 0;
	return http1_is_print(p[4]) && http1_is_print(p[5]) && http1_is_print(p[6]) && http1_is_print(p[7]);
}

static __always_inline int http1_sniff(const __u8 *p, __u32 n)
{
	int i;

	if (n >= 5 && p[0] == 'H' && p[1] == 'T' && p[2] == 'T' && p[3] == 'P' && p[4] == '/')
		return 2;
	if (http1_is_event(p) || http1_is_chunk(p))
		return 2;
	if (http1_is_frame(p, n))
		return p[1] & 0x80 ? 1 : 2;
	if (n < 5 || !http1_is_upper(p[0]) || !http1_is_upper(p[2]))
		return 0;
	if (p[0] == 'P' && p[1] == 'R' && p[2] == 'I' && p[3] == ' ') /* HTTP/2 */
		return 0;
	if (p[0] == 'C' && p[1] == 'O' && p[2] == 'N' && p[3] == 'N' && p[7] == ' ')
		return 1;
#pragma unroll
	for (i = 3; i < 16; i++) { /* a method, and a target that begins like one */
		if (p[i] == ' ')
			return p[i + 1] == '/' || p[i + 1] == '*' || p[i + 1] == 'h';
		if (!http1_is_upper(p[i]) && p[i] != '-')
			return 0;
	}
	return 0;
}
