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

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ghostlight-words-'));
  const root = new URL('../src/', import.meta.url).pathname;
  const entry = ['format.ts', 'filter.ts', 'range.ts', 'layout.ts', 'tree.ts', 'flow.ts'].map((f) => root + f);
  await build({ entryPoints: entry, outdir: dir, bundle: true, format: 'esm', outExtension: { '.js': '.mjs' }, logLevel: 'error' });
  [format, filter, range, layout, tree, flow] = await Promise.all(['format', 'filter', 'range', 'layout', 'tree', 'flow'].map((m) => import(join(dir, `${m}.mjs`))));
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
