// The detail of one connection: both of its ends, added up over its intervals.
import type { ComponentChildren } from 'preact';
import { get, useAnswer, type Query } from './api';
import { client, ending, hostPort, inbound, mark, server, toFlow, type End, type Flow } from './flow';
import { bytes, clock, count, duration, exactBytes, exactDuration, grouped, moment, parseTime, plural, rate } from './format';
import { AllFields, Panel } from './panel';
import { Link, Problem, Sign, Spark, Value } from './parts';
import { list, num, str, time, type Row } from './row';
import { range } from './route';

interface Answer { flows: Row[] | null }

/** The records of one end, oldest first, added up. */
interface Side {
  records: Row[];
  last: Row;
  sent: number; received: number; packetsOut: number; packetsIn: number;
  retransmits: number; limited: number; rttMin: number | undefined; complete: boolean;
}

const sum = (rows: readonly Row[], name: string) => rows.reduce((n, r) => n + (num(r, name) ?? 0), 0);

function side(records: Row[]): Side | undefined {
  const last = records[records.length - 1];
  if (!last) return undefined;
  const mins = records.map((r) => num(r, 'tcp.rtt_min_ns')).filter((n) => n !== undefined);
  return {
    records, last, sent: sum(records, 'bytes.sent'), received: sum(records, 'bytes.received'),
    packetsOut: sum(records, 'packets.sent'), packetsIn: sum(records, 'packets.received'),
    retransmits: sum(records, 'tcp.retransmits'), limited: sum(records, 'tcp.window_limited_ns'),
    rttMin: mins.length ? Math.min(...mins) : undefined, complete: records.every((r) => r.complete !== false),
  };
}

/** The filter that finds every record of the connection, at both ends. */
function tuple(row: Row): string {
  const one = (name: string) => { const v = str(row, name); return v && `${name}:${v}`; };
  return ['source.address', 'source.port', 'destination.address', 'destination.port', 'network.transport'].map(one).filter(Boolean).join(' ');
}

/**
 * What to ask for: every record of the connection where its addresses are
 * known; else, from a link, those of the socket that the key names; else, a
 * packet that belongs to no socket, what was told at its moment.
 */
function question(id: string, known: Flow | undefined, open: boolean): Query {
  const { since, until } = range.value;
  if (known && str(known.row, 'source.address')) return { filter: tuple(known.row), since, until: open ? '' : until };
  const [, socket, told] = /^(\d+)\.[oi]?@(.+)$/.exec(id) ?? [, '', id.replace(/^.*@/, '')];
  if (socket) return { filter: `flow.id:${socket}`, since, until };
  const at = parseTime(told!);
  return { filter: 'verdict:dropped', since: new Date(at - 2).toISOString(), until: new Date(at + 2).toISOString() };
}

export function FlowPanel(props: { id: string; known: Flow | undefined }) {
  const { id, known } = props;
  const open = known ? ending(known.row) === 'open' : false;
  const query = question(id, known, open);
  const answer = useAnswer(`${id}|${query.filter}`, async (stop) => {
    const a = await get<Answer>('flows', { ...query, last: '1000' }, stop);
    return a.flows ?? [];
  }, open ? 3000 : 0);
  const row = known?.row ?? answer.data?.find((r) => toFlow(r).key === id);
  if (!row) {
    return (
      <Panel title="Flow" name="Flow">
        {answer.error ? <Problem error={answer.error} retry={answer.retry} /> : <p class="dim">{answer.loading ? 'Asking the agent…' : 'This flow is not in the range, or no longer kept. Widen the range (t).'}</p>}
      </Panel>
    );
  }
  const whole = answer.data?.length && str(row, 'source.address');
  const records = whole ? answer.data! : [row];
  return <Detail row={row} records={records} problem={answer.error && <Problem error={answer.error} retry={answer.retry} />} />;
}

function title(e: End): string {
  return e.service || e.command || hostPort(e) || 'unknown';
}

function Detail(props: { row: Row; records: Row[]; problem: ComponentChildren }) {
  const { row, records } = props;
  const dropped = str(row, 'verdict') === 'dropped';
  const mine = records.filter((r) => (str(r, 'verdict') === 'dropped') === dropped);
  const atClient = side(mine.filter((r) => !inbound(r)));
  const atServer = side(mine.filter(inbound));
  const [c, s] = [client(atClient?.last ?? row), server(atServer?.last ?? row)];
  const began = Math.min(...mine.map((r) => time(r)));
  const ended = Math.max(...mine.map((r) => time(r, 'end_time') || time(r)));
  return (
    <Panel name="Flow" title={<><Sign mark={mark(row)} />{c.address || s.address || c.service || s.service ? <>{title(c)} <span class="dim">→</span> {title(s)}</> : 'Dropped packet'}</>}>
      {props.problem}
      <p class="lead">{sentence(row, began, ended)}</p>
      {str(row, 'tcp.reset_reason') && <p>The kernel's reason for the reset: <Value field="tcp.reset_reason" value={str(row, 'tcp.reset_reason')} /></p>}
      {dropped ? <Dropped row={row} /> : <Ends c={c} s={s} atClient={atClient} atServer={atServer} />}
      <Course side={atClient ?? atServer} />
      <p class="links">
        {num(row, 'process.pid') !== undefined && <Link to="processes" params={{ filter: '', select: str(row, 'process.exec_id'), at: str(row, 'time') }} class="link">The process</Link>}
        {num(row, 'flow.id') ? <Link to="flows" params={{ filter: tuple(row) }} class="link">Its {plural(records.length, 'record')}</Link> : null}
        {c.address && s.address && <Link to="flows" params={{ filter: `source.address:${c.address} destination.address:${s.address}`, select: '' }} class="link">From this host to that</Link>}
      </p>
      <AllFields table="flows" row={row} />
    </Panel>
  );
}

function sentence(row: Row, began: number, ended: number): string {
  const took = duration(Math.max(0, ended - began) * 1e6);
  const how = ending(row);
  const start = moment(began);
  if (str(row, 'verdict') === 'dropped') return `${plural(num(row, 'drop.count') ?? 1, 'packet')} dropped by the kernel at ${clock(began)}: ${how}.`;
  if (how === 'open') return `Open since ${start}, for ${took} so far.`;
  if (how === 'refused') return `Refused at ${clock(began)}: nothing listens there.`;
  if (how === 'timed out') return `Timed out after ${took}, began at ${start}.`;
  return how ? `Began at ${start}; after ${took}: ${how}.` : `From ${start}, for ${took}.`;
}

function Dropped(props: { row: Row }) {
  const { row } = props;
  return (
    <dl class="facts">
      <div><dt>reason</dt><dd><Value field="drop.reason" value={str(row, 'drop.reason')} /></dd></div>
      {str(row, 'network.interface.name') && <div><dt>interface</dt><dd><Value field="network.interface.name" value={str(row, 'network.interface.name')} /></dd></div>}
      {str(row, 'source.address') && <div><dt>from</dt><dd><Value field="address" value={str(row, 'source.address')}>{hostPort(client(row))}</Value></dd></div>}
      {str(row, 'destination.address') && <div><dt>to</dt><dd><Value field="address" value={str(row, 'destination.address')}>{hostPort(server(row))}</Value></dd></div>}
    </dl>
  );
}

function Ends(props: { c: End; s: End; atClient: Side | undefined; atServer: Side | undefined }) {
  const { c, s, atClient, atServer } = props;
  const both = (name: string, cellOf: (e: End, side: Side | undefined) => ComponentChildren, right = false) => {
    const [a, b] = [cellOf(c, atClient), cellOf(s, atServer)];
    if (!a && !b) return null;
    return <tr><th scope="row">{name}</th><td class={right ? 'right' : ''}>{a ?? <span class="dim">–</span>}</td><td class={right ? 'right' : ''}>{b ?? <span class="dim">–</span>}</td></tr>;
  };
  const figure = (n: number | undefined, text: (n: number) => string, exact: (n: number) => string) => (n === undefined ? undefined : <span title={exact(n)}>{text(n)}</span>);
  const of = (name: string, text: (n: number) => string, exact: (n: number) => string) =>
    both(labels[name] ?? name, (_, x) => x && figure(num(x.last, name), text, exact), true);
  return (
    <table class="ends">
      <thead><tr><td /><th scope="col">client</th><th scope="col">server</th></tr></thead>
      <tbody>
        {both('service', (e) => e.service && <Value field="service" value={e.service} />)}
        {both('process', (e, x) => e.pid !== undefined && <><Value field="pid" value={e.pid} title={list(x?.last, 'process.command_args').join(' ')}>{e.command && `${e.command} `}<span class="dim">{e.pid}</span></Value></>)}
        {both('container', (e) => e.container && <Value field="container" value={e.container} />)}
        {both('address', (e) => <Value field="address" value={e.address} />)}
        {both('port', (e) => e.port !== undefined && <Value field="port" value={e.port} />)}
        {both('sent', (_, x) => x && figure(x.sent, bytes, exactBytes), true)}
        {both('received', (_, x) => x && figure(x.received, bytes, exactBytes), true)}
        {both('packets sent', (_, x) => x && figure(x.packetsOut, count, grouped), true)}
        {both('packets received', (_, x) => x && figure(x.packetsIn, count, grouped), true)}
        {of('tcp.connect_ns', duration, exactDuration)}
        {of('tcp.rtt_ns', duration, exactDuration)}
        {both('RTT, smallest', (_, x) => x && figure(x.rttMin, duration, exactDuration), true)}
        {both('retransmits', (_, x) => x && figure(x.retransmits, count, grouped), true)}
        {both('held back by peer', (_, x) => x && x.limited > 0 && figure(x.limited, duration, exactDuration), true)}
        {both('state', (_, x) => x && str(x.last, 'tcp.state').replaceAll('_', ' '), true)}
        {both('seen whole', (_, x) => (x ? (x.complete ? 'yes' : 'no') : 'not on this host'), true)}
      </tbody>
    </table>
  );
}

const labels: Record<string, string> = { 'tcp.connect_ns': 'connect took', 'tcp.rtt_ns': 'RTT' };

/** Bytes over time, where there is more than one interval. */
function Course(props: { side: Side | undefined }) {
  const records = props.side?.records ?? [];
  if (records.length < 2) return null;
  const speeds = records.map((r) => {
    const seconds = Math.max(0.001, (time(r, 'end_time') - time(r)) / 1000);
    return ((num(r, 'bytes.sent') ?? 0) + (num(r, 'bytes.received') ?? 0)) / seconds;
  });
  const top = Math.max(...speeds);
  return (
    <figure>
      <figcaption>Both ways, {plural(records.length, 'interval')}, at most {rate(top)}</figcaption>
      <Spark values={speeds} label={`bytes over time, at most ${rate(top)}`} />
    </figure>
  );
}
