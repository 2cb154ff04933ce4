// One iteration of implicit ALS, both half-sweeps, on matrices shaped like Gowalla and MovieLens 20M.
import { CsrMatrix, setThreads, Tensor } from '../../dist/index.js';
import { native } from '../../dist/native.js';
import { loadMatrix } from '../data/csr.mjs';
import { checkHalfSweep } from '../lib/check-als.mjs';
import { openImplicit } from '../peers/implicit.mjs';

export const name = 'als';

const cgSteps = 3;

const size = (shape, solver, factors, quick = false) => ({
  label: `${shape} ${solver === 'cg' ? `cg(${cgSteps})` : solver} f=${factors}`,
  shape,
  solver,
  factors,
  quick,
});

export const sizes = [
  ...['gowalla', 'ml20m'].flatMap((shape) =>
    [64, 128].flatMap((factors) => [size(shape, 'cg', factors), size(shape, 'cholesky', factors)]),
  ),
  ...['ml5m', 'ml10m'].map((shape) => size(shape, 'cg', 64)),
  ...['cholesky', 'subspace'].map((solver) => size('gowalla', solver, 256)),
  size('tiny', 'cg', 16, true),
  size('tiny', 'cholesky', 16, true),
];

/** Hu, Koren and Volinsky's objective, as `implicit` has it. */
const optionsOf = ({ solver, factors }) => ({
  factors,
  solver,
  cgSteps,
  blockSize: 64,
  objective: 'hkv',
  unobservedWeight: 1,
  alpha: 40,
  regularization: 0.01,
  regularizationForm: 'constant',
  iterations: 1,
  seed: 42,
});

/**
 * The fewest operations that we know of. A Cholesky row with n entries: the symmetric half of a rank-n update and a
 * factorisation in f dimensions, or, where that is less, in n dimensions (cpu/kernels/als_cholesky.cpp), and the
 * triangular solves. A conjugate gradient row: a product with the Gram matrix and two passes over its entries, for the
 * first residual and for each step. Both: the Gram matrices of the sides.
 */
export function flops({ solver, factors: f }, { degrees }) {
  if (solver === 'subspace') return null; // another algorithm: compare times
  const inFactors = (n) => n * f * f + f ** 3 / 3;
  const inEntries = (n) => n * n * f + n ** 3 / 3 + 2 * f * f;
  const cholesky = (n) => Math.min(inFactors(n), inEntries(n)) + 4 * n * f + 2 * Math.min(n, f) ** 2;
  const cg = (n) => (1 + cgSteps) * (2 * f * f + 4 * n * f);
  const row = solver === 'cholesky' ? cholesky : cg;
  return degrees.reduce((sum, n) => sum + (n > 0 ? row(n) : 0), degrees.length * f * f);
}
/** Ids and weights of both orientations, factors read and written once: gathered rows are expected to come from caches. */
export const bytes = ({ factors }, { users, items, nnz }) => 2 * 8 * nnz + 2 * 2 * 4 * factors * (users + items);

// The matrix of the last size, kept for the next.
let made;

async function matrixFor(shape, context) {
  if (made?.shape === shape) return made;
  const { folder, users, items, indptr, indices } = loadMatrix(shape, context.data);
  const rows = await CsrMatrix.from({
    indptr: BigInt64Array.from(indptr, BigInt),
    indices,
    values: new Float32Array(indices.length).fill(1),
    cols: items,
  });
  const cols = await rows.transpose();
  const degrees = Float64Array.from([...(await entriesOf(rows)), ...(await entriesOf(cols))]);
  made = { shape, folder, users, items, nnz: indices.length, rows, cols, degrees };
  return made;
}

/** Entries of each row. */
async function entriesOf(matrix) {
  const indptr = await matrix.indptr.data();
  return Array.from({ length: matrix.shape[0] }, (_, r) => Number(indptr[r + 1] - indptr[r]));
}

export async function setup(size, context) {
  return { ...(await matrixFor(size.shape, context)), options: optionsOf(size) };
}

/** One iteration from the given factors, or from random ones; its own time, without the checks before the first sweep. */
async function iterate({ rows, cols, options }, start) {
  let begin = performance.now();
  const control = native.control(0, (done) => {
    if (done === 0) begin = performance.now();
  });
  const fitted = await native.alsFit(
    control,
    rows.handles,
    cols.handles,
    start?.userFactors.handle,
    start?.itemFactors.handle,
    options,
  );
  const ms = [performance.now() - begin];
  return { userFactors: new Tensor(fitted.userFactors), itemFactors: new Tensor(fitted.itemFactors), ms };
}

export async function run(state) {
  const { ms, userFactors, itemFactors } = await iterate(state);
  userFactors.dispose();
  itemFactors.dispose();
  return { ms };
}

export async function verify(state, { solver, shape, factors }, { threads, log }) {
  const first = await iterate(state);
  const second = await iterate(state, first);
  if (solver !== 'subspace')
    await checkHalfSweep(state, solver, second.userFactors, first.itemFactors, second.itemFactors);
  if (shape.startsWith('ml') || factors > 64) return;
  const wanted = [await first.userFactors.data(), await first.itemFactors.data()];
  for (const count of [1, 2, 4]) {
    setThreads(count);
    const again = await iterate(state);
    setThreads(threads);
    const got = [await again.userFactors.data(), await again.itemFactors.data()];
    if (!got.every((values, i) => Buffer.from(values.buffer).equals(Buffer.from(wanted[i].buffer))))
      throw new Error(`als: ${count} threads give other bytes than ${threads}`);
  }
  log(`  same seed, same bytes at 1, 2, 4 and ${threads} threads`);
}

export async function peers(state, { shape, solver, factors }, { open, threads }) {
  if (solver === 'subspace' || factors > 128 || shape === 'ml5m' || shape === 'ml10m') return [];
  const peer = await open('implicit', () => openImplicit({ folder: state.folder, factors, solver, threads }));
  return peer ? [{ name: 'implicit', ...peer }] : [];
}
