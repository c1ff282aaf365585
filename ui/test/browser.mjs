// Drives Debian's chromium for the tests: a fresh profile each time, no
// network beyond the page, and a note of everything that went wrong.
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const shots = process.env.GHOSTLIGHT_SHOTS ?? '';

export async function startBrowser() {
  const profile = await mkdtemp(join(tmpdir(), 'ghostlight-browser-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', headless: true,
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
      // Nothing but loopback is looked up or reached.
      '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost'],
    viewport: { width: 1280, height: 800 }, colorScheme: 'dark', reducedMotion: 'reduce',
  });
  context.setDefaultTimeout(15_000);
  const opened = new Set();
  return {
    context,
    async open(url, { width = 1280, height = 800, scheme = 'dark' } = {}) {
      const page = await context.newPage();
      opened.add(page);
      page.on('close', () => opened.delete(page));
      page.problems = [];
      page.on('console', (m) => { if (['error', 'warning'].includes(m.type())) page.problems.push(m.text()); });
      page.on('pageerror', (e) => page.problems.push(String(e)));
      await page.setViewportSize({ width, height });
      await page.emulateMedia({ colorScheme: scheme, reducedMotion: 'reduce' });
      await page.goto(url);
      return page;
    },
    /** Closes what a test left open: each page may hold one of the six connections a browser has for a host. */
    async tidy() {
      await Promise.all([...opened].map((page) => page.close()));
    },
    async shot(page, name) {
      if (!shots) return;
      await mkdir(shots, { recursive: true });
      await page.screenshot({ path: join(shots, `${name}.png`) });
    },
    async close() {
      await context.close();
      await rm(profile, { recursive: true, force: true });
    },
  };
}

/** axe-core runs in the page's own world, past its content policy. */
export async function accessible(page, where) {
  const session = await page.context().newCDPSession(page);
  await session.send('Page.setBypassCSP', { enabled: true });
  await page.evaluate(axe);
  const found = await page.evaluate(() => axe.run({ resultTypes: ['violations'] }));
  const serious = found.violations.filter((v) => v.impact === 'serious' || v.impact === 'critical');
  const text = serious.map((v) => `${v.id}: ${v.help}\n  ${v.nodes.slice(0, 4).map((n) => `${n.html.slice(0, 160)} ${n.any[0]?.message ?? ''}`).join('\n  ')}`).join('\n');
  assert.equal(text, '', `axe on ${where}`);
}
