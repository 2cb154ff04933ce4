import type { CsrMatrix } from '../csr.js';
import type { Id, Ids } from '../data/ids.js';
import type { JobOptions } from '../job.js';
import type { Tensor } from '../tensor.js';

/** Which items a row-level query may return, by row numbers. */
export interface RowFilter {
  /** Items never returned to a query: row q of the matrix, or row seenRows[q]. */
  seen?: CsrMatrix | undefined;
  seenRows?: Int32Array | undefined;
  /** Bit i of word i / 64 is set when item i may be returned: int64 [ceil(items / 64)]. */
  allowed?: BigInt64Array | undefined;
}

/** k best items a query, best first; id -1 and score NaN where fewer exist. */
export interface TopKRows {
  /** int32 [queries * k], row-major. */
  ids: Int32Array;
  /** float32 [queries * k]. */
  scores: Float32Array;
}

/** For each entry of a matrix of positives, in its order: int32 [entries]. */
export interface RankCounts {
  /** Items that score higher, the row's own positives aside. */
  above: Tensor<'int32'>;
  /** Items of the same score, likewise. */
  equal: Tensor<'int32'>;
}

/**
 * What every fitted model offers to evaluation and serving, in row numbers. `recommend` and its relatives, in the
 * caller's ids, are built on it.
 */
export interface Scorer<U extends Id = Id, I extends Id = Id> {
  readonly users: Ids<U>;
  readonly items: Ids<I>;
  /** Best k items for user rows. @throws ERR_RANGE for a row or k out of range */
  topKRows(userRows: Int32Array, k: number, filter?: RowFilter, options?: JobOptions): Promise<TopKRows>;
  /** The score of each pair (userRows[j], itemRows[j]). */
  scorePairs(userRows: Int32Array, itemRows: Int32Array, options?: JobOptions): Promise<Float32Array>;
  /**
   * Where the entries of `positives` (row q: items of userRows[q]) stand among the items that the filter lets through.
   * Optional: without it, evaluation asks `topKRows` for all items where it needs more than the best.
   */
  rankCounts?(
    userRows: Int32Array,
    positives: CsrMatrix,
    filter?: RowFilter,
    options?: JobOptions,
  ): Promise<RankCounts>;
}
