// Multi-head attention: forward and backward, full and causal, and forward over bfloat16. Operations of pairs that the mask
// hides are not counted.
import { attention, attentionBackward, tensor } from '../../dist/index.js';
import { gaussians } from '../data/random.mjs';
import { onnxAttention } from '../peers/attention.mjs';

export const name = 'attention';

const shapes = [
  [64, 2, 50, 32],
  [32, 8, 200, 64],
  [8, 8, 512, 64],
  [1, 16, 2048, 64],
];

const sizesOf = (shape, quick = false) =>
  ['full', 'causal', 'full backward', 'causal backward', 'full bfloat16'].map((kind) => ({
    label: `${shape.join('x')} ${kind}`,
    shape,
    causal: kind.startsWith('causal'),
    backward: kind.endsWith('backward'),
    dtype: kind.endsWith('bfloat16') ? 'bfloat16' : 'float32',
    quick,
  }));

export const sizes = [...shapes.flatMap((shape) => sizesOf(shape)), ...sizesOf([2, 2, 50, 32], true)];

/** Two products forward; backward makes the scores again and has four more. */
export function flops({ shape: [batch, heads, n, d], causal, backward }) {
  const pairs = batch * heads * (causal ? (n * (n + 1)) / 2 : n * n);
  return (backward ? 10 : 4) * pairs * d;
}

/** q, k, v and out once; backward also the gradients of all four. */
export const bytes = ({ shape, backward, dtype }) =>
  (dtype === 'bfloat16' ? 2 : 4) * (backward ? 8 : 4) * shape.reduce((x, y) => x * y);

export async function setup({ shape, causal, dtype }) {
  const size = shape.reduce((x, y) => x * y);
  const [q, k, v, weight] = [1, 2, 3, 4].map((seed) => tensor(gaussians(size, seed), { shape }).cast(dtype));
  const arrays = await Promise.all([q, k, v, weight].map((t) => t.data()));
  const saved = attention(q, k, v, { causal });
  await saved.out.data();
  return { arrays, q, k, v, weight, saved, options: { causal } };
}

export async function run({ q, k, v, weight, saved, options }, { backward }) {
  const made = backward ? attentionBackward(weight, q, k, v, saved, options) : attention(q, k, v, options);
  const first = backward ? made.q : made.out;
  await first.data();
  for (const t of Object.values(made)) t?.dispose();
}

/** One query of the last head against the formulas in float64. */
export async function verify(state, size) {
  const { arrays, q, k, v, weight, saved, options } = state;
  const [batch, heads, n, d] = size.shape;
  const [qs, ks, vs, ws] = arrays;
  const start = (batch * heads - 1) * n * d;
  const i = Math.floor(n / 3);
  const row = (x, j) => x.subarray(start + j * d, start + (j + 1) * d);
  const dot = (a, b) => a.reduce((sum, x, c) => sum + x * b[c], 0);
  const count = size.causal ? i + 1 : n;
  const powers = Array.from({ length: count }, (_, j) => Math.exp(dot(row(qs, i), row(ks, j)) / Math.sqrt(d)));
  const total = powers.reduce((x, y) => x + y, 0);
  const out = new Float64Array(d);
  powers.forEach((p, j) => {
    for (let c = 0; c < d; ++c) out[c] += (p / total) * row(vs, j)[c];
  });
  near('out', await saved.out.data(), start + i * d, out, size.dtype === 'bfloat16' ? 2 ** -8 : 1e-5);
  if (!size.backward) return;
  const gradient = new Float64Array(d);
  const delta = dot(Float64Array.from(row(ws, i)), out);
  powers.forEach((p, j) => {
    const score = (p / total) * (dot(Float64Array.from(row(ws, i)), row(vs, j)) - delta);
    for (let c = 0; c < d; ++c) gradient[c] += (score / Math.sqrt(d)) * row(ks, j)[c];
  });
  near('dq', await attentionBackward(weight, q, k, v, saved, options).q.data(), start + i * d, gradient);
}

function near(what, actual, at, expected, tolerance = 1e-5) {
  expected.forEach((e, c) => {
    if (!(Math.abs(actual[at + c] - e) <= tolerance * (1 + Math.abs(e))))
      throw new Error(`${what}: element ${at + c} is ${actual[at + c]}, expected ${e}`);
  });
}

export async function peers({ arrays, saved }, size, context) {
  const { shape, causal, backward, dtype } = size;
  if (backward || dtype !== 'float32') return [];
  const peer = await context.open('onnxruntime-node', () => onnxAttention(arrays, shape, causal, context.threads));
  if (!peer) return [];
  const [out, ours] = [await peer.run(), await saved.out.data()];
  const [, heads, n, d] = shape;
  const i = Math.floor(n / 3); // of the first head
  near('onnxruntime-node', out, i * heads * d, Float64Array.from(ours.subarray(i * d, (i + 1) * d)));
  return [{ name: 'onnxruntime-node', ...peer }];
}
