// Processes: the tree of now, or of any moment that is kept.
import { signal, useSignal } from '@preact/signals';
import { useEffect, useMemo } from 'preact/hooks';
import { status } from './agent';
import { get, useAnswer, type Answer } from './api';
import { applied, seen } from './filterbar';
import { ago, clock, count, day, moment, parseTime, plural } from './format';
import { pageKey } from './keys';
import { CellValue, Check, copy, Empty, Incomplete, Problem, Sign } from './parts';
import { ProcessPanel } from './processpanel';
import { bounds } from './range';
import { filter, live, param, range, set } from './route';
import { list, num, str, time, type Row } from './row';
import { sorted, Table, type Column } from './table';
import { ancestors, bootTime, exitMoment, exitWords, failed, grow, idOf, lines, type Proc } from './tree';

interface TreeAnswer { at: string; processes: Row[] | null; complete: boolean }
interface EventAnswer { processes: Row[] | null; matched: number; complete: boolean; lost: number }
interface Snapshot { alive: Row[]; hits: Set<string> | undefined; complete: boolean }

const mostEvents = 5000;
const openUpTo = 300; // a larger tree begins folded below its second level

const toggled = signal<ReadonlyMap<string, boolean>>(new Map());

/** The moment that is shown; empty: now. */
const moment_ = () => param('at') || range.value.until;

async function snapshot(stop: AbortSignal): Promise<Snapshot> {
  const at = moment_();
  const [all, hits] = await Promise.all([
    get<TreeAnswer>('processes', { at }, stop),
    applied('processes') ? get<TreeAnswer>('processes', { at, filter: applied('processes') }, stop) : undefined,
  ]);
  return { alive: all.processes ?? [], hits: hits && new Set((hits.processes ?? []).map(idOf)), complete: all.complete };
}

function useEvents(): Answer<Row[]> {
  const { since, until } = range.value;
  return useAnswer(`${since}|${until}|${applied('processes')}`, async (stop) => {
    const a = await get<EventAnswer>('processes', { events: 'true', since, until, filter: applied('processes'), last: String(mostEvents) }, stop);
    const rows = (a.processes ?? []).filter((r) => str(r, 'action') !== 'running');
    const forks = rows.some((r) => str(r, 'action') === 'fork'); // an exec of a process that was forked is no second start
    return forks ? rows.filter((r) => str(r, 'action') !== 'exec') : rows;
  }, live.value ? 3000 : 0);
}

const nameOf = (row: Row) => str(row, 'process.executable.name') || list(row, 'process.command_args')[0] || '(kernel)';
const userOf = (row: Row) => { const id = num(row, 'process.user.id'); return id === 0 ? 'root' : id === undefined ? '' : String(id); };

function Command(props: { p: Proc; open: boolean }) {
  const { p, open } = props;
  const args = list(p.row, 'process.command_args').slice(1).join(' ');
  return (
    <span class={`command ${p.hit && !p.endedBefore ? '' : 'faint'}`} style={{ paddingLeft: `${p.level * 16}px` }} title={list(p.row, 'process.command_args').join(' ')}>
      <span class="twisty" aria-hidden="true">{p.children.length ? (open ? '▾' : '▸') : ''}</span>
      <CellValue field="command" value={nameOf(p.row)} class="name" />
      <span class="dim">{args}{p.children.length && !open ? <i> +{count(below(p))}</i> : null}</span>
    </span>
  );
}

const below = (p: Proc): number => p.children.reduce((n, c) => n + 1 + below(c), 0);

function Exit(props: { row: Row | undefined }) {
  if (!props.row) return null;
  const bad = failed(props.row);
  return <span class={bad ? 'bad' : 'dim'} title={exitMoment(props.row)}>{bad && <Sign mark="error" />} {exitWords(props.row)}</span>;
}

function columnsFor(boot: number, panel: boolean, open: (p: Proc) => boolean): Column<Proc>[] {
  const all = allColumns(boot, open);
  return panel ? all.filter((c) => c.id !== 'container' && c.id !== 'user') : all;
}

function allColumns(boot: number, open: (p: Proc) => boolean): Column<Proc>[] {
  const began = (p: Proc) => boot + (num(p.row, 'process.start_ns') ?? 0) / 1e6;
  return [
    { id: 'command', label: 'Command', width: 'minmax(260px, 6fr)', cell: (p) => <Command p={p} open={open(p)} /> },
    { id: 'pid', label: 'PID', width: '76px', right: true, cell: (p) => <CellValue field="pid" value={str(p.row, 'process.pid')} />, sort: (p) => num(p.row, 'process.pid') },
    { id: 'service', label: 'Service', width: 'minmax(110px, 2fr)', cell: (p) => str(p.row, 'service.name') && <CellValue field="service" value={str(p.row, 'service.name')} />, sort: (p) => str(p.row, 'service.name') },
    { id: 'container', label: 'Container', width: 'minmax(100px, 2fr)', cell: (p) => str(p.row, 'container.id') && <CellValue field="container" value={str(p.row, 'container.name') || str(p.row, 'container.id').slice(0, 12)} />, sort: (p) => str(p.row, 'container.name') },
    { id: 'user', label: 'User', title: 'effective user id', width: '60px', right: true, cell: (p) => <CellValue field="process.user.id" value={str(p.row, 'process.user.id')}>{userOf(p.row)}</CellValue>, sort: (p) => num(p.row, 'process.user.id') },
    { id: 'start', label: 'Started', width: '136px', right: true, cell: (p) => <span title={new Date(began(p)).toISOString()}>{moment(began(p))}</span>, sort: began },
    { id: 'exit', label: 'Ended', title: 'how and when it ended, if that is in the range', width: '84px', cell: (p) => <Exit row={p.exit} />, sort: (p) => p.exit && time(p.exit) },
  ];
}

/** The kernel's threads hang below one process: they begin folded. */
const isKernel = (p: Proc) => num(p.row, 'process.pid') === 2 && num(p.row, 'process.parent_pid') === 0;

function usePageKeys(events: readonly Row[]): void {
  useEffect(() => {
    const handle = (e: KeyboardEvent): boolean => {
      if (e.key === '[' || e.key === ']') return step(events, e.key === ']' ? 1 : -1), true;
      return false;
    };
    pageKey.handle = handle;
    return () => { if (pageKey.handle === handle) pageKey.handle = undefined; };
  });
}

/** Goes to the moment just after the event before or after the one shown. */
function step(events: readonly Row[], by: number): void {
  const now = moment_() ? parseTime(moment_()) : Date.now();
  const times = events.map((r) => Math.ceil(time(r)));
  const to = by > 0 ? times.find((t) => t > now) : times.findLast((t) => t < now);
  if (to !== undefined) set({ at: new Date(to).toISOString() }, true);
  else if (by > 0) set({ at: '' }, true);
}

export function Processes() {
  const at = moment_();
  const tree = useAnswer(`${at}|${applied('processes')}`, snapshot, at ? 0 : 3000);
  const events = useEvents();
  const withEnded = param('ended') === 'on';
  const sort = param('sort');

  const model = useMemo(() => {
    const alive = tree.data?.alive ?? [];
    const all = events.data ?? [];
    const exitRows = all.filter((r) => str(r, 'action') === 'exit');
    const exits = new Map(exitRows.map((r) => [idOf(r), r]));
    const until = at ? parseTime(at) : Infinity;
    const ended = withEnded ? exitRows.filter((r) => time(r) <= until) : [];
    const host = status.value?.host.boot_time;
    const boot = host ? parseTime(host) : bootTime([...alive, ...all]);
    return { roots: grow(alive, ended, exits, withUnion(tree.data?.hits, ended)), boot, alive: alive.length };
  }, [tree.data, events.data, withEnded]);

  const big = model.alive > openUpTo && !filter.value;
  const isOpen = (p: Proc) => p.children.length > 0 && (toggled.value.get(p.id) ?? (!isKernel(p) && (!big || p.level < 2)));
  const selected = param('select');
  const columns = useMemo(() => columnsFor(model.boot, selected !== '', isOpen), [model, toggled.value, selected !== '']);
  const rows = useMemo(() => {
    const visible = lines(model.roots, sort ? (p) => p.children.length > 0 : isOpen);
    return sort ? sorted(visible.map((p) => ({ ...p, level: 0, children: [] })), columns, sort) : visible;
  }, [model, sort, columns]);
  usePageKeys(events.data ?? []);
  useEffect(() => { seen.values = seenIn(rows); }, [rows]);

  const shownProc = useMemo(() => (selected ? findProc(model.roots, selected) : undefined), [model, selected]);
  useEffect(() => { // a link to a folded process unfolds the way to it
    if (shownProc) setOpen(ancestors(shownProc).filter((p) => !isOpen(p)), true);
  }, [shownProc?.id]);
  const endedRow = (events.data ?? []).findLast((r) => idOf(r) === selected);
  const error = tree.error ?? events.error;
  const open = (p: Proc) => set({ select: p.id }, selected !== '');
  return (
    <>
      <section class="content" aria-label="Processes">
        <TimeTravel events={events.data ?? []} alive={model.alive} shown={tree.data !== undefined} />
        <div class="toolbar">
          <Incomplete complete={tree.data?.complete} />
          <Check on={withEnded} title="show the processes that ended in the range before this moment, too" flip={() => set({ ended: withEnded ? '' : 'on' }, true)}>ended ones too</Check>
          {sort && <button type="button" onClick={() => set({ sort: '' }, true)}>Back to the tree</button>}
          <span class="grow" />
          {!sort && <><button type="button" class="only-wide" onClick={() => setOpen(everyone(model.roots), true)}>Unfold all</button><button type="button" class="only-wide" onClick={() => setOpen(everyone(model.roots), false)}>Fold all</button></>}
          <button type="button" class="only-wide" onClick={() => void copy(asText(rows), 'the tree')}>Copy</button>
        </div>
        {error && <Problem error={error} retry={() => { tree.retry(); events.retry(); }} stale={model.alive > 0} />}
        {rows.length === 0 && !error
          ? <Nothing loading={!tree.data} />
          : <Table label="Processes" rows={rows} columns={columns} keyOf={(p) => p.id} selected={selected} open={open} peek={open} hold
              sort={sort} onSort={(s) => set({ sort: s }, true)} slim={(p) => <Slim p={p} open={isOpen(p)} />}
              tree={{ level: (p) => p.level, expanded: (p) => (p.children.length ? isOpen(p) : undefined), toggle: (p, o) => setOpen([p], o) }}
              rowClass={(p) => (p.endedBefore ? 'ended' : '')} />}
      </section>
      {selected && <ProcessPanel key={selected} id={selected} proc={shownProc} row={shownProc?.row ?? endedRow} boot={model.boot} loading={!tree.data} />}
    </>
  );
}

/** With a filter, those that ended and match stand beside the hits: the events were filtered by the agent. */
function withUnion(hits: Set<string> | undefined, ended: readonly Row[]): Set<string> | undefined {
  return hits && new Set([...hits, ...ended.map(idOf)]);
}

function setOpen(which: readonly Proc[], open: boolean): void {
  if (!which.length) return;
  const next = new Map(toggled.value);
  for (const p of which) next.set(p.id, open);
  toggled.value = next;
}

function everyone(roots: readonly Proc[]): Proc[] {
  return roots.flatMap((p) => [p, ...everyone(p.children)]);
}

const findProc = (roots: readonly Proc[], id: string) => everyone(roots).find((p) => p.id === id);

const seenIn = (rows: readonly Proc[]) => function* (field: string): Iterable<string> {
  const names: Record<string, string> = { service: 'service.name', pid: 'process.pid', command: 'process.executable.name', container: 'container.name' };
  yield* new Set(rows.slice(0, 3000).map((p) => str(p.row, names[field] ?? field)));
};

/** The tree as text, as it stands. */
function asText(rows: readonly Proc[]): string {
  return rows.map((p) => `${str(p.row, 'process.pid').padStart(8)}  ${'  '.repeat(p.level)}${list(p.row, 'process.command_args').join(' ') || nameOf(p.row)}`).join('\n') + '\n';
}

function Slim(props: { p: Proc; open: boolean }) {
  const { p } = props;
  return (
    <div class={p.hit && !p.endedBefore ? '' : 'faint'} style={{ paddingLeft: `${Math.min(p.level, 8) * 12}px` }}>
      <p class="line"><span class="twisty">{p.children.length ? (props.open ? '▾' : '▸') : ''}</span><b>{nameOf(p.row)}</b><span class="dim">{list(p.row, 'process.command_args').slice(1).join(' ')}</span></p>
      <p class="line dim"><span>{str(p.row, 'process.pid')}</span><span>{str(p.row, 'service.name')}</span><span>{userOf(p.row)}</span><Exit row={p.exit} /></p>
    </div>
  );
}

function Nothing(props: { loading: boolean }) {
  if (props.loading) return <Empty title="Asking the agent…" />;
  if (filter.value) return <Empty title="No process of this moment matches the filter."><p><button type="button" class="plain link" onClick={() => set({ filter: '' })}>Clear the filter</button>, or look at another moment.</p></Empty>;
  if (moment_()) return <Empty title="Nothing is kept of this moment."><p><button type="button" class="plain link" onClick={() => set({ at: '', since: '', until: '' })}>Go to now</button></p></Empty>;
  return <Empty title="No process seen yet."><p>The process sensor tells why on <a class="link" href="/health">Health</a>. When it runs, every process shows here within a second.</p></Empty>;
}

// ---- time travel

const bins = 160;

function TimeTravel(props: { events: readonly Row[]; alive: number; shown: boolean }) {
  const { events } = props;
  const at = moment_();
  const dragged = useSignal<number | undefined>(undefined);
  const [from, to] = bounds(range.value);
  const here = dragged.value ?? (at ? parseTime(at) : to);
  const [low, high] = [Math.min(from, here), Math.max(to, here)];
  const heights = useMemo(() => {
    const starts = new Array<number>(bins).fill(0);
    const ends = new Array<number>(bins).fill(0);
    for (const r of events) {
      const i = Math.floor(((time(r) - low) / (high - low)) * bins);
      if (i < 0 || i >= bins) continue;
      (str(r, 'action') === 'exit' ? ends : starts)[i]!++;
    }
    return { starts, ends, top: Math.max(1, ...starts, ...ends) };
  }, [events, Math.floor(low / 1000), Math.floor(high / 1000)]);
  const go = (ms: number) => set({ at: ms >= high - 500 && live.value ? '' : new Date(ms).toISOString() }, true);
  const words = at || dragged.value ? `${day(here) === day(Date.now()) ? '' : `${day(here)} `}${clock(here, false)}` : 'now';
  const starts = events.filter((r) => str(r, 'action') !== 'exit').length;
  return (
    <div class="travel">
      <div class="when">
        <b>{words}</b>
        <span class="dim">{props.shown ? plural(props.alive, 'process', 'processes') : ''}{at && `, ${ago(here)} ago`}</span>
        <span class="grow" />
        <span class="dim only-wide">{count(starts)} started, {count(events.length - starts)} ended in the range</span>
        <button type="button" aria-label="one event back" title="one event back ([)" onClick={() => step(events, -1)}>‹</button>
        <button type="button" aria-label="one event on" title="one event on (])" onClick={() => step(events, 1)}>›</button>
        <button type="button" disabled={!at} onClick={() => set({ at: '', ...(live.value ? {} : { since: '', until: '' }) })}>Now</button>
      </div>
      <div class="track">
        <svg viewBox={`0 0 ${bins} 40`} preserveAspectRatio="none" aria-hidden="true">
          {heights.starts.map((n, i) => n > 0 && <rect key={i} class="started" x={i + 0.15} width=".7" y={20 - (n / heights.top) * 19} height={(n / heights.top) * 19} />)}
          {heights.ends.map((n, i) => n > 0 && <rect key={-i - 1} class="ended" x={i + 0.15} width=".7" y="20.5" height={(n / heights.top) * 19} />)}
        </svg>
        <input
          type="range" aria-label="Moment" aria-valuetext={words} min={Math.floor(low)} max={Math.ceil(high)} step="1000" value={here}
          onInput={(e) => (dragged.value = Number(e.currentTarget.value))}
          onChange={(e) => { dragged.value = undefined; go(Number(e.currentTarget.value)); }}
        />
      </div>
      <div class="ends dim"><span>{moment(low)}</span><span class="only-wide">bars up: started; down: ended</span><span>{live.value && high === to ? 'now' : moment(high)}</span></div>
    </div>
  );
}
