// Flows: the live table of connections.
import { useSignal } from '@preact/signals';
import { useEffect, useMemo } from 'preact/hooks';
import { columnsOf } from './agent';
import { links } from './api';
import { Feed } from './feed';
import { applied, seen } from './filterbar';
import { client, ending, folded, inbound, mark, server, toClient, toFlow, toServer, verdictWord, type End, type Flow } from './flow';
import { FlowPanel } from './flowpanel';
import { bytes, clock, count, duration, exactBytes, exactDuration } from './format';
import { CellValue, Check, Empty, Incomplete, Problem, Sign } from './parts';
import { num, str } from './row';
import { filter, live, param, range, set } from './route';
import { amount, ColumnChooser, CopyMenu, Count, Place, rawColumn, seenIn } from './rowtable';
import { sorted, Table, type Column } from './table';

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

function chosenColumns(text: string, panel: boolean): Column<Flow>[] {
  const ids = text ? text.split(',') : panel ? besidePanel : builtinIds;
  return ids.map((id) => builtin.find((c) => c.id === id) ?? rawColumn('flows', id));
}

const feed = new Feed('flows', 'flow', toFlow, () => ({ filter: applied('flows'), ...range.value }));

const fieldsOf: Record<string, string[]> = {
  service: ['service.name', 'peer.service.name'], pid: ['process.pid', 'peer.pid'], command: ['process.executable.name'],
  container: ['container.name', 'peer.container.name'], address: ['source.address', 'destination.address'],
  port: ['destination.port'], transport: ['network.transport'], reason: ['tcp.close_reason'], peer: ['peer.service.name'],
};

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
  feed.use(retry.value);
  const columnsText = param('columns');
  const selected = param('select');
  const bothEnds = param('ends') === 'both';
  const columns = useMemo(() => chosenColumns(columnsText, selected !== ''), [columnsText, selected !== '', columnsOf('flows').length]);
  const sort = param('sort') || '-time';
  const rows = feed.items.value;
  const lines = useMemo(() => (bothEnds ? rows : folded(rows)), [rows, bothEnds]);
  const view = useMemo(() => (sort === '-time' ? lines : sorted(lines, columns, sort)), [lines, sort, columns]);
  useEffect(() => { seen.values = seenIn(feed, fieldsOf); }, []);

  const open = (f: Flow) => set({ select: f.key }, selected !== '');
  const lost = links.value.flows?.state === 'lost';
  return (
    <>
      <section class="content" aria-label="Flows">
        <div class="toolbar">
          <Count feed={feed} one="record" />
          <Incomplete complete={feed.about.value.complete} lost={feed.about.value.lost} />
          {lost && <span class="bad"><Sign mark="error" />not live: connection lost</span>}
          <span class="grow" />
          <Check on={bothEnds} title="a connection inside this host is recorded at both of its ends: show a row for each" flip={() => set({ ends: bothEnds ? '' : 'both' }, true)}>both ends</Check>
          <ColumnChooser table="flows" usual={builtin} chosen={columns.map((c) => c.id)} />
          <CopyMenu command="flows" rows={view} columns={columns} />
        </div>
        {feed.error.value && <Problem error={feed.error.value} retry={() => retry.value++} stale={rows.length > 0} />}
        {rows.length === 0 && !feed.error.value && <Nothing />}
        {rows.length > 0 && <Table label="Flows, newest first" rows={view} columns={columns} keyOf={(f) => f.key} selected={selected} open={open} peek={open} sort={sort}
              onSort={(s) => set({ sort: s === '-time' ? '' : s }, true)} slim={Slim} hold={!live.value || sort !== '-time'} onScrolled={(s) => (feed.scrolled = s)}
              rowClass={(f) => (mark(f.row) === 'error' ? 'failed' : '')} />}
      </section>
      {selected && <FlowPanel key={selected} id={selected} known={rows.find((f) => f.key === selected)} />}
    </>
  );
}

function Nothing() {
  if (feed.state.value === 'loading') return <Empty title="Asking the agent…" />;
  if (filter.value) {
    return (
      <Empty title="No flow in this range matches the filter.">
        <p>Widen the time range (<kbd>t</kbd>), or <button type="button" class="plain link" onClick={() => set({ filter: '' })}>clear the filter</button>.</p>
      </Empty>
    );
  }
  return <Empty title="No flow seen yet."><p>Try <code>curl localhost:8080</code>: it shows here within a second, even if the connection is refused.</p></Empty>;
}
