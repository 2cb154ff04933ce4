import { knownOptions, oneOf } from '../check.js';
import { runJob } from '../job.js';
import type { RowFilter } from '../models/recommender.js';
import { native } from '../native.js';
import { handleOf, Tensor } from '../tensor.js';
import { nativeFilter } from './item-filter.js';

/** How two vectors are compared: 'innerProduct', 'cosine', or 'l2', the squared Euclidean distance. */
export type VectorMetric = 'innerProduct' | 'cosine' | 'l2';

/** @internal */
export const metrics: readonly VectorMetric[] = ['innerProduct', 'cosine', 'l2'];

/** A matrix with a row for each item. */
export type ItemVectors =
  | Tensor<'float32' | 'float16' | 'bfloat16'>
  | Tensor<'float32'>
  | Tensor<'float16'>
  | Tensor<'bfloat16'>;

export interface TopKOptions {
  /** 'innerProduct' unless given. */
  metric?: VectorMetric | undefined;
  /** Items that may not be returned, by row numbers. */
  filter?: RowFilter | undefined;
}

export interface TopKTensors {
  /** int32 [queries, k]: row numbers of the items, best first; -1 where fewer than k items may be returned. */
  ids: Tensor<'int32'>;
  /** float32 [queries, k]: inner product or cosine, falling; squared distance, rising; NaN behind -1. */
  scores: Tensor<'float32'>;
}

/**
 * The k best items of each query, exactly; equal scores by lower row number. Queued on the stream: returns at once, and
 * reading the result waits. Filters act before selection.
 *
 * @param queries float32 [queries, d]
 * @param items float32, float16 or bfloat16 [items, d]; 16-bit floats are converted as they are read
 * @param k 1 to the number of items
 * @throws ERR_SHAPE, ERR_DTYPE, ERR_RANGE or ERR_ARGUMENT at once; reading the result rejects with ERR_VALUE for queries
 * that are not finite and with the error of any operation that failed before
 * @example const { ids } = topK(users, items, 10); await ids.data();
 */
export function topK(
  queries: Tensor<'float32'>,
  items: ItemVectors,
  k: number,
  options: TopKOptions = {},
): TopKTensors {
  knownOptions(options, ['metric', 'filter']);
  const metric = oneOf('metric', options.metric ?? 'innerProduct', metrics);
  const { ids, scores } = native.topkQueued(
    handleOf('queries', queries),
    handleOf('items', items),
    k,
    metric,
    nativeFilter(options.filter),
  );
  return { ids: new Tensor(ids), scores: new Tensor(scores) };
}

/** Like `topK`, but blocks the calling thread until the result is there. */
export function topKSync(
  queries: Tensor<'float32'>,
  items: ItemVectors,
  k: number,
  options: TopKOptions = {},
): TopKTensors {
  knownOptions(options, ['metric', 'filter']);
  const metric = oneOf('metric', options.metric ?? 'innerProduct', metrics);
  const found = native.topkSync(
    handleOf('queries', queries),
    handleOf('items', items),
    undefined,
    k,
    metric,
    nativeFilter(options.filter),
  );
  return { ids: new Tensor(found.ids), scores: new Tensor(found.scores) };
}

const norms = new WeakMap<Tensor, Promise<Tensor<'float32'>>>();

/** The squared length of each row, computed once for each tensor. @internal */
export function squaredNorms(items: Tensor<'float32'>): Promise<Tensor<'float32'>> {
  let found = norms.get(items);
  if (!found) {
    found = runJob('query', {}, (control) => native.squaredNorms(control, items.handle)).then(
      (handle) => new Tensor(handle),
    );
    norms.set(items, found);
    found.catch(() => norms.delete(items)); // out of memory now, not for ever
  }
  return found;
}
