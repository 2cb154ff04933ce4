import { knownOptions } from '../check.js';
import { CsrMatrix } from '../csr.js';
import type { Id, Ids } from '../data/ids.js';
import { Interactions } from '../data/interactions.js';
import { describe, expected, TopknotError } from '../errors.js';
import { checkJob, type JobOptions, type Progress, runJob } from '../job.js';
import type { Scorer } from '../models/recommender.js';
import { native } from '../native.js';
import { inSlices } from '../slices.js';
import { Tensor } from '../tensor.js';
import { catalogueMetrics, listMetrics, type Metric, wholeMetrics } from './metrics.js';
import { blockSize, checkProtocol, type Protocol, type Ranking, rankBlock, type Ties } from './protocols.js';

/** Interactions whose users and items are the model's, in the same order; or their bare matrix of users × items. */
export type Evaluable<U extends Id = Id, I extends Id = Id> = Interactions<U, I> | CsrMatrix;

export interface EvaluateOptions extends JobOptions {
  /** Which metrics; recall and NDCG unless given. */
  metrics?: readonly Metric[];
  /** List lengths; 10 unless given. */
  k?: number | readonly number[];
  /** What test items are ranked against; `'full'` unless given. */
  protocol?: Protocol;
  /**
   * Order among equal scores; `'id'` unless given. `'against'` together with a metric of the list's other items
   * (coverage, gini, novelty, diversity) makes the protocol `'full'` sort all items for each user, which is slow.
   */
  ties?: Ties;
  /** What a test item is worth to NDCG: 1, its value v, or 2^v - 1 (values from 0 on). `'binary'` unless given. */
  gains?: 'binary' | 'linear' | 'exponential';
  /**
   * The range of the ratings, [least, most]: predictions outside it are moved to its ends before `rmse` and `mae`
   * compare them, as published figures of rating prediction mostly do. As predicted unless given.
   */
  clip?: readonly [least: number, most: number];
  /** Vectors of the items for `diversity`: float32 [items, any length]. */
  itemVectors?: Tensor<'float32'>;
  /** Also return the values of each user. */
  perUser?: boolean;
  /** Counts users, once for the lists and once more for the rating errors when they are asked for. */
  onProgress?: (progress: Progress) => void;
}

const evaluateOptions = [
  'metrics',
  'k',
  'protocol',
  'ties',
  'gains',
  'clip',
  'itemVectors',
  'perUser',
  'signal',
  'onProgress',
] as const satisfies readonly (keyof EvaluateOptions)[];

/** What `evaluate` found. */
export interface Evaluation {
  /** By name: `values['ndcg@10']`; `auc`, `rmse` and `mae` have no `@k`. NaN where no user has a value. */
  readonly values: Readonly<Record<string, number>>;
  /** Users who have test items. */
  readonly users: number;
  /** Users left out because they have none. */
  readonly skipped: number;
  /** Values of each evaluated user, in the order of `rows`; NaN where the metric is not defined for the user. */
  readonly perUser?: { readonly rows: Int32Array; readonly values: Readonly<Record<string, Float64Array>> };
}

/**
 * Measures a model on interactions it was not fitted to. Runs beside the event loop, in blocks of users; the result is
 * the same at any number of threads.
 *
 * @param model any fitted model
 * @param data.train what the model was fitted to: these items are not recommended again
 * @param data.test what is to be found again. A test item that is also in train can not be found and counts as a miss.
 * @throws ERR_SHAPE unless both matrices are the model's users × items; ERR_RANGE for a k above the number of items,
 * or more negatives than a user has unknown items; ERR_VALUE when the ids are not the model's; ERR_ARGUMENT
 *
 * @example
 * const { values } = await evaluate(model, { train, test }, { metrics: ['recall', 'ndcg'], k: [10, 20] });
 * console.log(values['ndcg@20']);
 */
export async function evaluate<U extends Id, I extends Id>(
  model: Scorer<U, I>,
  data: { train: Evaluable<U, I>; test: Evaluable<U, I> },
  options: EvaluateOptions = {},
): Promise<Evaluation> {
  knownOptions(options, evaluateOptions);
  checkJob(options);
  if (!model?.users || !model.items) expected('model', 'a fitted model', model);
  if (typeof data !== 'object' || data === null) expected('data', '{ train, test }', data);
  const { signal, perUser = false, gains = 'binary' } = options;
  signal?.throwIfAborted();
  const metrics = checkMetrics(options.metrics ?? ['recall', 'ndcg']);
  const ks = checkK(options.k ?? 10, model.items.size);
  const protocol = options.protocol ?? 'full';
  checkProtocol(protocol);
  const ties = options.ties ?? 'id';
  if (ties !== 'id' && ties !== 'against') expected('ties', "'id' or 'against'", ties);
  if (gains !== 'binary' && gains !== 'linear' && gains !== 'exponential')
    expected('gains', "'binary', 'linear' or 'exponential'", gains);
  if (metrics.has('diversity') && !(options.itemVectors instanceof Tensor))
    expected('itemVectors', 'a float32 tensor of [items, length], which diversity needs,', options.itemVectors);
  const clip = checkClip(options.clip);
  const train = await rowsOf(model, data.train, 'train');
  const test = await rowsOf(model, data.test, 'test');
  if (typeof protocol === 'object' && 'candidates' in protocol) checkShape(model, protocol.candidates, 'candidates');

  const rows = (await runJob('long', { signal }, (control) =>
    native.rowsWithEntries(control, test.handles),
  )) as Int32Array;
  const result = new Values(rows, perUser);
  const ranked = listMetrics.some((m) => metrics.has(m)) || catalogueMetrics.some((m) => metrics.has(m));
  const rated = metrics.has('rmse') || metrics.has('mae');
  const lists = ranked || metrics.has('auc');
  const progress = counter(rows.length * (Number(lists) + Number(rated)), options.onProgress);

  if (lists) {
    const k = ranked ? (ks.at(-1) as number) : 1;
    const auc = metrics.has('auc');
    const fillers = ([...catalogueMetrics, 'novelty', 'diversity'] as const).some((m) => metrics.has(m));
    const ranking = { model: model as unknown as Scorer, train, test, protocol, k, ties, auc, fillers };
    const blocks = await rankAll(ranking, rows, result, signal, progress);
    if (ranked) await measureLists(blocks, rows, { train, test, ks, metrics, options, gains }, result);
    for (const block of blocks) block.dispose();
  }
  if (rated) await measureRatings(model as unknown as Scorer, test, rows, metrics, clip, result, signal, progress);
  return result.evaluation(test.shape[0] - rows.length);
}

/** Collects values by name. */
class Values {
  readonly values: Record<string, number> = {};
  readonly #perUser: Record<string, Float64Array> | undefined;

  constructor(
    readonly rows: Int32Array,
    perUser: boolean,
  ) {
    this.#perUser = perUser ? {} : undefined;
  }

  get keepsUsers(): boolean {
    return this.#perUser !== undefined;
  }

  set(name: string, value: number, users?: Float64Array): void {
    this.values[name] = value;
    if (this.#perUser && users) this.#perUser[name] = users;
  }

  evaluation(skipped: number): Evaluation {
    const found = { values: this.values, users: this.rows.length, skipped };
    return this.#perUser ? { ...found, perUser: { rows: this.rows, values: this.#perUser } } : found;
  }
}

async function rankAll(
  ranking: Ranking,
  rows: Int32Array,
  result: Values,
  signal: AbortSignal | undefined,
  progress: (users: number) => void,
): Promise<Tensor<'int32'>[]> {
  const blocks: Tensor<'int32'>[] = [];
  const step = blockSize(ranking, rows.length);
  const auc = ranking.auc ? new Float64Array(rows.length) : undefined;
  try {
    for (let start = 0; start < rows.length; start += step) {
      const users = rows.subarray(start, start + step);
      const block = await rankBlock(ranking, users, { signal });
      blocks.push(block.lists);
      if (block.auc) auc?.set(block.auc, start);
      progress(users.length);
    }
  } catch (error) {
    for (const block of blocks) block.dispose();
    throw error;
  }
  if (auc) result.set('auc', await mean(auc), auc);
  return blocks;
}

/** In order, without NaN. */
async function mean(values: Float64Array): Promise<number> {
  let sum = 0;
  let count = 0;
  await inSlices(values.length, (begin, end) => {
    for (const value of values.subarray(begin, end)) {
      if (Number.isNaN(value)) continue;
      sum += value;
      count++;
    }
  });
  return count > 0 ? sum / count : Number.NaN;
}

async function measureLists(
  blocks: readonly Tensor<'int32'>[],
  rows: Int32Array,
  what: {
    train: CsrMatrix;
    test: CsrMatrix;
    ks: readonly number[];
    metrics: ReadonlySet<Metric>;
    options: EvaluateOptions;
    gains: 'binary' | 'linear' | 'exponential';
  },
  result: Values,
): Promise<void> {
  const { ks, metrics, options } = what;
  const names = listMetrics.filter((m) => metrics.has(m));
  const catalogue = catalogueMetrics.some((m) => metrics.has(m));
  const found = await runJob('long', { signal: options.signal }, (control) =>
    native.listMetrics(
      control,
      blocks.map((b) => b.handle),
      rows,
      what.test.handles,
      what.train.handles,
      names.includes('diversity') ? options.itemVectors?.handle : undefined,
      { k: ks, metrics: names, gains: what.gains, catalogue, perUser: result.keepsUsers },
    ),
  );
  const users = found.perUser as Float64Array | undefined;
  names.forEach((name, m) => {
    ks.forEach((k, c) => {
      const at = m * ks.length + c;
      const own = users?.subarray(at * rows.length, (at + 1) * rows.length);
      result.set(`${name}@${k}`, (found.means as Float64Array)[at] as number, own);
    });
  });
  for (const name of catalogueMetrics) {
    if (!metrics.has(name)) continue;
    ks.forEach((k, c) => {
      result.set(`${name}@${k}`, (found[name] as Float64Array)[c] as number);
    });
  }
}

async function measureRatings(
  model: Scorer,
  test: CsrMatrix,
  rows: Int32Array,
  metrics: ReadonlySet<Metric>,
  [least, most]: readonly [number, number],
  result: Values,
  signal: AbortSignal | undefined,
  progress: (users: number) => void,
): Promise<void> {
  const step = Math.max(1, Math.floor((1 << 18) / (test.nnz / Math.max(1, rows.length))));
  const users = { rmse: new Float64Array(rows.length), mae: new Float64Array(rows.length) };
  let squared = 0;
  let absolute = 0;
  for (let start = 0; start < rows.length; start += step) {
    const block = rows.subarray(start, start + step);
    const pairs = await runJob('long', { signal }, (control) => native.testPairs(control, test.handles, block));
    native.dispose(pairs.ptr);
    const predicted = await model.scorePairs(pairs.users as Int32Array, pairs.items as Int32Array, { signal });
    const errors = await runJob('long', { signal }, (control) =>
      native.ratingErrors(control, test.handles, block, predicted, least, most, result.keepsUsers),
    );
    squared += errors.squared;
    absolute += errors.absolute;
    if (errors.perUser) {
      users.rmse.set((errors.perUser as Float64Array).subarray(0, block.length), start);
      users.mae.set((errors.perUser as Float64Array).subarray(block.length), start);
    }
    progress(block.length);
  }
  if (metrics.has('rmse')) result.set('rmse', Math.sqrt(squared / test.nnz), users.rmse);
  if (metrics.has('mae')) result.set('mae', absolute / test.nnz, users.mae);
}

function counter(total: number, onProgress: EvaluateOptions['onProgress']): (users: number) => void {
  let done = 0;
  return (users) => {
    done += users;
    onProgress?.({ done, total });
  };
}

function checkMetrics(metrics: readonly Metric[]): Set<Metric> {
  const known: readonly string[] = [...listMetrics, ...catalogueMetrics, ...wholeMetrics];
  if (!Array.isArray(metrics) || metrics.length === 0) expected('metrics', 'at least one name', metrics);
  for (const name of metrics) if (!known.includes(name)) expected('metrics', `names among ${known.join(', ')}`, name);
  return new Set(metrics);
}

function checkK(given: number | readonly number[], items: number): number[] {
  if (typeof given !== 'number' && !Array.isArray(given)) expected('k', 'an integer or an array of them', given);
  const ks = [...new Set(typeof given === 'number' ? [given] : given)].sort((a, b) => a - b);
  if (ks.length === 0) expected('k', 'at least one list length', given);
  for (const k of ks) {
    if (!Number.isSafeInteger(k)) expected('k', 'integers', k);
    if (k < 1 || k > items)
      throw new TopknotError(
        'ERR_RANGE',
        `k: expected 1 to ${items}, the number of items, but received ${describe(k)}`,
      );
  }
  return ks;
}

function checkClip(clip: EvaluateOptions['clip']): readonly [number, number] {
  if (clip === undefined) return [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY];
  if (!Array.isArray(clip) || clip.length !== 2 || !(clip[0] <= clip[1]))
    expected('clip', '[least, most], the range of the ratings', clip);
  return clip;
}

async function rowsOf<U extends Id, I extends Id>(
  model: Scorer<U, I>,
  data: Evaluable<U, I>,
  name: string,
): Promise<CsrMatrix> {
  if (data instanceof CsrMatrix) {
    checkShape(model, data, name);
    return data;
  }
  if (!(data instanceof Interactions)) expected(name, 'Interactions or a CsrMatrix', data);
  for (const side of ['users', 'items'] as const) {
    if (!(await sameIds(data[side], model[side])))
      throw new TopknotError(
        'ERR_VALUE',
        `${name}: its ${side} are not the model's, in the same order; split one data set, or clean it with the model's ids`,
      );
  }
  return data.matrix();
}

function checkShape(model: Pick<Scorer, 'users' | 'items'>, matrix: CsrMatrix, name: string): void {
  const [users, items] = [model.users.size, model.items.size];
  const [rows, cols] = matrix.shape;
  if (rows !== users || cols !== items)
    throw new TopknotError(
      'ERR_SHAPE',
      `${name}: expected [${users}, ${items}], the model's users and items, but received [${rows}, ${cols}]`,
    );
}

async function sameIds(a: Ids, b: Ids): Promise<boolean> {
  if (a === b) return true;
  let same = a.size === b.size;
  await inSlices(same ? a.size : 0, (begin, end) => {
    for (let i = begin; same && i < end; i++) same = a.at(i) === b.at(i);
  });
  return same;
}
