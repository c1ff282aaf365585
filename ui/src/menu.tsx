// The menu of a value: only this, not this, go to.
import { signal } from '@preact/signals';
import { useLayoutEffect, useRef } from 'preact/hooks';
import { has, not, only, add, quote } from './filter';
import { copy, moveFocus } from './parts';
import { filter, go, href, page, pageTitles, setFilter, type Page } from './route';
import { around } from './timebar';

interface Asked { field: string; value: string; x: number; y: number; from: HTMLElement }

const asked = signal<Asked | undefined>(undefined);

/** Opens the menu for the value that was clicked, wherever it stands. */
export function onValueClick(e: MouseEvent): void {
  const el = (e.target as Element).closest<HTMLElement>('[data-field]');
  if (!el || el.closest('.slim')) return;
  e.preventDefault();
  const box = el.getBoundingClientRect();
  asked.value = { field: el.dataset.field!, value: el.dataset.value ?? '', x: box.left, y: box.bottom, from: el };
}

interface Item { label: string; detail?: string; act: () => void }

const numeric = /^(bytes|packets|size)\.|_ns$|retransmits|drop\.count|listen_drops/;
const widened = ['route', 'method', 'status', 'protocol', 'service', 'address', 'port', 'pid', 'command', 'container', 'peer'];

function filterItems({ field, value }: Asked): Item[] {
  const f = filter.value;
  if (numeric.test(field)) {
    return ['>=', '<='].map((op) => ({ label: op === '>=' ? 'At least this' : 'At most this', detail: `${field}${op}${value}`, act: () => setFilter(add(f, `${field}${op}${value}`)) }));
  }
  const term = `${field}:${quote(value)}`;
  const items: Item[] = [
    { label: 'Only this', detail: term, act: () => setFilter(only(f, field, value)) },
    { label: 'Not this', detail: `-${term}`, act: () => setFilter(not(f, field, value)) },
  ];
  if (has(f, field) && widened.includes(field)) items.push({ label: 'This too', detail: term, act: () => setFilter(add(f, term)) });
  return items;
}

const goTo: Record<string, Page[]> = {
  service: ['requests', 'services', 'map', 'flows', 'processes'], command: ['requests', 'flows', 'processes'], container: ['requests', 'flows', 'processes'],
  address: ['requests', 'map', 'flows'], port: ['requests', 'flows', 'map'], pid: ['requests', 'flows', 'processes'], 'process.exec_id': ['flows', 'processes'],
  route: ['requests', 'services', 'traces'], method: ['requests'], status: ['requests', 'traces'], protocol: ['requests', 'services'],
  'flow.id': ['flows', 'requests'], error: ['requests', 'traces'],
};

function itemsOf(a: Asked): Item[] {
  if (a.field === 'time') {
    const r = around(Number(a.value));
    return [
      { label: 'Half a minute around this', act: () => go(href(page.value ?? 'flows', r)) },
      { label: 'Requests around this', act: () => go(href('requests', r)) },
      { label: 'Flows around this', act: () => go(href('flows', r)) },
      { label: 'Processes at this moment', act: () => go(href('processes', { at: new Date(Number(a.value)).toISOString(), ...r })) },
    ];
  }
  const goes = (goTo[a.field] ?? []).filter((p) => p !== page.value).map((p) => ({
    label: `Go to ${pageTitles[p]}`, detail: `${a.field}:${a.value}`, act: () => go(href(p, { filter: `${a.field}:${quote(a.value)}` })),
  }));
  return [...filterItems(a), ...goes];
}

export function ValueMenu() {
  const a = asked.value;
  const box = useRef<HTMLDivElement>(null);
  const close = (back: boolean) => {
    asked.value = undefined;
    if (back && a) (a.from.matches('button') ? a.from : a.from.closest<HTMLElement>('[role=grid], [role=treegrid]'))?.focus();
  };
  useLayoutEffect(() => {
    if (!a) return;
    const el = box.current!;
    const { width, height } = el.getBoundingClientRect();
    el.style.left = `${Math.max(8, Math.min(a.x, innerWidth - width - 8))}px`;
    el.style.top = `${a.y + height + 8 > innerHeight ? Math.max(8, a.y - height - 28) : a.y + 4}px`;
    el.querySelector('button')?.focus();
    const outside = (e: Event) => { if (!el.contains(e.target as Node)) close(false); };
    document.addEventListener('pointerdown', outside);
    document.addEventListener('wheel', outside, { passive: true });
    return () => {
      document.removeEventListener('pointerdown', outside);
      document.removeEventListener('wheel', outside);
    };
  }, [a]);
  if (!a) return null;
  const keys = (e: KeyboardEvent) => {
    e.stopPropagation();
    if (e.key === 'Escape' || e.key === 'Tab') { e.preventDefault(); close(true); }
    if (e.key === 'ArrowDown' || e.key === 'ArrowUp') moveFocus(e, box.current);
  };
  const items: Item[] = [...itemsOf(a), { label: 'Copy', detail: a.value.length > 40 ? '' : a.value, act: () => void copy(a.value, 'the value') }];
  return (
    <div ref={box} class="menu" role="menu" aria-label={`${a.field} ${a.value}`} onKeyDown={keys}>
      {items.map((i) => (
        <button key={i.label} type="button" role="menuitem" onClick={() => { close(true); i.act(); }}>
          {i.label}<span class="dim">{i.detail}</span>
        </button>
      ))}
    </div>
  );
}
