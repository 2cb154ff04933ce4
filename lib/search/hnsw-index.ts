import { checkK, knownOptions } from '../check.js';
import { type Id, Ids } from '../data/ids.js';
import { expected, TopknotError } from '../errors.js';
import { checkJob, type JobOptions, runJob } from '../job.js';
import type { TopKRows } from '../models/recommender.js';
import { native } from '../native.js';
import type { Resource } from '../native-ops.js';
import { allowedBits } from '../ops/item-filter.js';
import type { VectorMetric } from '../ops/top-k.js';
import { type Tensor, tensor } from '../tensor.js';
import { loadHnsw, saveHnsw } from './hnsw-file.js';
import {
  checkExpansion,
  checkParallel,
  checkSettings,
  type HnswBuildOptions,
  type HnswIndexOptions,
  type HnswIndexStats,
  type HnswSearchOptions,
  type HnswSettings,
  knownGraphOptions,
  numberNames,
} from './hnsw-options.js';
import { KeyedIds } from './keyed-ids.js';
import { shareFound } from './recall.js';
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

/** The graph, and what its keys stand for. Searches hold on to the one that they began with. */
interface Snapshot<T extends Id> {
  readonly index: Resource;
  readonly ids: KeyedIds<T>;
}

/** What a search is asked, the filter apart. */
interface Asked<T extends Id> {
  readonly queries: ReturnType<typeof flatQueries>;
  readonly options: HnswSearchOptions<T>;
  readonly filter: HnswSearchOptions<T>['filter'];
}

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
  readonly #queries = { approximate: 0, exact: 0 };
  #now: Snapshot<T>;
  /** Ends when the changes that were asked for so far have. */
  #changes: Promise<unknown> = Promise.resolve();

  private constructor(ids: Ids<T>, dimensions: number, settings: HnswSettings, index: Resource) {
    this.#now = { index, ids: new KeyedIds(ids) };
    this.dimensions = dimensions;
    this.metric = settings.metric;
    this.connectivity = settings.connectivity;
    this.expansionAdd = settings.expansionAdd;
    this.expansionSearch = settings.expansionSearch;
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
    knownGraphOptions(options, [...optionNames, 'parallel', 'signal', 'onProgress']);
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

  /**
   * Reads what `save` wrote: the same graph, so the same answers.
   * @param options.map leaves vectors and graph in the file (see `mapSafetensors`): the links of the graph are checked, which
   * reads them once, and the vectors are read as searches need them. They are not checked to be finite then. The first change
   * copies all of it into memory.
   * @throws ERR_IO; ERR_FORMAT for a file that is no index, is cut short or is of another version; ERR_DEPENDENCY
   */
  static async load<T extends Id = Id>(
    path: string,
    options: JobOptions & { map?: boolean | undefined } = {},
  ): Promise<HnswIndex<T>> {
    knownGraphOptions(options, ['map', 'signal', 'onProgress']);
    const { ids, dimensions, settings, index } = await loadHnsw<T>(path, options);
    return new HnswIndex(ids, dimensions, settings, index);
  }

  /** Whether this build of topknot has the graph: prebuilt ones do, source builds where usearch was installed. */
  static get available(): boolean {
    return native.hnswAvailable();
  }

  /** Number of vectors. */
  get size(): number {
    return this.#now.ids.live;
  }

  /** The ids, in the order in which they were added. Gathered on the first use after a change. */
  get ids(): Ids<T> {
    return this.#now.ids.list;
  }

  has(id: T): boolean {
    return this.#now.ids.has(id);
  }

  /** @throws ERR_DISPOSED */
  get stats(): HnswIndexStats {
    return { signposts: native.hnswCounts(this.#now.index).nodes - this.size, ...this.#queries };
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
    const asked = this.#asked(queries, options);
    if (asked.filter) await this.#now.ids.ready();
    const now = this.#now;
    const call = this.#call(now, asked);
    const found = await runJob('query', options, (control) => native.hnswSearch(control, ...call));
    return this.#results(now, queries, found, call[2]);
  }

  /** Like `search`, but blocks the calling thread until the answer is there: for callers that count microseconds. */
  searchSync(query: Vector, options?: HnswSearchOptions<T>): SearchResult<T>;
  searchSync(queries: readonly Vector[] | Tensor<'float32'>, options?: HnswSearchOptions<T>): SearchResult<T>[];
  searchSync(queries: Queries, options: HnswSearchOptions<T> = {}): SearchResult<T> | SearchResult<T>[] {
    const call = this.#call(this.#now, this.#asked(queries, options));
    return this.#results(this.#now, queries, native.hnswSearchSync(...call), call[2]);
  }

  /**
   * The share of the exact k best that `search` finds for these queries, on average. Searches twice, once by comparing each
   * query with every vector. Waits for changes, and they for it.
   */
  async recall(
    queries: readonly Vector[] | Tensor<'float32'>,
    options: HnswSearchOptions<T> & JobOptions = {},
  ): Promise<number> {
    const asked = this.#asked(queries, options, true);
    return await this.#next(options, undefined, async () => {
      await this.#now.ids.ready();
      const [index, flat, k, expansion, allowed] = this.#call(this.#now, asked);
      const search = (candidates: number) =>
        runJob('query', options, (control) => native.hnswSearch(control, index, flat, k, candidates, allowed));
      const [found, exact] = [await search(expansion), await search(0)] as unknown as [TopKRows, TopKRows];
      return shareFound(found, exact, k);
    });
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
      const rows = await this.#now.ids.reserve(known, options.signal);
      try {
        await change(noRows, rows);
      } catch (error) {
        this.#now.ids.release(rows.length);
        throw error;
      }
      await this.#now.ids.commit(rows);
    });
  }

  /** Gives ids that are there other vectors: all of them or none. @throws ERR_UNKNOWN_ID, and as `add` */
  update(
    ids: readonly T[] | Ids<T>,
    vectors: Float32Array | Tensor<'float32'>,
    options: HnswBuildOptions & JobOptions = {},
  ): Promise<void> {
    return this.#put(ids, vectors, options, async (known, change) => {
      const rows = await this.#now.ids.rowsOf(known, options.signal);
      await change(rows, rows);
    });
  }

  /**
   * Takes vectors away: all of them or none. They stay in the graph as signposts, and in memory, until added or updated
   * vectors take their places, or until `compact`.
   * @throws ERR_UNKNOWN_ID; ERR_VALUE for an id that comes twice
   */
  async remove(ids: readonly T[] | Ids<T>, options: JobOptions = {}): Promise<void> {
    knownOptions(options, ['signal', 'onProgress']);
    countOf(ids);
    await this.#next(options, distinct(ids), async (known) => {
      const rows = await this.#now.ids.rowsOf(known, options.signal);
      using none = tensor(new Float32Array(0), { shape: [0, this.dimensions] });
      await this.#unlessDone(() =>
        runJob('long', options, (control) =>
          native.hnswChange(control, this.#now.index, asTyped(rows), asTyped(noRows), none.handle, false),
        ),
      );
      await this.#now.ids.remove(rows);
    });
  }

  /**
   * Drops what removed vectors have left, by linking a graph of the others anew: that takes as long as `from`, and memory for
   * both until it is done. Without signposts (see `stats`) the graph stays as it is. Ids that came and went are forgotten too.
   * Searches go on meanwhile; changes wait. When it fails or is aborted, nothing has changed.
   */
  async compact(options: HnswBuildOptions & JobOptions = {}): Promise<void> {
    knownOptions(options, ['parallel', 'signal', 'onProgress']);
    const parallel = checkParallel(options);
    await this.#next(options, undefined, async () => {
      const { index, ids } = this.#now;
      if (ids.size === ids.live && this.stats.signposts === 0) return;
      const now = {
        ids: await ids.compacted(options.signal),
        index: await runJob('long', options, (control) => native.hnswCompact(control, index, parallel)),
      };
      this.#now = now;
      if (native.dispose(index)) return;
      this.dispose(); // as was the old one meanwhile
      throw new TopknotError('ERR_DISPOSED', 'index: it has been disposed');
    });
  }

  /**
   * Writes all of the index to one safetensors file, whole or not at all, after the changes that were asked for before.
   * @throws ERR_IO; ERR_VALUE for an empty index
   */
  async save(path: string, options: JobOptions = {}): Promise<void> {
    knownOptions(options, ['signal', 'onProgress']);
    await this.#next(options, undefined, async () => {
      const { index, ids } = this.#now;
      await saveHnsw(path, index, await ids.snapshot(options.signal), this, options);
    });
  }

  /** Frees the memory now, unless a running search still needs it. */
  dispose(): void {
    native.dispose(this.#now.index);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** What a search is asked; a copy where a wait is to come, for the ids or for a turn: the caller may change it meanwhile. */
  #asked(given: Queries, options: HnswSearchOptions<T>, waits = false): Asked<T> {
    const queries = flatQueries(given, this.dimensions);
    const filter = heldFilter(options?.filter);
    if (!waits && !filter) return { queries, options, filter };
    return { queries: queries === given ? (given as Float32Array).slice() : queries, options: { ...options }, filter };
  }

  /** The arguments of the one native call. */
  #call({ index, ids }: Snapshot<T>, { queries, options, filter }: Asked<T>) {
    knownOptions(options, ['k', 'filter', 'expansionSearch', 'signal', 'onProgress']);
    const { k, expansionSearch } = options;
    const allowed = filter && allowedBits(ids, filter);
    return [
      index,
      queries,
      k === undefined ? Math.max(1, Math.min(10, ids.live)) : checkK(k, ids.live),
      expansionSearch === undefined ? this.expansionSearch : checkExpansion('expansionSearch', expansionSearch),
      allowed as Parameters<typeof native.hnswSearchSync>[4],
    ] as const;
  }

  #results(
    { ids }: Snapshot<T>,
    queries: Queries,
    raw: Awaited<ReturnType<typeof native.hnswSearch>>,
    k: number,
  ): SearchResult<T> | SearchResult<T>[] {
    const found = raw as unknown as TopKRows;
    const count = found.ids.length / k;
    this.#queries.exact += raw.exact;
    this.#queries.approximate += count - raw.exact;
    const idOf = (row: number) => ids.at(row);
    if (isOne(queries)) return resultOf(found, 0, k, idOf);
    return Array.from({ length: count }, (_, q) => resultOf(found, q, k, idOf));
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
          native.hnswChange(control, this.#now.index, asTyped(removed), asTyped(rows), matrix.handle, parallel),
        ),
      );
    await this.#next(options, distinct(ids), (known) => put(known, change));
  }

  /**
   * Runs a change. One that is stopped in its last moment may have come through: it then counts as done, because searches
   * see it. Changes run one after another, so the version tells.
   */
  async #unlessDone(change: () => Promise<void>): Promise<void> {
    const { index } = this.#now;
    const before = native.hnswCounts(index).version;
    try {
      await change();
    } catch (error) {
      if (native.hnswCounts(index).version === before) throw error;
    }
  }

  /** Runs after the changes that were asked for before it, whether they failed or not. */
  #next<I, R>(options: JobOptions, input: I | Promise<I>, work: (input: I) => Promise<R>): Promise<R> {
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

const optionNames = ['metric', ...numberNames];
const noRows = new Int32Array(0);
const asTyped = (rows: Int32Array) => rows as Parameters<typeof native.hnswChange>[2];

function countOf(ids: readonly Id[] | Ids): number {
  if (ids instanceof Ids) return ids.size;
  return Array.isArray(ids) ? ids.length : expected('ids', 'an array of ids', ids);
}

const distinct = <T extends Id>(ids: readonly T[] | Ids<T>) =>
  ids instanceof Ids ? ids.distinct('ids') : Ids.checked(ids, 'ids');
