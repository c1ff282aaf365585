// One trace: a waterfall over processes, and on it what the whole waited for.
import { useSignal } from '@preact/signals';
import { useEffect, useMemo, useRef } from 'preact/hooks';
import { get, useAnswer } from './api';
import { duration, exactDuration, moment, parseTime, plural } from './format';
import { pageKey } from './keys';
import { CellValue, Check, copy, Empty, Incomplete, Link, Problem, Sign } from './parts';
import { answerer, asker, failed, markOf, operation, served, statusText } from './request';
import { RequestPanel } from './requestpanel';
import { num, str } from './row';
import { param, set } from './route';
import { Table, type Column } from './table';
import { around } from './timebar';
import { lines, marks, type Line, type Trace } from './waterfall';

interface View { from: number; to: number } // ns of the trace that are on screen

export function TracePage(props: { id: string }) {
  const { id } = props;
  const answer = useAnswer<Trace>(id, (stop) => get(`trace/${encodeURIComponent(id)}`, {}, stop));
  const folded = useSignal<ReadonlySet<string>>(new Set());
  const t = answer.data;
  const onlyCritical = param('path') === 'on';
  const selected = param('select');
  const view = readView(param('zoom'), t?.duration_ns ?? 1);
  const whole = useMemo(() => (t ? lines(t, (key) => folded.value.has(key)) : []), [t, folded.value]);
  const rows = useMemo(() => (onlyCritical ? whole.filter((l) => l.critical.length) : whole), [whole, onlyCritical]);
  const columns = useMemo(() => columnsFor(view, selected !== ''), [view.from, view.to, selected !== '', folded.value]);
  useEffect(() => {
    const handle = (e: KeyboardEvent) => {
      if (e.key !== 'Escape' || param('select')) return false;
      set(param('zoom') ? { zoom: '' } : { trace: '', path: '' });
      return true;
    };
    pageKey.handle = handle;
    return () => { if (pageKey.handle === handle) pageKey.handle = undefined; };
  });

  const open = (l: Line) => set({ select: l.key }, selected !== '');
  const toggle = (l: Line, on: boolean) => {
    const next = new Set(folded.value);
    if (on) next.delete(l.key); else next.add(l.key);
    folded.value = next;
  };
  return (
    <>
      <section class="content tracepage" aria-label="Trace">
        {answer.error && <><div class="toolbar"><Back /></div><Problem error={answer.error} retry={answer.retry} stale={t !== undefined} /></>}
        {!t && !answer.error && <Empty title="Asking the agent…" />}
        {t && <>
          <Head trace={t} onlyCritical={onlyCritical} zoomed={param('zoom') !== ''} />
          <Table label="Spans of the trace: bars show when each ran" rows={rows} columns={columns} keyOf={(l) => l.key} selected={selected} open={open} peek={open} slim={slimFor(t.duration_ns)} hold
            rowClass={(l) => (failed(l.row) ? 'failed' : '')}
            tree={{ level: (l) => l.level, expanded: (l) => (l.children ? !folded.value.has(l.key) : undefined), toggle }} />
        </>}
      </section>
      {t && selected && <RequestPanel key={selected} id={selected} known={(t.spans ?? []).find((s) => str(s, 'trace.span_id') === selected)} />}
    </>
  );
}

function readView(text: string, whole: number): View {
  const [from = NaN, to = NaN] = text.split('~').map(Number);
  return from < to ? { from, to } : { from: 0, to: Math.max(1, whole) };
}

const Back = () => <button type="button" title="back to the list (esc)" onClick={() => set({ trace: '', select: '', zoom: '', path: '' })}>‹ Traces</button>;

function Head(props: { trace: Trace; onlyCritical: boolean; zoomed: boolean }) {
  const { trace: t, onlyCritical, zoomed } = props;
  const spans = t.spans ?? [];
  const root = spans[0];
  const at = parseTime(t.time);
  const bad = spans.filter(failed).length;
  const inferred = spans.filter((s) => (s.trace as { inferred?: boolean } | undefined)?.inferred).length;
  return (
    <div class="toolbar">
      <Back />
      {root && <h1><Sign mark={markOf(root)} />{str(root, 'service.name') || str(root, 'process.executable.name')} <span class="name">{operation(root)}</span></h1>}
      <span><b title={exactDuration(t.duration_ns)}>{duration(t.duration_ns)}</b> <span class="dim">{moment(at)}</span></span>
      {!param('select') && <span class="dim">{plural(spans.length, 'span')}, {plural((t.services ?? []).length, 'service')}</span>}
      {bad > 0 && <span class="bad"><Sign mark="error" />{bad} failed</span>}
      {inferred > 0 && !param('select') && <span class="dim" title="their parent was concluded from what a thread did, not told by a header or a connection">{inferred} inferred</span>}
      <Incomplete complete={t.complete} />
      <span class="grow" />
      {zoomed && <button type="button" onClick={() => set({ zoom: '' })}>Whole trace</button>}
      <Check on={onlyCritical} title="only the spans that the whole waited for" flip={() => set({ path: onlyCritical ? '' : 'on' }, true)}>critical path only</Check>
      {!param('select') && <><Link to="requests" params={{ filter: `trace:${t.trace_id}`, ...around(at, 120e3) }} class="link only-wide">As requests</Link>
      <button type="button" class="plain link only-wide" onClick={() => void copy(t.trace_id, 'the trace id')}>copy id</button></>}
    </div>
  );
}

const ownerOf = (l: Line) => {
  const e = served(l.row) ? answerer(l.row) : asker(l.row);
  return e.service || e.command || e.address;
};

function columnsFor(view: View, panel: boolean): Column<Line>[] {
  return [
    { id: 'name', label: 'Span', width: panel ? 'minmax(180px, 2fr)' : 'minmax(260px, 2fr)', cell: (l) => <Name line={l} /> },
    { id: 'time', label: 'Time', width: panel ? 'minmax(160px, 3fr)' : 'minmax(300px, 4fr)', head: () => <Ruler view={view} />, cell: (l) => <Bar line={l} view={view} /> },
    ...(panel ? [] : [{ id: 'self', label: 'Own', title: 'time in which none of its children ran', width: '84px', right: true, cell: (l: Line) => { const n = num(l.row, 'self_ns') ?? 0; return <span class="dim" title={exactDuration(n)}>{duration(n)}</span>; } }]),
    { id: 'took', label: 'Took', width: '84px', right: true, cell: (l) => <span title={exactDuration(l.took)}>{duration(l.took)}</span> },
  ];
}

function Name(props: { line: Line }) {
  const { line: l } = props;
  const { row } = l;
  const client = !served(row);
  const bad = failed(row);
  const marked = row.orphan === true;
  return (
    <span class="command" style={{ paddingLeft: `${Math.min(l.level, 24) * 14}px` }} title={`${ownerOf(l)}: ${operation(row)}${client ? `, asked of ${answerer(row).service || answerer(row).command || answerer(row).address}` : ''}${marked ? '\nits parent is not stored' : ''}`}>
      <span class="twisty" aria-hidden="true">{l.children ? '▾' : ''}</span>
      {(bad || marked) && <Sign mark={bad ? 'error' : 'open'} />}
      <CellValue field={str(row, 'service.name') ? 'service' : 'command'} value={ownerOf(l)} class="name strong" />
      <span class="dim">{client ? '→ ' : ''}{operation(row)}</span>
      {bad && <span class="bad"> {statusText(row)}</span>}
    </span>
  );
}

/** The span's time, and in it the part for which the whole waited. The eight parts of a request will fill it. */
function Bar(props: { line: Line; view: View }) {
  const { line: l, view } = props;
  const at = (ns: number) => (100 * (ns - view.from)) / (view.to - view.from);
  const [x, w] = [at(l.from), (100 * l.took) / (view.to - view.from)];
  const label = `from ${duration(l.from)} to ${duration(l.from + l.took)}${l.critical.length ? ', on the critical path' : ''}`;
  const first = num(l.row, 'time_to_first_byte_ns');
  return (
    <svg class="bar" viewBox="0 0 100 20" preserveAspectRatio="none" role="img" aria-label={label}>
      {marks(view.from, view.to, 5).map((m) => <path key={m} class="grid" d={`M${at(m)} 0V20`} />)}
      <rect class={`${failed(l.row) ? 'failed' : ''} ${served(l.row) ? '' : 'client'}`} x={x} y={served(l.row) ? 4 : 6} width={Math.max(w, 0.25)} height={served(l.row) ? 12 : 8} />
      {first !== undefined && first > 0 && first < l.took && <path class="first" d={`M${at(l.from + first)} 6V14`} />}
      {l.critical.map((p) => <rect key={p.from_ns} class="critical" x={at(p.from_ns)} y="15" width={Math.max(0.25, at(p.to_ns) - at(p.from_ns))} height="3" />)}
    </svg>
  );
}

/** The heading of the bars: dragging along it looks closer. */
function Ruler(props: { view: View }) {
  const { view } = props;
  const box = useRef<HTMLDivElement>(null);
  const from = useSignal<number | undefined>(undefined);
  const to = useSignal(0);
  const at = (e: PointerEvent) => {
    const r = box.current!.getBoundingClientRect();
    return view.from + Math.max(0, Math.min(1, (e.clientX - r.left) / r.width)) * (view.to - view.from);
  };
  const percentOf = (ns: number) => (100 * (ns - view.from)) / (view.to - view.from);
  const end = (e: PointerEvent) => {
    const [a, b] = [from.value, at(e)];
    from.value = undefined;
    if (a === undefined || Math.abs(b - a) < (view.to - view.from) / 100) return;
    set({ zoom: `${Math.round(Math.min(a, b))}~${Math.round(Math.max(a, b))}` });
  };
  return (
    <div ref={box} class="ruler" title="drag: look closer" onPointerDown={(e) => { e.currentTarget.setPointerCapture(e.pointerId); from.value = to.value = at(e); }}
      onPointerMove={(e) => { if (from.value !== undefined) to.value = at(e); }} onPointerUp={end} onPointerCancel={() => (from.value = undefined)}>
      {marks(view.from, view.to, 5).filter((m) => percentOf(m) < 96).map((m) => <span key={m} style={{ left: `${percentOf(m)}%` }}>{duration(m)}</span>)}
      {from.value !== undefined && <i style={{ left: `${percentOf(Math.min(from.value, to.value))}%`, width: `${percentOf(Math.abs(to.value - from.value) + view.from)}%` }} />}
    </div>
  );
}

const slimFor = (whole: number) => (l: Line) => (
  <div>
    <p class="line" style={{ paddingLeft: `${Math.min(l.level, 12) * 6}px` }}><Sign mark={markOf(l.row)} /><b>{ownerOf(l)}</b><span class="dim clip">{served(l.row) ? '' : '→ '}{operation(l.row)}</span><span class="grow" /><span>{duration(l.took)}</span></p>
    <Bar line={l} view={{ from: 0, to: Math.max(1, whole) }} />
  </div>
);
