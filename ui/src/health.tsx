// Health: what the agent can and cannot do here, what it costs, what it lost.
import type { ComponentChildren } from 'preact';
import { doctor as known, history, narrow, status } from './agent';
import { get, useAnswer } from './api';
import { bytes, count, duration, exactBytes, grouped, moment, parseTime, percent, plural } from './format';
import { copy, Empty, Problem, Sign, Spark, type Mark } from './parts';
import { useEffect } from 'preact/hooks';
import type { Doctor, Hook, Status } from './types';

export function Health() {
  const answer = useAnswer<Doctor>('doctor', (stop) => get('doctor', {}, stop), 30_000);
  const d = answer.data ?? known.value;
  const s = status.value;
  useEffect(() => { if (answer.data) known.value = answer.data; }, [answer.data]);
  if (!s && !d && !answer.error) return <Empty title="Asking the agent…" />;
  return (
    <section class="content healthpage" aria-label="Health" tabIndex={0}>
      {answer.error && <Problem error={answer.error} retry={answer.retry} stale={d !== undefined} />}
      {s && d && <Summary s={s} d={d} />}
      {s && <Figures s={s} />}
      {d && <Sensors d={d} s={s} />}
      <div class="two">
        {s && <Programs s={s} />}
        <div>
          {s && <Losses s={s} />}
          {s && <Store s={s} />}
        </div>
      </div>
      {d && <Kernel d={d} />}
    </section>
  );
}

function Card(props: { title: string; children: ComponentChildren; aside?: ComponentChildren }) {
  return <section class="card" aria-label={props.title}><h2>{props.title}<span class="dim">{props.aside}</span></h2>{props.children}</section>;
}

/** The answer to "is something wrong?" in a sentence. */
function verdict(s: Status, d: Doctor): { mark: Mark; text: string; more: string[] } {
  const broken = (s.sensors ?? []).filter((x) => x.state === 'failed');
  const more: string[] = [];
  if (s.features_off > 0) more.push(`${plural(s.features_off, 'feature')} off on this kernel`);
  if (s.lost.total > 0) more.push(`${plural(s.lost.total, 'record')} lost since the start`);
  if (s.store.error) return { mark: 'error', text: `The store cannot write: ${s.store.error}`, more };
  if (!d.ok) return { mark: 'error', text: 'No sensor can run here.', more };
  if (broken.length) return { mark: 'error', text: `${broken.map((x) => x.name).join(', ')} failed; the rest runs.`, more };
  if (s.budget.state === 'shedding') return { mark: 'warn', text: `Over its budget: ${(s.budget.shed ?? []).join(', ')} let go until it fits again.`, more };
  if (s.lost.total > 0) return { mark: 'warn', text: 'Every sensor runs, but records were lost.', more };
  return { mark: 'ok', text: 'Every sensor runs, and nothing was lost.', more };
}

function Summary(props: { s: Status; d: Doctor }) {
  const { mark, text, more } = verdict(props.s, props.d);
  return (
    <header class="summary">
      <p class={mark === 'error' ? 'bad' : ''}><Sign mark={mark} />{text}</p>
      <p class="dim">{[...more, `ghostlight ${props.s.version} on ${props.s.host.name}, up ${duration(props.s.uptime_ns)}`].join(' · ')}</p>
      <button type="button" class="plain link" onClick={() => void copy(JSON.stringify({ status: props.s, doctor: props.d }, null, 2), 'status and doctor as JSON')}>copy all as JSON</button>
    </header>
  );
}

function Figures(props: { s: Status }) {
  const { s } = props;
  const h = history.value;
  const b = s.budget;
  const losses = h.map((p, i) => (i ? Math.max(0, p.lost - h[i - 1]!.lost) : 0));
  return (
    <div class="tiles">
      <Tile name="Events" value={`${count(s.events.per_second)} /s`} title={`${grouped(s.events.total)} since the start`} values={h.map((p) => p.events)} />
      <Tile name="CPU with programs" value={percent(b.cpu_percent)} title="of one core; the agent and its programs in the kernel" values={h.map((p) => p.cpu)} limit={b.cpu_limit_percent ? { used: b.cpu_percent / b.cpu_limit_percent, text: `of ${percent(b.cpu_limit_percent)} allowed` } : undefined} />
      <Tile name="Memory" value={bytes(b.memory_bytes)} title={exactBytes(b.memory_bytes)} values={h.map((p) => p.rss)} limit={b.memory_limit_bytes ? { used: b.memory_bytes / b.memory_limit_bytes, text: `of ${bytes(b.memory_limit_bytes)} allowed` } : undefined} />
      <Tile name="Lost" value={count(s.lost.total)} title={grouped(s.lost.total)} bad={s.lost.total > 0} values={losses} />
    </div>
  );
}

function Tile(props: { name: string; value: string; title: string; values: readonly number[]; bad?: boolean; limit?: { used: number; text: string } | undefined }) {
  const { limit } = props;
  return (
    <div class="tile" title={props.title}>
      <p class="dim">{props.name}</p>
      <p class={`figure ${props.bad ? 'bad' : ''}`}>{props.bad && <Sign mark="warn" />}{props.value}</p>
      {limit
        ? <><meter aria-label={`${props.name} ${limit.text}`} min={0} max={1} high={0.9} value={Math.min(1, limit.used)} /><p class="dim small">{limit.text}</p></>
        : <Spark values={props.values} label={`${props.name}, the last ${plural(props.values.length, 'answer')}`} />}
    </div>
  );
}

const stateMark: Record<string, Mark> = { running: 'ok', shed: 'warn', failed: 'error', off: 'off' };

function SlimSensors(props: { d: Doctor; s: Status | undefined }) {
  return (
    <Card title="Sensors" aside="which hook each one took, and why not another">
      {(props.d.sensors ?? []).map((x) => {
        const now = props.s?.sensors?.find((y) => y.name === x.name);
        const state = now?.state ?? (x.ok ? 'running' : 'failed');
        return (
          <section key={x.name} class="slimsensor">
            <h3>{x.name} <Sign mark={stateMark[state] ?? 'off'} /> {state}{now && <span class="dim">{count(now.events)} events, {count(now.lost)} lost</span>}</h3>
            {(x.error || now?.error) && <p class="bad">{x.error || now?.error}</p>}
            {(x.hooks ?? []).map((h) => <div key={h.what}><p>{h.what}{!h.tier && h.without && <span class="dim">; missing without it: {h.without}</span>}</p><Way hook={h} /></div>)}
          </section>
        );
      })}
    </Card>
  );
}

function Sensors(props: { d: Doctor; s: Status | undefined }) {
  const { d, s } = props;
  if (narrow.value) return <SlimSensors d={d} s={s} />;
  return (
    <Card title="Sensors" aside="which hook each one took, and why not another">
      <div class="scroll" tabIndex={0}><table class="figures sensors">
        <thead><tr><th scope="col">Sensor</th><th scope="col">State</th><th scope="col" class="right">Events</th><th scope="col" class="right">Lost</th><th scope="col">Sees</th><th scope="col">By</th></tr></thead>
        {(d.sensors ?? []).map((x) => {
          const live = s?.sensors?.find((y) => y.name === x.name);
          const state = live?.state ?? (x.ok ? 'running' : 'failed');
          const hooks = x.hooks ?? [];
          const error = x.error || live?.error;
          return (
            <tbody key={x.name}>
              {(hooks.length ? hooks : [undefined]).map((h, i) => (
                <tr key={i} class={i ? 'follows' : ''}>
                  {i === 0 && (
                    <>
                      <th scope="rowgroup" rowSpan={Math.max(1, hooks.length)} title={x.doc}>{x.name}</th>
                      <td rowSpan={Math.max(1, hooks.length)}><Sign mark={stateMark[state] ?? 'off'} /> {state}{error && <p class="bad wraps">{error}</p>}</td>
                      <td rowSpan={Math.max(1, hooks.length)} class="right" title={live && grouped(live.events)}>{live ? count(live.events) : ''}</td>
                      <td rowSpan={Math.max(1, hooks.length)} class={`right ${live?.lost ? 'bad' : 'dim'}`}>{live ? count(live.lost) : ''}</td>
                    </>
                  )}
                  {h ? <HookCells hook={h} /> : <td colSpan={2} class="dim">no hook</td>}
                </tr>
              ))}
            </tbody>
          );
        })}
      </table></div>
    </Card>
  );
}

function HookCells(props: { hook: Hook }) {
  const { hook: h } = props;
  return (
    <>
      <td class="wraps">{h.what}{!h.tier && h.without && <p class="dim">missing without it: {h.without}</p>}</td>
      <td class="wraps"><Way hook={h} /></td>
    </>
  );
}

/** The tier that was taken, and why not the others. */
function Way(props: { hook: Hook }) {
  const { hook: h } = props;
  const passed = (h.tiers ?? []).filter((t) => !t.taken);
  return (
    <details open={!h.tier}>
      <summary>{h.tier ? <><Sign mark="ok" /> {h.tier}</> : <><Sign mark="off" /> off: no way works here</>}</summary>
      {passed.map((t) => <p key={t.name} class="dim">{t.name}: {t.reason || 'not taken'}</p>)}
      {!passed.length && <p class="dim">the only way</p>}
    </details>
  );
}

function Programs(props: { s: Status }) {
  const programs = [...(props.s.programs ?? [])].sort((a, b) => b.cpu_percent - a.cpu_percent);
  const top = Math.max(0, ...programs.map((p) => p.cpu_percent));
  const total = programs.reduce((n, p) => n + p.cpu_percent, 0);
  return (
    <Card title="Cost per program" aside={programs.length ? `${percent(total)} of a core in all` : ''}>
      {programs.length === 0 ? <p class="dim">The kernel has measured nothing yet: the agent samples the cost of its programs in short windows.</p> : (
        <div class="scroll" tabIndex={0}><table class="figures">
          <thead><tr><th scope="col">Program</th><th scope="col" class="right">Runs</th><th scope="col" class="right">Each</th><th scope="col" class="right">CPU</th><th scope="col" class="barcol"><span class="hiddentext">share</span></th></tr></thead>
          <tbody>
            {programs.map((p) => (
              <tr key={p.sensor + p.name}>
                <td>{p.name} <span class="dim">{p.sensor}</span></td>
                <td class="right" title={grouped(p.runs)}>{count(p.runs)}</td>
                <td class="right" title={`${grouped(p.ns_per_run)} ns`}>{duration(p.ns_per_run)}</td>
                <td class="right">{percent(p.cpu_percent)}</td>
                <td class="barcol"><svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"><rect width={top ? (p.cpu_percent / top) * 100 : 0} height="8" /></svg></td>
              </tr>
            ))}
          </tbody>
        </table></div>
      )}
    </Card>
  );
}

const stages: Record<string, string> = {
  ring: 'the ring between kernel and agent was full', map: 'a map in the kernel was full', decode: 'a record could not be read',
  store: 'the store could not take it', cursor: 'a reader was too slow and was overtaken',
};

function Losses(props: { s: Status }) {
  const by = props.s.lost.by_stage ?? [];
  return (
    <Card title="Losses" aside={plural(props.s.lost.total, 'record')}>
      {by.length === 0 ? <p class="dim">Nothing was lost since {moment(parseTime(props.s.started))}.</p> : (
        <table class="figures">
          <thead><tr><th scope="col">Where</th><th scope="col">Sensor</th><th scope="col" class="right">Records</th></tr></thead>
          <tbody>{by.map((l) => <tr key={l.stage + l.sensor}><td class="wraps">{l.stage}<p class="dim">{stages[l.stage]}</p></td><td>{l.sensor ?? 'all'}</td><td class="right bad" title={grouped(l.count)}>{count(l.count)}</td></tr>)}</tbody>
        </table>
      )}
    </Card>
  );
}

function Store(props: { s: Status }) {
  const { store } = props.s;
  return (
    <Card title="Store" aside={`${bytes(store.bytes)}, ${plural(store.rows, 'row')}`}>
      {store.error && <p class="bad"><Sign mark="error" /> {store.error}</p>}
      <dl class="facts">
        {store.oldest && <div><dt>oldest</dt><dd>{moment(parseTime(store.oldest))}</dd></div>}
        {store.newest && <div><dt>newest</dt><dd>{moment(parseTime(store.newest))}</dd></div>}
        <div><dt>kept for</dt><dd>{store.retention_ns ? duration(store.retention_ns) : 'ever'}{store.retention_bytes ? `, at most ${bytes(store.retention_bytes)}` : ''}</dd></div>
        <div><dt>bytes per row</dt><dd>{store.rows ? (store.bytes / store.rows).toFixed(1) : '–'}</dd></div>
      </dl>
    </Card>
  );
}

function Kernel(props: { d: Doctor }) {
  const { d } = props;
  const missing = d.user.missing ?? [];
  return (
    <Card title="Kernel" aside={`${d.kernel} ${d.arch}, lockdown ${d.lockdown}`}>
      <div class="scroll" tabIndex={0}><table class="figures">
        <thead><tr><th scope="col">Feature</th><th scope="col">Here</th><th scope="col">Since</th><th scope="col">Used for, or lost without it</th></tr></thead>
        <tbody>
          {(d.probes ?? []).map((p) => (
            <tr key={p.name}>
              <td>{p.name}</td>
              <td><Sign mark={p.ok ? 'ok' : 'off'} /> {p.ok ? 'yes' : 'no'}</td>
              <td class="dim">{p.since}</td>
              <td class="wraps">{p.loss}{!p.ok && p.reason && <p class="dim">{p.reason}</p>}</td>
            </tr>
          ))}
        </tbody>
      </table></div>
      <p>Runs as uid {d.user.uid}{missing.length ? `; without ${missing.join(', ')}` : '; no capability is missing'}.</p>
      {(d.notes ?? []).map((n) => <p key={n} class="dim">{n}</p>)}
    </Card>
  );
}
