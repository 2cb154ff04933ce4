import { TopknotError } from '../errors.js';
import { type JobOptions, runJob } from '../job.js';
import { native } from '../native.js';
import { Tensor } from '../tensor.js';
import { type Id, Ids } from './ids.js';

/** How packed ids lie: float64, int64, UTF-8 text, or bigints as decimal text. @internal */
export type PackedKind = 'number' | 'bigint' | 'text' | 'bigint text';

interface Parts {
  kind: PackedKind;
  data: Tensor;
  ends: Tensor<'int64'> | undefined;
  table: Tensor<'int32'>;
  values: Float64Array | BigInt64Array | Buffer;
  offsets: Float64Array | undefined;
}

/**
 * Ids as they lie in a file, with a native table from id to row: no JavaScript value exists until somebody asks for it,
 * so that millions load without a pause of the event loop.
 * @internal
 */
export class PackedIds<T extends Id = Id> extends Ids<T> {
  readonly #parts: Parts;

  private constructor(parts: Parts) {
    super([]);
    this.#parts = parts;
  }

  /**
   * @param data float64 or int64 [n], or the uint8 of all texts in a row
   * @param ends where each text ends; none for numbers and bigints
   * @throws ERR_FORMAT for ends that do not rise within the text; ERR_VALUE for an id that comes twice
   */
  static async open<T extends Id>(
    kind: PackedKind,
    data: Tensor,
    ends: Tensor<'int64'> | undefined,
    { signal }: JobOptions,
  ): Promise<PackedIds<T>> {
    const table = new Tensor<'int32'>(
      await runJob('long', { signal }, (control) => native.idTable(control, data.handle, ends?.handle)),
    );
    const offsets = await ends?.cast('float64').data();
    const raw = (await data.data()) as Float64Array | BigInt64Array | Uint8Array;
    const values = raw instanceof Uint8Array ? Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength) : raw;
    return new PackedIds<T>({ kind, data, ends, table, values, offsets });
  }

  /** What a file of these ids holds. */
  get packed(): { kind: PackedKind; data: Tensor; ends: Tensor<'int64'> | undefined } {
    return this.#parts;
  }

  override get size(): number {
    return this.#parts.offsets?.length ?? this.#parts.values.length;
  }

  override at(row: number): T {
    const { kind, values, offsets } = this.#parts;
    if (!Number.isInteger(row) || row < 0 || row >= this.size)
      throw new TopknotError('ERR_RANGE', `row: expected 0 to ${this.size - 1} but received ${row}`);
    if (!offsets) return values[row] as T;
    const text = (values as Buffer).toString('utf8', offsets[row - 1] ?? 0, offsets[row]);
    if (kind === 'text') return text as T;
    if (!/^-?\d+$/.test(text))
      throw new TopknotError('ERR_FORMAT', `ids: expected a decimal number but row ${row} is '${text}'`);
    return BigInt(text) as T;
  }

  override indexOf(id: T): number {
    const { data, ends, table } = this.#parts;
    const key = this.#key(id);
    return key ? native.idRow(data.handle, ends?.handle, table.handle, key) : -1;
  }

  override async ready(): Promise<void> {}

  override *[Symbol.iterator](): IterableIterator<T> {
    for (let row = 0; row < this.size; row++) yield this.at(row);
  }

  /** The bytes of an id, or undefined when it is of another type. */
  #key(id: Id): Float64Array | BigInt64Array | Uint8Array | undefined {
    const { kind } = this.#parts;
    if (kind === 'number') return typeof id === 'number' ? Float64Array.of(id + 0) : undefined; // -0 + 0 is 0
    if (kind === 'text') return typeof id === 'string' ? Buffer.from(id) : undefined;
    if (typeof id !== 'bigint') return undefined;
    if (kind === 'bigint text') return Buffer.from(String(id));
    return BigInt.asIntN(64, id) === id ? BigInt64Array.of(id) : undefined;
  }
}
