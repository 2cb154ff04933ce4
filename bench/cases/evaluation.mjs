// Full-ranking evaluation, against the top-k search that it cannot do without: the peer is that search alone, all users in
// one call.
import { ALS, evaluate } from '../../dist/index.js';
import { heldOut, publicGowalla } from '../data/split.mjs';

export const name = 'evaluation';

const k = 20;

export const sizes = [
  { label: 'gowalla-shaped f=64 k=20', shape: 'gowalla', factors: 64 },
  { label: 'gowalla (public) f=64 k=20', isPublic: true, factors: 64 },
  { label: 'tiny f=16 k=20', shape: 'tiny', factors: 16, quick: true },
];

export const flops = ({ factors }, { rows, items }) => 2 * factors * rows.length * items;

export async function setup({ shape, isPublic, factors }, context) {
  if (isPublic && !context.dataDir) {
    context.log('  skipped: needs --data-dir with gowalla/train.txt.gz and test.txt.gz');
    return null;
  }
  const { train, test } = isPublic ? await publicGowalla(context.dataDir) : await heldOut(shape, context.data);
  const model = await new ALS({ factors, solver: 'cg', iterations: 2 }).fit(train);
  const indptr = await test.indptr.data();
  const rows = Int32Array.from({ length: test.shape[0] }, (_, r) => r).filter((r) => indptr[r + 1] > indptr[r]);
  return { model, train, test, rows, items: test.shape[1] };
}

export const run = ({ model, train, test }) => evaluate(model, { train, test }, { metrics: ['recall', 'ndcg'], k });

const search = ({ model, train, rows }) => model.topKRows(rows, k, { seen: train, seenRows: rows });

/** Recall and NDCG of a few hundred users, by their formulas, from the lists of the search. */
export async function verify(state) {
  const { test, rows, model, train } = state;
  const { perUser } = await evaluate(model, { train, test }, { metrics: ['recall', 'ndcg'], k, perUser: true });
  const { ids } = await search(state);
  const [indptr, indices] = [await test.indptr.data(), await test.indices.data()];
  for (let at = 0; at < rows.length; at += Math.ceil(rows.length / 300)) {
    const relevant = new Set(indices.subarray(Number(indptr[rows[at]]), Number(indptr[rows[at] + 1])));
    const hits = Array.from(ids.subarray(at * k, (at + 1) * k), (id) => Number(relevant.has(id)));
    const gain = (list) => list.reduce((sum, hit, rank) => sum + hit / Math.log2(rank + 2), 0);
    const ideal = gain(hits.map((_, rank) => Number(rank < relevant.size)));
    const wanted = { 'recall@20': hits.reduce((a, b) => a + b) / relevant.size, 'ndcg@20': gain(hits) / ideal };
    for (const [metric, value] of Object.entries(wanted)) {
      const got = perUser.values[metric][at];
      if (!(Math.abs(got - value) < 1e-9))
        throw new Error(`user ${rows[at]}: ${metric} is ${value} but received ${got}`);
    }
  }
}

export const peers = (state) => [{ name: 'top-k search alone', run: () => search(state) }];
