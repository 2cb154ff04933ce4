import { native } from '../native.js';
import { handleOf, Tensor } from '../tensor.js';
import { type LinearSolution, linalgOptions, type OverwriteOptions, type Real, type Status } from './linalg.js';

export interface CholeskyFactor<D extends Real = Real> {
  /** The shape of a: L with a = L Lᵀ, zeros above its diagonal; NaN for a matrix that failed. */
  factor: Tensor<D>;
  /** k > 0: the leading k × k minor is the first that is not positive definite. */
  status: Status;
}

const optionNames = ['strict', 'overwrite'] as const;

/**
 * The Cholesky factors of symmetric positive definite matrices. Only their lower triangles are read. Queued on the stream: returns
 * at once, and reading the results waits. The factor of a matrix is the same whatever else is in the batch and at any number of
 * threads. Matrices of up to 64 rows are factorised one in each SIMD lane, larger ones by Eigen.
 *
 * @param a [n, n] or [batch, n, n]
 * @throws ERR_SHAPE, ERR_DTYPE, ERR_RANGE or ERR_ARGUMENT at once; reading the results rejects with the error of an operation
 * that failed before and, with `strict`, with ERR_VALUE
 * @example const { factor, status } = cholesky(a); await factor.data();
 */
export function cholesky<D extends Real>(a: Tensor<D>, options: OverwriteOptions = {}): CholeskyFactor<D> {
  const { factor, status } = native.cholesky(handleOf('a', a), linalgOptions(options, optionNames));
  if (options.overwrite) a.dispose();
  return { factor: new Tensor(factor), status: new Tensor(status) };
}

/**
 * Solves a x = b for matrices whose factors `cholesky` made. With `overwrite`, x takes the place of b. Otherwise as `cholesky`;
 * a factor that is not finite, as that of a matrix that failed, has the status -1.
 *
 * @param factor [n, n] or [batch, n, n]; only the lower triangle is read
 * @param b [n] or [n, columns], after the batch
 * @example const { x } = choleskySolve(cholesky(a).factor, b);
 */
export function choleskySolve<D extends Real>(
  factor: Tensor<D>,
  b: Tensor<D>,
  options: OverwriteOptions = {},
): LinearSolution<D> {
  const made = native.choleskySolve(handleOf('factor', factor), handleOf('b', b), linalgOptions(options, optionNames));
  if (options.overwrite) b.dispose();
  return { x: new Tensor(made.x), status: new Tensor(made.status) };
}

/**
 * Solves a x = b for symmetric positive definite matrices, without writing their factors to memory. With `overwrite`, x takes the
 * place of b. Otherwise as `cholesky`.
 *
 * @param a [n, n] or [batch, n, n]
 * @param b [n] or [n, columns], after the batch
 * @example const { x, status } = solvePositiveDefinite(a, b); await x.data();
 */
export function solvePositiveDefinite<D extends Real>(
  a: Tensor<D>,
  b: Tensor<D>,
  options: OverwriteOptions = {},
): LinearSolution<D> {
  const made = native.solvePositiveDefinite(handleOf('a', a), handleOf('b', b), linalgOptions(options, optionNames));
  if (options.overwrite) b.dispose();
  return { x: new Tensor(made.x), status: new Tensor(made.status) };
}
