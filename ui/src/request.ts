// One request record, told from the client's and the server's side.
import type { End } from './flow';
import { quote } from './filter';
import type { Mark } from './parts';
import { cell, num, str, time, type Row } from './row';

export interface Request {
  key: string; // its span
  at: number; // when it began
  row: Row;
}

export function toRequest(row: Row): Request {
  const key = str(row, 'trace.span_id') || `${num(row, 'flow.id') ?? 0}.${str(row, 'role').slice(0, 1)}@${str(row, 'time')}`;
  return { key, at: time(row), row };
}

export const served = (row: Row): boolean => str(row, 'role') === 'server';

const here = (row: Row) => ({
  service: str(row, 'service.name'), command: str(row, 'process.executable.name'),
  container: str(row, 'container.name') || str(row, 'container.id').slice(0, 12), pid: num(row, 'process.pid'),
});
const there = (row: Row) => ({ service: str(row, 'peer.service.name'), command: '', container: str(row, 'peer.container.name'), pid: num(row, 'peer.pid') });

export const asker = (row: Row): End => ({ ...(served(row) ? there(row) : here(row)), address: str(row, 'source.address'), port: num(row, 'source.port') });

/** A server elsewhere goes by the name the client called it. */
export function answerer(row: Row): End {
  const end = { ...(served(row) ? here(row) : there(row)), address: str(row, 'destination.address'), port: num(row, 'destination.port') };
  if (!end.service && !end.command) end.command = attributes(row)['server.address'] ?? '';
  return end;
}

export function attributes(row: Row): Record<string, string> {
  const a = cell(row, 'attributes');
  return typeof a === 'object' && a !== null ? (a as Record<string, string>) : {};
}

const pair = (row: Row, a: string, b: string) => [str(row, a), str(row, b)].filter(Boolean).join(' ');

/** What was asked for, with few different names: as OpenTelemetry's conventions name its span. */
export const operation = (row: Row): string => str(row, 'name')
  || pair(row, 'http.request.method', 'http.route') || str(row, 'rpc.method') || str(row, 'db.query.summary')
  || pair(row, 'db.operation.name', 'db.collection.name') || pair(row, 'messaging.operation.name', 'messaging.destination.name')
  || pair(row, 'dns.question.type', 'dns.question.name') || str(row, 'protocol');

/** What exactly, where it says more than the operation. */
export function exactly(row: Row): string {
  const path = str(row, 'url.path');
  if (path) return path + (str(row, 'url.query') ? `?${str(row, 'url.query')}` : '');
  return str(row, 'db.query.text');
}

const codes = ['http.response.status_code', 'rpc.response.status_code', 'db.response.status_code', 'dns.response.code'];

/** The protocol's own word for how it went, or why it failed. */
export const statusText = (row: Row): string => codes.map((c) => str(row, c)).find(Boolean) ?? str(row, 'error.type');

export const failed = (row: Row): boolean => str(row, 'error.type') !== '';
export const markOf = (row: Row): Mark => (failed(row) ? 'error' : row.complete === false ? 'open' : 'ok');

export const took = (row: Row): number | undefined => num(row, 'duration_ns');

const equal = (field: string, value: string) => value && `${field}:${quote(value)}`;

/** The filter that finds the requests of a route of the services page, by the columns its name is made of. */
export function routeFilter(protocol: string, name: string): string {
  const [first = '', ...rest] = name.split(' ');
  const target = rest.join(' ');
  const both = (a: string, b: string) => [equal(a, first), equal(b, target)].filter(Boolean).join(' ');
  if (name === protocol) return equal('protocol', protocol);
  switch (protocol) {
    case 'http': case 'websocket': return both('method', 'http.route');
    case 'grpc': return equal('rpc.method', name);
    case 'postgresql': case 'mysql': return equal('db.query.summary', name);
    case 'kafka': return both('messaging.operation.name', 'messaging.destination.name');
    case 'dns': return equal('dns.question.type', first);
  }
  return both('db.operation.name', 'db.collection.name');
}
