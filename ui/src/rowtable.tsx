// What tables of records share: cells, the columns a person chooses, how many
// rows there are, and what can be copied.
import { signal, useSignal } from '@preact/signals';
import { columnsOf } from './agent';
import { most, type Feed, type Item } from './feed';
import { hostPort, type End } from './flow';
import { count, plural } from './format';
import { shownCell } from './panel';
import { CellValue, copy, Popover } from './parts';
import { cell, str } from './row';
import { filter, live, range, set } from './route';
import { csv, type Column } from './table';

export function Place(props: { end: End }) {
  const { end } = props;
  const name = end.service || end.command;
  const where = hostPort(end);
  return (
    <span class="place" title={[end.service, end.command, end.container, end.pid && `pid ${end.pid}`, where].filter(Boolean).join('\n')}>
      {!name && !end.address && <span class="dim">unknown</span>}
      {!name && !end.address ? null : name
        ? <><CellValue field={end.service ? 'service' : 'command'} value={name} class="name" /><CellValue field="address" value={end.address} class="dim">{where}</CellValue></>
        : <CellValue field="address" value={end.address} class="name">{where}</CellValue>}
    </span>
  );
}

export function amount(value: number | undefined, text: (n: number) => string, exact: (n: number) => string) {
  return value === undefined ? null : <span class={value === 0 ? 'dim' : ''} title={exact(value)}>{text(value)}</span>;
}

/** A column that shows a field as it is. */
export function rawColumn<T extends Item>(table: string, name: string): Column<T> {
  const field = columnsOf(table).find((c) => c.name === name);
  const type = field?.type ?? 'string';
  return {
    id: name, label: name, title: field?.doc ?? '', width: 'minmax(110px, 1fr)', right: /int|duration/i.test(type) && !/port|pid|id$/.test(name),
    cell: (f) => {
      const v = cell(f.row, name);
      if (v === undefined || v === null) return null;
      const { text, exact } = shownCell(name, type, v);
      return typeof v === 'object' ? <span title={text}>{text}</span> : <CellValue field={name} value={String(v)}><span title={exact || text}>{text}</span></CellValue>;
    },
    sort: (f) => { const v = cell(f.row, name); return typeof v === 'number' || typeof v === 'string' ? v : v === undefined ? undefined : String(v); },
  };
}

const looked = 3000; // rows that completion looks at
const enough = 200; // values

/** The values a feed has on screen for a field. */
export function seenIn<T extends Item>(feed: Feed<T>, fieldsOf: Record<string, string[]>): (field: string) => Iterable<string> {
  return function* (field) {
    const found = new Set<string>();
    for (const f of feed.items.value.slice(0, looked)) {
      for (const n of fieldsOf[field] ?? [field]) {
        const v = str(f.row, n);
        if (v && !found.has(v)) yield (found.add(v), v);
      }
      if (found.size > enough) return;
    }
  };
}

export function Count<T extends Item>(props: { feed: Feed<T>; one: string }) {
  const { feed, one } = props;
  const { matched } = feed.about.value;
  const shown = feed.items.value.length;
  if (feed.state.value === 'loading') return <span class="dim">loading</span>;
  if (matched <= shown) return <span>{plural(shown, one)}</span>;
  return (
    <span>newest {count(shown)} of {plural(matched, one)}
      {shown < most && <button type="button" class="plain link" onClick={() => void feed.loadOlder()}>load older</button>}
    </span>
  );
}

const choosing = signal(false);

export function ColumnChooser(props: { table: string; usual: readonly { id: string; label: string; title?: string }[]; chosen: readonly string[] }) {
  const { table, usual, chosen } = props;
  const search = useSignal('');
  const own = usual.map((c) => ({ id: c.id, label: c.label, doc: c.title ?? '' }));
  const known = [...own, ...columnsOf(table).filter((c) => !own.some((o) => o.id === c.name)).map((c) => ({ id: c.name, label: c.name, doc: c.doc }))];
  const toggle = (id: string) => {
    const next = chosen.includes(id) ? chosen.filter((c) => c !== id) : [...chosen, id];
    const same = next.length === usual.length && next.every((c, i) => c === usual[i]!.id);
    if (next.length) set({ columns: same ? '' : next.join(',') }, true);
  };
  return (
    <Popover class="right only-wide" open={choosing.value} setOpen={(o) => (choosing.value = o)} name="Columns" label="Columns">
      <input autofocus type="search" aria-label="Search the columns" placeholder="search" value={search.value} onInput={(e) => (search.value = e.currentTarget.value)} />
      <div class="checks">
        {known.filter((c) => `${c.label} ${c.doc}`.toLowerCase().includes(search.value.toLowerCase())).map((c) => (
          <label key={c.id} title={c.doc}><input type="checkbox" checked={chosen.includes(c.id)} onChange={() => toggle(c.id)} />{c.label}</label>
        ))}
      </div>
      <button type="button" onClick={() => set({ columns: '' }, true)}>The usual columns</button>
    </Popover>
  );
}

const copying = signal(false);
const quoted = (s: string) => (/^[\w.:/=,*-]+$/.test(s) ? s : `'${s.replaceAll("'", "'\\''")}'`);

/** What to type in a terminal to see the same. */
function commandLine(command: string): string {
  const { since, until } = range.value;
  const parts = [`ghostlight ${command}`, `--since ${quoted(since)}`, until && `--until ${quoted(until)}`, live.value && '--follow', filter.value && quoted(filter.value)];
  return parts.filter(Boolean).join(' ');
}

export function CopyMenu<T extends Item>(props: { command: string; rows: readonly T[]; columns: readonly Column<T>[] }) {
  const { command, rows, columns } = props;
  const table = () => csv(columns.map((c) => c.label), rows.map((f) => columns.map((c) => (c.id === 'time' ? new Date(f.at).toISOString() : c.sort?.(f)))));
  const done = (text: string, what: string) => { copying.value = false; void copy(text, what); };
  return (
    <Popover class="right" role="menu" open={copying.value} setOpen={(o) => (copying.value = o)} name="Copy" label="Copy">
      <button role="menuitem" type="button" onClick={() => done(table(), plural(rows.length, 'row') + ' as CSV')}>Rows as CSV</button>
      <button role="menuitem" type="button" onClick={() => done(rows.map((f) => JSON.stringify(f.row)).join('\n') + '\n', plural(rows.length, 'row') + ' as JSON lines')}>Rows as JSON lines</button>
      <button role="menuitem" type="button" onClick={() => done(commandLine(command), 'the command')}>Command for a terminal</button>
      <button role="menuitem" type="button" onClick={() => done(location.href, 'a link to this view')}>Link to this view</button>
    </Popover>
  );
}
