import { native } from '../native.js';
import { handleOf, Tensor } from '../tensor.js';
import { type LinearSolution, linalgOptions, type OverwriteOptions, type Real } from './linalg.js';

/**
 * Solves a x = b for general square matrices by LU with partial pivoting. A singular matrix has a status k > 0: its pivot k,
 * counted from 1, is zero. Queued on the stream: returns at once, and reading the results waits. The solution of a matrix is the
 * same whatever else is in the batch and at any number of threads. Matrices of up to 64 rows (with up to 256 right-hand sides)
 * are solved one in each SIMD lane, others by Eigen. With `overwrite`, x takes the place of b.
 *
 * @param a [n, n] or [batch, n, n]
 * @param b [n] or [n, columns], after the batch
 * @throws ERR_SHAPE, ERR_DTYPE, ERR_RANGE or ERR_ARGUMENT at once; reading the results rejects with the error of an operation
 * that failed before and, with `strict`, with ERR_VALUE
 * @example const { x, status } = luSolve(a, b); await x.data();
 */
export function luSolve<D extends Real>(a: Tensor<D>, b: Tensor<D>, options: OverwriteOptions = {}): LinearSolution<D> {
  const made = native.luSolve(handleOf('a', a), handleOf('b', b), linalgOptions(options, ['strict', 'overwrite']));
  if (options.overwrite) b.dispose();
  return { x: new Tensor(made.x), status: new Tensor(made.status) };
}
