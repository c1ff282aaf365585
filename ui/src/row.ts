// Rows as the server sends them: nested by the dots of the column's name.
import { parseTime } from './format';

export interface Row {
  [name: string]: unknown;
}

const paths = new Map<string, string[]>();

/** The cell at a column's name, "source.address". */
export function cell(row: Row | undefined, name: string): unknown {
  let path = paths.get(name);
  if (!path) paths.set(name, (path = name.split('.')));
  let at: unknown = row;
  for (const part of path) {
    if (typeof at !== 'object' || at === null) return undefined;
    at = (at as Row)[part];
  }
  return at;
}

export function num(row: Row | undefined, name: string): number | undefined {
  const v = cell(row, name);
  return typeof v === 'number' ? v : undefined;
}

export function str(row: Row | undefined, name: string): string {
  const v = cell(row, name);
  return v === undefined || v === null || typeof v === 'object' ? '' : String(v);
}

export function list(row: Row | undefined, name: string): string[] {
  const v = cell(row, name);
  return Array.isArray(v) ? v.map(String) : [];
}

export function time(row: Row | undefined, name = 'time'): number {
  const v = cell(row, name);
  return typeof v === 'string' ? parseTime(v) : NaN;
}
