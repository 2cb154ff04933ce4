import { native } from '../native.js';
import { handleOf, Tensor } from '../tensor.js';
import { type LinalgOptions, linalgOptions, type Real, type Status } from './linalg.js';

export interface QrFactors<D extends Real = Real> {
  /** [m, k], k = min(m, n), after the batch: orthonormal columns. */
  q: Tensor<D>;
  /** [k, n], after the batch: upper triangular; its diagonal may have either sign. */
  r: Tensor<D>;
  status: Status;
}

/**
 * The thin factorisation a = q r by Householder reflections. Queued on the stream: returns at once, and reading the results waits.
 * The factors of a matrix are the same whatever else is in the batch and at any number of threads. Matrices with neither side
 * above 64 are factorised one in each SIMD lane, others by Eigen.
 *
 * @param a [m, n] or [batch, m, n]
 * @throws ERR_SHAPE, ERR_DTYPE, ERR_RANGE or ERR_ARGUMENT at once; reading the results rejects with the error of an operation
 * that failed before and, with `strict`, with ERR_VALUE
 * @example const { q } = qr(a); // an orthonormal basis of a's columns
 */
export function qr<D extends Real>(a: Tensor<D>, options: LinalgOptions = {}): QrFactors<D> {
  const { q, r, status } = native.qr(handleOf('a', a), linalgOptions(options, ['strict']));
  return { q: new Tensor(q), r: new Tensor(r), status: new Tensor(status) };
}
