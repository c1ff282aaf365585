// Traces: the list of them, or the one that the URL names.
import { useEffect, useMemo } from 'preact/hooks';
import { narrow } from './agent';
import { get, useAnswer } from './api';
import { applied, seen } from './filterbar';
import { clock, count, duration, exactDuration, parseTime, plural } from './format';
import { CellValue, Empty, Incomplete, Problem, Sign } from './parts';
import { filter, live, param, range, set } from './route';
import { sorted, Table, type Column } from './table';
import { TracePage } from './trace';
import type { TraceBrief } from './types';

interface Answer { traces: TraceBrief[] | null; complete: boolean }

const most = 500;

export function Traces() {
  const id = param('trace');
  return id ? <TracePage key={id} id={id} /> : <TraceList />;
}

function columnsFor(slowest: number): Column<TraceBrief>[] {
  return [
    { id: 'time', label: 'Time', title: 'when it began', width: '108px', cell: (t) => <CellValue field="time" value={parseTime(t.time)}>{clock(parseTime(t.time))}</CellValue>, sort: (t) => parseTime(t.time) },
    { id: 'status', label: 'Status', width: '86px', cell: (t) => <span class={`verdict ${t.root.error ? 'bad' : ''}`}><Sign mark={t.root.error ? 'error' : t.complete ? 'ok' : 'open'} />{t.root.status || t.root.error || 'ok'}</span>, sort: (t) => t.root.status },
    { id: 'root', label: 'What began it', width: 'minmax(200px, 4fr)', cell: (t) => <span class="operation"><CellValue field="service" value={t.root.service} class="dim" /><span class="name">{t.root.name}</span></span>, sort: (t) => t.root.name },
    { id: 'services', label: 'Through', width: 'minmax(140px, 3fr)', cell: (t) => <span class="dim" title={(t.services ?? []).join('\n')}>{(t.services ?? []).filter((s) => s !== t.root.service).join(', ')}</span>, sort: (t) => (t.services ?? []).length },
    { id: 'spans', label: 'Spans', width: '66px', right: true, cell: (t) => <span title={t.inferred ? 'some of its links were concluded from what threads did' : ''}>{count(t.spans)}</span>, sort: (t) => t.spans },
    { id: 'errors', label: 'Failed', width: '72px', right: true, cell: (t) => (t.errors ? <span class="bad"><Sign mark="error" /> {count(t.errors)}</span> : <span class="dim">0</span>), sort: (t) => t.errors },
    { id: 'bar', label: '', width: 'minmax(80px, 1.4fr)', cell: (t) => <svg class="lengthbar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true"><rect class={t.root.error ? 'bad' : ''} width={Math.max(0.5, (100 * t.duration_ns) / slowest)} height="8" /></svg> },
    { id: 'took', label: 'Took', width: '84px', right: true, cell: (t) => <span title={exactDuration(t.duration_ns)}>{duration(t.duration_ns)}</span>, sort: (t) => t.duration_ns },
  ];
}

function Slim(t: TraceBrief) {
  return (
    <div>
      <p class="line"><Sign mark={t.root.error ? 'error' : 'ok'} /><b>{t.root.service} {t.root.name}</b><span class="grow" /><span>{duration(t.duration_ns)}</span></p>
      <p class="line dim"><span>{clock(parseTime(t.time))}</span><span class={t.root.error ? 'bad' : ''}>{t.root.status}</span><span>{plural(t.spans, 'span')}</span><span>{plural((t.services ?? []).length, 'service')}</span></p>
    </div>
  );
}

const orders = [['newest', 'newest'], ['slowest', 'slowest'], ['errors', 'failed']] as const;

function TraceList() {
  const { since, until } = range.value;
  const asked = applied('requests');
  const order = ['slowest', 'errors'].includes(param('sort')) ? param('sort') : 'newest';
  const column = param('by');
  const answer = useAnswer<Answer>(`${asked}|${since}|${until}|${order}`, (stop) => get('traces', { filter: asked, since, until, sort: order, last: String(most) }, stop), live.value ? 5000 : 0);
  const all = answer.data?.traces ?? [];
  const columns = useMemo(() => columnsFor(Math.max(1, ...all.map((t) => t.duration_ns))), [answer.data]);
  const view = useMemo(() => (column ? sorted(all, columns, column) : all), [answer.data, columns, column]);
  useEffect(() => { seen.values = (field) => (field === 'service' ? new Set(all.flatMap((t) => t.services ?? [])) : []); }, [answer.data]);
  const open = (t: TraceBrief) => set({ trace: t.trace_id, select: '' });
  return (
    <section class="content" aria-label="Traces">
      <div class="toolbar">
        <div class="choice" role="group" aria-label="Which">{orders.map(([o, label]) => <button key={o} type="button" aria-pressed={order === o} onClick={() => set({ sort: o === 'newest' ? '' : o, by: '' }, true)}>{label}</button>)}</div>
        {answer.data && <span>{all.length === most ? `the ${order === 'slowest' ? 'slowest' : 'newest'} ${count(most)}` : plural(all.length, 'trace')}</span>}
        <Incomplete complete={answer.data?.complete} />
      </div>
      {answer.error && <Problem error={answer.error} retry={answer.retry} stale={all.length > 0} />}
      {!answer.data && !answer.error && <Empty title="Asking the agent…" />}
      {answer.data && !all.length && <Nothing failed={order === 'errors'} />}
      {all.length > 0 && <Table label="Traces" rows={view} columns={columns} keyOf={(t) => t.trace_id} selected="" open={open} sort={column} onSort={(s) => set({ by: s }, true)} slim={Slim} hold={narrow.value || order !== 'newest'} rowClass={(t) => (t.root.error ? 'failed' : '')} />}
    </section>
  );
}

function Nothing(props: { failed: boolean }) {
  if (filter.value) return <Empty title="No trace in this range has a request that matches the filter."><p>Widen the time range (<kbd>t</kbd>), or <button type="button" class="plain link" onClick={() => set({ filter: '' })}>clear the filter</button>.</p></Empty>;
  if (props.failed) return <Empty title="No trace failed in this range." />;
  return <Empty title="No trace seen yet."><p>Try <code>curl localhost:8080</code>: a request and all that it causes on this host are a trace, without a header in it.</p></Empty>;
}
