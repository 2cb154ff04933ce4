import { type Id, Ids } from '../data/ids.js';
import { describe, expected, TopknotError } from '../errors.js';
import { inSlices } from '../slices.js';

/**
 * Ids that come and go. Rows count up and are never given to another id, so that an answer that was on its way while its
 * items were removed still says what it found.
 * @internal
 */
export class KeyedIds<T extends Id = Id> extends Ids<T> {
  readonly #first: Ids<T>;
  readonly #added: T[] = [];
  /** Where it differs from `#first`: the row of an id, or -1 for one that was removed. */
  readonly #rowOf = new Map<T, number>();
  #live: number;
  #type: string | undefined;
  /** What `list` gathered, until the next change. */
  #list: Ids<T> | undefined;

  constructor(first: Ids<T>) {
    super([]);
    this.#first = first;
    this.#live = first.size;
    this.#type = first.type;
  }

  /** Rows ever given. */
  override get size(): number {
    return this.#first.size + this.#added.length;
  }

  /** Ids that are there now. */
  get live(): number {
    return this.#live;
  }

  override at(row: number): T {
    return row < this.#first.size ? this.#first.at(row) : this.#added[row - this.#first.size]!;
  }

  override indexOf(id: T): number {
    return this.#rowOf.get(id) ?? this.#first.indexOf(id);
  }

  override async ready(): Promise<void> {
    await this.#first.ready();
  }

  /** Rows for new ids, which `has` does not know before `commit`. @throws ERR_ARGUMENT, ERR_VALUE */
  async reserve(ids: Ids<T>, signal?: AbortSignal): Promise<Int32Array> {
    await this.ready();
    if (ids.size > 0 && this.#type !== undefined && ids.type !== this.#type)
      expected('ids', `ids that are a ${this.#type}, like those in the index,`, ids.at(0));
    const first = this.size;
    try {
      await inSlices(
        ids.size,
        (begin, end) => {
          for (let i = begin; i < end; i++) {
            const id = ids.at(i);
            if (this.has(id))
              throw new TopknotError(
                'ERR_VALUE',
                `ids: ${describe(id)} is in the index already; update() gives it another vector`,
              );
            this.#added.push(id);
          }
        },
        signal,
      );
    } catch (error) {
      this.release(this.size - first);
      throw error;
    }
    return Int32Array.from({ length: ids.size }, (_, i) => first + i);
  }

  /** Takes back the rows that the last `reserve` gave. */
  release(count: number): void {
    this.#added.length -= count;
  }

  async commit(rows: Int32Array): Promise<void> {
    await this.#set(rows, (row) => row);
    this.#live += rows.length;
    if (rows.length > 0) this.#type ??= typeof this.at(rows[0]!);
  }

  async remove(rows: Int32Array): Promise<void> {
    await this.#set(rows, () => -1);
    this.#live -= rows.length;
  }

  async #set(rows: Int32Array, rowOf: (row: number) => number): Promise<void> {
    await inSlices(rows.length, (begin, end) => {
      for (let i = begin; i < end; i++) this.#rowOf.set(this.at(rows[i]!), rowOf(rows[i]!));
    });
    this.#list = undefined;
  }

  /** @throws ERR_UNKNOWN_ID */
  async rowsOf(ids: Ids<T>, signal?: AbortSignal): Promise<Int32Array> {
    await this.ready();
    const rows = new Int32Array(ids.size);
    await inSlices(
      ids.size,
      (begin, end) => {
        for (let i = begin; i < end; i++) rows[i] = this.row(ids.at(i), 'ids');
      },
      signal,
    );
    return rows;
  }

  /** The ids that are there now, in the order of their rows. */
  get list(): Ids<T> {
    if (this.#rowOf.size === 0) return this.#first;
    if (!this.#list) {
      const ids: T[] = [];
      this.#gather(0, this.size, ids);
      this.#list = new Ids(ids);
    }
    return this.#list;
  }

  /** The same without blocking the event loop. */
  async snapshot(signal?: AbortSignal): Promise<Ids<T>> {
    if (this.#rowOf.size === 0) return this.#first;
    const ids: T[] = [];
    await this.ready();
    await inSlices(this.size, (begin, end) => this.#gather(begin, end, ids), signal);
    return new Ids(ids);
  }

  #gather(begin: number, end: number, into: T[]): void {
    for (let row = begin; row < end; row++) {
      const id = this.at(row);
      if (this.indexOf(id) === row) into.push(id);
    }
  }

  /** Those that are there now in rows counted anew from 0, without the memory of others; what this one says stays true. */
  async compacted(signal?: AbortSignal): Promise<KeyedIds<T>> {
    const ids = await this.snapshot(signal);
    await ids.ready();
    const out = new KeyedIds(ids);
    out.#type = this.#type;
    return out;
  }
}
