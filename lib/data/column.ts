import { runJob } from '../job.js';
import { native } from '../native.js';
import type { Handle } from '../native-ops.js';
import { Tensor } from '../tensor.js';

const scratchLength = 1 << 16;

const arrays = {
  int8: Int8Array,
  int32: Int32Array,
  int64: BigInt64Array,
  float32: Float32Array,
  float64: Float64Array,
};
type ColumnType = keyof typeof arrays;
type Scratch<D extends ColumnType> = InstanceType<(typeof arrays)[D]>;

/**
 * A column of unknown length that grows in native memory: elements gather in one small array, which is copied out
 * whenever it is full. No JavaScript object per element.
 * @internal
 */
export class Column<D extends ColumnType> {
  readonly #scratch: Scratch<D>;
  readonly #parts: Handle[] = [];
  #used = 0;

  constructor(readonly dtype: D) {
    this.#scratch = new arrays[dtype](scratchLength) as Scratch<D>;
  }

  push(element: Scratch<D>[number]): void {
    if (this.#used === scratchLength) this.#flush();
    this.#scratch[this.#used++] = element;
  }

  /** Appends at most 65,536 elements. */
  append(elements: ArrayLike<Scratch<D>[number]>): void {
    if (this.#used + elements.length > scratchLength) this.#flush();
    this.#scratch.set(elements as never, this.#used);
    this.#used += elements.length;
  }

  /** The whole column as one tensor. The column is empty afterwards. */
  async finish(signal?: AbortSignal): Promise<Tensor<D>> {
    this.#flush();
    const parts = this.#parts.splice(0);
    const joined = await runJob('long', { signal }, (control) => native.concat(control, parts));
    for (const part of parts) native.dispose(part);
    return new Tensor<D>(joined);
  }

  #flush(): void {
    this.#parts.push(native.tensorFrom(this.#scratch.subarray(0, this.#used) as never, this.dtype, [this.#used]));
    this.#used = 0;
  }
}
