// Embedding bags: 2048 bags of 32 rows from a table of a million, by ids that are uniform or fall off as rank^-1.05; and a
// step of row-wise Adagrad from the gradient of the sums. Rates are of the rows that were looked up. The contestant `floor`
// touches every cache line of the same rows in the same order, and writes it back for the step, and does nothing else.
import { EmbeddingTable, tensor } from '../../dist/index.js';
import { native } from '../../dist/native.js';
import { gaussians, random } from '../data/random.mjs';
import { openScipy } from '../peers/embedding.mjs';

export const name = 'embedding';

const size = (n, d, ids, mode, quick = false) => ({
  label: `${n >= 1e6 ? `${n / 1e6}M` : `${n / 1e3}k`}x${d} ${ids} ${mode}`,
  n,
  d,
  ids,
  mode,
  quick,
});

export const sizes = [
  ...[64, 128].flatMap((d) =>
    ['uniform', 'zipf'].flatMap((ids) => ['sum', 'mean', 'adagrad'].map((mode) => size(1_000_000, d, ids, mode))),
  ),
  ...['sum', 'adagrad'].map((mode) => size(20_000, 64, 'zipf', mode, true)),
];

const [bags, perBag, batches] = [2048, 32, 8];

/** Rows read, and bags written; the step reads and writes rows, and reads the gradient. */
export const bytes = ({ d, mode }) => 4 * d * (bags * perBag * (mode === 'adagrad' ? 2 : 1) + bags);

export async function setup({ n, d, ids, mode }) {
  const values = gaussians(n * d, 1);
  const next = idsLike(ids, n);
  const batch = () => tensor(Int32Array.from({ length: bags * perBag }, next), { shape: [bags, perBag] });
  const state = {
    values,
    table: tensor(values, { shape: [n, d] }),
    batches: Array.from({ length: batches }, batch),
    turn: 0,
  };
  if (mode !== 'adagrad') return state;
  const trained = await EmbeddingTable.from(state.table, { optimizer: 'adagrad', learningRate: 1e-3 });
  return { ...state, trained, gradient: tensor(gaussians(bags * d, 99), { shape: [bags, d] }) };
}

export async function run(state, { mode }) {
  const ids = state.batches[state.turn++ % batches];
  if (mode === 'adagrad') return void (await state.trained.backward(state.gradient, ids, undefined, {}));
  native.dispose(await lookUp(state, ids, mode));
}

const lookUp = ({ table }, ids, mode) =>
  native.embeddingBagRows(undefined, { data: table.handle }, ids.handle, undefined, { mode, padding: -1 });

export async function verify(state, { d, mode }) {
  const ids = state.batches[0].dataSync();
  if (mode === 'adagrad') return verifyStep(state, ids, d);
  const out = native.readSync(await lookUp(state, state.batches[0], mode));
  for (let b = 0; b < bags; b += 37) {
    for (let c = 0; c < d; ++c) {
      let sum = 0;
      for (const id of ids.subarray(b * perBag, (b + 1) * perBag)) sum += state.values[id * d + c];
      expectNear(out[b * d + c], mode === 'mean' ? sum / perBag : sum);
    }
  }
}

/** The rows of the first bag after a first step. */
async function verifyStep({ values, table, gradient, batches: [first] }, ids, d) {
  const trained = await EmbeddingTable.from(table, { optimizer: 'adagrad', learningRate: 1e-3 });
  await trained.backward(gradient, first, undefined, {});
  const rows = [...new Set(ids.subarray(0, perBag))];
  const after = (await trained.lookup(Int32Array.from(rows))).dataSync();
  const dOut = gradient.dataSync();
  for (const [r, row] of rows.entries()) {
    const sum = new Float64Array(d);
    ids.forEach((id, i) => {
      if (id === row) for (let c = 0; c < d; ++c) sum[c] += dOut[Math.floor(i / perBag) * d + c];
    });
    const root = Math.sqrt(sum.reduce((a, g) => a + g * g, 0) / d) + 1e-8;
    for (let c = 0; c < d; ++c) expectNear(after[r * d + c], values[row * d + c] - (1e-3 * sum[c]) / root);
  }
  trained.dispose();
}

function expectNear(got, exact) {
  if (!(Math.abs(got - exact) <= 1e-4 * (1 + Math.abs(exact))))
    throw new Error(`embedding: ${got} instead of ${exact}`);
}

/** Draws ids: uniform, or falling off as rank^-1.05 with the ranks spread over the table. */
function idsLike(kind, n) {
  const { uniform } = random(2);
  if (kind === 'uniform') return () => Math.floor(uniform() * n);
  const ends = new Float64Array(n);
  let sum = 0;
  for (let r = 0; r < n; ++r) ends[r] = sum += (r + 1) ** -1.05;
  return () => {
    const x = uniform() * sum;
    let [low, high] = [0, n - 1];
    while (low < high) {
      const mid = (low + high) >> 1;
      if (ends[mid] < x) low = mid + 1;
      else high = mid;
    }
    return (low * 999_983) % n; // below 2^53
  };
}

export async function peers(state, { n, d, mode }, context) {
  const write = mode === 'adagrad';
  const floor = async () => {
    const ids = state.batches[state.turn++ % batches];
    const bytesRead = bags * perBag * d * 4;
    const [gbps] = await native.measureRows(undefined, state.table.handle, ids.handle, write);
    return { ms: [bytesRead / gbps / 1e6] };
  };
  const ids = Int32Array.from(state.batches.flatMap((batch) => [...batch.dataSync()]));
  const settings = { ids, n, d, bags, perBag, threads: context.threads };
  const scipy = await context.open('scipy', () => openScipy(settings));
  const made = [{ name: 'floor', run: floor }];
  if (scipy) made.push({ name: 'scipy', run: () => scipy.run(mode), close: scipy.close });
  return made;
}

export function teardown({ table, trained, batches: made, gradient }) {
  for (const t of [table, trained, gradient, ...made]) t?.dispose();
}
