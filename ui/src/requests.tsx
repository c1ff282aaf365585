// Requests: the latency heatmap over time, and below it the requests, or those
// of a box marked in it.
import { useSignal } from '@preact/signals';
import { useEffect, useMemo } from 'preact/hooks';
import { columnsOf, narrow } from './agent';
import { get, links, useAnswer } from './api';
import { setRange } from './brush';
import { Feed, type Question } from './feed';
import { applied, seen } from './filterbar';
import { join, only, remove, terms } from './filter';
import { bytes, clock, duration, exactBytes, exactDuration, moment, parseTime } from './format';
import { boxTerms, boxText, readBox, type Heatmap } from './heat';
import { HeatmapView } from './heatmap';
import { pageKey } from './keys';
import { CellValue, Empty, Incomplete, Problem, Sign } from './parts';
import { bounds } from './range';
import { answerer, asker, exactly, failed, markOf, operation, statusText, took, toRequest, type Request } from './request';
import { RequestPanel } from './requestpanel';
import { num, str } from './row';
import { amount, ColumnChooser, CopyMenu, Count, Place, rawColumn, seenIn } from './rowtable';
import { filter, live, param, range, set, setFilter } from './route';
import { sorted, Table, type Column } from './table';

const nameOf = (e: { service: string; command: string; address: string }) => e.service || e.command || e.address;

const fieldOf = (row: Request['row']) => (str(row, 'http.route') ? 'http.route' : str(row, 'rpc.method') ? 'rpc.method' : str(row, 'db.query.summary') ? 'db.query.summary' : 'protocol');

function Operation(props: { row: Request['row'] }) {
  const { row } = props;
  const method = str(row, 'http.request.method');
  const name = operation(row);
  const rest = method && name.startsWith(method) ? name.slice(method.length + 1) : name;
  const field = fieldOf(row);
  return (
    <span class="operation" title={[name, exactly(row)].filter(Boolean).join('\n')}>
      {method && <CellValue field="method" value={method} class="dim" />}
      <CellValue field={field} value={str(row, field)} class="name">{rest}</CellValue>
    </span>
  );
}

export function Status(props: { row: Request['row'] }) {
  const { row } = props;
  return <CellValue field="status" value={statusText(row) || (failed(row) ? 'error' : 'ok')} class={`verdict ${failed(row) ? 'bad' : ''}`}><Sign mark={markOf(row)} /><span title={[statusText(row), str(row, 'error.type'), row.complete === false && 'not seen whole'].filter(Boolean).join(', ')}>{statusText(row) || (failed(row) ? 'failed' : 'ok')}</span></CellValue>;
}

// The bar of a request's eight parts will stand before "Took".
const builtin: Column<Request>[] = [
  { id: 'time', label: 'Time', title: 'when it began', width: '108px', cell: (r) => <CellValue field="time" value={r.at}>{clock(r.at)}</CellValue>, sort: (r) => r.at },
  { id: 'status', label: 'Status', width: '98px', cell: (r) => <Status row={r.row} />, sort: (r) => statusText(r.row) },
  { id: 'operation', label: 'What', title: 'method and route, query or topic', width: 'minmax(190px, 4fr)', cell: (r) => <Operation row={r.row} />, sort: (r) => operation(r.row) },
  { id: 'client', label: 'Client', width: 'minmax(130px, 2fr)', cell: (r) => <Place end={asker(r.row)} />, sort: (r) => nameOf(asker(r.row)) },
  { id: 'server', label: 'Server', width: 'minmax(130px, 2fr)', cell: (r) => <Place end={answerer(r.row)} />, sort: (r) => nameOf(answerer(r.row)) },
  { id: 'protocol', label: 'Protocol', width: '90px', cell: (r) => <><CellValue field="protocol" value={str(r.row, 'protocol')} class="dim" />{r.row.tls === true && <span class="dim" title="encrypted"> TLS</span>}</>, sort: (r) => str(r.row, 'protocol') },
  { id: 'seen', label: 'Seen at', title: 'which end this record is of', width: '66px', cell: (r) => <CellValue field="role" value={str(r.row, 'role')} class="dim" />, sort: (r) => str(r.row, 'role') },
  { id: 'size', label: 'Answer', title: 'bytes of the answer, head and body', width: '78px', right: true, cell: (r) => amount(num(r.row, 'size.response'), bytes, exactBytes), sort: (r) => num(r.row, 'size.response') },
  { id: 'first', label: 'First byte', title: 'until the first byte of the answer', width: '80px', right: true, cell: (r) => amount(num(r.row, 'time_to_first_byte_ns'), duration, exactDuration), sort: (r) => num(r.row, 'time_to_first_byte_ns') },
  { id: 'took', label: 'Took', title: 'until its last byte', width: '80px', right: true, cell: (r) => amount(took(r.row), duration, exactDuration), sort: (r) => took(r.row) },
];
const besidePanel = ['time', 'status', 'operation', 'server', 'took']; // what fits at 1280 px

function chosenColumns(text: string, panel: boolean): Column<Request>[] {
  const ids = text ? text.split(',') : panel ? besidePanel : builtin.map((c) => c.id);
  return ids.map((id) => builtin.find((c) => c.id === id) ?? rawColumn('requests', id));
}

/** What the table asks for: the requests of the box, where there is one. */
function question(): Question {
  const b = readBox(param('box'));
  const asked = applied('requests');
  if (!b) return { filter: asked, ...range.value };
  return { filter: join([asked, boxTerms(b)]), since: b.since, until: b.until };
}

const feed = new Feed('requests', 'request', toRequest, question);

const fieldsOf: Record<string, string[]> = {
  service: ['service.name', 'peer.service.name'], peer: ['peer.service.name'], pid: ['process.pid', 'peer.pid'], command: ['process.executable.name'],
  container: ['container.name', 'peer.container.name'], address: ['source.address', 'destination.address'], port: ['destination.port'],
  route: ['http.route', 'rpc.method'], path: ['url.path'], method: ['http.request.method'], status: ['http.response.status_code', 'rpc.response.status_code', 'db.response.status_code'],
  operation: ['db.operation.name', 'rpc.method', 'messaging.operation.name', 'dns.question.type'], target: ['db.collection.name', 'messaging.destination.name', 'dns.question.name'],
  error: ['error.type'], trace: ['trace.trace_id'], span: ['trace.span_id'],
};

function Slim(r: Request) {
  const { row } = r;
  return (
    <div>
      <p class="line"><Sign mark={markOf(row)} /><b>{operation(row)}</b><span class="grow" /><span>{duration(took(row) ?? 0)}</span></p>
      <p class="line dim"><span>{clock(r.at)}</span>{statusText(row) && <span class={failed(row) ? 'bad' : ''}>{statusText(row)}</span>}<span>{nameOf(asker(row))} → {nameOf(answerer(row))}</span></p>
    </div>
  );
}

/** How often a live heatmap is counted anew: long ranges cost the agent more. */
function pace(): number {
  if (!live.value) return 0;
  const [from, to] = bounds(range.value);
  return to - from > 3600e3 ? 30_000 : to - from > 5 * 60e3 ? 6000 : 2000;
}

export function Requests() {
  const retry = useSignal(0);
  feed.use(retry.value);
  const asked = applied('requests');
  const { since, until } = range.value;
  const columnsOfTime = narrow.value ? 48 : 120;
  const heat = useAnswer<Heatmap>(`${asked}|${since}|${until}|${columnsOfTime}`, (stop) => get('heatmap', { filter: asked, since, until, columns: String(columnsOfTime) }, stop), pace());
  const columnsText = param('columns');
  const selected = param('select');
  const box = readBox(param('box'));
  const asTable = param('heat') === 'table';
  const columns = useMemo(() => chosenColumns(columnsText, selected !== ''), [columnsText, selected !== '', columnsOf('requests').length]);
  const sort = param('sort') || '-time';
  const rows = feed.items.value;
  const view = useMemo(() => (sort === '-time' ? rows : sorted(rows, columns, sort)), [rows, sort, columns]);
  useEffect(() => { seen.values = seenIn(feed, fieldsOf); }, []);
  useEffect(() => {
    const handle = (e: KeyboardEvent) => {
      if (e.key !== 'Escape' || param('select') || !param('box')) return false;
      set({ box: '' });
      return true;
    };
    pageKey.handle = handle;
    return () => { if (pageKey.handle === handle) pageKey.handle = undefined; };
  });

  const open = (r: Request) => set({ select: r.key }, selected !== '');
  const error = feed.error.value;
  const lost = links.value.requests?.state === 'lost';
  const none = heat.data && !heat.data.bounds_ns?.length && rows.length === 0;
  return (
    <>
      <section class="content requestpage" aria-label="Requests">
        <div class="toolbar">
          <SeenAt />
          <Incomplete complete={heat.data?.complete} />
          <span class="grow" />
          {!none && !box && !asTable && !selected && <span class="dim only-wide hint">drag a box: its requests · drag the axis: the time range</span>}
          {!none && <button type="button" aria-pressed={asTable} title="the heatmap's cells as a table" onClick={() => set({ heat: asTable ? '' : 'table' }, true)}>{asTable ? 'Heatmap' : 'Cells'}</button>}
        </div>
        {heat.error && <Problem error={heat.error} retry={heat.retry} stale={heat.data !== undefined} />}
        {heat.data && !none && <HeatmapView data={heat.data} box={box} onBox={(b) => set({ box: b ? boxText(b) : '', select: '' })} asTable={asTable} />}
        {!none && (
          <div class="toolbar below">
            <Count feed={feed} one="request" />
            {box && <>
              <span class="boxed">{moment(parseTime(box.since))} – {clock(parseTime(box.until), false)}, {duration(box.low)} – {duration(box.high)}<button type="button" class="plain x" aria-label="remove the box" title="remove the box (esc)" onClick={() => set({ box: '' })}>×</button></span>
              <button type="button" class="plain link" title="the time of the box becomes the time range of every page" onClick={() => setRange(box.since, box.until)}>zoom to its time</button>
              <button type="button" class="plain link only-wide" title="the latency of the box becomes part of the filter" onClick={() => set({ filter: join([filter.value, boxTerms(box)]), box: '' })}>filter by its latency</button>
            </>}
            <Incomplete complete={feed.about.value.complete} lost={feed.about.value.lost} />
            {lost && <span class="bad"><Sign mark="error" />not live: connection lost</span>}
            <span class="grow" />
            <ColumnChooser table="requests" usual={builtin} chosen={columns.map((c) => c.id)} />
            <CopyMenu command="requests" rows={view} columns={columns} />
          </div>
        )}
        {error && !heat.error && <Problem error={error} retry={() => retry.value++} stale={rows.length > 0} />}
        {rows.length === 0 && !error && !heat.error && <Nothing box={box !== undefined} />}
        {rows.length > 0 && <Table label="Requests, newest first" rows={view} columns={columns} keyOf={(r) => r.key} selected={selected} open={open} peek={open} sort={sort}
              onSort={(s) => set({ sort: s === '-time' ? '' : s }, true)} slim={Slim} hold={!live.value || box !== undefined || sort !== '-time'} onScrolled={(s) => (feed.scrolled = s)}
              rowClass={(r) => (failed(r.row) ? 'failed' : '')} />}
      </section>
      {selected && <RequestPanel key={selected} id={selected} known={rows.find((r) => r.key === selected)?.row} />}
    </>
  );
}

const ends = [['', 'both ends'], ['server', 'at the server'], ['client', 'at the client']] as const;

/** An exchange inside this host is recorded at both of its ends; this chooses one of them. */
function SeenAt() {
  const role = terms(filter.value).find((t) => t.field === 'role' && !t.negated)?.value ?? '';
  const choose = (r: string) => setFilter(r ? only(filter.value, 'role', r) : remove(filter.value, `role:${role}`));
  return (
    <div class="choice" role="group" aria-label="Seen at">
      {ends.map(([r, label]) => <button key={r} type="button" aria-pressed={role === r} title="a request inside this host is recorded at both of its ends" onClick={() => choose(r)}>{label}</button>)}
    </div>
  );
}

function Nothing(props: { box: boolean }) {
  if (feed.state.value === 'loading') return <Empty title="Asking the agent…" />;
  if (props.box) return <Empty title="No request in this box."><p><button type="button" class="plain link" onClick={() => set({ box: '' })}>Remove the box</button></p></Empty>;
  if (filter.value) return <Empty title="No request in this range matches the filter."><p>Widen the time range (<kbd>t</kbd>), or <button type="button" class="plain link" onClick={() => set({ filter: '' })}>clear the filter</button>.</p></Empty>;
  return <Empty title="No request seen yet."><p>Try <code>curl localhost:8080</code>: it shows here within a second, at both of its ends.</p></Empty>;
}

