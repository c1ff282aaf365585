/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The kernel's twin of sniff.go, more generous: it looks at the question's first
 * letter only. */

#define DNS_CAPTURE_ASKS 512
#define DNS_CAPTURE_ANSWERS 1024
#define DNS_CAPTURE_TURN 0

static __always_inline int dns_letter(__u8 c)
{
	__u8 l = c | 0x20;

	return (l >= 'a' && l <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '*' || c >= 0x80;
}

/* dns_message looks at a message's head and how its question begins. */
static __always_inline int dns_message(const __u8 *p)
{
	if (p[2] & 0x78 || p[3] & 0x40) /* no query, or a bit that is always 0 */
		return 0;
	if (p[4] || p[5] != 1) /* one question */
		return 0;
	if (p[12] > 63 || (p[12] ? !dns_letter(p[13]) : p[13] > 1))
		return 0;
	if (p[2] & 0x80)
		return p[6] <= 16 && p[8] <= 2 && p[10] <= 2 ? 2 : 0;
	if (p[2] & 0x06 || p[3] & 0x8f || p[6] || p[7] || p[8] || p[9] || p[10] || p[11] > 2)
		return 0;
	return 1;
}

static __always_inline int dns_sniff(const __u8 *p, __u32 n)
{
	int side;

	if (n < 14)
		return 0;
	side = dns_message(p);
	if (side || n < 16)
		return side;
	side = dns_message(p + 2);
	if (!p[0] && p[1] < 17)
		return 0;
	return side == 1 && p[0] > 16 ? 0 : side;
}
