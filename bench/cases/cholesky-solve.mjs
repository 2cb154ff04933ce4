// Many small symmetric positive definite systems, one right-hand side each, float32.
import { solvePositiveDefinite, Tensor, tensor } from '../../dist/index.js';
import { native } from '../../dist/native.js';
import { gaussians } from '../data/random.mjs';
import { openNumpy } from '../peers/numpy.mjs';

export const name = 'cholesky-solve';

const size = (batch, n, quick = false) => ({
  label: `${batch >= 1e3 ? `${batch / 1e3}k` : batch}x${n}x${n}`,
  batch,
  n,
  quick,
});

export const sizes = [size(100_000, 32), size(100_000, 64), size(1000, 16, true)];

/** The factorisation and two triangular solves. */
export const flops = ({ batch, n }) => batch * (n ** 3 / 3 + 2 * n * n);
export const bytes = ({ batch, n }) => batch * (4 * n * n + 8 * n);

/** This many different systems, repeated. */
const different = 500;

export async function setup({ batch, n }) {
  const g = gaussians(different * n * n, 1);
  const a = new Float32Array(different * n * n);
  for (let m = 0; m < different; ++m) {
    for (let i = 0; i < n; ++i) {
      for (let j = 0; j <= i; ++j) {
        let sum = i === j ? 0.1 : 0;
        for (let k = 0; k < n; ++k) sum += (g[(m * n + i) * n + k] * g[(m * n + j) * n + k]) / n;
        a[(m * n + i) * n + j] = a[(m * n + j) * n + i] = sum;
      }
    }
  }
  const b = gaussians(different * n, 2);
  const repeated = async (values, shape) => {
    const whole = new Tensor(await native.concat(undefined, Array(batch / different).fill(tensor(values).handle)));
    return whole.reshape([batch, ...shape]);
  };
  return { a, b, matrices: await repeated(a, [n, n]), sides: await repeated(b, [n]) };
}

async function solve({ matrices, sides }) {
  const { x, status } = solvePositiveDefinite(matrices, sides);
  const read = status.data();
  await read;
  return { x, status };
}

export async function run(state) {
  const { x, status } = await solve(state);
  x.dispose();
  status.dispose();
}

/** Residuals of every different system, at the end of the batch. */
export async function verify(state, { batch, n }) {
  const { x, status } = await solve(state);
  if (status.dataSync().some((s) => s !== 0)) throw new Error('cholesky-solve: a system was not solved');
  const solutions = x.dataSync().subarray((batch - different) * n);
  expectSolved('topknot', state, solutions, n);
  x.dispose();
  status.dispose();
}

function expectSolved(who, { a, b }, x, n) {
  for (let r = 0; r < x.length; ++r) {
    const m = Math.floor(r / n);
    let sum = -b[r];
    let scale = Math.abs(b[r]);
    for (let j = 0; j < n; ++j) {
      const term = a[r * n + j] * x[m * n + j];
      sum += term;
      scale += Math.abs(term);
    }
    if (!(Math.abs(sum) <= (n + 8) * 2 ** -24 * scale))
      throw new Error(`${who}: row ${r % n} of system ${m} has the residual ${sum} of ${scale}`);
  }
}

export async function peers({ a, b }, { batch, n }, { open, threads }) {
  const peer = await open('numpy', () => openNumpy({ a, b, n, copies: batch / different, threads }));
  if (!peer) return [];
  await peer.run('solve');
  expectSolved('numpy', { a, b }, await peer.x(), n);
  return [
    { name: 'numpy solve', run: () => peer.run('solve'), close: peer.close },
    { name: `numpy solve, ${threads} threads`, run: () => peer.run('solve-threads') },
    { name: `numpy cholesky alone, ${threads} threads`, run: () => peer.run('cholesky-threads') },
  ];
}

export function teardown({ matrices, sides }) {
  matrices.dispose();
  sides.dispose();
}
