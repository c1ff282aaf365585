import { startBrowser } from './browser.mjs';
import { startMock } from './mock.mjs';
const mock = await startMock(); const b = await startBrowser();
const p = await b.open(mock.url + '/?view=table'); await p.waitForSelector('.table [role=row][data-key]');
await p.keyboard.press('j');await p.keyboard.press('j');console.log(await p.locator('.tr.active').count()); await p.keyboard.press('Enter'); await p.waitForTimeout(500); console.log(p.url(), p.problems, await p.locator('.panel').innerHTML().catch(e=>e.message.slice(0,200)));
await b.close(); await mock.close();
