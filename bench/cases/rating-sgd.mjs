// One epoch of BiasedMF by stochastic gradient descent, on ratings shaped like MovieLens.
import { BiasedMF, CsrMatrix } from '../../dist/index.js';
import { loadMatrix } from '../data/csr.mjs';

export const name = 'rating-sgd';

const epochs = 4; // of a run: what a fit does once, before and after, falls on all of them

const size = (shape, factors, quick = false) => ({ label: `${shape} f=${factors}`, shape, factors, quick });

export const sizes = [size('gowalla', 64), size('ml5m', 64), size('tiny', 16, true)];

/** A rating: x·y, then two rows that each decay and move. */
export const flops = ({ factors }, { nnz }) => nnz * factors * 10;
/** Ids and ratings read once; rows are expected to come from caches. */
export const bytes = ({ factors }, { users, items, nnz }) => 12 * nnz + 2 * 4 * factors * (users + items);

export async function setup({ shape }, context) {
  const { users, items, indptr, indices } = loadMatrix(shape, context.data);
  const values = Float32Array.from(indices, (item, i) => 1 + ((item * 7 + i * 13) % 5));
  const matrix = await CsrMatrix.from({ indptr: BigInt64Array.from(indptr, BigInt), indices, values, cols: items });
  return { users, items, nnz: indices.length, matrix };
}

export async function run({ matrix }, { factors }) {
  const begin = performance.now();
  const model = await new BiasedMF({ factors, iterations: epochs, seed: 1 }).fit(matrix);
  const ms = [(performance.now() - begin) / epochs];
  model.dispose();
  return { ms };
}
