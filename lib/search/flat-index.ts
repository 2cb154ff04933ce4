import { checkK, integer, knownOptions } from '../check.js';
import { type Id, Ids } from '../data/ids.js';
import { describe, expected, TopknotError } from '../errors.js';
import { type JobOptions, runJob } from '../job.js';
import type { TopKRows } from '../models/recommender.js';
import { native } from '../native.js';
import type { Handle } from '../native-ops.js';
import type { ItemFilter } from '../ops/item-filter.js';
import { inSlices } from '../slices.js';
import type { Tensor } from '../tensor.js';
import { loadFlat, saveFlat } from './flat-file.js';
import { merge, prepare, requireFinite, Segment } from './segment.js';
import { type IndexMetric, metricOf, storageOf, stored, type VectorStorage, type Vectors } from './storage.js';
import {
  type BitQueries,
  flatBits,
  flatQueries,
  heldFilter,
  isOne,
  type Queries,
  resultOf,
  type SearchResult,
  type Vector,
} from './vectors.js';

export interface FlatIndexOptions {
  /** 'innerProduct' unless given; 'hamming' for bits, and only for them. */
  metric?: IndexMetric | undefined;
  /** The element type of the vectors given unless this says otherwise. Floats are converted, to nearest even. */
  storage?: VectorStorage | undefined;
}

export interface SearchOptions<T extends Id = Id> {
  /** How many; 10 unless given, or all where the index is smaller. Fewer come back only where the filter leaves fewer. */
  k?: number | undefined;
  filter?: ItemFilter<T> | undefined;
}

export interface FlatSearchOptions<T extends Id = Id> extends SearchOptions<T> {
  /** 'int8' only: how many candidates for each of k have their scores computed from the floats; 4 unless given. */
  rescore?: number | undefined;
  /**
   * 'int8' only: whether to prove for each query, by a bound of the error of the codes, that no candidate is missing,
   * and to search the floats for those queries of which it cannot be proven. See `stats`.
   */
  exact?: boolean | undefined;
}

/** Queries with `exact` since the index was made. */
export interface FlatIndexStats {
  /** Answered from the codes, with proof. */
  proven: number;
  /** Answered from the floats because nothing was proven. */
  fallbacks: number;
}

/**
 * Exact search: every vector is compared with the query. Results with equal scores come in the order in which the vectors
 * were added. Vectors can be added, removed and replaced while searches run: a search sees the index as it was when it was
 * asked. Only 'int8' without `exact` may miss a result; the scores that it gives are exact too.
 *
 * @example
 * const index = await FlatIndex.from(['a', 'b'], new Float32Array([1, 0, 0, 1]), { metric: 'cosine' });
 * await index.add(['c'], new Float32Array([1, 1]));
 * const { ids, scores } = await index.search(new Float32Array([1, 1]), { k: 1, filter: { deny: ['a'] } });
 */
export class FlatIndex<T extends Id = Id> implements Disposable {
  readonly metric: IndexMetric;
  readonly storage: VectorStorage;
  /** Numbers in a vector, or bits. */
  readonly dimensions: number;
  readonly #stats = { proven: 0, fallbacks: 0 };
  #segments: readonly Segment<T>[];
  #ids: Ids<T> | undefined;
  #changes: Promise<unknown> = Promise.resolve();
  #disposed = false;

  private constructor(segment: Segment<T>, storage: VectorStorage, metric: IndexMetric) {
    this.metric = metric;
    this.storage = storage;
    this.dimensions = segment.tensors.vectors.shape[1]! * (storage === 'binary' ? 8 : 1);
    this.#segments = [segment];
  }

  /**
   * An index over `vectors`, a tensor [n, d] (shared, not copied, unless it is converted) or a Float32Array of n · d numbers
   * (copied). Bits: a uint8 tensor [n, bytes] or a Uint8Array.
   * @param ids n distinct ids of one type
   * @throws ERR_VALUE for an id that comes twice or a number that is not finite (as float16: above 65504); ERR_SHAPE;
   * ERR_DTYPE; ERR_ARGUMENT
   */
  static from(
    ids: readonly string[] | Ids<string>,
    vectors: Vectors,
    options?: FlatIndexOptions & JobOptions,
  ): Promise<FlatIndex<string>>;
  static from(
    ids: readonly number[] | Ids<number>,
    vectors: Vectors,
    options?: FlatIndexOptions & JobOptions,
  ): Promise<FlatIndex<number>>;
  static from(
    ids: readonly bigint[] | Ids<bigint>,
    vectors: Vectors,
    options?: FlatIndexOptions & JobOptions,
  ): Promise<FlatIndex<bigint>>;
  static from<T extends Id>(
    ids: readonly T[] | Ids<T>,
    vectors: Vectors,
    options?: FlatIndexOptions & JobOptions,
  ): Promise<FlatIndex<T>>;
  static async from<T extends Id>(
    ids: readonly T[] | Ids<T>,
    vectors: Vectors,
    options: FlatIndexOptions & JobOptions = {},
  ): Promise<FlatIndex<T>> {
    knownOptions(options, ['metric', 'storage', 'signal', 'onProgress']);
    const count = countOf(ids);
    if (count === 0) throw new TopknotError('ERR_VALUE', 'ids: expected at least one but received none');
    const storage = storageOf(options.storage, vectors);
    const metric = metricOf(options.metric, storage);
    const matrix = stored(vectors, count, storage);
    const known = await (ids instanceof Ids ? ids.distinct('ids') : Ids.checked(ids, 'ids'));
    await requireFinite(matrix, options);
    return new FlatIndex(new Segment(known, await prepare(matrix, storage, metric, options)), storage, metric);
  }

  /**
   * Reads what `save` wrote.
   * @param options.map leaves the vectors in the file (see `mapSafetensors`): they are read as searches need them, which of
   * 'int8' is the codes and the candidates only. They are not checked to be finite then; what later changes merge is in memory.
   * @throws ERR_IO; ERR_FORMAT for a file that is no index, is cut short or was written by a later version
   */
  static async load<T extends Id = Id>(
    path: string,
    options: JobOptions & { map?: boolean | undefined } = {},
  ): Promise<FlatIndex<T>> {
    knownOptions(options, ['map', 'signal', 'onProgress']);
    const { segment, storage, metric } = await loadFlat<T>(path, options);
    return new FlatIndex(segment, storage, metric);
  }

  /** Number of vectors. */
  get size(): number {
    return this.#segments.reduce((n, s) => n + s.live, 0);
  }

  /** The ids, in the order in which they were added. Gathered on the first use after a change. */
  get ids(): Ids<T> {
    const [first] = this.#segments as [Segment<T>];
    if (this.#segments.length === 1 && !first.alive) return first.ids;
    if (!this.#ids) {
      const list: T[] = [];
      for (const s of this.#segments) for (let i = 0; i < s.ids.size; i++) if (s.isLive(i)) list.push(s.ids.at(i));
      this.#ids = new Ids(list);
    }
    return this.#ids;
  }

  has(id: T): boolean {
    return this.#segments.some((s) => s.rowOf(id) >= 0);
  }

  get stats(): FlatIndexStats {
    return { ...this.#stats };
  }

  /**
   * The best vectors for one query, or for each of many: an array of vectors or a tensor with a row for each.
   * @throws ERR_RANGE for k below 1 or above `size`; ERR_SHAPE for a query of another length than the vectors;
   * ERR_VALUE for a query that is not finite; ERR_ARGUMENT
   */
  search(query: Vector | Uint8Array, options?: FlatSearchOptions<T> & JobOptions): Promise<SearchResult<T>>;
  search(
    queries: readonly Vector[] | readonly Uint8Array[] | Tensor<'float32'> | Tensor<'uint8'>,
    options?: FlatSearchOptions<T> & JobOptions,
  ): Promise<SearchResult<T>[]>;
  async search(
    queries: Queries | BitQueries,
    options: FlatSearchOptions<T> & JobOptions = {},
  ): Promise<SearchResult<T> | SearchResult<T>[]> {
    const segments = this.#segments;
    let flat = this.#flat(queries);
    const filter = heldFilter(options?.filter);
    if (filter) {
      // The caller may change both while we wait.
      if (flat === queries) flat = (queries as Float32Array | Uint8Array).slice();
      options = { ...options, filter };
      for (const s of segments) await s.ids.ready();
    }
    const call = this.#call(segments, flat, options);
    if (!call) return isOne(queries) ? nothing<T>() : [];
    const found = await runJob('query', options, (control) => native.indexSearch(control, ...call));
    return this.#answer(segments, found, isOne(queries), call[2].k);
  }

  /**
   * Like `search`, but blocks the calling thread until the answer is there: for small indexes and callers that count
   * microseconds.
   */
  searchSync(query: Vector | Uint8Array, options?: FlatSearchOptions<T>): SearchResult<T>;
  searchSync(
    queries: readonly Vector[] | readonly Uint8Array[] | Tensor<'float32'> | Tensor<'uint8'>,
    options?: FlatSearchOptions<T>,
  ): SearchResult<T>[];
  searchSync(queries: Queries | BitQueries, options: FlatSearchOptions<T> = {}): SearchResult<T> | SearchResult<T>[] {
    const segments = this.#segments;
    const filter = heldFilter(options?.filter);
    const call = this.#call(segments, this.#flat(queries), filter ? { ...options, filter } : options);
    if (!call) return isOne(queries) ? nothing<T>() : [];
    return this.#answer(segments, native.indexSearchSync(...call), isOne(queries), call[2].k);
  }

  /**
   * The share of the exact k best that `search` finds for these queries, on average: 1 unless the storage is 'int8'.
   * Searches twice, once by the floats alone.
   */
  async recall(
    queries: readonly Vector[] | Tensor<'float32'>,
    options: Pick<FlatSearchOptions<T>, 'k' | 'filter' | 'rescore'> & JobOptions = {},
  ): Promise<number> {
    const segments = this.#segments;
    const flat = this.#flat(queries);
    const filter = heldFilter(options.filter);
    if (filter) for (const s of segments) await s.ids.ready();
    const call = this.#call(segments, flat, { ...options, filter });
    if (!call) return 1;
    const truth = this.#call(segments, flat, { ...options, filter }, false)!;
    const [found, exact] = [
      await runJob('query', options, (control) => native.indexSearch(control, ...call)),
      await runJob('query', options, (control) => native.indexSearch(control, ...truth)),
    ] as [TopKRows, TopKRows];
    const { k } = call[2];
    let [hits, wanted] = [0, 0];
    for (let begin = 0; begin < exact.ids.length; begin += k) {
      const best = new Set(exact.ids.subarray(begin, begin + k));
      best.delete(-1);
      wanted += best.size;
      for (const row of found.ids.subarray(begin, begin + k)) hits += best.has(row) ? 1 : 0;
    }
    return wanted === 0 ? 1 : hits / wanted;
  }

  /**
   * Adds vectors behind those that are there. Changes are made one after the other, in the order of the calls.
   * @throws ERR_VALUE for an id that is there already or comes twice, or a number that is not finite; ERR_SHAPE; ERR_DTYPE;
   * ERR_ARGUMENT. Nothing is added then.
   */
  async add(ids: readonly T[] | Ids<T>, vectors: Vectors, options: JobOptions = {}): Promise<void> {
    await this.#change(ids, options, this.#matrix(ids, vectors), (known, rows) => {
      const at = rows.findIndex((row) => row !== undefined);
      if (at >= 0) throw new TopknotError('ERR_VALUE', `ids: ${describe(known.at(at))} is in the index already`);
    });
  }

  /**
   * Replaces the vectors of ids that are there; they count as added now.
   * @throws ERR_UNKNOWN_ID for an id that is not there; and as `add`. Nothing is replaced then.
   */
  async update(ids: readonly T[] | Ids<T>, vectors: Vectors, options: JobOptions = {}): Promise<void> {
    await this.#change(ids, options, this.#matrix(ids, vectors), expectAll);
  }

  /** Takes vectors away: all of them or none. @throws ERR_UNKNOWN_ID; ERR_VALUE for an id that comes twice */
  async remove(ids: readonly T[] | Ids<T>, options: JobOptions = {}): Promise<void> {
    await this.#change(ids, options, undefined, expectAll);
  }

  /**
   * Brings all vectors together and drops those that were removed. Happens by itself, bit by bit, when changes have left
   * enough to gain.
   */
  async compact(options: JobOptions = {}): Promise<void> {
    await this.#queued(async () => this.#swap([await merge(this.#segments, options)]));
  }

  /**
   * Writes vectors and ids to one safetensors file, whole or not at all, as they are when this is called.
   * @throws ERR_IO; ERR_VALUE for an empty index
   */
  async save(path: string, options: JobOptions = {}): Promise<void> {
    await saveFlat(path, this.#segments, this.storage, this.metric, options);
  }

  /** Frees the memory now, unless a running search or a tensor of the caller still needs it. */
  dispose(): void {
    this.#disposed = true;
    for (const s of this.#segments) s.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Checks new vectors and copies them. */
  #matrix(ids: readonly T[] | Ids<T>, vectors: Vectors): Tensor {
    return stored(vectors, countOf(ids), this.storage, this.#segments[0]!.tensors.vectors);
  }

  /** Takes out the rows of `ids`, where they are, and adds `vectors`, where there are any, in one step. */
  async #change(
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
      const type = this.#segments[0]!.ids.type;
      if (ids.size > 0 && ids.type !== type)
        expected('ids', `ids that are a ${type}, like those of the index,`, ids.at(0));
      const rows: (number | undefined)[] = new Array(ids.size).fill(undefined);
      const taken: number[][] = [];
      for (const segment of this.#segments) {
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
      const tensors = added && (await prepare(added, this.storage, this.metric, options));
      options.signal?.throwIfAborted();
      const left = this.#segments.map((s, i) => s.without(taken[i]!));
      this.#swap(tensors ? [...left, new Segment(ids, tensors)] : left);
      if (this.#segments.length > 1 || this.#segments[0]!.alive) this.#queued(() => this.#tidy()).catch(() => {});
    });
  }

  /**
   * Keeps the segments few and full: the last two become one while the last is at least half as long as the one before it,
   * and one that has lost a third of its vectors is rewritten. So each vector is copied a logarithmic number of times.
   */
  async #tidy(): Promise<void> {
    for (let i = this.#segments.length - 1; i >= 0; i--) {
      const segments = this.#segments;
      const [before, last] = [segments[i - 1], segments[i]!];
      const joins = before && 2 * last.live >= before.live;
      const worn = 3 * last.live < 2 * last.ids.size;
      if (!joins && !worn) continue;
      if (last.live === 0 && segments.length > 1) this.#swap(segments.filter((s) => s !== last));
      else if (joins)
        this.#swap([...segments.slice(0, i - 1), await merge([before, last], {}), ...segments.slice(i + 1)]);
      else if (last.live > 0) this.#swap(segments.with(i, await merge([last], {})));
    }
  }

  #swap(segments: readonly Segment<T>[]): void {
    if (this.#disposed) {
      for (const s of segments) s.dispose();
      throw new TopknotError('ERR_DISPOSED', 'index: this index has been disposed');
    }
    this.#segments = segments;
    this.#ids = undefined;
  }

  /** Runs one change after the other. */
  async #queued<R>(change: () => Promise<R>): Promise<R> {
    const mine = this.#changes.then(change, change);
    this.#changes = mine.catch(() => {});
    return await mine;
  }

  #flat(queries: Queries | BitQueries): Float32Array | Uint8Array | Handle {
    const width = this.#segments[0]!.tensors.vectors.shape[1]!;
    return this.storage === 'binary' ? flatBits(queries as BitQueries, width) : flatQueries(queries as Queries, width);
  }

  /** The arguments of the one native call; undefined where there is nothing to search. */
  #call(
    segments: readonly Segment<T>[],
    queries: Float32Array | Uint8Array | Handle,
    options: FlatSearchOptions<T>,
    withCodes = true,
  ) {
    knownOptions(options, ['k', 'filter', 'rescore', 'exact', 'signal', 'onProgress']);
    const { k: asked, filter, rescore, exact } = options;
    if (this.storage !== 'int8' && (rescore !== undefined || exact !== undefined))
      throw new TopknotError(
        'ERR_ARGUMENT',
        `options.${rescore !== undefined ? 'rescore' : 'exact'}: only for storage 'int8'; this index is exact`,
      );
    if (exact !== undefined && typeof exact !== 'boolean') expected('exact', 'a boolean', exact);
    const size = segments.reduce((n, s) => n + s.live, 0);
    const k = asked === undefined ? Math.min(10, size) : checkK(asked, size);
    const full = segments.filter((s) => s.live > 0);
    if (full.length === 0) return undefined;
    return [
      queries,
      segments.map((s) => s.native(filter, withCodes)),
      {
        k,
        metric: this.metric === 'hamming' ? 'l2' : this.metric,
        rescore: rescore === undefined ? 4 : integer('rescore', rescore, 1, 1e6),
        exact: exact ?? false,
      },
    ] as const;
  }

  #answer(
    segments: readonly Segment<T>[],
    raw: Awaited<ReturnType<typeof native.indexSearch>>,
    one: boolean,
    k: number,
  ): SearchResult<T> | SearchResult<T>[] {
    this.#stats.proven += raw.proven;
    this.#stats.fallbacks += raw.fallbacks;
    const idAt = (row: number): T => {
      let i = 0;
      while (row >= segments[i]!.ids.size) row -= segments[i++]!.ids.size;
      return segments[i]!.ids.at(row);
    };
    const found = raw as unknown as TopKRows;
    if (one) return resultOf(found, 0, k, idAt);
    return Array.from({ length: found.ids.length / k }, (_, q) => resultOf(found, q, k, idAt));
  }
}

const countOf = (ids: readonly Id[] | Ids): number =>
  ids instanceof Ids ? ids.size : Array.isArray(ids) ? ids.length : expected('ids', 'an array of ids', ids);

function expectAll(ids: Ids, rows: readonly (number | undefined)[]): void {
  const at = rows.indexOf(undefined);
  if (at >= 0) throw new TopknotError('ERR_UNKNOWN_ID', `ids: ${describe(ids.at(at))} is not in the index`);
}

const nothing = <T extends Id>(): SearchResult<T> => ({ ids: [], scores: new Float32Array() });
