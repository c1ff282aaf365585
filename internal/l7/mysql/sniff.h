/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The kernel's twin of sniff.go: length, sequence number, command. */

#define MYSQL_CAPTURE_ASKS 4096
/* Of a large result the beginning is enough, and the last read, which is small. */
#define MYSQL_CAPTURE_ANSWERS 1024
#define MYSQL_CAPTURE_TURN 16384

static __always_inline int mysql_sniff(const __u8 *p, __u32 n)
{
	__u32 size;

	(void)n; /* what is not there is zero */
	size = (__u32)p[2] << 16 | (__u32)p[1] << 8 | p[0];
	if (size == 0)
		return 0;
	if (p[3] == 0) {
		switch (p[4]) {
		case 0x03: /* query, perhaps behind no attributes */
			if (p[5] == 0 && p[6] == 1)
				return p[7] >= ' ' && p[7] < 0x7f;
			/* fall through */
		case 0x16: /* prepare */
			return size > 1 && ((p[5] >= ' ' && p[5] < 0x7f) || p[5] == '\n' || p[5] == '\t' || p[5] == '\r');
		case 0x17: /* execute: iteration count 1 */
			return size >= 10 && p[9] <= 0x0f && p[10] == 1 && p[11] == 0 && p[12] == 0 && p[13] == 0;
		case 0x19: /* close, before the next command */
		case 0x1a: /* reset */
			return size == 5;
		case 0x02: /* a database */
			return size > 1 && size <= 65 && p[5] > ' ' && p[5] < 0x7f;
		case 0x0e: /* ping */
		case 0x1f: /* reset connection */
			return size == 1 && p[5] == 0 && p[6] == 0 && p[7] == 0;
		case 0x0a: /* greeting: protocol 10 and a version */
			return p[5] >= '0' && p[5] <= '9' && (p[6] == '.' || p[7] == '.') ? 2 : 0;
		}
		return 0;
	}
	if (p[3] != 1)
		return 0;
	if (p[4] == 0xff)
		return size >= 9 && p[7] == '#' ? 2 : 0;
	if (size == 7 && p[4] == 0 && p[11] == 0 && p[12] == 0)
		return 2;
	if (size == 1)
		return p[8] == 2 && p[9] == 3 && p[10] == 'd' && p[11] == 'e' && p[12] == 'f' ? 2 : 0;
	/* the client's answer to the greeting: protocol 4.1, zeros behind the charset */
	return size >= 32 && (p[5] & 2) && p[13] == 0 && p[14] == 0 && p[15] == 0 && p[16] == 0 && p[17] == 0 && p[18] == 0 && p[19] == 0 && p[20] == 0;
}
