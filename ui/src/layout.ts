// Where the map's nodes stand: layers from left to right by dagre, and once a
// node has its place it keeps it.
import { Graph, layout } from './dagre';

export interface Point { x: number; y: number }
export interface Size { w: number; h: number }

export type Places = Map<string, Point>;
type Pair = { source: string; target: string };

const gapX = 116; // room for a label on an edge
const gapY = 16;
const tallest = 22; // nodes in one column before it is wrapped

/** Adds a place for each node that has none; forgets nothing, so that a node that comes back finds its place again. */
export function place(ids: readonly string[], edges: readonly Pair[], kept: Places, size: Size): Places {
  const fresh = ids.filter((id) => !kept.has(id));
  if (!fresh.length) return kept;
  const known = ids.length - fresh.length;
  if (known === 0 || fresh.length > known) return arranged(ids, edges, size); // mostly new: arrange all
  const out: Places = new Map(kept);
  for (const id of fresh) out.set(id, beside(id, edges, out, size));
  return out;
}

/** All of them, arranged afresh. */
export function arranged(ids: readonly string[], edges: readonly Pair[], size: Size): Places {
  const g = new Graph();
  g.setGraph({ rankdir: 'LR', nodesep: gapY, ranksep: gapX, edgesep: 8, acyclicer: 'greedy', ranker: ids.length > 120 ? 'longest-path' : 'network-simplex' });
  g.setDefaultEdgeLabel(() => ({}));
  for (const id of [...ids].sort()) g.setNode(id, { width: size.w, height: size.h });
  for (const e of edges) if (e.source !== e.target) g.setEdge(e.source, e.target);
  layout(g);
  const out: Places = new Map();
  for (const id of ids) {
    const n = g.node(id) as Point;
    out.set(id, { x: Math.round(n.x - size.w / 2), y: Math.round(n.y - size.h / 2) });
  }
  return wrapped(out, size);
}

/** Breaks columns that are too tall into several side by side. */
function wrapped(places: Places, size: Size): Places {
  const columns = new Map<number, string[]>();
  for (const [id, p] of places) columns.set(p.x, [...(columns.get(p.x) ?? []), id]);
  if (![...columns.values()].some((c) => c.length > tallest)) return places;
  const out: Places = new Map();
  const step = size.h + gapY;
  let x = 0;
  for (const [, ids] of [...columns].sort((a, b) => a[0] - b[0])) {
    ids.sort((a, b) => places.get(a)!.y - places.get(b)!.y);
    const parts = Math.ceil(ids.length / tallest);
    const rows = Math.ceil(ids.length / parts);
    ids.forEach((id, i) => {
      const inPart = Math.min(rows, ids.length - Math.floor(i / rows) * rows);
      out.set(id, { x: x + Math.floor(i / rows) * (size.w + 28), y: ((i % rows) - inPart / 2) * step });
    });
    x += parts * (size.w + 28) + gapX;
  }
  return out;
}

/** The free place nearest to where a neighbour would have it. */
function beside(id: string, edges: readonly Pair[], places: Places, size: Size): Point {
  const ups = edges.filter((e) => e.target === id && e.source !== id && places.has(e.source));
  const up = ups.sort((a, b) => places.get(b.source)!.x - places.get(a.source)!.x)[0]; // right of all its clients
  const down = edges.find((e) => e.source === id && places.has(e.target));
  const step = size.w + gapX;
  const near = up ? places.get(up.source)! : down ? places.get(down.target)! : { x: 0, y: 0 };
  const x = up ? near.x + step : down ? near.x - step : near.x;
  const rows = size.h + gapY;
  for (let i = 0; ; i++) {
    const y = near.y + (i % 2 ? 1 : -1) * Math.ceil(i / 2) * rows;
    if (isFree({ x, y }, places, size)) return { x, y };
  }
}

function isFree(p: Point, places: Places, size: Size): boolean {
  for (const q of places.values()) {
    if (Math.abs(q.x - p.x) < size.w + 12 && Math.abs(q.y - p.y) < size.h + gapY / 2) return false;
  }
  return true;
}

export function extent(places: Iterable<Point>, size: Size): { x: number; y: number; w: number; h: number } {
  let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
  for (const p of places) {
    x0 = Math.min(x0, p.x);
    y0 = Math.min(y0, p.y);
    x1 = Math.max(x1, p.x + size.w);
    y1 = Math.max(y1, p.y + size.h);
  }
  return x0 === Infinity ? { x: 0, y: 0, w: 1, h: 1 } : { x: x0, y: y0, w: x1 - x0, h: y1 - y0 };
}
