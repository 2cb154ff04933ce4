import { describe, TopknotError } from '../errors.js';

/** What users and items are called by the caller: never truncated, never converted. 1, 1n and '1' are three ids. */
export type Id = number | bigint | string;

/**
 * The ids of one side (all users, or all items) in the order of their rows. Immutable.
 * The map from id to row is built on the first look-up.
 */
export class Ids<T extends Id = Id> {
  readonly #ids: readonly T[];
  #rows: Map<T, number> | undefined;

  /** @param ids distinct ids of one type; row i is called ids[i]. */
  constructor(ids: readonly T[]) {
    this.#ids = ids;
  }

  get size(): number {
    return this.#ids.length;
  }

  /** The id of a row. @throws ERR_RANGE */
  at(row: number): T {
    const id = this.#ids[row];
    if (id === undefined)
      throw new TopknotError('ERR_RANGE', `row: expected 0 to ${this.size - 1} but received ${describe(row)}`);
    return id;
  }

  /** The row of an id, or -1. */
  indexOf(id: T): number {
    if (!this.#rows) this.#rows = new Map(this.#ids.map((x, i) => [x, i]));
    return this.#rows.get(id) ?? -1;
  }

  /** The row of an id. `name` says which argument it came from. @throws ERR_UNKNOWN_ID */
  row(id: T, name: string): number {
    const row = this.indexOf(id);
    if (row < 0) throw new TopknotError('ERR_UNKNOWN_ID', `${name}: ${describe(id)} is not among the ${this.size} known ids`);
    return row;
  }

  [Symbol.iterator](): IterableIterator<T> {
    return this.#ids[Symbol.iterator]();
  }
}
