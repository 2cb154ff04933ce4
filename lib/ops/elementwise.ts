// Functions of tensors element by element. All are queued on the stream: they return at once, and reading waits. NaN and
// infinite numbers go through as in IEEE 754.
import { knownOptions, oneOf } from '../check.js';
import { expected } from '../errors.js';
import { native } from '../native.js';
import type { Handle } from '../native-ops.js';
import { handleOf, Tensor } from '../tensor.js';

type Floats = Tensor<'float32'>;
type Unary = Parameters<typeof native.unary>[1];
type Binary = Parameters<typeof native.binary>[2];

/** A tensor, or one number for every element of the other operand. */
export type Operand = Tensor<'float32'> | number;

export interface BinaryGradients {
  /** float32, the shape of a, summed over what was repeated; undefined where a is a number. */
  a: Tensor<'float32'> | undefined;
  /** float32, the shape of b, summed over what was repeated; undefined where b is a number. */
  b: Tensor<'float32'> | undefined;
}

export interface GeluOptions {
  /** 'none', the default: x Φ(x). 'tanh': x / 2 (1 + tanh(√(2/π) (x + 0.044715 x³))), as BERT and GPT-2 were trained. */
  approximate?: 'none' | 'tanh' | undefined;
}

const unary =
  (name: Unary) =>
  (x: Floats): Floats =>
    new Tensor(native.unary(handleOf('x', x), name));
const unaryBackward =
  (name: Unary) =>
  (outGradient: Floats, x: Floats): Floats =>
    new Tensor(native.unaryBackward(handleOf('outGradient', outGradient), handleOf('x', x), name));

/** eˣ of every element. */
export const exp = unary('exp');
/** The gradient with respect to the x that `exp` was given: outGradient eˣ. */
export const expBackward = unaryBackward('exp');

/** The natural logarithm of every element: -Infinity of 0, NaN of negative numbers. */
export const log = unary('log');
/** The gradient with respect to the x that `log` was given: outGradient / x. */
export const logBackward = unaryBackward('log');

/** The square root of every element: NaN of negative numbers. */
export const sqrt = unary('sqrt');
/** The gradient with respect to the x that `sqrt` was given: outGradient / (2 √x). */
export const sqrtBackward = unaryBackward('sqrt');

/** max(x, 0) of every element. */
export const relu = unary('relu');
/** The gradient with respect to the x that `relu` was given: outGradient where x > 0, else 0. */
export const reluBackward = unaryBackward('relu');

/** 1 / (1 + e⁻ˣ) of every element. */
export const sigmoid = unary('sigmoid');
/** The gradient with respect to the x that `sigmoid` was given: outGradient σ(x) (1 - σ(x)). */
export const sigmoidBackward = unaryBackward('sigmoid');

/** The hyperbolic tangent of every element. */
export const tanh = unary('tanh');
/** The gradient with respect to the x that `tanh` was given: outGradient (1 - tanh² x). */
export const tanhBackward = unaryBackward('tanh');

/** x σ(x) of every element, also known as swish. Elfwing, Uchibe, Doya 2018. */
export const silu = unary('silu');
/** The gradient with respect to the x that `silu` was given. */
export const siluBackward = unaryBackward('silu');

/**
 * x Φ(x) of every element, with Φ the distribution function of the standard normal distribution.
 * @throws ERR_ARGUMENT for an unknown option
 * @see Hendrycks and Gimpel 2016, "Gaussian error linear units"
 */
export function gelu(x: Tensor<'float32'>, options: GeluOptions = {}): Tensor<'float32'> {
  return unary(geluName(options))(x);
}

/** The gradient with respect to the x that `gelu` was given, under the same options. */
export function geluBackward(
  outGradient: Tensor<'float32'>,
  x: Tensor<'float32'>,
  options: GeluOptions = {},
): Tensor<'float32'> {
  return unaryBackward(geluName(options))(outGradient, x);
}

/**
 * a + b, with shapes that broadcast: counted from the last, dimensions are equal, or 1 in one of them.
 * @throws ERR_SHAPE, ERR_DTYPE or ERR_ARGUMENT at once
 * @example add(x, bias); subtract(1, x); multiply(x, 0.5);
 */
export const add = binary('add');
/** a - b, see `add`. */
export const subtract = binary('subtract');
/** a b, element by element, see `add`; the product of matrices is `matmul`. */
export const multiply = binary('multiply');
/** a / b, see `add`. */
export const divide = binary('divide');

/**
 * The gradients with respect to the a and b that `add` was given, each summed over what was repeated.
 * @param outGradient float32, the shape of the result
 * @throws ERR_SHAPE, ERR_DTYPE or ERR_ARGUMENT at once
 */
export const addBackward = binaryBackward('add');
/** The gradients of `subtract`, see `addBackward`. */
export const subtractBackward = binaryBackward('subtract');
/** The gradients of `multiply`: outGradient b and outGradient a, see `addBackward`. */
export const multiplyBackward = binaryBackward('multiply');
/** The gradients of `divide`: outGradient / b and -outGradient a / b², see `addBackward`. */
export const divideBackward = binaryBackward('divide');

function binary(name: Binary): (a: Operand, b: Operand) => Floats {
  return (a, b) => {
    const [left, right] = handles(a, b);
    return new Tensor(native.binary(left, right, name));
  };
}

function binaryBackward(name: Binary): (outGradient: Floats, a: Operand, b: Operand) => BinaryGradients {
  return (outGradient, a, b) => {
    const gradient = handleOf('outGradient', outGradient);
    const [left, right] = handles(a, b);
    const made = native.binaryBackward(gradient, left, right, name, a instanceof Tensor, b instanceof Tensor);
    return { a: made.a && new Tensor(made.a), b: made.b && new Tensor(made.b) };
  };
}

function handles(a: Operand, b: Operand): [Handle, Handle] {
  if (typeof a === 'number' && typeof b === 'number') expected('a', 'a Tensor, as b is a number,', a);
  return [operand('a', a, b), operand('b', b, a)];
}

/** A number becomes a tensor beside the other operand. */
function operand(name: string, value: Operand, other: Operand): Handle {
  if (typeof value === 'number')
    return native.tensorFull('float32', [], value, other instanceof Tensor ? other.device : 'cpu');
  return value instanceof Tensor ? value.handle : expected(name, 'a Tensor or a number', value);
}

function geluName(options: GeluOptions): Unary {
  knownOptions(options, ['approximate']);
  return oneOf('approximate', options.approximate ?? 'none', ['none', 'tanh']) === 'tanh' ? 'geluTanh' : 'gelu';
}
