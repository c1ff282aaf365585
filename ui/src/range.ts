// Time ranges in words: "15m", "last 2 hours", "10:00 - 10:30", "since 09:00",
// "today", or two RFC 3339 times.
import { clock, day, moment } from './format';

/** What the URL and the API hold. No until means: live, up to now. */
export interface Range {
  since: string;
  until: string;
}

export const defaultSince = '15m';
export const presets = ['1m', '5m', '15m', '1h', '6h', '24h', '2d'] as const;

const unitMs: Record<string, number> = { s: 1e3, m: 60e3, h: 3600e3, d: 86400e3, w: 7 * 86400e3 };
const unitWord: Record<string, string> = { s: 's', m: 'min', h: 'h', d: 'd', w: 'w' };

/** The length of "15m", "1h30m"; NaN if it is none. */
export function spanMs(text: string): number {
  if (!/^(\d+(\.\d+)?[smhdw])+$/.test(text)) return NaN;
  let ms = 0;
  for (const [, n, unit] of text.matchAll(/(\d+(?:\.\d+)?)([smhdw])/g)) ms += Number(n) * unitMs[unit!]!;
  return ms;
}

/** Both ends in milliseconds. */
export function bounds(r: Range, now = Date.now()): [number, number] {
  const at = (text: string, fallback: number) => {
    const span = spanMs(text);
    return Number.isNaN(span) ? Date.parse(text) || fallback : now - span;
  };
  const until = r.until ? at(r.until, now) : now;
  return [at(r.since, until - 15 * 60e3), until];
}

export function words(r: Range): string {
  const span = spanMs(r.since);
  if (!r.until && !Number.isNaN(span)) return `last ${r.since.replace(/[smhdw]/g, (u) => ` ${unitWord[u]} `).trim()}`;
  const [from, to] = bounds(r);
  if (!r.until) return `since ${moment(from)}`;
  const end = day(from) === day(to) ? clock(to, false) : moment(to);
  return `${moment(from)} – ${end}`;
}

const wordUnits: [RegExp, string][] = [
  [/^s(ec(ond)?s?)?$/, 's'], [/^m(in(ute)?s?)?$/, 'm'], [/^h(ours?|rs?)?$/, 'h'], [/^d(ays?)?$/, 'd'], [/^w(eeks?)?$/, 'w'],
];

function timeOfDay(text: string, now: number): number {
  const m = /^(?:(\d{4}-\d\d-\d\d)[ T])?(\d{1,2}):(\d\d)(?::(\d\d))?$/.exec(text.trim());
  if (!m) return Date.parse(text.trim());
  const d = m[1] ? new Date(`${m[1]}T00:00:00`) : new Date(now);
  d.setHours(Number(m[2]), Number(m[3]), Number(m[4] ?? 0), 0);
  if (!m[1] && d.getTime() > now) d.setDate(d.getDate() - 1); // 23:50 said at 00:10 is yesterday's
  return d.getTime();
}

/** Reads words; undefined if they make no range. */
export function read(text: string, now = Date.now()): Range | undefined {
  const t = text.trim().toLowerCase().replace(/^last\s+/, '');
  if (!Number.isNaN(spanMs(t))) return { since: t, until: '' };
  const span = /^(\d+)?\s*([a-z]+)$/.exec(t);
  const unit = span && wordUnits.find(([re]) => re.test(span[2]!))?.[1];
  if (unit) return { since: `${span[1] ?? 1}${unit}`, until: '' };
  if (t === 'today') return { since: new Date(new Date(now).setHours(0, 0, 0, 0)).toISOString(), until: '' };
  if (t.startsWith('since ')) {
    const from = timeOfDay(text.trim().slice(6), now);
    return Number.isNaN(from) ? undefined : { since: new Date(from).toISOString(), until: '' };
  }
  const ends = text.split(/\s+(?:-|–|to|until)\s+|\s*–\s*/);
  if (ends.length !== 2) return undefined;
  const [from, to] = [timeOfDay(ends[0]!, now), timeOfDay(ends[1]!, now)];
  if (!(from < to)) return undefined;
  return { since: new Date(from).toISOString(), until: new Date(to).toISOString() };
}
