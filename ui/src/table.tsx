// The table: any number of rows, of which only those in sight exist.
// A reader who scrolled down stays with the row they read while new ones come.
import { Component, type ComponentChildren, type VNode } from 'preact';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { narrow as isNarrow } from './agent';

export interface Column<T> {
  id: string;
  label: string;
  title?: string;
  width: string;
  right?: boolean;
  head?: () => ComponentChildren; // in place of the label
  cell(row: T): ComponentChildren;
  sort?: (row: T) => number | string | undefined;
}

export interface Tree<T> {
  level(row: T): number;
  expanded(row: T): boolean | undefined; // undefined: a leaf
  toggle(row: T, open: boolean): void;
}

interface Props<T> {
  label: string;
  rows: readonly T[];
  columns: readonly Column<T>[];
  keyOf(row: T): string;
  selected: string;
  open(row: T): void;
  peek?(row: T): void; // j and k while the panel is open
  sort?: string; // "-bytes": by this column, downwards
  onSort?: (sort: string) => void;
  tree?: Tree<T>;
  slim?: (row: T) => VNode; // one row at 390 px
  rowClass?: (row: T) => string;
  hold?: boolean; // keep the reader's row in place even at the top
  onScrolled?: (scrolled: boolean) => void;
}

const height = 30;
const slimHeight = 54;
const spare = 8; // rows drawn beyond either edge

/** The table that j, k and enter speak to while nothing has the focus. */
export const keyboard: { handle: ((e: KeyboardEvent) => boolean) | undefined } = { handle: undefined };

export function Table<T>(p: Props<T>) {
  const box = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, tall: 600 });
  const [activeKey, setActiveKey] = useState('');
  const [activeCell, setActiveCell] = useState(-1);
  const anchor = useRef<{ key: string; offset: number } | undefined>(undefined);
  const slim = isNarrow.value && p.slim !== undefined;
  const h = slim ? slimHeight : height;
  const head = slim ? 0 : height;

  const first = Math.max(0, Math.min(p.rows.length - 1, Math.floor(view.top / h)) - spare);
  const last = Math.min(p.rows.length, Math.ceil((view.top + view.tall) / h) + spare);
  const shown = p.rows.slice(first, last);
  const find = (key: string) => (key ? p.rows.findIndex((r) => p.keyOf(r) === key) : -1);

  const remember = (top: number) => {
    const i = Math.floor(top / h);
    const row = p.rows[i];
    anchor.current = row && (top > 0 || p.hold) ? { key: p.keyOf(row), offset: top - i * h } : undefined;
  };
  const onScroll = () => {
    const el = box.current!;
    remember(el.scrollTop);
    p.onScrolled?.(el.scrollTop > 0);
    setView({ top: el.scrollTop, tall: el.clientHeight });
  };

  useLayoutEffect(() => {
    const el = box.current!;
    const a = anchor.current;
    if (a) {
      const i = find(a.key);
      if (i >= 0 && Math.abs(i * h + a.offset - el.scrollTop) > 0.5) el.scrollTop = i * h + a.offset;
    }
    remember(el.scrollTop);
    if (el.scrollTop !== view.top) setView({ top: el.scrollTop, tall: el.clientHeight });
  }, [p.rows, h]);

  useLayoutEffect(() => {
    const el = box.current!;
    const watch = new ResizeObserver(() => setView({ top: el.scrollTop, tall: el.clientHeight }));
    watch.observe(el);
    return () => watch.disconnect();
  }, []);

  const reveal = (i: number) => {
    const el = box.current!;
    const room = el.clientHeight - head;
    if (i * h < el.scrollTop) el.scrollTop = i * h;
    else if ((i + 1) * h > el.scrollTop + room) el.scrollTop = (i + 1) * h - room;
  };
  const activate = (i: number) => {
    const row = p.rows[Math.max(0, Math.min(p.rows.length - 1, i))];
    if (!row) return;
    setActiveKey(p.keyOf(row));
    reveal(p.rows.indexOf(row));
    box.current?.focus({ preventScroll: true }); // so that enter is the row's, not that of the button pressed before
    if (p.selected && p.peek) p.peek(row);
  };

  const current = find(activeKey) >= 0 ? find(activeKey) : find(p.selected);
  const sideways = (by: number): boolean => {
    const row = p.rows[current];
    if (!row) return false;
    if (p.tree && activeCell <= 0) {
      const open = p.tree.expanded(row);
      if (by > 0 && open === false) return p.tree.toggle(row, true), true;
      if (by < 0 && open === true && activeCell < 0) return p.tree.toggle(row, false), true;
      if (by < 0 && activeCell < 0) return toParent(row), true;
    }
    setActiveCell(Math.max(-1, Math.min(p.columns.length - 1, activeCell + by)));
    return true;
  };
  const toParent = (row: T) => {
    const level = p.tree!.level(row);
    for (let i = current - 1; i >= 0; i--) if (p.tree!.level(p.rows[i]!) < level) return activate(i);
  };
  const offer = () => {
    const at = box.current?.querySelector<HTMLElement>('[role=row].active');
    const cellAt = at?.querySelectorAll<HTMLElement>('[role=gridcell]')[Math.max(0, activeCell)];
    (cellAt ?? at)?.querySelector<HTMLElement>('[data-field]')?.click();
  };
  const keys = (e: KeyboardEvent): boolean => {
    if (e.metaKey || e.ctrlKey || e.altKey) return false;
    const page = Math.max(1, Math.floor(view.tall / h) - 2);
    const row = p.rows[current];
    switch (e.key) {
      case 'j': case 'ArrowDown': activate(current + 1); break;
      case 'k': case 'ArrowUp': activate(current < 0 ? 0 : current - 1); break;
      case 'PageDown': activate(current + page); break;
      case 'PageUp': activate(current - page); break;
      case 'Home': activate(0); break;
      case 'End': activate(p.rows.length - 1); break;
      case 'ArrowRight': case 'l': return sideways(1);
      case 'ArrowLeft': case 'h': return sideways(-1);
      case 'Enter': if (!row) return false; p.open(row); break;
      case 'm': case 'ContextMenu': offer(); break;
      default: return false;
    }
    return true;
  };

  const handler = useRef(keys);
  handler.current = keys;
  useEffect(() => {
    const handle = (e: KeyboardEvent) => handler.current(e);
    keyboard.handle = handle;
    return () => { if (keyboard.handle === handle) keyboard.handle = undefined; };
  }, []);
  useEffect(() => { // a link with a selection shows it
    const i = find(p.selected);
    if (i >= 0) reveal(i);
  }, [p.selected, p.rows.length > 0]);

  const click = (e: MouseEvent) => {
    const el = e.target as HTMLElement;
    if (!slim && el.closest('[data-field]')) return; // the menu's
    const key = el.closest<HTMLElement>('[role=row]')?.dataset.key;
    const row = key === undefined ? undefined : p.rows[find(key)];
    if (!row) return;
    setActiveKey(key!);
    setActiveCell(-1);
    if (p.tree && el.closest('.twisty')) {
      const open = p.tree.expanded(row);
      if (open !== undefined) return p.tree.toggle(row, !open);
    }
    p.open(row);
  };

  const grid = p.columns.map((c) => c.width).join(' ');
  const headings = !slim && (
    <div class="tr head" role="row" aria-rowindex={1} style={{ gridTemplateColumns: grid }}>
      {p.columns.map((c) => <Heading key={c.id} column={c as Column<unknown>} sort={p.sort} onSort={p.onSort} />)}
    </div>
  );
  return (
    <div
      ref={box} class={`table ${slim ? 'slim' : ''}`} role={p.tree ? 'treegrid' : 'grid'} tabIndex={0} aria-label={p.label}
      aria-rowcount={p.rows.length + 1} aria-activedescendant={current >= first && current < last ? rowId(current) : undefined}
      onScroll={onScroll} onClick={click}
      onKeyDown={(e) => { if (e.target === box.current && handler.current(e)) { e.preventDefault(); e.stopPropagation(); } }}
    >
      {headings}
      <div class="tall" role="presentation" style={{ height: `${p.rows.length * h}px` }}>
        <div role="presentation" class="window" style={{ transform: `translateY(${first * h}px)` }}>
          {shown.map((row, n) => {
            const key = p.keyOf(row);
            const i = first + n;
            return (
              <Line
                key={key} id={rowId(i)} rowKey={key} index={i + 2} row={row} columns={p.columns as readonly Column<unknown>[]} grid={grid}
                selected={key === p.selected} active={i === current} cell={i === current ? activeCell : -1}
                extra={p.rowClass?.(row) ?? ''} slim={slim ? (p.slim as (r: unknown) => VNode) : undefined}
                level={p.tree?.level(row)} expanded={p.tree?.expanded(row)}
              />
            );
          })}
        </div>
      </div>
    </div>
  );
}

const rowId = (i: number) => `row-${i}`;

function Heading(p: { column: Column<unknown>; sort: string | undefined; onSort: ((s: string) => void) | undefined }) {
  const { column: c, sort, onSort } = p;
  const down = sort === `-${c.id}`;
  const up = sort === c.id;
  const order = down ? 'descending' : up ? 'ascending' : undefined;
  const label = <>{c.label}<span class="arrow" aria-hidden="true">{down ? '↓' : up ? '↑' : ''}</span></>;
  return (
    <div role="columnheader" class={c.right ? 'right' : ''} aria-sort={order} title={c.title}>
      {c.sort && onSort
        ? <button type="button" class="plain" onClick={() => onSort(down ? c.id : `-${c.id}`)}>{label}</button>
        : c.head?.() ?? <span>{c.label}</span>}
    </div>
  );
}

interface LineProps {
  id: string; rowKey: string; index: number; row: unknown; columns: readonly Column<unknown>[]; grid: string;
  selected: boolean; active: boolean; cell: number; extra: string; slim: ((r: unknown) => VNode) | undefined;
  level: number | undefined; expanded: boolean | undefined;
}

class Line extends Component<LineProps> {
  override shouldComponentUpdate(next: LineProps): boolean {
    const now = this.props;
    return (Object.keys(next) as (keyof LineProps)[]).some((k) => next[k] !== now[k]);
  }
  render(p: LineProps) {
    const cls = `tr ${p.selected ? 'selected' : ''} ${p.active ? 'active' : ''} ${p.extra}`;
    const common = {
      id: p.id, class: cls, role: 'row' as const, 'aria-rowindex': p.index, 'aria-selected': p.selected, 'data-key': p.rowKey,
      'aria-level': p.level === undefined ? undefined : p.level + 1, 'aria-expanded': p.expanded,
    };
    if (p.slim) return <div {...common}><div role="gridcell" class="one">{p.slim(p.row)}</div></div>;
    return (
      <div {...common} style={{ gridTemplateColumns: p.grid }}>
        {p.columns.map((c, i) => (
          <div key={c.id} role="gridcell" class={`${c.right ? 'right' : ''} ${i === p.cell ? 'at' : ''}`}>{c.cell(p.row)}</div>
        ))}
      </div>
    );
  }
}

/** Sorts by a column; rows without a value come last either way. */
export function sorted<T>(rows: readonly T[], columns: readonly Column<T>[], sort: string): readonly T[] {
  const down = sort.startsWith('-');
  const by = columns.find((c) => c.id === sort.replace(/^-/, ''))?.sort;
  if (!by) return rows;
  const keyed = rows.map((row) => ({ row, key: by(row) }));
  keyed.sort((a, b) => {
    if (a.key === b.key) return 0;
    if (a.key === undefined || a.key === '') return 1;
    if (b.key === undefined || b.key === '') return -1;
    return (a.key < b.key ? -1 : 1) * (down ? -1 : 1);
  });
  return keyed.map((k) => k.row);
}

/** Cells as CSV. */
export function csv(header: readonly string[], rows: readonly (readonly unknown[])[]): string {
  const field = (v: unknown) => {
    const t = v === undefined || v === null ? '' : typeof v === 'object' ? JSON.stringify(v) : String(v);
    return /[",\n]/.test(t) ? `"${t.replaceAll('"', '""')}"` : t;
  };
  return [header, ...rows].map((r) => r.map(field).join(',')).join('\n') + '\n';
}
