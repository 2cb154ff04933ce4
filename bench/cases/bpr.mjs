// One epoch of BPR, a sample for each interaction, on a matrix shaped like Gowalla.
import { CsrMatrix, setThreads, Tensor } from '../../dist/index.js';
import { native } from '../../dist/native.js';
import { loadMatrix } from '../data/csr.mjs';
import { openImplicitBpr } from '../peers/implicit.mjs';

export const name = 'bpr';

const epochs = 4; // of a run: what a fit does once, before and after, falls on all of them

const size = (shape, factors, sampling, hogwild, quick = false) => ({
  label: `${shape} ${sampling}${hogwild ? ' hogwild' : ''} f=${factors}`,
  shape,
  factors,
  sampling,
  hogwild,
  quick,
});

export const sizes = [
  ...[false, true].flatMap((hogwild) => [64, 128].map((factors) => size('gowalla', factors, 'uniform', hogwild))),
  size('gowalla', 64, 'popularity', false),
  size('gowalla', 64, 'hard', false),
  size('tiny', 16, 'uniform', false, true),
  size('tiny', 16, 'uniform', true, true),
];

const candidates = 8;

const optionsOf = ({ factors, sampling, hogwild }, iterations) => ({
  factors,
  iterations,
  learningRate: 0.01,
  regularization: 0.01,
  negativeSampling: sampling,
  candidates,
  biases: false,
  initStd: 0.1,
  seed: 42,
  hogwild,
  computeLoss: false,
});

/** A sample: x·(y - z), then three rows that each decay and move; hard sampling scores its candidates before. */
export const flops = ({ factors, sampling }, { nnz }) =>
  nnz * factors * (14 + (sampling === 'hard' ? 2 * candidates : 0));
/** Interactions and factors read once, factors written once: rows are expected to come from caches. */
export const bytes = ({ factors }, { users, items, nnz }) => 4 * nnz + 2 * 4 * factors * (users + items);

export async function setup({ shape }, context) {
  const { folder, users, items, indptr, indices } = loadMatrix(shape, context.data);
  const matrix = await CsrMatrix.from({
    indptr: BigInt64Array.from(indptr, BigInt),
    indices,
    values: new Float32Array(indices.length).fill(1),
    cols: items,
  });
  return { folder, users, items, nnz: indices.length, matrix };
}

async function fit({ matrix }, options) {
  let begin = performance.now();
  const control = native.control(0, (done) => {
    if (done === 0) begin = performance.now();
  });
  const fitted = await native.bprFit(control, matrix.handles, undefined, undefined, undefined, options);
  const ms = (performance.now() - begin) / options.iterations;
  return {
    userFactors: new Tensor(fitted.userFactors),
    itemFactors: new Tensor(fitted.itemFactors),
    ms,
    loss: fitted.loss,
  };
}

export async function run(state, size) {
  const { ms, userFactors, itemFactors } = await fit(state, optionsOf(size, epochs));
  userFactors.dispose();
  itemFactors.dispose();
  return { ms: [ms] };
}

/** It learns; and without hogwild, the bytes do not depend on the threads. The steps themselves: test/models/bpr.test.ts. */
export async function verify(state, size, { threads, log }) {
  const options = { ...optionsOf(size, 6), learningRate: 0.1, computeLoss: true };
  const first = await fit(state, options);
  if (!(first.loss.at(-1) < first.loss[0]))
    throw new Error(`bpr: the loss went from ${first.loss[0]} to ${first.loss.at(-1)}`);
  if (size.hogwild) return;
  const wanted = Buffer.from((await first.itemFactors.data()).buffer);
  for (const count of [1, 2, 4]) {
    setThreads(count);
    const again = await fit(state, options);
    setThreads(threads);
    if (!Buffer.from((await again.itemFactors.data()).buffer).equals(wanted))
      throw new Error(`bpr: ${count} threads give other bytes than ${threads}`);
  }
  log(`  same seed, same bytes at 1, 2, 4 and ${threads} threads`);
}

export async function peers(state, { factors, sampling }, { open, threads }) {
  if (sampling === 'hard') return []; // implicit draws the item of some interaction: by popularity
  const peer = await open('implicit', () => openImplicitBpr({ folder: state.folder, factors, threads }));
  return peer ? [{ name: 'implicit', ...peer }] : [];
}

export function teardown({ matrix }) {
  matrix.dispose();
}
