// The time range: presets, words, and live or paused.
import { signal } from '@preact/signals';
import { Popover, say } from './parts';
import { bounds, defaultSince, presets, read, words } from './range';
import { live, range, set } from './route';

export const timeOpen = signal(false);
const text = signal('');
const wrong = signal(false);
let spanBefore = ''; // what live goes back to after a pause

function choose(since: string, until: string): void {
  set({ since, until });
  timeOpen.value = false;
  text.value = '';
}

function submit(e: Event): void {
  e.preventDefault();
  const r = read(text.value);
  wrong.value = !r;
  if (r) choose(r.since, r.until);
}

/** Pausing writes both ends into the URL: the link shows the same rows to another person. */
export function toggleLive(): void {
  if (!live.value) {
    set({ since: spanBefore || defaultSince, until: '' });
    return say('live');
  }
  spanBefore = range.value.since;
  const [from, to] = bounds(range.value);
  set({ since: new Date(from).toISOString(), until: new Date(to).toISOString() });
  say('paused');
}

/** Time words, for a range around a moment. */
export function around(ms: number, spread = 30e3): { since: string; until: string } {
  return { since: new Date(ms - spread).toISOString(), until: new Date(ms + spread).toISOString() };
}

export function TimeBar() {
  const r = range.value;
  return (
    <div class="timebar">
      <Popover open={timeOpen.value} setOpen={(o) => { timeOpen.value = o; wrong.value = false; }} name="Time range" title="time range (t)" label={<>{words(r)}<span class="caret" aria-hidden="true">▾</span></>}>
        <form onSubmit={submit} class="rangeform">
          <input autofocus type="text" aria-label="Time range in words" aria-invalid={wrong.value} placeholder="15m · last 2 hours · 10:00 - 10:30" value={text.value} onInput={(e) => { text.value = e.currentTarget.value; wrong.value = false; }} />
          {wrong.value && <p class="wrong" role="alert">Not understood. Try 15m, last 2 hours, since 10:00, or 10:00 - 10:30.</p>}
        </form>
        <div class="presets">
          {presets.map((s) => <button key={s} type="button" aria-pressed={live.value && r.since === s} onClick={() => choose(s, '')}>{words({ since: s, until: '' })}</button>)}
        </div>
      </Popover>
      <button type="button" class={`live ${live.value ? 'on' : ''}`} aria-pressed={live.value} title={live.value ? 'pause (p)' : 'go live (p)'} onClick={toggleLive}>
        <svg viewBox="0 0 16 16" aria-hidden="true">{live.value ? <circle cx="8" cy="8" r="4" /> : <path d="M4.5 3.5h2.6v9H4.5zM8.9 3.5h2.6v9H8.9z" />}</svg>
        {live.value ? 'live' : 'paused'}
      </button>
    </div>
  );
}
