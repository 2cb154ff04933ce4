import { CsrMatrix } from '../csr.js';
import type { Id, Ids } from '../data/ids.js';
import { expected, TopknotError } from '../errors.js';
import type { RowFilter } from '../models/recommender.js';
import type { native } from '../native.js';

/**
 * Which items may be returned, by id. Applied before selection: k results come back whenever k such items exist.
 *
 * Ids that are not known cannot be returned anyway, so they change nothing; ids of another type than the known ones
 * (such as `'1'` where ids are numbers) are refused with ERR_ARGUMENT.
 */
export interface ItemFilter<I extends Id = Id> {
  /** Only these. */
  allow?: Iterable<I> | undefined;
  /** None of these. */
  deny?: Iterable<I> | undefined;
}

/** A filter by row numbers, as the addon takes it: typed arrays are copied there. @internal */
export function nativeFilter(filter: RowFilter = {}): NativeFilter {
  checkFilter(filter, ['seen', 'seenRows', 'allowed']);
  const { seen, seenRows, allowed } = filter;
  if (seen !== undefined && !(seen instanceof CsrMatrix)) expected('filter.seen', 'a CsrMatrix', seen);
  return { seen: seen?.handles, seenRows, allowed } as unknown as NativeFilter;
}

/** A filter that is misspelt would let everything through. @internal */
export function checkFilter(filter: object, known: readonly string[]): void {
  if (typeof filter !== 'object' || filter === null || Array.isArray(filter) || filter instanceof Set)
    expected('filter', `an object of ${known.join(', ')}`, filter);
  for (const name of Object.keys(filter))
    if (!known.includes(name))
      throw new TopknotError('ERR_ARGUMENT', `filter.${name}: no such part of a filter; known are ${known.join(', ')}`);
}

type NativeFilter = Parameters<typeof native.searchSync>[6];

/**
 * The filter as a bitmap, or undefined when it excludes nothing: bit i % 64 of word i / 64 is set when row i may be
 * returned. `denyRows` are excluded too.
 * @internal
 */
export function allowedBits<I extends Id>(
  ids: Ids<I>,
  filter: ItemFilter<I>,
  denyRows: Iterable<number> = [],
): BigInt64Array | undefined {
  const deny = filter.deny === undefined ? [] : knownRows(ids, filter.deny, 'deny');
  const denied = [...deny, ...denyRows];
  if (filter.allow === undefined && denied.length === 0) return undefined;
  const words = new BigInt64Array(Math.ceil(ids.size / 64));
  const bytes = new Uint8Array(words.buffer); // Little-endian, as all of our platforms are.
  if (filter.allow === undefined) bytes.fill(255);
  else for (const row of knownRows(ids, filter.allow, 'allow')) bytes[row >> 3]! |= 1 << (row & 7);
  for (const row of denied) bytes[row >> 3]! &= ~(1 << (row & 7));
  return words;
}

function knownRows<I extends Id>(ids: Ids<I>, list: Iterable<I>, name: string): number[] {
  if (typeof list === 'string' || typeof list?.[Symbol.iterator] !== 'function')
    expected(name, 'an array or another iterable of ids', list);
  const rows: number[] = [];
  for (const id of list) {
    if (typeof id !== ids.type)
      throw new TopknotError(
        'ERR_ARGUMENT',
        `${name}: expected ids that are a ${ids.type} but received a ${typeof id}`,
      );
    const row = ids.indexOf(id);
    if (row >= 0) rows.push(row);
  }
  return rows;
}
