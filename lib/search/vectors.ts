import { expected, TopknotError } from '../errors.js';
import type { TopKRows } from '../models/recommender.js';
import type { Handle } from '../native-ops.js';
import { Tensor, tensor } from '../tensor.js';
import type { Vector } from './flat-index.js';

// What every index does with vectors that come in and rows that go out.

/** One query, or many: an array of vectors or a float32 tensor [queries, d]. @internal */
export type Queries = Vector | readonly Vector[] | Tensor<'float32'>;

/** Whether this is one vector rather than many. @internal */
export function isOne(queries: Queries): queries is Vector {
  return queries instanceof Float32Array || (Array.isArray(queries) && typeof queries[0] === 'number');
}

/** The queries as the addon takes them: one after the other, of `dimensions` numbers each. @internal */
export function flatQueries(queries: Queries, dimensions: number): Float32Array | Handle {
  const checked = <V extends Vector>(query: V, name: string): V => {
    if (query.length === dimensions) return query;
    const hint = query.length === 0 ? '; was it transferred elsewhere?' : '';
    throw new TopknotError('ERR_SHAPE', `${name}: expected ${dimensions} numbers but received ${query.length}${hint}`);
  };
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

/** A typo such as a string becomes an error; NaN is refused with that of Float32Arrays, by the addon. */
const toNumber = (x: number): number => (typeof x === 'number' ? x : expected('query', 'numbers', x));

/**
 * Vectors given for `count` ids as a tensor [count, d]: a handle of our own, or a copy.
 * @param dimensions what d must be, where that is settled
 * @internal
 */
export function asMatrix(
  vectors: Float32Array | Tensor<'float32'>,
  count: number,
  dimensions?: number,
): Tensor<'float32'> {
  if (vectors instanceof Tensor) {
    if (vectors.dtype !== 'float32')
      throw new TopknotError('ERR_DTYPE', `vectors: expected float32 but received ${vectors.dtype}`);
    const [rows, width] = vectors.shape;
    if (vectors.shape.length !== 2 || rows !== count || !width || width !== (dimensions ?? width))
      throw new TopknotError(
        'ERR_SHAPE',
        `vectors: expected shape [${count}, ${dimensions ?? 'd'}], a row for each id, but received [${vectors.shape}]`,
      );
    return vectors.reshape(vectors.shape);
  }
  if (!(vectors instanceof Float32Array)) expected('vectors', 'a Float32Array or a Tensor', vectors);
  const width = dimensions ?? vectors.length / count;
  if (!Number.isInteger(width) || width < 1 || vectors.length !== count * width)
    throw new TopknotError(
      'ERR_SHAPE',
      `vectors: expected ${dimensions ?? 'the same number of'} values for each of ${count} ids but received ${vectors.length} values`,
    );
  return tensor(vectors, { shape: [count, width] });
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
