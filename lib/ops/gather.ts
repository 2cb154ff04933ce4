import { knownOptions } from '../check.js';
import { device as named } from '../device.js';
import { expected } from '../errors.js';
import { native } from '../native.js';
import type { Handle } from '../native-ops.js';
import { handleOf, Tensor } from '../tensor.js';

/** Rows of 8-bit or 4-bit numbers q that stand for scale · q + bias, with a scale and a bias for each row. */
export interface QuantizedRows {
  /**
   * int8 [rows, cols], q from -128 to 127; or uint8 [rows, cols / 2], two q from 0 to 15 in each byte, the even column in
   * its low half.
   */
  data: Tensor<'int8' | 'uint8'>;
  /** float32 [rows] */
  scale: Tensor<'float32'>;
  /** float32 [rows] */
  bias: Tensor<'float32'>;
}

/** The rows of an embedding table: a matrix of floats, or quantized. It may lie in a file: see `mapSafetensors`. */
export type EmbeddingRows = Tensor<'float32' | 'float16' | 'bfloat16'> | QuantizedRows;

/** Row numbers: from 0, int32 or int64. A typed array is copied at the call. */
export type RowIds = Tensor<'int32' | 'int64'> | Int32Array | BigInt64Array;

/** Where rows are looked up. */
export interface LookupOptions {
  /**
   * Where to compute and to leave the result: where the table is unless given. A table on the CPU, in memory or in a file,
   * may be looked up on a GPU: the rows that the call needs are sent there, each once, so it may be larger than the GPU's
   * memory.
   */
  device?: string | undefined;
}

/**
 * The rows of a table, in the order of `ids`. Queued on the stream: returns at once, and reading the result waits.
 *
 * Rows of floats are copied, so the result has the table's dtype; quantized rows become float32.
 *
 * @param table [rows, cols]
 * @param ids of any shape with at most seven dimensions
 * @returns [...shape of ids, cols]
 * @throws ERR_DTYPE, ERR_SHAPE, ERR_DEVICE or ERR_ARGUMENT at once; reading the result rejects with ERR_RANGE, naming the
 * entry, for an id that is no row of the table
 * @example const vectors = gather(table, Int32Array.of(3, 1, 3)); // [3, cols]
 */
export function gather<T extends EmbeddingRows>(
  table: T,
  ids: RowIds,
  options: LookupOptions = {},
): T extends Tensor ? T : Tensor<'float32'> {
  knownOptions(options, ['device']);
  return new Tensor(native.gather(nativeRows(table), nativeIds('ids', ids), deviceOf(options))) as T extends Tensor
    ? T
    : Tensor<'float32'>;
}

/** Like `gather`, but blocks the calling thread until the rows are there, and throws what reading would reject with. */
export function gatherSync<T extends EmbeddingRows>(
  table: T,
  ids: RowIds,
  options: LookupOptions = {},
): T extends Tensor ? T : Tensor<'float32'> {
  knownOptions(options, ['device']);
  const rows = native.gatherRowsSync(nativeRows(table), nativeIds('ids', ids), deviceOf(options));
  return new Tensor(rows) as T extends Tensor ? T : Tensor<'float32'>;
}

/** @throws ERR_DEVICE, ERR_ARGUMENT @internal */
export const deviceOf = ({ device }: LookupOptions): string | undefined =>
  device === undefined ? undefined : named(device);

/** @internal */
export function nativeRows(table: EmbeddingRows): { data: Handle; scale?: Handle; bias?: Handle } {
  if (table instanceof Tensor) return { data: table.handle };
  if (typeof table !== 'object' || table === null || !('data' in table))
    expected('table', 'a Tensor or quantized rows, { data, scale, bias },', table);
  return {
    data: handleOf('table.data', table.data),
    scale: handleOf('table.scale', table.scale),
    bias: handleOf('table.bias', table.bias),
  };
}

/** @internal */
export function nativeIds(name: string, ids: RowIds): Handle | Int32Array | BigInt64Array {
  if (ids instanceof Tensor) return ids.handle;
  // Which typed arrays will do the addon says.
  return ArrayBuffer.isView(ids) ? ids : expected(name, 'a Tensor, an Int32Array or a BigInt64Array', ids);
}
