// Overview: what changed for the worse, then how all services do, then the
// hosts. Calm when calm.
import { useEffect } from 'preact/hooks';
import { doctor, status } from './agent';
import { get, useAnswer } from './api';
import { applied, seen } from './filterbar';
import { bytes, count, duration, exactDuration, frequency, moment, parseTime, percent, plural, share } from './format';
import { Empty, Incomplete, Link, Problem, Sign } from './parts';
import { bounds, words } from './range';
import { filter, live, range, set } from './route';
import { Errors } from './services';
import type { Change, Overview as Answer } from './types';

type Brief = NonNullable<Answer['services']>[number];

export function Overview() {
  const { since, until } = range.value;
  const asked = applied('requests');
  const [from, to] = bounds(range.value);
  const answer = useAnswer<Answer>(`${asked}|${since}|${until}`, (stop) => get('overview', { filter: asked, since, until }, stop), live.value ? (to - from > 3600e3 ? 20_000 : 5000) : 0);
  const o = answer.data;
  const services = o?.services ?? [];
  useEffect(() => {
    seen.values = (field) => (['service', 'peer', 'service.name', 'peer.service.name'].includes(field) ? services.filter((s) => s.kind === 'service').map((s) => s.name) : []);
  }, [o]);
  return (
    <section class="content healthpage overviewpage" aria-label="Overview" tabIndex={0}>
      {answer.error && <Problem error={answer.error} retry={answer.retry} stale={o !== undefined} />}
      {!o && !answer.error && <Empty title="Asking the agent…" />}
      {o && services.length === 0 && <Nothing />}
      {o && services.length > 0 && <>
        <Summary answer={o} services={services} />
        {(o.changes ?? []).length > 0 && <Changes changes={o.changes!} />}
        <Services services={services} />
      </>}
      {o && <Hosts hosts={o.hosts ?? []} />}
    </section>
  );
}

function Nothing() {
  if (filter.value) return <Empty title="No request in this range matches the filter."><p>Widen the time range (<kbd>t</kbd>), or <button type="button" class="plain link" onClick={() => set({ filter: '' })}>clear the filter</button>.</p></Empty>;
  return <Empty title="No request seen yet."><p>Try <code>curl localhost:8080</code>: who asked and who answered shows here within five seconds. What is not a request is on <Link to="flows" class="link">Flows</Link>.</p></Empty>;
}

function Summary(props: { answer: Answer; services: readonly Brief[] }) {
  const { answer, services } = props;
  const changes = answer.changes ?? [];
  const total = services.reduce((n, s) => n + s.requests, 0);
  const failed = services.reduce((n, s) => n + s.errors, 0);
  const worse = new Set(changes.map((c) => c.service)).size;
  return (
    <div class="summary">
      <p>{changes.length ? <><Sign mark="error" />{plural(worse, 'service')} changed for the worse</> : <><Sign mark="ok" />All calm</>}</p>
      <p class="dim">
        {!changes.length && <>Nothing changed for the worse in the {range.value.until ? 'range' : words(range.value)}. </>}
        {plural(services.length, 'service')} answered {plural(total, 'request')}; {failed ? `${share(failed / total)} failed` : 'none failed'}. <Incomplete complete={answer.complete} />
      </p>
    </div>
  );
}

const arrows = (text: string) => text.replaceAll('->', '→');

function Changes(props: { changes: readonly Change[] }) {
  return (
    <ul class="changes">
      {props.changes.map((c) => {
        const about = `service:${c.service}`;
        return (
          <li key={c.service + c.route + c.what} class="card">
            <Sign mark={c.what === 'rate' ? 'warn' : 'error'} />
            <div>
              <p class="sentence" title={`since ${moment(parseTime(c.since))}`}>{c.sentence.startsWith(c.service) ? <><b>{c.service}</b>{arrows(c.sentence.slice(c.service.length))}</> : arrows(c.sentence)}</p>
              <p class="links">
                <Link to="services" params={{ select: c.service }} class="link">The service</Link>
                <Link to="requests" params={{ filter: c.what === 'errors' ? `${about} status:error` : about }} class="link">{c.what === 'errors' ? 'The failures' : 'Its requests'}</Link>
                <Link to="traces" params={{ filter: about, sort: c.what === 'errors' ? 'errors' : 'slowest' }} class="link">{c.what === 'errors' ? 'Failed traces' : 'Slowest traces'}</Link>
                <Link to="map" params={{ filter: '', select: `node:svc:${c.service}` }} class="link">On the map</Link>
              </p>
            </div>
          </li>
        );
      })}
    </ul>
  );
}

const many = 40;

function Services(props: { services: readonly Brief[] }) {
  const { services } = props;
  const fastest = Math.max(1, Math.min(...services.map((s) => s.p50_ns)));
  const slowest = Math.max(2, ...services.map((s) => s.max_ns));
  const at = (ns: number) => (100 * Math.log(Math.max(ns, fastest) / fastest)) / Math.log(slowest / fastest);
  return (
    <section class="card">
      <h2>Services <span class="dim">the worst first</span><Link to="services" class="link">by route</Link></h2>
      <div class="scroll" tabIndex={0}><table class="figures red">
        <thead><tr><th scope="col">Service</th><th scope="col" class="right">Rate</th><th scope="col" class="right">Failed</th><th scope="col" class="right only-wide">p50</th><th scope="col" class="right">p99</th><th scope="col" class="right only-wide">Slowest</th><th scope="col" class="only-wide">p50 to p99</th></tr></thead>
        <tbody>{services.slice(0, many).map((s) => (
          <tr key={s.name}>
            <td class="wraps"><Link to="services" params={{ select: s.name }} class="quiet strong">{s.name}</Link>{s.kind === 'external' && <span class="dim"> elsewhere</span>}</td>
            <td class="right" title={plural(s.requests, 'request')}>{frequency(s.rate)}</td>
            <td class="right"><Errors red={s} /></td>
            <td class="right only-wide" title={exactDuration(s.p50_ns)}>{duration(s.p50_ns)}</td>
            <td class="right" title={exactDuration(s.p99_ns)}>{duration(s.p99_ns)}</td>
            <td class="right only-wide" title={exactDuration(s.max_ns)}>{duration(s.max_ns)}</td>
            <td class="only-wide barcol"><svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"><path class="base" d="M0 4H100" /><rect x={at(s.p50_ns)} y="1.5" width={Math.max(0.8, at(s.p99_ns) - at(s.p50_ns))} height="5" /></svg></td>
          </tr>
        ))}</tbody>
      </table></div>
      {services.length > many && <p><Link to="services" class="link">All {count(services.length)}</Link></p>}
    </section>
  );
}

function Hosts(props: { hosts: readonly { name: string; kernel: string; arch: string }[] }) {
  const s = status.value;
  return (
    <section class="card">
      <h2>Hosts</h2>
      <table class="figures">
        <thead><tr><th scope="col">Host</th><th scope="col">Kernel</th><th scope="col" class="right">Events</th><th scope="col" class="right">Lost</th><th scope="col" class="right only-wide">Agent</th></tr></thead>
        <tbody>{props.hosts.map((h) => (
          <tr key={h.name}>
            <td class="strong wraps">{h.name}</td>
            <td class="wraps">{h.kernel} <span class="dim">{h.arch}{doctor.value && s && s.features_off > 0 ? `, ${plural(s.features_off, 'feature')} off` : ''}</span></td>
            <td class="right">{s && `${count(s.events.per_second)}/s`}</td>
            <td class={`right ${s?.lost.total ? 'bad' : 'dim'}`}>{s && <Link to="health" class="quiet">{count(s.lost.total)}</Link>}</td>
            <td class="right only-wide">{s && `${percent(s.agent.cpu_percent)} CPU, ${bytes(s.agent.rss_bytes)}`}</td>
          </tr>
        ))}</tbody>
      </table>
    </section>
  );
}

