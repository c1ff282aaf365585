// One flow record, told from the client's and the server's side.
import type { Mark } from './parts';
import { num, str, time, type Row } from './row';

export interface Flow {
  key: string;
  at: number; // when it was reported: the end of its interval
  pair: string; // the same at both ends of a connection
  row: Row;
}

export function toFlow(row: Row): Flow {
  const end = time(row, 'end_time');
  const at = Number.isNaN(end) ? time(row) : end;
  const id = num(row, 'flow.id') || `${str(row, 'source.port')}-${str(row, 'destination.port')}-${str(row, 'drop.reason')}`;
  const pair = ['network.transport', 'source.address', 'source.port', 'destination.address', 'destination.port'].map((n) => str(row, n)).join(' ');
  return { pair, key: `${id}.${str(row, 'direction').slice(0, 1)}@${str(row, 'end_time') || str(row, 'time')}`, at, row };
}

export interface End {
  service: string;
  command: string;
  container: string;
  pid: number | undefined;
  address: string;
  port: number | undefined;
}

export const inbound = (row: Row): boolean => str(row, 'direction') === 'inbound';

const here = (row: Row) => ({
  service: str(row, 'service.name'), command: str(row, 'process.executable.name'),
  container: str(row, 'container.name') || str(row, 'container.id').slice(0, 12), pid: num(row, 'process.pid'),
});
const there = (row: Row) => ({
  service: str(row, 'peer.service.name'), command: '', container: str(row, 'peer.container.name'), pid: num(row, 'peer.pid'),
});

export const client = (row: Row): End => ({ ...(inbound(row) ? there(row) : here(row)), address: str(row, 'source.address'), port: num(row, 'source.port') });
export const server = (row: Row): End => ({ ...(inbound(row) ? here(row) : there(row)), address: str(row, 'destination.address'), port: num(row, 'destination.port') });

export const toServer = (row: Row): number | undefined => num(row, inbound(row) ? 'bytes.received' : 'bytes.sent');
export const toClient = (row: Row): number | undefined => num(row, inbound(row) ? 'bytes.sent' : 'bytes.received');

/** Address and port; IPv6 in brackets. */
export function hostPort(e: { address: string; port: number | undefined }): string {
  const a = e.address.includes(':') ? `[${e.address}]` : e.address;
  return e.port === undefined ? a : `${a}:${e.port}`;
}

const humane = (reason: string) => reason.replaceAll('_', ' ');

/** How it ended, in words, from no end's point of view. */
export function ending(row: Row): string {
  const [us, them] = inbound(row) ? ['server', 'client'] : ['client', 'server'];
  if (str(row, 'verdict') === 'dropped') return humane(str(row, 'drop.reason')) || 'dropped';
  switch (str(row, 'tcp.close_reason')) {
    case 'fin_sent': return `${us} closed`;
    case 'fin_received': return `${them} closed`;
    case 'reset_sent': return `${us} reset`;
    case 'reset_received': return `${them} reset`;
    case 'refused': return 'refused';
    case 'timeout': return 'timed out';
    case 'unreachable': return 'unreachable';
    case 'aborted': return 'aborted by this host';
    case '': break;
    default: return humane(str(row, 'tcp.close_reason'));
  }
  if (str(row, 'network.transport') !== 'tcp') return '';
  const state = str(row, 'tcp.state');
  return state === '' || state === 'established' ? 'open' : humane(state);
}

const marks: Record<string, Mark> = { forwarded: 'ok', error: 'error', dropped: 'drop' };

export function mark(row: Row): Mark {
  const m = marks[str(row, 'verdict')] ?? 'off';
  return m === 'ok' && ending(row) === 'open' ? 'open' : m;
}

const verdictWords: Record<string, string> = { forwarded: 'ok', error: 'error', dropped: 'drop' };
export const verdictWord = (row: Row): string => verdictWords[str(row, 'verdict')] ?? str(row, 'verdict');

/** Leaves out the server's record where the client's, which fared no better, is there too. */
export function folded(flows: readonly Flow[]): Flow[] {
  const clients = new Map<string, string>();
  for (const f of flows) if (str(f.row, 'direction') === 'outbound') clients.set(f.pair, str(f.row, 'verdict'));
  return flows.filter((f) => !inbound(f.row) || (clients.get(f.pair) ?? '') !== str(f.row, 'verdict'));
}
