// A feed is a table of rows that grows while someone looks: the newest page,
// then what comes live, then older pages when asked for.
import { signal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';
import { ApiError, follow, get, type Stream } from './api';
import { bounds, type Range } from './range';
import type { Row } from './row';

export interface Item { key: string; at: number; row: Row }

/** What is asked for. No until: live. */
export interface Question extends Range { filter: string }

interface Answer { matched: number; complete: boolean; lost: number }

const firstPage = 1000;
const nextPage = 2000;
export const most = 10_000; // rows kept; twice that while the reader is scrolled down
const beat = 200; // ms between two redraws of a busy stream

const whole: Answer = { matched: 0, complete: true, lost: 0 };
const failure = (err: unknown) => (err instanceof ApiError ? err : new ApiError(String(err), '', 0));
const keyOf = (q: Question) => `${q.filter}|${q.since}|${q.until}`;
const near = 2000; // ms between a pause and what was asked for before it

/** Whether q is what a pause makes of a live question, and not another range. */
function pauses(was: Question, q: Question): boolean {
  const [[from], [since, until]] = [bounds(was), bounds(q)];
  return was.filter === q.filter && Math.abs(from - since) < near && Math.abs(Date.now() - until) < near;
}

/** What it holds outlives a visit to another page, so that coming back shows it at once. */
export class Feed<T extends Item> {
  readonly items = signal<readonly T[]>([]);
  readonly about = signal<Answer>(whole);
  readonly state = signal<'loading' | 'ready'>('loading');
  readonly error = signal<ApiError | undefined>(undefined);
  scrolled = false; // the reader is, who would miss what is let go of

  private readonly known = new Set<string>(); // the keys of items
  private heldFor = '';

  constructor(private readonly path: string, private readonly event: string, private readonly toItem: (row: Row) => T, private readonly question: () => Question) {}

  private rows = (a: object): Row[] => (a as Record<string, Row[] | null>)[this.path] ?? [];

  private put(all: readonly T[]): void {
    this.known.clear();
    for (const f of all) this.known.add(f.key);
    this.items.value = all;
  }

  /** Takes in what is not there yet, and returns how many that were. */
  private merge(fresh: readonly Row[]): number {
    const added = fresh.map(this.toItem).filter((f) => !this.known.has(f.key) && this.known.add(f.key));
    if (!added.length) return 0;
    const all = [...added, ...this.items.value].sort((a, b) => b.at - a.at);
    for (const f of all.splice(this.scrolled ? 2 * most : most)) this.known.delete(f.key);
    this.items.value = all;
    return added.length;
  }

  private async load(stop: AbortSignal): Promise<void> {
    const q = this.question();
    try {
      const a = await get<Answer>(this.path, { ...q, last: String(firstPage) }, stop);
      this.put(this.rows(a).map(this.toItem).sort((x, y) => y.at - x.at));
      this.about.value = { matched: a.matched, complete: a.complete, lost: a.lost };
      this.error.value = undefined;
      this.heldFor = keyOf(q);
    } catch (err) {
      if (stop.aborted) return;
      this.error.value = failure(err);
      if (this.heldFor !== keyOf(q)) {
        this.put([]);
        this.about.value = whole;
      }
    }
    this.state.value = 'ready';
  }

  async loadOlder(): Promise<void> {
    const oldest = this.items.value[this.items.value.length - 1];
    if (!oldest) return;
    const { filter, since } = this.question();
    try {
      const a = await get<Answer>(this.path, { filter, since, until: new Date(oldest.at + 1).toISOString(), last: String(nextPage) });
      const before = this.items.value.length;
      this.scrolled = true;
      this.merge(this.rows(a));
      if (this.items.value.length === before) this.about.value = { ...this.about.value, matched: before };
    } catch (err) {
      this.error.value = failure(err);
    }
  }

  private follow(): Stream {
    let waiting: Row[] = [];
    let timer = 0;
    const flush = () => {
      timer = 0;
      const batch = waiting;
      waiting = [];
      const added = this.merge(batch);
      this.about.value = { ...this.about.value, matched: this.about.value.matched + added };
    };
    const stop = new AbortController();
    const catchUp = async () => { // what went by between the last answer and the stream
      const newest = this.items.value[0];
      const { filter, since } = this.question();
      try {
        const a = await get<Answer>(this.path, { filter, since: newest ? new Date(newest.at).toISOString() : since, last: String(nextPage) }, stop.signal);
        waiting.push(...this.rows(a));
        flush();
      } catch {
        // The stream tells of a lost connection.
      }
    };
    const stream = follow(this.path, this.path, () => ({ filter: this.question().filter }), (event, data) => {
      if (event === this.event) {
        waiting.push(data as Row);
        timer ||= window.setTimeout(flush, beat);
      } else if (event === 'lost') {
        const n = (data as { count: number }).count;
        this.about.value = { ...this.about.value, lost: this.about.value.lost + n, complete: false };
      }
    }, () => void catchUp());
    return { close: () => { stop.abort(); clearTimeout(timer); if (waiting.length) flush(); stream.close(); } };
  }

  /** Keeps the feed going for as long as a page shows it. */
  use(retry: number): void {
    const q = this.question();
    const wasLive = useRef<Question | undefined>(undefined);
    useEffect(() => {
      const stop = new AbortController();
      let stream: Stream | undefined;
      const live = q.until === '';
      const begin = async () => {
        // A pause writes the range of what is on screen into the URL: nothing is asked again.
        const was = wasLive.current;
        if (!live && was && this.heldFor !== '' && pauses(was, q)) this.heldFor = keyOf(q);
        if (this.heldFor !== keyOf(q) || retry > 0) {
          if (!this.heldFor.startsWith(`${q.filter}|`)) { this.put([]); this.state.value = 'loading'; }
          await this.load(stop.signal);
        }
        wasLive.current = live ? q : undefined;
        if (live && !stop.signal.aborted && !this.error.value) stream = this.follow();
      };
      void begin();
      return () => { stop.abort(); stream?.close(); };
    }, [q.filter, q.since, q.until, retry]);
  }
}
