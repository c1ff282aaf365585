// The small parts every page is made of.
import { signal } from '@preact/signals';
import type { ComponentChildren, JSX } from 'preact';
import { useLayoutEffect, useRef } from 'preact/hooks';
import type { ApiError } from './api';
import { go, href, type Page, type Params } from './route';

export function Link(props: { to: Page; params?: Params; class?: string; current?: boolean; children: ComponentChildren; title?: string }) {
  const url = href(props.to, props.params);
  const click = (e: MouseEvent) => {
    if (e.metaKey || e.ctrlKey || e.shiftKey || e.button !== 0) return;
    e.preventDefault();
    go(url);
  };
  return <a href={url} class={props.class} title={props.title} aria-current={props.current ? 'page' : undefined} onClick={click}>{props.children}</a>;
}

/** A value that offers "only this", "not this" and where to go. The menu opens by the frame's click handler. */
export function Value(props: { field: string; value: string | number; title?: string; class?: string; children?: ComponentChildren }) {
  const { field, value, title, children } = props;
  return (
    <button type="button" class={`value ${props.class ?? ''}`} data-field={field} data-value={String(value)} title={title} aria-haspopup="menu">
      {children ?? value}
    </button>
  );
}

/** The same inside of a table's cell: reached by the table's own keys, so it is no tab stop. */
export function CellValue(props: { field: string; value: string | number; class?: string; children?: ComponentChildren }) {
  return <span class={`value ${props.class ?? ''}`} data-field={props.field} data-value={String(props.value)}>{props.children ?? props.value}</span>;
}

export type Mark = 'ok' | 'open' | 'error' | 'drop' | 'off' | 'warn';

const shapes: Record<Mark, JSX.Element> = {
  ok: <circle cx="8" cy="8" r="4.2" />,
  open: <circle cx="8" cy="8" r="3.7" class="hollow" />,
  error: <path d="M8 2.2 14.4 13.4H1.6z" />,
  warn: <path d="M8 2.2 14.4 13.4H1.6z" class="hollow" />,
  drop: <path d="M3.5 3.5l9 9M12.5 3.5l-9 9" class="stroke" />,
  off: <path d="M3.5 8h9" class="stroke" />,
};

/** A shape with a colour; the word stands beside it. */
export function Sign(props: { mark: Mark }) {
  return <svg class={`sign ${props.mark}`} viewBox="0 0 16 16" aria-hidden="true">{shapes[props.mark]}</svg>;
}

/** A choice that is on or off. */
export function Check(props: { on: boolean; flip: () => void; title: string; children: ComponentChildren }) {
  return <label class="check" title={props.title}><input type="checkbox" checked={props.on} onChange={props.flip} />{props.children}</label>;
}

export function Problem(props: { error: ApiError; retry: () => void; stale?: boolean }) {
  const { error } = props;
  return (
    <div class="problem" role="alert">
      <Sign mark="error" />
      <div>
        <p>{error.message}</p>
        {error.hint && <p class="dim">{error.hint}</p>}
        {props.stale && <p class="dim">What you see below is the last good answer.</p>}
      </div>
      <button type="button" onClick={props.retry}>Try again</button>
    </div>
  );
}

export function Empty(props: { title: string; children?: ComponentChildren }) {
  return <div class="empty"><p class="title">{props.title}</p>{props.children}</div>;
}

/** Says so where an answer has holes. */
export function Incomplete(props: { complete: boolean | undefined; lost?: number | undefined }) {
  if (props.complete !== false && !props.lost) return null;
  const why = props.lost ? `${props.lost} records were lost in this range` : 'a part of this range was not seen or is no longer kept';
  return <span class="incomplete" title={why}><Sign mark="warn" />incomplete: {why}</span>;
}

// ---- one short message at a time ("copied")

export const notice = signal('');
let noticeTimer = 0;

export function say(text: string): void {
  notice.value = text;
  clearTimeout(noticeTimer);
  noticeTimer = window.setTimeout(() => (notice.value = ''), 2200);
}

export async function copy(text: string, what: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement('textarea'); // pages not on https or loopback have no clipboard
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
  }
  say(`copied ${what}`);
}

// ---- popovers

/** A button with a box below it. Esc and a click elsewhere close it and give the focus back. */
export function Popover(props: {
  open: boolean; setOpen: (open: boolean) => void; label: ComponentChildren; name: string; class?: string;
  up?: boolean; title?: string; role?: 'dialog' | 'menu'; children: ComponentChildren; plain?: boolean;
}) {
  const box = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  useLayoutEffect(() => { // before the next key arrives: it is meant for the box
    if (!props.open) return;
    const first = box.current?.querySelector<HTMLElement>(props.role === 'menu' ? 'button' : '[autofocus], input');
    (first ?? box.current)?.focus();
    const outside = (e: PointerEvent) => {
      const t = e.target as Node;
      if (!box.current?.contains(t) && !button.current?.contains(t)) props.setOpen(false);
    };
    document.addEventListener('pointerdown', outside);
    return () => document.removeEventListener('pointerdown', outside);
  }, [props.open]);
  const keys = (e: KeyboardEvent) => {
    if (e.key === 'Escape') {
      e.stopPropagation();
      props.setOpen(false);
      button.current?.focus();
    }
    if (e.key === 'ArrowDown' || e.key === 'ArrowUp') moveFocus(e, box.current);
  };
  return (
    <div class={`popover ${props.class ?? ''}`}>
      <button ref={button} type="button" class={props.plain ? 'plain' : ''} title={props.title} aria-expanded={props.open} aria-haspopup={props.role ?? 'dialog'} onClick={() => props.setOpen(!props.open)}>
        {props.label}
      </button>
      {props.open && <div ref={box} class={`box ${props.up ? 'up' : ''}`} role={props.role ?? 'dialog'} aria-label={props.name} tabIndex={-1} onKeyDown={keys}>{props.children}</div>}
    </div>
  );
}

/** Arrow keys walk through what can be focused in a box. */
export function moveFocus(e: KeyboardEvent, box: HTMLElement | null): void {
  const all = [...(box?.querySelectorAll<HTMLElement>('button, a, input') ?? [])];
  const at = all.indexOf(document.activeElement as HTMLElement);
  if (at < 0 && !all.length) return;
  e.preventDefault();
  all[(at + (e.key === 'ArrowDown' ? 1 : all.length - 1)) % all.length]?.focus();
}

// ---- a line of the recent past

/** A sparkline; its numbers are in the table or text beside it. */
export function Spark(props: { values: readonly number[]; label: string; max?: number }) {
  const { values } = props;
  const top = Math.max(props.max ?? 0, ...values, 1e-9);
  const step = 200 / Math.max(1, values.length - 1);
  const points = values.map((v, i) => `${(i * step).toFixed(1)},${(38 - (v / top) * 34).toFixed(1)}`).join(' ');
  return (
    <svg class="spark" viewBox="0 0 200 40" preserveAspectRatio="none" role="img" aria-label={props.label}>
      <path class="base" d="M0 38.5H200" />
      {values.length > 1 && <polyline points={points} />}
    </svg>
  );
}
