import { finite, knownOptions } from '../check.js';
import { native } from '../native.js';
import type { Handle } from '../native-ops.js';
import { handleOf, Tensor } from '../tensor.js';

export interface LayerNormOptions {
  /** float32, as long as the last dimension of x; 1 unless given. */
  weight?: Tensor<'float32'> | undefined;
  /** The same, added; 0 unless given. */
  bias?: Tensor<'float32'> | undefined;
  /** Added to the variance; 1e-5 unless given. */
  eps?: number | undefined;
}

/**
 * (x - mean) / √(variance + eps) weight + bias over the last dimension of a float32 tensor; the variance divides by the
 * number of elements. Queued on the stream: returns at once, and reading waits.
 * @throws ERR_SHAPE, ERR_DTYPE, ERR_RANGE or ERR_ARGUMENT at once
 * @see Ba, Kiros, Hinton 2016, "Layer normalization"
 */
export function layerNorm(x: Tensor<'float32'>, options: LayerNormOptions = {}): Tensor<'float32'> {
  const { weight, bias, eps } = checked(options);
  return new Tensor(native.layerNorm(handleOf('x', x), weight, bias, eps));
}

export interface LayerNormGradients {
  /** float32, the shape of x. */
  x: Tensor<'float32'>;
  /** float32, the shape of the weight; undefined without one. */
  weight: Tensor<'float32'> | undefined;
  /** float32, the shape of the bias; undefined without one. */
  bias: Tensor<'float32'> | undefined;
}

/**
 * The gradients of a loss with respect to what `layerNorm` was given. Mean and variance are made again from x.
 * @param outGradient float32, the shape of x
 * @param options those of the forward call
 * @throws like `layerNorm`; ERR_SHAPE and ERR_DTYPE name outGradient, too
 */
export function layerNormBackward(
  outGradient: Tensor<'float32'>,
  x: Tensor<'float32'>,
  options: LayerNormOptions = {},
): LayerNormGradients {
  const { weight, bias, eps } = checked(options);
  const made = native.layerNormBackward(
    handleOf('outGradient', outGradient),
    handleOf('x', x),
    weight,
    bias !== undefined,
    eps,
  );
  return {
    x: new Tensor(made.x),
    weight: made.weight && new Tensor(made.weight),
    bias: made.bias && new Tensor(made.bias),
  };
}

function checked(options: LayerNormOptions): { weight: Handle | undefined; bias: Handle | undefined; eps: number } {
  knownOptions(options, ['weight', 'bias', 'eps']);
  const { weight, bias, eps = 1e-5 } = options;
  return {
    weight: weight === undefined ? undefined : handleOf('weight', weight),
    bias: bias === undefined ? undefined : handleOf('bias', bias),
    eps: finite('eps', eps, 0),
  };
}
