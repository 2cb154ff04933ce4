import { describe, expected, TopknotError } from '../errors.js';
import { inSlices } from '../slices.js';

/** What users and items are called by the caller: never truncated, never converted. 1, 1n and '1' are three ids. */
export type Id = number | bigint | string;

/**
 * The ids of one side (all users, or all items) in the order of their rows. Immutable.
 * The map from id to row is built on the first look-up, or ahead of it by `ready()`.
 */
export class Ids<T extends Id = Id> {
  readonly #ids: readonly T[];
  #rows: Map<T, number> | undefined;

  /**
   * @param ids distinct ids of one type; row i is called ids[i].
   * @param rows the map from id to row, for a caller that has it already.
   */
  constructor(ids: readonly T[], rows?: Map<T, number>) {
    this.#ids = ids;
    this.#rows = rows;
  }

  /** Rows called by their own numbers, 0 to count - 1. Takes no memory. */
  static range(count: number): Ids<number> {
    return new RowNumbers(count);
  }

  /**
   * Checks ids from outside and builds their map, without blocking the event loop.
   * @param name says in messages which argument they came from
   * @throws ERR_ARGUMENT unless all are of one type, numbers not NaN; ERR_VALUE for an id that comes twice
   */
  static async checked<T extends Id>(ids: ArrayLike<T>, name: string): Promise<Ids<T>> {
    const type = typeof ids[0];
    if (ids.length > 0 && type !== 'number' && type !== 'bigint' && type !== 'string')
      expected(name, 'numbers, bigints or strings', ids[0]);
    const copy: T[] = [];
    const rows = new Map<T, number>();
    await inSlices(ids.length, (begin, end) => {
      for (let i = begin; i < end; i++) {
        const id = ids[i] as T;
        if (typeof id !== type || Number.isNaN(id)) expected(`${name}[${i}]`, `a ${type} like the ids before it`, id);
        if (rows.has(id))
          throw new TopknotError('ERR_VALUE', `${name}: ${describe(id)} comes twice, in rows ${rows.get(id)} and ${i}`);
        copy.push(id);
        rows.set(id, i);
      }
    });
    const out = new Ids(copy);
    out.#rows = rows;
    return out;
  }

  /** @throws ERR_VALUE for an id that comes twice @internal */
  async distinct(name: string): Promise<this> {
    await this.ready();
    if (!this.#rows || this.#rows.size === this.size) return this;
    for (let row = 0; row < this.size; row++) {
      const last = this.#rows.get(this.at(row));
      if (last !== row)
        throw new TopknotError(
          'ERR_VALUE',
          `${name}: ${describe(this.at(row))} comes twice, in rows ${row} and ${last}`,
        );
    }
    return this;
  }

  get size(): number {
    return this.#ids.length;
  }

  /** Whether these are row numbers, as `range` makes them. */
  get isRange(): boolean {
    return false;
  }

  /** What kind of value these ids are; undefined when there are none. */
  get type(): 'number' | 'bigint' | 'string' | undefined {
    return this.size > 0 ? (typeof this.at(0) as 'number' | 'bigint' | 'string') : undefined;
  }

  /** The id of a row. @throws ERR_RANGE */
  at(row: number): T {
    const id = this.#ids[row];
    if (id === undefined) outOfRange(row, this.size);
    return id;
  }

  /** The row of an id, or -1. */
  indexOf(id: T): number {
    this.#rows ??= new Map(this.#ids.map((x, i) => [x, i]));
    return this.#rows.get(id) ?? -1;
  }

  has(id: T): boolean {
    return this.indexOf(id) >= 0;
  }

  /** The row of an id. `name` says which argument it came from. @throws ERR_UNKNOWN_ID */
  row(id: T, name: string): number {
    const row = this.indexOf(id);
    if (row < 0)
      throw new TopknotError('ERR_UNKNOWN_ID', `${name}: ${describe(id)} is not among the ${this.size} known ids`);
    return row;
  }

  /** Builds the map from id to row without blocking the event loop. */
  async ready(): Promise<void> {
    if (this.#rows) return;
    const rows = new Map<T, number>();
    await inSlices(this.#ids.length, (begin, end) => {
      for (let i = begin; i < end; i++) rows.set(this.#ids[i] as T, i);
    });
    this.#rows = rows;
  }

  [Symbol.iterator](): IterableIterator<T> {
    return this.#ids[Symbol.iterator]();
  }
}

class RowNumbers extends Ids<number> {
  readonly #count: number;

  constructor(count: number) {
    super([]);
    this.#count = count;
  }

  override get size(): number {
    return this.#count;
  }

  override get isRange(): boolean {
    return true;
  }

  override at(row: number): number {
    return this.indexOf(row) < 0 ? outOfRange(row, this.size) : row;
  }

  override indexOf(id: number): number {
    return Number.isInteger(id) && id >= 0 && id < this.#count ? id : -1;
  }

  override async ready(): Promise<void> {}

  override *[Symbol.iterator](): IterableIterator<number> {
    for (let i = 0; i < this.#count; i++) yield i;
  }
}

function outOfRange(row: number, size: number): never {
  throw new TopknotError('ERR_RANGE', `row: expected 0 to ${size - 1} but received ${describe(row)}`);
}
