// The detail of an edge or a node of the map.
import { count, duration, exactBytes, exactDuration, bytes, grouped, plural, rate } from './format';
import { edgeFilter, nodeFilter, trouble, type Edge, type Graph, type Node } from './graph';
import { Panel } from './panel';
import { Link, Sign, Value } from './parts';
import { set } from './route';

const titleOf = (n: Node | undefined, id: string) => (n ? `${n.folds ? `${n.folds} ` : ''}${n.name}` : id);

export function EdgePanel(props: { edge: Edge; graph: Graph; windowNS: number }) {
  const { edge: e, graph, windowNS } = props;
  const [s, t] = [graph.nodes.get(e.source), graph.nodes.get(e.target)];
  return (
    <Panel name="Edge" title={<><Sign mark={trouble(e) ? 'error' : 'ok'} />{titleOf(s, e.source)} <span class="dim">→</span> {titleOf(t, e.target)}</>}>
      <p class="lead">{sentence(e)} <span class="dim">In the last {duration(windowNS)}.</span></p>
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
        <Link to="flows" params={{ filter: edgeFilter(e, graph) }} class="link">Its flows</Link>
        {e.failures > 0 && <Link to="flows" params={{ filter: `${edgeFilter(e, graph)} verdict:error` }} class="link">Only the failures</Link>}
        {[s, t].map((n) => n && <button key={n.id} type="button" class="plain link" onClick={() => set({ select: `node:${n.id}` })}>{n.name}</button>)}
      </p>
    </Panel>
  );
}

const sum = (e: Edge, of: (p: Edge['parts'][number]) => number | undefined) => e.parts.reduce((n, p) => n + (of(p) ?? 0), 0);

function Fact(props: { name: string; value: number; text: (n: number) => string; exact: (n: number) => string }) {
  return <div><dt>{props.name}</dt><dd class="right" title={props.exact(props.value)}>{props.text(props.value)}</dd></div>;
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
    <Panel name="Node" title={<><Sign mark={n.failures ? 'error' : 'ok'} />{titleOf(n, id)}</>}>
      <p class="lead">{n.kind === 'service' ? 'Service' : n.folds ? 'Peers outside of this host, folded' : 'A peer outside of this host'}; {plural(n.connections ?? 0, 'connection')}{n.failures ? `, ${count(n.failures)} failed` : ''}. <span class="dim">In the last {duration(props.windowNS)}.</span></p>
      <dl class="facts">
        {n.kind === 'service' && n.processes !== undefined && <Fact name="processes" value={n.processes} text={count} exact={grouped} />}
        <Fact name="sent" value={n.bytes_sent ?? 0} text={bytes} exact={exactBytes} />
        <Fact name="received" value={n.bytes_received ?? 0} text={bytes} exact={exactBytes} />
      </dl>
      <Neighbours title="Called by" edges={edges.filter((e) => e.target === n.id)} other={(e) => e.source} graph={graph} />
      <Neighbours title="Calls" edges={edges.filter((e) => e.source === n.id)} other={(e) => e.target} graph={graph} />
      <p class="links">
        <button type="button" class="plain link" onClick={() => set({ focus: n.id })}>Only its neighbours</button>
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
                <span class={e.failures ? 'bad' : 'dim'}>{e.failures ? `${count(e.failures)} failed` : plural(e.connections, 'conn', 'conns')}</span>
                <span class="rate">{rate(e.rate)}</span>
              </button>
            </li>
          );
        })}
      </ul>
    </section>
  );
}
