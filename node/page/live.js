// The live view: asks once a second, and draws what changed.

const EVERY_MS = 1_000;
// A rate over five seconds is steady enough to read, and young enough to trust.
const RATE_S = 5;
// The line shows two minutes.
const POINTS_MAX = 120;

const $ = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat();
const rate = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1, minimumFractionDigits: 1 });
const history = [];
let line = [];

function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, is] of Object.entries(props ?? {})) element.setAttribute(name, is);
  element.append(...children);
  return element;
}

/** Changes what differs and leaves the rest, so that nothing flickers and no selection is lost. */
function draw(at, rows) {
  rows.forEach((row, i) => {
    const old = at.children[i];
    if (!old) at.append(row);
    else if (!old.isEqualNode(row)) old.replaceWith(row);
  });
  while (at.children.length > rows.length) at.lastElementChild.remove();
}

const number = (n) => whole.format(n);
const cell = (text, kind = '') => h('td', { class: kind }, text);

function fact(name, value, more) {
  return h('div', {}, h('dt', {}, name), h('dd', {}, value, ...(more ? [more] : [])));
}

/** How much faster something counts than RATE_S ago; nothing is known before. */
function speed(of) {
  const last = history.at(-1);
  const from = history.find((point) => last.at - point.at <= RATE_S * 1_000 + 100);
  const s = (last.at - from.at) / 1_000;
  return s > 0 ? (of(last) - of(from)) / s : null;
}

const shown = (n) => (n === null ? '–' : rate.format(n));

function spark() {
  const most = Math.max(1, ...line);
  const points = line.map((y, x) => `${x},${20 - (18 * Math.max(0, y)) / most}`).join(' ');
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', `0 0 ${POINTS_MAX - 1} 20`);
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('aria-hidden', 'true');
  const drawn = document.createElementNS('http://www.w3.org/2000/svg', 'polyline');
  drawn.setAttribute('points', points);
  svg.append(drawn);
  return svg;
}

function sums(picture) {
  const { stock, shares } = picture;
  const fleet = speed((p) => p.taken);
  line = [...line, fleet ?? 0].slice(-POINTS_MAX);
  const records = speed((p) => p.records);
  draw($('sums'), [
    fact('seats taken a second, net of returns', shown(fleet), spark()),
    fact('sold', number(stock.sold)),
    fact('held', number(stock.held)),
    fact('free', number(stock.free)),
    fact('of these in the pool', number(stock.pool)),
    fact('seats', number(stock.seats)),
    fact('ledger records', number(shares.reduce((sum, s) => sum + (s.confirmed ?? -1) + 1, picture.pool.position))),
    fact('records a second', shown(records)),
  ]);
}

function shares(list) {
  const counts = new Map();
  for (const { state } of list) counts.set(state, (counts.get(state) ?? 0) + 1);
  $('shares-said').textContent = [...counts].map(([state, n]) => `${n} ${state.toLowerCase()}`).join(', ');
  draw($('shares'), list.map((s) => {
    const to = s.planned && s.planned !== s.owner ? ` → ${s.planned}` : '';
    const at = s.epoch === null ? '' : `epoch ${s.epoch}, at ${number(s.confirmed)}`;
    return h('li', { class: s.state }, h('b', {}, `${s.share} `),
      h('span', { class: 'is' }, s.state), h('br'), `${s.owner ?? 'nobody'}${to}`, h('br'), at);
  }));
}

function nodes(picture) {
  draw($('nodes'), picture.nodes.map((n) => h('tr', {},
    h('th', { scope: 'row' }, n.name === picture.node ? `${n.name} (shows this)` : n.name),
    cell(n.state, n.state), cell(number(n.shares)),
    cell(n.heardMs < 1_500 ? 'now' : `${number(Math.round(n.heardMs / 1_000))} s ago`),
    cell(n.address))));
}

function stock(runs) {
  draw($('stock'), runs.flatMap(({ run, classes }) => classes.map((c) => {
    const taken = c.seats ? (c.held + c.sold) / c.seats : 0;
    const text = `${Math.floor(taken * 100)} %`;
    const meter = h('meter', { min: '0', max: '1', value: taken.toFixed(3), 'aria-label': `${run} ${c.name}: ${text} sold and held` }, text);
    const unsure = c.complete ? '' : '≥ ';
    return h('tr', {}, h('th', { scope: 'row' }, run), cell(c.name), cell(number(c.seats), 'number'),
      cell(unsure + number(c.free), 'number'), cell(number(c.pool), 'number'),
      cell(unsure + number(c.held), 'number'), cell(c.complete ? number(c.sold) : '?', 'number'),
      h('td', { class: 'share' }, meter));
  })));
}

function show(picture) {
  const at = Date.parse(picture.asOf);
  const same = history.at(-1)?.node === picture.node;
  // Another node counts by itself: its numbers make no rate with those of before.
  if (!same) history.length = 0;
  const records = picture.shares.reduce((sum, s) => sum + (s.confirmed ?? -1) + 1, 0);
  const taken = picture.stock.complete ? picture.stock.seats - picture.stock.free
    : history.at(-1)?.taken ?? 0;
  history.push({ at, node: picture.node, taken, records, written: picture.here.written });
  if (history.length > POINTS_MAX) history.shift();
  $('sale').textContent = picture.sale;
  document.title = `${picture.sale} · live`;
  sums(picture);
  shares(picture.shares);
  nodes(picture);
  stock(picture.runs);
  $('more').textContent = picture.moreRuns ? `${number(picture.moreRuns)} more runs are in the sums.` : '';
  const { here, pool } = picture;
  draw($('here'), [
    fact('orders written a second', shown(speed((p) => p.written))),
    fact('orders written', number(here.written)),
    fact('answers “sold out”', number(here.soldOut)),
    fact('answers “busy”', number(here.busy)),
    fact('answers “unknown”', number(here.unknown)),
    fact('frames', number(here.frames)),
    fact('passed to other nodes', number(here.forwarded)),
    fact('connections', number(here.connections)),
    fact('pool read up to', number(pool.position)),
    fact('plan, policy', `${pool.planVersion}, ${pool.policyVersion}`),
  ]);
  say(pool.frozen ?? `${picture.selling} · shown by ${picture.node}`, Boolean(pool.frozen));
  $('state').title = `as of ${picture.asOf}`;
}

function say(text, bad) {
  const at = $('state');
  if (at.textContent !== text) at.textContent = text;
  at.classList.toggle('bad', bad);
}

async function ask() {
  try {
    const response = await fetch('/live.json', { cache: 'no-store', signal: AbortSignal.timeout(3_000) });
    if (!response.ok) throw new Error(String(response.status));
    show(await response.json());
  } catch {
    say('No node answers: what is shown is old.', true);
  }
  setTimeout(ask, EVERY_MS);
}

ask();
