// What every page knows of the agent: its status every other second, what doctor
// found, the names of the fields, and the person's choices that are not in the URL.
import { computed, effect, signal } from '@preact/signals';
import { get, poll } from './api';
import { page } from './route';
import type { Doctor, Field, Fields, Status } from './types';

export const status = signal<Status | undefined>(undefined);
export const doctor = signal<Doctor | undefined>(undefined);
export const fields = signal<Fields | undefined>(undefined);

/** One point for each answer of what the bottom line says, for the small charts. */
export interface Point { time: number; events: number; lost: number; cpu: number; rss: number }
export const history = signal<readonly Point[]>([]);
const kept = 300;

function onStatus(s: Status): void {
  status.value = s;
  const p: Point = { time: Date.now(), events: s.events.per_second, lost: s.lost.total, cpu: s.agent.cpu_percent, rss: s.agent.rss_bytes };
  history.value = [...history.value.slice(1 - kept), p];
}

/** Starts the questions that go on as long as the page lives. */
export function watchAgent(): void {
  poll('status', 'status', () => (page.value === 'health' ? 1000 : 2000), onStatus);
  void load();
}

async function load(): Promise<void> {
  try {
    [fields.value, doctor.value] = await Promise.all([get<Fields>('fields'), get<Doctor>('doctor')]);
  } catch {
    setTimeout(() => void load(), 3000); // the bottom line tells
  }
}

export function columnsOf(table: string): Field[] {
  return fields.value?.tables.find((t) => t.name === table)?.columns ?? [];
}

/** Features the kernel does not give, with what is missed. */
export const featuresOff = computed(() => {
  const d = doctor.value;
  const hooks = (d?.sensors ?? []).flatMap((s) => (s.hooks ?? []).filter((h) => !h.tier).map((h) => ({ sensor: s.name, hook: h })));
  return { probes: (d?.probes ?? []).filter((p) => !p.ok), hooks };
});

// ---- theme

export type Theme = 'system' | 'light' | 'dark';
export const themes: readonly Theme[] = ['system', 'light', 'dark'];

function stored(): Theme {
  try {
    const t = localStorage.getItem('theme') as Theme | null;
    return t && themes.includes(t) ? t : 'system';
  } catch {
    return 'system';
  }
}

export const theme = signal<Theme>(stored());

effect(() => {
  document.documentElement.dataset.theme = theme.value;
  try {
    localStorage.setItem('theme', theme.value);
  } catch {
    // A browser that keeps nothing follows the system the next time.
  }
});

export function nextTheme(): void {
  theme.value = themes[(themes.indexOf(theme.value) + 1) % themes.length]!;
}

// ---- width

const narrowQuery = matchMedia('(max-width: 720px)');
export const narrow = signal(narrowQuery.matches);
narrowQuery.addEventListener('change', (e) => (narrow.value = e.matches));
