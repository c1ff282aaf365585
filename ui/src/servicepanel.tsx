// The detail of a service or of one of its routes: how it did over time, whom
// it asks and who asks it, and the processes behind it.
import { get, useAnswer } from './api';
import { join, quote } from './filter';
import { applied } from './filterbar';
import { count, duration, exactDuration, frequency, grouped, parseTime, plural, share } from './format';
import { Chart, Strip } from './heatmap';
import { Panel } from './panel';
import { Link, Problem, Sign, Value } from './parts';
import { bounds } from './range';
import { routeFilter } from './request';
import { live, range, set } from './route';
import { num, str, type Row } from './row';
import { Errors, routeKey } from './services';
import type { Call, Route, ServiceDetail } from './types';

const split = (id: string): { name: string; protocol: string; route: string } => {
  const [name = '', protocol = '', ...route] = id.split('|');
  return { name, protocol, route: route.join('|') };
};

export function ServicePanel(props: { id: string }) {
  const { name, protocol, route } = split(props.id);
  const { since, until } = range.value;
  const own = route ? routeFilter(protocol, route) : '';
  const asked = join([applied('requests'), own]);
  const [from, to] = bounds(range.value);
  const answer = useAnswer<ServiceDetail>(`${props.id}|${asked}|${since}|${until}`, (stop) => get(`services/${encodeURIComponent(name)}`, { filter: asked, since, until }, stop), live.value ? (to - from > 3600e3 ? 20_000 : 5000) : 0);
  const s = answer.data;
  if (!s) {
    return (
      <Panel title={name} name="Service">
        {answer.error ? <Problem error={answer.error} retry={answer.retry} /> : <p class="dim">Asking the agent…</p>}
      </Panel>
    );
  }
  const steps = (s.buckets ?? []).map((b) => ({ time: parseTime(b.time), b }));
  const mine = s.kind === 'service' ? `service.name:${quote(name)} role:server` : `peer.service.name:${quote(name)}`;
  const filter = join([s.kind === 'service' ? mine : '', own]);
  const find = { filter: join([applied('requests'), filter]) };
  return (
    <Panel name="Service" title={<><Sign mark={s.errors ? 'error' : 'ok'} />{route ? <><span class="dim">{name}</span> {route}</> : name}</>}>
      {answer.error && <Problem error={answer.error} retry={answer.retry} stale />}
      <p class="lead">{plural(s.requests, 'request')}, {frequency(s.rate)}; {s.errors ? <b class="bad">{count(s.errors)} failed ({share(s.error_rate)})</b> : 'none failed'}; half took less than <span title={exactDuration(s.p50_ns)}>{duration(s.p50_ns)}</span>, one in a hundred more than <span title={exactDuration(s.p99_ns)}>{duration(s.p99_ns)}</span>. <span class="dim">In {duration(s.window_ns)}{s.kind === 'external' ? ', as its clients saw it' : ''}.</span></p>
      <Chart title="Requests" step={s.step_ns / 1e6} text={(n) => count(n)} series={[{ name: 'all', look: 'bar' }, { name: 'failed', look: 'bad' }]} steps={steps.map(({ time, b }) => ({ time, values: [b.requests, b.errors] }))} />
      <Chart title="Latency" step={s.step_ns / 1e6} text={duration} series={[{ name: 'p99', look: 'line' }, { name: 'p50', look: 'faint' }]} steps={steps.map(({ time, b }) => ({ time, values: b.requests ? [b.p99_ns, b.p50_ns] : [undefined, undefined] }))} />
      <Steps detail={s} />
      <p class="links">
        <Link to="requests" params={find} class="link">Its requests</Link>
        {s.errors > 0 && <Link to="requests" params={{ filter: join([find.filter, 'status:error']) }} class="link">Only the failures</Link>}
        <Link to="traces" params={{ ...find, sort: 'slowest' }} class="link">Slowest traces</Link>
        {s.kind === 'service' && <Link to="map" params={{ filter: '', select: `node:svc:${name}` }} class="link">On the map</Link>}
        {s.kind === 'service' && <Link to="flows" params={{ filter: `service:${quote(name)}` }} class="link">Its flows</Link>}
        {route && <button type="button" class="plain link" onClick={() => set({ select: name })}>All of {name}</button>}
      </p>
      {!route && <Routes service={name} routes={s.routes ?? []} />}
      <Calls title="Asked by" calls={s.callers ?? []} />
      <Calls title="Asks" calls={s.calls ?? []} />
      {s.kind === 'service' && <Behind service={name} />}
    </Panel>
  );
}

/** The charts' numbers. */
function Steps(props: { detail: ServiceDetail }) {
  const used = (props.detail.buckets ?? []).filter((b) => b.requests);
  return (
    <details class="all">
      <summary>As a table</summary>
      <div class="scroll" tabIndex={0}><table class="figures">
        <thead><tr><th scope="col">From</th><th scope="col" class="right">Requests</th><th scope="col" class="right">Failed</th><th scope="col" class="right">p50</th><th scope="col" class="right">p99</th></tr></thead>
        <tbody>{used.map((b) => (
          <tr key={b.time}>
            <td><Value field="time" value={parseTime(b.time)}>{new Date(b.time).toLocaleTimeString('en-GB')}</Value></td>
            <td class="right">{grouped(b.requests)}</td><td class={`right ${b.errors ? 'bad' : 'dim'}`}>{grouped(b.errors)}</td>
            <td class="right" title={exactDuration(b.p50_ns)}>{duration(b.p50_ns)}</td><td class="right" title={exactDuration(b.p99_ns)}>{duration(b.p99_ns)}</td>
          </tr>
        ))}</tbody>
      </table></div>
    </details>
  );
}

function Routes(props: { service: string; routes: readonly Route[] }) {
  if (!props.routes.length) return null;
  return (
    <section>
      <h3>Routes, the worst first</h3>
      <ul class="neighbours routes">
        {props.routes.map((r) => (
          <li key={r.protocol + r.name}>
            <button type="button" class="plain" onClick={() => set({ select: routeKey(props.service, r) })}>
              <span class="name" title={r.name}>{r.name}</span><span class="failedshare"><Errors red={r} /></span><span class="rate" title={`p99 ${exactDuration(r.p99_ns)}, ${plural(r.requests, 'request')}, ${frequency(r.rate)}`}>{duration(r.p99_ns)}</span><Strip heat={r.heat ?? []} label={`${plural(r.requests, 'request')} over time`} />
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}

export function Calls(props: { title: string; calls: readonly Call[] }) {
  if (!props.calls.length) return null;
  return (
    <section>
      <h3>{props.title}</h3>
      <ul class="neighbours">
        {props.calls.map((c) => {
          const line = <><Sign mark={c.errors ? 'error' : 'ok'} /><span class="name">{c.service === 'external' ? 'from elsewhere' : c.service}</span><span class={c.errors ? 'bad' : 'dim'}>{c.errors ? `${count(c.errors)} failed` : ''}</span><span class="rate">{count(c.requests)}</span><span class="rate" title={`p99 ${exactDuration(c.p99_ns)}`}>{duration(c.p99_ns)}</span></>;
          return <li key={c.service}>{c.service === 'external' ? <div class="line">{line}</div> : <button type="button" class="plain" onClick={() => set({ select: c.service })}>{line}</button>}</li>;
        })}
      </ul>
    </section>
  );
}

interface Tree { processes: Row[] | null }
const mostProcesses = 12;

function Behind(props: { service: string }) {
  const at = range.value.until;
  const filter = `service.name:${quote(props.service)}`;
  const answer = useAnswer(`${props.service}|${at}`, async (stop) => (await get<Tree>('processes', { at, filter }, stop)).processes ?? []);
  const all = answer.data ?? [];
  return (
    <section>
      <h3>Processes behind it</h3>
      {answer.data && !all.length && <p class="dim">None runs {at ? 'at the end of this range' : 'now'}.</p>}
      <dl class="facts">
        {all.slice(0, mostProcesses).map((p) => (
          <div key={str(p, 'process.exec_id')}>
            <dt><Value field="pid" value={num(p, 'process.pid') ?? 0} /></dt>
            <dd><Link to="processes" params={{ filter: '', select: str(p, 'process.exec_id'), at }} class="link">{str(p, 'process.executable.name')}</Link> {str(p, 'container.name') && <Value field="container" value={str(p, 'container.name')} class="dim" />}</dd>
          </div>
        ))}
      </dl>
      {all.length > mostProcesses && <p><Link to="processes" params={{ filter }} class="link">All {count(all.length)}</Link></p>}
    </section>
  );
}
