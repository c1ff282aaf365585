// The bottom line: what is lost, what the agent costs, and what is off here.
import { signal } from '@preact/signals';
import { doctor, featuresOff, status } from './agent';
import { links, retryNow } from './api';
import { bytes, clock, count, exactBytes, grouped, percent, plural, rate, significant } from './format';
import { Link, Popover, Sign } from './parts';

const open = signal(false);
export const helpOpen = signal(false);

export function StatusLine() {
  const s = status.value;
  const lost = Object.values(links.value).find((l) => l.state === 'lost');
  return (
    <footer class="statusline" aria-label="Agent">
      {lost?.state === 'lost' && (
        <span class="broken" role="alert">
          <Sign mark="error" />connection lost at {clock(lost.since, false)}: {lost.error.message}; trying again
          <button type="button" class="plain link" onClick={retryNow}>now</button>
        </span>
      )}
      {s ? (
        <>
          <span title={`${grouped(s.events.total)} events since the start`}>{count(s.events.per_second)} ev/s</span>
          <span class={s.lost.total > 0 ? 'bad' : ''} title={lossTitle()}>
            {s.lost.total > 0 && <Sign mark="warn" />}
            <Link to="health" class="quiet">{count(s.lost.total)} lost</Link>
          </span>
          <span class="wide" title={`${significant(s.agent.cpu_percent)} % of one core, programs in the kernel not included; ${exactBytes(s.agent.rss_bytes)} resident`}>
            agent {percent(s.agent.cpu_percent)} CPU, {bytes(s.agent.rss_bytes)}
          </span>
          {s.budget.state === 'shedding' && <span class="bad"><Sign mark="warn" />over budget: {(s.budget.shed ?? []).join(', ')} let go</span>}
          {s.store.error && <span class="bad"><Sign mark="error" />store: {s.store.error}</span>}
          <Kernel />
        </>
      ) : <span class="dim">waiting for the agent</span>}
      <button type="button" class="plain help" aria-label="keys and help" title="keys (?)" onClick={() => (helpOpen.value = true)}>?</button>
    </footer>
  );
}

function lossTitle(): string {
  const by = status.value?.lost.by_stage ?? [];
  return by.map((l) => `${grouped(l.count)} at ${l.stage}${l.sensor ? ` of ${l.sensor}` : ''}`).join('\n') || 'every record arrived';
}

function Kernel() {
  const s = status.value!;
  const off = featuresOff.value;
  const n = s.features_off;
  const release = /^\d+\.\d+/.exec(s.host.kernel)?.[0] ?? s.host.kernel;
  const label = <>kernel {release}<span class="wide">{n > 0 ? ` (${plural(n, 'feature')} off)` : ' (every hook attached)'}</span></>;
  return (
    <Popover up plain open={open.value} setOpen={(o) => (open.value = o)} name="What is off on this kernel" title={s.host.kernel} label={label}>
      <h2>On kernel {s.host.kernel}</h2>
      {!doctor.value && <p class="dim">asking the agent</p>}
      {off.hooks.map(({ sensor, hook }) => (
        <div key={sensor + hook.what} class="off">
          <p><Sign mark="off" /><b>{sensor}: {hook.what}</b></p>
          {hook.without && <p>Without it: {hook.without}</p>}
          {(hook.tiers ?? []).map((t) => t.reason && <p key={t.name} class="dim">{t.name}: {t.reason}</p>)}
        </div>
      ))}
      {off.probes.map((p) => (
        <div key={p.name} class="off">
          <p><Sign mark="off" /><b>{p.name}</b> <span class="dim">since Linux {p.since}</span></p>
          <p>{p.loss}</p>
          {p.reason && <p class="dim">{p.reason}</p>}
        </div>
      ))}
      {doctor.value && !off.hooks.length && !off.probes.length && <p>Nothing is off: every hook took its first choice or an equal one.</p>}
      <p><Link to="health" class="link">All of it on Health</Link></p>
    </Popover>
  );
}

export const perSecond = rate;
