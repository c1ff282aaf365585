// The keys, and the box that shows them.
import { useLayoutEffect, useRef } from 'preact/hooks';
import { nextTheme } from './agent';
import { focusFilter } from './filterbar';
import { go, href, param, set, type Page } from './route';
import { helpOpen } from './statusline';
import { keyboard } from './table';
import { timeOpen, toggleLive } from './timebar';

const pageKeys: Record<string, Page> = {
  o: 'overview', m: 'map', s: 'services', r: 'requests', t: 'traces', f: 'flows', p: 'processes', h: 'health',
};

const shown: [string, string][] = [
  ['/', 'filter'], ['t', 'time range'], ['p', 'pause, or go live'],
  ['j k  ↓ ↑', 'next, previous'], ['h l  ← →', 'fold, unfold; step through the cells'],
  ['enter', 'open; on the map also focus'], ['m', 'what can be done with a value'], ['esc', 'close, one thing at a time'],
  ['[ ]', 'processes: one event back, on'], ['⇧ ← → ↑ ↓', 'requests: mark a box in the heatmap, enter takes it'], ['+ - 0', 'map: nearer, further, all'],
  ['g  o m s r', 'g, then: overview, map, services, requests'], ['g  t f p h', 'g, then: traces, flows, processes, health'], ['d', 'dark, light, as the system'], ['?', 'this'],
];

/** Pages add their own keys and what esc closes. */
export const pageKey: { handle: ((e: KeyboardEvent) => boolean) | undefined } = { handle: undefined };

let going = -Infinity; // when g was pressed

function typing(e: KeyboardEvent): boolean {
  const el = e.target as HTMLElement;
  return el.matches('input:not([type=range]):not([type=checkbox]), textarea, select');
}

function single(e: KeyboardEvent): boolean {
  if (performance.now() - going < 1200) {
    going = -Infinity;
    const to = pageKeys[e.key];
    if (to) return go(href(to)), true;
  }
  switch (e.key) {
    case '/': focusFilter(); return true;
    case 't': timeOpen.value = true; return true;
    case 'p': toggleLive(); return true;
    case '?': helpOpen.value = true; return true;
    case 'd': nextTheme(); return true;
    case 'g': going = performance.now(); return true;
    case 'Escape':
      if (pageKey.handle?.(e)) return true;
      if (!param('select')) return false;
      set({ select: '' });
      return true;
  }
  if (pageKey.handle?.(e)) return true;
  if (onControl(e)) return false;
  return keyboard.handle?.(e) ?? false;
}

/** Enter on a button or link is the button's. */
const onControl = (e: KeyboardEvent) =>
  e.key === 'Enter' && (e.target as HTMLElement).matches('button, a, summary, [role=menuitem]');

export function onKey(e: KeyboardEvent): void {
  if (e.defaultPrevented || e.metaKey || e.ctrlKey || e.altKey || typing(e)) return;
  if (document.querySelector('dialog[open]')) return;
  if (single(e)) e.preventDefault();
}

export function Help() {
  const dialog = useRef<HTMLDialogElement>(null);
  const open = helpOpen.value;
  useLayoutEffect(() => {
    if (open) dialog.current?.showModal();
  }, [open]);
  if (!open) return null;
  return (
    <dialog ref={dialog} aria-labelledby="help-title" onClose={() => (helpOpen.value = false)} onClick={(e) => { if (e.target === dialog.current) dialog.current?.close(); }}>
      <div class="inside">
        <h2 id="help-title">Keys</h2>
        <dl class="keys">{shown.map(([k, what]) => <><dt key={k}>{k.split(/\s+/).map((x) => <kbd key={x}>{x}</kbd>)}</dt><dd>{what}</dd></>)}</dl>
        <h2>Filter</h2>
        <p>Blanks separate terms, and all must hold. The same field twice widens.</p>
        <dl class="keys">
          <dt><code>service:nginx</code></dt><dd>either end</dd>
          <dt><code>port:80,443</code></dt><dd>one of several</dd>
          <dt><code>-verdict:forwarded</code></dt><dd>not</dd>
          <dt><code>tcp.rtt_ns&gt;5ms</code></dt><dd>more than</dd>
          <dt><code>status:5xx slower:100ms</code></dt><dd>requests that failed, slowly</dd>
          <dt><code>address:10.0.0.0/8</code></dt><dd>a network</dd>
          <dt><code>curl</code></dt><dd>command, service, container or address</dd>
        </dl>
        <form method="dialog"><button autofocus>Close</button></form>
      </div>
    </dialog>
  );
}
