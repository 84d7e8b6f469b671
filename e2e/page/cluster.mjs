// A sale on a cluster, for tests: whoever starts them has applied it and forwards the live view.

import { execFileSync } from 'node:child_process';
import { until } from './shop.mjs';

const { PAGE_URL, PAGE_LIVE, PAGE_E2E, PAGE_BED } = process.env;

export async function start() {
  const nodes = async () => {
    const picture = await (await fetch(`${PAGE_LIVE}/live.json`)).json();
    return picture.nodes.map((n) => ({
      node: n.name,
      // Buyers and peers use two ports of one address.
      address: n.address.replace(/:\d+$/, ':8080'),
      state: n.state,
      shares: picture.shares.filter((s) => s.owner === n.name).map((s) => s.share),
    }));
  };
  const fleet = async () => (await nodes()).flatMap((n) => n.shares).length === 6;
  await until('a fleet with all shares', 30, fleet);
  const signal = (name, pod) =>
    execFileSync(PAGE_E2E, ['--bed', PAGE_BED, 'fault', 'pod', name, pod]);
  let stopped = [];
  return {
    /** No node goes on, and only this one begins again. */
    outage: async (own) => {
      const others = (await nodes()).filter((n) => n.shares.length && n.node !== own.node);
      stopped = others.map((n) => n.node);
      for (const pod of stopped) signal('STOP', pod);
      signal('KILL', own.node);
      const lives = async () => (await fetch(`http://${own.address}/livez`)).ok;
      await until('a node again', 20, async () => lives().catch(() => false));
    },
    heal: async () => {
      for (const pod of stopped) signal('CONT', pod);
      await until('a whole fleet', 30, fleet);
    },
    url: PAGE_URL,
    live: `${PAGE_LIVE}/live`,
    at: (node) => `http://${node.address}`,
    nodes,
    owner: (share) => until('an owner', 10,
      async () => (await nodes()).find((n) => n.state === 'Ready' && n.shares.includes(share))),
    kill: async (node) => signal('KILL', node),
    // Kubernetes starts it again.
    start: null,
    stop: async () => {},
  };
}
