// The HTTP API: one question, polling, and streams of server-sent events that
// say when they are lost and come back by themselves.
import { signal, useSignal } from '@preact/signals';
import { useEffect, useRef } from 'preact/hooks';

export class ApiError extends Error {
  constructor(message: string, readonly hint: string, readonly status: number) {
    super(message);
  }
}

export type Query = Record<string, string | undefined>;

function address(path: string, query: Query): string {
  const q = new URLSearchParams();
  for (const [k, v] of Object.entries(query)) if (v) q.set(k, v);
  const text = q.toString();
  return `/api/v1/${path}${text && '?' + text}`;
}

async function failure(res: Response): Promise<ApiError> {
  try {
    const { error } = (await res.json()) as { error: { message: string; hint?: string } };
    return new ApiError(error.message, error.hint ?? '', res.status);
  } catch {
    return new ApiError(`the agent answered ${res.status} ${res.statusText}`.trim(), '', res.status);
  }
}

const unreachable = () => new ApiError('no answer from the agent', 'Is `ghostlight run` still running on this host?', 0);

async function ask(path: string, query: Query, accept: string, stop?: AbortSignal): Promise<Response> {
  let res: Response;
  try {
    res = await fetch(address(path, query), { headers: { Accept: accept }, signal: stop ?? null, cache: 'no-store' });
  } catch (err) {
    throw stop?.aborted ? err : unreachable();
  }
  if (!res.ok) throw await failure(res);
  return res;
}

export async function get<T>(path: string, query: Query = {}, stop?: AbortSignal): Promise<T> {
  return (await ask(path, query, 'application/json', stop)).json() as Promise<T>;
}

// ---- streams

export type Link = { state: 'connecting' | 'open' } | { state: 'lost'; error: ApiError; since: number; retryAt: number };

/** What the stream of the page and the questions of the status line are doing. */
export const links = signal<Record<string, Link>>({});

const silence = 40_000; // the server pings each 15 s
const quickest = 500;
const slowest = 8_000;

export interface Stream {
  close(): void;
}

function setLink(name: string, link: Link | undefined): void {
  const next = { ...links.value };
  if (link) next[name] = link;
  else delete next[name];
  links.value = next;
}

const retries = new Map<string, () => void>();
export const retryNow = (): void => retries.forEach((retry) => retry());

/**
 * Follows a path. opened is called for each connection, so that its owner can
 * ask for what went by before it. A hidden tab lets go of its connection.
 */
export function follow(name: string, path: string, query: () => Query, on: (event: string, data: unknown) => void, opened: () => void): Stream {
  let closed = false;
  let stop = new AbortController();
  let wait = quickest;
  let lostAt = 0;
  let wake: () => void = () => {};

  const sleep = (ms: number) => new Promise<void>((done) => {
    const t = setTimeout(done, ms);
    wake = () => { clearTimeout(t); done(); };
  });
  const visible = () => new Promise<void>((done) => {
    if (!document.hidden) return done();
    const check = () => {
      if (document.hidden && !closed) return;
      document.removeEventListener('visibilitychange', check);
      done();
    };
    document.addEventListener('visibilitychange', check);
  });
  const onVisibility = () => { if (document.hidden) stop.abort(); };
  document.addEventListener('visibilitychange', onVisibility);
  retries.set(name, () => wake());

  const connect = async () => {
    stop = new AbortController();
    const res = await ask(path, { ...query(), follow: 'true' }, 'text/event-stream', stop.signal);
    setLink(name, { state: 'open' });
    wait = quickest;
    lostAt = 0;
    opened();
    await readEvents(res, stop, on);
    throw new ApiError('the agent closed the connection', '', 0);
  };

  const loop = async () => {
    setLink(name, { state: 'connecting' });
    while (!closed) {
      await visible();
      if (closed) return;
      try {
        await connect();
      } catch (err) {
        if (closed) return;
        if (document.hidden) continue;
        const error = err instanceof ApiError ? err : unreachable();
        lostAt ||= Date.now();
        setLink(name, { state: 'lost', error, since: lostAt, retryAt: Date.now() + wait });
        await sleep(wait);
        wait = Math.min(slowest, wait * 2);
      }
    }
  };
  void loop();
  return {
    close() {
      closed = true;
      document.removeEventListener('visibilitychange', onVisibility);
      retries.delete(name);
      stop.abort();
      wake();
      setLink(name, undefined);
    },
  };
}

/**
 * Asks a path again and again, for as long as the page lives. It holds no
 * connection: a browser has six for a host, shared by all of its windows.
 */
export function poll<T>(name: string, path: string, interval: () => number, on: (data: T) => void): void {
  let lostAt = 0;
  let timer = 0;
  const tick = async () => {
    clearTimeout(timer);
    let wait = interval();
    if (!document.hidden) {
      try {
        on(await get<T>(path));
        if (lostAt) setLink(name, undefined);
        lostAt = 0;
      } catch (err) {
        lostAt ||= Date.now();
        wait = 2000;
        setLink(name, { state: 'lost', error: err instanceof ApiError ? err : unreachable(), since: lostAt, retryAt: Date.now() + wait });
      }
    }
    timer = window.setTimeout(tick, wait);
  };
  retries.set(name, () => void tick());
  document.addEventListener('visibilitychange', () => { if (!document.hidden) void tick(); });
  void tick();
}

async function readEvents(res: Response, stop: AbortController, on: (event: string, data: unknown) => void): Promise<void> {
  const reader = res.body!.pipeThrough(new TextDecoderStream()).getReader();
  let watchdog = setTimeout(() => stop.abort(), silence);
  let rest = '';
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(watchdog);
      watchdog = setTimeout(() => stop.abort(), silence);
      const blocks = (rest + value).split('\n\n');
      rest = blocks.pop()!;
      for (const block of blocks) dispatch(block, on);
    }
  } finally {
    clearTimeout(watchdog);
    reader.cancel().catch(() => {});
  }
}

function dispatch(block: string, on: (event: string, data: unknown) => void): void {
  let event = 'message';
  let data = '';
  for (const line of block.split('\n')) {
    if (line.startsWith('event:')) event = line.slice(6).trim();
    else if (line.startsWith('data:')) data += line.slice(5).trim();
  }
  if (data) on(event, JSON.parse(data));
}

// ---- answers that are asked for again

export interface Answer<T> {
  data: T | undefined;
  error: ApiError | undefined;
  loading: boolean;
  retry(): void;
}

/**
 * Asks whenever key changes, and again every interval while it is above zero.
 * A slow answer is asked for less often: at most a tenth of the time is spent
 * asking. The last good answer stays on screen beside an error.
 */
export function useAnswer<T>(key: string, fetcher: (stop: AbortSignal) => Promise<T>, interval = 0): Answer<T> {
  const data = useSignal<T | undefined>(undefined);
  const error = useSignal<ApiError | undefined>(undefined);
  const loading = useSignal(true);
  const again = useRef<() => void>(() => {});
  const latest = useRef(fetcher);
  latest.current = fetcher;

  useEffect(() => {
    const stop = new AbortController();
    let timer = 0;
    const load = async () => {
      clearTimeout(timer);
      if (document.hidden) {
        timer = window.setTimeout(load, 1000);
        return;
      }
      const began = performance.now();
      try {
        loading.value = true;
        data.value = await latest.current(stop.signal);
        error.value = undefined;
      } catch (err) {
        if (stop.signal.aborted) return;
        error.value = err instanceof ApiError ? err : new ApiError(String(err), '', 0);
      } finally {
        loading.value = false;
      }
      const pause = error.value ? Math.max(interval, 3000) : interval;
      if (pause > 0 && !stop.signal.aborted) timer = window.setTimeout(load, Math.max(pause, 10 * (performance.now() - began)));
    };
    again.current = () => void load();
    void load();
    return () => { stop.abort(); clearTimeout(timer); };
  }, [key, interval]);

  return { data: data.value, error: error.value, loading: loading.value, retry: () => again.current() };
}
