// The filter bar: chips for the terms that hold, one input for the next, and
// completion of names and values.
import { computed, signal } from '@preact/signals';
import { useRef } from 'preact/hooks';
import { columnsOf, fields } from './agent';
import { add, join, parse, quote, remove, split, terms, type Term } from './filter';
import { filter, page, setFilter, type Page } from './route';

/** Values the page has on screen for a field: what completion offers after the colon. */
export const seen: { values: (field: string) => Iterable<string> } = { values: () => [] };

const enumerations: Record<string, readonly string[]> = {
  transport: ['tcp', 'udp', 'icmp', 'icmpv6'],
  verdict: ['forwarded', 'error', 'dropped'],
  reason: ['fin_sent', 'fin_received', 'reset_sent', 'reset_received', 'refused', 'timeout', 'unreachable', 'aborted'],
  direction: ['outbound', 'inbound'],
  role: ['server', 'client'],
  protocol: ['http', 'grpc', 'websocket', 'dns', 'postgresql', 'mysql', 'redis', 'kafka', 'mongodb'],
  status: ['error', 'ok', '2xx', '3xx', '4xx', '5xx'],
  method: ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'HEAD', 'OPTIONS'],
  slower: ['10ms', '100ms', '1s'],
  faster: ['1ms', '10ms', '100ms'],
  tls: ['true', 'false'],
  action: ['fork', 'exec', 'exit', 'running'],
  complete: ['true', 'false'],
};
const sameAs: Record<string, string> = {
  'network.transport': 'transport', 'tcp.close_reason': 'reason', 'http.request.method': 'method',
};
const aliasDocs: Record<string, string> = {
  service: 'service at either end', pid: 'process at either end', command: 'name of the executable',
  container: 'container name, or the beginning of its id', address: 'either end; a CIDR too',
  port: 'either end', transport: 'tcp, udp, icmp', verdict: 'forwarded, error or dropped',
  peer: 'service at the other end', reason: 'how it ended, or why it was dropped',
  route: 'path with its variable parts folded, or the RPC method', path: 'path as it was asked for', method: 'HTTP method',
  status: 'a code, 5xx, error or ok', slower: 'took this long or longer', faster: 'took less than this',
  operation: 'of a database, RPC, queue or DNS', target: 'table, collection, topic or name', error: 'why it failed', trace: 'trace id', span: 'span id',
  state: 'state of a TCP connection', user: 'effective user id', interface: 'where a packet was dropped',
};

interface Choice { insert: string; label: string; doc: string; final: boolean }

const draft = signal('');
const choice = signal(-1);
const opened = signal(false);

const tables: Partial<Record<Page, string>> = { overview: 'requests', services: 'requests', requests: 'requests', traces: 'requests', processes: 'processes' };
const table = computed(() => (page.value && tables[page.value]) ?? 'flows');

/** Whether a table has the field of a term. What no table knows is left for the server to say. */
function has(name: string, field: string): boolean {
  const of = [fields.value?.aliases[field] ?? field].flat();
  const knows = (t: string) => of.some((f) => f === '' || columnsOf(t).some((c) => c.name === f));
  return field === '' || knows(name) || !(fields.value?.tables ?? []).some((t) => knows(t.name));
}

const used = (field: string) => has(table.value, field) || (page.value === 'map' && appliedToMap() === filter.value);

/** The filter as far as a table can be asked: other terms wait for their page. */
export const applied = (name: string): string => join(terms(filter.value).filter((t) => has(name, t.field)).map((t) => t.text));

/** The same for the map, which is drawn from flows and requests: the agent takes a filter of either. */
export const appliedToMap = (): string => (terms(filter.value).every((t) => has('requests', t.field)) ? filter.value : applied('flows'));

function names(): { name: string; doc: string }[] {
  const columns = columnsOf(table.value).map((c) => ({ name: c.name, doc: c.doc }));
  const here = ([, of]: [string, unknown]) => !Array.isArray(of) || of.some((name) => columns.some((c) => c.name === name));
  const aliases = Object.entries(fields.value?.aliases ?? aliasDocs).filter(here).map(([name, of]) => ({ name, doc: aliasDocs[name] ?? [of].flat().join(', ') }));
  return [...aliases, ...columns.filter((c) => !aliases.some((a) => a.name === c.name))];
}

const choices = computed<Choice[]>(() => {
  const text = draft.value;
  const typed = text.replace(/^-/, '');
  const sign = text.startsWith('-') ? '-' : '';
  const t = parse(text);
  if (t.field && t.op === ':') return valueChoices(t, sign);
  if (t.field) return [];
  const wanted = typed.toLowerCase();
  const rank = (n: string) => (n.startsWith(wanted) ? 0 : n.split('.').some((p) => p.startsWith(wanted)) ? 1 : 2);
  return names()
    .filter((n) => n.name.toLowerCase().includes(wanted))
    .sort((a, b) => rank(a.name) - rank(b.name))
    .slice(0, 60)
    .map((n) => ({ insert: `${sign}${n.name}:`, label: n.name, doc: n.doc, final: false }));
});

function valueChoices(t: Term, sign: string): Choice[] {
  const given = t.value.split(',');
  const last = given.pop()!.toLowerCase();
  const before = given.map((g) => g + ',').join('');
  const all = new Set([...(enumerations[sameAs[t.field] ?? t.field] ?? []), ...seen.values(t.field)]);
  return [...all]
    .filter((v) => v && v.toLowerCase().includes(last) && v.toLowerCase() !== last)
    .slice(0, 40)
    .map((v) => ({ insert: `${sign}${t.field}:${before}${quote(v)}`, label: v, doc: '', final: true }));
}

function commit(text: string): void {
  const rest = split(text).filter((t) => !/^-?[\w.]+(:|>=|<=|>|<)$/.test(t)); // "service:" says nothing yet
  if (rest.length) setFilter(rest.reduce(add, filter.value));
  draft.value = '';
  choice.value = -1;
}

function take(c: Choice): void {
  if (c.final) return commit(c.insert);
  draft.value = c.insert;
  choice.value = -1;
}

export function FilterBar() {
  const input = useRef<HTMLInputElement>(null);
  const list = terms(filter.value);
  const offered = opened.value ? choices.value : [];

  const edit = (t: Term) => {
    setFilter(remove(filter.value, t.text));
    draft.value = t.text;
    opened.value = true;
    input.current?.focus();
  };
  const keys = (e: KeyboardEvent) => {
    const at = choice.value;
    if (e.key === 'ArrowDown' || e.key === 'ArrowUp') {
      if (!offered.length) { opened.value = true; return; }
      choice.value = (at + (e.key === 'ArrowDown' ? 1 : offered.length + (at < 0 ? 0 : -1))) % offered.length;
    } else if (e.key === 'Enter') {
      const c = offered[at];
      if (c) take(c); else { commit(draft.value); opened.value = false; }
    } else if (e.key === 'Tab' && !e.shiftKey && draft.value && offered.length) {
      take(offered[Math.max(0, at)]!);
    } else if (e.key === 'Escape') {
      if (opened.value && draft.value) opened.value = false; else input.current?.blur();
      choice.value = -1;
    } else if (e.key === 'Backspace' && !draft.value && list.length) {
      edit(list[list.length - 1]!);
    } else {
      return;
    }
    e.preventDefault();
    e.stopPropagation();
  };

  return (
    <div class="filterbar" role="search">
      <div class="terms" onClick={(e) => { if (e.target === e.currentTarget) input.current?.focus(); }}>
        {list.map((t) => (
          <span key={t.text} class={`chip ${t.negated ? 'negated' : ''} ${used(t.field) ? '' : 'idle'}`}>
            <button type="button" class="plain" title={used(t.field) ? 'edit' : `not used on this page: ${table.value} have no ${t.field}`} onClick={() => edit(t)}>
              {t.negated && <b>not </b>}
              {t.field ? <><span class="field">{t.field}{t.op === ':' ? ':' : ` ${t.op} `}</span>{shortened(t.value)}</> : t.value}
            </button>
            <button type="button" class="plain x" aria-label={`remove ${t.text}`} onClick={() => setFilter(remove(filter.value, t.text))}>×</button>
          </span>
        ))}
        <input
          ref={input} id="filter" type="text" spellcheck={false} autocomplete="off" autocapitalize="off"
          placeholder={list.length ? '' : table.value === 'requests' ? 'filter: service:checkout route:/pay status:5xx slower:100ms' : 'filter: service:nginx port:443 -verdict:forwarded'}
          aria-label="Filter" role="combobox" aria-expanded={offered.length > 0} aria-controls="choices" aria-autocomplete="list"
          aria-activedescendant={choice.value >= 0 ? `choice-${choice.value}` : undefined}
          value={draft.value}
          onInput={(e) => { draft.value = e.currentTarget.value; choice.value = -1; opened.value = true; }}
          onFocus={() => (opened.value = true)}
          onBlur={() => { opened.value = false; commitWhole(); }}
          onKeyDown={keys}
        />
        {(list.length > 0 || draft.value) && (
          <button type="button" class="plain x" aria-label="clear the filter" title="clear" onClick={() => { draft.value = ''; setFilter(''); }}>×</button>
        )}
      </div>
      <ul id="choices" class="choices" role="listbox" tabIndex={-1} aria-label="Completions" hidden={!offered.length}>
        {offered.map((c, i) => (
          <li
            key={c.insert} id={`choice-${i}`} role="option" aria-selected={i === choice.value}
            ref={(el) => { if (el && i === choice.value) el.scrollIntoView({ block: 'nearest' }); }}
            onPointerDown={(e) => { e.preventDefault(); take(c); }}
          >
            <span class="name">{c.label}</span><span class="dim">{c.doc}</span>
          </li>
        ))}
      </ul>
    </div>
  );
}

/** A finished term left in the input holds; half a term stays to be finished. */
function commitWhole(): void {
  const t = parse(draft.value.trim());
  if (t.field && t.value) commit(draft.value);
}

const shortened = (v: string) => (v.length > 28 ? `${v.slice(0, 14)}…${v.slice(-10)}` : v);

export function focusFilter(): void {
  document.getElementById('filter')?.focus();
}

export const textOf = (list: readonly Term[]): string => join(list.map((t) => t.text));
