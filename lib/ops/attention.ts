import { finite, integer, knownOptions } from '../check.js';
import { expected } from '../errors.js';
import { native } from '../native.js';
import { handleOf, Tensor } from '../tensor.js';

/** Offsets of packed sequences: a tensor or a typed array. */
export type Offsets = Tensor<'int32'> | Tensor<'int64'> | Int32Array | BigInt64Array;

/** What q, k and v may hold; all arithmetic is in float32. */
export type AttentionDType = 'float32' | 'bfloat16';

export interface AttentionOptions {
  /**
   * Hides the keys behind a query's own place. Query i of n stands at key i + m - n of m: the last query stands at the
   * last key, so that new queries go on where a longer history of keys ends.
   */
  causal?: boolean | undefined;
  /**
   * How far a query sees from its own place: one number for both sides, or [before, behind]; `Infinity` for no limit.
   * `window: [128, 0]` is causal attention to a query's own place and the 128 before.
   */
  window?: number | readonly [number, number] | undefined;
  /** What the products are multiplied with; 1 / √dims unless given. */
  scale?: number | undefined;
  /** bool or uint8 [batch, keys], packed [total of keys]: 0 hides a key from every query, as for padding. */
  keyMask?: Tensor<'bool'> | Tensor<'uint8'> | undefined;
  /**
   * float32 [1 or batch, 1 or heads, queries, keys], added to the scaled products; `-Infinity` hides a pair. With packed
   * sequences the last two are at least as long as the longest sequences, and query i and key j of each sequence find
   * theirs at [i, j].
   */
  bias?: Tensor<'float32'> | undefined;
  /** [sequences + 1], rising from 0 to the total: the sequences are packed, see `attention`. */
  queryOffsets?: Offsets | undefined;
  /** The same for keys; `queryOffsets` unless given. */
  keyOffsets?: Offsets | undefined;
  /** The probability that a weight becomes 0; the others grow by 1 / (1 - dropout). 0 unless given. */
  dropout?: number | undefined;
  /** Which weights dropout hits: the same seed and shapes, the same weights. 0 unless given. */
  seed?: number | undefined;
}

export interface AttentionTensors<D extends AttentionDType = 'float32'> {
  /** The shape and the element type of q. */
  out: Tensor<D>;
  /**
   * float32 [batch, heads, queries], packed [heads, total]: the logarithm of the sum of the exponentials of each query's
   * scores, -Infinity where it sees no key. Whoever merges results over parts of the keys needs it.
   */
  logSumExp: Tensor<'float32'>;
}

const optionNames = [
  'causal',
  'window',
  'scale',
  'keyMask',
  'bias',
  'queryOffsets',
  'keyOffsets',
  'dropout',
  'seed',
] as const satisfies readonly (keyof AttentionOptions)[];

/**
 * Scaled dot-product attention of many heads: out_i = Σ_j softmax_j(scale q_i·k_j + bias_ij) v_j over the keys j that
 * query i may see. A query that sees none gives zeros. Scores are never kept: memory grows with the length, not with
 * its square. Queued on the stream: returns at once, and reading the result waits.
 *
 * Shapes are [batch, heads, length, dims], with up to 256 dims a head; queries and keys may differ in length. With
 * `queryOffsets` they are [total, heads, dims], sequences of any lengths one after the other. k and v may have fewer
 * heads than q, if their number divides that of q: then neighbouring heads of q share one.
 *
 * q, k and v are float32, or all of them bfloat16: these are widened block by block, everything is summed in float32, and
 * `out` is rounded to bfloat16 at the end.
 *
 * The same call gives the same bytes at any number of threads, dropout included.
 *
 * @throws ERR_SHAPE, ERR_DTYPE, ERR_RANGE or ERR_ARGUMENT at once. Reading the result rejects with ERR_VALUE when an
 * input holds NaN or an infinite number (values at hidden keys must be finite, too), with ERR_RANGE for offsets that
 * were still being computed at the call, and with the error of any operation that failed before.
 * @example const { out } = attention(q, k, v, { causal: true }); await out.data();
 * @see Vaswani et al. 2017, "Attention is all you need"; Milakov and Gimelshein 2018, "Online normalizer calculation for
 * softmax"; Dao et al. 2022, "FlashAttention", and Dao 2023, "FlashAttention-2"; Ainslie et al. 2023, "GQA".
 */
export function attention<D extends AttentionDType>(
  q: Tensor<D>,
  k: Tensor<D>,
  v: Tensor<D>,
  options: AttentionOptions = {},
): AttentionTensors<D> {
  const { out, logSumExp } = native.attention(
    handleOf('q', q),
    handleOf('k', k),
    handleOf('v', v),
    nativeOptions(options),
  );
  return { out: new Tensor(out), logSumExp: new Tensor(logSumExp) };
}

export interface AttentionGradients<D extends AttentionDType = 'float32'> {
  /** The shape and the element type of q. */
  q: Tensor<D>;
  /** The shape and the element type of k. */
  k: Tensor<D>;
  /** The shape and the element type of v. */
  v: Tensor<D>;
  /** float32, the shape of the bias, summed over what shares it; undefined without a bias. */
  bias: Tensor<'float32'> | undefined;
}

/**
 * The gradients of a loss with respect to what `attention` was given. The weights are made again, block by block, from
 * `logSumExp`; the same call gives the same bytes at any number of threads. Queued on the stream: returns at once.
 *
 * Gradients of bfloat16 inputs are bfloat16: they are summed in float32 over everything that shares them, grouped heads
 * included, and rounded once.
 *
 * @param outGradient the shape and the element type of q: the gradient of the loss with respect to `out`
 * @param saved what `attention` returned for the same q, k, v and options
 * @param options those of the forward call, the seed included
 * @throws like `attention`; ERR_SHAPE and ERR_DTYPE name outGradient, out or logSumExp, too
 * @example const saved = attention(q, k, v); const { q: dq } = attentionBackward(dOut, q, k, v, saved);
 * @see Dao et al. 2022, "FlashAttention", appendix B
 */
export function attentionBackward<D extends AttentionDType>(
  outGradient: Tensor<D>,
  q: Tensor<D>,
  k: Tensor<D>,
  v: Tensor<D>,
  saved: AttentionTensors<D>,
  options: AttentionOptions = {},
): AttentionGradients<D> {
  const gradients = native.attentionBackward(
    handleOf('outGradient', outGradient),
    handleOf('q', q),
    handleOf('k', k),
    handleOf('v', v),
    handleOf('saved.out', saved?.out),
    handleOf('saved.logSumExp', saved?.logSumExp),
    nativeOptions(options),
  );
  return {
    q: new Tensor(gradients.q),
    k: new Tensor(gradients.k),
    v: new Tensor(gradients.v),
    bias: gradients.bias && new Tensor(gradients.bias),
  };
}

type NativeOptions = Parameters<typeof native.attention>[3];

function nativeOptions(options: AttentionOptions): NativeOptions {
  knownOptions(options, optionNames);
  const { causal = false, scale, dropout = 0, seed = 0, queryOffsets, keyOffsets } = options;
  if (typeof causal !== 'boolean') expected('causal', 'a boolean', causal);
  const [left, right] = sides(options.window);
  return {
    causal,
    left,
    right,
    scale: scale === undefined ? undefined : finite('scale', scale),
    dropout: finite('dropout', dropout),
    seed: integer('seed', seed, 0),
    keyMask: options.keyMask === undefined ? undefined : handleOf('keyMask', options.keyMask),
    bias: options.bias === undefined ? undefined : handleOf('bias', options.bias),
    queryOffsets: offsetsHandle('queryOffsets', queryOffsets),
    keyOffsets: offsetsHandle('keyOffsets', keyOffsets),
  };
}

function sides(window: AttentionOptions['window']): (number | undefined)[] {
  if (window === undefined) return [undefined, undefined];
  const both = typeof window === 'number' ? [window, window] : window;
  if (!Array.isArray(both) || both.length !== 2) expected('window', 'a number or [before, behind]', window);
  return both.map((side) => (side === Number.POSITIVE_INFINITY ? undefined : integer('window', side, 0)));
}

function offsetsHandle(name: string, value: Offsets | undefined): Tensor['handle'] | undefined {
  if (value === undefined || value instanceof Tensor) return value?.handle;
  if (value instanceof Int32Array) return native.tensorFrom(value, 'int32', [value.length]);
  if (value instanceof BigInt64Array) return native.tensorFrom(value, 'int64', [value.length]);
  return expected(name, 'a Tensor, an Int32Array or a BigInt64Array', value);
}
