// A browser, and what the tests do in it again and again.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { chromium } from 'playwright-core';

const require = createRequire(import.meta.url);
const AXE = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

/** Where pictures are kept: below the build's folder, never in the checkout. */
const PICTURES = process.env.PAGE_PICTURES;

export const DESKTOP = { width: 1100, height: 900 };
export const PHONE = { width: 375, height: 740 };

let browser = null;

export async function open() {
  const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
  // As root there is no sandbox; the pages are our own, and on this machine.
  const args = process.getuid() === 0 ? ['--no-sandbox'] : [];
  browser = await chromium.launch({ executablePath, args });
}

export const close = () => browser?.close();

/** A buyer with a browser profile of their own. Errors in the page fail the test. */
export async function buyer(url, { viewport = DESKTOP, locale = 'en-GB', ...more } = {}) {
  const context = await browser.newContext({ viewport, locale, ...more });
  const page = await context.newPage();
  page.setDefaultTimeout(10_000);
  const errors = [];
  page.on('pageerror', (error) => errors.push(error.stack));
  page.on('console', (message) => {
    const text = message.text();
    // An answer that is a problem, and a node that is away, are what tests are about.
    const meant = /status of (401|409|422|503)|net::ERR_/.test(text);
    if (message.type() === 'error' && !meant) errors.push(text);
  });
  const sent = [];
  page.on('request', (request) => {
    if (request.method() !== 'POST' || !request.url().endsWith('/v1/orders')) return;
    sent.push({ key: request.headers()['idempotency-key'], body: request.postData() });
  });
  if (url) await page.goto(url);
  const name = () => page.evaluate(() => JSON.parse(localStorage.getItem('stationmaster.buyer')));
  const done = async () => {
    await context.close();
    assert.deepEqual(errors, [], 'the page has no errors');
  };
  return { page, sent, name, done };
}

/** Keeps a picture of the page, and lets axe look for what shuts people out. */
export async function look(page, name) {
  if (PICTURES) {
    fs.mkdirSync(PICTURES, { recursive: true });
    await page.screenshot({ path: path.join(PICTURES, `${name}.png`), fullPage: true });
  }
  await page.evaluate(AXE);
  const { violations, passes } = await page.evaluate(() => window.axe.run());
  const bad = violations.filter((v) => ['serious', 'critical'].includes(v.impact));
  const said = bad.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join(' | ')}`);
  assert.deepEqual(said, [], `axe on ${name}`);
  assert.ok(passes.length > 10, `axe looked at ${name}`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  assert.ok(wide <= 0, `${name} is ${wide} px too wide`);
}

export const run = (page, train) => page.getByRole('article', { name: train, exact: true });

export async function fill(page, train, of, documents) {
  await run(page, train).getByRole('button', { name: new RegExp(`^${of} `) }).click();
  for (const [i, document] of documents.entries()) {
    if (i > 0) await page.locator('#add').click();
    await page.locator(`#document-${i}`).fill(document);
  }
}

export async function hold(page, train, of, documents) {
  await fill(page, train, of, documents);
  await page.locator('#hold').click();
}

/** The newest order on the page, in some state. */
export async function ticket(page, state, timeout = 10_000) {
  const at = page.locator(`article.ticket.${state}`).first();
  await at.waitFor({ timeout });
  return at;
}

/** Looks until there is something, for so many seconds. */
export async function until(what, seconds, look) {
  const end = Date.now() + seconds * 1_000;
  for (;;) {
    const found = await look().catch(() => null);
    if (found) return found;
    if (Date.now() > end) throw new Error(`${what}: not within ${seconds} s`);
    await new Promise((resolve) => { setTimeout(resolve, 25); });
  }
}

let orders = 0;

async function post(url, by, body, key) {
  const headers = { 'X-Buyer-Id': by, ...(key && { 'Idempotency-Key': key }) };
  const response = await fetch(url, { method: 'POST', headers, body: JSON.stringify(body) });
  return { status: response.status, body: await response.json() };
}

/** One try to order, without a page. */
export function order(url, { by, of, seats = 1, train = 'G101/2027-02-01' }) {
  const passengers = Array.from({ length: seats }, (_, i) => ({ document: `T${i}` }));
  const body = { run: train, from: 'BJP', to: 'SHH', class: of, passengers };
  return post(`${url}/v1/orders`, by, body, `test-${process.pid}-${orders += 1}`);
}

/** An order that another buyer places and maybe pays: the answer, once it is not "busy". */
export async function sell(url, { pay = true, ...wish }) {
  const sure = (ask) => until('an answer', 15, async () => {
    const answer = await ask();
    return answer.status === 503 ? null : answer;
  });
  const held = await sure(() => order(url, wish));
  if (held.status >= 300 || !pay) return held;
  const { id, priceMinor } = held.body;
  const payment = { payment: `test-${id}`, amountMinor: priceMinor };
  return sure(() => post(`${url}/v1/orders/${id}/payment`, wish.by, payment));
}
