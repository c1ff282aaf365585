// The detail of one request: both of its ends, what it asked, and how its
// connection did.
import type { ComponentChildren } from 'preact';
import { get, useAnswer } from './api';
import { quote } from './filter';
import { hostPort, type End } from './flow';
import { bytes, clock, count, duration, exactBytes, exactDuration, grouped, isoNanos, moment, nanos } from './format';
import { AllFields, Panel } from './panel';
import { Link, Problem, Sign, Value } from './parts';
import { answerer, asker, attributes, exactly, failed, markOf, operation, served, statusText, took } from './request';
import { list, num, str, time, type Row } from './row';
import { page, range } from './route';
import { around } from './timebar';

interface Requests { requests: Row[] | null }
interface Flows { flows: Row[] | null }

const second = 1_000_000_000n;

/** Both ends of the time in which a request and its records lie. */
function when(row: Row, before: bigint, after: bigint): { since: string; until: string } {
  const t = nanos(str(row, 'time'));
  return { since: isoNanos(t - before), until: isoNanos(t + BigInt(took(row) ?? 0) + after) };
}

/** The record of the exchange's other end: the span beside this one, on the same connection. */
async function otherEnd(row: Row, stop: AbortSignal): Promise<Row | undefined> {
  const port = num(row, 'source.port');
  if (!port) return undefined;
  const filter = `source.port:${port} destination.port:${num(row, 'destination.port') ?? 0} role:${served(row) ? 'client' : 'server'}`;
  const a = await get<Requests>('requests', { filter, ...when(row, second, second), last: '200' }, stop);
  const same = (a.requests ?? []).filter((r) => str(r, 'source.address') === str(row, 'source.address') && str(r, 'destination.address') === str(row, 'destination.address'));
  const [own, parent] = [str(row, 'trace.span_id'), str(row, 'trace.parent_span_id')];
  const linked = same.find((r) => (own && str(r, 'trace.parent_span_id') === own) || (parent && str(r, 'trace.span_id') === parent));
  return linked ?? (same.length === 1 ? same[0] : undefined);
}

export function RequestPanel(props: { id: string; known: Row | undefined }) {
  const { id, known } = props;
  const asked = useAnswer(known ? '' : `${id}|${range.value.since}|${range.value.until}`, async (stop) => {
    if (known) return undefined;
    const a = await get<Requests>('requests', { filter: `span:${quote(id)}`, ...range.value, last: '1' }, stop);
    return a.requests?.[0] ?? null;
  });
  const row = known ?? asked.data;
  if (row) return <Detail row={row} />;
  return (
    <Panel title="Request" name="Request">
      {asked.error ? <Problem error={asked.error} retry={asked.retry} /> : <p class="dim">{asked.data === undefined ? 'Asking the agent…' : 'This request is not in the range, or no longer kept. Widen the range (t).'}</p>}
    </Panel>
  );
}

const nameOf = (e: End) => e.service || e.command || hostPort(e) || 'unknown';

function Detail(props: { row: Row }) {
  const { row } = props;
  const other = useAnswer(str(row, 'time') + str(row, 'trace.span_id'), (stop) => otherEnd(row, stop));
  const [atServer, atClient] = served(row) ? [row, other.data] : [other.data, row];
  const what = exactly(row);
  return (
    <Panel name="Request" title={<><Sign mark={markOf(row)} />{operation(row)}</>}>
      <p class="lead">{sentence(row)}</p>
      {what && what !== operation(row) && <p class="asked"><code>{what}</code></p>}
      {row.complete === false && <p class="incomplete"><Sign mark="warn" />not seen from its first to its last byte</p>}
      {other.error && <Problem error={other.error} retry={other.retry} />}
      <Ends row={row} atClient={atClient} atServer={atServer} />
      <Said row={row} />
      <Connection row={row} ids={[num(atClient, 'flow.id'), num(atServer, 'flow.id')]} />
      <Links row={row} />
      <AllFields table="requests" row={row} />
    </Panel>
  );
}

function sentence(row: Row): ComponentChildren {
  const status = statusText(row);
  const how = failed(row) ? <b class="bad">{status && status !== str(row, 'error.type') ? `${status}, ${str(row, 'error.type')}` : status || 'failed'}</b> : <b>{status || 'ok'}</b>;
  const seen = served(row) ? 'until the answer was handed to the kernel' : 'until the answer was read';
  return <>{how} in <b title={`${exactDuration(took(row) ?? 0)}, ${seen}`}>{duration(took(row) ?? 0)}</b>; {nameOf(asker(row))} asked {nameOf(answerer(row))} at {clock(time(row))}.</>;
}

function Ends(props: { row: Row; atClient: Row | undefined; atServer: Row | undefined }) {
  const { row, atClient, atServer } = props;
  const [c, s] = [asker(atClient ?? row), answerer(atServer ?? row)];
  const both = (name: string, a: ComponentChildren, b: ComponentChildren, right = false) => (a || b
    ? <tr><th scope="row">{name}</th><td class={right ? 'right' : ''}>{a || <span class="dim">–</span>}</td><td class={right ? 'right' : ''}>{b || <span class="dim">–</span>}</td></tr>
    : null);
  const of = (name: string, column: string, text: (n: number) => string, exact: (n: number) => string) => {
    const one = (r: Row | undefined) => { const n = num(r, column); return n === undefined ? undefined : <span title={exact(n)}>{text(n)}</span>; };
    return both(name, one(atClient), one(atServer), true);
  };
  const process = (e: End, r: Row | undefined) => e.pid !== undefined && <Value field="pid" value={e.pid} title={list(r, 'process.command_args').join(' ')}>{e.command && `${e.command} `}<span class="dim">{e.pid}</span></Value>;
  const service = (e: End) => e.service && <Value field="service" value={e.service} />;
  return (
    <table class="ends">
      <thead><tr><td /><th scope="col">client</th><th scope="col">server</th></tr></thead>
      <tbody>
        {both('service', service(c), service(s) || s.command)}
        {both('process', process(c, atClient), process(s, atServer))}
        {both('container', c.container && <Value field="container" value={c.container} />, s.container && <Value field="container" value={s.container} />)}
        {both('address', c.address && <Value field="address" value={c.address} />, s.address && <Value field="address" value={s.address} />)}
        {both('port', c.port && <Value field="port" value={c.port} />, s.port && <Value field="port" value={s.port} />)}
        {both('began', atClient && clock(time(atClient)), atServer && clock(time(atServer)), true)}
        {of('waited in the socket', 'queue_ns', duration, exactDuration)}
        {of('first byte after', 'time_to_first_byte_ns', duration, exactDuration)}
        {of('took', 'duration_ns', duration, exactDuration)}
        {of('request', 'size.request', bytes, exactBytes)}
        {of('answer', 'size.response', bytes, exactBytes)}
        {both('thread', str(atClient, 'thread.id'), str(atServer, 'thread.id'), true)}
        {both('goroutine', str(atClient, 'go.goroutine.id'), str(atServer, 'go.goroutine.id'), true)}
        {!atClient || !atServer ? both('recorded', atClient ? 'yes' : 'not on this host', atServer ? 'yes' : 'not on this host') : null}
      </tbody>
    </table>
  );
}

const header = /^http\.(request|response)\.header\./;

/** Protocol, TLS and the headers and attributes that are safe to keep. */
function Said(props: { row: Row }) {
  const { row } = props;
  const kept = Object.entries(attributes(row));
  const version = str(row, 'network.protocol.version');
  const facts: [string, ComponentChildren][] = [
    ['protocol', <Value field="protocol" value={str(row, 'protocol')}>{[str(row, 'protocol'), version].filter(Boolean).join(' ')}</Value>],
    ['carried by', `${str(row, 'network.transport')}${row.tls === true ? ', encrypted (TLS)' : ', in the clear'}`],
  ];
  for (const name of ['db.system.name', 'db.namespace', 'db.operation.name', 'db.collection.name', 'rpc.system.name', 'messaging.system', 'dns.question.name', 'dns.response.code', 'error.type'] as const) {
    const v = str(row, name);
    if (v) facts.push([name, <Value field={name} value={v} />]);
  }
  const line = ([name, value]: [string, ComponentChildren]) => <div key={name}><dt>{name}</dt><dd>{value}</dd></div>;
  const headers = kept.filter(([k]) => header.test(k)).map(([k, v]): [string, ComponentChildren] => [k.replace(header, ''), v]);
  const others = kept.filter(([k]) => !header.test(k));
  return (
    <>
      <dl class="facts">{facts.map(line)}{others.map(line)}</dl>
      {headers.length > 0 && <section><h3>Headers that are kept</h3><dl class="facts">{headers.map(line)}</dl></section>}
    </>
  );
}

/** The record of a flow that reaches over the moment, else the last before it. */
function stateAt(flows: readonly Row[], id: number | undefined, at: number): Row | undefined {
  const own = flows.filter((f) => id !== undefined && num(f, 'flow.id') === id);
  return own.find((f) => time(f, 'end_time') >= at) ?? own[own.length - 1];
}

const before = 120n * second;

function Connection(props: { row: Row; ids: (number | undefined)[] }) {
  const { row } = props;
  const ids = props.ids.filter((id): id is number => !!id);
  const answer = useAnswer(`${ids.join(',')}|${str(row, 'time')}`, async (stop) => {
    if (!ids.length) return [];
    const a = await get<Flows>('flows', { filter: `flow.id:${ids.join(',')}`, ...when(row, before, before), last: '400' }, stop);
    return a.flows ?? [];
  });
  if (!ids.length || str(row, 'network.transport') !== 'tcp') return null;
  const at = time(row) + (took(row) ?? 0) / 1e6;
  const [c, s] = props.ids.map((id) => stateAt(answer.data ?? [], id, at));
  if (!c && !s) return <section><h3>Connection</h3><p class="dim">{answer.loading ? 'Asking the agent…' : 'Nothing is told of it yet: an open connection is reported from time to time.'}</p></section>;
  const lines: [string, (r: Row) => ComponentChildren][] = [
    ['state', (r) => str(r, 'tcp.state').replaceAll('_', ' ')],
    ['ended by', (r) => str(r, 'tcp.close_reason').replaceAll('_', ' ')],
    ['RTT', (r) => { const n = num(r, 'tcp.rtt_ns'); return n && <span title={exactDuration(n)}>{duration(n)}</span>; }],
    ['RTT, smallest', (r) => { const n = num(r, 'tcp.rtt_min_ns'); return n && <span title={exactDuration(n)}>{duration(n)}</span>; }],
    ['retransmits', (r) => { const n = num(r, 'tcp.retransmits'); return n === undefined ? '' : <span class={n ? 'strong' : ''} title={grouped(n)}>{count(n)}</span>; }],
    ['held back by peer', (r) => { const n = num(r, 'tcp.window_limited_ns'); return n ? <span title={exactDuration(n)}>{duration(n)}</span> : ''; }],
    ['told of', (r) => clock(time(r, 'end_time'), false)],
  ];
  return (
    <section>
      <h3>Connection, while it carried this</h3>
      <table class="ends">
        <thead><tr><td /><th scope="col">client</th><th scope="col">server</th></tr></thead>
        <tbody>{lines.map(([name, of]) => {
          const [a, b] = [c && of(c), s && of(s)];
          return a || b ? <tr key={name}><th scope="row">{name}</th><td class="right">{a || <span class="dim">–</span>}</td><td class="right">{b || <span class="dim">–</span>}</td></tr> : null;
        })}</tbody>
      </table>
    </section>
  );
}

function Links(props: { row: Row }) {
  const { row } = props;
  const trace = str(row, 'trace.trace_id');
  const service = served(row) ? str(row, 'service.name') : str(row, 'peer.service.name');
  const near = around(time(row), 150e3);
  return (
    <p class="links">
      {trace && page.value !== 'traces' && <Link to="traces" params={{ filter: '', trace, select: str(row, 'trace.span_id'), ...near }} class="link">Its trace</Link>}
      {page.value !== 'requests' && <Link to="requests" params={{ filter: '', select: str(row, 'trace.span_id'), ...near }} class="link">Among the requests</Link>}
      {num(row, 'flow.id') ? <Link to="flows" params={{ filter: `flow.id:${num(row, 'flow.id')}`, since: near.since, until: '' }} class="link">Its flow</Link> : null}
      {service && <Link to="services" params={{ filter: '', select: service }} class="link">The service {service}</Link>}
      {str(row, 'process.exec_id') && <Link to="processes" params={{ filter: '', select: str(row, 'process.exec_id'), at: str(row, 'time') }} class="link">The process</Link>}
      <span class="dim">{moment(time(row))}</span>
    </p>
  );
}
