// What the operations of dense batched algebra have in common.
import { knownOptions } from '../check.js';
import { expected } from '../errors.js';
import type { Tensor } from '../tensor.js';

/** Element types of dense algebra. */
export type Real = 'float32' | 'float64';

export interface LinalgOptions {
  /**
   * Whether a matrix that fails is an error: reading the results then rejects with ERR_VALUE, which names the first such
   * matrix and what is wrong with it. Unless set, its results are NaN, `status` tells, and the others are as they should be.
   */
  strict?: boolean | undefined;
}

export interface OverwriteOptions extends LinalgOptions {
  /**
   * Disposes of the tensor that has the shape of the result and lets the result have its memory, if nothing else uses it. Saves the
   * memory of a second one. Not unless set.
   */
  overwrite?: boolean | undefined;
}

/**
 * One number for each matrix, int32 [batch] (of no dimension for a single matrix): 0 where it was solved; k > 0 where its pivot
 * k failed, counted from 1; -1 where an element that is read or the result is not finite; -2 where an iteration did not
 * converge.
 */
export type Status = Tensor<'int32'>;

export interface LinearSolution<D extends Real = Real> {
  /** The shape of b; NaN for a matrix that failed. */
  x: Tensor<D>;
  status: Status;
}

/** @internal */
export function linalgOptions(options: OverwriteOptions, names: readonly (keyof OverwriteOptions)[]) {
  knownOptions(options, names);
  const { strict = false, overwrite = false } = options;
  if (typeof strict !== 'boolean') expected('strict', 'a boolean', strict);
  if (typeof overwrite !== 'boolean') expected('overwrite', 'a boolean', overwrite);
  return { strict, overwrite };
}
