// The map's data made fit to draw: parallel edges joined, outside peers
// folded, the neighbourhood of a node.
import { quote } from './filter';
import type { MapEdge, MapNode, ServiceMap } from './types';

export interface Node extends MapNode { folds?: number }

export interface Edge {
  id: string; // "source>target"
  source: string;
  target: string;
  parts: MapEdge[]; // one for each port and transport
  rate: number;
  connections: number;
  open: number;
  failures: number;
  retransmits: number;
  drops: number;
  requests: number;
  errors: number;
  p50: number; // of requests, ns; of several parts the greatest
  p99: number;
  protocols: string[];
}

export interface Graph { nodes: Map<string, Node>; edges: Map<string, Edge> }

const outsideIn = 'fold:in';
const outsideOut = 'fold:out';

export const manyOutside = (m: ServiceMap): boolean => (m.nodes ?? []).filter((n) => n.kind === 'external').length > 6;

/** A part that carried nothing: all that is known of it are packets the kernel dropped. */
export const dropsOnly = (e: MapEdge): boolean => !e.connections && !e.failures && !e.bytes_sent && !e.bytes_received && !e.requests && (e.drops ?? 0) > 0;

export function build(m: ServiceMap, fold: boolean, drops: boolean): Graph {
  const nodes = new Map<string, Node>();
  const known = new Map((m.nodes ?? []).map((n) => [n.id, n]));
  const external = (id: string) => known.get(id)?.kind === 'external';
  const edges = new Map<string, Edge>();
  const folded: Record<string, Set<string>> = { [outsideIn]: new Set(), [outsideOut]: new Set() };

  const stand = (id: string, role: string): string => {
    if (!fold || !external(id)) {
      const n = known.get(id) ?? { id, name: id.replace(/^\w+:/, ''), kind: 'service' as const };
      nodes.set(id, n);
      return id;
    }
    folded[role]!.add(id);
    return role;
  };
  const shown = (m.edges ?? []).filter((e) => drops || !dropsOnly(e));
  for (const e of shown) join(edges, e, stand(e.source, outsideIn), stand(e.target, outsideOut));
  for (const n of known.values()) if (!nodes.has(n.id) && n.kind === 'service') nodes.set(n.id, n);
  for (const [role, ids] of Object.entries(folded)) if (ids.size) nodes.set(role, foldedNode(role, [...ids].map((id) => known.get(id)!)));
  return { nodes, edges };
}

function join(edges: Map<string, Edge>, part: MapEdge, source: string, target: string): void {
  const id = `${source}>${target}`;
  let e = edges.get(id);
  if (!e) edges.set(id, (e = { id, source, target, parts: [], rate: 0, connections: 0, open: 0, failures: 0, retransmits: 0, drops: 0, requests: 0, errors: 0, p50: 0, p99: 0, protocols: [] }));
  addPart(e.parts, part, source, target);
  e.rate += part.bytes_per_second ?? 0;
  e.connections += part.connections ?? 0;
  e.open += part.open ?? 0;
  e.failures += part.failures ?? 0;
  e.retransmits += part.retransmits ?? 0;
  e.drops += part.drops ?? 0;
  e.requests += part.requests ?? 0;
  e.errors += part.errors ?? 0;
  e.p50 = Math.max(e.p50, part.p50_ns ?? 0);
  e.p99 = Math.max(e.p99, part.p99_ns ?? 0);
  e.protocols = [...new Set([...e.protocols, ...(part.protocols ?? [])])];
}

/** Parts that fell together by folding become one. */
function addPart(parts: MapEdge[], part: MapEdge, source: string, target: string): void {
  const i = parts.findIndex((p) => p.port === part.port && p.transport === part.transport);
  const had = parts[i];
  if (!had) {
    parts.push({ ...part, source, target });
    return;
  }
  const sum = (of: (p: MapEdge) => number | undefined) => (of(had) ?? 0) + (of(part) ?? 0);
  parts[i] = {
    ...had, connections: sum((p) => p.connections), open: sum((p) => p.open), failures: sum((p) => p.failures),
    bytes_sent: sum((p) => p.bytes_sent), bytes_received: sum((p) => p.bytes_received), bytes_per_second: sum((p) => p.bytes_per_second),
    retransmits: sum((p) => p.retransmits), drops: sum((p) => p.drops), rtt_ns: Math.max(had.rtt_ns ?? 0, part.rtt_ns ?? 0),
    requests: sum((p) => p.requests), errors: sum((p) => p.errors), p50_ns: Math.max(had.p50_ns ?? 0, part.p50_ns ?? 0), p99_ns: Math.max(had.p99_ns ?? 0, part.p99_ns ?? 0),
    protocols: [...new Set([...(had.protocols ?? []), ...(part.protocols ?? [])])],
  };
}

function foldedNode(id: string, members: Node[]): Node {
  const sum = (of: (n: Node) => number | undefined) => members.reduce((n, m) => n + (of(m) ?? 0), 0);
  return {
    id, kind: 'external', folds: members.length, name: `${id === outsideIn ? 'client' : 'peer'}${members.length === 1 ? '' : 's'} outside`,
    requests: sum((n) => n.requests), errors: sum((n) => n.errors), connections: sum((n) => n.connections), failures: sum((n) => n.failures), bytes_sent: sum((n) => n.bytes_sent), bytes_received: sum((n) => n.bytes_received),
  };
}

/** A node, its neighbours, and what goes between them. */
export function neighbourhood(g: Graph, id: string): Graph {
  if (!g.nodes.has(id)) return g;
  const near = new Set([id]);
  for (const e of g.edges.values()) {
    if (e.source === id) near.add(e.target);
    if (e.target === id) near.add(e.source);
  }
  return {
    nodes: new Map([...g.nodes].filter(([n]) => near.has(n))),
    edges: new Map([...g.edges].filter(([, e]) => near.has(e.source) && near.has(e.target))),
  };
}

const single = (id: string) => id.startsWith('ext:') && id !== 'ext:other';
const named = (n: Node) => quote(n.name);

/** The filter that shows the flows of an edge, as its client's end saw them; a client outside is seen from the server's. */
export function edgeFilter(e: Edge, g: Graph): string {
  const [s, t] = [g.nodes.get(e.source)!, g.nodes.get(e.target)!];
  if (s.kind === 'service' && t.kind === 'service') return `service.name:${named(s)} peer.service.name:${named(t)} direction:outbound`;
  if (s.kind === 'service') return `service.name:${named(s)} direction:outbound${single(t.id) ? ` address:${t.name}` : ''}`;
  if (t.kind === 'service') return `service.name:${named(t)} direction:inbound${single(s.id) ? ` address:${s.name}` : ''}`;
  return [single(s.id) && `source.address:${s.name}`, single(t.id) && `destination.address:${t.name}`].filter(Boolean).join(' ');
}

/** The filter that finds the requests of an edge, as one of its ends saw them. */
export function edgeRequests(e: Edge, g: Graph): string {
  return edgeFilter(e, g).replace('direction:outbound', 'role:client').replace('direction:inbound', 'role:server');
}

export function nodeFilter(n: Node): string {
  if (n.kind === 'service') return `service:${named(n)}`;
  return single(n.id) ? `address:${n.name}` : '';
}

/** A share of failures that makes the whole edge look broken; fewer only get a mark. */
export const broken = (e: Edge): boolean => e.failures > 0.05 * e.connections || e.errors > 0.05 * e.requests;

export const trouble = (e: Edge): boolean => e.failures > 0 || e.errors > 0;
