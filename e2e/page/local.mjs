// A fleet in local mode, for tests.

import { spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { until } from './shop.mjs';

const HERE = path.dirname(fileURLToPath(import.meta.url));

async function freePort() {
  const server = net.createServer();
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  const { port } = server.address();
  await new Promise((resolve) => { server.close(resolve); });
  return port;
}

/** Starts three nodes that sell `sale`, changed by `edit`. */
export async function start(edit = (text) => text) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'stationmaster-page-'));
  const sale = path.join(folder, 'page.yaml');
  const text = fs.readFileSync(path.join(HERE, '../tests/sales/page.yaml'), 'utf8');
  fs.writeFileSync(sale, edit(text));
  const admin = await freePort();
  // The nodes' ports follow each other.
  const port = 20_000 + Math.floor(Math.random() * 10_000);
  const program = path.join(process.env.E2E_PROGRAMS, 'local');
  const child = spawn(program, [sale, '--ledger', path.join(folder, 'page.ledger'),
    '--port', String(port), '--admin-port', String(admin)], { stdio: ['ignore', 'ignore', 'inherit'] });
  // However the tests end.
  process.once('exit', () => child.kill('SIGKILL'));
  const desk = `http://127.0.0.1:${admin}`;
  const nodes = async () => {
    const table = await (await fetch(`${desk}/nodes`)).text();
    return table.trim().split('\n').slice(1).map((line) => {
      const [node, address, state, ...shares] = line.split(/\s+/);
      return { node, address, state, shares: shares.map(Number) };
    });
  };
  const tell = async (node, act) => (await fetch(`${desk}/nodes/${node}/${act}`, {
    method: 'POST',
  })).ok;
  const ready = async () => (await nodes()).flatMap((n) => n.shares).length === 6
    && (await fetch(`http://127.0.0.1:${port}/readyz`)).ok;
  await until('a fleet with all shares', 60, ready);
  return {
    /** All nodes die, and only this one comes back. */
    outage: async (own) => {
      for (const { node } of await nodes()) await tell(node, 'kill');
      // Its port is free when its thread has ended.
      await until('an end', 10, () => tell(own.node, 'start'));
      await until('a port', 10, async () => (await fetch(`http://${own.address}/livez`)).ok);
    },
    heal: async () => {
      for (const { node, state } of await nodes()) if (state === 'Dead') await tell(node, 'start');
      await until('a whole fleet', 30, ready);
    },
    url: `http://127.0.0.1:${port}`,
    /** A node's own port. */
    at: (node) => `http://${node.address}`,
    live: `${desk}/live`,
    nodes,
    /** The node that owns a share. */
    owner: async (share) => until('an owner', 10,
      async () => (await nodes()).find((n) => n.state !== 'Dead' && n.shares.includes(share))),
    kill: (node) => tell(node, 'kill'),
    start: (node) => until('an end', 10, () => tell(node, 'start')),
    stop: async () => {
      child.kill('SIGKILL');
      await new Promise((resolve) => { child.once('exit', resolve); });
      fs.rmSync(folder, { recursive: true });
    },
  };
}
