import { native } from '../native.js';
import { handleOf, Tensor } from '../tensor.js';
import { type LinalgOptions, linalgOptions, type Real, type Status } from './linalg.js';

export interface SingularTriples<D extends Real = Real> {
  /** [m, k], k = min(m, n), after the batch: orthonormal columns. */
  u: Tensor<D>;
  /** [k], after the batch: falling, never negative. */
  s: Tensor<D>;
  /** [k, n], after the batch: orthonormal rows. */
  vt: Tensor<D>;
  status: Status;
}

/**
 * The thin singular value decomposition a = u diag(s) vt. u and vt are orthonormal for matrices of any rank. Queued on the
 * stream: returns at once, and reading the results waits. The result of a matrix is the same whatever else is in the batch and at any
 * number of threads. Matrices with neither side above 64 are decomposed by one-sided Jacobi rotations, one in each
 * SIMD lane; there a float32 singular value below 1e-12 (float64: 1e-100) of the largest element is 0. Others go to Eigen.
 *
 * @param a [m, n] or [batch, m, n]
 * @throws ERR_SHAPE, ERR_DTYPE, ERR_RANGE or ERR_ARGUMENT at once; reading the results rejects with the error of an operation
 * that failed before and, with `strict`, with ERR_VALUE
 * @example const { u, s, vt } = svd(a); await s.data();
 * @see Hestenes 1958, "Inversion of matrices by biorthogonalization and related results"
 */
export function svd<D extends Real>(a: Tensor<D>, options: LinalgOptions = {}): SingularTriples<D> {
  const { u, s, vt, status } = native.svd(handleOf('a', a), linalgOptions(options, ['strict']));
  return { u: new Tensor(u), s: new Tensor(s), vt: new Tensor(vt), status: new Tensor(status) };
}
