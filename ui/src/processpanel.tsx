// The detail of one process: what it is, who started it, what it started.
import { duration, moment } from './format';
import { AllFields, Panel } from './panel';
import { copy, Link, Sign, Value } from './parts';
import { set } from './route';
import { list, num, str, time, type Row } from './row';
import { ancestors, descendants, exitWords, failed, type Proc } from './tree';


const label = (row: Row) => str(row, 'process.executable.name') || `pid ${str(row, 'process.pid')}`;

export function ProcessPanel(props: { id: string; proc: Proc | undefined; row: Row | undefined; boot: number; loading: boolean }) {
  const { proc, row, boot } = props;
  if (!row) {
    return <Panel name="Process" title="Process"><p class="dim">{props.loading ? 'Asking the agent…' : 'It did not run at this moment. Move the slider, or widen the range (t).'}</p></Panel>;
  }
  const exit = proc?.exit ?? (str(row, 'action') === 'exit' ? row : undefined);
  const args = list(row, 'process.command_args');
  return (
    <Panel name="Process" title={<><Sign mark={exit ? (failed(exit) ? 'error' : 'off') : 'ok'} />{label(row)} <span class="dim">{str(row, 'process.pid')}</span></>}>
      <p class="lead">{life(row, exit, boot)}</p>
      {args.length > 0 && (
        <div class="commandline">
          <code tabIndex={0}>{args.map(shellWord).join(' ')}{row.process && str(row, 'process.args_truncated') === 'true' ? ' …' : ''}</code>
          <button type="button" class="plain link" onClick={() => void copy(args.map(shellWord).join(' '), 'the command line')}>copy</button>
        </div>
      )}
      <dl class="facts">
        <Fact name="executable" field="process.executable.path" row={row} />
        <Fact name="directory" field="process.working_directory" row={row} />
        <Fact name="service" field="service.name" as="service" row={row} />
        <Fact name="container" field="container.name" as="container" row={row} more={[str(row, 'container.runtime'), str(row, 'container.id').slice(0, 12)].filter(Boolean).join(' ')} />
        <Fact name="user" field="process.user.id" row={row} more={num(row, 'process.user.id') === 0 ? 'root' : ''} />
        <Fact name="capabilities" field="process.capabilities" row={row} more={capabilities(str(row, 'process.capabilities'))} />
        <Fact name="cgroup" field="process.linux.cgroup" row={row} />
      </dl>
      {proc && <Kin title="Started by" list={ancestors(proc)} chain />}
      {proc && proc.children.length > 0 && <Kin title={`Started (${descendants(proc)} below it)`} list={proc.children} />}
      <p class="links">
        <Link to="flows" params={{ filter: `process.exec_id:${props.id}` }} class="link">Its flows</Link>
        <Link to="flows" params={{ filter: `pid:${str(row, 'process.pid')}` }} class="link">Flows at either end</Link>
        {str(row, 'service.name') && <Link to="map" params={{ filter: '', select: `node:svc:${str(row, 'service.name')}` }} class="link">On the map</Link>}
      </p>
      <AllFields table="processes" row={row} />
    </Panel>
  );
}

function life(row: Row, exit: Row | undefined, boot: number): string {
  const began = boot + (num(row, 'process.start_ns') ?? 0) / 1e6;
  if (!exit) return `Started ${moment(began)}, ${duration(Math.max(0, Date.now() - began) * 1e6)} ago.`;
  const ran = duration(Math.max(0, time(exit) - began) * 1e6);
  return `Started ${moment(began)}, ran ${ran}; ended at ${moment(time(exit))}: ${exitWords(exit)}.`;
}

const shellWord = (w: string) => (/^[\w@%+=:,./[\]-]+$/.test(w) ? w : `'${w.replaceAll("'", "'\\''")}'`);

/** Says in a word what a set of capabilities is. */
function capabilities(hex: string): string {
  if (!hex) return '';
  const bits = [...BigInt(`0x${hex}`).toString(2)].filter((b) => b === '1').length;
  return bits === 0 ? 'none' : bits >= 40 ? 'all' : `${bits} of 41`;
}

function Fact(props: { name: string; field: string; row: Row; as?: string; more?: string }) {
  const v = str(props.row, props.field);
  if (!v) return null;
  return <div><dt>{props.name}</dt><dd><Value field={props.as ?? props.field} value={v} /> {props.more && <span class="dim">{props.more}</span>}</dd></div>;
}

function Kin(props: { title: string; list: readonly Proc[]; chain?: boolean }) {
  if (!props.list.length) return null;
  return (
    <section>
      <h3>{props.title}</h3>
      <ul class="neighbours">
        {props.list.slice(0, 50).map((p, i) => (
          <li key={p.id} style={{ paddingLeft: props.chain ? `${i * 12}px` : '0' }}>
            <button type="button" class="plain" onClick={() => set({ select: p.id })}>
              <span class="name">{label(p.row)} <span class="dim">{list(p.row, 'process.command_args').slice(1).join(' ')}</span></span><span class="dim">{str(p.row, 'process.pid')}</span>
            </button>
          </li>
        ))}
      </ul>
      {props.list.length > 50 && <p class="dim">and {props.list.length - 50} more</p>}
    </section>
  );
}
