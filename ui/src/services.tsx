// Services: rate, errors and durations of each service and of its routes, the
// worst first.
import { signal, useComputed } from '@preact/signals';
import { useEffect, useMemo } from 'preact/hooks';
import { get, useAnswer } from './api';
import { applied, seen } from './filterbar';
import { count, duration, exactDuration, frequency, grouped, plural, share } from './format';
import { Strip } from './heatmap';
import { CellValue, Empty, Incomplete, Problem, Sign } from './parts';
import { bounds } from './range';
import { filter, live, param, range, set } from './route';
import { ServicePanel } from './servicepanel';
import { sorted, Table, type Column } from './table';
import type { RED, Route, Service, Services as Answer } from './types';

/** A service, or one of its routes. */
export interface Line { key: string; service: Service; route: Route | undefined; red: RED; heat: number[] }

export const routeKey = (service: string, r: Route): string => `${service}|${r.protocol}|${r.name}`;

const sumOf = (routes: readonly Route[]) => {
  const out: number[] = [];
  for (const r of routes) r.heat?.forEach((n, i) => (out[i] = (out[i] ?? 0) + n));
  return out;
};

const unfolded = signal<ReadonlyMap<string, boolean>>(new Map());
const openUpTo = 40; // lines; a longer list begins folded, but for what failed

/** How fast and how slow on one scale for the page: from the median to the 99th of a hundred, and to the slowest. */
function Spread(props: { red: RED; scale: { low: number; high: number } }) {
  const { red, scale } = props;
  if (!red.requests || !(scale.high > scale.low)) return null;
  const at = (ns: number) => 1 + 98 * (Math.log(Math.max(ns, scale.low) / scale.low) / Math.log(scale.high / scale.low));
  const [a, b, c] = [at(red.p50_ns), at(red.p99_ns), at(red.max_ns)];
  const label = `half below ${duration(red.p50_ns)}, 99 of 100 below ${duration(red.p99_ns)}, at most ${duration(red.max_ns)}`;
  return (
    <svg class="spread" viewBox="0 0 100 12" preserveAspectRatio="none" role="img" aria-label={label}>
      <path class="max" d={`M${b} 6H${c}M${c} 3V9`} /><path class="body" d={`M${a} 6H${Math.max(b, a + 0.8)}`} /><path class="tick" d={`M${a} 2V10`} />
    </svg>
  );
}

export function Errors(props: { red: RED }) {
  const { red } = props;
  if (!red.errors) return <span class="dim">0</span>;
  return <span class="bad" title={`${grouped(red.errors)} of ${grouped(red.requests)} failed`}><Sign mark="error" /> {share(red.error_rate)}</span>;
}

const latency = (ns: number, requests: number) => (requests ? <span title={exactDuration(ns)}>{duration(ns)}</span> : null);

function columnsFor(scale: { low: number; high: number }, panel: boolean): Column<Line>[] {
  const all: Column<Line>[] = [
    { id: 'name', label: 'Service and route', width: 'minmax(210px, 4fr)', cell: (l) => <Name line={l} />, sort: (l) => l.route?.name ?? l.service.name },
    { id: 'requests', label: 'Requests', width: '84px', right: true, cell: (l) => <span title={grouped(l.red.requests)}>{count(l.red.requests)}</span>, sort: (l) => l.red.requests },
    { id: 'rate', label: 'Rate', width: '84px', right: true, cell: (l) => <span title={`${grouped(l.red.rate)} a second`}>{frequency(l.red.rate)}</span>, sort: (l) => l.red.rate },
    { id: 'errors', label: 'Failed', width: '96px', right: true, cell: (l) => <Errors red={l.red} />, sort: (l) => l.red.error_rate },
    { id: 'p50', label: 'p50', title: 'half of them took less', width: '78px', right: true, cell: (l) => latency(l.red.p50_ns, l.red.requests), sort: (l) => l.red.p50_ns },
    { id: 'p99', label: 'p99', title: '99 of 100 took less', width: '78px', right: true, cell: (l) => latency(l.red.p99_ns, l.red.requests), sort: (l) => l.red.p99_ns },
    { id: 'max', label: 'Slowest', width: '78px', right: true, cell: (l) => latency(l.red.max_ns, l.red.requests), sort: (l) => l.red.max_ns },
    { id: 'spread', label: 'p50 to p99 to slowest', title: 'on one log scale for all lines', width: 'minmax(110px, 2fr)', cell: (l) => <Spread red={l.red} scale={scale} /> },
    { id: 'heat', label: 'Over time', title: 'requests by step of the range', width: '140px', cell: (l) => (l.red.requests ? <Strip heat={l.heat} label={`${plural(l.red.requests, 'request')} over time`} /> : null) },
  ];
  return panel ? all.filter((c) => ['name', 'rate', 'errors', 'p50', 'p99', 'heat'].includes(c.id)) : all;
}

function Name(props: { line: Line }) {
  const { service, route } = props.line;
  if (route) return <span class="command routename">{(service.protocols ?? []).length > 1 && <span class="dim">{route.protocol} </span>}<span class="name">{route.name}</span></span>;
  const open = isOpen(props.line, usuallyOpen.value);
  return (
    <span class="command">
      <span class="twisty" aria-hidden="true">{service.routes?.length ? (open ? '▾' : '▸') : ''}</span>
      <CellValue field={service.kind === 'service' ? 'service' : 'server'} value={service.name} class="name strong" />
      <span class="dim">{service.kind === 'external' ? 'elsewhere' : (service.protocols ?? []).join(', ')}{!open && service.routes?.length ? ` · ${plural(service.routes.length + (service.more_routes ?? 0), 'route')}` : ''}</span>
    </span>
  );
}

const usuallyOpen = signal(true);
const isOpen = (l: Line, usually: boolean): boolean => unfolded.value.get(l.service.name) ?? (usually || l.red.errors > 0);

function Slim(l: Line) {
  return (
    <div class={l.route ? 'routename' : ''}>
      <p class="line"><Sign mark={l.red.errors ? 'error' : 'ok'} /><b>{l.route?.name ?? l.service.name}</b><span class="grow" /><span>{duration(l.red.p99_ns)}</span></p>
      <p class="line dim"><span>{l.route?.protocol ?? (l.service.protocols ?? []).join(', ')}</span><span>{frequency(l.red.rate)}</span>{l.red.errors ? <span class="bad">{share(l.red.error_rate)} failed</span> : null}<span>p50 {duration(l.red.p50_ns)}</span></p>
    </div>
  );
}

export function Services() {
  const { since, until } = range.value;
  const asked = applied('requests');
  const [from, to] = bounds(range.value);
  const answer = useAnswer<Answer>(`${asked}|${since}|${until}`, (stop) => get('services', { filter: asked, since, until }, stop), live.value ? (to - from > 3600e3 ? 20_000 : 5000) : 0);
  const all = useMemo(() => (answer.data?.services ?? []).filter((s) => s.requests > 0), [answer.data]);
  const selected = param('select');
  const sort = param('sort');
  const total = all.reduce((n, s) => n + 1 + (s.routes?.length ?? 0), 0);
  usuallyOpen.value = total <= openUpTo;
  const opened = useComputed(() => unfolded.value).value;
  const scale = useMemo(() => {
    const used = all.flatMap((s) => [s, ...(s.routes ?? [])]);
    return { low: Math.max(1, Math.min(...used.map((r) => r.p50_ns))), high: Math.max(2, ...used.map((r) => r.max_ns)) };
  }, [all]);
  const columns = useMemo(() => columnsFor(scale, selected !== ''), [scale, selected !== '', opened]);
  const view = useMemo(() => {
    const own: Line[] = all.map((s) => ({ key: s.name, service: s, route: undefined, red: s, heat: sumOf(s.routes ?? []) }));
    return sorted(own, columns, sort).flatMap((l) => {
      const routes = (l.service.routes ?? []).map((r): Line => ({ key: routeKey(l.service.name, r), service: l.service, route: r, red: r, heat: r.heat ?? [] }));
      return isOpen(l, total <= openUpTo) ? [l, ...sorted(routes, columns, sort)] : [l];
    });
  }, [all, columns, sort, opened]);
  useEffect(() => {
    seen.values = (field) => (['service', 'peer', 'service.name', 'peer.service.name'].includes(field) ? all.filter((s) => s.kind === 'service').map((s) => s.name) : field === 'protocol' ? new Set(all.flatMap((s) => s.protocols ?? [])) : []);
  }, [all]);

  const failing = all.filter((s) => s.errors > 0).length;
  const open = (l: Line) => set({ select: l.key }, selected !== '');
  const toggle = (l: Line, on: boolean) => (unfolded.value = new Map(unfolded.value).set(l.service.name, on));
  return (
    <>
      <section class="content" aria-label="Services">
        <div class="toolbar">
          {answer.data && <span>{plural(all.length, 'service')}{failing > 0 && <span class="bad"> · <Sign mark="error" /> {count(failing)} with failures</span>}</span>}
          <Incomplete complete={answer.data?.complete} />
          <span class="grow" />
          <span class="dim only-wide">the worst first</span>
          {total > all.length && <button type="button" onClick={() => (unfolded.value = new Map(all.map((s) => [s.name, view.length === all.length])))}>{view.length === all.length ? 'Unfold all' : 'Fold all'}</button>}
        </div>
        {answer.error && <Problem error={answer.error} retry={answer.retry} stale={answer.data !== undefined} />}
        {!answer.data && !answer.error && <Empty title="Asking the agent…" />}
        {answer.data && all.length === 0 && <Nothing />}
        {all.length > 0 && <Table label="Services and their routes, the worst first" rows={view} columns={columns} keyOf={(l) => l.key} selected={selected} open={open} peek={open}
              sort={sort} onSort={(s) => set({ sort: s }, true)} slim={Slim} hold rowClass={(l) => (l.route ? '' : 'service')}
              tree={{ level: (l) => (l.route ? 1 : 0), expanded: (l) => (l.route || !l.service.routes?.length ? undefined : isOpen(l, total <= openUpTo)), toggle }} />}
      </section>
      {selected && <ServicePanel key={selected} id={selected} />}
    </>
  );
}

function Nothing() {
  if (filter.value) return <Empty title="No request in this range matches the filter."><p>Widen the time range (<kbd>t</kbd>), or <button type="button" class="plain link" onClick={() => set({ filter: '' })}>clear the filter</button>.</p></Empty>;
  return <Empty title="No service was asked anything yet."><p>Try <code>curl localhost:8080</code>: whoever answers shows here.</p></Empty>;
}
