import type { Id } from '../data/ids.js';
import { expected, TopknotError } from '../errors.js';
import type { TopKRows } from '../models/recommender.js';
import type { Handle } from '../native-ops.js';
import { checkFilter, type ItemFilter } from '../ops/item-filter.js';
import { Tensor, tensor } from '../tensor.js';

// What every index does with vectors that come in and rows that go out.

/** One vector of as many numbers as the index has dimensions. */
export type Vector = Float32Array | readonly number[];

/** The answer to one query, best first. */
export interface SearchResult<T extends Id = Id> {
  ids: T[];
  /** Inner product or cosine, falling; squared or Hamming distance, rising. */
  scores: Float32Array;
}

/** One query, or many: an array of vectors or a float32 tensor [queries, d]. @internal */
export type Queries = Vector | readonly Vector[] | Tensor<'float32'>;

/** The same for vectors of bits, eight to a byte. @internal */
export type BitQueries = Uint8Array | readonly Uint8Array[] | Tensor<'uint8'>;

/** Whether this is one vector rather than many. @internal */
export function isOne(queries: Queries): queries is Vector;
export function isOne(queries: Queries | BitQueries): queries is Vector | Uint8Array;
export function isOne(queries: Queries | BitQueries): boolean {
  if (queries instanceof Float32Array || queries instanceof Uint8Array) return true;
  return Array.isArray(queries) && typeof queries[0] === 'number';
}

/** The queries as the addon takes them: one after the other, of `dimensions` numbers each. @internal */
export function flatQueries(queries: Queries, dimensions: number): Float32Array | Handle {
  const checked = <V extends Vector>(query: V, name: string): V => ofLength(query, dimensions, 'numbers', name);
  if (queries instanceof Tensor) return queries.handle;
  if (queries instanceof Float32Array) return checked(queries, 'query');
  if (!Array.isArray(queries)) expected('query', 'a Float32Array, an array of them or a Tensor', queries);
  if (isOne(queries as readonly number[])) return Float32Array.from(checked(queries, 'query'), toNumber);
  const flat = new Float32Array(queries.length * dimensions);
  (queries as readonly Vector[]).forEach((query, i) => {
    const isVector = query instanceof Float32Array || Array.isArray(query);
    if (!isVector) expected(`queries[${i}]`, 'a Float32Array or an array of numbers', query);
    flat.set(checked(query, `queries[${i}]`), i * dimensions);
  });
  return flat;
}

/** The same for queries of `bytes` bytes each. @internal */
export function flatBits(queries: BitQueries, bytes: number): Uint8Array | Handle {
  if (queries instanceof Tensor) return queries.handle;
  if (queries instanceof Uint8Array) return ofLength(queries, bytes, 'bytes', 'query');
  if (!Array.isArray(queries) || typeof queries[0] === 'number')
    expected('query', 'a Uint8Array, an array of them or a Tensor', queries);
  const flat = new Uint8Array(queries.length * bytes);
  (queries as readonly Uint8Array[]).forEach((query, i) => {
    if (!(query instanceof Uint8Array)) expected(`queries[${i}]`, 'a Uint8Array', query);
    flat.set(ofLength(query, bytes, 'bytes', `queries[${i}]`), i * bytes);
  });
  return flat;
}

function ofLength<V extends Vector | Uint8Array>(query: V, length: number, unit: string, name: string): V {
  if (query.length === length) return query;
  const hint = query.length === 0 ? '; was it transferred elsewhere?' : '';
  throw new TopknotError('ERR_SHAPE', `${name}: expected ${length} ${unit} but received ${query.length}${hint}`);
}

/** A typo such as a string becomes an error; NaN is refused with that of Float32Arrays, by the addon. */
const toNumber = (x: number): number => (typeof x === 'number' ? x : expected('query', 'numbers', x));

/**
 * Vectors given for `count` ids as a tensor [count, d] of one of these element types: a handle of our own, or a copy.
 * @param dimensions what d must be, where that is settled
 * @internal
 */
export function asMatrix<D extends 'float32' | 'float16' | 'bfloat16' | 'uint8' = 'float32'>(
  vectors: Float32Array | Uint8Array | Tensor,
  count: number,
  dimensions?: number,
  dtypes: readonly D[] = ['float32' as D],
): Tensor<D> {
  const typed = dtypes.includes('uint8' as D) ? Uint8Array : Float32Array;
  if (vectors instanceof Tensor) {
    if (!dtypes.includes(vectors.dtype as D))
      throw new TopknotError('ERR_DTYPE', `vectors: expected ${dtypes.join(' or ')} but received ${vectors.dtype}`);
    const [rows, width] = vectors.shape;
    if (vectors.shape.length !== 2 || rows !== count || !width || width !== (dimensions ?? width))
      throw new TopknotError(
        'ERR_SHAPE',
        `vectors: expected shape [${count}, ${dimensions ?? 'd'}], a row for each id, but received [${vectors.shape}]`,
      );
    return vectors.reshape(vectors.shape) as Tensor<D>;
  }
  if (!(vectors instanceof typed)) expected('vectors', `a ${typed.name} or a Tensor`, vectors);
  const width = dimensions ?? vectors.length / count;
  if (!Number.isInteger(width) || width < 1 || vectors.length !== count * width)
    throw new TopknotError(
      'ERR_SHAPE',
      `vectors: expected ${dimensions ?? 'the same number of'} values for each of ${count} ids but received ${vectors.length} values`,
    );
  return tensor(vectors, { shape: [count, width] }) as Tensor<D>;
}

/**
 * The filter with lists that can be read more than once and later: the caller may change his own.
 * @internal
 */
export function heldFilter<T extends Id>(filter: ItemFilter<T> | undefined): ItemFilter<T> | undefined {
  if (filter === undefined) return undefined;
  checkFilter(filter, ['allow', 'deny']);
  const held = (list: Iterable<T> | undefined) =>
    typeof list === 'object' && typeof list?.[Symbol.iterator] === 'function' ? [...list] : list;
  return { allow: held(filter.allow), deny: held(filter.deny) };
}

/** One answer out of those of a batch. @internal */
export function resultOf<T>(found: TopKRows, query: number, k: number, idOf: (row: number) => T) {
  const ids: T[] = [];
  const begin = query * k;
  for (let at = begin; at < begin + k; at++) {
    const row = found.ids[at]!;
    if (row < 0) break;
    ids.push(idOf(row));
  }
  const { scores } = found;
  return { ids, scores: scores.length === ids.length ? scores : scores.slice(begin, begin + ids.length) };
}
