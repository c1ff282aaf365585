// The filter language as the mock understands it: enough to test the page,
// not the judge of what a filter means.
import { BlockList, isIP } from 'node:net';

const cell = (row, name) => name.split('.').reduce((at, part) => at?.[part], row);

const aliases = {
  service: ['service.name', 'peer.service.name'], pid: ['process.pid', 'peer.pid'], command: ['process.executable.name'],
  container: ['container.name', 'peer.container.name', 'container.id'], address: ['source.address', 'destination.address'],
  port: ['source.port', 'destination.port'], transport: ['network.transport'], verdict: ['verdict'], peer: ['peer.service.name'],
  reason: ['tcp.close_reason'],
  route: ['http.route', 'rpc.method'], path: ['url.path'], method: ['http.request.method'],
  status: ['http.response.status_code', 'rpc.response.status_code', 'dns.response.code'], operation: ['db.operation.name', 'messaging.operation.name'],
  error: ['error.type'], trace: ['trace.trace_id'], span: ['trace.span_id'], slower: ['duration_ns'], faster: ['duration_ns'],
};
const limits = { slower: '>=', faster: '<' };
const bare = ['process.executable.name', 'service.name', 'peer.service.name', 'container.name', 'source.address', 'destination.address', 'url.path', 'http.route', 'rpc.method'];
const units = { ns: 1, us: 1e3, ms: 1e6, s: 1e9, m: 60e9, h: 3600e9 };

export class FilterError extends Error {}

const number = (text) => {
  const m = /^([\d.]+)(ns|us|ms|s|m|h)?$/.exec(text);
  return m ? Number(m[1]) * (units[m[2]] ?? 1) : NaN;
};

function matches(have, want) {
  if (have === undefined) return false;
  const text = String(have);
  if (want.includes('/') && isIP(want.split('/')[0]) && isIP(text)) {
    const list = new BlockList();
    const [net, bits] = want.split('/');
    list.addSubnet(net, Number(bits), isIP(net) === 6 ? 'ipv6' : 'ipv4');
    return list.check(text, isIP(text) === 6 ? 'ipv6' : 'ipv4');
  }
  if (/^\d+x+$/.test(want)) return new RegExp(`^${want.replaceAll('x', '\\d')}$`).test(text);
  if (want.includes('*')) return new RegExp(`^${want.split('*').map((p) => p.replace(/[.+?^${}()|[\]\\]/g, '\\$&')).join('.*')}$`).test(text);
  return text === want;
}

export function compile(filter, columns) {
  const terms = filter.match(/(?:[^\s"]|"[^"]*")+/g) ?? [];
  const groups = new Map();
  const all = [];
  for (const text of terms) {
    const m = /^(-?)([A-Za-z_][\w.]*)(:|>=|<=|>|<)(.*)$/.exec(text);
    if (!m) {
      const word = text.replaceAll('"', '');
      all.push((row) => bare.some((n) => String(cell(row, n) ?? '').includes(word)));
      continue;
    }
    const [, minus, field, given, raw] = m;
    const op = limits[field] ?? given;
    const names = aliases[field] ?? [field];
    if (!aliases[field] && !columns.has(field)) throw new FilterError(`unknown field "${field}"`);
    const values = raw.split(',').map((v) => v.replaceAll('"', ''));
    if (field === 'status' && (raw === 'error' || raw === 'ok')) {
      const test = (row) => (cell(row, 'error.type') !== undefined) === (raw === 'error');
      all.push(minus ? (row) => !test(row) : test);
      continue;
    }
    const test = op === ':'
      ? (row) => names.some((n) => values.some((v) => matches(cell(row, n), v)))
      : (row) => names.some((n) => {
          const [a, b] = [cell(row, n), number(raw)];
          return a !== undefined && (op === '>' ? a > b : op === '>=' ? a >= b : op === '<' ? a < b : a <= b);
        });
    if (minus) all.push((row) => !test(row));
    else if (op === ':') groups.set(field, [...(groups.get(field) ?? []), test]);
    else all.push(test);
  }
  for (const list of groups.values()) all.push((row) => list.some((t) => t(row)));
  return (row) => all.every((t) => t(row));
}
