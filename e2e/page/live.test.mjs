// The live view in a real Chromium.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { PHONE, buyer, close, look, open, sell, until } from './shop.mjs';

const { start } = await import(process.env.PAGE_PLACE ?? './local.mjs');
let place = null;

before(async () => {
  await open();
  place = await start();
});

after(async () => {
  await close();
  await place?.stop();
});

const picture = async () => (await fetch(`${place.live}.json`)).json();
const fact = (page, name) => page.locator('#sums div', { has: page.getByText(name, { exact: true }) })
  .locator('dd');

test('whoever runs the sale sees each sale, hold and share within a second or two', async () => {
  const { page, done } = await buyer(place.live);
  await page.locator('#shares li.Selling').first().waitFor();
  await until('all shares selling', 20, async () => (await page.locator('#shares li.Selling').count()) === 6);
  const before = await picture();
  await sell(place.url, { by: 'live-1', of: 'Second', seats: 3, train: 'G101/2027-02-02' });
  await sell(place.url, { by: 'live-2', of: 'Second', seats: 2, train: 'G101/2027-02-02', pay: false });
  const sold = String(before.stock.sold + 3);
  await until(`${sold} seats sold`, 5, async () => (await fact(page, 'sold').innerText()) === sold);
  const row = page.getByRole('row', { name: /^G101\/2027-02-02 Second 180/ });
  assert.match(await row.innerText(), /^G101\/2027-02-02\s+Second\s+180\s+175\s+0\s+2\s+3/);
  await look(page, 'live-desktop');
  const { stock, runs, nodes } = await picture();
  const sum = (name) => runs.flatMap((r) => r.classes).reduce((all, c) => all + c[name], 0);
  for (const name of ['seats', 'pool', 'free', 'held', 'sold']) assert.equal(stock[name], sum(name));
  assert.equal(stock.seats, stock.free + stock.held + stock.sold);
  assert.ok(nodes.length >= 3);
  await done();
});

test('a node that dies is seen to be silent, and its shares to move', async () => {
  const { page, done } = await buyer(place.live, { viewport: PHONE });
  await page.locator('#shares li.Selling').first().waitFor();
  const shows = (await picture()).node;
  const [dead] = (await place.nodes()).filter((n) => n.shares.length > 0 && n.node !== shows);
  await place.kill(dead.node);
  if (place.start) {
    await page.locator('#nodes tr', { hasText: dead.node }).locator('td.Silent').waitFor();
    await look(page, 'live-failed-phone');
  }
  await until('all shares selling again', 20, async () => {
    const { shares } = await picture();
    return shares.every((s) => s.state === 'Selling');
  });
  await place.start?.(dead.node);
  await until('every node heard', 20, async () => (await picture()).nodes
    .filter((n) => n.state === 'Ready').length >= 3);
  await done();
});

test('a live view in the dark', async () => {
  const { page, done } = await buyer(place.live, { colorScheme: 'dark' });
  await page.locator('#shares li').first().waitFor();
  await look(page, 'live-dark');
  await done();
});

test('buyers do not reach the live view', async () => {
  for (const path of ['/live', '/live.json']) {
    assert.equal((await fetch(place.url + path)).status, 404);
  }
});
