// Map: who talks to whom, from clients on the left to stores on the right.
import { signal, useSignal } from '@preact/signals';
import { useEffect, useLayoutEffect, useMemo, useRef } from 'preact/hooks';
import { narrow } from './agent';
import { get, useAnswer } from './api';
import { appliedToMap, seen } from './filterbar';
import { count, duration, exactBytes, exactDuration, bytes, frequency, grouped, plural, rate, share } from './format';
import { broken, build, dropsOnly, manyOutside, neighbourhood, trouble, type Edge, type Graph, type Node } from './graph';
import { pageKey } from './keys';
import { arranged, extent, place, type Places, type Point, type Size } from './layout';
import { EdgePanel, NodePanel } from './mappanel';
import { CellValue, Check, Empty, Incomplete, Problem, Sign } from './parts';
import { filter, live, param, range, set } from './route';
import { bounds } from './range';
import { sorted, Table, type Column } from './table';
import type { MapEdge, ServiceMap } from './types';

const roomy: Size = { w: 172, h: 46 };
const dense: Size = { w: 212, h: 34 };
const denseFrom = 50;

// Places outlive the page: going to Flows and back moves nothing.
const places = new Map<string, Places>();

function sizeFor(n: number): Size {
  return n > denseFrom ? dense : roomy;
}

/** Long ranges cost the agent more: they are asked for less often. */
function interval(): number {
  if (!live.value) return 0;
  const [from, to] = bounds(range.value);
  return to - from > 3600e3 ? 15_000 : to - from > 20 * 60e3 ? 5000 : 2000;
}

export function MapPage() {
  const { since, until } = range.value;
  const asked = appliedToMap();
  const key = `${asked}|${since}|${until}`;
  const answer = useAnswer<ServiceMap>(key, (stop) => get('map', { filter: asked, since, until }, stop), interval());
  const m = answer.data;
  const fold = param('fold') ? param('fold') === 'on' : m ? manyOutside(m) : true;
  const drops = param('drops') === 'on';
  const focus = param('focus');
  const whole = useMemo(() => (m ? build(m, fold, drops) : undefined), [m, fold, drops]);
  const graph = useMemo(() => (whole && focus ? neighbourhood(whole, focus) : whole), [whole, focus]);
  const seconds = (m?.window_ns ?? 0) / 1e9 || 1;
  const asTable = (param('view') || (narrow.value ? 'table' : 'map')) === 'table';
  useEffect(() => {
    seen.values = (field) => (['service', 'peer', 'service.name', 'peer.service.name'].includes(field) ? [...(whole?.nodes.values() ?? [])].filter((n) => n.kind === 'service').map((n) => n.name) : []);
  }, [whole]);

  const escape = () => {
    if (param('select')) return set({ select: '' }), true;
    if (focus) return set({ focus: '' }), true;
    if (param('q')) return set({ q: '' }, true), true;
    return false;
  };
  useEffect(() => {
    const handle = (e: KeyboardEvent) => (e.key === 'Escape' ? escape() : mapKeys.handle?.(e) ?? false);
    pageKey.handle = handle;
    return () => { if (pageKey.handle === handle) pageKey.handle = undefined; };
  });

  return (
    <>
      <section class="content" aria-label="Map">
        <Toolbar answer={m} graph={graph} whole={whole} fold={fold} asTable={asTable} />
        {answer.error && <Problem error={answer.error} retry={answer.retry} stale={m !== undefined} />}
        {!graph && !answer.error && <Empty title="Asking the agent…" />}
        {graph && graph.nodes.size === 0 && <Nothing />}
        {graph && graph.nodes.size > 0 && (asTable
          ? <EdgeTable graph={graph} seconds={seconds} />
          : <Drawing key={`${focus}|${fold}`} name={`${focus}|${fold}`} graph={graph} seconds={seconds} />)}
      </section>
      <Selected graph={whole} windowNS={m?.window_ns ?? 0} />
    </>
  );
}

function Selected(props: { graph: Graph | undefined; windowNS: number }) {
  const id = param('select');
  const g = props.graph;
  if (!id || !g) return null;
  const edge = id.startsWith('edge:') ? g.edges.get(id.slice(5)) : undefined;
  if (edge) return <EdgePanel key={id} edge={edge} graph={g} windowNS={props.windowNS} />;
  const node = id.startsWith('node:') ? g.nodes.get(id.slice(5)) : undefined;
  return <NodePanel key={id} id={id.replace(/^\w+:/, '')} node={node} graph={g} windowNS={props.windowNS} />;
}

function Nothing() {
  if (filter.value) return <Empty title="Nothing in this range matches the filter."><p>Widen the time range (<kbd>t</kbd>), or <button type="button" class="plain link" onClick={() => set({ filter: '' })}>clear the filter</button>.</p></Empty>;
  return <Empty title="Nobody talks yet."><p>Try <code>curl localhost:8080</code>: both ends show here within five seconds.</p></Empty>;
}

function Toolbar(props: { answer: ServiceMap | undefined; graph: Graph | undefined; whole: Graph | undefined; fold: boolean; asTable: boolean }) {
  const { graph, whole, fold, asTable, answer } = props;
  const focus = param('focus');
  const talking = new Set((answer?.edges ?? []).filter((e) => param('drops') === 'on' || !dropsOnly(e)).flatMap((e) => [e.source, e.target]));
  const outside = (answer?.nodes ?? []).filter((n) => n.kind === 'external' && talking.has(n.id)).length;
  const failing = [...(graph?.edges.values() ?? [])].filter(trouble).length;
  return (
    <div class="toolbar">
      <input class="search" type="search" aria-label="Search the map" placeholder="search a service" value={param('q')} onInput={(e) => set({ q: e.currentTarget.value }, true)}
        onKeyDown={(e) => { if (e.key === 'Enter' && whole) firstMatch(whole); if (e.key === 'Escape') e.currentTarget.blur(); }} />
      {graph && !focus && !param('select') && <span class="dim only-wide">{plural(graph.nodes.size, 'node')}, {plural(graph.edges.size, 'edge')}</span>}
      {failing > 0 && <span class="bad"><Sign mark="error" /> {plural(failing, 'edge')} with failures</span>}
      <Incomplete complete={answer?.complete} />
      {focus && <button type="button" class="focused" title="back to the whole map (esc)" onClick={() => set({ focus: '' })}>around {whole?.nodes.get(focus)?.name ?? focus} <span class="dim">×</span></button>}
      <span class="grow" />
      {outside > 0 && <Check on={fold} title="peers outside of this host: as one node, or each by its address" flip={() => set({ fold: fold ? 'off' : 'on', select: '' }, true)}>fold {count(outside)} outside</Check>}
      {(answer?.edges ?? []).some(dropsOnly) && <Check on={param('drops') === 'on'} title="show pairs of which only packets are known that the kernel dropped" flip={() => set({ drops: param('drops') === 'on' ? '' : 'on' }, true)}>drops</Check>}
      {!asTable && <button type="button" class="only-wide" title="arrange everything afresh" onClick={() => { places.clear(); tidied.value++; }}>Tidy</button>}
      <button type="button" aria-pressed={asTable} onClick={() => set({ view: asTable ? 'map' : 'table' }, true)}>{asTable ? 'Map' : 'Table'}</button>
    </div>
  );
}

const tidied = signal(0);

const matching = (n: Node, q: string) => n.name.toLowerCase().includes(q.toLowerCase());

function firstMatch(g: Graph): void {
  const hit = [...g.nodes.values()].find((n) => matching(n, param('q')));
  if (hit) set({ select: `node:${hit.id}` });
}

// ---- the drawing

/** Keys of the drawing that is on screen. */
const mapKeys: { handle: ((e: KeyboardEvent) => boolean) | undefined } = { handle: undefined };

interface View { x: number; y: number; k: number }

function fit(box: { x: number; y: number; w: number; h: number }, w: number, h: number): View {
  const margin = 32;
  const k = Math.max(0.5, Math.min(1.1, (w - 2 * margin) / box.w, (h - 2 * margin) / box.h));
  const center = (size: number, room: number, at: number) => (size * k < room - margin ? (room - size * k) / 2 - at * k : margin - at * k);
  return { k, x: center(box.w, w, box.x), y: center(box.h, h, box.y) };
}

function Drawing(props: { name: string; graph: Graph; seconds: number }) {
  const { name, graph, seconds } = props;
  const size = sizeFor(graph.nodes.size);
  const at = useMemo(() => {
    const ids = [...graph.nodes.keys()];
    const edges = [...graph.edges.values()];
    const had = places.get(name);
    const now = had ? place(ids, edges, had, size) : arranged(ids, edges, size);
    places.set(name, now);
    return now;
  }, [graph, name, size, tidied.value]);
  const box = useRef<HTMLDivElement>(null);
  const view = useSignal<View>({ x: 0, y: 0, k: 1 });
  const active = useSignal('');
  const hovered = useSignal('');
  const touched = useRef(false); // once a person moved the view, it stays theirs

  const all = () => {
    const el = box.current!;
    const space = extent([...graph.nodes.keys()].map((id) => at.get(id)!), size);
    view.value = fit({ ...space, h: space.h + 40 }, el.clientWidth, el.clientHeight); // 40: edges that go back run below

  };
  useLayoutEffect(() => { touched.current = false; all(); }, [tidied.value]);
  useLayoutEffect(() => {
    // A panel that opens takes room, but moves nothing; a window that changes does.
    const watch = new ResizeObserver(() => { if (!touched.current && !param('select')) all(); });
    watch.observe(box.current!);
    return () => watch.disconnect();
  }, [graph]);

  const zoom = (by: number, cx: number, cy: number) => {
    const v = view.value;
    const k = Math.max(0.2, Math.min(2.5, v.k * by));
    touched.current = true;
    view.value = { k, x: cx - ((cx - v.x) / v.k) * k, y: cy - ((cy - v.y) / v.k) * k };
  };
  const drag = useDrag(view, touched, zoom);

  const ids = useMemo(() => ordered(graph, at), [graph, at]);
  const activate = (id: string) => {
    active.value = id;
    box.current?.querySelector<HTMLElement>(`[data-node="${CSS.escape(id)}"]`)?.focus({ preventScroll: true });
    showNode(id);
    if (param('select').startsWith('node:')) set({ select: `node:${id}` }, true);
  };
  const showNode = (id: string) => {
    const p = at.get(id);
    const el = box.current;
    if (!p || !el) return;
    const v = view.value;
    const [x, y] = [p.x * v.k + v.x, p.y * v.k + v.y];
    if (x < 0 || y < 0 || x + size.w * v.k > el.clientWidth || y + size.h * v.k > el.clientHeight) {
      touched.current = true;
      view.value = { k: v.k, x: el.clientWidth / 2 - (p.x + size.w / 2) * v.k, y: el.clientHeight / 2 - (p.y + size.h / 2) * v.k };
    }
  };
  const keys = (e: KeyboardEvent): boolean => {
    const el = box.current!;
    const i = ids.indexOf(active.value);
    switch (e.key) {
      case 'j': activate(ids[Math.min(ids.length - 1, i + 1)]!); return true;
      case 'k': activate(ids[Math.max(0, i - 1)]!); return true;
      case '+': case '=': zoom(1.25, el.clientWidth / 2, el.clientHeight / 2); return true;
      case '-': zoom(0.8, el.clientWidth / 2, el.clientHeight / 2); return true;
      case '0': touched.current = false; all(); return true;
      case 'ArrowLeft': case 'ArrowRight': case 'ArrowUp': case 'ArrowDown': {
        const next = toward(e.key, active.value, ids, at);
        if (next) activate(next);
        return true;
      }
      case 'Enter': if (i < 0) return false; openAndFocus(active.value); return true;
      case ' ': if (i < 0) return false; set({ select: `node:${active.value}` }); return true;
    }
    return false;
  };
  useEffect(() => {
    mapKeys.handle = keys;
    return () => { mapKeys.handle = undefined; };
  });
  useEffect(() => {
    document.addEventListener('click', onSecondClick, true);
    return () => document.removeEventListener('click', onSecondClick, true);
  }, []);
  useEffect(() => { // a link with a selection shows it
    const id = param('select').replace(/^node:/, '');
    if (graph.nodes.has(id)) showNode(id);
  }, [param('select')]);

  const v = view.value;
  const few = graph.edges.size <= 36;
  const lit = hovered.value || param('select');
  const q = param('q');
  return (
    <div
      ref={box} class={`drawing ${size === dense ? 'dense' : ''}`} role="group" aria-label="Map of services; the button Table shows the same as a table" {...drag}
      style={{ '--k': String(v.k) }}
    >
      <div class="worldbox" style={{ transform: `translate(${v.x}px, ${v.y}px) scale(${v.k})` }}>
        <Edges graph={graph} seconds={seconds} at={at} size={size} lit={lit} labels={few} hover={(id) => (hovered.value = id)} />
        {ids.map((id, i) => (
          <NodeBox key={id} node={graph.nodes.get(id)!} seconds={seconds} at={at.get(id)!} size={size} tab={active.value ? id === active.value : i === 0}
            selected={param('select') === `node:${id}`} faded={q !== '' && !matching(graph.nodes.get(id)!, q)}
            onFocus={() => (active.value = id)} onHover={(on) => (hovered.value = on ? `node:${id}` : '')} />
        ))}
      </div>
      <Legend />
    </div>
  );
}

/** The first half of a double click. The panel that it opens may push the node from under the pointer, so the second half is told by time and place, not by target. */
let clicked: { id: string; time: number; x: number; y: number } | undefined;

function onNodeClick(e: MouseEvent, id: string): void {
  clicked = { id, time: e.timeStamp, x: e.clientX, y: e.clientY };
  set({ select: `node:${id}` });
}

function onSecondClick(e: MouseEvent): void {
  const first = clicked;
  clicked = undefined;
  if (!first || e.timeStamp - first.time > 450 || Math.hypot(e.clientX - first.x, e.clientY - first.y) > 8) return;
  e.stopPropagation();
  e.preventDefault();
  openAndFocus(first.id);
}

function openAndFocus(id: string): void {
  set({ select: `node:${id}`, focus: id });
}

/** From left to right, then from top to bottom: the order of j and k. */
function ordered(g: Graph, at: Places): string[] {
  return [...g.nodes.keys()].sort((a, b) => at.get(a)!.x - at.get(b)!.x || at.get(a)!.y - at.get(b)!.y);
}

function toward(key: string, from: string, ids: readonly string[], at: Places): string | undefined {
  const p = at.get(from);
  if (!p) return ids[0];
  const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key]!;
  let best: string | undefined;
  let cost = Infinity;
  for (const id of ids) {
    const q = at.get(id)!;
    const [ax, ay] = [q.x - p.x, q.y - p.y];
    const along = ax * dx! + ay * dy!;
    const across = Math.abs(ax * dy!) + Math.abs(ay * dx!);
    if (along <= 1) continue;
    if (along + 3 * across < cost) [best, cost] = [id, along + 3 * across];
  }
  return best;
}

/** Dragging moves the view, the wheel and two fingers bring it nearer. */
function useDrag(view: { value: View }, touched: { current: boolean }, zoom: (by: number, x: number, y: number) => void) {
  const pointers = useRef(new Map<number, Point>());
  const spread = useRef(0);
  return {
    onPointerDown(e: PointerEvent) {
      if ((e.target as Element).closest('button')) return;
      pointers.current.set(e.pointerId, { x: e.clientX, y: e.clientY });
      (e.currentTarget as Element).setPointerCapture(e.pointerId);
    },
    onPointerMove(e: PointerEvent) {
      const was = pointers.current.get(e.pointerId);
      if (!was) return;
      pointers.current.set(e.pointerId, { x: e.clientX, y: e.clientY });
      if (pointers.current.size === 1) {
        const v = view.value;
        touched.current = true;
        view.value = { ...v, x: v.x + e.clientX - was.x, y: v.y + e.clientY - was.y };
        return;
      }
      const [a, b] = [...pointers.current.values()];
      const gap = Math.hypot(a!.x - b!.x, a!.y - b!.y);
      const box = (e.currentTarget as Element).getBoundingClientRect();
      if (spread.current) zoom(gap / spread.current, (a!.x + b!.x) / 2 - box.left, (a!.y + b!.y) / 2 - box.top);
      spread.current = gap;
    },
    onPointerUp(e: PointerEvent) { pointers.current.delete(e.pointerId); spread.current = 0; },
    onPointerCancel(e: PointerEvent) { pointers.current.delete(e.pointerId); spread.current = 0; },
    onWheel(e: WheelEvent) {
      e.preventDefault();
      const box = (e.currentTarget as Element).getBoundingClientRect();
      zoom(Math.exp(-e.deltaY * 0.0015), e.clientX - box.left, e.clientY - box.top);
    },
    onClick(e: MouseEvent) {
      const id = (e.target as Element).closest<SVGElement>('[data-edge]')?.dataset.edge;
      if (id) set({ select: `edge:${id}` });
    },
  };
}

function NodeBox(props: { node: Node; seconds: number; at: Point; size: Size; tab: boolean; selected: boolean; faded: boolean; onFocus: () => void; onHover: (on: boolean) => void }) {
  const { node: n, at, size } = props;
  const failures = n.failures ?? 0;
  const [requests, errors] = [n.requests ?? 0, n.errors ?? 0];
  const moved = (n.bytes_sent ?? 0) + (n.bytes_received ?? 0);
  const cls = ['node', n.kind, props.selected ? 'selected' : '', props.faded ? 'faded' : '', failures || errors ? 'failing' : ''].join(' ');
  return (
    <button
      type="button" class={cls} data-node={n.id} tabIndex={props.tab ? 0 : -1} title={`${n.name}\n${exactBytes(moved)}\n${plural(n.connections ?? 0, 'connection')}, ${plural(failures, 'failure')}\n${plural(requests, 'request')} answered, ${count(errors)} failed`}
      style={{ left: `${at.x}px`, top: `${at.y}px`, width: `${size.w}px`, height: `${size.h}px` }}
      onFocus={props.onFocus} onClick={(e) => onNodeClick(e, n.id)}
      onPointerEnter={() => props.onHover(true)} onPointerLeave={() => props.onHover(false)}
    >
      <span class="name">{n.folds ? `${n.folds} ${n.name}` : n.name}</span>
      <span class="sub">{failures > 0 ? <span class="bad"><Sign mark="error" />{count(failures)} failed</span> : errors > 0 ? <span class="bad"><Sign mark="error" />{share(errors / requests)}</span> : <span>{requests ? frequency(requests / props.seconds) : bytes(moved)}</span>}{!(failures > 0) && <span>{errors ? frequency(requests / props.seconds) : plural(n.connections ?? 0, 'conn', 'conns')}</span>}</span>
    </button>
  );
}

const widthOf = (e: Edge) => Math.min(8, 1.2 + 1.5 * Math.log10(1 + e.rate / 200));

/** Where each edge leaves and enters: spread over the node's side in the order of the other ends, so that they do not cross at the door. */
function doors(g: Graph, at: Places, size: Size): Map<string, { from: Point; to: Point }> {
  const out = new Map<string, { from: Point; to: Point }>();
  const edges = [...g.edges.values()];
  for (const e of edges) out.set(e.id, { from: { x: at.get(e.source)!.x + size.w, y: 0 }, to: { x: at.get(e.target)!.x, y: 0 } });
  const spread = (end: 'source' | 'target', other: 'source' | 'target', put: 'from' | 'to') => {
    for (const id of g.nodes.keys()) {
      const mine = edges.filter((e) => e[end] === id).sort((a, b) => at.get(a[other])!.y - at.get(b[other])!.y);
      const step = Math.min(9, (size.h - 12) / Math.max(1, mine.length));
      mine.forEach((e, i) => { out.get(e.id)![put].y = at.get(id)!.y + size.h / 2 + (i - (mine.length - 1) / 2) * step; });
    }
  };
  spread('source', 'target', 'from');
  spread('target', 'source', 'to');
  return out;
}

/** Whether an edge ends in the column it begins in, at another node. */
const beneath = ({ from, to }: { from: Point; to: Point }, size: Size) => Math.abs(to.x + size.w - from.x) < 4 && Math.abs(to.y - from.y) > size.h / 2;

/** The tip of an edge: it enters a node from the left, and in its own column from the right. */
function tip({ from, to }: { from: Point; to: Point }, size: Size, w: number): string {
  const half = 3.5 + w / 2;
  const [x, back] = beneath({ from, to }, size) ? [to.x + size.w + 1, 8 + w / 2] : [to.x - 1, -8 - w / 2];
  return `M${x + back} ${to.y - half}L${x} ${to.y}L${x + back} ${to.y + half}z`;
}

function course({ from, to }: { from: Point; to: Point }, size: Size): string {
  if (to.x > from.x) {
    const bend = Math.max(30, (to.x - from.x) / 2);
    return `M${from.x} ${from.y}C${from.x + bend} ${from.y} ${to.x - bend - 7} ${to.y} ${to.x - 7} ${to.y}`;
  }
  if (beneath({ from, to }, size)) { // in one column: a bow at its right
    const bow = from.x + 28 + Math.min(40, Math.abs(to.y - from.y) / 4);
    return `M${from.x} ${from.y}C${bow} ${from.y} ${bow} ${to.y} ${to.x + size.w + 7} ${to.y}`;
  }
  const low = Math.max(from.y, to.y) + size.h + 18; // back to the left, or to itself: around below
  return `M${from.x} ${from.y}C${from.x + 60} ${from.y} ${from.x + 60} ${low} ${from.x - 10} ${low}L${to.x + 10} ${low}C${to.x - 60} ${low} ${to.x - 60} ${to.y} ${to.x - 7} ${to.y}`;
}

function Edges(props: { graph: Graph; seconds: number; at: Places; size: Size; lit: string; labels: boolean; hover: (id: string) => void }) {
  const { graph, at, size, lit } = props;
  const ends = useMemo(() => doors(graph, at, size), [graph, at, size]);
  const touches = (e: Edge) => lit === `edge:${e.id}` || lit === `node:${e.source}` || lit === `node:${e.target}`;
  const some = [...graph.edges.values()].some(touches);
  const labels = useMemo(() => labelled(graph, props.seconds, ends, touches, props.labels), [graph, ends, lit, props.labels]);
  const look = (e: Edge) => ['edge', broken(e) ? 'failing' : trouble(e) ? 'troubled' : e.connections ? '' : 'idle', touches(e) ? 'on' : some ? 'faded' : ''].join(' ');
  // Labels lie above all lines, their own and others'.
  return (
    <svg class="edges" aria-hidden="true" width="1" height="1">
      {[...graph.edges.values()].map((e) => {
        const { from, to } = ends.get(e.id)!;
        const d = course({ from, to }, size);
        const w = widthOf(e);
        return (
          <g key={e.id} class={look(e)} data-edge={e.id} onPointerEnter={() => props.hover(`edge:${e.id}`)} onPointerLeave={() => props.hover('')}>
            <path class="hit" d={d} />
            <path class="line" d={d} stroke-width={w} />
            <path class="tip" d={tip({ from, to }, size, w)} />
          </g>
        );
      })}
      {[...labels].map(([id, label]) => (
        <g key={`label:${id}`} class={look(graph.edges.get(id)!)}><text x={label.x} y={label.y}>{label.text}</text></g>
      ))}
    </svg>
  );
}

interface Label { x: number; y: number; text: string }

/** Places the labels where they cover no other: the lit and the failing first, then the fast. One that finds no room is left to hovering. */
function labelled(g: Graph, seconds: number, ends: Map<string, { from: Point; to: Point }>, lit: (e: Edge) => boolean, rates: boolean): Map<string, Label> {
  const weight = (e: Edge) => (lit(e) ? 2e12 : 0) + (trouble(e) ? 1e12 : 0) + e.rate;
  const placed: Label[] = [];
  const out = new Map<string, Label>();
  for (const e of [...g.edges.values()].sort((a, b) => weight(b) - weight(a))) {
    const { from, to } = ends.get(e.id)!;
    const all = labelOf(e, seconds, lit(e), rates);
    const flat = Math.abs(to.y - from.y) < 30; // between the two nodes, and no room beside it
    const text = flat && !lit(e) && all.length * 6 > to.x - from.x ? all.split(' · ')[0]! : all;
    if (!text || to.x <= from.x) continue;
    for (const t of [0.5, 0.36, 0.64, 0.26, 0.74]) {
      const at = { ...along(from, to, t), text };
      if (placed.some((p) => Math.abs(p.x - at.x) < (p.text.length + text.length) * 3.6 && Math.abs(p.y - at.y) < 14)) continue;
      placed.push(at);
      out.set(e.id, at);
      break;
    }
  }
  return out;
}

const brief = (n: number) => Number(n.toPrecision(2));

/** Two figures at rest, three while the edge is lit; the panel has them all. */
function labelOf(e: Edge, seconds: number, lit: boolean, rates: boolean): string {
  const failed = e.failures ? `▲ ${count(e.failures)}${lit ? ' failed' : ''}` : '';
  const dropped = e.drops && (lit || !e.connections) ? `${count(e.drops)} dropped` : '';
  if (!e.requests) return [failed, dropped, (lit || (rates && !failed)) && e.rate >= 1 ? rate(e.rate) : ''].filter(Boolean).join(' · ');
  const errors = e.errors ? `▲ ${share(brief(e.errors / e.requests))}` : '';
  const often = frequency(brief(e.requests / seconds));
  if (lit) return [often, errors || failed, duration(brief(e.p99))].filter(Boolean).join(' · ');
  if (!rates) return errors || failed;
  return [errors || failed || often, duration(brief(e.p99))].join(' · ');
}

/** A point of the curve that course draws. */
function along(a: Point, b: Point, t: number): Point {
  const bend = Math.max(30, (b.x - a.x) / 2);
  const [u, v] = [1 - t, t];
  const mix = (p0: number, p1: number, p2: number, p3: number) => u ** 3 * p0 + 3 * u * u * v * p1 + 3 * u * v * v * p2 + v ** 3 * p3;
  return { x: mix(a.x, a.x + bend, b.x - bend, b.x), y: mix(a.y, a.y, b.y, b.y) + 3.5 };
}

function Legend() {
  return (
    <div class="legend" aria-hidden="true">
      <span><svg viewBox="0 0 26 10"><path class="line" d="M1 5h24" stroke-width="1.5" /></svg><svg viewBox="0 0 26 10"><path class="line" d="M1 5h24" stroke-width="5" /></svg>bytes/s</span>
      <span class="failing"><svg viewBox="0 0 26 10"><path class="line" d="M1 5h24" stroke-width="2" /></svg>failures ▲</span>
      <span>requests a second · p99</span>
    </div>
  );
}

// ---- the table twin

interface Part { edge: Edge; part: MapEdge; source: Node; target: Node }

const figure = (n: number | undefined, text: (n: number) => string, exact: (n: number) => string) => (n === undefined ? null : <span class={n ? '' : 'dim'} title={exact(n)}>{text(n)}</span>);

function nodeCell(n: Node) {
  if (n.folds || n.id === 'ext:other') return <span class="dim">{n.folds ? `${n.folds} ` : ''}{n.name}</span>;
  return <CellValue field={n.kind === 'service' ? 'service' : 'address'} value={n.name} />;
}

const partColumns = (seconds: number): Column<Part>[] => [
  { id: 'client', label: 'Client', width: 'minmax(130px, 2fr)', cell: (p) => nodeCell(p.source), sort: (p) => p.source.name },
  { id: 'server', label: 'Server', width: 'minmax(130px, 2fr)', cell: (p) => nodeCell(p.target), sort: (p) => p.target.name },
  { id: 'port', label: 'Port', width: '92px', cell: (p) => <><span class="dim">{p.part.transport} </span><CellValue field="port" value={p.part.port} /></>, sort: (p) => p.part.port },
  { id: 'requests', label: 'Requests', title: 'a second', width: '84px', right: true, cell: (p) => (p.part.requests ? <span title={plural(p.part.requests, 'request')}>{frequency(p.part.requests / seconds)}</span> : null), sort: (p) => p.part.requests || undefined },
  { id: 'errors', label: 'Errors', title: 'requests that failed', width: '84px', right: true, cell: (p) => (p.part.errors ? <span class="bad" title={grouped(p.part.errors)}><Sign mark="error" /> {share(p.part.errors / (p.part.requests || 1))}</span> : p.part.requests ? <span class="dim">0</span> : null), sort: (p) => (p.part.requests ? (p.part.errors ?? 0) / p.part.requests : undefined) },
  { id: 'p99', label: 'p99', title: '99 of 100 requests took less', width: '76px', right: true, cell: (p) => (p.part.p99_ns ? figure(p.part.p99_ns, duration, exactDuration) : null), sort: (p) => p.part.p99_ns || undefined },
  { id: 'rate', label: 'Rate', width: '92px', right: true, cell: (p) => figure(p.part.bytes_per_second, rate, (n) => `${grouped(n)} bytes/s`), sort: (p) => p.part.bytes_per_second },
  { id: 'up', label: 'To server', width: '84px', right: true, cell: (p) => figure(p.part.bytes_sent, bytes, exactBytes), sort: (p) => p.part.bytes_sent },
  { id: 'down', label: 'To client', width: '84px', right: true, cell: (p) => figure(p.part.bytes_received, bytes, exactBytes), sort: (p) => p.part.bytes_received },
  { id: 'connections', label: 'Conns', width: '66px', right: true, cell: (p) => figure(p.part.connections, count, grouped), sort: (p) => p.part.connections },
  { id: 'open', label: 'Open', width: '60px', right: true, cell: (p) => figure(p.part.open, count, grouped), sort: (p) => p.part.open },
  { id: 'failures', label: 'Failed', width: '74px', right: true, cell: (p) => (p.part.failures ? <span class="bad"><Sign mark="error" /> {count(p.part.failures)}</span> : <span class="dim">0</span>), sort: (p) => p.part.failures },
  { id: 'retransmits', label: 'Retr.', width: '60px', right: true, cell: (p) => figure(p.part.retransmits, count, grouped), sort: (p) => p.part.retransmits },
  { id: 'drops', label: 'Drops', width: '60px', right: true, cell: (p) => figure(p.part.drops, count, grouped), sort: (p) => p.part.drops },
  { id: 'rtt', label: 'RTT', width: '76px', right: true, cell: (p) => (p.part.rtt_ns ? figure(p.part.rtt_ns, duration, exactDuration) : null), sort: (p) => p.part.rtt_ns || undefined },
];

function SlimPart(p: Part) {
  return (
    <div>
      <p class="line"><Sign mark={p.part.failures || p.part.errors ? 'error' : p.part.connections ? 'ok' : 'drop'} /><b>{p.source.folds ? `${p.source.folds} ` : ''}{p.source.name}</b><span class="dim">→</span><b>{p.target.folds ? `${p.target.folds} ` : ''}{p.target.name}</b><span class="dim">:{p.part.port}</span></p>
      <p class="line dim">{p.part.requests ? <><span>{plural(p.part.requests, 'request')}</span><span>p99 {duration(p.part.p99_ns ?? 0)}</span>{p.part.errors ? <span class="bad">{share(p.part.errors / p.part.requests)} failed</span> : null}</> : null}<span>{rate(p.part.bytes_per_second ?? 0)}</span><span>{plural(p.part.connections ?? 0, 'conn', 'conns')}</span>{p.part.failures ? <span class="bad">{count(p.part.failures)} failed</span> : null}{p.part.retransmits ? <span>{count(p.part.retransmits)} retr.</span> : null}</p>
    </div>
  );
}

function EdgeTable(props: { graph: Graph; seconds: number }) {
  const { graph, seconds } = props;
  const columns = useMemo(() => partColumns(seconds), [seconds]);
  const sort = param('sort') || '-rate';
  const q = param('q');
  const rows = useMemo(() => {
    const parts = [...graph.edges.values()].flatMap((edge) => edge.parts.map((part) => ({ edge, part, source: graph.nodes.get(edge.source)!, target: graph.nodes.get(edge.target)! })));
    return sorted(parts.filter((p) => !q || matching(p.source, q) || matching(p.target, q)), columns, sort);
  }, [graph, sort, q]);
  return (
    <Table
      label="Edges of the map" rows={rows} columns={columns} keyOf={(p) => `${p.part.source}>${p.part.target}>${p.part.transport}>${p.part.port}`}
      selected="" open={(p) => set({ select: `edge:${p.edge.id}` })} sort={sort} onSort={(s) => set({ sort: s === '-rate' ? '' : s }, true)} slim={SlimPart} hold
      rowClass={(p) => [p.part.failures || p.part.errors ? 'failed' : '', param('select') === `edge:${p.edge.id}` ? 'selected' : ''].join(' ')}
    />
  );
}
