import { oneOf } from '../check.js';
import { TopknotError } from '../errors.js';
import { metrics, type VectorMetric } from '../ops/top-k.js';
import { Tensor } from '../tensor.js';
import { asMatrix } from './vectors.js';

/** A `VectorMetric`, or 'hamming': the number of bits in which two vectors differ. */
export type IndexMetric = VectorMetric | 'hamming';

/**
 * How vectors are kept: as 32- or 16-bit floats; 'int8': as floats and, beside them, as codes of one byte for each number,
 * which are searched for candidates; 'binary': as bits, eight to a byte.
 */
export type VectorStorage = 'float32' | 'float16' | 'bfloat16' | 'int8' | 'binary';

/** Vectors for an index: a tensor with a row for each, or all of their numbers one after the other. */
export type Vectors =
  | Float32Array
  | Uint8Array
  | Tensor<'float32' | 'float16' | 'bfloat16' | 'uint8'>
  | Tensor<'float32'>
  | Tensor<'float16'>
  | Tensor<'bfloat16'>
  | Tensor<'uint8'>;

/** @internal */
export const storages: readonly VectorStorage[] = ['float32', 'float16', 'bfloat16', 'int8', 'binary'];
const floats = ['float32', 'float16', 'bfloat16'] as const;

/** The metric of an index. @throws ERR_ARGUMENT for one that does not go with the storage @internal */
export function metricOf(metric: IndexMetric | undefined, storage: VectorStorage): IndexMetric {
  const known = [...metrics, 'hamming'] as const;
  const chosen = oneOf('metric', metric ?? (storage === 'binary' ? 'hamming' : 'innerProduct'), known);
  if ((chosen === 'hamming') === (storage === 'binary')) return chosen;
  throw new TopknotError(
    'ERR_ARGUMENT',
    `metric: 'hamming' is for storage 'binary' and the only one there, but received '${chosen}' for '${storage}'`,
  );
}

/** What an index keeps vectors as: what is asked for, or what they are. @internal */
export function storageOf(wanted: VectorStorage | undefined, vectors: Vectors): VectorStorage {
  if (wanted !== undefined) return oneOf('storage', wanted, storages);
  if (!(vectors instanceof Tensor)) return vectors instanceof Uint8Array ? 'binary' : 'float32';
  return vectors.dtype === 'uint8' ? 'binary' : (vectors.dtype as VectorStorage);
}

/**
 * A matrix of the element type that the storage asks for, with a handle of its own.
 * @param like vectors of an index, which they must go with
 * @internal
 */
export function stored(vectors: Vectors, count: number, storage: VectorStorage, like?: Tensor): Tensor {
  const width = like?.shape[1];
  if (vectors instanceof Tensor && vectors.device !== 'cpu') vectors = vectors.to('cpu'); // to be checked there
  if (storage === 'binary') return asMatrix(vectors, count, width, ['uint8']);
  const matrix = asMatrix(vectors, count, width, floats);
  const dtype = like?.dtype ?? (storage === 'int8' ? matrix.dtype : storage);
  return dtype === matrix.dtype ? matrix : matrix.cast(dtype);
}
