import { knownOptions } from '../check.js';
import { describe, expected, TopknotError } from '../errors.js';
import { runJob } from '../job.js';
import { native } from '../native.js';
import type { Control, Handle } from '../native-ops.js';
import { Tensor } from '../tensor.js';
import type { Id } from './ids.js';
import type { Interactions } from './interactions.js';
import { tripletHandles } from './weighting.js';

/**
 * Interactions in two parts that share no pair of user and item. Both keep the `users` and `items` of what was split,
 * so a row means the same in both.
 */
export interface Split<U extends Id = Id, I extends Id = Id> {
  train: Interactions<U, I>;
  test: Interactions<U, I>;
}

/** Options of every split. */
export interface SplitOptions {
  signal?: AbortSignal | undefined;
}

/** Options of a random split. */
export interface RandomSplitOptions extends SplitOptions {
  /** The same seed gives the same split, at any thread count. An integer; 0 unless given. */
  seed?: number | undefined;
}

/**
 * Splits at random.
 *
 * With `by: 'user'` (the default) each user gives the share `test` of its n interactions, round(test · n) of them, but keeps
 * at least one in train: a user with one interaction is in train only, and so is one for whom test · n is below a half.
 * With `by: 'interaction'` each interaction is drawn on its own, and a user may be in one part only.
 *
 * @throws ERR_RANGE unless 0 < test < 1
 */
export async function splitRatio<U extends Id, I extends Id>(
  data: Interactions<U, I>,
  options: RandomSplitOptions & { test: number; by?: 'user' | 'interaction' | undefined },
): Promise<Split<U, I>> {
  checkData(data);
  knownOptions(options, ['test', 'by', 'seed', 'signal']);
  const { test, by = 'user' } = options;
  if (!(test > 0 && test < 1)) outOfRange('test', 'a share between 0 and 1', test);
  if (by !== 'user' && by !== 'interaction') expected('by', "'user' or 'interaction'", by);
  const seed = checkSeed(options.seed);
  return inTwo(data, options, (control) =>
    native.splitRatio(control, data.userRows.handle, data.users.size, test, by === 'user', seed),
  );
}

/**
 * Leaves each user's last n interactions out as test: the latest, or, without times and among equal times, the last
 * of the input. A user with n interactions or fewer stays in train.
 *
 * @param options.n how many to leave out; 1 unless given
 */
export async function splitLast<U extends Id, I extends Id>(
  data: Interactions<U, I>,
  options: SplitOptions & { n?: number | undefined } = {},
): Promise<Split<U, I>> {
  checkData(data);
  knownOptions(options, ['n', 'signal']);
  const { n = 1 } = options;
  if (!(Number.isSafeInteger(n) && n >= 1)) outOfRange('n', 'a whole number from 1', n);
  return inTwo(data, options, (control) => native.splitLast(control, data.userRows.handle, data.users.size, n));
}

/**
 * Splits all users at one moment: train is what came before `at`, test what came at or after it. With `ratio`, the
 * moment is chosen so that about this share comes at or after it; interactions of one moment are never parted. A user
 * or item may be in one part only.
 *
 * @throws ERR_ARGUMENT for interactions without times, or unless one of `at` and `ratio` is given
 */
export async function splitTime<U extends Id, I extends Id>(
  data: Interactions<U, I>,
  options: SplitOptions & { at?: number | Date | undefined; ratio?: number | undefined },
): Promise<Split<U, I>> {
  checkData(data);
  knownOptions(options, ['at', 'ratio', 'signal']);
  const { times } = data;
  if (!times)
    throw new TopknotError('ERR_ARGUMENT', 'data: expected interactions with times; name their column with `time`');
  const { at, ratio, signal } = options;
  if ((at === undefined) === (ratio === undefined))
    throw new TopknotError('ERR_ARGUMENT', 'options: expected either `at` or `ratio`');
  let moment: number;
  if (ratio !== undefined) {
    if (!(ratio > 0 && ratio < 1)) outOfRange('ratio', 'a share between 0 and 1', ratio);
    moment = await runJob('long', { signal }, (control) => native.timeQuantile(control, times.handle, 1 - ratio));
  } else {
    moment = at instanceof Date ? at.getTime() : (at as number);
    if (typeof moment !== 'number' || Number.isNaN(moment)) expected('at', 'a time or a Date', at);
  }
  return inTwo(data, options, (control) => native.splitTime(control, times.handle, moment));
}

/**
 * k splits, one after the other; each interaction is in the test part of exactly one. Each user's interactions are dealt
 * to the folds in random order, from a random first fold, so they differ by at most one between folds. A user with one
 * interaction is in test once, and then without train.
 *
 * @example for await (const { train, test } of kFold(data, 5, { seed: 1 })) { ... }
 */
export async function* kFold<U extends Id, I extends Id>(
  data: Interactions<U, I>,
  k: number,
  options: RandomSplitOptions = {},
): AsyncGenerator<Split<U, I>, void, void> {
  checkData(data);
  knownOptions(options, ['seed', 'signal']);
  if (!(Number.isSafeInteger(k) && k >= 2 && k <= 1000)) outOfRange('k', '2 to 1000 folds', k);
  const seed = checkSeed(options.seed);
  const folds = await runJob('long', options, (control) =>
    native.splitFolds(control, data.userRows.handle, data.users.size, k, seed),
  );
  try {
    for (let fold = 0; fold < k; fold++)
      yield {
        train: await part(data, folds, fold, false, options),
        test: await part(data, folds, fold, true, options),
      };
  } finally {
    native.dispose(folds);
  }
}

function checkData(data: unknown): void {
  if (!((data as Interactions | undefined)?.userRows instanceof Tensor)) expected('data', 'Interactions', data);
}

async function inTwo<U extends Id, I extends Id>(
  data: Interactions<U, I>,
  options: SplitOptions,
  assign: (control: Control) => Promise<Handle>,
): Promise<Split<U, I>> {
  const { signal } = options;
  const parts = await runJob('long', { signal }, assign);
  try {
    return { train: await part(data, parts, 0, true, options), test: await part(data, parts, 1, true, options) };
  } finally {
    native.dispose(parts);
  }
}

async function part<U extends Id, I extends Id>(
  data: Interactions<U, I>,
  parts: Handle,
  number: number,
  inside: boolean,
  { signal }: SplitOptions,
): Promise<Interactions<U, I>> {
  const chosen = await runJob('long', { signal }, (control) =>
    native.interactionsSelect(control, tripletHandles(data.tensors), parts, number, inside),
  );
  return data.with({
    users: new Tensor(chosen.users),
    items: new Tensor(chosen.items),
    values: new Tensor(chosen.values),
    times: chosen.times && new Tensor(chosen.times),
  });
}

function checkSeed(seed = 0): number {
  if (!Number.isSafeInteger(seed)) expected('seed', 'an integer', seed);
  return seed;
}

function outOfRange(name: string, what: string, x: unknown): never {
  throw new TopknotError('ERR_RANGE', `${name}: expected ${what} but received ${describe(x)}`);
}
