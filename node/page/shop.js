// What the page asks of a node, and how it asks again. Nothing here touches the document.

// A node searches for a share's owner for 2.5 s and answers "unknown" after 3 s; whoever hears
// nothing for three times that asks again with the same key.
const PATIENCE_MS = 10_000;
// The longest step between two tries: half a minute of silence feels like a broken page.
const STEP_S_MAX = 8;
// Buyers who wait for the opening arrive spread over this time, not in its first instant.
const OPENING_SPREAD_MS = 3_000;
// While the opening is far away its time may be changed: look again this often.
const OPENING_LOOK_MS = 20_000;
// A reload continues an order that was tried this recently; an older one asks its buyer first.
const FRESH_MS = 10 * 60_000;
// Nodes keep an Idempotency-Key for a day: after that a repetition could buy a second time.
const KEY_MS = 24 * 3_600_000;

// Runs whose orders are looked up on every visit; the others when their buyer asks to see them.
const RUNS_MAX = 4;

const PREFIX = 'stationmaster.';
// For browsers that refuse storage: the page then works until it is reloaded.
const memory = new Map();

export const store = {
  get(name) {
    try {
      const text = localStorage.getItem(PREFIX + name);
      if (text !== null) return JSON.parse(text);
    } catch { /* refused, or not ours */ }
    return memory.get(name) ?? null;
  },
  set(name, value) {
    memory.set(name, value);
    try { localStorage.setItem(PREFIX + name, JSON.stringify(value)); } catch { /* full */ }
  },
  drop(name) {
    memory.delete(name);
    try { localStorage.removeItem(PREFIX + name); } catch { /* refused */ }
  },
  names(start) {
    const names = new Set(memory.keys());
    try {
      for (const name of Object.keys(localStorage)) {
        if (name.startsWith(PREFIX)) names.add(name.slice(PREFIX.length));
      }
    } catch { /* refused */ }
    return [...names].filter((name) => name.startsWith(start));
  },
};

// Not randomUUID, which a page without TLS does not have.
const random = () => Array.from(crypto.getRandomValues(new Uint8Array(16)),
  (byte) => byte.toString(16).padStart(2, '0')).join('');

/** What a node says instead of what it was asked for (RFC 9457), or that it said nothing. */
export class Problem extends Error {
  constructor(kind, status = 0, body = {}, retryAfter = 0) {
    super(body.detail ?? kind);
    Object.assign(this, { kind, status, body, retryAfter });
  }

  /** Whether the same request with the same key may succeed by itself. */
  get passes() {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }

  /** Whether the order may have been placed all the same. */
  get uncertain() {
    return this.passes && !['busy', 'not-open', 'suspended'].includes(this.kind);
  }

  /** Milliseconds until the next try. Never the same for two buyers. */
  wait(attempt) {
    const opens = Date.parse(this.body.opens);
    if (this.kind === 'not-open' && opens > now()) {
      const left = opens - now();
      if (left > OPENING_LOOK_MS) return OPENING_LOOK_MS * (1 + Math.random() / 4);
      return left + Math.random() * OPENING_SPREAD_MS;
    }
    const step = Math.max(this.retryAfter, Math.min(STEP_S_MAX, 2 ** (attempt - 1)));
    return step * 1_000 * (1 + Math.random());
  }
}

/** Thrown where the buyer stopped the asking. */
export class Stopped extends Error {}

// How far the node's clock is ahead. Its Date is cut to the second and comes late, so that every
// sample is too low, and the highest is the best; far lower ones mean that our clock was set.
let ahead = null;

function heard(headers) {
  const date = Date.parse(headers.get('date')) + 1_000 * (Number(headers.get('age')) || 0);
  const sample = date - Date.now();
  if (Number.isNaN(sample)) return;
  if (ahead === null || sample > ahead || sample < ahead - 30_000) ahead = sample;
}

/** The node's time. */
export const now = () => Date.now() + (ahead ?? 0);

export const pause = (ms, signal) => new Promise((resolve, reject) => {
  const stop = () => { clearTimeout(timer); reject(new Stopped()); };
  const timer = setTimeout(() => { signal?.removeEventListener('abort', stop); resolve(); }, ms);
  if (signal?.aborted) stop();
  signal?.addEventListener('abort', stop, { once: true });
});

let identity = null;
let token = null;

/** Takes the token that the site left in the address, and takes it out of there. */
export function takeToken() {
  const given = /^#token=(.+)$/.exec(location.hash);
  try {
    if (given) sessionStorage.setItem(PREFIX + 'token', decodeURIComponent(given[1]));
    token = sessionStorage.getItem(PREFIX + 'token');
  } catch {
    token = given ? decodeURIComponent(given[1]) : null;
  }
  if (given) history.replaceState(null, '', location.pathname + location.search);
}

/** Who buys, by the sale's rule: a name, or null for nobody yet. */
export function buyer() {
  if (identity?.type === 'Header') {
    let name = store.get('buyer');
    if (typeof name !== 'string') store.set('buyer', name = `guest-${random().slice(0, 12)}`);
    return name;
  }
  if (!token) return null;
  try {
    const part = token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/');
    const claims = new TextDecoder().decode(Uint8Array.from(atob(part), (c) => c.charCodeAt(0)));
    return JSON.parse(claims).sub ?? null;
  } catch {
    return null;
  }
}

/** A token that a node refused is of no more use. */
export function signOut() {
  token = null;
  try { sessionStorage.removeItem(PREFIX + 'token'); } catch { /* refused */ }
}

async function ask(method, path, { body, key, tag, personal } = {}) {
  const headers = {};
  if (personal && identity?.type === 'Header') headers[identity.header] = buyer();
  if (personal && token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  if (key) headers['Idempotency-Key'] = key;
  if (tag) headers['If-None-Match'] = tag;
  let response;
  let text;
  try {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    response = await fetch(path, { method, headers, body, cache: 'no-store', signal });
    text = await response.text();
  } catch {
    throw new Problem('unreachable');
  }
  heard(response.headers);
  if (response.status === 304) return { response, body: null };
  let said = null;
  try { said = JSON.parse(text); } catch { /* a proxy's own page */ }
  if (response.ok && said !== null) return { response, body: said };
  const kind = String(said?.type ?? '').split('/').pop() || 'unreachable';
  // A 2xx without an order is no answer of a node.
  const status = response.ok ? 0 : response.status;
  throw new Problem(kind, status, said ?? {}, Number(response.headers.get('retry-after')) || 0);
}

/** Repeats a request until it succeeds or cannot; `tell` hears of every wait. */
export async function insist(request, { tell, signal, until = Infinity } = {}) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await request();
    } catch (problem) {
      if (!(problem instanceof Problem) || !problem.passes || now() > until) throw problem;
      const wait = problem.wait(attempt);
      tell?.({ problem, attempt, at: now() + wait });
      await pause(wait, signal);
    }
  }
}

const tags = new Map();

/** Asks anew only for what changed: the body, or null; and seconds until it is worth asking. */
export async function fresh(path, whole = false) {
  const tag = whole ? undefined : tags.get(path);
  const { response, body } = await ask('GET', path, { tag });
  if (response.headers.get('etag')) tags.set(path, response.headers.get('etag'));
  const age = /max-age=(\d+)/.exec(response.headers.get('cache-control') ?? '');
  return { body, seconds: Math.max(1, Number(age?.[1] ?? 3)) };
}

let sale = null;

/** The sale: null if nothing changed. */
export async function readSale() {
  const { body } = await fresh('/v1/sale', sale === null);
  if (body) [sale, identity] = [body, body.identity];
  return body;
}

/** Until when the sale is known to be closed. */
function opens() {
  const at = Date.parse(sale?.opens);
  return sale?.state === 'scheduled' && at > now() ? sale.opens : null;
}

/** Runs on which this browser has ordered, the latest first. */
export const runs = () => store.get(`runs.${buyer()}`) ?? [];

/** An order that may be under way: key and body are kept before anything is sent. */
export function prepare(body) {
  const attempt = { key: random(), body: JSON.stringify(body), buyer: buyer() };
  keep(attempt);
  store.set(`runs.${attempt.buyer}`, [...new Set([body.run, ...runs()])].slice(0, RUNS_MAX));
  return attempt;
}

function keep(attempt) {
  store.set(`order.${attempt.key}`, { ...attempt, at: Date.now() });
}

export const forget = (attempt) => store.drop(`order.${attempt.key}`);

/** Orders of this buyer that were under way when the page went away; whether to just go on. */
export function underWay() {
  const attempts = [];
  for (const name of store.names('order.')) {
    const attempt = store.get(name);
    const age = Date.now() - attempt?.at;
    if (!(age < KEY_MS)) store.drop(name);
    else if (attempt.buyer === buyer()) attempts.push({ attempt, goOn: age < FRESH_MS });
  }
  return attempts;
}

/** Places an order: the same request with the same key until there is an answer. */
export async function place(attempt, { tell, signal }) {
  const send = async () => {
    const later = opens();
    if (later) throw new Problem('not-open', 503, { opens: later });
    keep(attempt);
    const { key, body } = attempt;
    return (await ask('POST', '/v1/orders', { key, body, personal: true })).body;
  };
  const note = (news) => {
    attempt.uncertain ||= news.problem.uncertain;
    keep(attempt);
    tell(news);
  };
  try {
    const order = await insist(send, { tell: note, signal });
    forget(attempt);
    return order;
  } catch (problem) {
    // Whoever has to sign in again gets the answer under the same key afterwards.
    if (problem.kind !== 'unidentified') forget(attempt);
    throw problem;
  }
}

const personal = async (method, path, body) => {
  const text = body && JSON.stringify(body);
  return (await ask(method, path, { body: text, personal: true })).body;
};

// Of all runs it is a question to every share, for those who look at their orders; of one run
// it is a question to one.
export const orders = async (run) => (await personal('GET',
  run ? `/v1/orders?run=${encodeURIComponent(run)}` : '/v1/orders')).orders;
export const read = (id) => personal('GET', `/v1/orders/${id}`);
export const cancel = (id) => personal('DELETE', `/v1/orders/${id}`);
// The payment is named after the order: whoever pays twice, in two tabs, pays once.
export const pay = (order) => personal('POST', `/v1/orders/${order.id}/payment`,
  { payment: `page-${order.id}`, amountMinor: order.priceMinor });
