// The process tree of a moment, made of the newest record of each execution.
import { moment } from './format';
import { num, str, time, type Row } from './row';

export interface Proc {
  id: string; // the execution
  row: Row;
  parent: Proc | undefined;
  children: Proc[];
  level: number;
  hit: boolean; // it matches the filter; others are there to show where it hangs
  exit: Row | undefined; // its end, if that is in the range
  endedBefore: boolean; // gone at the moment that is shown
}

export const idOf = (row: Row): string => str(row, 'process.exec_id') || str(row, 'process.pid');
const startOf = (row: Row) => num(row, 'process.start_ns') ?? 0;

/** An execution that was followed by another of the same process is not shown beside it. */
function newestOfEach(rows: readonly Row[]): Row[] {
  const by = new Map<string, Row>();
  for (const row of rows) {
    const key = `${str(row, 'process.pid')}.${startOf(row)}`;
    const had = by.get(key);
    if (!had || time(row) >= time(had)) by.set(key, row);
  }
  return [...by.values()];
}

/** Builds the tree; roots first, children in the order they started. */
export function grow(alive: readonly Row[], ended: readonly Row[], exits: ReadonlyMap<string, Row>, hits: ReadonlySet<string> | undefined): Proc[] {
  const all: Proc[] = [];
  const byExec = new Map<string, Proc>();
  const byPID = new Map<number, Proc>();
  const put = (row: Row, endedBefore: boolean) => {
    const id = idOf(row);
    if (byExec.has(id)) return;
    const p: Proc = { id, row, parent: undefined, children: [], level: 0, hit: !hits || hits.has(id), exit: exits.get(id), endedBefore };
    all.push(p);
    byExec.set(id, p);
    if (!endedBefore) byPID.set(num(row, 'process.pid') ?? -1, p);
  };
  for (const row of newestOfEach(alive)) put(row, false);
  for (const row of ended) put(row, true);
  for (const p of all) {
    const parent = byExec.get(str(p.row, 'process.parent.exec_id')) ?? byPID.get(num(p.row, 'process.parent_pid') ?? -1);
    if (parent && parent !== p && !above(parent, p)) {
      p.parent = parent;
      parent.children.push(p);
    }
  }
  for (const p of all) p.children.sort((a, b) => startOf(a.row) - startOf(b.row));
  const roots = all.filter((p) => !p.parent).sort((a, b) => startOf(a.row) - startOf(b.row));
  return hits ? roots.filter(keepHits) : roots;
}

/** Whether p hangs above q already: a loop in the data must not become one here. */
function above(q: Proc, p: Proc): boolean {
  for (let at: Proc | undefined = q; at; at = at.parent) if (at === p) return true;
  return false;
}

function keepHits(p: Proc): boolean {
  p.children = p.children.filter(keepHits);
  return p.hit || p.children.length > 0;
}

/** The lines of the tree, without what is folded. */
export function lines(roots: readonly Proc[], open: (p: Proc) => boolean): Proc[] {
  const out: Proc[] = [];
  const walk = (p: Proc, level: number) => {
    p.level = level;
    out.push(p);
    if (open(p)) for (const c of p.children) walk(c, level + 1);
  };
  for (const r of roots) walk(r, 0);
  return out;
}

export function ancestors(p: Proc): Proc[] {
  const out: Proc[] = [];
  for (let at = p.parent; at; at = at.parent) out.unshift(at);
  return out;
}

export function descendants(p: Proc): number {
  return p.children.reduce((n, c) => n + 1 + descendants(c), 0);
}

/** Wall time of the boot, from the record that was made nearest to its process's start. */
export function bootTime(rows: readonly Row[]): number {
  return rows.reduce((least, r) => Math.min(least, time(r) - startOf(r) / 1e6), Infinity);
}

const signals: Record<number, string> = { 1: 'HUP', 2: 'INT', 3: 'QUIT', 4: 'ILL', 6: 'ABRT', 7: 'BUS', 8: 'FPE', 9: 'KILL', 11: 'SEGV', 13: 'PIPE', 14: 'ALRM', 15: 'TERM', 24: 'XCPU', 31: 'SYS' };

/** How it ended, in words. */
export function exitWords(row: Row): string {
  const signal = num(row, 'process.exit.signal') ?? 0;
  if (signal) return signals[signal] ? `SIG${signals[signal]}` : `signal ${signal}`;
  return `exit ${num(row, 'process.exit.code') ?? 0}`;
}

export const failed = (row: Row): boolean => (num(row, 'process.exit.signal') ?? 0) !== 0 || (num(row, 'process.exit.code') ?? 0) !== 0;
export const exitMoment = (row: Row): string => moment(time(row));
