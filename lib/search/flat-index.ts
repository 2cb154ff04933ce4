import { checkK, knownOptions, oneOf } from '../check.js';
import { type Id, Ids } from '../data/ids.js';
import { expected, TopknotError } from '../errors.js';
import { loadIds, saveIds } from '../format/ids.js';
import { readSafetensors, writeSafetensors } from '../format/safetensors.js';
import { type JobOptions, runJob } from '../job.js';
import type { TopKRows } from '../models/recommender.js';
import { native } from '../native.js';
import type { Handle } from '../native-ops.js';
import { allowedBits, type ItemFilter, nativeFilter } from '../ops/item-filter.js';
import { metrics, type VectorMetric } from '../ops/top-k.js';
import { Tensor, tensor } from '../tensor.js';

export interface FlatIndexOptions {
  /** 'innerProduct' unless given. */
  metric?: VectorMetric | undefined;
}

export interface SearchOptions<T extends Id = Id> {
  /** How many; 10 unless given, or all where the index is smaller. Fewer come back only where the filter leaves fewer. */
  k?: number | undefined;
  filter?: ItemFilter<T> | undefined;
}

/** The answer to one query, best first. */
export interface SearchResult<T extends Id = Id> {
  ids: T[];
  /** Inner product or cosine, falling; squared distance, rising. */
  scores: Float32Array;
}

/** One vector of as many numbers as the index has dimensions. */
export type Vector = Float32Array | readonly number[];

const noFilter = nativeFilter();

/**
 * Exact search over float32 vectors under the caller's ids: every vector is compared with the query. Immutable.
 * Results with equal scores come in the order of the ids given to `from`.
 *
 * @example
 * const index = await FlatIndex.from(['a', 'b'], new Float32Array([1, 0, 0, 1]), { metric: 'cosine' });
 * const { ids, scores } = await index.search(new Float32Array([1, 1]), { k: 1, filter: { deny: ['a'] } });
 */
export class FlatIndex<T extends Id = Id> implements Disposable {
  readonly ids: Ids<T>;
  readonly metric: VectorMetric;
  /** Numbers in a vector. */
  readonly dimensions: number;
  readonly #vectors: Tensor<'float32'>;
  readonly #norms: Tensor<'float32'> | undefined;

  private constructor(
    ids: Ids<T>,
    metric: VectorMetric,
    vectors: Tensor<'float32'>,
    norms: Tensor<'float32'> | undefined,
  ) {
    this.ids = ids;
    this.metric = metric;
    this.dimensions = vectors.shape[1]!;
    this.#vectors = vectors;
    this.#norms = norms;
  }

  /**
   * An index over `vectors`, a float32 tensor [n, d] (shared, not copied) or a Float32Array of n · d numbers (copied).
   * @param ids n distinct ids of one type
   * @throws ERR_VALUE for an id that comes twice or a number that is not finite; ERR_SHAPE; ERR_ARGUMENT
   */
  static async from<T extends Id>(
    ids: readonly T[] | Ids<T>,
    vectors: Float32Array | Tensor<'float32'>,
    options: FlatIndexOptions & JobOptions = {},
  ): Promise<FlatIndex<T>> {
    knownOptions(options, ['metric', 'signal', 'onProgress']);
    const metric = oneOf('metric', options.metric ?? 'innerProduct', metrics);
    if (!(ids instanceof Ids) && !Array.isArray(ids)) expected('ids', 'an array of ids', ids);
    const count = ids instanceof Ids ? ids.size : ids.length;
    const matrix = asMatrix(vectors, count);
    const known = ids instanceof Ids ? ids : await Ids.checked(ids, 'ids');
    return FlatIndex.#over(known, metric, matrix, options);
  }

  /** Reads what `save` wrote. @throws ERR_IO, ERR_FORMAT */
  static async load<T extends Id = Id>(path: string, options: JobOptions = {}): Promise<FlatIndex<T>> {
    const { tensors, metadata } = await readSafetensors(path, options);
    const vectors = tensors.get('vectors');
    if (metadata.get('format') !== 'topknot' || metadata.get('index') !== 'flat' || vectors?.shape.length !== 2)
      throw new TopknotError('ERR_FORMAT', `path: '${path}' is a safetensors file but not an index saved by topknot`);
    try {
      const metric = oneOf('metric', metadata.get('metric'), metrics);
      const ids = await loadIds<T>('items', vectors.shape[0]!, metadata, tensors, options.signal);
      return await FlatIndex.#over(ids, metric, vectors as Tensor<'float32'>, options);
    } catch (cause) {
      if (options.signal?.aborted || !(cause instanceof TopknotError)) throw cause;
      throw new TopknotError('ERR_FORMAT', `path: '${path}' is not a whole index: ${cause.message}`, { cause });
    }
  }

  static async #over<T extends Id>(
    ids: Ids<T>,
    metric: VectorMetric,
    vectors: Tensor<'float32'>,
    { signal }: JobOptions,
  ) {
    await runJob('long', { signal }, (control) => native.requireFinite(control, vectors.handle));
    if (metric === 'innerProduct') return new FlatIndex(ids, metric, vectors, undefined);
    const norms = await runJob('long', { signal }, (control) => native.squaredNorms(control, vectors.handle));
    return new FlatIndex(ids, metric, vectors, new Tensor<'float32'>(norms));
  }

  /** Number of vectors. */
  get size(): number {
    return this.ids.size;
  }

  /**
   * The best vectors for one query, or for each of many: an array of vectors or a float32 tensor [queries, d].
   * @throws ERR_RANGE for k below 1 or above `size`; ERR_SHAPE for a query of another length than `dimensions`;
   * ERR_VALUE for a query that is not finite; ERR_ARGUMENT
   */
  search(query: Vector, options?: SearchOptions<T> & JobOptions): Promise<SearchResult<T>>;
  search(
    queries: readonly Vector[] | Tensor<'float32'>,
    options?: SearchOptions<T> & JobOptions,
  ): Promise<SearchResult<T>[]>;
  async search(
    queries: Vector | readonly Vector[] | Tensor<'float32'>,
    options: SearchOptions<T> & JobOptions = {},
  ): Promise<SearchResult<T> | SearchResult<T>[]> {
    const one = isOne(queries);
    let flat = this.#flat(queries);
    if (options?.filter) {
      if (flat === queries) flat = queries.slice(); // the caller may change it while we wait
      await this.ids.ready();
    }
    const call = this.#call(flat, options);
    const found = (await runJob('query', options, (control) => native.search(control, ...call))) as TopKRows;
    return one ? this.#result(found, 0, call[4]) : this.#results(found, call[4]);
  }

  /**
   * Like `search`, but blocks the calling thread until the answer is there: for small indexes and callers that count
   * microseconds.
   */
  searchSync(query: Vector, options?: SearchOptions<T>): SearchResult<T>;
  searchSync(queries: readonly Vector[] | Tensor<'float32'>, options?: SearchOptions<T>): SearchResult<T>[];
  searchSync(
    queries: Vector | readonly Vector[] | Tensor<'float32'>,
    options: SearchOptions<T> = {},
  ): SearchResult<T> | SearchResult<T>[] {
    const call = this.#call(this.#flat(queries), options);
    const found = native.searchSync(...call) as TopKRows;
    return isOne(queries) ? this.#result(found, 0, call[4]) : this.#results(found, call[4]);
  }

  /** Writes vectors and ids to one safetensors file, whole or not at all. @throws ERR_IO, ERR_VALUE */
  async save(path: string, options: JobOptions = {}): Promise<void> {
    const ids = await saveIds('items', this.ids, options.signal);
    const metadata = { format: 'topknot', version: '1', index: 'flat', metric: this.metric, ...ids.metadata };
    await writeSafetensors(path, [['vectors', this.#vectors], ...ids.tensors], { ...options, metadata });
  }

  /** Frees the memory now, unless a running search or a tensor of the caller still needs it. */
  dispose(): void {
    this.#vectors.dispose();
    this.#norms?.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** The arguments of the one native call. */
  #call(queries: Float32Array | Handle, options: SearchOptions<T>) {
    knownOptions(options, ['k', 'filter', 'signal', 'onProgress']);
    const { k, filter } = options;
    const allowed = filter && allowedBits(this.ids, filter);
    return [
      queries,
      undefined,
      this.#vectors.handle,
      this.#norms?.handle,
      k === undefined ? Math.min(10, this.size) : checkK(k, this.size),
      this.metric,
      allowed ? nativeFilter({ allowed }) : noFilter,
    ] as const;
  }

  #flat(queries: Vector | readonly Vector[] | Tensor<'float32'>): Float32Array | Handle {
    if (queries instanceof Tensor) return queries.handle;
    if (queries instanceof Float32Array) return this.#expectLength(queries, 'query');
    if (!Array.isArray(queries)) expected('query', 'a Float32Array, an array of them or a Tensor', queries);
    if (isOne(queries as readonly number[])) return Float32Array.from(this.#expectLength(queries, 'query'), toNumber);
    const flat = new Float32Array(queries.length * this.dimensions);
    (queries as readonly Vector[]).forEach((query, i) => {
      const isVector = query instanceof Float32Array || Array.isArray(query);
      if (!isVector) expected(`queries[${i}]`, 'a Float32Array or an array of numbers', query);
      flat.set(this.#expectLength(query, `queries[${i}]`), i * this.dimensions);
    });
    return flat;
  }

  #expectLength<V extends Vector>(query: V, name: string): V {
    if (query.length !== this.dimensions)
      throw new TopknotError(
        'ERR_SHAPE',
        `${name}: expected ${this.dimensions} numbers but received ${query.length}${query.length === 0 ? '; was it transferred elsewhere?' : ''}`,
      );
    return query;
  }

  #results(found: TopKRows, k: number): SearchResult<T>[] {
    return Array.from({ length: found.ids.length / k }, (_, q) => this.#result(found, q, k));
  }

  #result(found: TopKRows, query: number, k: number): SearchResult<T> {
    const ids: T[] = [];
    const begin = query * k;
    for (let at = begin; at < begin + k; at++) {
      const row = found.ids[at]!;
      if (row < 0) break;
      ids.push(this.ids.at(row));
    }
    return {
      ids,
      scores: found.scores.length === ids.length ? found.scores : found.scores.slice(begin, begin + ids.length),
    };
  }
}

/** A typo such as a string becomes an error; NaN is refused with that of Float32Arrays, by the addon. */
const toNumber = (x: number): number => (typeof x === 'number' ? x : expected('query', 'numbers', x));

/** Whether this is one vector rather than many. */
function isOne(queries: Vector | readonly Vector[] | Tensor<'float32'>): queries is Vector {
  return queries instanceof Float32Array || (Array.isArray(queries) && typeof queries[0] === 'number');
}

function asMatrix(vectors: Float32Array | Tensor<'float32'>, count: number): Tensor<'float32'> {
  if (count === 0) throw new TopknotError('ERR_VALUE', 'ids: expected at least one but received none');
  if (vectors instanceof Tensor) {
    if (vectors.dtype !== 'float32')
      throw new TopknotError('ERR_DTYPE', `vectors: expected float32 but received ${vectors.dtype}`);
    if (vectors.shape.length !== 2 || vectors.shape[0] !== count || !vectors.shape[1])
      throw new TopknotError(
        'ERR_SHAPE',
        `vectors: expected shape [${count}, d], a row for each id, but received [${vectors.shape}]`,
      );
    return vectors.reshape(vectors.shape); // a handle of our own
  }
  if (!(vectors instanceof Float32Array)) expected('vectors', 'a Float32Array or a Tensor', vectors);
  if (vectors.length === 0 || vectors.length % count !== 0)
    throw new TopknotError(
      'ERR_SHAPE',
      `vectors: expected the same number of values for each of ${count} ids but received ${vectors.length} values`,
    );
  return tensor(vectors, { shape: [count, vectors.length / count] });
}
