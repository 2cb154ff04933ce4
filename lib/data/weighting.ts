import { knownOptions } from '../check.js';
import { describe, expected, TopknotError } from '../errors.js';
import { runJob } from '../job.js';
import { native } from '../native.js';
import { Tensor } from '../tensor.js';
import type { TripletTensors } from './cleaning.js';

/**
 * How values become weights. With v the value of user u for item i, N users, n_i of them with item i:
 * - 'binary': 1
 * - 'log': ln(1 + alpha·v) (Hu, Koren, Volinsky 2008, with ε = 1 / alpha)
 * - 'tfidf': v · (ln((1 + N) / (1 + n_i)) + 1)
 * - 'bm25': idf_i · v · (k1 + 1) / (v + k1 · (1 - b + b · L_u / L)), idf_i = ln(1 + (N - n_i + 0.5) / (n_i + 0.5)), L_u the sum
 *   of the user's values and L its mean over users: a user is a document, an item a term (Robertson, Zaragoza 2009)
 * - 'rarity': v · n_i^-exponent · c, with c such that the factors of v have mean 1: tempers popular items by a power of
 *   their frequency. `bench/results/quality.json` shows what ALS gains by it (there called itemExponent)
 */
export type Weighting = 'binary' | 'log' | 'bm25' | 'tfidf' | 'rarity';

export interface WeightingOptions {
  /** For 'log', above 0; 1 unless given. */
  alpha?: number;
  /** For 'bm25': how slowly repetition saturates, from 0; 1.2 unless given. */
  k1?: number;
  /** For 'bm25': how much active users are discounted, 0 to 1; 0.75 unless given. */
  b?: number;
  /** For 'rarity', 0 to 1; 0.4 unless given. */
  exponent?: number;
  signal?: AbortSignal | undefined;
}

/**
 * How the values of each user are normalised: 'mean-center' subtracts their mean, 'l1' divides by the sum of their
 * magnitudes, 'l2' by the root of the sum of their squares. Values that are all 0 stay 0.
 */
export type Normalization = 'mean-center' | 'l1' | 'l2';

/** Columns as the addon passes them. @internal */
export function tripletHandles(t: TripletTensors) {
  return { users: t.users.handle, items: t.items.handle, values: t.values.handle, times: t.times?.handle };
}

/** A second tensor on the same memory, disposed on its own. @internal */
export const shared = <T extends Tensor>(t: T): T => t.reshape(t.shape) as T;

/** The same interactions with other values. */
const withValues = (data: TripletTensors, values: Tensor<'float32'>): TripletTensors => ({
  users: shared(data.users),
  items: shared(data.items),
  values,
  times: data.times && shared(data.times),
});

/** @internal */
export async function weighted(
  data: TripletTensors,
  userCount: number,
  itemCount: number,
  scheme: Weighting,
  options: WeightingOptions,
): Promise<TripletTensors> {
  knownOptions(options, ['alpha', 'k1', 'b', 'exponent', 'signal']);
  const { alpha = 1, k1 = 1.2, b = 0.75, exponent = 0.4, signal } = options;
  if (!['binary', 'log', 'bm25', 'tfidf', 'rarity'].includes(scheme))
    expected('scheme', "'binary', 'log', 'bm25', 'tfidf' or 'rarity'", scheme);
  const range = (name: string, x: number, ok: boolean, what: string) => {
    if (!ok || !Number.isFinite(x))
      throw new TopknotError('ERR_RANGE', `${name}: expected ${what} but received ${describe(x)}`);
  };
  range('alpha', alpha, alpha > 0, 'a number above 0');
  range('k1', k1, k1 >= 0, 'a number from 0');
  range('b', b, b >= 0 && b <= 1, 'a number from 0 to 1');
  range('exponent', exponent, exponent >= 0 && exponent <= 1, 'a number from 0 to 1');
  const values = await runJob('long', { signal }, (control) =>
    native.interactionsWeight(control, tripletHandles(data), userCount, itemCount, { scheme, alpha, k1, b, exponent }),
  );
  return withValues(data, new Tensor<'float32'>(values));
}

/** @internal */
export async function normalized(
  data: TripletTensors,
  userCount: number,
  normalization: Normalization,
  signal?: AbortSignal,
): Promise<TripletTensors> {
  if (!['mean-center', 'l1', 'l2'].includes(normalization))
    expected('normalization', "'mean-center', 'l1' or 'l2'", normalization);
  const values = await runJob('long', { signal }, (control) =>
    native.interactionsNormalize(control, tripletHandles(data), userCount, normalization),
  );
  return withValues(data, new Tensor<'float32'>(values));
}
