// Sums, means and maxima. Queued on the stream: they return at once, and reading waits.
import { integer, knownOptions } from '../check.js';
import { expected } from '../errors.js';
import { native } from '../native.js';
import { handleOf, Tensor } from '../tensor.js';

type Floats = Tensor<'float32'>;
type Kind = Parameters<typeof native.reduce>[1];

export interface ReduceOptions {
  /** The dimension to reduce, -1 being the last; all of them unless given. */
  axis?: number | undefined;
  /** Leaves a 1 where dimensions were; false unless given. */
  keepDims?: boolean | undefined;
}

/**
 * The sum along one dimension, or of all elements: then the result has shape []. Added up in float32 over blocks of
 * fixed length, and these in float64: the same bytes at any number of threads.
 * @throws ERR_RANGE for an axis that x does not have, ERR_DTYPE or ERR_ARGUMENT, at once
 * @example const total = (await sum(x).data())[0]; const perRow = sum(x, { axis: -1 });
 */
export const sum = reduction('sum');
/** The mean, see `sum`. @throws ERR_SHAPE, too, where there is nothing to take the mean of */
export const mean = reduction('mean');
/** The maximum; NaN where there is one. See `sum`. @throws ERR_SHAPE, too, where there is nothing */
export const max = reduction('max');

/**
 * The gradient with respect to the x that `sum` was given: outGradient, repeated.
 * @param outGradient float32, the shape of the result
 * @param options those of the forward call
 * @throws like `sum`; ERR_SHAPE names outGradient
 */
export const sumBackward = reductionBackward('sum');
/** The gradient with respect to the x that `mean` was given, see `sumBackward`. */
export const meanBackward = reductionBackward('mean');
/** The gradient with respect to the x that `max` was given: it goes to the first element that is the maximum. */
export const maxBackward = reductionBackward('max');

function reduction(kind: Kind): (x: Floats, options?: ReduceOptions) => Floats {
  return (x, options = {}) => new Tensor(native.reduce(handleOf('x', x), kind, ...checked(options)));
}

function reductionBackward(kind: Kind): (outGradient: Floats, x: Floats, options?: ReduceOptions) => Floats {
  return (outGradient, x, options = {}) =>
    new Tensor(
      native.reduceBackward(handleOf('outGradient', outGradient), handleOf('x', x), kind, ...checked(options)),
    );
}

function checked(options: ReduceOptions): [axis: number | undefined, keepDims: boolean] {
  knownOptions(options, ['axis', 'keepDims']);
  const { axis, keepDims = false } = options;
  if (typeof keepDims !== 'boolean') expected('keepDims', 'a boolean', keepDims);
  return [axis === undefined ? undefined : integer('axis', axis, -8, 7), keepDims];
}
