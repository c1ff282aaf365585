// The pages of requests: what a brush does, how one page leads to the next,
// and what they cost. Against GHOSTLIGHT_URL, or the mock.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, afterEach, before, test } from 'node:test';
import { accessible, startBrowser } from './browser.mjs';
import { startMock } from './mock.mjs';

let browser;
let mock;
let url;
let peer;
let mine = ''; // on a busy host only the requests of this test are counted

before(async () => {
  if (!process.env.GHOSTLIGHT_URL) mock = await startMock();
  url = process.env.GHOSTLIGHT_URL?.replace(/\/$/, '') ?? mock.url;
  browser = await startBrowser();
  peer = createServer((req, res) => { res.statusCode = req.url.includes('bad') ? 500 : 200; res.end('hello'); });
  await new Promise((done) => peer.listen(0, '127.0.0.1', done));
  if (!mock) mine = `&filter=port:${peer.address().port}`;
  for (let i = 0; i < 12; i++) await (await fetch(`http://127.0.0.1:${peer.address().port}/${i % 4 ? 'good' : 'bad'}/${i}`, { headers: { connection: 'close' } })).text();
  if (!mock) await new Promise((done) => setTimeout(done, 3000));
});
afterEach(() => browser.tidy());
after(async () => {
  await browser?.close();
  await mock?.close();
  peer?.closeAllConnections();
  peer?.close();
});

const rows = '.table [role=row][data-key]';
const params = (page) => new URL(page.url()).searchParams;
const quiet = (page) => assert.deepEqual(page.problems, [], 'console');
const digits = (text) => Number(/([\d,]+) request/.exec(text)[1].replaceAll(',', ''));

/** A range that stands still, so that counts can be compared. */
const still = () => `since=${new Date(Date.now() - 600e3).toISOString()}&until=${new Date(Date.now() - 500).toISOString()}`;

async function drag(page, from, to) {
  await page.mouse.move(...from);
  await page.mouse.down();
  await page.mouse.move((from[0] + to[0]) / 2, (from[1] + to[1]) / 2);
  await page.mouse.move(...to);
}

test('a box in the heatmap counts what the table then shows', async () => {
  const page = await browser.open(`${url}/requests?${still()}${mine}`);
  await page.waitForSelector('.heat canvas');
  await page.waitForSelector(rows);
  const box = await page.locator('.heat .field').boundingBox();
  await drag(page, [box.x + box.width - 4, box.y + 3], [box.x + 4, box.y + box.height - 3]);
  const counted = digits(await page.locator('.heat .tip b').innerText());
  await browser.shot(page, 'heatmap-marking');
  await page.mouse.up();
  await page.waitForFunction(() => location.search.includes('box='));
  await page.waitForFunction((n) => document.querySelector('.toolbar.below').innerText.replaceAll(',', '').includes(`${n} request`), counted);
  await page.waitForSelector('.heat .held');
  await accessible(page, 'a box in the heatmap');
  await page.mouse.move(box.x + 300, box.y + box.height + 200);
  await browser.shot(page, 'heatmap-box');
  const again = await browser.open(page.url());
  await again.waitForSelector('.heat .held');
  await again.waitForFunction((n) => document.querySelector('.toolbar.below').innerText.replaceAll(',', '').includes(`${n} request`), counted);
  await again.close();
  await page.keyboard.press('Escape');
  await page.waitForFunction(() => !location.search.includes('box='));
  quiet(page);
});

test('the heatmap is walked and marked by keyboard', async () => {
  const page = await browser.open(`${url}/requests?${still()}${mine}`);
  await page.waitForSelector('.heat canvas');
  await page.waitForSelector(rows);
  await page.locator('.heat .field').focus();
  await page.keyboard.press('ArrowUp');
  await page.keyboard.press('ArrowDown'); // the busiest cell
  const alone = digits(await page.locator('.heat .tip b').innerText());
  assert.ok(alone > 0, 'the keys begin where most requests are');
  for (const key of ['ArrowLeft', 'ArrowDown', 'ArrowDown']) await page.keyboard.press(`Shift+${key}`);
  const counted = digits(await page.locator('.heat .tip b').innerText());
  assert.ok(counted >= alone);
  await page.keyboard.press('Enter');
  await page.waitForFunction((n) => location.search.includes('box=') && document.querySelector('.toolbar.below').innerText.replaceAll(',', '').includes(`${n} request`), counted);
  for (const r of await page.locator(`${rows} [role=gridcell]:last-child span`).all()) assert.ok(await r.getAttribute('title'), 'the exact duration stands beside');
  quiet(page);
});

test('the cells of the heatmap are a table too, which adds up to what the agent counted', async () => {
  const range = still() + mine;
  const page = await browser.open(`${url}/requests?${range}&heat=table`);
  await page.waitForSelector('.heat .table [role=row][data-key]');
  const heat = await (await fetch(`${url}/api/v1/heatmap?${range}&columns=120`)).json();
  const total = heat.counts.flat().reduce((n, x) => n + x, 0);
  await accessible(page, 'the cells of the heatmap');
  const seen = new Map();
  for (let i = 0; i < 400; i++) {
    for (const [key, n] of await page.locator('.heat .table [role=row][data-key]').evaluateAll((all) => all.map((r) => [r.dataset.key, Number(r.children[2].innerText.replaceAll(',', ''))]))) seen.set(key, n);
    const end = await page.evaluate(() => { const t = document.querySelector('.heat .table'); t.scrollTop += t.clientHeight - 60; return t.scrollTop + t.clientHeight >= t.scrollHeight - 1; });
    await page.waitForTimeout(30);
    if (end && i > 0) {
      for (const [key, n] of await page.locator('.heat .table [role=row][data-key]').evaluateAll((all) => all.map((r) => [r.dataset.key, Number(r.children[2].innerText.replaceAll(',', ''))]))) seen.set(key, n);
      break;
    }
  }
  assert.equal([...seen.values()].reduce((n, x) => n + x, 0), total);
  quiet(page);
});

test('a brush along the time axis sets the range of every page', async () => {
  const page = await browser.open(`${url}/requests`);
  await page.waitForSelector('.heat canvas');
  const axis = await page.locator('.heat .xaxis').boundingBox();
  await drag(page, [axis.x + axis.width * 0.5, axis.y + 10], [axis.x + axis.width * 0.98, axis.y + 10]);
  await page.mouse.up();
  await page.waitForFunction(() => location.search.includes('since=') && location.search.includes('until='));
  const [since, until] = [params(page).get('since'), params(page).get('until')];
  assert.ok(Date.parse(since) < Date.parse(until));
  assert.equal(await page.locator('.live').innerText(), 'paused');
  await page.getByRole('link', { name: 'Services', exact: true }).click();
  assert.equal(params(page).get('since'), since);
  assert.equal(params(page).get('until'), until);
  await page.goBack();
  await page.goBack();
  await page.waitForFunction(() => !location.search.includes('until='));
  quiet(page);
});

test('a brush over the chart of a service sets the range, and its numbers stand below', async () => {
  const page = await browser.open(`${url}/services?since=10m${mine}`);
  await page.waitForSelector(rows);
  await page.keyboard.press('j');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.panel .chart svg');
  await page.getByText('As a table').click();
  await page.waitForSelector('.panel details[open] tbody tr');
  const said = Number(/([\d,]+) request/.exec(await page.locator('.panel .lead').innerText())[1].replaceAll(',', ''));
  const steps = await page.locator('.panel details[open] tbody td:nth-child(2)').evaluateAll((all) => all.reduce((n, td) => n + Number(td.innerText.replaceAll(',', '')), 0));
  assert.equal(steps, said, 'the steps add up to the whole');
  await accessible(page, 'the panel of a service');
  await page.locator('.panel .chart .lanes').first().scrollIntoViewIfNeeded();
  const lanes = await page.locator('.panel .chart .lanes').first().boundingBox();
  await drag(page, [lanes.x + lanes.width * 0.3, lanes.y + 20], [lanes.x + lanes.width * 0.8, lanes.y + 20]);
  await page.waitForFunction(() => document.querySelectorAll('.chart .now').length === 2); // both charts have the cursor
  await page.mouse.up();
  await page.waitForFunction(() => /since=.*until=/.test(location.search));
  assert.ok(params(page).get('select'), 'the panel stays');
  quiet(page);
});

test('from the overview to the service, its requests, a request, its trace, a span and its flow', async () => {
  const page = await browser.open(`${url}/?${mine}`);
  await page.waitForSelector('.overviewpage .red tbody tr');
  await page.locator('.overviewpage .red tbody a').first().click();
  await page.waitForSelector('.panel .chart svg');
  const service = params(page).get('select');
  assert.equal(await page.locator('.panel h2').innerText(), service);
  await page.waitForSelector('.panel .routes button');
  await page.locator('.panel .routes button').first().click();
  await page.waitForFunction((s) => new URLSearchParams(location.search).get('select').startsWith(`${s}|`), service);
  await page.waitForSelector('.panel .chart svg');
  await browser.shot(page, 'route-panel');
  await page.getByRole('link', { name: 'Its requests' }).click();
  await page.waitForSelector(rows);
  await page.keyboard.press('j');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.panel .lead');
  await page.waitForSelector('.panel .ends');
  const title = await page.locator('.panel h2').innerText();
  await page.getByRole('link', { name: 'Its trace' }).click();
  await page.waitForSelector('.bar');
  await page.waitForSelector('.panel .lead');
  assert.equal(await page.locator('.panel h2').innerText(), title, 'the span is the request');
  assert.ok(await page.locator('.bar rect.critical').count() > 0, 'the critical path is drawn');
  await page.waitForTimeout(400);
  await browser.shot(page, 'trace-panel');
  await accessible(page, 'a trace with a span');
  await page.getByRole('link', { name: 'Its flow' }).click();
  await page.waitForFunction(() => location.pathname === '/flows' && /flow\.id:\d+/.test(location.search));
  quiet(page);
});

test('a trace is walked, folded and looked at closely, and its link shows the same', async () => {
  const list = await (await fetch(`${url}/api/v1/traces?since=15m&sort=slowest&last=100${mine}`)).json();
  const most = list.traces.reduce((a, b) => (b.spans > a.spans ? b : a));
  assert.ok(most.spans > 1, 'no trace has two spans');
  const page = await browser.open(`${url}/traces?trace=${most.trace_id}`);
  await page.waitForSelector(rows);
  const lines = () => page.locator('[role=treegrid]').getAttribute('aria-rowcount').then((n) => Number(n) - 1);
  const spans = (await (await fetch(`${url}/api/v1/trace/${most.trace_id}`)).json()).spans.length;
  assert.equal(await lines(), spans);
  await page.keyboard.press('j');
  await page.keyboard.press('h');
  await page.waitForFunction((n) => Number(document.querySelector('[role=treegrid]').getAttribute('aria-rowcount')) - 1 < n, spans);
  await page.keyboard.press('l');
  assert.equal(await lines(), spans);
  const ruler = await page.locator('.ruler').boundingBox();
  await drag(page, [ruler.x + 20, ruler.y + 10], [ruler.x + ruler.width / 2, ruler.y + 10]);
  await page.mouse.up();
  await page.waitForFunction(() => location.search.includes('zoom='));
  await page.keyboard.press('Enter');
  await page.waitForSelector('.panel .lead');
  const again = await browser.open(page.url());
  await again.waitForSelector('.panel .lead');
  assert.equal(await again.locator('.panel h2').innerText(), await page.locator('.panel h2').innerText());
  assert.ok(await again.getByRole('button', { name: 'Whole trace' }).isVisible());
  await again.close();
  for (const left of ['select=', 'zoom=', 'trace=']) {
    await page.keyboard.press('Escape');
    await page.waitForFunction((p) => !location.search.includes(p), left);
  }
  await page.waitForSelector(rows);
  quiet(page);
});

test('a term that a page cannot use waits there, and says so', async () => {
  const page = await browser.open(`${url}/requests?filter=slower:1ns`);
  await page.waitForSelector(rows);
  assert.equal(await page.locator('.chip.idle').count(), 0);
  await page.getByRole('link', { name: 'Flows', exact: true }).click();
  await page.waitForSelector(rows);
  assert.match(await page.locator('.chip.idle button').first().getAttribute('title'), /flows have no slower/);
  assert.match(page.url(), /filter=slower:1ns/);
  assert.equal(await page.locator('.problem').count(), 0);
  await page.getByRole('link', { name: 'Map', exact: true }).click();
  await page.waitForSelector('.chip.idle', { state: 'detached' }); // the map takes a filter of requests
  await page.waitForSelector('.node, .empty');
  quiet(page);
});

test('an edge of the map tells its requests, routes and connections', async () => {
  const m = await (await fetch(`${url}/api/v1/map?since=15m${mine}`)).json();
  const edge = m.edges.filter((e) => e.source.startsWith('svc:') && e.target.startsWith('svc:')).reduce((a, b) => ((b.requests ?? 0) > (a.requests ?? 0) ? b : a));
  assert.ok(edge.requests > 0, 'no edge carries requests');
  const page = await browser.open(`${url}/map?${mine}&select=${encodeURIComponent(`edge:${edge.source}>${edge.target}`)}`);
  await page.waitForSelector('.panel .routes a');
  assert.match(await page.locator('.panel .lead').innerText(), /requests? by .*p99/);
  await browser.shot(page, 'edge-panel');
  await page.locator('.panel .routes a').first().click();
  await page.waitForSelector('.panel .chart svg');
  quiet(page);
});

// ---- what it costs: figures, no verdict on a busy machine

test('10,000 requests: CPU for a frame, and the first paint', async (t) => {
  const big = await startMock({ traces: 1600, minutes: 14, traceRate: 0.2 });
  const page = await browser.open(`${big.url}/requests`);
  await page.waitForSelector(rows);
  await page.waitForSelector('.heat canvas');
  const paint = await page.evaluate(() => Object.fromEntries(performance.getEntriesByType('paint').map((p) => [p.name, Math.round(p.startTime)])));
  for (let i = 0; i < 6; i++) {
    const more = page.getByRole('button', { name: 'load older' });
    if (!await more.count()) break;
    const before = await page.locator('.requestpage > .table').getAttribute('aria-rowcount');
    await more.click();
    await page.waitForFunction((n) => document.querySelector('.requestpage > .table').getAttribute('aria-rowcount') !== n, before);
  }
  const total = Number(await page.locator('.requestpage > .table').getAttribute('aria-rowcount'));
  assert.ok(total > 10_000, `${total} rows`);
  assert.ok(await page.locator(rows).count() < 80, 'too many rows drawn');
  const cdp = await page.context().newCDPSession(page);
  await cdp.send('Performance.enable', { timeDomain: 'threadTicks' });
  const metrics = async () => Object.fromEntries((await cdp.send('Performance.getMetrics')).metrics.map((m) => [m.name, m.value * 1000]));
  const measured = async (steps, step) => {
    const before = await metrics();
    await page.evaluate(step, steps);
    const now = await metrics();
    return (name) => ((now[name] - before[name]) / steps).toFixed(1);
  };
  const scroll = await measured(120, async (steps) => {
    const table = document.querySelector('.requestpage > .table');
    for (let i = 0; i < steps; i++) { await new Promise(requestAnimationFrame); table.scrollTop += 400; }
  });
  const hover = await measured(120, async (steps) => {
    const field = document.querySelector('.heat .field');
    const box = field.getBoundingClientRect();
    for (let i = 0; i < steps; i++) {
      await new Promise(requestAnimationFrame);
      field.dispatchEvent(new PointerEvent('pointermove', { bubbles: true, clientX: box.left + (box.width * i) / steps, clientY: box.top + 40 + (i % 60) }));
    }
  });
  t.diagnostic(`${total} rows; a frame that scrolls by 13 rows: ${scroll('TaskDuration')} ms of CPU (script ${scroll('ScriptDuration')}); a frame with the pointer moving over the heatmap: ${hover('TaskDuration')} ms (script ${hover('ScriptDuration')}); a frame at 60/s has 16.7 ms`);
  t.diagnostic(`first paint ${paint['first-paint']} ms, first contentful paint ${paint['first-contentful-paint']} ms after navigation, on loopback, with a busy machine`);
  assert.deepEqual(page.problems, []);
  await page.close();
  await big.close();
});
