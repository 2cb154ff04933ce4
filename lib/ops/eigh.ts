import { native } from '../native.js';
import { handleOf, Tensor } from '../tensor.js';
import { type LinalgOptions, linalgOptions, type Real, type Status } from './linalg.js';

export interface EigenPairs<D extends Real = Real> {
  /** [n], after the batch: rising. */
  values: Tensor<D>;
  /** [n, n], after the batch: column j is the eigenvector of value j, of length 1 and of either sign. */
  vectors: Tensor<D>;
  status: Status;
}

/**
 * Eigenvalues and eigenvectors of symmetric matrices: a = V diag(values) Vᵀ. Only the lower triangles are read. Queued on the
 * stream: returns at once, and reading the results waits. The result of a matrix is the same whatever else is in the batch and at
 * any number of threads. Matrices of up to 64 rows are made diagonal by Jacobi rotations, one in each SIMD lane, larger
 * ones by Eigen.
 *
 * @param a [n, n] or [batch, n, n]
 * @throws ERR_SHAPE, ERR_DTYPE, ERR_RANGE or ERR_ARGUMENT at once; reading the results rejects with the error of an operation
 * that failed before and, with `strict`, with ERR_VALUE
 * @example const { values, vectors } = eigh(covariance); await values.data();
 * @see Golub and Van Loan, "Matrix computations", 8.5
 */
export function eigh<D extends Real>(a: Tensor<D>, options: LinalgOptions = {}): EigenPairs<D> {
  const { values, vectors, status } = native.eigh(handleOf('a', a), linalgOptions(options, ['strict']));
  return { values: new Tensor(values), vectors: new Tensor(vectors), status: new Tensor(status) };
}
