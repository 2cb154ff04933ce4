// Approximate search by inner product in HnswIndex over clustered vectors: 1000 queries a call. Each row is one expansion;
// its `recall` tells the share of the exact 10 best that every contestant found, so that times are compared at like recall.
import { FlatIndex, HnswIndex, tensor } from '../../dist/index.js';
import { clustered } from '../data/random.mjs';
import { annPeers } from '../peers/ann.mjs';

export const name = 'ann';

const queries = 1000;
const k = 10;
const graph = { connectivity: 16, expansionAdd: 200 };

const size = (n, d, expansion, quick = false) => ({
  label: `${n >= 1e6 ? `${n / 1e6}M` : `${n / 1e3}k`}x${d} ef=${expansion}`,
  n,
  d,
  expansion,
  quick,
});

const expansions = [16, 32, 64, 128, 256, 512];
export const sizes = [
  ...expansions.map((e) => size(100_000, 64, e)),
  ...expansions.map((e) => size(1_000_000, 64, e)),
  ...[16, 128].map((e) => size(4_000, 32, e, true)),
];

// The indexes of the last data set, kept for its other expansions.
let made;

async function indexesFor({ n, d }, context) {
  if (made?.n === n) return made;
  await close();
  const items = clustered(n, d, 1);
  const asked = clustered(queries, d, 2);
  const ids = Array.from({ length: n }, (_, i) => i);
  const batch = tensor(asked, { shape: [queries, d] });
  const flat = await FlatIndex.from(ids, items);
  const int8 = await FlatIndex.from(ids, items, { storage: 'int8' });
  const truth = (await flat.search(batch, { k })).map((answer) => new Set(answer.ids));
  const start = performance.now();
  const index = await HnswIndex.from(ids, items, { ...graph, parallel: true });
  context.log(`  topknot built ${n} vectors in ${((performance.now() - start) / 1000).toFixed(1)} s`);
  made = { n, d, items, asked, batch, flat, int8, truth, index, opened: [] };
  if (!context.peers) return made;
  for (const [peerName, open] of Object.entries(annPeers)) {
    if (peerName.startsWith('hnswlib') && n > 100_000) continue; // one thread: it would build for most of an hour
    const peer = await context.open(peerName, () => open({ items, n, d, threads: context.threads, ...graph }));
    if (!peer) continue;
    context.log(`  ${peerName} built them in ${peer.buildSeconds.toFixed(1)} s`);
    made.opened.push({ name: peerName, ...peer });
  }
  return made;
}

async function close() {
  for (const peer of made?.opened ?? []) await peer.close?.();
  made?.flat.dispose();
  made?.int8.dispose();
  made?.index.dispose();
  made = undefined;
}
process.once('exit', () => {
  for (const peer of made?.opened ?? []) peer.close?.();
});

function recallOf({ truth }, ids) {
  let hits = 0;
  for (let q = 0; q < queries; ++q) {
    for (let i = 0; i < k; ++i) if (truth[q].has(ids[q * k + i])) hits++;
  }
  return hits / (queries * k);
}

export async function setup(size, context) {
  return { ...(await indexesFor(size, context)), recall: {} };
}

export const run = ({ index, batch }, { expansion }) => index.search(batch, { k, expansionSearch: expansion });

/** Ids are distinct, scores are those of their items, and most of the exact answers are there. */
export async function verify(state, size) {
  const found = await run(state, size);
  for (const [q, { ids, scores }] of found.entries()) {
    if (new Set(ids).size !== k) throw new Error(`query ${q}: expected ${k} ids but received ${ids}`);
    for (const [i, id] of ids.entries()) {
      let sum = 0;
      for (let j = 0; j < size.d; ++j) sum += state.items[id * size.d + j] * state.asked[q * size.d + j];
      if (Math.abs(sum - scores[i]) > 1e-5 * (1 + Math.abs(sum)))
        throw new Error(`query ${q}: item ${id} scores ${sum} but ${scores[i]} was returned`);
    }
  }
  state.recall.topknot = recallOf(
    state,
    found.flatMap((answer) => answer.ids),
  );
  const worst = Math.min(...Object.values(state.recall));
  if (state.recall.topknot < worst - 0.02)
    throw new Error(`recall is below that of every peer: ${JSON.stringify(state.recall)}`);
}

export async function peers(state, { expansion }) {
  const out = [
    { name: 'FlatIndex (exact)', run: () => state.flat.search(state.batch, { k }) },
    { name: 'FlatIndex (int8)', run: () => state.int8.search(state.batch, { k }) },
  ];
  state.recall['FlatIndex (exact)'] = 1;
  state.recall['FlatIndex (int8)'] = recallOf(
    state,
    (await state.int8.search(state.batch, { k })).flatMap((answer) => answer.ids),
  );
  for (const peer of state.opened) {
    const { search, time } = peer.at(expansion);
    state.recall[peer.name] = recallOf(state, search(state.asked, queries, k));
    out.push({ name: peer.name, run: () => time(state.asked, k) });
  }
  return out;
}

export const extra = ({ recall }) => ({ queries, recall });
