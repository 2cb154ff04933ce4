import { knownOptions, oneOf } from './check.js';
import { type DType, type DTypeArrays, dtypeBytes, type NumericArray } from './dtype.js';
import { expected, TopknotError } from './errors.js';
import { native } from './native.js';
import type { Handle } from './native-ops.js';

/** Numbers nested to any depth up to eight; every level must have one length. */
export type NestedArray = readonly (number | bigint | boolean | NestedArray)[];

export interface TensorOptions<D extends DType> {
  /** Element type; without it, that of the typed array, or float32 for nested arrays. */
  dtype?: D;
  /** Dimensions; without it, those of the nesting, or one dimension. Its product must be the element count. */
  shape?: readonly number[];
  /** Where the tensor is to be: 'cpu' unless given. See `device()` for the names. */
  device?: string | undefined;
}

let openScopes: Set<Tensor>[] = [];

/**
 * An immutable array of numbers in native memory, row-major, at most eight dimensions.
 *
 * Memory is freed when the garbage collector finds the handle, or at once by `dispose()`, `using`, or `scope()`.
 * A job that is using a tensor keeps its memory alive by itself.
 */
export class Tensor<D extends DType = DType> implements Disposable {
  readonly dtype: D;
  readonly shape: readonly number[];
  /** 'cpu' or 'cuda:0', ... */
  readonly device: string;
  readonly #handle: Handle;
  #disposed = false;

  /** @internal Takes over a handle of the addon. */
  constructor(handle: Handle) {
    const info = native.tensorInfo(handle);
    this.#handle = handle;
    this.dtype = info.dtype as D;
    this.shape = Object.freeze(info.shape);
    this.device = info.device;
    openScopes.at(-1)?.add(this);
  }

  /** Number of elements. */
  get size(): number {
    return this.shape.reduce((product, n) => product * n, 1);
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  /** @internal For passing to the addon. Throws ERR_DISPOSED after `dispose()`. */
  get handle(): Handle {
    if (this.#disposed) throw new TopknotError('ERR_DISPOSED', 'tensor: this tensor has been disposed');
    return this.#handle;
  }

  /**
   * The elements in row-major order, as a copy that is the caller's own. Waits for the operation that computes this
   * tensor, and rejects with its error if it failed.
   */
  async data(): Promise<DTypeArrays[D]> {
    return (await native.read(this.handle)) as DTypeArrays[D];
  }

  /** Like `data()`, but blocks the calling thread until the elements are there. */
  dataSync(): DTypeArrays[D] {
    return native.readSync(this.handle) as DTypeArrays[D];
  }

  /**
   * A tensor of another element type, queued on the stream: returns at once. Floats round to nearest even. Reading
   * the result rejects with ERR_RANGE when an integer type cannot hold a value.
   * @throws ERR_DEVICE on a GPU: cast before `to()`
   */
  cast<E extends DType>(dtype: E): Tensor<E> {
    return new Tensor<E>(native.cast(this.handle, dtype));
  }

  /**
   * This tensor itself, under the type of its elements: what comes out of a file is a `Tensor` of any, and operations want
   * to know which. Converts nothing, see `cast`.
   * @throws ERR_DTYPE when it has other elements; ERR_ARGUMENT for a word that is no element type
   * @example const table = (await readSafetensors('table.safetensors')).tensors.get('table')!.as('float32');
   */
  as<E extends DType>(dtype: E): Tensor<E> {
    oneOf('dtype', dtype, Object.keys(dtypeBytes) as DType[]);
    if ((this.dtype as DType) !== dtype)
      throw new TopknotError('ERR_DTYPE', `tensor: expected ${dtype} but received ${this.dtype}; cast() converts`);
    return this as Tensor<DType> as Tensor<E>;
  }

  /** The same elements under other dimensions; shares memory. Throws ERR_SHAPE when the count differs. */
  reshape(shape: readonly number[]): Tensor<D> {
    return new Tensor<D>(native.tensorFrom(this.handle, this.dtype, shape));
  }

  /** The same tensor in a handle of its own: either can be disposed without the other. Shares memory. @internal */
  share(): Tensor<D> {
    return this.reshape(this.shape);
  }

  /**
   * These elements on another device, queued on the stream: returns at once. Where they are there already, the result shares
   * their memory.
   *
   * @param device 'cpu', 'cuda', 'cuda:1', ... or 'auto': see `device()`
   * @throws ERR_DEVICE when there is no such device, ERR_MEMORY when it has not enough memory left, ERR_ARGUMENT
   */
  to(device: string): Tensor<D> {
    return new Tensor<D>(native.toDevice(this.handle, device));
  }

  /** Frees the memory now, unless a running job still needs it. Using the tensor afterwards throws ERR_DISPOSED. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    native.dispose(this.#handle);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** What the addon takes for a tensor; refuses anything else. @internal */
export function handleOf(name: string, value: Tensor): Handle {
  return value instanceof Tensor ? value.handle : expected(name, 'a Tensor', value);
}

/**
 * Makes a tensor from nested arrays or a typed array. The elements are copied before this returns: changing or
 * transferring the array afterwards has no effect.
 *
 * @throws ERR_SHAPE for ragged nesting or a shape that does not fit, ERR_RANGE for values that the dtype cannot hold,
 * ERR_DEVICE for a device that is not there.
 * @example tensor([[1, 2], [3, 4]]); tensor(new Float32Array(6), { shape: [2, 3] });
 */
export function tensor<D extends DType = 'float32'>(
  data: NumericArray | NestedArray,
  options: TensorOptions<D> = {},
): Tensor<D> {
  knownOptions(options, ['dtype', 'shape', 'device']);
  if (ArrayBuffer.isView(data)) {
    const dtype = options.dtype ?? (dtypeOfArray(data) as D);
    return placed(native.tensorFrom(data, dtype, options.shape ?? [data.length]), options.device);
  }
  if (!Array.isArray(data)) expected('data', 'nested arrays of numbers or a typed array', data);
  const dtype = options.dtype ?? ('float32' as D);
  const shape = nestedShape(data as NestedArray);
  const flat = dtype === 'int64' ? new BigInt64Array(count(shape)) : new Float64Array(count(shape));
  fill(data as NestedArray, shape, 0, flat, 0);
  return placed(native.tensorFrom(flat, dtype, options.shape ?? shape), options.device);
}

/** A tensor whose elements are all `value` (0 unless given). */
export function full<D extends DType = 'float32'>(
  shape: readonly number[],
  options: { dtype?: D; value?: number; device?: string | undefined } = {},
): Tensor<D> {
  knownOptions(options, ['dtype', 'value', 'device']);
  return new Tensor<D>(native.tensorFull(options.dtype ?? 'float32', shape, options.value ?? 0, options.device));
}

/** A tensor that was made on the CPU, where it was asked for. */
function placed<D extends DType>(made: Handle, device: string | undefined): Tensor<D> {
  if (device === undefined) return new Tensor<D>(made);
  try {
    return new Tensor<D>(native.toDevice(made, device));
  } finally {
    native.dispose(made);
  }
}

/**
 * Runs `body` and disposes every tensor made on this thread meanwhile, except those that it returns (a tensor, or an
 * array or object of tensors).
 */
export function scope<T>(body: () => T): T {
  if (typeof body !== 'function') expected('body', 'a function', body);
  const made = new Set<Tensor>();
  openScopes = [...openScopes, made];
  try {
    const result = body();
    if (result instanceof Promise)
      throw new TopknotError('ERR_ARGUMENT', 'body: expected a function that does not return a promise');
    for (const kept of result instanceof Tensor ? [result] : Object.values((result ?? {}) as object)) made.delete(kept);
    return result;
  } finally {
    openScopes = openScopes.filter((s) => s !== made);
    for (const t of made) t.dispose();
  }
}

/** @internal */
export function dtypeOfArray(array: ArrayBufferView): DType {
  if (array instanceof Float32Array) return 'float32';
  if (array instanceof Float64Array) return 'float64';
  if (array instanceof Int8Array) return 'int8';
  if (array instanceof Uint8Array) return 'uint8';
  if (array instanceof Int32Array) return 'int32';
  if (array instanceof BigInt64Array) return 'int64';
  throw new TopknotError(
    'ERR_DTYPE',
    `data: expected a Float32Array, Float64Array, Int8Array, Uint8Array, Int32Array or BigInt64Array but received a ${array.constructor.name}`,
  );
}

const count = (shape: readonly number[]): number => shape.reduce((product, n) => product * n, 1);

function nestedShape(data: NestedArray): number[] {
  const shape: number[] = [];
  for (let level: unknown = data; Array.isArray(level); level = level[0]) shape.push(level.length);
  return shape;
}

function fill(
  data: NestedArray,
  shape: readonly number[],
  depth: number,
  out: Float64Array | BigInt64Array,
  at: number,
): number {
  if (data.length !== shape[depth])
    throw new TopknotError(
      'ERR_SHAPE',
      `data: expected every array at depth ${depth} to have ${shape[depth]} elements but one has ${data.length}`,
    );
  let next = at;
  for (const x of data) {
    if (depth + 1 < shape.length) {
      if (!Array.isArray(x))
        throw new TopknotError('ERR_SHAPE', `data: expected arrays at depth ${depth + 1} but received a number`);
      next = fill(x, shape, depth + 1, out, next);
    } else if (out instanceof BigInt64Array) {
      if (typeof x !== 'bigint' && !Number.isInteger(x)) expected('data', 'integers', x);
      const wide = BigInt(x as number | bigint);
      if (BigInt.asIntN(64, wide) !== wide)
        throw new TopknotError('ERR_RANGE', `data: expected values that int64 can hold but received ${wide}`);
      out[next++] = wide;
    } else {
      if (typeof x !== 'number' && typeof x !== 'boolean') expected('data', 'numbers', x);
      out[next++] = Number(x);
    }
  }
  return next;
}
