// The requests of the mock's host: what one at the door causes behind it, as
// the records of both ends, with traces; and the API's answers about them.
import { iso, random } from './world.mjs';

// [service, protocol, what, own milliseconds, share that fails, what it causes]; a nested list runs side by side.
const session = ['redis-server', 'redis', 'GET', 0.3, 0];
const doors = [
  [10, ['nginx', 'http', 'GET /products/{id}', 0.8, 0.001, [['storefront', 'http', 'GET /products/{id}', 3, 0.002, [['auth', 'http', 'GET /verify', 1, 0.001, [session]], ['catalog', 'http', 'GET /items/{id}', 2, 0, [['redis-server', 'redis', 'GET', 0.4, 0], ['postgresql', 'postgresql', 'SELECT products', 4, 0]]]]]]]],
  [4, ['nginx', 'http', 'GET /search', 0.7, 0, [['storefront', 'http', 'GET /search', 4, 0.004, [['search', 'http', 'POST /_search', 22, 0.01, []], [['catalog', 'http', 'GET /prices', 2, 0, [['postgresql', 'postgresql', 'SELECT prices', 3, 0]]], ['auth', 'http', 'GET /verify', 1, 0, [session]]]]]]]],
  [3, ['nginx', 'http', 'POST /cart', 0.9, 0, [['storefront', 'http', 'POST /cart', 3, 0.002, [['checkout', 'http', 'POST /cart/{id}', 4, 0.004, [['postgresql', 'postgresql', 'INSERT cart', 3, 0], ['kafka', 'kafka', 'produce carts', 2, 0]]]]]]]],
  [2, ['nginx', 'http', 'POST /pay', 0.9, 0, [['storefront', 'http', 'POST /pay', 3, 0, [['checkout', 'http', 'POST /pay/{id}', 6, 0.01, [['postgresql', 'postgresql', 'SELECT orders', 5, 0], ['payments', 'grpc', 'payments.v1.Payments/Charge', 9, 0.02, [['systemd-resolved', 'dns', 'A api.bank.example', 0.4, 0], ['api.bank.example', 'http', 'POST /charges', 45, 0.02, []]]], ['kafka', 'kafka', 'produce orders', 2, 0]]]]]]]],
  [0.5, ['nginx', 'http', 'GET /metrics', 1.5, 0, []]],
  [0.4, ['nginx', 'http', 'GET /missing', 0.3, 1, []]],
];
const http = { 'GET /missing': '404' };
const outside = ['203.0.113.7', '203.0.113.44', '198.51.100.23', '2001:db8::51'];

const hex = (rnd, n) => [...Array(n)].map(() => Math.floor(rnd() * 16).toString(16)).join('');

/** A generator of traces over the services of a world; slow and failing from a moment on. */
export function exchanges(w, { seed = 11, troubleFrom = Infinity } = {}) {
  const rnd = random(seed);
  const wire = new Map();
  let next = 90_000;
  const connection = (c, s) => {
    const key = `${c?.name ?? 'outside'}>${s.name}`;
    if (!wire.has(key)) wire.set(key, []);
    const pool = wire.get(key);
    if (pool.length < 3) pool.push({ ids: [++next, ++next], from: c ? c.address : outside[pool.length], port: 33000 + (next % 20000), c, s });
    return pool[Math.floor(rnd() * pool.length)];
  };
  const endOf = (me, peer) => ({
    process: { pid: me.main.pid, exec_id: me.main.id, executable: { path: me.main.path, name: me.command } }, service: { name: me.name },
    ...(me.container ? { container: { id: me.containerID, name: me.container } } : {}),
    ...(peer ? { peer: { pid: peer.main.pid, service: { name: peer.name }, ...(peer.container ? { container: { name: peer.container } } : {}) } } : {}),
  });
  const spread = () => Math.exp((rnd() + rnd() + rnd() - 1.5) * 0.9);

  const words = (protocol, what, failed) => {
    const [first, ...rest] = what.split(' ');
    const target = rest.join(' ');
    const set = (of) => (failed ? { error: { type: of } } : {});
    switch (protocol) {
      case 'grpc': return { rpc: { system: { name: 'grpc' }, method: what, response: { status_code: failed ? 'UNAVAILABLE' : 'OK' } }, ...set('UNAVAILABLE') };
      case 'postgresql': return { db: { system: { name: 'postgresql' }, namespace: 'shop', operation: { name: first }, collection: { name: target }, query: { summary: what, text: first === 'INSERT' ? `INSERT INTO ${target} VALUES (?, ?, ?)` : `SELECT * FROM ${target} WHERE id = ?` } }, attributes: { 'db.response.returned_rows': '1' } };
      case 'redis': return { db: { system: { name: 'redis' }, operation: { name: first } } };
      case 'kafka': return { messaging: { system: 'kafka', operation: { name: first }, destination: { name: target } } };
      case 'dns': return { dns: { question: { name: target, type: first }, response: { code: 'NOERROR' } } };
    }
    const status = http[what] ?? (failed ? '503' : first === 'POST' ? '201' : '200');
    return {
      http: { request: { method: first }, route: target, response: { status_code: Number(status) } },
      url: { path: target.replace('{id}', String(1000 + Math.floor(rnd() * 9000))), ...(target === '/search' ? { query: 'q=lamp&token=[redacted]' } : {}) },
      ...(failed ? { error: { type: status } } : {}), attributes: { 'user_agent.original': 'Mozilla/5.0 (X11; Linux x86_64)', 'server.address': 'shop.example', 'http.request.header.accept': 'application/json', 'http.response.header.content-type': 'application/json' },
    };
  };

  /** Adds the records of one exchange that a client begins at a moment; returns when it ended and how. */
  function exchange(out, trace, client, [name, protocol, what, own, failing, causes = []], at, parent, bad) {
    const server = w.services.get(name);
    const elsewhere = !server;
    const line = connection(client, server ?? { name, address: '192.0.2.200', port: 443 });
    const [cs, ss] = [hex(rnd, 16), hex(rnd, 16)];
    const way = client && server ? 0.05 + rnd() * 0.2 : 8 + rnd() * 4;
    const slow = bad && (name === 'payments' || name === 'api.bank.example') ? 9 : 1;
    let failed = rnd() < (bad && name === 'payments' ? 0.18 : failing);
    const began = at + (client ? way : 0);
    const queue = rnd() ** 4 * (bad && name === 'payments' ? 30 : 1.2);
    let clock = began + queue + own * slow * spread() * 0.6;
    for (const cause of causes) {
      const group = Array.isArray(cause[0]) ? cause : [cause];
      const ends = group.map((c) => exchange(out, trace, server, c, clock + rnd() * 0.2, ss, bad));
      clock = Math.max(...ends.map((e) => e.end)) + 0.1;
      if (ends.some((e) => e.failed && e.name !== 'systemd-resolved')) failed = true;
    }
    const end = clock + own * slow * spread() * 0.4;
    const tuple = {
      network: { protocol: protocol === 'http' ? { version: '1.1' } : protocol === 'grpc' ? { version: '2' } : undefined, transport: protocol === 'dns' ? 'udp' : 'tcp', type: line.from.includes(':') ? 'ipv6' : 'ipv4' },
      source: { address: line.from, port: line.port }, destination: { address: server?.address ?? '192.0.2.200', port: server?.port ?? 443 },
    };
    const said = words(protocol, what, failed);
    const sizes = { request: 120 + Math.floor(rnd() * 900), response: Math.floor(300 * spread() * (protocol === 'http' ? 8 : 1)) };
    const record = (role, me, peer, id, up, from, to, firstShare) => ({
      kind: 'request', time: iso(from), duration_ns: Math.round((to - from) * 1e6), time_to_first_byte_ns: Math.round((to - from) * 1e6 * firstShare),
      ...(role === 'server' ? { queue_ns: Math.round(queue * 1e6) } : {}), role, protocol, ...tuple, flow: { id: line.ids[role === 'client' ? 0 : 1] },
      ...endOf(me, peer), thread: { id: me.main.pid + 3 }, trace: { trace_id: trace, span_id: id, ...(up ? { parent_span_id: up } : {}), inferred: up !== '' && me.command === 'node' },
      ...said, size: sizes, tls: server?.port === 443 || elsewhere, complete: rnd() > 0.004,
    });
    const back = end + (client ? way : 0);
    if (client) out.push(record('client', client, server, cs, parent, at, back, 0.97));
    if (server) out.push(record('server', server, client, ss, client ? cs : parent, began, end, 0.95));
    return { end: back, failed, name };
  }

  /** The records of one trace that begins at a moment, in the order they end. */
  function trace(at) {
    let x = rnd() * doors.reduce((n, d) => n + d[0], 0);
    const door = doors.find((d) => (x -= d[0]) <= 0) ?? doors[0];
    const out = [];
    const from = door[1][2] === 'GET /metrics' ? w.services.get('prometheus') : undefined;
    exchange(out, hex(rnd, 32), from, door[1], at, '', at > troubleFrom);
    return out;
  }

  /** Flow records of the connections that carried them. */
  function flows(from, to) {
    const out = [];
    for (const c of [...wire.values()].flat()) {
      if (!c.c || !w.services.has(c.s.name)) continue;
      for (const [i, [me, peer, direction]] of [[c.c, c.s, 'outbound'], [c.s, c.c, 'inbound']].entries()) {
        out.push({
          kind: 'flow', time: iso(from), end_time: iso(to), flow: { id: c.ids[i] }, network: { transport: 'tcp', type: 'ipv4' },
          source: { address: c.from, port: c.port }, destination: { address: c.s.address, port: c.s.port }, direction, verdict: 'forwarded', ...endOf(me, peer),
          tcp: { state: 'established', rtt_min_ns: 61_000, rtt_ns: 90_000 + Math.floor(rnd() * 90_000), retransmits: Math.floor(rnd() * 1.2) }, bytes: { sent: 90_000, received: 400_000 }, packets: { sent: 90, received: 300 }, complete: true,
        });
      }
    }
    return out;
  }
  return { trace, flows };
}

// ---- the answers

const get = (row, path) => path.split('.').reduce((at, p) => at?.[p], row);
const ms = (row) => Date.parse(row.time);
const two = (row, a, b) => [get(row, a), get(row, b)].filter(Boolean).join(' ');

export const nameOf = (r) => two(r, 'http.request.method', 'http.route') || get(r, 'rpc.method') || get(r, 'db.query.summary')
  || two(r, 'db.operation.name', 'db.collection.name') || two(r, 'messaging.operation.name', 'messaging.destination.name') || two(r, 'dns.question.type', 'dns.question.name') || r.protocol;
const statusOf = (r) => String(get(r, 'http.response.status_code') ?? get(r, 'rpc.response.status_code') ?? get(r, 'dns.response.code') ?? '');

function red(rows, seconds) {
  const took = rows.map((r) => r.duration_ns).sort((a, b) => a - b);
  const at = (q) => took[Math.min(took.length - 1, Math.floor(q * took.length))] ?? 0;
  const errors = rows.filter((r) => r.error).length;
  return { requests: rows.length, rate: rows.length / seconds, errors, error_rate: rows.length ? errors / rows.length : 0, p50_ns: at(0.5), p90_ns: at(0.9), p99_ns: at(0.99), max_ns: took.at(-1) ?? 0 };
}

const group = (rows, key) => {
  const out = new Map();
  for (const r of rows) { const k = key(r); if (!out.has(k)) out.set(k, []); out.get(k).push(r); }
  return out;
};
const worst = (a, b) => b.error_rate - a.error_rate || b.p99_ns - a.p99_ns;

export function census(rows, since, until) {
  const seconds = Math.max(1, (until - since) / 1000);
  const step = (r, n) => Math.max(0, Math.min(n - 1, Math.floor(((ms(r) - since) / (until - since)) * n)));
  const answered = (r) => (r.role === 'server' ? r.service.name : get(r, 'peer.service.name') ?? get(r, 'attributes.server.address') ?? r.destination.address);
  const servers = new Set(rows.filter((r) => r.role === 'server').map(answered));
  const counted = rows.filter((r) => r.role === 'server' || !servers.has(answered(r)));
  const clients = rows.filter((r) => r.role === 'client');
  const calls = (list, other) => [...group(list, other)].map(([service, of]) => { const { requests, errors, p99_ns } = red(of, seconds); return { service, requests, errors, p99_ns }; }).sort((a, b) => b.requests - a.requests);
  return [...group(counted, answered)].map(([name, own]) => ({
    name, kind: servers.has(name) ? 'service' : 'external', ...red(own, seconds), protocols: [...new Set(own.map((r) => r.protocol))],
    routes: [...group(own, (r) => `${r.protocol}|${nameOf(r)}`)].map(([key, of]) => {
      const heat = Array(30).fill(0);
      for (const r of of) heat[step(r, 30)]++;
      return { name: key.slice(key.indexOf('|') + 1), protocol: of[0].protocol, ...red(of, seconds), heat };
    }).sort(worst),
    calls: calls(clients.filter((r) => r.service.name === name), answered),
    callers: calls(own, (r) => (r.role === 'server' ? get(r, 'peer.service.name') ?? 'external' : r.service.name)),
    own,
  })).sort(worst);
}

export function services(rows, since, until) {
  return { window_ns: (until - since) * 1e6, services: census(rows, since, until).map(({ own, ...s }) => s), complete: true };
}

export function service(rows, since, until, name) {
  const found = census(rows, since, until).find((s) => s.name === name);
  if (!found) return undefined;
  const { own, ...s } = found;
  const [n, width] = [60, (until - since) / 60];
  const buckets = [...Array(n)].map((_, i) => {
    const of = own.filter((r) => ms(r) >= since + i * width && ms(r) < since + (i + 1) * width);
    const { requests, errors, p50_ns, p99_ns } = red(of, width / 1000);
    return { time: iso(since + i * width), requests, errors, p50_ns, p99_ns };
  });
  return { window_ns: (until - since) * 1e6, ...s, step_ns: Math.round(width * 1e6), buckets, complete: true };
}

const heatRow = (ns) => { const u = Math.max(4, ns); const octave = Math.floor(Math.log2(u)); return 4 * octave + (Math.floor(u / 2 ** (octave - 2)) & 3); };
const heatBound = (row) => (5 + (row % 4)) * 2 ** (Math.floor(row / 4) - 2);

export function heatmap(rows, since, until, columns) {
  const step = Math.max(1, Math.ceil(((until - since) * 1e6) / columns));
  const at = rows.map((r) => [Math.max(0, Math.min(columns - 1, Math.floor(((ms(r) - since) * 1e6) / step))), heatRow(r.duration_ns), r.error ? 1 : 0]);
  const low = Math.min(...at.map((a) => a[1]));
  const high = Math.max(...at.map((a) => a[1]));
  const bounds = at.length ? [...Array(high - low + 1)].map((_, i) => heatBound(low + i)) : [];
  const make = () => [...Array(columns)].map(() => Array(bounds.length).fill(0));
  const [counts, errors] = [make(), make()];
  for (const [c, r, e] of at) { counts[c][r - low]++; errors[c][r - low] += e; }
  return { from: iso(since), to: iso(until), step_ns: step, bounds_ns: bounds, counts, errors, complete: true };
}

const words = (ns) => (ns >= 1e9 ? `${(ns / 1e9).toFixed(2)} s` : `${(ns / 1e6).toFixed(0)} ms`);

export function overview(rows, since, until, host) {
  const changes = [];
  const [half, late] = [since + (until - since) / 2, until - (until - since) / 6];
  for (const [key, of] of group(rows.filter((r) => r.role === 'server'), (r) => `${r.service.name}|${nameOf(r)}`)) {
    const [was, now] = [red(of.filter((r) => ms(r) < half), 1), red(of.filter((r) => ms(r) > late), 1)];
    if (was.requests < 10 || now.requests < 5) continue;
    const [name, route] = key.split('|');
    const change = (what, before, after, text) => changes.push({ service: name, route, what, before, now: after, since: iso(since + (until - since) * 0.75), sentence: `${name} ${route}: ${text} since ${new Date(since + (until - since) * 0.75).toISOString().slice(11, 16)}` });
    if (now.error_rate > was.error_rate + 0.08) change('errors', was.error_rate, now.error_rate, `failures ${(was.error_rate * 100).toFixed(1)} -> ${(now.error_rate * 100).toFixed(0)} %`);
    else if (now.p99_ns > 2.5 * was.p99_ns) change('latency', was.p99_ns, now.p99_ns, `p99 ${words(was.p99_ns)} -> ${words(now.p99_ns)}`);
  }
  changes.sort((a, b) => (a.what === 'errors' ? 0 : 1) - (b.what === 'errors' ? 0 : 1));
  const all = census(rows, since, until);
  return {
    window_ns: (until - since) * 1e6, changes: changes.slice(0, 4), hosts: [host], complete: true,
    services: all.map(({ own, routes, calls, callers, protocols, ...s }) => s),
  };
}

const tail = (list) => [...new Set(list)];

export function traces(all, matching, sort, last) {
  const ids = new Set(matching.map((r) => r.trace.trace_id));
  const list = [...group(all.filter((r) => ids.has(r.trace.trace_id)), (r) => r.trace.trace_id)].map(([id, spans]) => {
    spans.sort((a, b) => (a.time < b.time ? -1 : 1));
    const root = spans.find((s) => !s.trace.parent_span_id) ?? spans[0];
    const begin = ms(spans[0]);
    return {
      trace_id: id, time: spans[0].time, duration_ns: Math.max(...spans.map((s) => (ms(s) - begin) * 1e6 + s.duration_ns)),
      root: { service: root.service.name, name: nameOf(root), protocol: root.protocol, status: statusOf(root), ...(root.error ? { error: root.error.type } : {}) },
      services: tail(spans.map((s) => s.service.name)), spans: spans.length, errors: spans.filter((s) => s.error).length, inferred: spans.some((s) => s.trace.inferred), complete: spans.every((s) => s.complete),
    };
  });
  const order = { slowest: (a, b) => b.duration_ns - a.duration_ns, errors: (a, b) => (a.time < b.time ? 1 : -1) }[sort] ?? ((a, b) => (a.time < b.time ? 1 : -1));
  return { traces: list.filter((t) => sort !== 'errors' || t.errors).sort(order).slice(0, last), complete: true };
}

const nano = (text) => { const m = /\.(\d+)Z/.exec(text); return BigInt(Math.floor(Date.parse(text) / 1000)) * 1_000_000_000n + BigInt((m?.[1] ?? '').padEnd(9, '0')); };

export function trace(all, id) {
  const rows = all.filter((r) => r.trace.trace_id === id).sort((a, b) => (nano(a.time) < nano(b.time) ? -1 : 1));
  if (!rows.length) return undefined;
  const begin = nano(rows[0].time);
  const nodes = rows.map((row) => ({ row, from: Number(nano(row.time) - begin), end: Number(nano(row.time) - begin) + row.duration_ns, children: [], path: [] }));
  const byID = new Map(nodes.map((n) => [n.row.trace.span_id, n]));
  const roots = [];
  for (const n of nodes) (byID.get(n.row.trace.parent_span_id)?.children ?? roots).push(n);
  const spent = (n, from, to) => { if (to > from) n.path.push({ span_id: n.row.trace.span_id, from_ns: from, to_ns: to }); };
  const block = (n, from, until) => {
    from = Math.max(from, n.from);
    for (const c of [...n.children].sort((a, b) => b.end - a.end)) {
      const end = Math.min(c.end, until);
      if (c.end > until && n.row.role === 'server' || end <= from || c.from >= until) continue;
      spent(n, end, until);
      block(c, from, end);
      until = Math.max(c.from, from);
    }
    spent(n, from, until);
  };
  block(roots[0], roots[0].from, roots[0].end);
  const spans = [];
  const walk = (n, depth) => {
    let [busy, until] = [0, n.from];
    for (const c of n.children) { const [a, b] = [Math.max(c.from, until), Math.min(c.end, n.end)]; if (b > a) { busy += b - a; until = b; } }
    spans.push({ ...n.row, name: nameOf(n.row), offset_ns: n.from, depth, self_ns: n.end - n.from - busy, critical: n.path.length > 0, ...(n.row.trace.parent_span_id && !byID.has(n.row.trace.parent_span_id) ? { orphan: true } : {}) });
    for (const c of n.children) walk(c, depth + 1);
  };
  for (const r of roots) walk(r, 0);
  return {
    trace_id: id, time: rows[0].time, duration_ns: Math.max(...nodes.map((n) => n.end)), spans, services: tail(rows.map((r) => r.service.name)),
    critical_path: nodes.flatMap((n) => n.path).sort((a, b) => a.from_ns - b.from_ns), complete: true,
  };
}
