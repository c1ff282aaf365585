/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The kernel's twin of sniff.go. */

/* The database stands behind filters; errors are short. */
#define MONGODB_CAPTURE_ASKS 1024
#define MONGODB_CAPTURE_ANSWERS 512

static __always_inline int mongodb_sniff(const __u8 *p, __u32 n)
{
	int answers;

	if (n < 17 || p[3] > 2 || p[14] || p[15] || (!p[1] && !p[2] && !p[3] && p[0] < 26))
		return 0;
	answers = p[8] || p[9] || p[10] || p[11];
	if (p[12] == 0xdd && p[13] == 7) /* OP_MSG: its flags */
		return (p[16] & 0xfc) || p[17] || (p[18] & 0xfe) || p[19] || p[20] > 1 ? 0 : 1 + answers;
	if (p[12] == 0xdc && p[13] == 7) /* OP_COMPRESSED: which compressor */
		return p[24] > 3 ? 0 : 1 + answers;
	if (p[12] == 0xd4 && p[13] == 7) /* OP_QUERY */
		return answers || p[17] || p[18] || p[19] ? 0 : 1;
	if (p[12] == 1 && !p[13]) /* OP_REPLY */
		return !answers || p[16] > 15 || p[17] || p[18] || p[19] ? 0 : 2;
	return 0;
}
