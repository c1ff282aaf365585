// The latency heatmap: time to the right, latency upwards on a log scale, and
// a box in it that a person marks. Its cells can also be read as a table.
import { useSignal } from '@preact/signals';
import { useEffect, useLayoutEffect, useMemo, useRef } from 'preact/hooks';
import { theme } from './agent';
import { cursor, setRange, setRangeMs } from './brush';
import { clock, count, day, duration, grouped, moment, parseTime, plural } from './format';
import { along, boxOf, grid, height, msOf, ticks, timeTicks, within, type Area, type Box, type Cell, type Grid, type Heatmap } from './heat';
import { Sign } from './parts';
import { sorted, Table, type Column } from './table';

const thin = 6; // px a row of cells needs

interface Props { data: Heatmap; box: Box | undefined; onBox: (box: Box | undefined) => void; asTable: boolean }

export function HeatmapView(props: Props) {
  const frame = useRef<HTMLDivElement>(null);
  const size = useSignal({ w: 0, h: 0 });
  useLayoutEffect(() => {
    const el = frame.current!;
    const watch = new ResizeObserver(() => { size.value = { w: el.clientWidth, h: el.clientHeight }; });
    watch.observe(el);
    size.value = { w: el.clientWidth, h: el.clientHeight };
    return () => watch.disconnect();
  }, []);
  const g = useMemo(() => grid(props.data, Math.floor((size.value.h || 170) / thin)), [props.data, size.value.h]);
  return (
    <div class="heat">
      {props.asTable && <CellTable g={g} onBox={props.onBox} />}
      <div class="plot" ref={frame} hidden={props.asTable}>
        {size.value.w > 0 && g.bands.length > 0 && <Plot g={g} {...size.value} box={props.box} onBox={props.onBox} />}
      </div>
    </div>
  );
}

const span = (g: Grid, a: Area) => `${clock(msOf(g, a.left), false)} – ${clock(msOf(g, a.right + 1), false)}`;
const counted = (n: { requests: number; errors: number }) => `${plural(n.requests, 'request')}${n.errors ? `, ${count(n.errors)} failed` : ''}`;
const band = (g: Grid, a: Area) => `${duration(g.bands[a.low]!.low)} – ${duration(g.bands[a.high]!.high)}`;

function Plot(props: { g: Grid; w: number; h: number; box: Box | undefined; onBox: (box: Box | undefined) => void }) {
  const { g, w, h, box, onBox } = props;
  const canvas = useRef<HTMLCanvasElement>(null);
  const pointed = useSignal<Area | undefined>(undefined); // under the pointer, or the keys' cell
  const marking = useSignal<{ from: Area; time: boolean } | undefined>(undefined);
  const colours = theme.value;
  useLayoutEffect(() => draw(canvas.current!, g, w, h), [g, w, h, colours]);
  useEffect(() => {
    const scheme = matchMedia('(prefers-color-scheme: dark)');
    const again = () => draw(canvas.current!, g, w, h);
    scheme.addEventListener('change', again);
    return () => scheme.removeEventListener('change', again);
  }, [g, w, h]);

  const at = (e: PointerEvent): Area => {
    const r = canvas.current!.getBoundingClientRect();
    const column = Math.max(0, Math.min(g.columns - 1, Math.floor(((e.clientX - r.left) / r.width) * g.columns)));
    const y = 1 - (e.clientY - r.top) / r.height;
    const row = Math.max(0, Math.min(g.bands.length - 1, Math.floor(y * g.bands.length)));
    return { left: column, right: column, low: row, high: row };
  };
  const marked = (to: Area): Area => {
    const m = marking.value!;
    const time = { left: Math.min(m.from.left, to.left), right: Math.max(m.from.right, to.right) };
    if (m.time) return { ...time, low: 0, high: g.bands.length - 1 };
    return { ...time, low: Math.min(m.from.low, to.low), high: Math.max(m.from.high, to.high) };
  };
  const shown = pointed.value && marking.value ? marked(pointed.value) : pointed.value;
  const take = (a: Area, time: boolean) => {
    const b = boxOf(g, a);
    if (time) setRange(b.since, b.until);
    else onBox(b);
  };

  const pointer = (time: boolean) => ({
    onPointerDown(e: PointerEvent) {
      if (e.button !== 0) return;
      (e.currentTarget as Element).setPointerCapture(e.pointerId);
      marking.value = { from: at(e), time };
      pointed.value = at(e);
    },
    onPointerMove(e: PointerEvent) {
      pointed.value = at(e);
      cursor.value = msOf(g, 0) + ((e.clientX - canvas.current!.getBoundingClientRect().left) / w) * (msOf(g, g.columns) - msOf(g, 0));
    },
    onPointerUp(e: PointerEvent) {
      if (!marking.value) return;
      const a = marked(at(e));
      marking.value = undefined;
      if (!time || a.left !== a.right) take(a, time);
    },
    onPointerCancel() { marking.value = undefined; },
    onPointerLeave() { if (!marking.value) { pointed.value = undefined; cursor.value = undefined; } },
  });

  const keys = (e: KeyboardEvent) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[e.key];
    if (step) {
      const was = pointed.value ?? busiest(g);
      const column = Math.max(0, Math.min(g.columns - 1, was.left + step[0]!));
      const row = Math.max(0, Math.min(g.bands.length - 1, was.low + step[1]!));
      if (e.shiftKey) marking.value ??= { from: was, time: false };
      else marking.value = undefined;
      pointed.value = { left: column, right: column, low: row, high: row };
      cursor.value = msOf(g, column);
    } else if (e.key === 'Enter' && shown) {
      marking.value = undefined;
      take(shown, false);
    } else if (e.key === 'z' && shown) {
      marking.value = undefined;
      take(shown, true);
    } else if (e.key === 'Escape' && (marking.value || pointed.value)) {
      marking.value = undefined;
      pointed.value = undefined;
    } else {
      return;
    }
    e.preventDefault();
    e.stopPropagation();
  };

  const place = (a: Area) => {
    const [top, bottom] = [(a.high + 1) / g.bands.length, a.low / g.bands.length];
    return { left: `${(a.left / g.columns) * w}px`, width: `${((a.right + 1 - a.left) / g.columns) * w}px`, top: `${(1 - top) * h}px`, height: `${(top - bottom) * h}px` };
  };
  const clamp = (n: number) => Math.max(0, Math.min(1, n));
  const held = box && {
    left: clamp(along(g, parseTime(box.since))) * w, right: clamp(along(g, parseTime(box.until))) * w,
    top: (1 - clamp(height(g, box.high))) * h, bottom: (1 - clamp(height(g, box.low))) * h,
  };
  const [from, to] = [msOf(g, 0), msOf(g, g.columns)];
  const slowest = g.cells.reduce((n, c) => Math.max(n, g.bands[c.band]!.high), 0);
  const fastest = g.cells.reduce((n, c) => Math.min(n, g.bands[c.band]!.low), Infinity);
  const label = g.requests ? `${counted(g)} between ${moment(from)} and ${moment(to)}, which took ${duration(fastest)} to ${duration(slowest)}` : 'no request';
  return (
    <>
      <div class="field" tabIndex={0} role="group" aria-label="Latency heatmap: the arrow keys walk its cells, with shift they mark a box, enter shows its requests, z sets the time range. The button Cells shows the same as a table." onKeyDown={keys}
        onBlur={() => { if (!marking.value) pointed.value = undefined; }} {...pointer(false)}>
        <canvas ref={canvas} role="img" aria-label={label} style={{ width: `${w}px`, height: `${h}px` }} />
        {ticks(g).map((ns) => <span key={ns} class="ytick" aria-hidden="true" style={{ top: `${(1 - height(g, ns)) * h}px` }}>{duration(ns)}</span>)}
        {held && held.right > held.left && <div class="held" style={{ left: `${held.left}px`, top: `${held.top}px`, width: `${held.right - held.left}px`, height: `${held.bottom - held.top}px` }} />}
        <Cursor from={from} to={to} w={w} />
        {shown && <div class={`marked ${marking.value ? 'on' : ''}`} style={place(shown)} />}
        {shown && <div class="tip" role="status" style={{ left: `${Math.max(120, Math.min(w - 120, ((shown.left + shown.right + 1) / 2 / g.columns) * w))}px` }}>
          <b>{counted(within(g, shown))}</b><span>{band(g, shown)}</span><span class="dim">{span(g, shown)}</span>
        </div>}
      </div>
      <div class="xaxis" title="drag: sets the time range of every page" {...pointer(true)}>
        {timeTicks(from, to, Math.max(2, Math.floor(w / 110))).map((t) => <span key={t} style={{ left: `${((t - from) / (to - from)) * w}px` }}>{tickText(t, to - from)}</span>)}
      </div>
    </>
  );
}

export function tickText(ms: number, range: number): string {
  if (range > 30 * 3600e3) return day(ms).slice(5);
  return range > 4 * 60e3 ? clock(ms, false).slice(0, 5) : clock(ms, false);
}

/** A line at the moment that any chart has under the pointer. */
export function Cursor(props: { from: number; to: number; w: number }) {
  const x = cursor.value === undefined ? -1 : ((cursor.value - props.from) / (props.to - props.from)) * props.w;
  return x < 0 || x > props.w ? null : <div class="cursor" style={{ transform: `translateX(${x}px)` }} />;
}

function busiest(g: Grid): Area {
  const c = g.cells.reduce<Cell | undefined>((best, c) => (!best || c.requests > best.requests ? c : best), undefined);
  return { left: c?.column ?? 0, right: c?.column ?? 0, low: c?.band ?? 0, high: c?.band ?? 0 };
}

/** The canvas's colours are its CSS: cells, failures, lines. */
function draw(canvas: HTMLCanvasElement, g: Grid, w: number, h: number): void {
  const scale = devicePixelRatio || 1;
  canvas.width = Math.round(w * scale);
  canvas.height = Math.round(h * scale);
  const ctx = canvas.getContext('2d');
  if (!ctx) return;
  ctx.scale(scale, scale);
  const { color: plain, borderTopColor: bad, borderBottomColor: line, backgroundColor: paper } = getComputedStyle(canvas);
  ctx.fillStyle = line;
  for (const ns of ticks(g)) ctx.fillRect(0, Math.round((1 - height(g, ns)) * h), w, 1);
  const room = w / g.columns;
  for (const c of g.cells) {
    const x = Math.round(c.column * room);
    const wide = Math.max(1, Math.round((c.column + 1) * room) - x - (room > 4 ? 1 : 0));
    const [top, bottom] = [Math.round((1 - (c.band + 1) / g.bands.length) * h), Math.round((1 - c.band / g.bands.length) * h)];
    const tall = Math.max(2, bottom - top - 1);
    ctx.globalAlpha = 1;
    ctx.fillStyle = paper;
    ctx.fillRect(x, top, wide, tall);
    ctx.globalAlpha = 0.22 + 0.78 * (Math.log1p(c.requests - 1) / Math.max(Math.log1p(g.most - 1), 1e-9) || 0);
    ctx.fillStyle = plain;
    ctx.fillRect(x, top, wide, tall);
    if (!c.errors) continue;
    ctx.globalAlpha = 1; // failures: a bar across the cell, as long as their share
    ctx.fillStyle = bad;
    const share = c.errors / c.requests;
    const thick = share < 0.05 ? 2 : Math.max(2, Math.round(tall / 2));
    ctx.fillRect(x, bottom - 1 - thick, Math.max(2, Math.round(wide * share)), thick);
  }
  ctx.globalAlpha = 1;
}

const area = (c: Cell): Area => ({ left: c.column, right: c.column, low: c.band, high: c.band });

function CellTable(props: { g: Grid; onBox: (box: Box) => void }) {
  const { g } = props;
  const sort = useSignal('-time');
  const columns = useMemo<Column<Cell>[]>(() => [
    { id: 'time', label: 'Time', width: '210px', cell: (c) => span(g, area(c)), sort: (c) => c.column },
    { id: 'took', label: 'Took', width: '190px', cell: (c) => band(g, area(c)), sort: (c) => c.band },
    { id: 'requests', label: 'Requests', width: '110px', right: true, cell: (c) => grouped(c.requests), sort: (c) => c.requests },
    { id: 'failed', label: 'Failed', width: '110px', right: true, cell: (c) => (c.errors ? <span class="bad"><Sign mark="error" /> {grouped(c.errors)}</span> : <span class="dim">0</span>), sort: (c) => c.errors },
  ], [g]);
  const rows = useMemo(() => sorted(g.cells, columns, sort.value), [g, columns, sort.value]);
  return <Table label="Cells of the heatmap" rows={rows} columns={columns} keyOf={(c) => `${c.column}.${c.band}`} selected="" open={(c) => props.onBox(boxOf(g, area(c)))} sort={sort.value} onSort={(s) => (sort.value = s)} hold />;
}

// ---- lines and bars over time

export interface Step { time: number; values: (number | undefined)[] }

interface ChartProps {
  title: string;
  steps: readonly Step[]; step: number; // ms
  series: readonly { name: string; look: 'bar' | 'bad' | 'line' | 'faint' }[];
  text: (n: number) => string;
}

const tall = 64;

/** Bars and lines over time, with the cursor and the brush of all charts. Its numbers are in the table below it. */
export function Chart(props: ChartProps) {
  const { steps, step, series, text, title } = props;
  const box = useRef<HTMLDivElement>(null);
  const begun = useSignal<number | undefined>(undefined);
  const over = useSignal<number | undefined>(undefined);
  if (!steps.length) return null;
  const [from, to] = [steps[0]!.time, steps[steps.length - 1]!.time + step];
  const top = Math.max(...steps.flatMap((s) => s.values.map((v) => v ?? 0)), 1e-9);
  const n = steps.length;
  const y = (v: number) => tall - (v / top) * (tall - 4);
  const path = (i: number) => {
    let pen = 'M';
    let out = '';
    steps.forEach((s, k) => {
      const v = s.values[i];
      if (v === undefined) { pen = 'M'; return; }
      out += `${pen}${(k + 0.5).toFixed(2)} ${y(v).toFixed(1)}${steps[k + 1]?.values[i] === undefined ? 'h.01' : ''}`; // a lone step is a dot
      pen = 'L';
    });
    return out;
  };
  const at = (e: PointerEvent) => {
    const r = box.current!.getBoundingClientRect();
    return Math.max(0, Math.min(n - 1, Math.floor(((e.clientX - r.left) / r.width) * n)));
  };
  const pointed = over.value ?? (cursor.value !== undefined && cursor.value >= from && cursor.value < to ? Math.floor((cursor.value - from) / step) : undefined);
  const now = pointed === undefined ? undefined : steps[pointed];
  const marked = begun.value !== undefined && over.value !== undefined ? [Math.min(begun.value, over.value), Math.max(begun.value, over.value) + 1] as const : undefined;
  const summary = series.map((s, i) => `${s.name} at most ${text(Math.max(...steps.map((x) => x.values[i] ?? 0)))}`).join(', ');
  return (
    <figure class="chart">
      <figcaption>
        <span>{title}</span>
        {now ? <span class="now">{clock(now.time, false)} {series.map((s, i) => <b key={s.name} class={s.look}>{s.name} {now.values[i] === undefined ? '–' : text(now.values[i]!)}</b>)}</span> : <span class="dim">at most {text(top === 1e-9 ? 0 : top)}</span>}
      </figcaption>
      <div
        ref={box} class="lanes" title="drag: sets the time range of every page"
        onPointerDown={(e) => { if (e.button !== 0) return; e.currentTarget.setPointerCapture(e.pointerId); begun.value = over.value = at(e); }}
        onPointerMove={(e) => { over.value = at(e); cursor.value = steps[over.value]!.time + step / 2; }}
        onPointerUp={(e) => { const b = begun.value; begun.value = undefined; if (b === undefined) return; const k = at(e); if (k !== b) setRangeMs(steps[Math.min(b, k)]!.time, steps[Math.max(b, k)]!.time + step); }}
        onPointerCancel={() => (begun.value = undefined)} onPointerLeave={() => { if (begun.value === undefined) { over.value = undefined; cursor.value = undefined; } }}
      >
        <svg viewBox={`0 0 ${n} ${tall}`} preserveAspectRatio="none" role="img" aria-label={`${title}: ${summary}`}>
          {series.map((s, i) => (s.look === 'bar' || s.look === 'bad'
            ? <path key={s.name} class={s.look} d={steps.map((x, k) => (x.values[i] ? `M${k + 0.08} ${tall}V${Math.min(tall - 1.5, y(x.values[i]!)).toFixed(1)}h.84V${tall}z` : '')).join('')} />
            : <path key={s.name} class={s.look} d={path(i)} />))}
          <path class="base" d={`M0 ${tall - 0.5}H${n}`} />
          {pointed !== undefined && <path class="at" d={`M${pointed + 0.5} 0V${tall}`} />}
          {marked && <rect class="mark" x={marked[0]} width={marked[1] - marked[0]} y="0" height={tall} />}
        </svg>
      </div>
    </figure>
  );
}

/** Requests by step, as a strip of cells: the darker the more. */
export function Strip(props: { heat: readonly number[]; label: string }) {
  const most = Math.max(...props.heat, 1);
  return (
    <svg class="strip" viewBox={`0 0 ${props.heat.length} 1`} preserveAspectRatio="none" role="img" aria-label={props.label}>
      {props.heat.map((n, i) => (n ? <rect key={i} x={i + 0.06} width=".88" height="1" fill-opacity={(0.2 + 0.8 * (Math.log1p(n) / Math.log1p(most))).toFixed(2)} /> : null))}
    </svg>
  );
}
