// Exact top-k by inner product over the storages of FlatIndex other than float32; int8 must find .999 of the exact best.
// Peers: our own float32 index, and onnxruntime over float32.
import { FlatIndex, tensor } from '../../dist/index.js';
import { gaussians } from '../data/random.mjs';
import { topkPeers } from '../peers/topk.mjs';

export const name = 'topk-storage';

const k = 10;
const size = (storage, n, q, options = {}, quick = false) => ({
  label: `${storage}${options.exact ? ' exact' : ''} ${n >= 1e6 ? `${n / 1e6}M` : `${n / 1e3}k`}x64 q=${q}`,
  storage,
  n,
  d: 64,
  q,
  options,
  quick,
});

export const sizes = [
  ...[1, 16, 256].flatMap((q) => [
    size('float16', 1_000_000, q),
    size('bfloat16', 1_000_000, q),
    size('int8', 1_000_000, q),
    size('int8', 1_000_000, q, { exact: true }),
    size('binary', 1_000_000, q),
  ]),
  ...['float16', 'int8', 'binary'].map((storage) => size(storage, 20_000, 16, {}, true)),
];

const elementBytes = { float16: 2, bfloat16: 2, int8: 1, binary: 1 / 8 };
/** Multiply-adds of the scan; of bits, as many as an inner product of as many dimensions has. */
export const flops = ({ n, d, q }) => 2 * n * d * q;
export const bytes = ({ storage, n, d, q }) => n * d * elementBytes[storage] + q * (4 * d + 8 * k);

let made;

async function floatsFor({ n, d }, context) {
  if (made?.n === n) return made;
  for (const peer of made?.peers ?? []) await peer.close?.();
  const items = gaussians(n * d, 1);
  made = { n, items, index: await FlatIndex.from(rowNumbers(n), items), peers: [] };
  const open = topkPeers['onnxruntime-node'] ?? topkPeers.onnxruntime;
  if (context.peers && open) {
    const peer = await context.open('onnxruntime-node', () => open({ items, n, d, threads: context.threads }));
    if (peer) made.peers.push({ name: 'onnxruntime-node', ...peer });
  }
  return made;
}

const rowNumbers = (n) => Array.from({ length: n }, (_, i) => i);

/** The signs of the numbers, a bit each. */
function signs(values) {
  const bits = new Uint8Array(values.length / 8);
  for (let i = 0; i < values.length; ++i) if (values[i] > 0) bits[i >> 3] |= 1 << (i & 7);
  return bits;
}

export async function setup(size, context) {
  const { items, index: floats, peers } = await floatsFor(size, context);
  const queries = gaussians(size.q * size.d, 2);
  const batch = tensor(queries, { shape: [size.q, size.d] });
  const binary = size.storage === 'binary';
  const index = await FlatIndex.from(rowNumbers(size.n), binary ? signs(items) : items, { storage: size.storage });
  const asked = binary ? tensor(signs(queries), { shape: [size.q, size.d / 8] }) : batch;
  return { index, floats, opened: peers, queries, batch, asked };
}

export const run = ({ index, asked }, { options }) => index.search(asked, { k, ...options });

export async function verify({ index, floats, batch, asked }, { storage, options, q }) {
  const found = await index.search(asked, { k, ...options });
  if (storage === 'binary') {
    for (const { scores } of found) {
      if (scores.some((x, i) => !(x >= (scores[i - 1] ?? 0)))) throw new Error(`distances do not rise: ${scores}`);
    }
    return;
  }
  const exact = await floats.search(batch, { k });
  const hits = found.reduce((sum, { ids }, i) => sum + ids.filter((id) => exact[i].ids.includes(id)).length, 0);
  const recall = hits / (q * k);
  const least = options.exact ? 1 : storage === 'int8' ? 0.999 : 0.95; // 16 bits: of the numbers before rounding
  if (recall < least) throw new Error(`recall ${recall}, expected ${least}`);
  const { proven, fallbacks } = index.stats;
  const proof = options.exact ? `; ${proven} queries proven, ${fallbacks} searched again` : '';
  process.stderr.write(`  recall ${recall.toFixed(5)}${proof}\n`);
}

export function peers({ floats, opened, queries, batch }, size) {
  const ours = { name: 'topknot float32', run: () => floats.search(batch, { k }) };
  return [
    ours,
    ...opened.filter((p) => p.limit(size)).map((p) => ({ name: p.name, run: () => p.search(queries, size.q, k) })),
  ];
}
