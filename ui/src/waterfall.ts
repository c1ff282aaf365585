// A trace made fit to draw: its spans as lines, those folded away left out,
// and which parts of each lie on the critical path.
import { num, str, type Row } from './row';
import type { PathPart } from './types';

export interface Trace {
  trace_id: string; time: string; duration_ns: number;
  spans: Row[] | null; // a parent before its children
  services: string[] | null; critical_path: PathPart[] | null; complete: boolean;
}

export interface Line {
  key: string; row: Row; level: number;
  from: number; took: number; // ns from the beginning of the trace
  children: number; // spans below it, at any depth
  critical: readonly PathPart[];
}

export function lines(t: Trace, folded: (key: string) => boolean): Line[] {
  const path = new Map<string, PathPart[]>();
  for (const p of t.critical_path ?? []) path.set(p.span_id, [...(path.get(p.span_id) ?? []), p]);
  const spans = t.spans ?? [];
  const depth = spans.map((s) => num(s, 'depth') ?? 0);
  const out: Line[] = [];
  let hidden = Infinity; // the level below which lines are folded away
  spans.forEach((row, i) => {
    const level = depth[i]!;
    if (level > hidden) return;
    let end = i + 1;
    while (end < spans.length && depth[end]! > level) end++;
    const key = str(row, 'trace.span_id') || String(i);
    out.push({ key, row, level, from: num(row, 'offset_ns') ?? 0, took: num(row, 'duration_ns') ?? 0, children: end - i - 1, critical: path.get(key) ?? [] });
    hidden = folded(key) ? level : Infinity;
  });
  return out;
}

/** Round moments between two, about so many. */
export function marks(from: number, to: number, about: number): number[] {
  const raw = (to - from) / Math.max(1, about);
  const size = 10 ** Math.floor(Math.log10(Math.max(1, raw)));
  const step = [1, 2, 5, 10].map((s) => s * size).find((s) => s >= raw) ?? raw;
  const out: number[] = [];
  for (let t = Math.ceil(from / step) * step; t <= to; t += step) out.push(t);
  return out;
}
