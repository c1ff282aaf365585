/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The kernel's twin of sniff.go, more generous: it does not know the commands. */

/* Pipelines put many commands into one write, and each has its length before it:
 * a hundred small ones are seen. More would fill the ring with large values. */
#define REDIS_CAPTURE_ASKS 4096
#define REDIS_CAPTURE_ANSWERS 4096
#define REDIS_CAPTURE_TURN 16384

static __always_inline int redis_digit(__u8 c)
{
	return c >= '0' && c <= '9';
}

/* redis_line returns where the line of digits at p[1] ends, 0 if it is none. */
static __always_inline int redis_line(const __u8 *p)
{
	if (!redis_digit(p[1]) && p[1] != '-')
		return 0;
	if (p[2] == '\r')
		return p[3] == '\n' ? 4 : 0;
	if (!redis_digit(p[2]))
		return 0;
	if (p[3] == '\r')
		return p[4] == '\n' ? 5 : 0;
	if (!redis_digit(p[3]))
		return 0;
	if (p[4] == '\r')
		return p[5] == '\n' ? 6 : 0;
	if (!redis_digit(p[4]))
		return 0;
	if (p[5] == '\r')
		return p[6] == '\n' ? 7 : 0;
	return redis_digit(p[5]) ? 7 : 0;
}

static __always_inline int redis_letter(__u8 c)
{
	c |= 0x20;
	return c >= 'a' && c <= 'z';
}

/* redis_word tells a command from what a subscriber is sent: "message". */
static __always_inline int redis_word(const __u8 *p)
{
	if (p[0] == 'm' && p[1] == 'e' && p[2] == 's' && p[3] == 's')
		return 2;
	return redis_letter(p[0]) ? 1 : 2;
}

static __always_inline int redis_sniff(const __u8 *p, __u32 n)
{
	(void)n; /* what is not there is zero */
	if (p[0] == '*') {
		if (!redis_line(p))
			return 0;
		/* *N $M NAME with N and M below 100 */
		if (p[3] == '\n' && p[4] == '$' && p[6] == '\r')
			return redis_word(p + 8);
		if (p[3] == '\n' && p[4] == '$' && p[7] == '\r')
			return redis_word(p + 9);
		if (p[4] == '\n' && p[5] == '$' && p[7] == '\r')
			return redis_word(p + 9);
		if (p[4] == '\n' && p[5] == '$' && p[8] == '\r')
			return redis_word(p + 10);
		return 2;
	}
	if (p[0] == '$' || p[0] == ':' || p[0] == '%' || p[0] == '~' || p[0] == '>' || p[0] == '=' || p[0] == '!' || p[0] == '|')
		return redis_line(p) ? 2 : 0;
	if (p[0] == '_')
		return p[1] == '\r' && p[2] == '\n' ? 2 : 0;
	if (p[0] == '#')
		return (p[1] == 't' || p[1] == 'f') && p[2] == '\r' ? 2 : 0;
	if (p[0] == '-') /* others say -ERR too */
		return redis_letter(p[1]) && redis_letter(p[2]) && redis_letter(p[3]) && !(p[1] & 0x20) && !(p[1] == 'E' && p[2] == 'R') ? 2 : 0;
	if (p[0] == '+')
		return p[1] == 'P' && p[2] == 'O' && p[3] == 'N' && p[4] == 'G' ? 2 : 0;
	return 0;
}
