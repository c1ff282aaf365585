// Numbers and times as a person reads them: three significant digits with a
// unit; the exact value goes into the title beside.

const space = '\u00a0';

/** Three significant digits, no exponent, no trailing zeros. */
export function significant(n: number): string {
  const a = Math.abs(n);
  if (a >= 100 || a === 0) return String(Math.round(n));
  const digits = a >= 10 ? 1 : a >= 1 ? 2 : Math.min(6, 2 - Math.floor(Math.log10(a)));
  return String(Number(n.toFixed(digits)));
}

function scaled(n: number, units: readonly (readonly [number, string])[]): string {
  for (const [size, unit] of units) {
    // 999.6 would print as 1000: take the next unit up instead.
    if (Math.abs(n) >= size * 0.9995) return significant(n / size) + (unit && space + unit);
  }
  const [size, unit] = units[units.length - 1]!;
  return significant(n / size) + (unit && space + unit);
}

const byteUnits = [[1e12, 'TB'], [1e9, 'GB'], [1e6, 'MB'], [1e3, 'kB'], [1, 'B']] as const;
const durationUnits = [[86400e9, 'd'], [3600e9, 'h'], [60e9, 'min'], [1e9, 's'], [1e6, 'ms'], [1e3, 'µs'], [1, 'ns']] as const;
const countUnits = [[1e9, 'G'], [1e6, 'M'], [1, '']] as const;

export const bytes = (n: number): string => (n === 0 ? `0${space}B` : scaled(Math.round(n), byteUnits));
export const rate = (n: number): string => (n < 1 ? `0${space}B/s` : scaled(n, byteUnits) + '/s');
export const duration = (ns: number): string => (ns === 0 ? '0' : scaled(ns, durationUnits));
export const percent = (n: number): string => (n > 0 && n < 0.01 ? `<${space}0.01${space}%` : significant(n) + space + '%');

/** Counts stay exact up to a million, with separators. */
export const count = (n: number): string => (Math.abs(n) < 1e6 ? grouped(Math.round(n)) : scaled(n, countUnits));

export const grouped = (n: number): string => n.toLocaleString('en-US', { maximumFractionDigits: 3 });
export const exactBytes = (n: number): string => `${grouped(n)} bytes`;
export const exactDuration = (ns: number): string => `${grouped(ns)} ns`;

export const plural = (n: number, one: string, many = one + 's'): string => `${count(n)} ${n === 1 ? one : many}`;

const two = (n: number) => String(n).padStart(2, '0');

/** Milliseconds since 1970 with the nanoseconds kept as fraction. */
export function parseTime(text: string): number {
  const ms = Date.parse(text);
  const sub = /\.\d{3}(\d{1,6})/.exec(text);
  return sub ? ms + Number(sub[1]!.padEnd(6, '0')) / 1e6 : ms;
}

/** Local time of day with milliseconds. */
export function clock(ms: number, fraction = true): string {
  const d = new Date(ms);
  const text = `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
  return fraction ? `${text}.${String(d.getMilliseconds()).padStart(3, '0')}` : text;
}

export function day(ms: number): string {
  const d = new Date(ms);
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}`;
}

const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** Time of day, with the day where it is not today and the year where it is another. */
export function moment(ms: number, now = Date.now()): string {
  const d = new Date(ms);
  if (day(ms) === day(now)) return clock(ms, false);
  const year = d.getFullYear() === new Date(now).getFullYear() ? '' : ` ${d.getFullYear()}`;
  return `${months[d.getMonth()]} ${d.getDate()}${year} ${clock(ms, false)}`;
}

/** "12 s", "3 min": how long ago. */
export const ago = (ms: number, now = Date.now()): string => duration(Math.max(0, Math.round((now - ms) / 1000)) * 1e9 || 0);

/** Nanoseconds since 1970, none lost. */
export function nanos(text: string): bigint {
  const whole = Math.floor(Date.parse(text) / 1000);
  const part = /\.(\d{1,9})/.exec(text)?.[1] ?? '';
  return BigInt(whole) * 1_000_000_000n + BigInt(part.padEnd(9, '0'));
}

/** The same as a time of RFC 3339. */
export function isoNanos(ns: bigint): string {
  const text = new Date(Number(ns / 1_000_000n)).toISOString();
  return `${text.slice(0, 19)}.${String(ns % 1_000_000_000n).padStart(9, '0')}Z`;
}

/** A share of 0 to 1. */
export const share = (n: number): string => percent(n * 100);

/** "12.3/s": how often. */
export const frequency = (perSecond: number): string => (perSecond === 0 ? '0/s' : `${perSecond < 0.001 ? '<0.001' : scaled(perSecond, [[1e6, 'M'], [1e3, 'k'], [1, '']])}/s`);
