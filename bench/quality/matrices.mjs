// From typed arrays of row numbers to matrices, and what is held out of them for tuning.
import { CsrMatrix } from '../../dist/index.js';
import { random } from '../data/random.mjs';

const largest = (arrays) => arrays.reduce((most, array) => array.reduce((a, b) => Math.max(a, b), most), -1);

/** The matrices of `{ train, test, candidates? }`, all of one shape. */
export async function matrices(parts) {
  const given = Object.entries(parts).filter(([, pairs]) => pairs);
  const shape = ['users', 'items'].map((side) => 1 + largest(given.map(([, pairs]) => pairs[side])));
  const made = await Promise.all(
    given.map(async ([name, { users, items, values }]) => [
      name,
      await CsrMatrix.fromCoo(users, items, values, { shape, duplicates: 'max' }),
    ]),
  );
  return Object.fromEntries(made);
}

/**
 * A tenth of each user's interactions (at least one, of users who have two) is held out of train; of these, those of
 * every `judges`-th user are test, to save time.
 */
export function holdOut({ users, items }, { seed, judges = 1 }) {
  const { uniform } = random(seed);
  const byUser = new Map();
  for (const [at, user] of users.entries()) byUser.get(user)?.push(at) ?? byUser.set(user, [at]);
  const held = new Set();
  for (const places of byUser.values()) {
    const count = places.length > 1 ? Math.max(1, Math.round(places.length / 10)) : 0;
    for (let i = 0; i < count; ++i) {
      const j = i + Math.floor(uniform() * (places.length - i));
      [places[i], places[j]] = [places[j], places[i]];
      held.add(places[i]);
    }
  }
  const take = (wanted) => {
    const places = Int32Array.from(users.keys()).filter(wanted);
    return { users: places.map((at) => users[at]), items: places.map((at) => items[at]) };
  };
  return { train: take((at) => !held.has(at)), test: take((at) => held.has(at) && users[at] % judges === 0) };
}

/** Every value becomes users(item)^-exponent, scaled so that the mean is 1. */
export async function weighByRarity(matrix, exponent) {
  const [indptr, indices] = await Promise.all([matrix.indptr.data(), matrix.indices.data()]);
  const users = new Float64Array(matrix.shape[1]);
  for (const item of indices) ++users[item];
  const weights = Float64Array.from(indices, (item) => users[item] ** -exponent);
  const mean = weights.reduce((a, b) => a + b, 0) / weights.length;
  const values = Float32Array.from(weights, (w) => w / mean);
  return CsrMatrix.from({ indptr, indices, values, cols: matrix.shape[1] });
}
