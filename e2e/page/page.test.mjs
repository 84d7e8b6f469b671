// The buyer's page in a real Chromium, on a fleet in local mode or, with PAGE_PLACE, elsewhere.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import {
  DESKTOP, PHONE, buyer, close, fill, hold, look, open, run, sell, ticket,
} from './shop.mjs';

const HERE = !process.env.PAGE_PLACE;
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

const attempt = (page) => page.locator('.attempt');
const sale = async () => (await fetch(`${place.url}/v1/sale`)).json();

test('a buyer finds a train, holds two seats side by side, pays, and gives the ticket back', async () => {
  const { page, sent, done } = await buyer(place.url);
  await run(page, 'G101').waitFor();
  await look(page, 'search-desktop');
  await page.locator('#to').selectOption('JNK');
  await run(page, 'D709').waitFor({ state: 'detached' });
  assert.match(await run(page, 'G101').innerText(), /¥184\.50/);
  await page.locator('#swap').click();
  await page.getByText('No train goes this way').first().waitFor();
  await page.locator('#swap').click();
  await fill(page, 'G101', 'Second', ['P1', 'P2']);
  await page.getByLabel('Window').check();
  await look(page, 'form-desktop');
  await page.locator('#hold').click();
  const held = await ticket(page, 'held');
  await look(page, 'held-desktop');
  assert.match(await held.innerText(), /coach 0[34], seats (\d+)[A-Z], \1[A-Z]/);
  assert.match(await held.innerText(), /Pay within\s+00:1\d/);
  assert.equal(sent.length, 1);
  assert.equal(JSON.parse(sent[0].body).preference, 'Window');
  await held.getByRole('button', { name: 'Pay ¥369.00' }).click();
  const paid = await ticket(page, 'paid');
  await look(page, 'paid-desktop');
  await paid.getByRole('button', { name: 'Give back' }).click();
  await look(page, 'sure-desktop');
  // Escape keeps the ticket.
  await page.keyboard.press('Escape');
  await ticket(page, 'paid');
  await page.locator('article.ticket.paid').getByRole('button', { name: 'Give back' }).click();
  await page.locator('dialog').getByRole('button', { name: 'Give back' }).click();
  await ticket(page, 'refunded');
  await done();
});

test('a group that no coach can seat hears the largest that fits, and orders that', async () => {
  const { page, sent, done } = await buyer(place.url, { viewport: PHONE });
  await run(page, 'G101').waitFor();
  await look(page, 'search-phone');
  await hold(page, 'G101', 'Business', ['P1', 'P2', 'P3', 'P4', 'P5']);
  await page.getByText('At most 4 passengers').first().waitFor();
  await look(page, 'group-phone');
  await page.getByRole('button', { name: 'Order for 4 instead' }).click();
  await page.locator('#document-3').waitFor();
  await look(page, 'form-phone');
  await page.locator('#hold').click();
  const held = await ticket(page, 'held');
  await look(page, 'held-phone');
  assert.notEqual(sent[0].key, sent[1].key, 'another body has another key');
  await held.getByRole('button', { name: 'Cancel the order' }).click();
  await page.locator('dialog').getByRole('button', { name: 'Cancel the order' }).click();
  await ticket(page, 'cancelled');
  await look(page, 'cancelled-phone');
  await done();
});

test('whoever holds seats already is led to that order, and sees it expire', async () => {
  const { page, name, done } = await buyer(place.url);
  await hold(page, 'D709', 'Sleeper', ['P1']);
  await ticket(page, 'held');
  await page.getByRole('link', { name: 'Buy', exact: true }).click();
  await page.locator('#runs button.class').first().waitFor();
  await page.getByRole('button', { name: /^Second .* free$/ }).last().click();
  await page.locator('#hold').click();
  await page.getByText('Pay or cancel first').waitFor();
  await look(page, 'too-many-holds-desktop');
  await attempt(page).getByRole('link').click();
  await page.getByRole('heading', { name: 'My orders' }).waitFor();
  await page.locator('article.ticket.expired').waitFor({ timeout: 40_000 });
  await look(page, 'expired-desktop');
  assert.equal(await page.locator('[id^=pay-]').count(), 0, 'nothing is left to pay');
  // A second visit finds the order in the same state.
  await page.reload();
  await page.locator('article.ticket.expired').waitFor();
  assert.match(await name(), /^guest-/);
  await done();
});

test('sold out says what is held and until when, and offers other seats', async () => {
  for (const by of ['out-1', 'out-2']) {
    assert.equal((await sell(place.url, { by, of: 'Business', pay: by === 'out-1', seats: 2 })).body.run, 'G101/2027-02-01');
  }
  const { page, sent, done } = await buyer(place.url);
  await hold(page, 'G101', 'Business', ['P1']);
  await page.getByRole('heading', { name: 'Sold out' }).waitFor();
  const text = await attempt(page).innerText();
  assert.match(text, /2 seats are held by buyers who have not paid yet; the next hold ends at \d\d:\d\d/);
  await look(page, 'sold-out-desktop');
  assert.equal(sent.length, 1, 'a clear no is not asked again');
  await attempt(page).getByRole('button', { name: /^D709 .*Sleeper/ }).click();
  await page.getByRole('heading', { name: /Sleeper on D709/ }).waitFor();
  assert.equal(await page.locator('#document-0').inputValue(), 'P1', 'nobody types it twice');
  await done();
});

test('an order goes on under its key when its answer is lost and the page reloaded', async () => {
  const { page, sent, name, done } = await buyer(place.url);
  // The node takes the order; its answer never arrives, twice.
  let lost = 0;
  await page.route('**/v1/orders', async (route) => {
    if (route.request().method() !== 'POST' || lost === 2) return route.continue();
    const answer = await route.fetch();
    if (lost === 0) assert.equal(answer.status(), 201);
    lost += 1;
    return lost === 1 ? route.abort('connectionreset') : undefined;
  });
  await hold(page, 'G101', 'Second', ['P1']);
  await page.getByText('The connection failed').first().waitFor();
  await look(page, 'unreachable-desktop');
  assert.equal(await page.locator('.attempt [id^=stop-]').count(), 1);
  while (lost < 2) await page.waitForTimeout(50);
  await page.reload();
  await ticket(page, 'held');
  const keys = new Set(sent.map((s) => s.key));
  const bodies = new Set(sent.map((s) => s.body));
  assert.equal(sent.length, 3);
  assert.deepEqual([keys.size, bodies.size], [1, 1]);
  const headers = { 'X-Buyer-Id': await name() };
  const { orders } = await (await fetch(`${place.url}/v1/orders`, { headers })).json();
  assert.equal(orders.length, 1, 'one press is one order');
  const kept = await page.evaluate(() => Object.keys(localStorage).filter((k) => k.includes('order.')));
  assert.deepEqual(kept, [], 'a finished order is not kept');
  await done();
});

test('two presses are one order', async () => {
  const { page, sent, done } = await buyer(place.url);
  await fill(page, 'D709', 'Second', ['P1']);
  await page.locator('#hold').dblclick({ force: true });
  await ticket(page, 'held');
  assert.equal(sent.length, 1);
  await done();
});

test('busy is said as busy, never as sold out, and is asked again under the same key', async () => {
  let sold = { status: 201 };
  for (let i = 0; sold.status < 300; i += 1) sold = await sell(place.url, { by: `first-${i}`, of: 'First' });
  assert.match(sold.body.type, /sold-out$/);
  // A buyer whose home is on one share, while another that has such seats loses its owner.
  const first = await buyer(place.url);
  await hold(first.page, 'G101', 'Second', ['P1']);
  await (await ticket(first.page, 'held')).getByRole('button', { name: /^Pay/ }).click();
  const text = await (await ticket(first.page, 'paid')).innerText();
  const home = Number(/Order (\d+)-/.exec(text)[1]);
  const own = await place.owner(home);
  const state = await first.page.context().storageState();
  await first.done();
  const url = place.at(own);
  const origins = state.origins.map((o) => ({ ...o, origin: url }));
  const { page, sent, done } = await buyer(url, { storageState: { cookies: [], origins } });
  // The order is let go while nobody can know yet that nothing is left: a proof needs fresh word
  // of every share, and these have no owner, or one that has just begun to listen.
  let go = null;
  const busy = new Promise((resolve) => { go = resolve; });
  await page.route('**/v1/orders', async (route) => {
    if (route.request().method() === 'POST') await busy;
    await route.continue();
  });
  await hold(page, 'G101', 'First', ['P1']);
  await attempt(page).waitFor();
  await place.outage(own);
  go();
  await attempt(page).getByText('Very many people are buying right now').waitFor();
  assert.doesNotMatch(await page.locator('#main').innerText(), /sold out/i);
  await look(page, 'busy-desktop');
  await page.getByRole('heading', { name: 'Sold out' }).waitFor({ timeout: 30_000 });
  assert.ok(sent.length > 1);
  assert.equal(new Set(sent.map((s) => s.key)).size, 1);
  await place.heal();
  await done();
});

test('a node that dies in the middle of an order costs a moment and nothing else', { skip: !HERE }, async () => {
  const own = await place.owner(1);
  const url = place.at(own);
  const { page, sent, done } = await buyer(url);
  await fill(page, 'G101', 'Second', ['P1']);
  await place.kill(own.node);
  await page.locator('#hold').click();
  await page.getByText('The connection failed').first().waitFor();
  await place.start(own.node);
  await ticket(page, 'held', 30_000);
  assert.equal(new Set(sent.map((s) => s.key)).size, 1);
  await done();
});

test('all of it works in Chinese, on a phone, with the keyboard alone', async () => {
  const { page, done } = await buyer(place.url, { viewport: PHONE, locale: 'zh-CN' });
  await run(page, 'G101').waitFor();
  assert.equal(await page.locator('html').getAttribute('lang'), 'zh-CN');
  await look(page, 'search-chinese-phone');
  const press = async (id) => {
    for (let i = 0; i < 40; i += 1) {
      if (await page.evaluate(() => document.activeElement.id) === id) return;
      await page.keyboard.press('Tab');
    }
    throw new Error(`Tab does not reach ${id}`);
  };
  await press('class D709/2027-02-01 Second');
  await page.keyboard.press('Enter');
  await press('document-0');
  await page.keyboard.type('G98765432');
  await look(page, 'form-chinese-phone');
  await page.keyboard.press('Enter');
  const held = await ticket(page, 'held');
  assert.equal(await page.evaluate(() => document.activeElement.className), 'ticket held');
  await look(page, 'held-chinese-phone');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await page.getByText('已支付').waitFor();
  await look(page, 'paid-chinese-phone');
  await page.getByRole('button', { name: 'English' }).click();
  await page.getByText('Paid', { exact: true }).waitFor();
  await page.reload();
  await page.getByText('Paid', { exact: true }).waitFor();
  assert.equal(await held.count(), 0);
  await done();
});

test('the page is as legible in the dark', async () => {
  const { page, done } = await buyer(place.url, { colorScheme: 'dark', viewport: DESKTOP });
  await fill(page, 'D709', 'Second', ['P1']);
  await look(page, 'form-dark');
  await page.locator('#hold').click();
  await ticket(page, 'held');
  await look(page, 'held-dark');
  await done();
});

test('an order that is prepared before the opening is sent at the opening', { skip: !HERE }, async () => {
  const at = new Date(Date.now() + 16_000).toISOString();
  const early = await start((text) => text.replace('spec:\n', `spec:\n  openTime: "${at}"\n`));
  const { page, sent, done } = await buyer(early.url);
  await page.getByText('The sale opens on').waitFor();
  await hold(page, 'G101', 'Second', ['P1']);
  await page.getByRole('heading', { name: 'Your order is ready' }).waitFor();
  await look(page, 'before-opening-desktop');
  assert.equal(sent.length, 0, 'nobody asks before the opening');
  await page.reload();
  await page.getByRole('heading', { name: 'Your order is ready' }).waitFor();
  await ticket(page, 'held', 30_000);
  assert.ok(Date.now() >= Date.parse(at));
  await done();
  await early.stop();
});

test('what the page loads may be kept, and nothing else may run in it', { skip: process.env.PAGE_STUB }, async () => {
  const index = await fetch(`${place.url}/`);
  const policy = index.headers.get('content-security-policy');
  assert.match(policy, /default-src 'none'.*script-src 'self'/);
  assert.match(index.headers.get('cache-control'), /max-age=60/);
  const again = await fetch(`${place.url}/`, { headers: { 'If-None-Match': index.headers.get('etag') } });
  assert.equal(again.status, 304);
  for (const [, asset] of (await index.text()).matchAll(/"(\/page\/[^"]+)"/g)) {
    const file = await fetch(place.url + asset);
    assert.equal(file.status, 200, asset);
    assert.match(file.headers.get('cache-control'), /immutable/);
  }
  assert.equal((await sale()).currency, 'CNY');
});
