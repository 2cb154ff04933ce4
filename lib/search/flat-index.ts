import { checkK, integer, knownOptions } from '../check.js';
import { type Id, Ids } from '../data/ids.js';
import { expected, TopknotError } from '../errors.js';
import { type JobOptions, runJob } from '../job.js';
import type { TopKRows } from '../models/recommender.js';
import { native } from '../native.js';
import type { Handle } from '../native-ops.js';
import type { ItemFilter } from '../ops/item-filter.js';
import { Tensor } from '../tensor.js';
import { loadFlat, saveFlat } from './flat-file.js';
import { type PlacementOptions, placed, placementOf } from './placement.js';
import { prepare, requireFinite, Segment } from './segment.js';
import { countOf, expectAll, expectNone, liveIn, Segments } from './segments.js';
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

export interface FlatIndexOptions extends PlacementOptions {
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
 * asked. Only 'int8' without `exact` may miss a result; the scores that it gives are exact too. On a GPU (option `device`)
 * searches reject with ERR_MEMORY where it has no room for their workspace; what is in the index stays.
 *
 * @example
 * const index = await FlatIndex.from(['a', 'b'], new Float32Array([1, 0, 0, 1]), { metric: 'cosine' });
 * await index.add(['c'], new Float32Array([1, 1]));
 * const { ids, scores } = await index.search(new Float32Array([1, 1]), { k: 1, filter: { deny: ['a'] } });
 */
export class FlatIndex<T extends Id = Id> implements Disposable {
  readonly metric: IndexMetric;
  readonly storage: VectorStorage;
  /** Where it is searched: 'cpu', 'cuda:0', ... */
  readonly device: string;
  /** Numbers in a vector, or bits. */
  readonly dimensions: number;
  readonly #stats = { proven: 0, fallbacks: 0 };
  readonly #segments: Segments<T>;

  private constructor(segments: Segments<T>) {
    const [{ tensors }] = segments.list as [Segment<T>];
    this.metric = segments.metric;
    this.storage = segments.storage;
    this.device = segments.placement.device;
    this.dimensions = tensors.vectors.shape[1]! * (this.storage === 'binary' ? 8 : 1);
    this.#segments = segments;
  }

  /**
   * An index over `vectors`, a tensor [n, d] (shared, not copied, unless it is converted) or a Float32Array of n · d numbers
   * (copied). Bits: a uint8 tensor [n, bytes] or a Uint8Array.
   * @param ids n distinct ids of one type
   * @throws ERR_DEVICE for a device that is not there; ERR_VALUE for an id that comes twice or a number that is not finite (as float16: above 65504); ERR_SHAPE;
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
    knownOptions(options, ['metric', 'storage', 'device', 'deviceBytes', 'signal', 'onProgress']);
    const count = countOf(ids);
    if (count === 0) throw new TopknotError('ERR_VALUE', 'ids: expected at least one but received none');
    const storage = storageOf(options.storage, vectors);
    const metric = metricOf(options.metric, storage);
    const there = vectors instanceof Tensor ? vectors.device : undefined;
    const placement = placementOf({ ...options, device: options.device ?? there });
    const matrix = stored(vectors, count, storage);
    const known = await (ids instanceof Ids ? ids.distinct('ids') : Ids.checked(ids, 'ids'));
    await requireFinite(matrix, options);
    const tensors = await placed(await prepare(matrix, storage, metric, options), placement, options);
    return new FlatIndex(new Segments(new Segment(known, tensors), storage, metric, placement));
  }

  /**
   * Reads what `save` wrote.
   * @param options.map leaves the vectors in the file (see `mapSafetensors`): they are read as searches need them, which of
   * 'int8' is the codes and the candidates only. They are not checked to be finite then; what later changes merge is in memory.
   * @throws ERR_IO; ERR_FORMAT for a file that is no index, is cut short or was written by a later version
   */
  static async load<T extends Id = Id>(
    path: string,
    options: JobOptions & PlacementOptions & { map?: boolean | undefined } = {},
  ): Promise<FlatIndex<T>> {
    knownOptions(options, ['map', 'device', 'deviceBytes', 'signal', 'onProgress']);
    const { device, deviceBytes, ...rest } = options;
    const placement = placementOf({ device, deviceBytes });
    const { segment, storage, metric } = await loadFlat<T>(path, rest);
    const tensors = await placed(segment.tensors, placement, rest);
    return new FlatIndex(new Segments(new Segment(segment.ids, tensors), storage, metric, placement));
  }

  /** Number of vectors. */
  get size(): number {
    return this.#segments.size;
  }

  /** The ids, in the order in which they were added. Gathered on the first use after a change. */
  get ids(): Ids<T> {
    return this.#segments.ids;
  }

  has(id: T): boolean {
    return this.#segments.list.some((s) => s.rowOf(id) >= 0);
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
    const flat = this.#flat(queries);
    const filter = heldFilter(options?.filter);
    if (!filter) return this.#search(this.#segments.list, flat, isOne(queries), options);
    // The caller may change both while we wait.
    const held = flat === queries ? (queries as Float32Array | Uint8Array).slice() : flat;
    return this.#segments.reading(async (segments) => {
      for (const s of segments) await s.ids.ready();
      return this.#search(segments, held, isOne(queries), { ...options, filter });
    });
  }

  async #search(
    segments: readonly Segment<T>[],
    queries: Float32Array | Uint8Array | Handle,
    one: boolean,
    options: FlatSearchOptions<T> & JobOptions,
  ): Promise<SearchResult<T> | SearchResult<T>[]> {
    const call = this.#call(segments, queries, options);
    if (!call) return one ? nothing<T>() : [];
    const found = await runJob('query', options, (control) => native.indexSearch(control, ...call));
    return this.#answer(segments, found, one, call[2].k);
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
    const segments = this.#segments.list;
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
    knownOptions(options, ['k', 'filter', 'rescore', 'signal', 'onProgress']);
    return this.#segments.reading((segments) => this.#recall(segments, queries, options));
  }

  async #recall(
    segments: readonly Segment<T>[],
    queries: readonly Vector[] | Tensor<'float32'>,
    options: Pick<FlatSearchOptions<T>, 'k' | 'filter' | 'rescore'> & JobOptions,
  ): Promise<number> {
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
    await this.#segments.change(ids, options, this.#matrix(ids, vectors), expectNone);
  }

  /**
   * Replaces the vectors of ids that are there; they count as added now.
   * @throws ERR_UNKNOWN_ID for an id that is not there; and as `add`. Nothing is replaced then.
   */
  async update(ids: readonly T[] | Ids<T>, vectors: Vectors, options: JobOptions = {}): Promise<void> {
    await this.#segments.change(ids, options, this.#matrix(ids, vectors), expectAll);
  }

  /** Takes vectors away: all of them or none. @throws ERR_UNKNOWN_ID; ERR_VALUE for an id that comes twice */
  async remove(ids: readonly T[] | Ids<T>, options: JobOptions = {}): Promise<void> {
    await this.#segments.change(ids, options, undefined, expectAll);
  }

  /**
   * Brings all vectors together and drops those that were removed. Happens by itself, bit by bit, when changes have left
   * enough to gain.
   */
  async compact(options: JobOptions = {}): Promise<void> {
    await this.#segments.compact(options);
  }

  /**
   * Writes vectors and ids to one safetensors file, whole or not at all, as they are when this is called.
   * @throws ERR_IO; ERR_VALUE for an empty index
   */
  async save(path: string, options: JobOptions = {}): Promise<void> {
    await this.#segments.reading((segments) => saveFlat(path, segments, this.storage, this.metric, options));
  }

  /** Frees the memory now, unless a running search or a tensor of the caller still needs it. */
  dispose(): void {
    this.#segments.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Checks new vectors and copies them. */
  #matrix(ids: readonly T[] | Ids<T>, vectors: Vectors): Tensor {
    return stored(vectors, countOf(ids), this.storage, this.#segments.list[0]!.tensors.vectors);
  }

  #flat(queries: Queries | BitQueries): Float32Array | Uint8Array | Handle {
    const width = this.#segments.list[0]!.tensors.vectors.shape[1]!;
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
    const size = liveIn(segments);
    const k = asked === undefined ? Math.min(10, size) : checkK(asked, size);
    if (size === 0) return undefined;
    return [
      queries,
      segments.map((s) => s.native(filter, withCodes)),
      {
        k,
        metric: this.metric === 'hamming' ? 'l2' : this.metric,
        rescore: rescore === undefined ? 4 : integer('rescore', rescore, 1, 1e6),
        exact: exact ?? false,
        device: this.device,
        blockBytes: this.#segments.placement.bytes,
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

const nothing = <T extends Id>(): SearchResult<T> => ({ ids: [], scores: new Float32Array() });
