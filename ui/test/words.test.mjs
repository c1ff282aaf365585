// The parts of the page that need no browser: words, numbers, filters, ranges.
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { build } from 'esbuild';

let dir;
let format;
let filter;
let range;
let layout;
let tree;
let flow;
let heat;
let waterfall;
let request;

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ghostlight-words-'));
  const root = new URL('../src/', import.meta.url).pathname;
  const entry = ['format.ts', 'filter.ts', 'range.ts', 'layout.ts', 'tree.ts', 'flow.ts', 'heat.ts', 'waterfall.ts', 'request.ts'].map((f) => root + f);
  await build({ entryPoints: entry, outdir: dir, bundle: true, format: 'esm', outExtension: { '.js': '.mjs' }, logLevel: 'error' });
  [format, filter, range, layout, tree, flow, heat, waterfall, request] = await Promise.all(['format', 'filter', 'range', 'layout', 'tree', 'flow', 'heat', 'waterfall', 'request'].map((m) => import(join(dir, `${m}.mjs`))));
});
after(() => rm(dir, { recursive: true, force: true }));

const blank = (text) => text.replaceAll('\u00a0', ' ');

test('three significant digits with a unit', () => {
  for (const [n, want] of [[0, '0 B'], [1, '1 B'], [999, '999 B'], [999.6, '1 kB'], [1000, '1 kB'], [1234, '1.23 kB'], [12345, '12.3 kB'], [999_600, '1 MB'], [5.5e9, '5.5 GB']]) assert.equal(blank(format.bytes(n)), want, String(n));
  for (const [n, want] of [[0, '0'], [7, '7 ns'], [1500, '1.5 µs'], [52_300_000, '52.3 ms'], [1e9, '1 s'], [90e9, '1.5 min'], [26 * 3600e9, '1.08 d']]) assert.equal(blank(format.duration(n)), want, String(n));
  for (const [n, want] of [[12431, '12,431'], [1_250_000, '1.25 M']]) assert.equal(blank(format.count(n)), want);
  assert.equal(blank(format.percent(0.004)), '< 0.01 %');
});

test('nanoseconds survive, and order as they should', () => {
  const [a, b] = ['2026-11-20T10:00:00.12Z', '2026-11-20T10:00:00.120000512Z'].map(format.parseTime);
  assert.ok(a < b);
  assert.equal(format.parseTime('2026-11-20T10:00:00Z'), Date.UTC(2026, 10, 20, 10));
});

test('filters are cut, narrowed, negated', () => {
  assert.deepEqual(filter.split('service:nginx  name:"a b" -port:443'), ['service:nginx', 'name:"a b"', '-port:443']);
  assert.deepEqual(filter.parse('-port:443'), { text: '-port:443', negated: true, field: 'port', op: ':', value: '443' });
  assert.equal(filter.parse('tcp.rtt_ns>=5ms').op, '>=');
  assert.equal(filter.parse('2001:db8::1').field, '', 'an address is no field');
  assert.equal(filter.only('service:a port:80', 'service', 'b'), 'port:80 service:b');
  assert.equal(filter.not('service:a', 'service', 'a'), '-service:a');
  assert.equal(filter.only('', 'service.name', 'my app'), 'service.name:"my app"');
});

test('ranges are read from words', () => {
  const now = new Date(2026, 10, 20, 12, 0, 0).getTime();
  for (const [text, since] of [['15m', '15m'], ['last 2 hours', '2h'], ['last hour', '1h'], ['3 days', '3d'], ['1h30m', '1h30m']]) assert.deepEqual(range.read(text, now), { since, until: '' }, text);
  const two = range.read('10:00 - 10:30', now);
  assert.equal(Date.parse(two.until) - Date.parse(two.since), 30 * 60e3);
  const late = range.read('since 23:50', now);
  assert.ok(Date.parse(late.since) < now, 'a time of day to come is yesterday\'s');
  for (const text of ['soonish', '', '10:30 - 10:00', '15 parsecs']) assert.equal(range.read(text, now), undefined, text);
});

test('a node that is new moves none that stands', () => {
  const size = { w: 100, h: 30 };
  const edges = [{ source: 'a', target: 'b' }, { source: 'b', target: 'c' }, { source: 'a', target: 'd' }];
  const was = layout.place(['a', 'b', 'c'], edges, new Map(), size);
  assert.ok(was.get('a').x < was.get('b').x && was.get('b').x < was.get('c').x, 'clients left, stores right');
  const now = layout.place(['a', 'b', 'c', 'd'], edges, was, size);
  for (const id of ['a', 'b', 'c']) assert.deepEqual(now.get(id), was.get(id));
  for (const id of ['a', 'b', 'c']) assert.notDeepEqual(now.get('d'), now.get(id));
});

const row = (pid, parent, more = {}) => ({ kind: 'process', time: '2026-11-20T10:00:00Z', action: 'running', process: { pid, parent_pid: parent, exec_id: `x${pid}`, parent: { exec_id: `x${parent}` }, start_ns: pid, executable: { name: `p${pid}` }, ...more } });

test('the tree hangs processes below their parents, and survives loops and orphans', () => {
  const roots = tree.grow([row(1, 0), row(3, 1), row(2, 1), row(9, 8)], [], new Map(), undefined);
  assert.deepEqual(tree.lines(roots, () => true).map((p) => `${p.level}${p.id}`), ['0x1', '1x2', '1x3', '0x9']);
  const loop = tree.grow([row(4, 5), row(5, 4)], [], new Map(), undefined);
  assert.equal(tree.lines(loop, () => true).length, 2);
  const filtered = tree.grow([row(1, 0), row(2, 1), row(3, 1)], [], new Map(), new Set(['x3']));
  assert.deepEqual(tree.lines(filtered, () => true).map((p) => [p.id, p.hit]), [['x1', false], ['x3', true]]);
});

const end = (direction, verdict, reason, more = {}) => flow.toFlow({ kind: 'flow', time: '2026-11-20T10:00:00Z', end_time: '2026-11-20T10:00:01Z', flow: { id: direction === 'inbound' ? 2 : 1 }, network: { transport: 'tcp' }, source: { address: '10.0.0.1', port: 5 }, destination: { address: '10.0.0.2', port: 80 }, direction, verdict, tcp: { close_reason: reason }, bytes: { sent: 10, received: 20 }, ...more });

test('a flow reads the same from both of its ends', () => {
  const [c, s] = [end('outbound', 'forwarded', 'fin_sent'), end('inbound', 'forwarded', 'fin_received', { bytes: { sent: 20, received: 10 } })];
  assert.equal(flow.ending(c.row), 'client closed');
  assert.equal(flow.ending(s.row), 'client closed');
  assert.equal(flow.toServer(c.row), flow.toServer(s.row));
  assert.deepEqual(flow.folded([s, c]).map((f) => f.key), [c.key], 'one row for one connection');
  const cut = end('inbound', 'error', 'reset_sent');
  assert.equal(flow.folded([cut, c]).length, 2, 'an end that fared worse is not hidden');
  assert.equal(flow.ending(cut.row), 'server reset');
});

const counted = (rows) => ({ from: '2026-11-20T10:00:00.123456789Z', to: '2026-11-20T10:00:04.123456789Z', step_ns: 1_000_000_001, bounds_ns: rows, complete: true });

test('the heatmap joins thin rows and loses no request', () => {
  const bounds = [];
  for (let b = 1 << 20; bounds.length < 60; b = heat.higher(b)) bounds.push(b);
  const counts = [0, 1, 2, 3].map((c) => bounds.map((_, r) => (r * 7 + c) % 3));
  const errors = counts.map((c) => c.map((n) => (n > 1 ? 1 : 0)));
  const sum = (all) => all.flat().reduce((n, x) => n + x, 0);
  for (const most of [7, 20, 60, 200]) {
    const g = heat.grid({ ...counted(bounds), counts, errors }, most);
    assert.ok(g.bands.length <= Math.max(most, 60) && (most >= 60 || g.bands.length <= most), `${g.bands.length} bands for ${most}`);
    assert.equal(g.requests, sum(counts));
    assert.equal(g.errors, sum(errors));
    assert.equal(heat.within(g, { left: 0, right: 3, low: 0, high: g.bands.length - 1 }).requests, sum(counts));
    g.bands.forEach((b, i) => assert.ok(b.low < b.high && (i === 0 || g.bands[i - 1].high === b.low), 'bands meet'));
  }
  const wide = { ...counted([5, 6, 7, 8, 10, ...bounds]), counts: [[9, 0, 0, 0, 1, ...counts[0]]], errors: [[1, 0, 0, 0, 0, ...errors[0]]] };
  const g = heat.grid(wide, 30);
  assert.equal(g.bands[0].high, 10, 'what took nanoseconds is one row');
  assert.equal(g.cells[0].requests, 10);
  assert.equal(g.requests, 10 + sum([counts[0]]));
  assert.ok(heat.ticks(g).every((ns) => ns >= 10));
  for (const b of bounds) assert.equal(heat.lower(heat.higher(b)), b);
});

test('a box keeps the nanoseconds of its edges, through the URL', () => {
  const bounds = [1 << 20, 1310720, 1572864];
  const g = heat.grid({ ...counted(bounds), counts: [[1, 0, 0], [0, 2, 0], [0, 0, 3], [0, 0, 0]], errors: [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]] }, 40);
  const low = g.bands.findIndex((b) => b.high === 1310720);
  const b = heat.boxOf(g, { left: 1, right: 2, low, high: low + 1 });
  assert.deepEqual(b, { since: '2026-11-20T10:00:01.123456790Z', until: '2026-11-20T10:00:03.123456792Z', low: 1 << 20, high: 1572864 });
  assert.deepEqual(heat.readBox(heat.boxText(b)), b);
  assert.equal(heat.readBox('x~y~1~2'), undefined);
  assert.equal(heat.boxTerms(b), 'slower:1048576ns faster:1572864ns');
  assert.equal(heat.grid({ ...counted([]), counts: [[], []], errors: [[], []] }, 40).bands.length, 0, 'nothing was seen');
});

test('a waterfall folds what lies below a span', () => {
  const span = (id, depth, more = {}) => ({ trace: { span_id: id }, depth, offset_ns: depth * 10, duration_ns: 100, ...more });
  const t = { spans: [span('a', 0), span('b', 1), span('c', 2), span('d', 1)], critical_path: [{ span_id: 'c', from_ns: 20, to_ns: 40 }, { span_id: 'c', from_ns: 60, to_ns: 70 }] };
  const keys = (folded) => waterfall.lines(t, (k) => folded.includes(k)).map((l) => l.key).join('');
  assert.equal(keys([]), 'abcd');
  assert.equal(keys(['b']), 'abd');
  assert.equal(keys(['a', 'b']), 'a');
  assert.deepEqual(waterfall.lines(t, () => false).map((l) => [l.children, l.critical.length]), [[3, 0], [1, 0], [0, 2], [0, 0]]);
  assert.deepEqual(waterfall.marks(0, 14_200_000, 5), [0, 5_000_000, 10_000_000]);
});

test('a request is named by its protocol and found again by its route', () => {
  const http = { role: 'server', http: { request: { method: 'GET' }, route: '/pay/{id}', response: { status_code: 503 } }, error: { type: '503' }, url: { path: '/pay/7' }, service: { name: 'shop' }, peer: { service: { name: 'nginx' } } };
  assert.equal(request.operation(http), 'GET /pay/{id}');
  assert.equal(request.statusText(http), '503');
  assert.equal(request.asker(http).service, 'nginx');
  assert.equal(request.answerer(http).service, 'shop');
  assert.equal(request.markOf(http), 'error');
  assert.equal(request.answerer({ role: 'client', attributes: { 'server.address': 'db.internal' } }).command, 'db.internal');
  for (const [protocol, name, want] of [['http', 'GET /pay/{id}', 'method:GET http.route:/pay/{id}'], ['postgresql', 'SELECT orders', 'db.query.summary:"SELECT orders"'], ['redis', 'GET', 'db.operation.name:GET'], ['grpc', 'a.B/C', 'rpc.method:a.B/C'], ['kafka', 'produce orders', 'messaging.operation.name:produce messaging.destination.name:orders'], ['dns', 'dns', 'protocol:dns']]) assert.equal(request.routeFilter(protocol, name), want);
});
