import { knownOptions } from '../check.js';
import type { CsrHandles } from '../csr.js';
import type { Id, Ids } from '../data/ids.js';
import { describe, expected, TopknotError } from '../errors.js';
import type { Handle } from '../native-ops.js';

/** What somebody did, who need not be among the fitted users: items, with weights where they are not 1. */
export type History<I extends Id = Id> = readonly (I | { readonly item: I; readonly weight?: number })[];

/** A history in row numbers: rising, distinct, weights of repeated items added up. @internal */
export interface HistoryRows {
  readonly rows: Int32Array<ArrayBuffer>;
  readonly weights: Float32Array<ArrayBuffer>;
}

/**
 * @param unrated for models of ratings: what an item without a weight counts as; of several ratings of an item the last
 * counts
 * @throws ERR_ARGUMENT for something that is no history or an entry with a name that does not exist, ERR_UNKNOWN_ID for an
 * item that the model does not know, ERR_VALUE for no items at all or a weight that is not a positive number.
 * @internal
 */
export function historyRows<I extends Id>(items: Ids<I>, history: History<I>, unrated?: number): HistoryRows {
  if (!Array.isArray(history)) expected('history', 'an array of items', history);
  const weights = new Map<number, number>();
  history.forEach((entry: History<I>[number], i) => {
    const weighted = typeof entry === 'object' && entry !== null;
    if (weighted) knownOptions(entry, ['item', 'weight'], `history[${i}]`);
    const { item, weight = unrated ?? 1 } = weighted ? entry : { item: entry as I };
    const row = items.row(item, `history[${i}]`);
    const before = unrated === undefined ? (weights.get(row) ?? 0) : 0;
    const valid = typeof weight === 'number' && (weight > 0 || (unrated !== undefined && weight === 0));
    if (!valid || !(Math.fround(before + weight) < Number.POSITIVE_INFINITY))
      throw new TopknotError(
        'ERR_VALUE',
        `history[${i}].weight: expected ${unrated === undefined ? 'a positive number' : 'a number of 0 or more'} ` +
          `that float32 can hold but received ${describe(weight)}`,
      );
    weights.set(row, before + weight);
  });
  if (weights.size === 0) throw new TopknotError('ERR_VALUE', 'history: expected at least one item but received none');
  const rows = Int32Array.from(weights.keys()).sort();
  return { rows, weights: Float32Array.from(rows, (row) => weights.get(row)!) };
}

/** The history as a matrix of one row, for the addon, which copies it. @internal */
export function historyMatrix({ rows, weights }: HistoryRows, cols: number): CsrHandles {
  const handle = (array: unknown) => array as Handle;
  const indptr = BigInt64Array.of(0n, BigInt(rows.length));
  return { indptr: handle(indptr), indices: handle(rows), values: handle(weights), cols };
}
