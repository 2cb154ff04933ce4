import { knownOptions } from '../check.js';
import { type Id, Ids } from '../data/ids.js';
import { describe, expected, TopknotError } from '../errors.js';
import type { JobOptions } from '../job.js';
import { inSlices } from '../slices.js';
import type { Tensor } from '../tensor.js';
import { type Placement, placed } from './placement.js';
import { merge, prepare, requireFinite, Segment } from './segment.js';
import type { IndexMetric, VectorStorage } from './storage.js';

/**
 * The segments of an index and the changes to them. The list is replaced as a whole: who holds one keeps what it saw.
 * @internal
 */
export class Segments<T extends Id = Id> {
  #list: readonly Segment<T>[];
  #ids: Ids<T> | undefined;
  #changes: Promise<unknown> = Promise.resolve();
  #disposed = false;
  /** Lists that somebody is reading, and how many are. */
  readonly #read = new Map<readonly Segment<T>[], number>();
  /** Tensors that changes have replaced, for as long as such a list has them. */
  readonly #replaced = new Set<Tensor>();

  constructor(
    first: Segment<T>,
    readonly storage: VectorStorage,
    readonly metric: IndexMetric,
    readonly placement: Placement,
  ) {
    this.#list = [first];
  }

  /** At least one, as of now. */
  get list(): readonly Segment<T>[] {
    return this.#list;
  }

  /** Runs `read` on the list as of now, whose tensors stay until it has ended, whatever changes. */
  async reading<R>(read: (list: readonly Segment<T>[]) => Promise<R>): Promise<R> {
    const list = this.#list;
    this.#read.set(list, (this.#read.get(list) ?? 0) + 1);
    try {
      return await read(list);
    } finally {
      const others = this.#read.get(list)! - 1;
      if (others > 0) this.#read.set(list, others);
      else this.#read.delete(list);
      this.#free();
    }
  }

  /** Number of vectors. */
  get size(): number {
    return liveIn(this.#list);
  }

  /** The ids, in the order in which they were added. */
  get ids(): Ids<T> {
    const [first] = this.#list as [Segment<T>];
    if (this.#list.length === 1 && !first.alive) return first.ids;
    if (!this.#ids) {
      const list: T[] = [];
      for (const s of this.#list) for (let i = 0; i < s.ids.size; i++) if (s.isLive(i)) list.push(s.ids.at(i));
      this.#ids = new Ids(list);
    }
    return this.#ids;
  }

  /** Takes out the rows of ids, where they are, and adds `vectors`, where there are any, in one step. */
  async change(
    given: readonly T[] | Ids<T>,
    options: JobOptions,
    vectors: Tensor | undefined,
    check: (ids: Ids<T>, rows: (number | undefined)[]) => void,
  ): Promise<void> {
    knownOptions(options, ['signal', 'onProgress']);
    countOf(given);
    const copy = given instanceof Ids ? given : given.slice();
    await this.#queued(async () => {
      const ids = await (copy instanceof Ids ? copy.distinct('ids') : Ids.checked(copy, 'ids'));
      const type = this.#list[0]!.ids.type;
      if (ids.size > 0 && type !== undefined && ids.type !== type)
        expected('ids', `ids that are a ${type}, like those of the index,`, ids.at(0));
      const rows: (number | undefined)[] = new Array(ids.size).fill(undefined);
      const taken: number[][] = [];
      for (const segment of this.#list) {
        await segment.ids.ready();
        const found: number[] = [];
        taken.push(found);
        await inSlices(ids.size, (begin, end) => {
          for (let i = begin; i < end; i++) {
            const row = segment.rowOf(ids.at(i));
            if (row < 0) continue;
            found.push(row);
            rows[i] = row;
          }
        });
      }
      check(ids, rows);
      const added = ids.size > 0 ? vectors : undefined;
      if (added) await requireFinite(added, options);
      const made = added && (await prepare(added, this.storage, this.metric, options));
      const tensors = made && (await placed(made, this.placement, options));
      options.signal?.throwIfAborted();
      const left = this.#list.map((s, i) => s.without(taken[i]!));
      const kept = left.filter((s) => s.ids.size > 0); // an index that was emptied and compacted has no rows
      this.#swap(tensors ? [...kept, new Segment(ids, tensors)] : left);
      if (this.#list.length > 1 || this.#list[0]!.alive) this.#queued(() => this.#tidy()).catch(() => {});
    });
  }

  /** One segment of all live vectors. */
  async compact(options: JobOptions): Promise<void> {
    await this.#queued(async () => this.#swap([await merge(this.#list, this.placement, options)]));
  }

  dispose(): void {
    this.#disposed = true;
    for (const s of this.#list) s.dispose();
    for (const t of this.#replaced) t.dispose();
  }

  /**
   * Keeps the segments few and full: the last two become one while the last is at least half as long as the one before it,
   * and one that has lost a third of its vectors is rewritten. So each vector is copied a logarithmic number of times.
   */
  async #tidy(): Promise<void> {
    for (let i = this.#list.length - 1; i >= 0; i--) {
      const segments = this.#list;
      const [before, last] = [segments[i - 1], segments[i]!];
      const joins = before && 2 * last.live >= before.live;
      const worn = 3 * last.live < 2 * last.ids.size;
      if (!joins && !worn) continue;
      const merged = (some: readonly Segment<T>[]) => merge(some, this.placement, {});
      if (last.live === 0 && segments.length > 1) this.#swap(segments.filter((s) => s !== last));
      else if (joins) this.#swap([...segments.slice(0, i - 1), await merged([before, last]), ...segments.slice(i + 1)]);
      else if (last.live > 0) this.#swap(segments.with(i, await merged([last])));
    }
  }

  #swap(segments: readonly Segment<T>[]): void {
    if (this.#disposed) {
      for (const s of segments) s.dispose();
      throw new TopknotError('ERR_DISPOSED', 'index: this index has been disposed');
    }
    for (const s of this.#list) for (const t of s.all) this.#replaced.add(t);
    this.#list = segments;
    this.#ids = undefined;
    this.#free();
  }

  /** Gives back what changes have replaced and nobody reads any more; work in flight has references of its own. */
  #free(): void {
    if (this.#replaced.size === 0) return;
    for (const s of this.#list) for (const t of s.all) this.#replaced.delete(t);
    const read = new Set([...this.#read.keys()].flatMap((list) => list.flatMap((s) => s.all)));
    for (const t of this.#replaced) {
      if (read.has(t)) continue;
      t.dispose();
      this.#replaced.delete(t);
    }
  }

  /** Runs one change after the other. */
  async #queued<R>(change: () => Promise<R>): Promise<R> {
    const mine = this.#changes.then(change, change);
    this.#changes = mine.catch(() => {});
    return await mine;
  }
}

/** Vectors that have not been removed. @internal */
export const liveIn = (segments: readonly Segment[]): number => segments.reduce((n, s) => n + s.live, 0);

/** @internal */
export const countOf = (ids: readonly Id[] | Ids): number =>
  ids instanceof Ids ? ids.size : Array.isArray(ids) ? ids.length : expected('ids', 'an array of ids', ids);

/** The check of a change to vectors that must be there. @throws ERR_UNKNOWN_ID @internal */
export function expectAll(ids: Ids, rows: readonly (number | undefined)[]): void {
  const at = rows.indexOf(undefined);
  if (at >= 0) throw new TopknotError('ERR_UNKNOWN_ID', `ids: ${describe(ids.at(at))} is not in the index`);
}

/** The check of a change to vectors that must not be there. @throws ERR_VALUE @internal */
export function expectNone(ids: Ids, rows: readonly (number | undefined)[]): void {
  const at = rows.findIndex((row) => row !== undefined);
  if (at >= 0) throw new TopknotError('ERR_VALUE', `ids: ${describe(ids.at(at))} is in the index already`);
}
