import { knownOptions } from '../check.js';
import { type JobOptions, runJob } from '../job.js';
import { native } from '../native.js';
import type { Handle } from '../native-ops.js';
import { dtypeOfArray, handleOf, Tensor } from '../tensor.js';
import { type EmbeddingBagOptions, nativeBags, offsetsOf } from './embedding-bag.js';
import { type EmbeddingRows, nativeIds, nativeRows, type QuantizedRows, type RowIds } from './gather.js';

/** The gradient of a table as the rows that were looked up and nothing else. */
export interface RowGradients {
  /** int32 [n]: the rows that were looked up, rising, each once. */
  rows: Tensor<'int32'>;
  /** float32 [n, cols]: the derivative of the loss by each of them. */
  values: Tensor<'float32'>;
  /** float32 [entries]: the derivative of the loss by each weight, 0 for padding; with `weightGradient`. */
  weights?: Tensor<'float32'>;
}

export interface EmbeddingBackwardOptions extends EmbeddingBagOptions, JobOptions {
  /** Computes `weights` too; with mode 'sum' alone. */
  weightGradient?: boolean | undefined;
}

/**
 * The backward pass of `embeddingBag` with the same arguments. A gradient of the size of the table is never made. The same
 * bytes at any thread count.
 *
 * For 'max' the gradient of a column goes to the entry with the largest value, the first of equal ones; for that the table
 * is read again. Otherwise it is not read.
 *
 * @param gradient float32 [bags, cols]: the derivative of the loss by the result of `embeddingBag`
 * @throws as `embeddingBag`, all of it by rejecting; ERR_VALUE for a gradient that is not finite
 */
export async function embeddingBagBackward(
  gradient: Tensor<'float32'>,
  table: EmbeddingRows,
  ids: RowIds,
  offsets?: RowIds,
  options: EmbeddingBackwardOptions = {},
): Promise<RowGradients> {
  knownOptions(options, ['mode', 'weights', 'paddingIndex', 'weightGradient', 'signal', 'onProgress']);
  return rowGradients(handleOf('gradient', gradient), table, nativeIds('ids', ids), offsetsOf(offsets), options);
}

/**
 * The backward pass of `gather`: the sum of the gradients of each row that was looked up.
 *
 * @param gradient float32 [...shape of ids, cols]
 * @param options.paddingIndex entries with this id get no gradient
 */
export async function gatherBackward(
  gradient: Tensor<'float32'>,
  table: EmbeddingRows,
  ids: RowIds,
  options: JobOptions & { paddingIndex?: number | undefined } = {},
): Promise<RowGradients> {
  knownOptions(options, ['signal', 'onProgress', 'paddingIndex']);
  return rowGradients(flatGradient(gradient), table, heldIds('ids', ids, 'column'), undefined, options);
}

/**
 * Rows in 8 or 4 bits, each with a scale and a bias of its own: a quarter or an eighth of the memory. The error of a value
 * is at most half of its row's (largest - least) / 255, or / 15, and float32 rounding.
 *
 * @param table float32 [rows, cols]; cols even for 4 bits
 * @throws ERR_VALUE for numbers that are not finite, ERR_SHAPE, ERR_RANGE
 */
export async function quantizeRows(
  table: Tensor<'float32'>,
  options: JobOptions & { bits?: 8 | 4 } = {},
): Promise<QuantizedRows> {
  knownOptions(options, ['bits', 'signal', 'onProgress']);
  const { bits = 8, ...jobOptions } = options;
  const handle = handleOf('table', table);
  const { data, scale, bias } = await runJob('long', jobOptions, (control) =>
    native.embeddingQuantize(control, handle, bits),
  );
  return { data: new Tensor(data), scale: new Tensor(scale), bias: new Tensor(bias) };
}

async function rowGradients(
  gradient: Handle,
  table: EmbeddingRows,
  ids: ReturnType<typeof nativeIds>,
  offsets: ReturnType<typeof offsetsOf>,
  options: EmbeddingBackwardOptions,
): Promise<RowGradients> {
  const { signal, onProgress, weightGradient = false, ...bags } = options;
  const { rows, values, weights } = await runJob('query', { signal, onProgress }, (control) =>
    native.embeddingBagBackward(control, gradient, nativeRows(table), ids, offsets, nativeBags(bags), weightGradient),
  );
  const found = { rows: new Tensor<'int32'>(rows), values: new Tensor<'float32'>(values) };
  return weights ? { ...found, weights: new Tensor<'float32'>(weights) } : found;
}

/** [..., cols] as [n, cols]. @internal */
export function flatGradient(gradient: Tensor<'float32'>): Handle {
  const handle = handleOf('gradient', gradient);
  const { shape, size } = gradient;
  const cols = shape.at(-1) ?? 1;
  return native.tensorFrom(handle, 'float32', [cols === 0 ? 0 : size / cols, cols]);
}

/** A reference of one's own to ids as they are now; as a column they are bags of one id each. @internal */
export function heldIds(name: string, ids: RowIds, as?: 'column'): Handle {
  const given = nativeIds(name, ids);
  const [dtype, shape] = ids instanceof Tensor ? [ids.dtype, ids.shape] : [dtypeOfArray(ids), [ids.length]];
  return native.tensorFrom(given, dtype, as === 'column' ? [shape.reduce((n, m) => n * m, 1), 1] : shape);
}
