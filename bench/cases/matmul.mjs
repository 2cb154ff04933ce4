// Products of matrices: square ones, and the layers of a network (rows × inputs → outputs, weights transposed).
import { matmul, tensor } from '../../dist/index.js';
import { gaussians } from '../data/random.mjs';
import { openBlas, settleMs } from '../peers/openblas.mjs';

export const name = 'matmul';

const size = (m, n, k, transposeB = false, quick = false) => ({
  label: `${m}x${n}x${k}${transposeB ? ' transposed' : ''}`,
  m,
  n,
  k,
  transposeB,
  quick,
});

export const sizes = [
  size(512, 512, 512),
  size(1024, 1024, 1024),
  size(2048, 2048, 2048),
  size(2048, 2048, 2048, true),
  size(4096, 256, 512, true),
  size(100_000, 64, 64, true),
  size(96, 80, 64, true, true),
];

export const flops = ({ m, n, k }) => 2 * m * n * k;
export const bytes = ({ m, n, k }) => 4 * (m * k + k * n + m * n);

export async function setup({ m, n, k, transposeB }) {
  const [a, b] = [gaussians(m * k, 1), gaussians(k * n, 2)];
  const right = tensor(b, { shape: transposeB ? [n, k] : [k, n] });
  return { a, b, left: tensor(a, { shape: [m, k] }), right, small: tensor([1]) };
}

/** Streams keep their order: when what is queued behind the product has ended, so has the product. Nothing is copied. */
export async function run({ left, right, small }, { transposeB }) {
  const out = matmul(left, right, { transposeB });
  const behind = small.cast('float64');
  await behind.data();
  behind.dispose();
  out.dispose();
}

export async function verify({ a, b, left, right }, size) {
  const out = matmul(left, right, { transposeB: size.transposeB });
  const data = await out.data();
  expectRow('topknot', a, b, size, 0, data.subarray(0, size.n));
  expectRow('topknot', a, b, size, size.m - 1, data.subarray((size.m - 1) * size.n));
  out.dispose();
}

function expectRow(who, a, b, { n, k, transposeB }, i, row) {
  for (let j = 0; j < n; ++j) {
    let sum = 0;
    let scale = 0;
    for (let p = 0; p < k; ++p) {
      const term = a[i * k + p] * (transposeB ? b[j * k + p] : b[p * n + j]);
      sum += term;
      scale += Math.abs(term);
    }
    if (!(Math.abs(row[j] - sum) <= 2 ** -20 * scale))
      throw new Error(`${who}: element ${i}, ${j} is ${row[j]}, expected ${sum}`);
  }
}

export async function peers({ a, b }, size, { open, threads }) {
  const peer = await open('openblas', () => openBlas({ a, b, ...size, threads }));
  if (!peer) return [];
  await peer.run();
  expectRow('openblas', a, b, size, 0, await peer.row());
  return [{ name: 'openblas', run: peer.run, close: peer.close, settleMs }];
}

export function teardown({ left, right, small }) {
  small.dispose();
  left.dispose();
  right.dispose();
}
