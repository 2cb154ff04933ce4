import { checkK, finite, integer, knownOptions, oneOf } from '../check.js';
import { type Id, Ids } from '../data/ids.js';
import { expected, TopknotError } from '../errors.js';
import { loadIds, saveIds } from '../format/ids.js';
import { readSafetensors, writeSafetensors } from '../format/safetensors.js';
import { checkJob, type JobOptions, runJob } from '../job.js';
import type { TopKRows } from '../models/recommender.js';
import { native } from '../native.js';
import type { Resource } from '../native-ops.js';
import { allowedBits } from '../ops/item-filter.js';
import { metrics, type VectorMetric } from '../ops/top-k.js';
import { Tensor, tensor } from '../tensor.js';
import type { SearchOptions } from './flat-index.js';
import { KeyedIds } from './keyed-ids.js';
import {
  asMatrix,
  flatQueries,
  heldFilter,
  isOne,
  type Queries,
  resultOf,
  type SearchResult,
  type Vector,
} from './vectors.js';

export interface HnswIndexOptions {
  /** 'innerProduct' unless given. */
  metric?: VectorMetric | undefined;
  /** Neighbours of a vector in the graph (the paper's M), twice as many on its lowest level; 16 unless given. */
  connectivity?: number | undefined;
  /** Candidates looked at to link a vector (efConstruction); 128 unless given. More: a better graph, built more slowly. */
  expansionAdd?: number | undefined;
  /** Candidates looked at by a search (ef), unless the search says; 64 unless given. More: higher recall, fewer queries a second. */
  expansionSearch?: number | undefined;
}

export interface HnswBuildOptions {
  /**
   * Link with all threads. Quicker, but the order in which they come to it changes the graph, and with it now and then an
   * answer: two builds differ. Without it one thread works, and the same changes in the same order give the same graph.
   */
  parallel?: boolean | undefined;
}

export interface HnswSearchOptions<T extends Id = Id> extends SearchOptions<T> {
  /** Candidates looked at (ef), at least k; the index's own unless given. */
  expansionSearch?: number | undefined;
}

type Settings = Required<{ [K in keyof HnswIndexOptions]: NonNullable<HnswIndexOptions[K]> }>;

/**
 * Approximate search in a graph of neighbours (HNSW: Malkov and Yashunin, https://arxiv.org/abs/1603.09320), by the
 * library usearch. Looks at a few thousand vectors instead of all, and misses some of the best: see
 * docs/performance/ann.md for recall against speed, and for when exact search is the quicker one.
 *
 * Under inner product, begin with vectors as long as those that come later: the longest of them sets how the graph is linked,
 * and vectors that are longer still are found less surely.
 *
 * Vectors come, go and change while searches run. A change is seen as a whole: a search finds the index as it was before
 * it or after it. Changes wait for each other; while one is linked, a search waits for some milliseconds at most.
 *
 * Filters act inside the search in the graph, so k results come back whenever k items may be returned. Where a filter leaves so
 * few items that it is quicker to look at each of them (fewer than the square root of 4 · expansionSearch · size), that
 * is done, and the answer is exact.
 *
 * @example
 * const index = await HnswIndex.from(ids, vectors, { metric: 'cosine', parallel: true });
 * const { ids: nearest } = await index.search(query, { k: 10, expansionSearch: 200 });
 */
export class HnswIndex<T extends Id = Id> implements Disposable {
  readonly metric: VectorMetric;
  /** Numbers in a vector. */
  readonly dimensions: number;
  readonly connectivity: number;
  readonly expansionAdd: number;
  readonly expansionSearch: number;
  readonly #ids: KeyedIds<T>;
  readonly #index: Resource;
  /** Ends when the changes that were asked for so far have. */
  #changes: Promise<unknown> = Promise.resolve();

  private constructor(ids: Ids<T>, dimensions: number, settings: Settings, index: Resource) {
    this.#ids = new KeyedIds(ids);
    this.dimensions = dimensions;
    this.metric = settings.metric;
    this.connectivity = settings.connectivity;
    this.expansionAdd = settings.expansionAdd;
    this.expansionSearch = settings.expansionSearch;
    this.#index = index;
  }

  /**
   * An index over copies of `vectors`, a float32 tensor [n, d] or a Float32Array of n · d numbers. Progress counts vectors.
   * @param ids n distinct ids of one type
   * @throws ERR_VALUE for an id that comes twice or a number that is not finite; ERR_SHAPE; ERR_ARGUMENT; ERR_RANGE;
   * ERR_DEPENDENCY where topknot was built from source without usearch
   */
  static from(
    ids: readonly string[] | Ids<string>,
    vectors: Float32Array | Tensor<'float32'>,
    options?: HnswIndexOptions & HnswBuildOptions & JobOptions,
  ): Promise<HnswIndex<string>>;
  static from(
    ids: readonly number[] | Ids<number>,
    vectors: Float32Array | Tensor<'float32'>,
    options?: HnswIndexOptions & HnswBuildOptions & JobOptions,
  ): Promise<HnswIndex<number>>;
  static from(
    ids: readonly bigint[] | Ids<bigint>,
    vectors: Float32Array | Tensor<'float32'>,
    options?: HnswIndexOptions & HnswBuildOptions & JobOptions,
  ): Promise<HnswIndex<bigint>>;
  static from<T extends Id>(
    ids: readonly T[] | Ids<T>,
    vectors: Float32Array | Tensor<'float32'>,
    options?: HnswIndexOptions & HnswBuildOptions & JobOptions,
  ): Promise<HnswIndex<T>>;
  static async from<T extends Id>(
    ids: readonly T[] | Ids<T>,
    vectors: Float32Array | Tensor<'float32'>,
    options: HnswIndexOptions & HnswBuildOptions & JobOptions = {},
  ): Promise<HnswIndex<T>> {
    knownOptions(options, [...optionNames, 'parallel', 'signal', 'onProgress']);
    const settings = checkSettings(options);
    const parallel = checkParallel(options);
    const count = countOf(ids);
    if (count === 0) throw new TopknotError('ERR_VALUE', 'ids: expected at least one but received none');
    using matrix = asMatrix(vectors, count);
    const known = await distinct(ids);
    const index = await runJob('long', options, (control) =>
      native.hnswBuild(control, matrix.handle, settings, parallel),
    );
    return new HnswIndex(known, matrix.shape[1]!, settings, index);
  }

  /** Reads what `save` wrote: the same graph, so the same answers. @throws ERR_IO, ERR_FORMAT, ERR_DEPENDENCY */
  static async load<T extends Id = Id>(path: string, options: JobOptions = {}): Promise<HnswIndex<T>> {
    const { tensors, metadata } = await readSafetensors(path, options);
    if (metadata.get('format') !== 'topknot' || metadata.get('index') !== 'hnsw')
      throw new TopknotError(
        'ERR_FORMAT',
        `path: '${path}' is a safetensors file but not an HnswIndex saved by topknot`,
      );
    if (metadata.get('version') !== fileVersion)
      throw new TopknotError(
        'ERR_FORMAT',
        `path: '${path}' is an HnswIndex of version '${metadata.get('version')}'; this topknot reads version ${fileVersion}`,
      );
    try {
      const settings = checkSettings({
        metric: metadata.get('metric') as VectorMetric,
        ...Object.fromEntries(numberNames.map((name) => [name, Number(metadata.get(name))])),
      });
      const part = (name: string) => {
        const t = tensors.get(name);
        if (!t) throw new TopknotError('ERR_FORMAT', `the tensor '${name}' is missing`);
        return t.handle;
      };
      const state = {
        vectors: part('vectors'),
        keys: part('keys'),
        levels: part('levels'),
        counts: part('counts'),
        neighbours: part('neighbours'),
        entry: integer('entry', Number(metadata.get('entry')), 0),
        bound: finite('bound', Number(metadata.get('bound')), 0),
      };
      const count = integer('count', Number(metadata.get('count')), 0);
      const ids = await loadIds<T>('items', count, metadata, tensors, options.signal);
      const { signal } = options;
      const { index, live } = await runJob('long', { signal }, (control) => native.hnswLoad(control, state, settings));
      if (live !== count) throw new TopknotError('ERR_FORMAT', `keys: expected ${count} but the file has ${live}`);
      return new HnswIndex(ids, tensors.get('vectors')!.shape[1]!, settings, index);
    } catch (cause) {
      if (options.signal?.aborted || !(cause instanceof TopknotError) || cause.code === 'ERR_DEPENDENCY') throw cause;
      throw new TopknotError('ERR_FORMAT', `path: '${path}' is not a whole index: ${cause.message}`, { cause });
    }
  }

  /** Whether this build of topknot has the graph: prebuilt ones do, source builds where usearch was installed. */
  static get available(): boolean {
    return native.hnswAvailable();
  }

  /** Number of vectors. */
  get size(): number {
    return this.#ids.live;
  }

  has(id: T): boolean {
    return this.#ids.has(id);
  }

  /**
   * The best vectors for one query, or for each of many: an array of vectors or a float32 tensor [queries, d]. Those that
   * are found have the scores of exact search (under cosine, of the vectors scaled to length 1 in float32).
   * @throws ERR_RANGE for k below 1 or above `size`; ERR_SHAPE for a query of another length than `dimensions`;
   * ERR_VALUE for a query that is not finite; ERR_ARGUMENT; ERR_DISPOSED
   */
  search(query: Vector, options?: HnswSearchOptions<T> & JobOptions): Promise<SearchResult<T>>;
  search(
    queries: readonly Vector[] | Tensor<'float32'>,
    options?: HnswSearchOptions<T> & JobOptions,
  ): Promise<SearchResult<T>[]>;
  async search(
    queries: Queries,
    options: HnswSearchOptions<T> & JobOptions = {},
  ): Promise<SearchResult<T> | SearchResult<T>[]> {
    let flat = flatQueries(queries, this.dimensions);
    if (options?.filter) {
      if (flat === queries) flat = queries.slice(); // the caller may change it while we wait
      await this.#ids.ready();
    }
    const call = this.#call(flat, options);
    const found = await runJob('query', options, (control) => native.hnswSearch(control, ...call));
    return this.#results(queries, found as TopKRows, call[2]);
  }

  /** Like `search`, but blocks the calling thread until the answer is there: for callers that count microseconds. */
  searchSync(query: Vector, options?: HnswSearchOptions<T>): SearchResult<T>;
  searchSync(queries: readonly Vector[] | Tensor<'float32'>, options?: HnswSearchOptions<T>): SearchResult<T>[];
  searchSync(queries: Queries, options: HnswSearchOptions<T> = {}): SearchResult<T> | SearchResult<T>[] {
    const call = this.#call(flatQueries(queries, this.dimensions), options);
    return this.#results(queries, native.hnswSearchSync(...call) as TopKRows, call[2]);
  }

  /**
   * Brings new vectors in: all of them or, when it fails or is aborted, none.
   * @throws ERR_VALUE for an id that is there already or comes twice, or a number that is not finite; ERR_SHAPE
   */
  add(
    ids: readonly T[] | Ids<T>,
    vectors: Float32Array | Tensor<'float32'>,
    options: HnswBuildOptions & JobOptions = {},
  ): Promise<void> {
    return this.#put(ids, vectors, options, async (known, change) => {
      const rows = await this.#ids.reserve(known, options.signal);
      try {
        await change(noRows, rows);
      } catch (error) {
        this.#ids.release(rows.length);
        throw error;
      }
      await this.#ids.commit(rows);
    });
  }

  /** Gives ids that are there other vectors: all of them or none. @throws ERR_UNKNOWN_ID, and as `add` */
  update(
    ids: readonly T[] | Ids<T>,
    vectors: Float32Array | Tensor<'float32'>,
    options: HnswBuildOptions & JobOptions = {},
  ): Promise<void> {
    return this.#put(ids, vectors, options, async (known, change) => {
      const rows = await this.#ids.rowsOf(known, options.signal);
      await change(rows, rows);
    });
  }

  /**
   * Takes vectors away: all of them or none. They stay in the graph as signposts, and in memory, until added or updated
   * vectors take their places.
   * @throws ERR_UNKNOWN_ID; ERR_VALUE for an id that comes twice
   */
  async remove(ids: readonly T[] | Ids<T>, options: JobOptions = {}): Promise<void> {
    knownOptions(options, ['signal', 'onProgress']);
    countOf(ids);
    await this.#next(options, distinct(ids), async (known) => {
      const rows = await this.#ids.rowsOf(known, options.signal);
      using none = tensor(new Float32Array(0), { shape: [0, this.dimensions] });
      await this.#unlessDone(() =>
        runJob('long', options, (control) =>
          native.hnswChange(control, this.#index, asTyped(rows), asTyped(noRows), none.handle, false),
        ),
      );
      await this.#ids.remove(rows);
    });
  }

  /** Writes all of the index to one safetensors file, whole or not at all. @throws ERR_IO, ERR_VALUE */
  async save(path: string, options: JobOptions = {}): Promise<void> {
    knownOptions(options, ['signal', 'onProgress']);
    await this.#next(options, Promise.resolve(), async () => {
      const { signal } = options;
      const { entry, bound, ...state } = await runJob('long', { signal }, (control) =>
        native.hnswState(control, this.#index),
      );
      const ids = await saveIds('items', await this.#ids.snapshot(signal), signal);
      const metadata = {
        format: 'topknot',
        version: fileVersion,
        index: 'hnsw',
        metric: this.metric,
        ...Object.fromEntries(numberNames.map((name) => [name, String(this[name])])),
        count: String(this.size),
        entry: String(entry),
        bound: String(bound),
        ...ids.metadata,
      };
      const parts = Object.entries(state).map(([name, handle]) => [name, new Tensor(handle)] as const);
      try {
        await writeSafetensors(path, [...parts, ...ids.tensors], { ...options, metadata });
      } finally {
        for (const [, part] of parts) part.dispose();
      }
    });
  }

  /** Frees the memory now, unless a running search still needs it. */
  dispose(): void {
    native.dispose(this.#index);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** The arguments of the one native call. */
  #call(queries: ReturnType<typeof flatQueries>, options: HnswSearchOptions<T>) {
    knownOptions(options, ['k', 'filter', 'expansionSearch', 'signal', 'onProgress']);
    const { k, filter, expansionSearch } = options;
    const held = heldFilter(filter);
    const allowed = held && allowedBits(this.#ids, held);
    return [
      this.#index,
      queries,
      k === undefined ? Math.max(1, Math.min(10, this.size)) : checkK(k, this.size),
      expansionSearch === undefined ? this.expansionSearch : expansion('expansionSearch', expansionSearch),
      allowed as Parameters<typeof native.hnswSearchSync>[4],
    ] as const;
  }

  #results(queries: Queries, found: TopKRows, k: number): SearchResult<T> | SearchResult<T>[] {
    const idOf = (row: number) => this.#ids.at(row);
    if (isOne(queries)) return resultOf(found, 0, k, idOf);
    return Array.from({ length: found.ids.length / k }, (_, q) => resultOf(found, q, k, idOf));
  }

  /** What `add` and `update` share: what can be checked is checked now, the change comes in its turn. */
  async #put(
    ids: readonly T[] | Ids<T>,
    vectors: Float32Array | Tensor<'float32'>,
    options: HnswBuildOptions & JobOptions,
    put: (ids: Ids<T>, change: (removed: Int32Array, rows: Int32Array) => Promise<void>) => Promise<void>,
  ): Promise<void> {
    knownOptions(options, ['parallel', 'signal', 'onProgress']);
    const parallel = checkParallel(options);
    using matrix = asMatrix(vectors, countOf(ids), this.dimensions);
    const change = (removed: Int32Array, rows: Int32Array) =>
      this.#unlessDone(() =>
        runJob('long', options, (control) =>
          native.hnswChange(control, this.#index, asTyped(removed), asTyped(rows), matrix.handle, parallel),
        ),
      );
    await this.#next(options, distinct(ids), (known) => put(known, change));
  }

  /**
   * Runs a change. One that is stopped in its last moment may have come through: it then counts as done, because searches
   * see it. Changes run one after another, so the version tells.
   */
  async #unlessDone(change: () => Promise<void>): Promise<void> {
    const before = native.hnswVersion(this.#index);
    try {
      await change();
    } catch (error) {
      if (native.hnswVersion(this.#index) === before) throw error;
    }
  }

  /** Runs after the changes that were asked for before it, whether they failed or not. */
  #next<I>(options: JobOptions, input: Promise<I>, work: (input: I) => Promise<void>): Promise<void> {
    checkJob(options);
    const done = Promise.all([input, this.#changes]).then(([value]) => {
      options.signal?.throwIfAborted();
      return work(value);
    });
    const before = this.#changes;
    this.#changes = done.catch(() => before);
    return done;
  }
}

const fileVersion = '1';
const numberNames = ['connectivity', 'expansionAdd', 'expansionSearch'] as const;
const optionNames = ['metric', ...numberNames];
const noRows = new Int32Array(0);
const asTyped = (rows: Int32Array) => rows as Parameters<typeof native.hnswChange>[2];
const expansion = (name: string, value: number) => integer(name, value, 1, 65536);

function checkSettings(options: HnswIndexOptions): Settings {
  return {
    metric: oneOf('metric', options.metric ?? 'innerProduct', metrics),
    connectivity: integer('connectivity', options.connectivity ?? 16, 2, 1024),
    expansionAdd: expansion('expansionAdd', options.expansionAdd ?? 128),
    expansionSearch: expansion('expansionSearch', options.expansionSearch ?? 64),
  };
}

function checkParallel({ parallel = false }: HnswBuildOptions): boolean {
  return typeof parallel === 'boolean' ? parallel : expected('parallel', 'a boolean', parallel);
}

function countOf(ids: readonly Id[] | Ids): number {
  if (ids instanceof Ids) return ids.size;
  return Array.isArray(ids) ? ids.length : expected('ids', 'an array of ids', ids);
}

const distinct = <T extends Id>(ids: readonly T[] | Ids<T>) =>
  ids instanceof Ids ? ids.distinct('ids') : Ids.checked(ids, 'ids');
