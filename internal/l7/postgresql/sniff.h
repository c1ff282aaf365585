/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The kernel's twin of sniff.go: type and length of a turn's first message. */

/* Pipelines put many executions into one write. Of a large result the beginning
 * is enough, and the last read, which is small. */
#define POSTGRESQL_CAPTURE_ASKS 16384
#define POSTGRESQL_CAPTURE_ANSWERS 1024
#define POSTGRESQL_CAPTURE_TURN 32768

static __always_inline int postgresql_sniff(const __u8 *p, __u32 n)
{
	__u32 size;

	(void)n; /* what is not there is zero */
	if (p[0] == 0) { /* before the first message: TLS, GSS, cancel, version 3 */
		if (p[1])
			return 0;
		if (p[4] == 0x04 && p[5] == 0xd2 && p[6] == 0x16 && p[7] >= 0x2e && p[7] <= 0x30)
			return 1;
		if (p[4] == 0 && p[5] == 3 && p[6] == 0 && (p[7] == 0 || p[7] == 2))
			return p[8] >= 'a' && p[8] <= 'z' && p[9] >= 'a' && p[9] <= 'z';
		return 0;
	}
	if (p[1] > 0x3f)
		return 0;
	size = (__u32)p[1] << 24 | (__u32)p[2] << 16 | (__u32)p[3] << 8 | p[4];
	if (size < 4)
		return 0;
	switch (p[0]) {
	case 'Q':
		return size > 4 && (p[5] >= ' ' || p[5] == '\t' || p[5] == '\n' || p[5] == '\r') && p[5] < 0x7f;
	case 'P':
	case 'B':
		return size > 5 && (p[5] == 0 || (p[5] > ' ' && p[5] < 0x7f));
	case 'p':
		return p[5] == 'S' && p[6] == 'C' && p[7] == 'R';
	case 'E':
		if (size == 9 && p[5] == 0)
			return 1;
		return p[5] == 'S' && (p[6] == 'E' || p[6] == 'F' || p[6] == 'P') ? 2 : 0;
	case 'R':
		return p[5] == 0 && p[6] == 0 && p[7] == 0 && p[8] < 13 ? 2 : 0;
	case 'Z':
		return size == 5 && (p[5] == 'I' || p[5] == 'T' || p[5] == 'E') ? 2 : 0;
	case '1':
	case '2':
	case '3':
	case 'n':
	case 'I':
	case 's':
		return size == 4 ? 2 : 0;
	case 'C':
		return size < 64 && p[5] >= 'A' && p[5] <= 'Z' ? 2 : 0;
	case 'T':
		return p[5] < 7 && size > 24 ? 2 : 0;
	case 't':
		return size == 6u + 4 * ((__u32)p[5] << 8 | p[6]) ? 2 : 0;
	}
	return 0;
}
