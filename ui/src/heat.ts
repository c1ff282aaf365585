// The latency heatmap as numbers: which cells there are and what each counts.
// Rows that are too thin to see are joined; no count is ever rounded.
import { isoNanos, nanos } from './format';

/** What the agent answers. Bounds lie four to an octave; the first row has its lower bound where one more would lie. */
export interface Heatmap {
  from: string; to: string; step_ns: number;
  bounds_ns: number[] | null;
  counts: number[][]; // by step, then by row
  errors: number[][];
  complete: boolean;
}

export interface Cell { column: number; band: number; requests: number; errors: number }

/** A step of latency: low <= duration < high, in nanoseconds. */
export interface Band { low: number; high: number }

export interface Grid {
  from: bigint; step: bigint; columns: number;
  bands: Band[]; // from fast to slow
  cells: Cell[]; // those that count something, by time, then from fast to slow
  most: number; requests: number; errors: number;
}

/** A part of the heatmap, by its first and last cell each way. */
export interface Area { left: number; right: number; low: number; high: number }

/** The same in times and durations: what the URL holds. */
export interface Box { since: string; until: string; low: number; high: number }

export const lower = (bound: number): number => bound - 2 ** Math.floor(Math.log2(bound - 1)) / 4;
export const higher = (bound: number): number => bound + 2 ** Math.floor(Math.log2(bound)) / 4;

const fastest = 1024; // ns
const fewest = 16; // rows: a narrow range of latency is not blown up

export function grid(h: Heatmap, most: number): Grid {
  const bounds = [...(h.bounds_ns ?? [])];
  let shift = 0;
  while (bounds.length && bounds.length < fewest) {
    bounds.push(higher(bounds[bounds.length - 1]!));
    if (bounds.length < fewest && bounds[0]! > 8) { bounds.unshift(lower(bounds[0]!)); shift++; }
  }
  // What is too fast to be told apart stands in one row, else it would stretch the scale.
  const fast = bounds.filter((b) => b <= fastest).length;
  const first = fast < bounds.length ? Math.max(1, fast) : 1;
  const joined = Math.max(1, Math.ceil((bounds.length - first) / Math.max(1, most - 1)));
  const bandOf = (row: number) => (row < first ? 0 : first > 1 ? 1 + Math.floor((row - first) / joined) : Math.floor(row / joined));
  const bands: Band[] = [];
  bounds.forEach((high, i) => {
    const band = bandOf(i);
    bands[band] = { low: bands[band]?.low ?? (i ? bounds[i - 1]! : lower(high)), high };
  });
  const g: Grid = { from: nanos(h.from), step: BigInt(h.step_ns), columns: h.counts.length, bands, cells: [], most: 0, requests: 0, errors: 0 };
  h.counts.forEach((counts, column) => {
    let cell: Cell | undefined;
    counts.forEach((n, row) => {
      if (!n) return;
      const band = bandOf(row + shift);
      if (cell?.band !== band) g.cells.push((cell = { column, band, requests: 0, errors: 0 }));
      cell.requests += n;
      cell.errors += h.errors[column]![row]!;
      g.most = Math.max(g.most, cell.requests);
    });
  });
  for (const c of g.cells) {
    g.requests += c.requests;
    g.errors += c.errors;
  }
  return g;
}

export const startOf = (g: Grid, column: number): bigint => g.from + BigInt(column) * g.step;
export const msOf = (g: Grid, column: number): number => Number(startOf(g, column) / 1000n) / 1000;

/** What an area counts. */
export function within(g: Grid, a: Area): { requests: number; errors: number } {
  let [requests, errors] = [0, 0];
  for (const c of g.cells) {
    if (c.column < a.left || c.column > a.right || c.band < a.low || c.band > a.high) continue;
    requests += c.requests;
    errors += c.errors;
  }
  return { requests, errors };
}

export function boxOf(g: Grid, a: Area): Box {
  return { since: isoNanos(startOf(g, a.left)), until: isoNanos(startOf(g, a.right + 1)), low: g.bands[a.low]!.low, high: g.bands[a.high]!.high };
}

export const boxText = (b: Box): string => [b.since, b.until, b.low, b.high].join('~');

export function readBox(text: string): Box | undefined {
  const [since = '', until = '', low, high] = text.split('~');
  const b = { since, until, low: Number(low), high: Number(high) };
  return Number.isNaN(Date.parse(since)) || Number.isNaN(Date.parse(until)) || !(b.low < b.high) ? undefined : b;
}

/** The terms that stand for a box's latency, told exactly. */
export const boxTerms = (b: Box): string => `slower:${b.low}ns faster:${b.high}ns`;

/** Where a duration stands: 0 at the fastest edge, 1 at the slowest; each row takes the same room. */
export function height(g: Grid, ns: number): number {
  const found = g.bands.findIndex((b) => ns < b.high);
  if (found < 0) return 1;
  const b = g.bands[found]!;
  return (found + Math.max(0, Math.log2(ns / b.low)) / Math.log2(b.high / b.low)) / g.bands.length;
}

/** Where a time stands: 0 at the left edge, 1 at the right. */
export const along = (g: Grid, ms: number): number => (ms - msOf(g, 0)) / (msOf(g, g.columns) - msOf(g, 0));

/** Round durations within the grid: 1, 10, 100 of each unit, and their thirds where there is room. */
export function ticks(g: Grid): number[] {
  const [fast, last] = [g.bands[0]!, g.bands[g.bands.length - 1]!.high];
  const first = fast.high > 4 * fast.low ? fast.high : fast.low; // a row of many octaves has no room for them
  const all = (steps: number[]) => {
    const out: number[] = [];
    for (let decade = 1; decade <= last; decade *= 10) for (const s of steps) if (decade * s >= first && decade * s <= last) out.push(decade * s);
    return out;
  };
  const coarse = all([1]);
  return coarse.length >= 3 ? coarse : all([1, 3]);
}

const timeSteps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400].map((s) => s * 1000);

/** Round local times between two, at most so many. */
export function timeTicks(from: number, to: number, most: number): number[] {
  const step = timeSteps.find((s) => (to - from) / s <= most) ?? 7 * 86400e3;
  const zone = new Date(from).getTimezoneOffset() * 60e3;
  const out: number[] = [];
  for (let t = Math.ceil((from - zone) / step) * step + zone; t <= to; t += step) out.push(t);
  return out;
}
