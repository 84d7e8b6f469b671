// The buyer's page: draws what shop.js knows.

import * as shop from './shop.js';

const { Problem, Stopped, now, pause, store } = shop;

const LANGUAGES = { en: 'English', zh: '中文' };
// Seconds before the end of a hold at which a screen reader says so.
const SPOKEN_S = [300, 60, 20];
// A hold that has run out is asked after until a node has written its end.
const ENDING_MS = 1_500;
const ON_ITS_WAY_MS = 2_000;
const PAYMENT_MS = 4_000;
// How long the sale's own state may be old: its opening can be moved.
const SALE_MS = 15_000;

const $ = (id) => document.getElementById(id);

/** An element. Text is only ever set as text: nothing that a node says becomes markup. */
function h(tag, props, ...children) {
  const element = document.createElement(tag);
  const { value, ...others } = props ?? {};
  for (const [name, is] of Object.entries(others)) {
    if (is === undefined || is === null || is === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), is);
    else element.setAttribute(name, is === true ? '' : is);
  }
  element.append(...children.flat(9).filter((c) => c !== null && c !== undefined && c !== false));
  if (value !== undefined) element.value = value;
  return element;
}

/** Draws a part anew and leaves the focus where it was. */
function draw(container, ...nodes) {
  const { activeElement } = document;
  const id = container.contains(activeElement) ? activeElement.id : '';
  const range = id && activeElement.type === 'text' ? activeElement.selectionStart : null;
  container.replaceChildren(...nodes.flat(9).filter(Boolean));
  const again = id && $(id);
  if (!again || again === document.activeElement) return;
  again.focus({ preventScroll: true });
  if (range !== null) again.setSelectionRange(range, range);
}

let t = null;
let language = 'en';
let locale = 'en';
let sale = null;
let stations = new Map();
let view = 'buy';
const wish = { from: '', to: '', date: '' };
let runs = null;
let runsProblem = null;
let draft = null;
const form = { documents: [''], preference: '' };
const attempts = new Map();
const orders = new Map();
let ordersProblem = null;
const acts = new Map();
const notes = new Map();
const timetables = new Map();
let signedOut = false;

// Words, numbers and times.

async function speak(wanted) {
  language = LANGUAGES[wanted] ? wanted : 'en';
  t = (await import(`./${language}.js`)).default;
  locale = navigator.languages.find((l) => l.startsWith(language)) ?? t.locale;
  document.documentElement.lang = t.locale;
}

const usual = () => navigator.languages.map((l) => l.slice(0, 2)).find((l) => LANGUAGES[l]);

function money(minor) {
  const format = new Intl.NumberFormat(locale, {
    style: 'currency', currency: sale.currency, currencyDisplay: 'narrowSymbol',
  });
  return format.format(minor / 10 ** format.resolvedOptions().maximumFractionDigits);
}

const count = (n) => new Intl.NumberFormat(locale).format(n);

/** A date of the sale, which has no zone of its own. */
function day(date, style = { weekday: 'short', day: 'numeric', month: 'long', year: 'numeric' }) {
  const at = Date.parse(`${date}T12:00:00Z`);
  return new Intl.DateTimeFormat(locale, { ...style, timeZone: 'UTC' }).format(at);
}

/** A moment by the sale's clock; the zone is named to whoever lives in another. */
function moment(iso, style = {}) {
  const here = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const zone = here === sale.timeZone ? {} : { timeZoneName: 'short' };
  const clock = { hour: '2-digit', minute: '2-digit', timeZone: sale.timeZone, ...zone };
  return new Intl.DateTimeFormat(locale, { ...clock, ...style }).format(Date.parse(iso));
}

const minutes = (clock) => Number(clock.split(':')[0]) * 60 + Number(clock.split(':')[1]);

/** A time of a timetable, whose hours may pass 24. */
function hour(clock) {
  const at = minutes(clock);
  const style = { hour: '2-digit', minute: '2-digit', timeZone: 'UTC' };
  const text = new Intl.DateTimeFormat(locale, style).format((at % 1440) * 60_000);
  const later = Math.floor(at / 1440);
  return [h('time', {}, text), later > 0 && h('sup', { title: t.daysLater(later) },
    h('span', { 'aria-hidden': 'true' }, `+${later}`),
    h('span', { class: 'unseen' }, ` ${t.daysLater(later)}`))];
}

function left(iso) {
  const s = Math.max(0, Math.floor((Date.parse(iso) - now()) / 1_000));
  const two = (n) => String(n).padStart(2, '0');
  const [hours, rest] = [Math.floor(s / 3_600), `${two(Math.floor((s % 3_600) / 60))}:${two(s % 60)}`];
  if (hours >= 48) return t.days(Math.floor(hours / 24));
  return hours > 0 ? `${hours}:${rest}` : rest;
}

const countdown = (iso) => h('span', { class: 'countdown', 'data-until': iso }, left(iso));

const station = (code) => stations.get(code) || code;

let lastSaid = '';

/** Tells everybody what has changed, aloud too. */
function say(text) {
  // The same words again would not be spoken.
  lastSaid = text === lastSaid ? `${text}\u00a0` : text;
  $('status').textContent = lastSaid;
}

function explain(problem) {
  const text = t.problems[problem.kind];
  if (text) return typeof text === 'function' ? text(problem.body, moment) : text;
  return problem.passes ? t.problems.unreachable : problem.message;
}

// The frame.

function drawFrame() {
  document.title = t.title;
  const held = [...orders.values()].filter((o) => o.state === 'held').length;
  const tab = (name, text) => h('a', {
    id: `tab-${name}`, href: `#${name}`, 'aria-current': view === name && 'page',
  }, text);
  const other = Object.keys(LANGUAGES).find((l) => l !== language);
  draw($('top'),
    h('div', { class: 'bar' },
      h('h1', {}, t.title, ' ', sale && h('small', {}, sale.name)),
      h('button', { id: 'language', class: 'plain', lang: other, onclick: () => turn(other) },
        LANGUAGES[other])),
    sale && h('nav', { 'aria-label': t.title },
      tab('buy', t.buy),
      tab('orders', held ? t.ordersHeld(held) : t.orders)));
  const buyer = sale && shop.buyer();
  draw($('foot'),
    sale?.identity.type === 'Header' && h('p', {}, t.demonstration(buyer)),
    sale?.payment.type === 'Sandbox' && h('p', {}, t.sandbox),
    sale && h('p', {}, t.zone(sale.timeZone)));
  $('buy').hidden = !sale || view !== 'buy';
  $('orders').hidden = !sale || view !== 'orders';
}

async function turn(to) {
  store.set('language', to);
  await speak(to);
  say('');
  drawAll();
}

function drawBanner() {
  const { state, opens } = sale;
  const text = state === 'scheduled' && opens
    ? [t.opens(moment(opens, { dateStyle: undefined, day: 'numeric', month: 'long' })), ' ',
      countdown(opens)]
    : { scheduled: [t.notOpen], suspended: [t.suspended], closed: [t.closed] }[state];
  draw($('banner'), text && h('p', { class: 'note' }, text),
    shop.buyer() === null && h('p', { class: 'note' }, signedOut ? t.signInAgain : t.signIn));
}

function drawAll() {
  drawFrame();
  if (!sale) return;
  drawBanner();
  drawSearch();
  drawAttempts();
  drawOrders();
}

// Searching.

function field(id, label, input) {
  return h('p', { class: 'field' }, h('label', { for: id }, label), input);
}

function choose(id, name, options) {
  const change = (event) => {
    wish[name] = event.target.value;
    search();
  };
  return h('select', { id, onchange: change, value: wish[name] },
    options.map(([value, text]) => h('option', { value }, text)));
}

function drawSearch() {
  const stops = [...stations].map(([code, name]) => [code, name]);
  const swap = () => {
    [wish.from, wish.to] = [wish.to, wish.from];
    search();
    drawSearch();
  };
  draw($('buy'),
    h('h2', { id: 'buy-title', tabindex: '-1' }, t.search),
    h('form', { class: 'search', onsubmit: (event) => event.preventDefault() },
      field('from', t.from, choose('from', 'from', stops)),
      h('button', { id: 'swap', type: 'button', class: 'plain', 'aria-label': t.swap,
        title: t.swap, onclick: swap }, '⇄'),
      field('to', t.to, choose('to', 'to', stops)),
      field('date', t.date, choose('date', 'date', sale.dates.map((d) => [d, day(d)])))),
    h('p', { id: 'found', class: 'muted' }),
    h('div', { id: 'runs' }));
  drawRuns();
}

let watching = 0;

/** Looks for runs, and keeps their counts up to date while somebody looks. */
async function search() {
  store.set('wish', wish);
  const mine = watching += 1;
  const { from, to, date } = wish;
  const path = `/v1/runs?from=${encodeURIComponent(from)}&to=${encodeURIComponent(to)}&date=${date}`;
  [runs, runsProblem, draft] = [null, null, null];
  drawRuns();
  for (let failed = 0; mine === watching;) {
    await seen();
    let seconds = 3;
    try {
      const asked = from === to ? { body: { runs: [] }, seconds: 60 } : await shop.fresh(path, !runs);
      if (mine !== watching) return;
      [failed, seconds, runsProblem] = [0, asked.seconds, null];
      if (asked.body) showRuns(asked.body.runs);
      else drawFound();
    } catch (problem) {
      if (mine !== watching) return;
      if (!(problem instanceof Problem)) throw problem;
      runsProblem = problem;
      drawFound();
      if (!problem.passes) return;
      seconds = problem.wait(failed += 1) / 1_000;
    }
    await pause(seconds * 1_000 * (1 + Math.random() / 5));
  }
}

/** Resolves when the page is looked at, at the part with the runs. */
async function seen() {
  while (document.hidden || view !== 'buy') {
    await new Promise((resolve) => { wake = resolve; });
  }
}
let wake = () => {};

const shape = (list) => JSON.stringify(list.map((r) => [r.run, r.stops, r.classes.map((c) => [c.name, c.priceMinor])]));

function showRuns(list) {
  const same = runs && shape(runs) === shape(list);
  const first = runs === null;
  runs = list;
  if (!same) drawRuns();
  else for (const run of runs) for (const of of run.classes) showCount(run, of);
  drawFound();
  if (first) say(runs.length ? t.trains(runs.length) : t.none);
}

function drawFound() {
  const at = $('found');
  if (!at) return;
  if (runsProblem) at.textContent = explain(runsProblem);
  else if (runs === null) at.textContent = t.searching;
  else at.textContent = runs.length ? t.trains(runs.length) : t.none;
}

const countId = (run, of) => `count ${run.run} ${of.name}`;

function showCount(run, of) {
  const at = $(countId(run, of));
  if (!at) return;
  const text = freeText(run, of);
  if (at.textContent !== text) at.textContent = text;
  at.parentElement.classList.toggle('none', of.complete && of.available === 0);
}

function freeText(run, of) {
  if (run.withdrawn) return t.offSale;
  if (of.complete) return of.available ? t.free(count(of.available)) : t.noneFree;
  // Not every share was heard of: what is known is a lower bound.
  return of.available ? t.atLeast(count(of.available)) : t.counting;
}

function ends(run, from = wish.from, to = wish.to) {
  const find = (code) => run.stops.find((s) => s.code === code) ?? {};
  return [find(from), find(to)];
}

function drawRuns() {
  drawFound();
  draw($('runs'), (runs ?? []).map(drawRun));
}

function drawRun(run) {
  const [a, b] = ends(run);
  const [train] = run.run.split('/');
  const length = minutes(b.arrives) - minutes(a.departs);
  const chosen = draft?.run === run.run;
  const one = (of) => {
    const pressed = chosen && draft.class === of.name;
    return h('button', {
      id: `class ${run.run} ${of.name}`, type: 'button', 'aria-expanded': String(pressed),
      class: of.complete && of.available === 0 ? 'class none' : 'class',
      onclick: () => pick(run, of),
    }, h('span', { class: 'name' }, of.name), ' ',
    h('span', { class: 'price' }, money(of.priceMinor)), ' ',
    h('span', { class: 'count', id: countId(run, of) }, freeText(run, of)));
  };
  return h('article', { class: 'run', 'aria-label': train },
    h('h3', {}, h('span', { class: 'train' }, train), ' ',
      h('span', { class: 'times' }, hour(a.departs), ' ', h('span', { 'aria-hidden': 'true' }, '→'),
        h('span', { class: 'unseen' }, ` ${t.until} `), ' ', hour(b.arrives)), ' ',
      h('span', { class: 'muted' }, t.duration(Math.floor(length / 60), length % 60))),
    h('div', { class: 'classes', role: 'group', 'aria-label': t.classes }, run.classes.map(one)),
    chosen && drawForm(run));
}

// Ordering.

function pick(run, of) {
  if (draft?.run === run.run && draft.class === of.name) draft = null;
  else draft = { run: run.run, from: wish.from, to: wish.to, class: of.name };
  drawRuns();
  if (draft) $('form-title').focus();
}

function drawForm(run) {
  const of = run.classes.find((c) => c.name === draft.class);
  const most = sale.passengersPerOrder ?? 1;
  const change = (act) => () => { act(); drawRuns(); };
  const documents = form.documents.map((value, i) => h('p', { class: 'field row' },
    h('label', { for: `document-${i}` }, t.document(i + 1, form.documents.length)),
    h('input', {
      id: `document-${i}`, type: 'text', required: true, maxlength: '64', autocomplete: 'off',
      autocapitalize: 'characters', spellcheck: 'false', value, 'aria-describedby': 'hint',
      // Not spaces alone.
      pattern: '.*\\S.*',
      oninput: (event) => { form.documents[i] = event.target.value; },
    }),
    form.documents.length > 1 && h('button', {
      id: `remove-${i}`, type: 'button', class: 'plain', 'aria-label': t.removeNumber(i + 1),
      onclick: () => {
        form.documents.splice(i, 1);
        drawRuns();
        $(`document-${Math.max(0, i - 1)}`).focus();
      },
    }, t.remove)));
  const add = () => {
    form.documents.push('');
    drawRuns();
    $(`document-${form.documents.length - 1}`).focus();
  };
  const seat = (value, text) => h('label', {}, h('input', {
    id: `seat-${value || 'any'}`, type: 'radio', name: 'seat', value,
    checked: form.preference === value, onchange: () => { form.preference = value; },
  }), ' ', text);
  const seats = form.documents.length;
  const dead = [...attempts.values()].some((a) => !a.refused) || shop.buyer() === null;
  return h('form', { class: 'order', onsubmit: (event) => { event.preventDefault(); submit(); } },
    h('h4', { id: 'form-title', tabindex: '-1' },
      t.trip(draft.class, run.run.split('/')[0], station(draft.from), station(draft.to))),
    h('fieldset', {}, h('legend', {}, t.passengers), documents,
      h('p', { id: 'hint', class: 'muted' }, t.documentHint),
      seats < most && h('button', { id: 'add', type: 'button', class: 'plain', onclick: add },
        t.addPassenger)),
    h('fieldset', { class: 'seats' }, h('legend', {}, t.seat),
      seat('', t.anySeat), seat('Window', t.window), seat('Aisle', t.aisle)),
    h('p', { class: 'actions' },
      h('button', { id: 'hold', class: 'main', disabled: dead }, t.hold(seats, money(of.priceMinor * seats))),
      h('button', { id: 'close', type: 'button', class: 'plain', onclick: change(() => { draft = null; }) },
        t.close)),
    sale.paymentSeconds && h('p', { class: 'muted' },
      t.holdNote(Math.floor(sale.paymentSeconds / 60), sale.paymentSeconds)));
}

function submit() {
  // One press is one order: a second one finds the first under way.
  if (!draft || [...attempts.values()].some((a) => !a.refused)) return;
  const passengers = form.documents.map((document) => ({ document: document.trim() }));
  const { preference } = form;
  const body = { ...draft, passengers, ...(preference && { preference }) };
  begin(shop.prepare(body), true);
}

/** Follows an order until it has an answer. */
async function begin(attempt, focus) {
  const stop = new AbortController();
  const item = { attempt, stop, news: null, refused: null, body: JSON.parse(attempt.body) };
  attempts.set(attempt.key, item);
  draft = null;
  drawAttempts();
  drawRuns();
  if (focus) $(`attempt-${attempt.key}`)?.focus();
  const tell = (news) => {
    item.news = news;
    drawAttempts();
    // Aloud once for each kind of trouble, not for each try.
    if (item.spoken !== news.problem.kind) say(explain(news.problem));
    item.spoken = news.problem.kind;
  };
  try {
    const order = await shop.place(attempt, { tell, signal: stop.signal });
    attempts.delete(attempt.key);
    view = 'orders';
    keepOrder(order);
    history.replaceState(null, '', '#orders');
    say(t.says[order.state]?.(order.heldUntil && moment(order.heldUntil)) ?? '');
    drawAll();
    $(`order-${order.id}`)?.focus();
  } catch (problem) {
    if (problem instanceof Stopped) {
      refuse(item, new Problem(attempt.uncertain ? 'stopped-uncertain' : 'stopped', 400));
      loadOrders(item.body.run);
    } else if (problem instanceof Problem) {
      refuse(item, problem);
    } else throw problem;
  }
  drawRuns();
}

async function refuse(item, problem) {
  if (problem.kind === 'unidentified') {
    attempts.delete(item.attempt.key);
    signOut();
    return;
  }
  item.refused = problem;
  drawAttempts();
  say(explain(problem));
  $(`attempt-${item.attempt.key}`)?.focus();
  if (problem.kind === 'too-many-holds') {
    await loadOrders(item.body.run);
    drawAttempts();
  }
}

function signOut() {
  shop.signOut();
  signedOut = true;
  drawAll();
  say(t.signInAgain);
}

function drawAttempts() {
  draw($('attempts'), [...attempts.values()].map(drawAttempt));
}

function drawAttempt(item) {
  const { attempt, body, news, refused } = item;
  const [train, date] = body.run.split('/');
  const done = () => {
    shop.forget(attempt);
    attempts.delete(attempt.key);
    drawAttempts();
    drawRuns();
    $('buy-title')?.focus();
  };
  const what = h('p', {}, t.trip(body.class, train, station(body.from), station(body.to)), ', ',
    day(date), ', ', t.seats(body.passengers.length));
  const title = (text) => h('h2', { id: `attempt-${attempt.key}`, tabindex: '-1' }, text);
  if (item.old) {
    return h('section', { class: 'attempt' }, title(t.unfinished), what,
      h('p', {}, t.unfinishedText),
      h('p', { class: 'actions' },
        h('button', { class: 'main', id: `again-${attempt.key}`, onclick: () => begin(attempt, true) }, t.askAgain),
        h('button', { class: 'plain', id: `drop-${attempt.key}`, onclick: done }, t.forget)));
  }
  if (refused) {
    return h('section', { class: 'attempt refused' }, title(t.titles[refused.kind] ?? t.titles.other),
      what, h('p', {}, explain(refused)), wayOut(item, done));
  }
  const waits = news?.problem.kind === 'not-open' && news.problem.body.opens;
  return h('section', { class: 'attempt', 'aria-busy': 'true' },
    title(waits ? t.waitingToOpen : t.onItsWay), what,
    h('p', { class: 'progress' }, news ? explain(news.problem) : t.asking),
    waits ? h('p', {}, countdown(waits))
      : news && h('p', { class: 'muted' }, t.tries(news.attempt)),
    h('p', { class: 'actions' },
      h('button', { class: 'plain', id: `stop-${attempt.key}`, onclick: () => item.stop.abort() }, t.stop)));
}

/** What a buyer can do after a no. */
function wayOut(item, done) {
  const { refused, body } = item;
  const reopen = (wanted) => {
    done();
    Object.assign(wish, { from: body.from, to: body.to, date: wanted.run.split('/')[1] });
    if (wanted.documents) form.documents = wanted.documents;
    view = 'buy';
    draft = { run: wanted.run, from: body.from, to: body.to, class: wanted.class };
    drawAll();
    $('form-title')?.focus();
  };
  const again = (text) => h('button', { class: 'main', id: `retry-${item.attempt.key}`,
    onclick: () => { done(); begin(shop.prepare(body), true); } }, text);
  const button = (id, text, wanted) => h('button', { class: 'plain', id: `${id}-${item.attempt.key}`,
    onclick: () => reopen(wanted) }, text);
  const dismiss = h('button', { class: 'plain', id: `done-${item.attempt.key}`, onclick: done }, t.close);
  const more = [];
  if (refused.kind === 'sold-out') {
    const others = (runs ?? []).flatMap((run) => run.classes
      .filter((c) => c.available >= body.passengers.length)
      .filter((c) => run.run !== body.run || c.name !== body.class)
      .map((c) => [run, c]));
    if (others.length) {
      more.push(h('p', {}, t.others), h('ul', {}, others.slice(0, 6).map(([run, of], i) => h('li', {},
        button(`other-${i}`, [run.run.split('/')[0], ' ', hour(ends(run, body.from, body.to)[0].departs),
          ` · ${of.name} · ${money(of.priceMinor)} · ${freeText(run, of)}`], { run: run.run, class: of.name })))));
    }
    more.push(h('p', { class: 'actions' }, again(t.tryAgain), dismiss));
    return more;
  }
  if (refused.kind === 'group-too-large' && refused.body.largest > 0) {
    const { largest } = refused.body;
    const documents = body.passengers.slice(0, largest).map((p) => p.document);
    return h('p', { class: 'actions' },
      h('button', { class: 'main', id: `fewer-${item.attempt.key}`,
        onclick: () => reopen({ run: body.run, class: body.class, documents }) }, t.orderFor(largest)), dismiss);
  }
  if (refused.kind === 'too-many-holds') {
    const held = [...orders.values()].filter((o) => o.run === body.run && o.state === 'held');
    return [held.map((o) => h('p', {}, h('a', { href: `#order-${o.id}` }, t.heldOrder(o.id)))),
      h('p', { class: 'actions' }, dismiss)];
  }
  return h('p', { class: 'actions' }, dismiss);
}

// Orders.

function keepOrder(order) {
  const { id } = order;
  const before = orders.get(id);
  const [old, late] = [before?.position, order.position];
  // Answers may overtake each other; the ledger says which is later.
  if (old && late && old.partition === late.partition && late.offset < old.offset) return;
  orders.set(id, order);
  if (before && before.state !== order.state) say(t.says[order.state]?.() ?? '');
  const { run } = order;
  if (!timetables.has(run)) {
    timetables.set(run, null);
    shop.fresh(`/v1/runs/${run}`, true).then(({ body }) => {
      timetables.set(run, body);
      drawOrders();
    }, () => timetables.delete(run));
  }
  follow(id);
}

/** Reads the buyer's orders on a run, or all. */
async function loadOrders(run) {
  if (shop.buyer() === null) return;
  try {
    for (const order of await shop.insist(() => shop.orders(run), {
      tell: ({ problem }) => {
        ordersProblem = problem;
        drawOrders();
      },
    })) keepOrder(order);
    ordersProblem = null;
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (problem.kind === 'unidentified') signOut();
    ordersProblem = problem;
  }
  drawFrame();
  drawOrders();
}

const following = new Set();

/** Asks after an order that changes without us: its hold ends, it travels, a payment comes. */
async function follow(id) {
  if (following.has(id)) return;
  following.add(id);
  try {
    for (;;) {
      const order = orders.get(id);
      const over = order?.state === 'held' && Date.parse(order.heldUntil) <= now();
      let ms = null;
      if (over) ms = ENDING_MS;
      else if (order?.state === 'held' && sale.payment.type === 'Webhook') ms = PAYMENT_MS;
      else if (order?.state === 'held') ms = Date.parse(order.heldUntil) - now() + 300;
      else if (order?.state === 'on-its-way') ms = ON_ITS_WAY_MS;
      if (ms === null) return;
      await pause(ms * (over ? 1 + Math.random() : 1));
      if (acts.has(id) || orders.get(id)?.state !== order.state) continue;
      drawOrders();
      try {
        keepOrder(await shop.read(id));
        drawFrame();
        drawOrders();
      } catch (problem) {
        if (!(problem instanceof Problem) || !problem.passes) return;
        await pause(problem.wait(2));
      }
    }
  } finally {
    following.delete(id);
  }
}

function drawOrders() {
  if (!sale) return;
  // Those that wait for their buyer first; then the newest of each run.
  const newest = (a, b) => a.run.localeCompare(b.run)
    || b.id.localeCompare(a.id, 'en', { numeric: true });
  const waits = (o) => ['held', 'on-its-way', 'returned'].includes(o.state);
  const list = [...orders.values()].sort((a, b) => waits(b) - waits(a) || newest(a, b));
  const empty = ordersProblem ? explain(ordersProblem) : t.noOrders;
  draw($('orders'),
    h('h2', { id: 'orders-title', tabindex: '-1' }, t.orders),
    ordersProblem && list.length > 0 && h('p', { class: 'muted' }, explain(ordersProblem)),
    list.length ? list.map(drawOrder) : h('p', { class: 'muted' }, empty));
}

function drawOrder(order) {
  const [train, date] = order.run.split('/');
  const run = timetables.get(order.run);
  const [a, b] = run ? ends(run, order.from, order.to) : [{}, {}];
  const act = acts.get(order.id);
  const over = order.state === 'held' && Date.parse(order.heldUntil) <= now();
  const held = order.state === 'held' && !over;
  return h('article', { class: `ticket ${order.state}`, id: `order-${order.id}`, tabindex: '-1',
    'aria-label': t.heldOrder(order.id) },
  h('p', { class: 'state' }, over ? t.ending : t.states[order.state] ?? order.state),
  h('h3', {}, a.name || order.from, ' ', h('span', { 'aria-hidden': 'true' }, '→'),
    h('span', { class: 'unseen' }, t.until), ' ', b.name || order.to),
  h('p', {}, train, ' · ', day(date), a.departs && [' · ', hour(a.departs), '–', hour(b.arrives)]),
  h('p', {}, order.class, order.seats.length > 0 && ' · ',
    [...byCoach(order.seats)].map(([coach, numbers]) => t.coach(coach, numbers)).join('; '),
    ' · ', money(order.priceMinor)),
  h('p', { class: 'muted' }, t.number(order.id)),
  order.paymentReturned && h('p', { class: 'note' }, t.paymentReturned),
  over && h('p', {}, t.endingText),
  held && h('p', { class: 'deadline', role: 'timer' }, t.payWithin, ' ', countdown(order.heldUntil),
    ' ', h('span', { class: 'muted' }, t.payBy(moment(order.heldUntil)))),
  held && sale.payment.type === 'Webhook' && h('p', {}, t.awaitsPayment),
  act && h('p', { class: 'progress' }, act),
  notes.has(order.id) && h('p', { class: 'note' }, notes.get(order.id)),
  h('p', { class: 'actions' },
    held && sale.payment.type === 'Sandbox' && h('button', { class: 'main', id: `pay-${order.id}`,
      disabled: Boolean(act), onclick: () => perform(order, 'pay') }, t.pay(money(order.priceMinor))),
    held && h('button', { class: 'plain', id: `cancel-${order.id}`, disabled: Boolean(act),
      onclick: () => confirmed(order, 'cancel') }, t.cancel),
    order.state === 'paid' && h('button', { class: 'plain', id: `refund-${order.id}`,
      disabled: Boolean(act), onclick: () => confirmed(order, 'refund') }, t.refund)));
}

function byCoach(seats) {
  const coaches = new Map();
  for (const seat of seats) coaches.set(seat.coach, [...coaches.get(seat.coach) ?? [], seat.number]);
  return coaches;
}

/** Asks once more before a seat is given away. */
function confirmed(order, act) {
  const dialog = h('dialog', { 'aria-labelledby': 'sure' },
    h('h2', { id: 'sure' }, act === 'cancel' ? t.cancelSure : t.refundSure),
    h('p', {}, act === 'cancel' ? t.cancelText : t.refundText(money(order.priceMinor))),
    h('form', { method: 'dialog', class: 'actions' },
      h('button', { class: 'danger', value: 'yes', id: 'yes' }, act === 'cancel' ? t.cancel : t.refund),
      h('button', { class: 'plain', value: 'no', id: 'no', autofocus: true }, t.keep)));
  dialog.addEventListener('close', () => {
    dialog.remove();
    $(`${act}-${order.id}`)?.focus();
    if (dialog.returnValue === 'yes') perform(order, act);
  });
  document.body.append(dialog);
  dialog.showModal();
}

/** Pays, cancels or gives back: repeated until a node has said what became of it. */
async function perform(order, act) {
  const { id } = order;
  if (acts.has(id)) return;
  const show = (text) => {
    acts.set(id, text);
    drawOrders();
  };
  notes.delete(id);
  show(act === 'pay' ? t.paying : t.cancelling);
  const tell = ({ problem }) => show(explain(problem));
  try {
    const request = () => (act === 'pay' ? shop.pay(order) : shop.cancel(id));
    keepOrder(await shop.insist(request, { tell }));
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    if (problem.kind === 'unidentified') signOut();
    else notes.set(id, explain(problem));
    say(explain(problem));
  }
  acts.delete(id);
  drawFrame();
  drawOrders();
  $(`order-${id}`)?.focus({ preventScroll: true });
}

// Time and place.

function tick() {
  for (const at of document.querySelectorAll('[data-until]')) {
    const text = left(at.dataset.until);
    if (at.textContent !== text) at.textContent = text;
    const s = (Date.parse(at.dataset.until) - now()) / 1_000;
    at.classList.toggle('soon', s < 60);
  }
  for (const order of orders.values()) {
    if (order.state !== 'held') continue;
    const s = Math.floor((Date.parse(order.heldUntil) - now()) / 1_000);
    if (SPOKEN_S.includes(s) && order.spoken !== s) {
      order.spoken = s;
      say(t.soon(s));
    }
  }
}

function go(focus = true) {
  const at = location.hash.slice(1);
  const before = view;
  view = at === 'orders' || at.startsWith('order-') ? 'orders' : 'buy';
  drawFrame();
  wake();
  if (view === 'orders' && before !== view) loadOrders();
  if (!sale || !focus) return;
  const target = at.startsWith('order-') ? $(at) : $(`${view}-title`);
  target?.focus();
}

async function watchSale() {
  for (;;) {
    await pause(SALE_MS * (1 + Math.random() / 2));
    try {
      // A page that nobody looks at and that waits for nothing asks nothing.
      if (document.hidden && attempts.size === 0) continue;
      const body = await shop.readSale();
      if (body) takeSale(body);
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
    }
  }
}

function takeSale(body) {
  const before = sale && JSON.stringify([sale.stops, sale.dates, sale.passengersPerOrder]);
  sale = body;
  stations = new Map(sale.stops.map((s) => [s.code, s.name || s.code]));
  if (!stations.has(wish.from)) wish.from = sale.stops[0]?.code ?? '';
  if (!stations.has(wish.to)) wish.to = sale.stops.at(-1)?.code ?? '';
  if (!sale.dates.includes(wish.date)) wish.date = sale.dates[0] ?? '';
  drawFrame();
  drawBanner();
  const after = JSON.stringify([sale.stops, sale.dates, sale.passengersPerOrder]);
  if (before && before !== after) drawSearch();
}

async function main() {
  shop.takeToken();
  await speak(store.get('language') ?? usual());
  drawFrame();
  const wait = (text) => draw($('banner'), h('p', { class: 'note', role: 'status' }, text));
  const late = setTimeout(() => wait(t.connecting), 500);
  const tell = ({ problem }) => wait(explain(problem));
  Object.assign(wish, store.get('wish') ?? {});
  const body = await shop.insist(shop.readSale, { tell });
  clearTimeout(late);
  takeSale(body);
  go(false);
  drawAll();
  search();
  window.addEventListener('hashchange', () => go());
  document.addEventListener('visibilitychange', () => { if (!document.hidden) wake(); });
  setInterval(tick, 250);
  for (const { attempt, goOn } of shop.underWay()) {
    if (goOn) begin(attempt, true);
    else attempts.set(attempt.key, { attempt, old: true, body: JSON.parse(attempt.body) });
  }
  drawAttempts();
  if (view === 'orders') loadOrders();
  else shop.runs().forEach((run) => loadOrders(run));
  watchSale();
}

main();
