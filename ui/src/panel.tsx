// The detail panel: beside the page at 1280 px, the page itself at 390 px.
import type { ComponentChildren } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { columnsOf, narrow } from './agent';
import { clock, count, duration, exactBytes, exactDuration, bytes, grouped, moment } from './format';
import { copy, Value } from './parts';
import { cell, type Row } from './row';
import { set } from './route';
import { parseTime } from './format';

export function Panel(props: { title: ComponentChildren; name: string; children: ComponentChildren }) {
  const box = useRef<HTMLElement>(null);
  useEffect(() => {
    if (narrow.value) box.current?.focus();
  }, []);
  return (
    <aside ref={box} class="panel" aria-label={props.name} tabIndex={-1}>
      <header>
        <h2>{props.title}</h2>
        <button type="button" class="plain" title="copy a link to this" onClick={() => void copy(location.href, 'a link to this')}>link</button>
        <button type="button" class="plain x" aria-label={narrow.value ? undefined : 'close the panel'} title="close (esc)" onClick={() => set({ select: '' })}>{narrow.value ? '‹ back' : '×'}</button>
      </header>
      <div class="body" tabIndex={0} role="region" aria-label={`${props.name}: details`}>{props.children}</div>
    </aside>
  );
}

/** A cell by the type its column has: text, exact text, and whether it is a number. */
export function shownCell(name: string, type: string, v: unknown): { text: string; exact: string } {
  if (typeof v === 'number') {
    if (/(^|\.)bytes\./.test(name)) return { text: bytes(v), exact: exactBytes(v) };
    if (type.toLowerCase() === 'duration' || /_ns$/.test(name) && name !== 'process.start_ns') return { text: duration(v), exact: exactDuration(v) };
    if (/(packets\.|retransmits|count|drops)/.test(name)) return { text: count(v), exact: grouped(v) };
    return { text: String(v), exact: '' };
  }
  if (type.toLowerCase() === 'time' && typeof v === 'string') return { text: `${moment(parseTime(v))}.${clock(parseTime(v)).slice(-3)}`, exact: v };
  if (Array.isArray(v)) return { text: v.join(' '), exact: '' };
  if (typeof v === 'object' && v !== null) return { text: JSON.stringify(v), exact: '' };
  return { text: String(v), exact: '' };
}

/** Every field of a row, each one a value that can narrow the page. */
export function AllFields(props: { table: string; row: Row }) {
  const rows = columnsOf(props.table).flatMap((c) => {
    const v = cell(props.row, c.name);
    return v === undefined || v === null ? [] : [{ c, v }];
  });
  return (
    <details class="all">
      <summary>All fields</summary>
      <dl>
        {rows.map(({ c, v }) => {
          const { text, exact } = shownCell(c.name, c.type, v);
          const isTime = c.type.toLowerCase() === 'time';
          return (
            <div key={c.name}>
              <dt title={c.doc}>{c.name}</dt>
              <dd>{typeof v === 'object' ? <span class="wrap">{text}</span> : <Value field={isTime ? 'time' : c.name} value={isTime ? parseTime(String(v)) : String(v)} title={exact}>{text}</Value>}</dd>
            </div>
          );
        })}
      </dl>
      <button type="button" onClick={() => void copy(JSON.stringify(props.row, null, 2), 'the row as JSON')}>Copy as JSON</button>
    </details>
  );
}
