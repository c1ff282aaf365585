// Flows: the live table of connections.
import { signal, useComputed, useSignal } from '@preact/signals';
import { useEffect, useMemo, useRef } from 'preact/hooks';
import { columnsOf } from './agent';
import { ApiError, follow, get, links, type Stream } from './api';
import { seen } from './filterbar';
import { client, ending, folded, hostPort, inbound, mark, server, toClient, toFlow, toServer, verdictWord, type End, type Flow } from './flow';
import { FlowPanel } from './flowpanel';
import { bytes, clock, count, duration, exactBytes, exactDuration, plural } from './format';
import { shownCell } from './panel';
import { CellValue, Check, copy, Empty, Incomplete, Popover, Problem, Sign } from './parts';
import { cell, num, str, type Row } from './row';
import { filter, live, param, range, set } from './route';
import { csv, sorted, Table, type Column } from './table';

const firstPage = 1000;
const nextPage = 2000;
const most = 10_000; // rows kept; twice that while the reader is scrolled down
const beat = 200; // ms between two redraws of a busy stream

interface Answer { flows: Row[] | null; matched: number; complete: boolean; lost: number }

function Place(props: { end: End }) {
  const { end } = props;
  const name = end.service || end.command;
  const where = hostPort(end);
  return (
    <span class="place" title={[end.service, end.command, end.container, end.pid && `pid ${end.pid}`, where].filter(Boolean).join('\n')}>
      {!name && !end.address && <span class="dim">unknown</span>}
      {!name && !end.address ? null : name
        ? <><CellValue field={end.service ? 'service' : 'command'} value={name} class="name" /><CellValue field="address" value={end.address} class="dim">{where}</CellValue></>
        : <CellValue field="address" value={end.address} class="name">{where}</CellValue>}
    </span>
  );
}

function amount(value: number | undefined, text: (n: number) => string, exact: (n: number) => string) {
  return value === undefined ? null : <span class={value === 0 ? 'dim' : ''} title={exact(value)}>{text(value)}</span>;
}

const nameOf = (e: End) => e.service || e.command || e.address;

const builtin: Column<Flow>[] = [
  { id: 'time', label: 'Time', title: 'when it was last reported', width: '104px', cell: (f) => <CellValue field="time" value={f.at}>{clock(f.at)}</CellValue>, sort: (f) => f.at },
  { id: 'verdict', label: 'Verdict', width: '78px', cell: (f) => <CellValue field="verdict" value={str(f.row, 'verdict')} class="verdict"><Sign mark={mark(f.row)} />{verdictWord(f.row)}</CellValue>, sort: (f) => str(f.row, 'verdict') },
  { id: 'client', label: 'Client', width: 'minmax(170px, 3fr)', cell: (f) => <Place end={client(f.row)} />, sort: (f) => nameOf(client(f.row)) },
  { id: 'server', label: 'Server', width: 'minmax(170px, 3fr)', cell: (f) => <Place end={server(f.row)} />, sort: (f) => nameOf(server(f.row)) },
  { id: 'transport', label: 'Proto', title: 'transport protocol', width: '52px', cell: (f) => <CellValue field="transport" value={str(f.row, 'network.transport')} />, sort: (f) => str(f.row, 'network.transport') },
  { id: 'seen', label: 'Seen at', title: 'which end of the connection this record is of', width: '62px', cell: (f) => <CellValue field="direction" value={str(f.row, 'direction')} class="dim">{inbound(f.row) ? 'server' : str(f.row, 'direction') && 'client'}</CellValue>, sort: (f) => str(f.row, 'direction') },
  { id: 'up', label: 'To server', title: 'payload from the client to the server', width: '80px', right: true, cell: (f) => amount(toServer(f.row), bytes, exactBytes), sort: (f) => toServer(f.row) },
  { id: 'down', label: 'To client', title: 'payload from the server to the client', width: '80px', right: true, cell: (f) => amount(toClient(f.row), bytes, exactBytes), sort: (f) => toClient(f.row) },
  { id: 'rtt', label: 'RTT', title: 'smoothed round-trip time', width: '72px', right: true, cell: (f) => amount(num(f.row, 'tcp.rtt_ns'), duration, exactDuration), sort: (f) => num(f.row, 'tcp.rtt_ns') },
  { id: 'retransmits', label: 'Retr.', title: 'segments sent again', width: '54px', right: true, cell: (f) => { const n = num(f.row, 'tcp.retransmits'); return n === undefined ? null : <span class={n ? 'strong' : 'dim'}>{count(n)}</span>; }, sort: (f) => num(f.row, 'tcp.retransmits') },
  { id: 'end', label: 'How it ended', width: 'minmax(112px, 1fr)', cell: (f) => <Ending flow={f} />, sort: (f) => ending(f.row) },
];
const builtinIds = builtin.map((c) => c.id);
const besidePanel = ['time', 'verdict', 'client', 'server', 'up', 'down', 'end']; // what fits at 1280 px

function Ending(props: { flow: Flow }) {
  const { row } = props.flow;
  const reason = str(row, 'tcp.close_reason');
  const drop = str(row, 'drop.reason');
  const text = ending(row);
  const bad = mark(row) === 'error' || mark(row) === 'drop';
  if (drop) return <CellValue field="drop.reason" value={drop} class="bad">{text}</CellValue>;
  if (reason) return <CellValue field="reason" value={reason} class={bad ? 'bad' : ''}>{text}</CellValue>;
  return <span class="dim">{text}</span>;
}

function rawColumn(name: string): Column<Flow> {
  const field = columnsOf('flows').find((c) => c.name === name);
  const type = field?.type ?? 'string';
  return {
    id: name, label: name, title: field?.doc ?? '', width: 'minmax(110px, 1fr)', right: /int|duration/i.test(type) && !/port|pid|id$/.test(name),
    cell: (f) => {
      const v = cell(f.row, name);
      if (v === undefined || v === null) return null;
      const { text, exact } = shownCell(name, type, v);
      return typeof v === 'object' ? <span title={text}>{text}</span> : <CellValue field={name} value={String(v)}><span title={exact || text}>{text}</span></CellValue>;
    },
    sort: (f) => { const v = cell(f.row, name); return typeof v === 'number' || typeof v === 'string' ? v : v === undefined ? undefined : String(v); },
  };
}

function chosenColumns(text: string, panel: boolean): Column<Flow>[] {
  const ids = text ? text.split(',') : panel ? besidePanel : builtinIds;
  return ids.map((id) => builtin.find((c) => c.id === id) ?? rawColumn(id));
}

// What the page holds outlives a visit to another page, so that coming back shows it at once.
const flows = signal<readonly Flow[]>([]);
const about = signal<{ matched: number; complete: boolean; lost: number }>({ matched: 0, complete: true, lost: 0 });
const state = signal<'loading' | 'ready'>('loading');
const error = signal<ApiError | undefined>(undefined);
const known = new Set<string>(); // the keys of flows
let heldFor = '';
let scrolled = false;

const rangeKey = () => `${filter.value}|${range.value.since}|${range.value.until}`;

function put(all: readonly Flow[]): void {
  known.clear();
  for (const f of all) known.add(f.key);
  flows.value = all;
}

/** Takes in what is not there yet, and returns how many that were. */
function merge(fresh: readonly Row[]): number {
  const added = fresh.map(toFlow).filter((f) => !known.has(f.key) && known.add(f.key));
  if (!added.length) return 0;
  const all = [...added, ...flows.value].sort((a, b) => b.at - a.at);
  for (const f of all.splice(scrolled ? 2 * most : most)) known.delete(f.key);
  flows.value = all;
  return added.length;
}

async function load(stop: AbortSignal): Promise<void> {
  const key = rangeKey();
  try {
    const a = await get<Answer>('flows', { filter: filter.value, ...range.value, last: String(firstPage) }, stop);
    put((a.flows ?? []).map(toFlow).sort((x, y) => y.at - x.at));
    about.value = { matched: a.matched, complete: a.complete, lost: a.lost };
    error.value = undefined;
    heldFor = key;
  } catch (err) {
    if (stop.aborted) return;
    error.value = err instanceof ApiError ? err : new ApiError(String(err), '', 0);
    if (heldFor !== key) {
      put([]);
      about.value = { matched: 0, complete: true, lost: 0 };
    }
  }
  state.value = 'ready';
}

async function loadOlder(): Promise<void> {
  const oldest = flows.value[flows.value.length - 1];
  if (!oldest) return;
  const until = new Date(oldest.at + 1).toISOString();
  try {
    const a = await get<Answer>('flows', { filter: filter.value, since: range.value.since, until, last: String(nextPage) });
    const before = flows.value.length;
    scrolled = true;
    merge(a.flows ?? []);
    if (flows.value.length === before) about.value = { ...about.value, matched: before };
  } catch (err) {
    error.value = err instanceof ApiError ? err : new ApiError(String(err), '', 0);
  }
}

function follows(): Stream {
  let waiting: Row[] = [];
  let timer = 0;
  const flush = () => {
    timer = 0;
    const batch = waiting;
    waiting = [];
    const added = merge(batch);
    about.value = { ...about.value, matched: about.value.matched + added };
  };
  const stop = new AbortController();
  const catchUp = async () => { // what went by between the last answer and the stream
    const newest = flows.value[0];
    const since = newest ? new Date(newest.at).toISOString() : range.value.since;
    try {
      const a = await get<Answer>('flows', { filter: filter.value, since, last: String(nextPage) }, stop.signal);
      waiting.push(...(a.flows ?? []));
      flush();
    } catch {
      // The stream tells of a lost connection.
    }
  };
  const stream = follow('flows', 'flows', () => ({ filter: filter.value }), (event, data) => {
    if (event === 'flow') {
      waiting.push(data as Row);
      timer ||= window.setTimeout(flush, beat);
    } else if (event === 'lost') {
      const n = (data as { count: number }).count;
      about.value = { ...about.value, lost: about.value.lost + n, complete: false };
    }
  }, () => void catchUp());
  return { close: () => { stop.abort(); clearTimeout(timer); if (waiting.length) flush(); stream.close(); } };
}

function useFlows(retry: number): void {
  const key = `${filter.value}|${range.value.since}`;
  const wasLive = useRef('');
  useEffect(() => {
    const stop = new AbortController();
    let stream: Stream | undefined;
    const begin = async () => {
      // A pause writes the range of what is on screen into the URL: nothing is asked again.
      const pausing = !live.value && wasLive.current === filter.value && heldFor !== '';
      if (pausing) heldFor = rangeKey();
      if (heldFor !== rangeKey() || retry > 0) {
        if (!heldFor.startsWith(`${filter.value}|`)) { put([]); state.value = 'loading'; }
        await load(stop.signal);
      }
      wasLive.current = live.value ? filter.value : '';
      if (live.value && !stop.signal.aborted && !error.value) stream = follows();
    };
    void begin();
    return () => { stop.abort(); stream?.close(); };
  }, [key, range.value.until, retry]);
}

function* seenValues(field: string): Iterable<string> {
  const names: Record<string, string[]> = {
    service: ['service.name', 'peer.service.name'], pid: ['process.pid', 'peer.pid'], command: ['process.executable.name'],
    container: ['container.name', 'peer.container.name'], address: ['source.address', 'destination.address'],
    port: ['destination.port'], transport: ['network.transport'], reason: ['tcp.close_reason'], peer: ['peer.service.name'],
  };
  const found = new Set<string>();
  for (const f of flows.value.slice(0, 3000)) {
    for (const n of names[field] ?? [field]) {
      const v = str(f.row, n);
      if (v && !found.has(v)) yield (found.add(v), v);
    }
    if (found.size > 200) return;
  }
}

function Slim(f: Flow) {
  const c = client(f.row);
  const s = server(f.row);
  const total = (toServer(f.row) ?? 0) + (toClient(f.row) ?? 0);
  return (
    <div class="slimflow">
      <p class="line"><Sign mark={mark(f.row)} /><b>{nameOf(c)}</b><span class="dim">→</span><b>{nameOf(s)}</b>{s.port !== undefined && <span class="dim">:{s.port}</span>}</p>
      <p class="line dim"><span>{clock(f.at)}</span><span>{str(f.row, 'network.transport')}</span><span>{bytes(total)}</span><span>{ending(f.row)}</span></p>
    </div>
  );
}

export function Flows() {
  const retry = useSignal(0);
  useFlows(retry.value);
  const columnsText = param('columns');
  const selected = param('select');
  const bothEnds = param('ends') === 'both';
  const columns = useMemo(() => chosenColumns(columnsText, selected !== ''), [columnsText, selected !== '', columnsOf('flows').length]);
  const sort = param('sort') || '-time';
  const rows = useComputed(() => flows.value).value;
  const lines = useMemo(() => (bothEnds ? rows : folded(rows)), [rows, bothEnds]);
  const view = useMemo(() => (sort === '-time' ? lines : sorted(lines, columns, sort)), [lines, sort, columns]);
  useEffect(() => { seen.values = seenValues; }, []);

  const open = (f: Flow) => set({ select: f.key }, selected !== '');
  const lost = links.value.flows?.state === 'lost';
  return (
    <>
      <section class="content" aria-label="Flows">
        <div class="toolbar">
          <Count shown={rows.length} />
          <Incomplete complete={about.value.complete} lost={about.value.lost} />
          {lost && <span class="bad"><Sign mark="error" />not live: connection lost</span>}
          <span class="grow" />
          <Check on={bothEnds} title="a connection inside this host is recorded at both of its ends: show a row for each" flip={() => set({ ends: bothEnds ? '' : 'both' }, true)}>both ends</Check>
          <ColumnChooser chosen={columns.map((c) => c.id)} />
          <CopyMenu rows={view} columns={columns} />
        </div>
        {error.value && <Problem error={error.value} retry={() => retry.value++} stale={rows.length > 0} />}
        {rows.length === 0 && !error.value && <Nothing />}
        {rows.length > 0 && <Table label="Flows, newest first" rows={view} columns={columns} keyOf={(f) => f.key} selected={selected} open={open} peek={open} sort={sort}
              onSort={(s) => set({ sort: s === '-time' ? '' : s }, true)} slim={Slim} hold={!live.value || sort !== '-time'} onScrolled={(s) => (scrolled = s)}
              rowClass={(f) => (mark(f.row) === 'error' ? 'failed' : '')} />}
      </section>
      {selected && <FlowPanel key={selected} id={selected} known={rows.find((f) => f.key === selected)} />}
    </>
  );
}

function Count(props: { shown: number }) {
  const { matched } = about.value;
  if (state.value === 'loading') return <span class="dim">loading</span>;
  if (matched > props.shown) {
    return (
      <span>newest {count(props.shown)} of {plural(matched, 'record')}
        {props.shown < most && <button type="button" class="plain link" onClick={() => void loadOlder()}>load older</button>}
      </span>
    );
  }
  return <span>{plural(props.shown, 'record')}</span>;
}

function Nothing() {
  if (state.value === 'loading') return <Empty title="Asking the agent…" />;
  if (filter.value) {
    return (
      <Empty title="No flow in this range matches the filter.">
        <p>Widen the time range (<kbd>t</kbd>), or <button type="button" class="plain link" onClick={() => set({ filter: '' })}>clear the filter</button>.</p>
      </Empty>
    );
  }
  return <Empty title="No flow seen yet."><p>Try <code>curl localhost:8080</code>: it shows here within a second, even if the connection is refused.</p></Empty>;
}

const choosing = signal(false);

function ColumnChooser(props: { chosen: readonly string[] }) {
  const search = useSignal('');
  const known = [...builtin.map((c) => ({ id: c.id, label: c.label, doc: c.title ?? '' })), ...columnsOf('flows').filter((c) => c.name !== 'time' && c.name !== 'verdict').map((c) => ({ id: c.name, label: c.name, doc: c.doc }))];
  const toggle = (id: string) => {
    const next = props.chosen.includes(id) ? props.chosen.filter((c) => c !== id) : [...props.chosen, id];
    const usual = next.length === builtinIds.length && next.every((c, i) => c === builtinIds[i]);
    if (next.length) set({ columns: usual ? '' : next.join(',') }, true);
  };
  return (
    <Popover class="right only-wide" open={choosing.value} setOpen={(o) => (choosing.value = o)} name="Columns" label="Columns">
      <input autofocus type="search" aria-label="Search the columns" placeholder="search" value={search.value} onInput={(e) => (search.value = e.currentTarget.value)} />
      <div class="checks">
        {known.filter((c) => `${c.label} ${c.doc}`.toLowerCase().includes(search.value.toLowerCase())).map((c) => (
          <label key={c.id} title={c.doc}><input type="checkbox" checked={props.chosen.includes(c.id)} onChange={() => toggle(c.id)} />{c.label}</label>
        ))}
      </div>
      <button type="button" onClick={() => set({ columns: '' }, true)}>The usual columns</button>
    </Popover>
  );
}

const copying = signal(false);
const quoted = (s: string) => (/^[\w.:/=,*-]+$/.test(s) ? s : `'${s.replaceAll("'", "'\\''")}'`);

/** What to type in a terminal to see the same. */
function commandLine(): string {
  const { since, until } = range.value;
  const parts = ['ghostlight flows', `--since ${quoted(since)}`, until && `--until ${quoted(until)}`, live.value && '--follow', filter.value && quoted(filter.value)];
  return parts.filter(Boolean).join(' ');
}

function CopyMenu(props: { rows: readonly Flow[]; columns: readonly Column<Flow>[] }) {
  const { rows, columns } = props;
  const table = () => csv(columns.map((c) => c.label), rows.map((f) => columns.map((c) => (c.id === 'time' ? new Date(f.at).toISOString() : c.sort?.(f)))));
  const done = (text: string, what: string) => { copying.value = false; void copy(text, what); };
  return (
    <Popover class="right" role="menu" open={copying.value} setOpen={(o) => (copying.value = o)} name="Copy" label="Copy">
      <button role="menuitem" type="button" onClick={() => done(table(), plural(rows.length, 'row') + ' as CSV')}>Rows as CSV</button>
      <button role="menuitem" type="button" onClick={() => done(rows.map((f) => JSON.stringify(f.row)).join('\n') + '\n', plural(rows.length, 'row') + ' as JSON lines')}>Rows as JSON lines</button>
      <button role="menuitem" type="button" onClick={() => done(commandLine(), 'the command')}>Command for a terminal</button>
      <button role="menuitem" type="button" onClick={() => done(location.href, 'a link to this view')}>Link to this view</button>
    </Popover>
  );
}
