// Every page against an agent: GHOSTLIGHT_URL, or the mock. Opened, filtered,
// walked by keyboard, in both schemes and at both widths.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, afterEach, before, test } from 'node:test';
import { accessible, startBrowser } from './browser.mjs';
import { startMock } from './mock.mjs';

let browser;
let mock;
let url;
let peer;

before(async () => {
  if (!process.env.GHOSTLIGHT_URL) mock = await startMock();
  url = process.env.GHOSTLIGHT_URL?.replace(/\/$/, '') ?? mock.url;
  browser = await startBrowser();
  peer = createServer((_, res) => res.end('hello')); // a little loopback traffic for a real agent
  await new Promise((done) => peer.listen(0, '127.0.0.1', done));
  await traffic(10);
});
afterEach(() => browser.tidy());
after(async () => {
  await browser?.close();
  await mock?.close();
  peer?.closeAllConnections();
  peer?.close();
});

async function traffic(n) {
  for (let i = 0; i < n; i++) await (await fetch(`http://127.0.0.1:${peer.address().port}/`, { headers: { connection: 'close' } })).text();
}

const pages = {
  overview: { path: '/', ready: '.overviewpage .red' },
  services: { path: '/services', ready: '.table [role=row][data-key]' },
  requests: { path: '/requests', ready: '.table [role=row][data-key]' },
  traces: { path: '/traces', ready: '.table [role=row][data-key]' },
  map: { path: '/map', ready: '.node, .table [role=row][data-key]' },
  flows: { path: '/flows', ready: '.table [role=row][data-key]' },
  processes: { path: '/processes', ready: '.table [role=row][data-key]' },
  health: { path: '/health', ready: '.card' },
};

const rows = '.table [role=row][data-key]';
const at = (page) => new URL(page.url());

function quiet(page, allowed = /^$/) {
  assert.deepEqual(page.problems.filter((p) => !allowed.test(p)), [], 'console');
}

for (const [name, { path, ready }] of Object.entries(pages)) {
  for (const width of [1280, 390]) {
    for (const scheme of ['dark', 'light']) {
      test(`${name} at ${width} px, ${scheme}`, async () => {
        const page = await browser.open(url + path, { width, scheme });
        await page.waitForSelector(ready);
        await page.waitForTimeout(400);
        await browser.shot(page, `${name}-${width}-${scheme}`);
        const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(over <= 0, `the page is ${over} px too wide`);
        await accessible(page, `${name} ${width} ${scheme}`);
        quiet(page);
        await page.close();
      });
    }
  }
}

for (const [name, { path }] of Object.entries(pages).filter(([n]) => !['health', 'overview', 'traces'].includes(n))) {
  for (const width of [1280, 390]) {
    test(`${name} at ${width} px: a row opens the panel, esc closes it`, async () => {
      const page = await browser.open(url + path + (name === 'map' ? '?view=table' : ''), { width });
      await page.waitForSelector(rows);
      await page.keyboard.press('j');
      await page.keyboard.press('j');
      await page.keyboard.press('Enter');
      await page.waitForSelector('.panel .lead');
      assert.ok(at(page).searchParams.get('select'), 'the selection is in the URL');
      await page.waitForTimeout(500);
      await browser.shot(page, `${name}-${width}-panel`);
      if (width === 390) assert.equal(await page.locator('.content').isVisible(), false, 'the panel is the page');
      await accessible(page, `panel of ${name} ${width}`);
      const title = await page.locator('.panel h2').innerText();
      const again = await browser.open(page.url(), { width });
      await again.waitForSelector('.panel .lead');
      assert.equal(await again.locator('.panel h2').innerText(), title, 'the link shows the same');
      await again.close();
      await page.keyboard.press('Escape');
      await page.waitForSelector('.panel', { state: 'detached' });
      quiet(page);
      await page.close();
    });
  }
}

test('the filter is typed with completion, holds on every page and is in the URL', async () => {
  const page = await browser.open(`${url}/flows`);
  await page.waitForSelector(rows);
  await page.keyboard.press('/');
  await page.keyboard.type('transp');
  await page.waitForSelector('[role=option]');
  await page.keyboard.press('Tab');
  assert.equal(await page.inputValue('#filter'), 'transport:');
  await page.keyboard.type('tcp');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => location.search.includes('filter=transport:tcp'));
  await page.waitForFunction((r) => [...document.querySelectorAll(r)].every((x) => x.innerText.includes('tcp')), rows);
  await page.keyboard.press('Escape');
  await page.getByRole('link', { name: 'Processes' }).click();
  assert.match(page.url(), /filter=transport:tcp/);
  await page.getByRole('button', { name: 'remove transport:tcp' }).click();
  assert.doesNotMatch(page.url(), /filter/);
  await page.close();
});

test('a value offers only this and not this', async () => {
  const page = await browser.open(`${url}/flows?filter=transport:tcp`);
  await page.waitForSelector(rows);
  const value = page.locator(`${rows} [data-field=verdict]`).first();
  const verdict = await value.getAttribute('data-value');
  await value.click();
  await page.getByRole('menuitem', { name: 'Only this' }).click();
  await page.waitForFunction((v) => location.search.includes(`verdict:${v}`), verdict);
  await page.waitForFunction(([r, v]) => { const all = [...document.querySelectorAll(`${r} [data-field=verdict]`)]; return all.length > 0 && all.every((x) => x.dataset.value === v); }, [rows, verdict]);
  await page.locator(`${rows} [data-field=verdict]`).first().click();
  await page.getByRole('menuitem', { name: 'Not this' }).click();
  await page.waitForFunction((v) => location.search.includes(`-verdict:${v}`), verdict);
  await page.close();
});

test('pause holds the rows still, and its link shows them again', async () => {
  const page = await browser.open(`${url}/flows`);
  await page.waitForSelector(rows);
  await traffic(5);
  await page.keyboard.press('p');
  await page.waitForFunction(() => location.search.includes('until='));
  await page.waitForTimeout(300);
  const first = () => page.locator(rows).first().getAttribute('data-key');
  const held = await first();
  await traffic(5);
  await page.waitForTimeout(1500);
  assert.equal(await first(), held, 'a new row came in while paused');
  const again = await browser.open(page.url());
  await again.waitForSelector(`${rows}[data-key="${held}"]`);
  await again.close();
  await page.keyboard.press('p');
  await page.waitForFunction(() => !location.search.includes('until='));
  await page.close();
});

test('time ranges are read in words', async () => {
  const page = await browser.open(`${url}/flows`);
  await page.waitForSelector(rows);
  for (const [words, want] of [['last 2 hours', 'since=2h'], ['5m', 'since=5m'], ['00:00 - 00:01', 'until=']]) {
    await page.keyboard.press('t');
    await page.keyboard.type(words);
    await page.keyboard.press('Enter');
    await page.waitForFunction((w) => location.search.includes(w), want);
  }
  await page.keyboard.press('t');
  await page.keyboard.type('soonish');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.wrong');
  await page.keyboard.press('Escape');
  assert.equal(await page.locator('.rangeform').count(), 0);
  await page.close();
});

test('columns are chosen and sorted by', async () => {
  const page = await browser.open(`${url}/flows?columns=time,client,server,up,bytes.sent&sort=-up`);
  await page.waitForSelector(rows);
  assert.equal(await page.locator('[role=columnheader]').count(), 5);
  assert.equal(await page.locator('[role=columnheader][aria-sort=descending]').innerText(), 'To server↓');
  const exact = await page.locator(`${rows} [role=gridcell]:nth-child(4) span`).evaluateAll((all) => all.map((x) => Number(x.title.replace(/\D/g, ''))));
  assert.ok(exact.length > 1);
  assert.deepEqual(exact, [...exact].sort((a, b) => b - a));
  await page.close();
});

test('the map: focus by double click, back by esc, the same as a table', async () => {
  const page = await browser.open(`${url}/map`);
  await page.waitForSelector('.node');
  const nodes = await page.locator('.node').count();
  const edges = await page.locator('.edge').count();
  const busiest = await page.locator('.node').evaluateAll((all) => all.map((n) => n.dataset.node).find((id) => id.startsWith('svc:')));
  await page.locator(`[data-node="${busiest}"]`).dblclick();
  await page.waitForFunction(() => location.search.includes('focus='));
  assert.ok(await page.locator('.node').count() <= nodes);
  await page.keyboard.press('Escape');
  await page.keyboard.press('Escape');
  await page.waitForFunction(() => !location.search.includes('focus=') && !location.search.includes('select='));
  await page.getByRole('button', { name: 'Table' }).click();
  await page.waitForSelector(rows);
  const pairs = await page.locator(rows).evaluateAll((all) => new Set(all.map((r) => r.dataset.key.split('>').slice(0, 2).join('>'))).size);
  assert.ok(pairs > 0 && pairs <= edges + 3, `${pairs} pairs in the table, ${edges} edges drawn`);
  await page.keyboard.press('j');
  await page.keyboard.press('Enter');
  await page.getByRole('link', { name: 'Its flows' }).click();
  await page.waitForSelector(rows);
  quiet(page);
  await page.close();
});

test('the map keeps its places while the data change', async () => {
  const page = await browser.open(`${url}/map?since=5m`);
  await page.waitForSelector('.node');
  const places = () => page.locator('.node').evaluateAll((all) => Object.fromEntries(all.map((n) => [n.dataset.node, `${n.style.left} ${n.style.top}`])));
  const was = await places();
  await traffic(5);
  await page.waitForTimeout(4500);
  await page.getByRole('link', { name: 'Flows' }).click();
  await page.getByRole('link', { name: 'Map' }).click();
  await page.waitForSelector('.node');
  const now = await places();
  for (const id of Object.keys(was)) if (now[id]) assert.equal(now[id], was[id], id);
  await page.close();
});

test('the process tree folds by keyboard and travels in time', async () => {
  const page = await browser.open(`${url}/processes`);
  await page.waitForSelector(rows);
  const many = await page.locator('[role=treegrid]').getAttribute('aria-rowcount');
  await page.keyboard.press('j');
  await page.keyboard.press('h');
  await page.waitForFunction((n) => Number(document.querySelector('[role=treegrid]').getAttribute('aria-rowcount')) < n, Number(many));
  await page.keyboard.press('l');
  await page.waitForFunction((n) => Number(document.querySelector('[role=treegrid]').getAttribute('aria-rowcount')) >= n - 3, Number(many));
  await page.keyboard.press('[');
  await page.waitForFunction(() => location.search.includes('at='));
  const moment = at(page).searchParams.get('at');
  await page.keyboard.press('[');
  await page.waitForFunction((m) => new URLSearchParams(location.search).get('at') < m, moment);
  await page.waitForSelector(rows);
  await page.getByRole('button', { name: 'Now', exact: true }).click();
  await page.waitForFunction(() => !location.search.includes('at='));
  quiet(page);
  await page.close();
});

test('health names every sensor, what was taken and why', async () => {
  const page = await browser.open(`${url}/health`);
  const doctor = await (await fetch(`${url}/api/v1/doctor`)).json();
  await page.waitForSelector('.sensors tbody');
  for (const s of doctor.sensors) assert.ok(await page.locator('.sensors').getByText(s.name, { exact: true }).count() > 0, s.name);
  for (const p of doctor.probes.filter((p) => !p.ok)) assert.ok(await page.getByText(p.loss).first().isVisible(), p.name);
  await page.close();
});

test('everything is reached by tab, and shows its focus', async () => {
  const page = await browser.open(`${url}/flows`);
  await page.waitForSelector(rows);
  const reached = [];
  for (let i = 0; i < 42; i++) {
    await page.keyboard.press('Tab');
    reached.push(await page.evaluate(() => {
      const el = document.activeElement;
      const box = el.closest('.terms') ?? el;
      return { what: (el.getAttribute('aria-label') || el.textContent || el.id).trim().slice(0, 30), outline: getComputedStyle(box).outlineStyle };
    }));
  }
  const names = reached.map((r) => r.what).join('|');
  for (const want of ['Skip to the page', 'Overview', 'Map', 'Services', 'Requests', 'Traces', 'Flows', 'Processes', 'Health', 'colours', 'Filter', 'last 15 min', 'live', 'Columns', 'Copy', 'Flows, newest first', 'kernel', 'keys and help']) assert.ok(names.includes(want), `${want} is not reached: ${names}`);
  for (const r of reached.filter((x) => names.indexOf(x.what) < names.indexOf('keys and help'))) assert.notEqual(r.outline, 'none', `${r.what} shows no focus`);
  await page.close();
});

test('the colours can be chosen and stay', async () => {
  const page = await browser.open(`${url}/health`, { scheme: 'dark' });
  const paper = () => page.evaluate(() => getComputedStyle(document.body.parentElement).backgroundColor);
  await page.waitForSelector('.card');
  const dark = await paper();
  await page.keyboard.press('d');
  const light = await paper();
  assert.notEqual(light, dark);
  await page.reload();
  await page.waitForSelector('.card');
  assert.equal(await paper(), light);
  await page.evaluate(() => localStorage.removeItem('theme'));
  await page.close();
});

test('help, menus and popovers are accessible', async () => {
  const page = await browser.open(`${url}/flows`);
  await page.waitForSelector(rows);
  await page.keyboard.press('?');
  await page.waitForSelector('dialog[open]');
  await browser.shot(page, 'help');
  await accessible(page, 'help');
  await page.keyboard.press('Escape');
  await page.locator('.statusline .popover > button').click();
  await browser.shot(page, 'kernel');
  await accessible(page, 'what is off');
  await page.keyboard.press('Escape');
  await page.getByRole('button', { name: 'Columns' }).click();
  await accessible(page, 'columns');
  await page.keyboard.press('Escape');
  await page.keyboard.press('j');
  await page.keyboard.press('m');
  await page.waitForSelector('[role=menu]');
  await browser.shot(page, 'menu');
  await accessible(page, 'menu');
  await page.keyboard.press('Escape');
  quiet(page);
  await page.close();
});
