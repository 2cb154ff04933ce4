import { knownOptions, oneOf } from '../check.js';
import { expected } from '../errors.js';
import { native } from '../native.js';
import { handleOf, Tensor } from '../tensor.js';

/** What can be applied to a product as it is made; 'gelu' is exact, 'geluTanh' its approximation by tanh. */
export type Activation = 'none' | 'relu' | 'gelu' | 'geluTanh' | 'sigmoid' | 'tanh' | 'silu';

/** Element types that a product reads; it adds up in float32. */
export type MatrixDType = 'float32' | 'float16' | 'bfloat16';

export interface MatmulOptions {
  /** a is [..., k, m] instead of [..., m, k]. */
  transposeA?: boolean | undefined;
  /** b is [..., n, k] instead of [..., k, n]: the weights of a linear layer as PyTorch keeps them. */
  transposeB?: boolean | undefined;
  /** float32 [n], added to every row of the product. */
  bias?: Tensor<'float32'> | undefined;
  /** Applied after the bias; 'none' unless given. */
  activation?: Activation | undefined;
}

const optionNames = [
  'transposeA',
  'transposeB',
  'bias',
  'activation',
] as const satisfies readonly (keyof MatmulOptions)[];
const activations: readonly Activation[] = ['none', 'relu', 'gelu', 'geluTanh', 'sigmoid', 'tanh', 'silu'];

/**
 * activation(a b + bias) of matrices a [..., m, k] and b [..., k, n], and of batches of them: the dimensions before the
 * last two broadcast as usual, equal or 1 counted from the last. float32 [..., m, n], whatever a and b are stored as.
 * Queued on the stream: returns at once, and reading the result waits.
 *
 * The same call gives the same bytes at any number of threads. NaN and infinite numbers go through.
 *
 * @throws ERR_SHAPE, ERR_DTYPE or ERR_ARGUMENT at once; reading rejects with the error of an operation that failed before
 * @example const hidden = matmul(x, weight, { transposeB: true, bias, activation: 'relu' });
 * @see Goto and van de Geijn 2008, "Anatomy of high-performance matrix multiplication"
 */
export function matmul<D extends MatrixDType>(
  a: Tensor<D>,
  b: Tensor<D>,
  options: MatmulOptions = {},
): Tensor<'float32'> {
  return new Tensor(native.matmul(handleOf('a', a), handleOf('b', b), nativeOptions(options)));
}

export interface MatmulGradients {
  /** float32, the shape of a, summed over the batch where a was repeated. */
  a: Tensor<'float32'>;
  /** float32, the shape of b, summed over the batch where b was repeated. */
  b: Tensor<'float32'>;
  /** float32 [n]; undefined without a bias. */
  bias: Tensor<'float32'> | undefined;
}

/**
 * The gradients of a loss with respect to what `matmul` was given: with g that of a b + bias, g bᵀ, aᵀ g and the sum of
 * the rows of g. 'gelu', 'geluTanh' and 'silu' cannot be undone, so for them the product is made once more.
 *
 * @param outGradient float32, the shape of the result: the gradient of the loss with respect to it
 * @param out what `matmul` returned for the same a, b and options
 * @throws like `matmul`; ERR_SHAPE and ERR_DTYPE name outGradient or out, too
 * @example const { a: dx, b: dWeight } = matmulBackward(dHidden, x, weight, hidden, { transposeB: true, activation: 'relu' });
 */
export function matmulBackward<D extends MatrixDType>(
  outGradient: Tensor<'float32'>,
  a: Tensor<D>,
  b: Tensor<D>,
  out: Tensor<'float32'>,
  options: MatmulOptions = {},
): MatmulGradients {
  const made = native.matmulBackward(
    handleOf('outGradient', outGradient),
    handleOf('a', a),
    handleOf('b', b),
    handleOf('out', out),
    nativeOptions(options),
  );
  return { a: new Tensor(made.a), b: new Tensor(made.b), bias: made.bias && new Tensor(made.bias) };
}

function nativeOptions(options: MatmulOptions): Parameters<typeof native.matmul>[2] {
  knownOptions(options, optionNames);
  const { transposeA = false, transposeB = false, bias, activation = 'none' } = options;
  for (const [name, value] of Object.entries({ transposeA, transposeB }))
    if (typeof value !== 'boolean') expected(name, 'a boolean', value);
  return {
    transposeA,
    transposeB,
    bias: bias === undefined ? undefined : handleOf('bias', bias),
    activation: oneOf('activation', activation, activations),
  };
}
