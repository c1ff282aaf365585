// What the page does when things go wrong, or are large: always against mocks,
// because a real agent cannot be asked to fail.
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { startBrowser } from './browser.mjs';
import { startMock } from './mock.mjs';

let browser;
before(async () => { browser = await startBrowser(); });
afterEach(() => browser.tidy());
after(async () => { await browser?.close(); });

const rows = '.table [role=row][data-key]';

test('a lost connection says so, and comes back by itself without a gap', async () => {
  const mock = await startMock({ rate: 5 });
  const page = await browser.open(`${mock.url}/flows`);
  await page.waitForSelector(rows);
  mock.fail(true);
  await page.waitForSelector('.statusline .broken');
  await page.waitForSelector('.toolbar .bad');
  await browser.shot(page, 'connection-lost');
  await page.waitForTimeout(1000);
  mock.fail(false);
  await page.waitForSelector('.statusline .broken', { state: 'detached', timeout: 20_000 });
  await page.waitForTimeout(1500);
  const paused = await fetch(`${mock.url}/api/v1/flows?last=400`).then((r) => r.json());
  const held = new Set(await page.evaluate(() => fetch('/api/v1/flows?last=1').then(() => [...document.querySelectorAll('.table [role=row][data-key]')].map((r) => r.dataset.key))));
  const inSight = paused.flows.filter((f) => f.direction === 'outbound').slice(-12, -8);
  for (const f of inSight) assert.ok(held.has(`${f.flow.id}.o@${f.end_time}`), `the record of ${f.end_time} is missing`);
  await page.close();
  await mock.close();
});

test('an error of the API shows its hint, and try again does', async () => {
  const mock = await startMock();
  const page = await browser.open(`${mock.url}/flows?filter=bogus:1`);
  await page.waitForSelector('.problem');
  const text = await page.locator('.problem').innerText();
  assert.match(text, /unknown field "bogus"/);
  assert.match(text, /aliases: service/);
  await browser.shot(page, 'error');
  await page.goto(`${mock.url}/flows`);
  await page.waitForSelector(rows);
  mock.fail(true);
  await page.goto(`${mock.url}/map`);
  await page.waitForSelector('.problem');
  const asked = page.waitForRequest(/api\/v1\/map/);
  await page.getByRole('button', { name: 'Try again' }).click();
  await asked;
  mock.fail(false);
  await page.waitForSelector('.node');
  assert.equal(await page.locator('.problem').count(), 0);
  await page.close();
  await mock.close();
});

test('an agent that has seen nothing says what to do', async () => {
  const mock = await startMock({ empty: true });
  for (const [path, want] of [['/', /curl localhost:8080/], ['/map', /curl localhost:8080/], ['/services', /curl localhost:8080/], ['/requests', /curl localhost:8080/], ['/requests?filter=pid:1', /clear the filter/], ['/traces', /curl localhost:8080/], ['/flows', /curl localhost:8080/], ['/flows?filter=pid:1', /clear the filter/], ['/nowhere', /no such page/i]]) {
    const page = await browser.open(mock.url + path);
    await page.waitForSelector('.empty .title');
    await page.waitForFunction((w) => new RegExp(w, 'i').test(document.querySelector('.empty')?.innerText ?? ''), want.source);
    if (path === '/map') await browser.shot(page, 'empty-map');
    assert.deepEqual(page.problems, []);
    await page.close();
  }
  await mock.close();
});

test('10,000 rows: few are drawn, and the reader stays with theirs while new ones come', async (t) => {
  const mock = await startMock({ perSecond: 9, minutes: 15, rate: 40 });
  const page = await browser.open(`${mock.url}/flows?ends=both`);
  await page.waitForSelector(rows);
  for (let i = 0; i < 6; i++) {
    const more = page.getByRole('button', { name: 'load older' });
    if (!await more.count()) break;
    const before = await page.locator('.table').getAttribute('aria-rowcount');
    await more.click();
    await page.waitForFunction((n) => document.querySelector('.table').getAttribute('aria-rowcount') !== n, before);
  }
  const total = Number(await page.locator('.table').getAttribute('aria-rowcount'));
  assert.ok(total > 10_000, `${total} rows`);
  assert.ok(await page.locator(rows).count() < 80, 'too many rows drawn');

  await page.evaluate(() => { document.querySelector('.table').scrollTop = 3000; });
  await page.waitForTimeout(300);
  const topRow = () => page.evaluate(() => {
    const table = document.querySelector('.table');
    const top = table.getBoundingClientRect().top + 34;
    return [...table.querySelectorAll('[role=row][data-key]')].find((r) => r.getBoundingClientRect().bottom > top).dataset.key;
  });
  const read = await topRow();
  const count = await page.locator('.table').getAttribute('aria-rowcount');
  await page.waitForFunction((n) => document.querySelector('.table').getAttribute('aria-rowcount') !== n, count);
  await page.waitForTimeout(1000);
  assert.equal(await topRow(), read, 'the row under the reader moved');

  const steps = 120;
  const cdp = await page.context().newCDPSession(page);
  await cdp.send('Performance.enable', { timeDomain: 'threadTicks' }); // CPU time: the machine may be busy
  const metrics = async () => Object.fromEntries((await cdp.send('Performance.getMetrics')).metrics.map((m) => [m.name, m.value * 1000]));
  const before = await metrics();
  await page.evaluate(async (steps) => {
    const table = document.querySelector('.table');
    for (let i = 0; i < steps; i++) {
      await new Promise(requestAnimationFrame);
      table.scrollTop += 400;
    }
  }, steps);
  const now = await metrics();
  const each = (name) => (now[name] - before[name]) / steps;
  t.diagnostic(`${total} rows, a frame that scrolls by 13 rows: ${each('TaskDuration').toFixed(1)} ms of CPU (script ${each('ScriptDuration').toFixed(1)}, style ${each('RecalcStyleDuration').toFixed(1)}, layout ${each('LayoutDuration').toFixed(1)})`);
  assert.ok(each('TaskDuration') < 1000 / 60 * 2, 'a frame takes too long');
  assert.deepEqual(page.problems, []);
  await page.close();
  await mock.close();
});

test('200 services: no node covers another, every name can be read', async () => {
  const mock = await startMock({ nodes: 200, perSecond: 4 });
  const page = await browser.open(`${mock.url}/map`);
  await page.waitForSelector('.node');
  await page.waitForTimeout(500);
  await browser.shot(page, 'map-200');
  const boxes = await page.locator('.node').evaluateAll((all) => all.map((n) => {
    const r = n.getBoundingClientRect();
    const name = n.querySelector('.name');
    const k = r.width / n.offsetWidth;
    return { id: n.dataset.node, x: r.x, y: r.y, w: r.width, h: r.height, size: parseFloat(getComputedStyle(name).fontSize) * k };
  }));
  assert.ok(boxes.length > 150, `${boxes.length} nodes`);
  for (const [i, a] of boxes.entries()) {
    assert.ok(a.size >= 10, `${a.id} is drawn at ${a.size} px`);
    for (const b of boxes.slice(i + 1)) {
      const apart = a.x + a.w <= b.x || b.x + b.w <= a.x || a.y + a.h <= b.y || b.y + b.h <= a.y;
      assert.ok(apart, `${a.id} and ${b.id} overlap`);
    }
  }
  await page.fill('.search', boxes[40].id.slice(4));
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => location.search.includes('select=node'));
  await page.waitForTimeout(300);
  await browser.shot(page, 'map-200-search');
  await page.close();
  await mock.close();
});
