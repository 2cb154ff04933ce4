// Softmax over the last dimension. Queued on the stream: returns at once, and reading waits.
import { native } from '../native.js';
import { handleOf, Tensor } from '../tensor.js';

/**
 * eˣ / Σ eˣ over the last dimension of a float32 tensor, shifted by the maximum so that nothing overflows. A row of
 * -Infinity alone gives zeros; a row with NaN or Infinity gives NaN.
 * @throws ERR_DTYPE or ERR_SHAPE at once
 */
export function softmax(x: Tensor<'float32'>): Tensor<'float32'> {
  return new Tensor(native.softmax(handleOf('x', x), false));
}

/**
 * The gradient with respect to the x that `softmax` was given: y (g - Σ g y) for g = outGradient and y = out.
 * @param out what `softmax` returned
 * @throws ERR_DTYPE or ERR_SHAPE at once
 */
export function softmaxBackward(outGradient: Tensor<'float32'>, out: Tensor<'float32'>): Tensor<'float32'> {
  return new Tensor(native.softmaxBackward(handleOf('outGradient', outGradient), handleOf('out', out), false));
}

/**
 * x - log Σ eˣ over the last dimension: the logarithm of `softmax`, without its loss of digits. A row of -Infinity alone
 * stays that.
 * @throws ERR_DTYPE or ERR_SHAPE at once
 */
export function logSoftmax(x: Tensor<'float32'>): Tensor<'float32'> {
  return new Tensor(native.softmax(handleOf('x', x), true));
}

/**
 * The gradient with respect to the x that `logSoftmax` was given: g - e^y Σ g for g = outGradient and y = out.
 * @param out what `logSoftmax` returned
 * @throws ERR_DTYPE or ERR_SHAPE at once
 */
export function logSoftmaxBackward(outGradient: Tensor<'float32'>, out: Tensor<'float32'>): Tensor<'float32'> {
  return new Tensor(native.softmaxBackward(handleOf('outGradient', outGradient), handleOf('out', out), true));
}
