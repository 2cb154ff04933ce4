import { integer, knownOptions, oneOf } from '../check.js';
import { expected } from '../errors.js';
import { native } from '../native.js';
import type { Handle } from '../native-ops.js';
import { Tensor } from '../tensor.js';
import { deviceOf, type EmbeddingRows, type LookupOptions, nativeIds, nativeRows, type RowIds } from './gather.js';

/** How the rows of a bag become one: their sum, their mean, or the maximum in each column. */
export type BagMode = 'sum' | 'mean' | 'max';

export interface EmbeddingBagOptions {
  /** 'sum' unless given. */
  mode?: BagMode | undefined;
  /** float32, one for each id: what its row is multiplied by. With mode 'sum' alone. */
  weights?: Tensor<'float32'> | Float32Array | undefined;
  /** Entries with this id are left out, as if the bag did not hold them; 'mean' does not count them either. */
  paddingIndex?: number | undefined;
}

/**
 * One row for each bag of ids: the sum, mean or maximum of the table's rows, computed in float32 whatever the table holds.
 * A bag without rows gives zeros. For 'max', a NaN wins over numbers. Queued on the stream: returns at once, and reading
 * the result waits.
 *
 * @param table [rows, cols]
 * @param ids [entries]; without offsets [bags, size]
 * @param offsets [bags + 1], from 0 to the number of entries: bag b holds entries offsets[b] to offsets[b + 1] - 1
 * @returns float32 [bags, cols]; the same bytes at any thread count
 * @param options.device where to compute, see `LookupOptions`
 * @throws ERR_DTYPE, ERR_SHAPE, ERR_RANGE, ERR_DEVICE or ERR_ARGUMENT at once; reading the result rejects with ERR_RANGE, naming the
 * entry, for an id that is no row of the table, and for offsets that fall or overrun
 * @example
 * const user = embeddingBag(items, Int32Array.of(4, 1, 7), Int32Array.of(0, 2, 3), { mode: 'mean' }); // [2, cols]
 */
export function embeddingBag(
  table: EmbeddingRows,
  ids: RowIds,
  offsets?: RowIds,
  options: EmbeddingBagOptions & LookupOptions = {},
): Tensor<'float32'> {
  return new Tensor(native.embeddingBag(...lookup(table, ids, offsets, options)));
}

/** Like `embeddingBag`, but blocks the calling thread until the result is there, and throws what reading would reject with. */
export function embeddingBagSync(
  table: EmbeddingRows,
  ids: RowIds,
  offsets?: RowIds,
  options: EmbeddingBagOptions & LookupOptions = {},
): Tensor<'float32'> {
  return new Tensor(native.embeddingBagRowsSync(...lookup(table, ids, offsets, options)));
}

function lookup(
  table: EmbeddingRows,
  ids: RowIds,
  offsets: RowIds | undefined,
  options: EmbeddingBagOptions & LookupOptions,
): Parameters<typeof native.embeddingBag> {
  knownOptions(options, ['mode', 'weights', 'paddingIndex', 'device']);
  const { device, ...bags } = options;
  return [nativeRows(table), nativeIds('ids', ids), offsetsOf(offsets), nativeBags(bags), deviceOf({ device })];
}

/** @internal */
export const offsetsOf = (offsets: RowIds | undefined) =>
  offsets === undefined ? undefined : nativeIds('offsets', offsets);

/** @internal */
export function nativeBags(options: EmbeddingBagOptions): {
  mode: BagMode;
  weights?: Handle | undefined;
  padding: number;
} {
  knownOptions(options, ['mode', 'weights', 'paddingIndex']);
  const { weights, paddingIndex } = options;
  if (weights !== undefined && !(weights instanceof Tensor) && !ArrayBuffer.isView(weights))
    expected('weights', 'a Tensor or a Float32Array', weights);
  return {
    mode: oneOf('mode', options.mode ?? 'sum', ['sum', 'mean', 'max'] as const),
    weights: weights instanceof Tensor ? weights.handle : (weights as unknown as Handle | undefined),
    padding: paddingIndex === undefined ? -1 : integer('paddingIndex', paddingIndex, 0),
  };
}
