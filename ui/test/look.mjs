// Saves a picture of each page, at both widths and in both schemes, into
// GHOSTLIGHT_SHOTS: for eyes, not for assertions. Names on the command line
// choose pages.
import { startBrowser } from './browser.mjs';
import { startMock } from './mock.mjs';

const views = {
  overview: '/', map: '/map', services: '/services', requests: '/requests', traces: '/traces', flows: '/flows', processes: '/processes', health: '/health',
};
const only = process.argv.slice(2);
const mock = process.env.GHOSTLIGHT_URL ? undefined : await startMock();
const url = process.env.GHOSTLIGHT_URL ?? mock.url;
const browser = await startBrowser();
for (const [name, path] of Object.entries(views)) {
  if (only.length && !only.includes(name)) continue;
  for (const [width, height] of [[1280, 800], [390, 800]]) {
    for (const scheme of ['dark', 'light']) {
      const page = await browser.open(url + path, { width, height, scheme });
      await page.waitForTimeout(1500);
      await browser.shot(page, `${name}-${width}-${scheme}`);
      if (!['health', 'overview'].includes(name) && scheme === 'dark') {
        const row = page.locator(name === 'map' ? '.node' : '.window [role=row]').nth(3);
        if (await row.count()) {
          await row.click({ position: { x: 6, y: 6 }, force: true }).catch((e) => console.log(name, width, e.message.split('\n')[0]));
          await page.waitForTimeout(700);
          await browser.shot(page, `${name}-${width}-${scheme}-panel`);
        }
      }
      if (page.problems.length) console.log(name, width, scheme, page.problems);
      await page.close();
    }
  }
}
await browser.close();
await mock?.close();
