// The detail of an edge or a node of the map.
import { get, useAnswer } from './api';
import { join } from './filter';
import { count, duration, exactBytes, exactDuration, bytes, frequency, grouped, plural, rate, share } from './format';
import { edgeFilter, edgeRequests, nodeFilter, trouble, type Edge, type Graph, type Node } from './graph';
import { Panel } from './panel';
import { Link, Sign, Value } from './parts';
import { range, set } from './route';
import { Errors, routeKey } from './services';
import type { Route, Services } from './types';

const titleOf = (n: Node | undefined, id: string) => (n ? `${n.folds ? `${n.folds} ` : ''}${n.name}` : id);

export function EdgePanel(props: { edge: Edge; graph: Graph; windowNS: number }) {
  const { edge: e, graph, windowNS } = props;
  const [s, t] = [graph.nodes.get(e.source), graph.nodes.get(e.target)];
  return (
    <Panel name="Edge" title={<><Sign mark={trouble(e) ? 'error' : 'ok'} />{titleOf(s, e.source)} <span class="dim">→</span> {titleOf(t, e.target)}</>}>
      <p class="lead">{asked(e, windowNS)}{sentence(e)} <span class="dim">In the last {duration(windowNS)}.</span></p>
      {e.requests > 0 && <EdgeRoutes edge={e} graph={graph} />}
      <h3>Connections</h3>
      <div class="scroll" tabIndex={0}><table class="figures">
        <thead><tr><th scope="col">Port</th><th scope="col" class="right">Conns</th><th scope="col" class="right">Failed</th><th scope="col" class="right">Rate</th><th scope="col" class="right">RTT</th></tr></thead>
        <tbody>
          {e.parts.slice(0, 40).map((p) => (
            <tr key={p.source + p.target + p.transport + p.port}>
              <td><span class="dim">{p.transport} </span><Value field="port" value={p.port} /></td>
              <td class="right" title={`${grouped(p.open ?? 0)} open`}>{count(p.connections ?? 0)}</td>
              <td class={`right ${p.failures ? 'bad' : 'dim'}`}>{p.failures || !p.drops ? count(p.failures ?? 0) : `${count(p.drops)} dropped`}</td>
              <td class="right" title={exactBytes((p.bytes_sent ?? 0) + (p.bytes_received ?? 0))}>{rate(p.bytes_per_second ?? 0)}</td>
              <td class="right" title={p.rtt_ns ? exactDuration(p.rtt_ns) : ''}>{p.rtt_ns ? duration(p.rtt_ns) : ''}</td>
            </tr>
          ))}
        </tbody>
      </table></div>
      <dl class="facts">
        <Fact name="to server" value={sum(e, (p) => p.bytes_sent)} text={bytes} exact={exactBytes} />
        <Fact name="to client" value={sum(e, (p) => p.bytes_received)} text={bytes} exact={exactBytes} />
        <Fact name="open now" value={e.open} text={count} exact={grouped} />
        <Fact name="retransmits" value={e.retransmits} text={count} exact={grouped} />
        <Fact name="packets dropped" value={e.drops} text={count} exact={grouped} />
      </dl>
      <p class="links">
        {e.requests > 0 && <Link to="requests" params={{ filter: edgeRequests(e, graph) }} class="link">Its requests</Link>}
        {e.errors > 0 && <Link to="requests" params={{ filter: join([edgeRequests(e, graph), 'status:error']) }} class="link">Only those that failed</Link>}
        <Link to="flows" params={{ filter: edgeFilter(e, graph) }} class="link">Its flows</Link>
        {e.failures > 0 && <Link to="flows" params={{ filter: `${edgeFilter(e, graph)} verdict:error` }} class="link">Only failed connections</Link>}
        {[s, t].map((n) => n && <button key={n.id} type="button" class="plain link" onClick={() => set({ select: `node:${n.id}` })}>{n.name}</button>)}
      </p>
    </Panel>
  );
}

const sum = (e: Edge, of: (p: Edge['parts'][number]) => number | undefined) => e.parts.reduce((n, p) => n + (of(p) ?? 0), 0);

function Fact(props: { name: string; value: number; text: (n: number) => string; exact: (n: number) => string }) {
  return <div><dt>{props.name}</dt><dd class="right" title={props.exact(props.value)}>{props.text(props.value)}</dd></div>;
}

/** What was asked over an edge, in words. */
function asked(e: Edge, windowNS: number) {
  if (!e.requests) return null;
  const failed = e.errors ? <b class="bad">{share(e.errors / e.requests)} failed</b> : 'none failed';
  return <>{plural(e.requests, 'request')} by {e.protocols.join(', ')}, {frequency(e.requests / (windowNS / 1e9))}; {failed}; p50 <span title={exactDuration(e.p50)}>{duration(e.p50)}</span>, p99 <span title={exactDuration(e.p99)}>{duration(e.p99)}</span>. </>;
}

/** The routes that were asked for over an edge, the worst first. */
function EdgeRoutes(props: { edge: Edge; graph: Graph }) {
  const filter = edgeRequests(props.edge, props.graph);
  const target = props.graph.nodes.get(props.edge.target);
  const { since, until } = range.value;
  const answer = useAnswer<Services>(`${filter}|${since}|${until}`, (stop) => get('services', { filter, since, until }, stop));
  const of = (answer.data?.services ?? []).filter((s) => (target?.kind === 'service' ? s.name === target.name : s.kind === 'external'));
  const routes = of.flatMap((s) => (s.routes ?? []).map((r): [string, Route] => [s.name, r]));
  if (!answer.data) return answer.error ? <p class="dim">{answer.error.message}</p> : <p class="dim">Asking for its routes…</p>;
  if (!routes.length) return null;
  return (
    <section>
      <h3>Routes, the worst first</h3>
      <ul class="neighbours routes">
        {routes.slice(0, 20).map(([service, r]) => (
          <li key={service + r.protocol + r.name}>
            <Link to="services" params={{ filter: '', select: routeKey(service, r) }} class="line"><span class="dim">{r.protocol}</span><span class="name">{r.name}</span><span class="failedshare"><Errors red={r} /></span><span class="rate">{frequency(r.rate)}</span><span class="rate" title={`p99 ${exactDuration(r.p99_ns)}`}>{duration(r.p99_ns)}</span></Link>
          </li>
        ))}
      </ul>
    </section>
  );
}

function sentence(e: Edge): string {
  const parts = [`${plural(e.connections, 'connection')}, ${rate(e.rate)}`];
  if (e.failures) parts.push(`${count(e.failures)} of them failed`);
  if (e.retransmits) parts.push(plural(e.retransmits, 'retransmit'));
  return parts.join('; ') + '.';
}

export function NodePanel(props: { id: string; node: Node | undefined; graph: Graph; windowNS: number }) {
  const { id, node: n, graph } = props;
  if (!n) return <Panel name="Node" title={id}><p class="dim">It had no traffic in this range. Widen the range (t).</p></Panel>;
  const edges = [...graph.edges.values()];
  const own = nodeFilter(n);
  return (
    <Panel name="Node" title={<><Sign mark={n.failures || n.errors ? 'error' : 'ok'} />{titleOf(n, id)}</>}>
      <p class="lead">{n.kind === 'service' ? 'Service' : n.folds ? 'Peers outside of this host, folded' : 'A peer outside of this host'}; {plural(n.connections ?? 0, 'connection')}{n.failures ? `, ${count(n.failures)} failed` : ''}{n.requests ? <>; answered {plural(n.requests, 'request')}, {n.errors ? <b class="bad">{share(n.errors / n.requests)} failed</b> : 'none failed'}</> : null}. <span class="dim">In the last {duration(props.windowNS)}.</span></p>
      <dl class="facts">
        {n.kind === 'service' && n.processes !== undefined && <Fact name="processes" value={n.processes} text={count} exact={grouped} />}
        <Fact name="sent" value={n.bytes_sent ?? 0} text={bytes} exact={exactBytes} />
        <Fact name="received" value={n.bytes_received ?? 0} text={bytes} exact={exactBytes} />
      </dl>
      <Neighbours title="Called by" edges={edges.filter((e) => e.target === n.id)} other={(e) => e.source} graph={graph} />
      <Neighbours title="Calls" edges={edges.filter((e) => e.source === n.id)} other={(e) => e.target} graph={graph} />
      <p class="links">
        <button type="button" class="plain link" onClick={() => set({ focus: n.id })}>Only its neighbours</button>
        {n.kind === 'service' && Boolean(n.requests) && <Link to="services" params={{ filter: '', select: n.name }} class="link">Its routes</Link>}
        {own && <Link to="requests" params={{ filter: own }} class="link">Its requests</Link>}
        {own && <Link to="flows" params={{ filter: own }} class="link">Its flows</Link>}
        {n.kind === 'service' && <Link to="processes" params={{ filter: own }} class="link">Its processes</Link>}
      </p>
    </Panel>
  );
}

function Neighbours(props: { title: string; edges: Edge[]; other: (e: Edge) => string; graph: Graph }) {
  if (!props.edges.length) return null;
  const edges = [...props.edges].sort((a, b) => Number(trouble(b)) - Number(trouble(a)) || b.rate - a.rate);
  return (
    <section>
      <h3>{props.title}</h3>
      <ul class="neighbours">
        {edges.map((e) => {
          const n = props.graph.nodes.get(props.other(e));
          return (
            <li key={e.id}>
              <button type="button" class="plain" onClick={() => set({ select: `edge:${e.id}` })}>
                <Sign mark={trouble(e) ? 'error' : 'ok'} /><span class="name">{titleOf(n, props.other(e))}</span>
                <span class={trouble(e) ? 'bad' : 'dim'}>{e.failures ? `${count(e.failures)} failed` : e.errors ? share(e.errors / e.requests) : e.requests ? plural(e.requests, 'request') : plural(e.connections, 'conn', 'conns')}</span>
                <span class="rate">{e.requests ? <span title={`p99 ${exactDuration(e.p99)}`}>{duration(e.p99)}</span> : rate(e.rate)}</span>
              </button>
            </li>
          );
        })}
      </ul>
    </section>
  );
}
