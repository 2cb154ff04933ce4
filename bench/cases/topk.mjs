// Exact top-k by inner product through FlatIndex.search.
import { FlatIndex, tensor } from '../../dist/index.js';
import { gaussians } from '../data/random.mjs';
import { checkIds } from '../lib/check-topk.mjs';
import { topkPeers } from '../peers/topk.mjs';

export const name = 'topk';

const size = (n, d, q, k, quick = false) => ({
  label: `${n >= 1e6 ? `${n / 1e6}M` : `${n / 1e3}k`}x${d} q=${q} k=${k}`,
  n,
  d,
  q,
  k,
  quick,
});

export const sizes = [
  ...[1, 16, 256, 4096].map((q) => size(1_000_000, 64, q, 10)),
  ...[1, 256].map((q) => size(1_000_000, 64, q, 100)),
  // With 1M: the cost of three sizes.
  ...[250_000, 500_000].flatMap((n) => [1, 256].map((q) => size(n, 64, q, 10))),
  ...[1, 16, 256, 4096].map((q) => size(100_000, 128, q, 10)),
  ...[1, 256].map((q) => size(100_000, 128, q, 100)),
  ...[1, 64].map((q) => size(20_000, 64, q, 10, true)),
];

export const flops = ({ n, d, q }) => 2 * n * d * q;
/** Items and queries once, answers once. */
export const bytes = ({ n, d, q, k }) => 4 * (n * d + q * d + 2 * q * k);

// The items of the last size, kept for the next: sizes that share them follow each other.
let made;

const rowNumbers = (n) => Array.from({ length: n }, (_, i) => i);

async function itemsFor({ n, d }, context) {
  if (made?.n === n && made.d === d) return made;
  for (const peer of made?.peers ?? []) await peer.close?.();
  const items = gaussians(n * d, 1);
  made = { n, d, items, index: await FlatIndex.from(rowNumbers(n), items), peers: [] };
  if (!context.peers) return made;
  for (const [peerName, open] of Object.entries(topkPeers)) {
    const peer = await context.open(peerName, () => open({ items, n, d, threads: context.threads }));
    if (peer) made.peers.push({ name: peerName, ...peer });
  }
  return made;
}

export async function setup(size, context) {
  const { items, index, peers } = await itemsFor(size, context);
  const queries = gaussians(size.q * size.d, 2);
  const batch = tensor(queries, { shape: [size.q, size.d] });
  return { items, index, opened: peers, queries, batch };
}

export const run = ({ index, batch }, { k }) => index.search(batch, { k });

export async function verify(state, size) {
  const found = await run(state, size);
  const ids = Int32Array.from(found.flatMap((answer) => answer.ids));
  checkIds({ ...state, ...size }, ids, Float32Array.from(found.flatMap((answer) => [...answer.scores])));
}

export async function peers({ items, queries, opened }, size) {
  const out = [];
  for (const peer of opened) {
    if (!peer.limit(size)) continue;
    const search = () => peer.search(queries, size.q, size.k);
    checkIds({ items, queries, ...size }, Int32Array.from(await search(), Number));
    out.push({ name: peer.name, run: search });
  }
  return out;
}
