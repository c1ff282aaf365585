// What charts share: the cursor, and that a brush sets the time range.
import { signal } from '@preact/signals';
import { isoNanos } from './format';
import { set } from './route';
import { say } from './parts';

/** The moment under the pointer, in every chart at once. */
export const cursor = signal<number | undefined>(undefined);

/** Sets the time range of every page. */
export function setRange(since: string, until: string): void {
  set({ since, until, box: '' });
  say('time range set; back undoes it');
}

export const setRangeMs = (from: number, to: number): void => setRange(isoMs(from), isoMs(to));

const isoMs = (ms: number) => isoNanos(BigInt(Math.round(ms * 1000)) * 1000n);
