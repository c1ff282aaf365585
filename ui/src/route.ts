// The URL is the state: page, filter, range, selection and panel. Whatever a
// person sees can be sent to another as a link.
import { batch, computed, signal } from '@preact/signals';
import { defaultSince, type Range } from './range';

export const pages = ['overview', 'map', 'services', 'requests', 'traces', 'flows', 'processes', 'health'] as const;
export type Page = (typeof pages)[number];
export const pageTitles: Record<Page, string> = {
  overview: 'Overview', map: 'Map', services: 'Services', requests: 'Requests', traces: 'Traces', flows: 'Flows', processes: 'Processes', health: 'Health',
};

export type Params = Record<string, string>;

const home: Page = 'overview';

interface Place {
  page: Page | undefined; // undefined: no such page
  params: Params;
}

const shared = ['filter', 'since', 'until']; // what goes with a person from page to page

function readPlace(): Place {
  const path = location.pathname.replace(/^\/|\/$/g, '') || home;
  const params: Params = {};
  for (const [k, v] of new URLSearchParams(location.search)) params[k] = v;
  return { page: pages.find((p) => p === path), params };
}

export const place = signal<Place>(readPlace());
export const page = computed(() => place.value.page);
export const filter = computed(() => place.value.params.filter ?? '');
export const range = computed<Range>(
  () => ({ since: place.value.params.since || defaultSince, until: place.value.params.until ?? '' }),
);
export const live = computed(() => range.value.until === '');
export const param = (name: string): string => place.value.params[name] ?? '';

function search(params: Params): string {
  const q = new URLSearchParams();
  for (const [k, v] of Object.entries(params)) if (v !== '' && !(k === 'since' && v === defaultSince)) q.set(k, v);
  const text = q.toString().replaceAll('%3A', ':').replaceAll('%2C', ',').replaceAll('%2F', '/');
  return text ? `?${text}` : '';
}

/** The address of a page; filter and range come along unless changed. */
export function href(to: Page, changes: Params = {}): string {
  const params: Params = {};
  for (const k of shared) params[k] = place.value.params[k] ?? '';
  return (to === home ? '/' : `/${to}`) + search({ ...params, ...changes });
}

export function go(url: string): void {
  history.pushState(null, '', url);
  place.value = readPlace();
}

/** Changes parameters of this page; replace keeps the back button for steps that matter. */
export function set(changes: Params, replace = false): void {
  const url = location.pathname + search({ ...place.value.params, ...changes });
  if (url === location.pathname + location.search) return;
  batch(() => {
    if (replace) history.replaceState(null, '', url);
    else history.pushState(null, '', url);
    place.value = readPlace();
  });
}

export const setFilter = (f: string): void => set({ filter: f, select: '' });

addEventListener('popstate', () => (place.value = readPlace()));
