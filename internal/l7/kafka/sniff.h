/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The kernel's twin of sniff.go, more generous: it does not know which versions
 * there are of each kind of request. Answers cannot be told by their bytes. */

/* Records follow the first topic; the answer with the topics' names is long. */
#define KAFKA_CAPTURE_ASKS 1024
#define KAFKA_CAPTURE_ANSWERS 4096
#define KAFKA_CAPTURE_TURN 16384

static __always_inline int kafka_name(__u8 c)
{
	return c > ' ' && c <= '~';
}

static __always_inline int kafka_sniff(const __u8 *p, __u32 n)
{
	if (n < 14)
		return 0;
	/* below 256 MiB, a kind below 96, a version below 24 */
	if (p[0] >= 0x10 || p[4] || p[5] >= 96 || p[6] || p[7] >= 24 || p[8] >= 0x20)
		return 0;
	if (p[12] == 0xff)
		return p[13] == 0xff;
	if (p[12] || !p[13] || p[13] > 249)
		return 0;
	if (n < 15 || !kafka_name(p[14]))
		return 0;
	return p[13] == 1 || n < 16 || kafka_name(p[15]);
}
