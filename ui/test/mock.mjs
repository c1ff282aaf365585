// A stand-in for the agent: the API of the contract over an invented host,
// with live streams, and the page itself from dist. For tests and for work on
// the page; run it with `npm run mock -- --port 4199`.
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { dirname, extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { compile, FilterError } from './filter.mjs';
import { doctor, fields } from './facts.mjs';
import * as about from './exchanges.mjs';
import { iso, world } from './world.mjs';

const dist = join(dirname(fileURLToPath(import.meta.url)), '../dist');
const types = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.css': 'text/css; charset=utf-8', '.svg': 'image/svg+xml' };
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const unitMs = { s: 1e3, m: 60e3, h: 3600e3, d: 86400e3 };

function moment(text, fallback) {
  if (!text) return fallback;
  if (!/^(\d+(\.\d+)?[smhd])+$/.test(text)) return Date.parse(text);
  let ms = 0;
  for (const [, n, u] of text.matchAll(/([\d.]+)([smhd])/g)) ms += n * unitMs[u];
  return Date.now() - ms;
}

class Problem extends Error {
  constructor(status, message, hint = '') {
    super(message);
    Object.assign(this, { status, hint });
  }
}

const get = (row, path) => path.split('.').reduce((at, p) => at?.[p], row);

export async function startMock({ port = 0, rate = 3, empty = false, calm = false, traceRate = 2, traces = 700, ...options } = {}) {
  const w = empty ? { ...world({ minutes: 0.01, perSecond: 0 }), flows: [], moreFlows: () => [] } : world(options);
  const minutes = options.minutes ?? 20;
  const began = Date.now() - minutes * 60e3;
  const x = about.exchanges(w, { troubleFrom: calm ? Infinity : Date.now() - 4 * 60e3 });
  const requests = [];
  if (!empty) {
    for (let i = 0; i < traces; i++) requests.push(...x.trace(began + ((i + 0.5) / traces) * (Date.now() - began)));
    for (let from = began; from < Date.now(); from += 300e3) w.flows.push(...x.flows(from, Math.min(from + 300e3, Date.now())));
    w.flows.sort((a, b) => (a.end_time < b.end_time ? -1 : 1));
  }
  requests.sort((a, b) => (a.time < b.time ? -1 : 1));
  const started = Date.now() - 3600e3;
  const streams = new Set();
  const state = { failing: false, lost: empty ? 0 : 14 };
  const columns = { flows: new Set(fields.tables[0].columns.map((c) => c.name)), requests: new Set(fields.tables[1].columns.map((c) => c.name)), processes: new Set(fields.tables[2].columns.map((c) => c.name)) };
  let emitted = 0;

  const query = (q, table) => {
    const [since, until] = [moment(q.get('since'), Date.now() - 15 * 60e3), moment(q.get('until'), Infinity)];
    let test;
    try {
      test = compile(q.get('filter') ?? '', columns[table]);
    } catch (err) {
      if (!(err instanceof FilterError)) throw err;
      throw new Problem(400, err.message, 'ghostlight query "pragma table_info(flows)" lists the fields; aliases: service, pid, command, container, address, port, transport, verdict, peer, reason');
    }
    return { test, since, until, keep: (row) => Date.parse(row.end_time ?? row.time) >= since && Date.parse(row.time) <= until && test(row) };
  };
  const rowsAnswer = (name, rows, q) => {
    const last = Number(q.get('last') ?? 1000);
    return { [name]: rows.slice(-last), matched: rows.length, complete: !empty, lost: 0 };
  };
  const stream = (req, res, test, event) => {
    res.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
    res.write(': hello\n\n');
    const s = { res, test, event };
    streams.add(s);
    req.on('close', () => streams.delete(s));
  };
  const send = (event, data) => {
    for (const s of streams) if (s.event === event && s.test(data)) s.res.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
  };

  const status = () => {
    const wobble = Math.sin(Date.now() / 7000);
    const rows = w.flows.length + w.processes.length;
    return {
      version: '0.1.0', host: { name: 'web-1', kernel: doctor.kernel, arch: 'amd64', boot_id: 'b3f1a2c4-0000-4000-8000-000000000000' },
      started: iso(started), uptime_ns: (Date.now() - started) * 1e6,
      agent: { cpu_percent: 0.41 + 0.06 * wobble, rss_bytes: 28_412_928 + Math.round(400_000 * wobble) },
      events: { total: 4_518_233 + emitted, per_second: empty ? 0 : 12_431 + 900 * wobble },
      lost: { total: state.lost, by_stage: state.lost ? [{ stage: 'ring', sensor: 'drop', count: state.lost }] : [] },
      budget: { state: 'ok', cpu_percent: 0.62 + 0.1 * wobble, cpu_limit_percent: 3, memory_bytes: 28_412_928, memory_limit_bytes: 67_108_864, shed: [] },
      store: { bytes: 148_200_113, rows: 4_100_000 + rows, oldest: iso(started - 22 * 3600e3), newest: iso(Date.now()), retention_ns: 86400e9, retention_bytes: 2 * 2 ** 30 },
      sensors: [
        { name: 'process', doc: 'Process: forks, execs and exits, and who runs already.', state: 'running', events: 18_211, lost: 0 },
        { name: 'tcp', doc: 'Tcp: the life of each TCP connection, and what it carried.', state: 'running', events: 4_300_112, lost: 0 },
        { name: 'udp', doc: 'Udp: who sends datagrams to whom.', state: 'running', events: 180_223, lost: 0 },
        { name: 'drop', doc: 'Drop: packets the kernel threw away, and why.', state: 'running', events: 19_687, lost: state.lost },
      ],
      programs: [
        { name: 'tcp_state', sensor: 'tcp', runs: 88_120, ns_per_run: 412.5, cpu_percent: 0.121 }, { name: 'tcp_destroy', sensor: 'tcp', runs: 29_301, ns_per_run: 388.1, cpu_percent: 0.038 },
        { name: 'tcp_retransmit', sensor: 'tcp', runs: 812, ns_per_run: 201.4, cpu_percent: 0.0005 }, { name: 'process_exec', sensor: 'process', runs: 312, ns_per_run: 4120.2, cpu_percent: 0.004 },
        { name: 'process_exit', sensor: 'process', runs: 310, ns_per_run: 902.7, cpu_percent: 0.001 }, { name: 'udp_egress', sensor: 'udp', runs: 51_022, ns_per_run: 96.4, cpu_percent: 0.016 },
        { name: 'drop_skb', sensor: 'drop', runs: 190_311, ns_per_run: 61.2, cpu_percent: 0.039 },
      ],
      features_off: 2,
    };
  };

  const owner = (address) => [...w.services.values()].find((s) => s.address === address)?.name;
  const serviceMap = (q) => {
    const either = (table) => { try { return query(q, table); } catch (err) { return err; } };
    const [ofFlows, ofRequests] = [either('flows'), either('requests')];
    if (!ofFlows.keep && !ofRequests.keep) throw ofFlows; // a filter may be of one of them alone
    const since = (ofFlows.keep ? ofFlows : ofRequests).since;
    const keep = ofFlows.keep ?? (() => false);
    const seconds = Math.max(1, (Math.min(Date.now(), moment(q.get('until'), Date.now())) - since) / 1000);
    const asked = ofRequests.keep ? requests.filter(ofRequests.keep) : [];
    const nodes = new Map();
    const edges = new Map();
    const node = (name, address) => {
      const id = name ? `svc:${name}` : `ext:${address}`;
      if (!nodes.has(id)) nodes.set(id, { id, name: name || address, kind: name ? 'service' : 'external', hosts: 1, processes: 1, bytes_sent: 0, bytes_received: 0, connections: 0, failures: 0 });
      return nodes.get(id);
    };
    for (const f of w.flows.filter(keep)) {
      const out = f.direction === 'outbound';
      const [us, them] = [get(f, 'service.name') ?? owner(f.destination.address), get(f, 'peer.service.name')];
      if (!out && them) continue; // counted at the client
      const s = node(out ? us : them, f.source.address);
      const t = node(out ? them : us, f.destination.address);
      const key = `${s.id}>${t.id}>${f.network.transport}>${f.destination.port}`;
      if (!edges.has(key)) edges.set(key, { source: s.id, target: t.id, transport: f.network.transport, port: f.destination.port, connections: 0, open: 0, failures: 0, bytes_sent: 0, bytes_received: 0, bytes_per_second: 0, retransmits: 0, drops: 0, rtt_ns: 0 });
      const e = edges.get(key);
      const [sent, received] = out ? [f.bytes?.sent ?? 0, f.bytes?.received ?? 0] : [f.bytes?.received ?? 0, f.bytes?.sent ?? 0];
      if (f.verdict === 'dropped') { e.drops += f.drop.count; continue; }
      e.connections++;
      e.open += f.tcp?.state === 'established' ? 1 : 0;
      e.failures += f.verdict === 'error' ? 1 : 0;
      e.bytes_sent += sent;
      e.bytes_received += received;
      e.retransmits += f.tcp?.retransmits ?? 0;
      e.rtt_ns = f.tcp?.rtt_ns ?? e.rtt_ns;
      for (const [n, a, b] of [[s, sent, received], [t, received, sent]]) {
        n.connections++;
        n.failures += f.verdict === 'error' ? 1 : 0;
        n.bytes_sent += a;
        n.bytes_received += b;
      }
    }
    for (const e of edges.values()) {
      const [from, to] = [e.source, e.target].map((id) => nodes.get(id));
      const own = asked.filter((r) => (r.role === 'client' || !get(r, 'peer.service.name')) && r.destination.port === e.port
        && (r.role === 'client' ? r.service.name : r.source.address) === from.name && (r.role === 'server' ? r.service.name : get(r, 'peer.service.name') ?? r.destination.address) === to.name);
      if (!own.length) continue;
      const took = own.map((r) => r.duration_ns).sort((a, b) => a - b);
      Object.assign(e, { requests: own.length, errors: own.filter((r) => r.error).length, p50_ns: took[took.length >> 1], p99_ns: took[Math.floor(took.length * 0.99)], protocols: [...new Set(own.map((r) => r.protocol))] });
      to.requests = (to.requests ?? 0) + e.requests;
      to.errors = (to.errors ?? 0) + e.errors;
    }
    for (const e of edges.values()) e.bytes_per_second = (e.bytes_sent + e.bytes_received) / seconds;
    return { nodes: [...nodes.values()], edges: [...edges.values()], window_ns: seconds * 1e9, complete: true };
  };

  const tree = (q) => {
    const at = moment(q.get('at'), Date.now());
    const { test } = query(q, 'processes');
    const newest = new Map();
    for (const p of w.processes) {
      if (Date.parse(p.time) > at) break;
      if (p.action === 'exit') newest.delete(p.process.exec_id);
      else newest.set(p.process.exec_id, p);
    }
    return { at: iso(at), processes: [...newest.values()].filter(test), complete: true };
  };

  /** The requests that match, and both ends of the range. */
  const window = (q) => {
    const { keep, since, until } = query(q, 'requests');
    return [requests.filter(keep), Math.max(since, began), Math.min(Date.now(), until)];
  };
  const named = (path, q) => { // the endpoints that name what they tell of
    const [, kind, name] = /^\/api\/v1\/(services|trace)\/(.+)$/.exec(path) ?? [];
    const found = kind === 'trace' ? about.trace(requests, decodeURIComponent(name)) : about.service(...window(q), decodeURIComponent(name));
    if (!found) throw new Problem(404, kind === 'trace' ? `no request of trace "${name}" is stored` : `no request of a service "${name}" was seen`, 'ask for a longer time');
    return found;
  };

  const endpoints = {
    '/api/v1/flows': (q, req, res) => {
      const { keep, test } = query(q, 'flows');
      if (q.get('follow') !== 'true') return rowsAnswer('flows', w.flows.filter(keep), q);
      stream(req, res, test, 'flow');
    },
    '/api/v1/processes': (q, req, res) => {
      if (q.get('events') !== 'true') return tree(q);
      const { keep, test } = query(q, 'processes');
      if (q.get('follow') !== 'true') return rowsAnswer('processes', w.processes.filter(keep), q);
      stream(req, res, test, 'process');
    },
    '/api/v1/requests': (q, req, res) => {
      const { keep, test } = query(q, 'requests');
      if (q.get('follow') !== 'true') return rowsAnswer('requests', requests.filter(keep), q);
      stream(req, res, test, 'request');
    },
    '/api/v1/services': (q) => about.services(...window(q)),
    '/api/v1/heatmap': (q) => about.heatmap(...window(q), Number(q.get('columns') ?? 120)),
    '/api/v1/overview': (q) => about.overview(...window(q), { name: 'web-1', kernel: doctor.kernel, arch: 'amd64' }),
    '/api/v1/traces': (q) => about.traces(requests, window(q)[0], q.get('sort') ?? 'newest', Number(q.get('last') ?? 50)),
    '/api/v1/map': (q) => serviceMap(q),
    '/api/v1/status': (q, req, res) => {
      if (q.get('follow') !== 'true') return status();
      stream(req, res, () => true, 'status');
      res.write(`event: status\ndata: ${JSON.stringify(status())}\n\n`);
    },
    '/api/v1/doctor': () => doctor,
    '/api/v1/fields': () => fields,
  };

  const file = async (path, res) => {
    const name = path.startsWith('/assets/') ? normalize(path) : '/index.html';
    const body = await readFile(join(dist, name)).catch(() => undefined);
    if (!body) return void res.writeHead(404).end();
    res.writeHead(200, {
      'Content-Type': types[extname(name)] ?? 'application/octet-stream', 'Content-Security-Policy': policy, 'X-Content-Type-Options': 'nosniff',
      'Cache-Control': name === '/index.html' ? 'no-cache' : 'public, max-age=31536000, immutable',
    }).end(body);
  };

  const server = createServer(async (req, res) => {
    const url = new URL(req.url, 'http://mock');
    try {
      const endpoint = endpoints[url.pathname] ?? (/^\/api\/v1\/(services|trace)\/./.test(url.pathname) ? (q) => named(url.pathname, q) : undefined);
      if (!endpoint && url.pathname.startsWith('/api/')) throw new Problem(404, `no endpoint ${url.pathname}`);
      if (!endpoint) return await file(url.pathname, res);
      if (state.failing) throw new Problem(503, 'the store cannot be read', 'look at the agent\'s log: journalctl -u ghostlight');
      const answer = endpoint(url.searchParams, req, res);
      if (answer) res.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(answer));
    } catch (err) {
      res.writeHead(err.status ?? 500, { 'Content-Type': 'application/json' }).end(JSON.stringify({ error: { message: err.message, hint: err.hint ?? '' } }));
    }
  });

  const brief = [...w.early];
  const emit = () => {
    const rows = w.moreFlows(Date.now());
    for (const f of rows) { w.flows.push(f); send('flow', f); }
    emitted += rows.length;
    for (const l of brief.filter((x) => x.end <= Date.now())) { brief.splice(brief.indexOf(l), 1); send('process', w.die(l)); }
    if (Math.random() < 0.02) { const l = w.brief(Date.now()); brief.push(l); send('process', w.live(l)); }
  };
  const ask = () => {
    const rows = x.trace(Date.now() - 400);
    requests.push(...rows);
    requests.sort((a, b) => (a.time < b.time ? -1 : 1));
    for (const r of rows) send('request', r);
  };
  const timers = [
    setInterval(() => { if (!empty) ask(); }, 1000 / traceRate),
    setInterval(() => { for (let i = 0; i < Math.max(1, rate / 10); i++) emit(); }, 1000 / Math.min(rate, 10)),
    setInterval(() => send('status', status()), 1000),
    setInterval(() => { for (const s of streams) s.res.write(': ping\n\n'); }, 15_000),
  ];
  await new Promise((done) => server.listen(port, '127.0.0.1', done));
  const cut = () => { for (const s of streams) s.res.destroy(); streams.clear(); };
  return {
    url: `http://127.0.0.1:${server.address().port}`, world: w, requests, state, cut,
    fail(on) { state.failing = on; if (on) cut(); },
    async close() {
      timers.forEach(clearInterval);
      cut();
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    },
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const flag = (name, fallback) => { const i = process.argv.indexOf(`--${name}`); return i > 0 ? Number(process.argv[i + 1]) : fallback; };
  const mock = await startMock({ port: flag('port', 4199), nodes: flag('nodes', 0), rate: flag('rate', 3), perSecond: flag('history', 1.6), empty: process.argv.includes('--empty') });
  console.log(mock.url);
}
