// The page: navigation, the bars, the page in the middle, the honest line below.
import { effect } from '@preact/signals';
import { render } from 'preact';
import { narrow, nextTheme, status, theme, watchAgent } from './agent';
import { FilterBar } from './filterbar';
import { Flows } from './flows';
import { Health } from './health';
import { Help, onKey } from './keys';
import { MapPage } from './map';
import { onValueClick, ValueMenu } from './menu';
import { Empty, Link, notice } from './parts';
import { Processes } from './processes';
import { Overview } from './overview';
import { page, pages, pageTitles, param, type Page } from './route';
import { Requests } from './requests';
import { Services } from './services';
import { StatusLine } from './statusline';
import { TimeBar } from './timebar';
import { Traces } from './traces';

const bodies: Record<Page, () => preact.JSX.Element> = {
  overview: Overview, map: MapPage, services: Services, requests: Requests, traces: Traces, flows: Flows, processes: Processes, health: Health,
};

const glyphs = { system: '◐', light: '○', dark: '●' };

function Top() {
  return (
    <header class="top">
      <Link to="overview" class="brand" title="Ghostlight">
        <svg viewBox="0 0 32 32" aria-hidden="true"><circle class="glow" cx="16" cy="12" r="10" /><circle class="lamp" cx="16" cy="12" r="5" /><path d="M16 18v8M11 27.5h10" /></svg>
        <span>ghostlight</span>
      </Link>
      <nav aria-label="Pages">
        {pages.map((p) => <Link key={p} to={p} current={page.value === p}>{pageTitles[p]}</Link>)}
      </nav>
      <span class="host" title="the host this agent watches">{status.value?.host.name ?? ''}</span>
      <button type="button" class="plain theme" onClick={nextTheme} title="dark, light, or as the system (d)" aria-label={`colours: ${theme.value}`}>{glyphs[theme.value]}</button>
    </header>
  );
}

/** On a narrow screen the pages scroll sideways: the one that is open is in sight. */
effect(() => {
  if (page.value) requestAnimationFrame(() => document.querySelector('.top nav [aria-current]')?.scrollIntoView({ block: 'nearest', inline: 'center' }));
});

function App() {
  const Body = page.value && bodies[page.value];
  const full = narrow.value && param('select') !== '';
  return (
    <div class={`app ${full ? 'panel-is-page' : ''}`} onClick={onValueClick}>
      <a class="skip" href="#main" onClick={(e) => { e.preventDefault(); document.getElementById('main')?.focus(); }}>Skip to the page</a>
      <Top />
      {page.value && page.value !== 'health' && <div class="bars"><FilterBar /><TimeBar /></div>}
      <main id="main" tabIndex={-1} class={page.value}>
        {Body ? <Body /> : <Empty title="There is no such page."><p><Link to="overview" class="link">Go to the overview</Link></p></Empty>}
      </main>
      <StatusLine />
      <ValueMenu />
      <Help />
      <div class={`notice ${notice.value ? 'on' : ''}`} role="status">{notice.value}</div>
    </div>
  );
}

effect(() => {
  const title = page.value ? pageTitles[page.value] : '';
  const host = status.value?.host.name;
  document.title = [title, host, 'Ghostlight'].filter(Boolean).join(' · ');
});
document.addEventListener('keydown', onKey);
watchAgent();
render(<App />, document.getElementById('app')!);
